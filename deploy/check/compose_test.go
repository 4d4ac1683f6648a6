package check

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/types"
)

// read reads a file as Compose does: schema, merges, variables and paths.
func read(t *testing.T, name string, env ...string) (*types.Project, error) {
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
			if _, err := read(t, name); err == nil || !strings.Contains(err.Error(), "API_TOKEN") {
				t.Errorf("without a token: %v", err)
			}
			p, err := read(t, name, env...)
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
				s, err := p.GetService(want)
				if err != nil || s.Build == nil {
					t.Errorf("%s: %v", want, err)
					continue
				}
				checkComposed(t, s)
			}
			for _, s := range p.Services {
				checkTargets(t, p, s)
			}
		})
	}
}

// checkComposed holds a service of ours against the configuration that its
// variables make: each is read, the port is the one it listens on, and it is
// given time to stop.
func checkComposed(t *testing.T, s types.ServiceConfig) {
	t.Helper()
	env := imageEnvironment(t, s.Build.Target)
	for name, value := range s.Environment {
		env[name] = *value
	}
	checkVariables(t, s.Name, slices.Collect(maps.Keys(env)))
	cfg := load(t, s.Name, env)
	listens, needs := serving(cfg, s.Build.Target)
	if s.StopGracePeriod == nil || time.Duration(*s.StopGracePeriod) <= needs {
		t.Errorf("%s may be killed after %v, but takes up to %v to stop", s.Name, s.StopGracePeriod, needs)
	}
	for _, port := range s.Ports {
		if fmt.Sprintf("0.0.0.0:%d", port.Target) != listens {
			t.Errorf("%s listens on %s, not on %d", s.Name, listens, port.Target)
		}
	}
}

// checkTargets sees to it that a service which another's variables name is
// there.
func checkTargets(t *testing.T, p *types.Project, s types.ServiceConfig) {
	t.Helper()
	for name, value := range s.Environment {
		if value == nil {
			continue
		}
		host, _, found := strings.Cut(strings.TrimPrefix(*value, "http://"), ":")
		if !found || host == "" || host == "0.0.0.0" {
			continue
		}
		if _, err := p.GetService(host); err != nil {
			t.Errorf("%s: %s is %s: %v", s.Name, name, *value, err)
		}
	}
}

// The libsql server knows the flags that it is started with.
func TestTheServerTakesItsFlags(t *testing.T) {
	t.Parallel()
	const program = "../../.cache/sqld/sqld"
	if _, err := os.Stat(program); err != nil {
		skip(t, "there is no libsql server")
	}
	help, err := exec.CommandContext(t.Context(), program, "--help").Output()
	if err != nil {
		t.Fatal(err)
	}
	p, err := read(t, "scaled.yml", "API_TOKEN=secret", "GRAFANA_PASSWORD=other")
	if err != nil {
		t.Fatal(err)
	}
	s, err := p.GetService("sqld")
	if err != nil {
		t.Fatal(err)
	}
	container := build(t, "scaled").workloads["sqld"].pod.Spec.Containers[0]
	if !slices.Equal(container.Command, s.Entrypoint) || container.Image != s.Image {
		t.Errorf("Compose starts %s %v, Kubernetes %s %v", s.Image, s.Entrypoint, container.Image, container.Command)
	}
	for _, arg := range s.Entrypoint[1:] {
		flag, _, _ := strings.Cut(arg, "=")
		if !regexp.MustCompile(regexp.QuoteMeta(flag) + `[^-\w]`).Match(help) {
			t.Errorf("it knows no %s", flag)
		}
	}
}
