package check

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/types"
)

// load reads a file as Compose does: schema, merges, variables and paths.
func load(t *testing.T, name string, env ...string) (*types.Project, error) {
	t.Helper()
	options, err := cli.NewProjectOptions([]string{"../compose/" + name}, cli.WithEnv(env), cli.WithInterpolation(true), cli.WithConsistency(true))
	if err != nil {
		t.Fatal(err)
	}
	return options.LoadProject(t.Context())
}

func TestComposeTakesItsFiles(t *testing.T) {
	t.Parallel()
	env := []string{"API_TOKEN=secret", "GRAFANA_PASSWORD=other"}
	ours := map[string][]string{
		"single.yml": {"apiserver", "queuerunner"},
		"scaled.yml": {"apiserver-one", "apiserver-two", "queuerunner"},
	}
	files, err := filepath.Glob("../compose/*.yml")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range files {
		name := filepath.Base(path)
		if name == "prometheus.yml" {
			continue
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if _, err := load(t, name); err == nil || !strings.Contains(err.Error(), "API_TOKEN") {
				t.Errorf("without a token: %v", err)
			}
			p, err := load(t, name, env...)
			if err != nil {
				t.Fatal(err)
			}
			dockerfile, err := os.ReadFile("../container/Dockerfile")
			if err != nil {
				t.Fatal(err)
			}
			for _, s := range p.Services {
				if !s.ReadOnly || !slices.Equal(s.CapDrop, []string{"ALL"}) || !slices.Contains(s.SecurityOpt, "no-new-privileges:true") || s.Privileged {
					t.Errorf("%s may do more than it needs", s.Name)
				}
				for _, v := range s.Volumes {
					if v.Type == types.VolumeTypeBind {
						if _, err := os.Stat(v.Source); err != nil || !v.ReadOnly {
							t.Errorf("%s mounts %s, read-only: %t, %v", s.Name, v.Source, v.ReadOnly, err)
						}
					}
				}
				for _, port := range s.Ports {
					if port.HostIP != "127.0.0.1" {
						t.Errorf("%s is open to other machines at %v", s.Name, port)
					}
				}
				if s.Build == nil {
					if _, version, found := strings.Cut(s.Image, ":"); !found || version == "latest" {
						t.Errorf("%s runs any version of %s", s.Name, s.Image)
					}
					continue
				}
				if _, err := os.Stat(filepath.Join(s.Build.Context, s.Build.Dockerfile)); err != nil {
					t.Error(err)
				}
				if !strings.Contains(string(dockerfile), " AS "+s.Build.Target+"\n") {
					t.Errorf("%s is built from %s, which the Dockerfile lacks", s.Name, s.Build.Target)
				}
			}
			for _, want := range ours[name] {
				if s, err := p.GetService(want); err != nil || s.Build == nil {
					t.Errorf("%s: %v", want, err)
				}
			}
		})
	}
}
