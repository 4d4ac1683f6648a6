package archtest

import (
	"bytes"
	"encoding/json"
	"errors"
	"go/parser"
	"go/token"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestTheWorkspaceKeepsTheRules(t *testing.T) {
	t.Parallel()
	pkgs := load(t)
	for _, want := range []string{root + "migrations", core + "job", core + "libsql", core + "telemetry", core + "internal/archtest", root + "apiserver", root + "queuerunner"} {
		if !slices.ContainsFunc(pkgs, func(p Package) bool { return p.Path == want }) {
			t.Errorf("%s was not looked at", want)
		}
	}
	for _, r := range Rules {
		for _, path := range slices.Concat(r.Who, r.Except) {
			if !slices.ContainsFunc(pkgs, func(p Package) bool { return within(p.Path, path) }) {
				t.Errorf("a rule names %s, which does not exist", path)
			}
		}
	}
	for _, w := range Check(Rules, pkgs) {
		t.Error(w)
	}
}

// golist runs the go command in a folder of the workspace.
func golist(t *testing.T, dir string, args ...string) []byte {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOWORK=") // the workspace, also where one module is tested alone
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go %s: %v: %s", strings.Join(args, " "), err, &stderr)
	}
	return out
}

func load(t *testing.T) []Package {
	t.Helper()
	var pkgs []Package
	for dir := range strings.Lines(string(golist(t, ".", "list", "-m", "-f", "{{.Dir}}"))) {
		dir = strings.TrimSpace(dir)
		out := json.NewDecoder(bytes.NewReader(golist(t, dir, "list", "-json=ImportPath,Dir,Imports,TestImports,XTestImports,GoFiles,CgoFiles,IgnoredGoFiles,TestGoFiles,XTestGoFiles", "./...")))
		for {
			var p struct {
				ImportPath, Dir                    string
				Imports, TestImports, XTestImports []string
				GoFiles, CgoFiles, IgnoredGoFiles  []string
				TestGoFiles, XTestGoFiles          []string
			}
			if err := out.Decode(&p); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Fatal(err)
			}
			pkg := Package{Path: p.ImportPath, Imports: p.Imports, TestImports: slices.Concat(p.TestImports, p.XTestImports)}
			files := slices.Concat(p.GoFiles, p.CgoFiles, p.IgnoredGoFiles)
			if len(files) == 0 { // a package of tests says so in one of them
				files = slices.Concat(p.TestGoFiles, p.XTestGoFiles)
			}
			for _, name := range files {
				file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(p.Dir, name), nil, parser.PackageClauseOnly|parser.ParseComments)
				if err != nil {
					t.Fatal(err)
				}
				if file.Doc != nil {
					pkg.DocComments++
				}
			}
			pkgs = append(pkgs, pkg)
		}
	}
	return pkgs
}

func TestEveryRuleCanFail(t *testing.T) {
	t.Parallel()
	imports := func(path string, imports ...string) Package {
		return Package{Path: path, Imports: imports, DocComments: 1}
	}
	tests := func(path string, imports ...string) Package {
		return Package{Path: path, TestImports: imports, DocComments: 1}
	}
	// Each case says which rule must speak, by a piece of its reason.
	for name, c := range map[string]struct {
		pkgs []Package
		want string // "" for none
	}{
		"migrations imports embed":         {[]Package{imports(root+"migrations", "embed")}, ""},
		"migrations imports fmt":           {[]Package{imports(root+"migrations", "embed", "fmt")}, "without taking on a dependency"},
		"a test of migrations":             {[]Package{tests(root+"migrations", "testing")}, "without taking on a dependency"},
		"job imports the standard library": {[]Package{imports(core+"job", "encoding/json", "time")}, ""},
		"job imports a module":             {[]Package{imports(core+"job", "example.com/x")}, "what a job is"},
		"job imports the workspace":        {[]Package{imports(core+"job", core+"libsql")}, "what a job is"},
		"system imports a module":          {[]Package{imports(core+"system", "example.com/x")}, "time and chance"},
		"below job":                        {[]Package{imports(core+"job/deep", "example.com/x")}, "what a job is"},
		"beside job":                       {[]Package{imports(core+"jobs", "example.com/x")}, ""},
		"native imports the driver":        {[]Package{imports(core+"libsql/internal/native", "github.com/tursodatabase/go-libsql")}, ""},
		"queue imports the driver":         {[]Package{imports(core+"queue", "github.com/tursodatabase/go-libsql")}, "crashes"},
		"a test imports the driver":        {[]Package{tests(core+"queue", "github.com/tursodatabase/go-libsql")}, "crashes"},
		"below libsql is not libsql":       {[]Package{imports(core+"libsql/x", "github.com/tursodatabase/go-libsql")}, "crashes"},
		"telemetry imports the SDK":        {[]Package{imports(core+"telemetry", "go.opentelemetry.io/otel/sdk/trace")}, ""},
		"worker imports the API":           {[]Package{imports(core+"worker", "go.opentelemetry.io/otel/trace")}, ""},
		"worker imports the SDK":           {[]Package{imports(core+"worker", "go.opentelemetry.io/otel/sdk/trace")}, "OpenTelemetry's API"},
		"a service imports an exporter":    {[]Package{imports(root+"apiserver", "go.opentelemetry.io/otel/exporters/otlp/otlptrace")}, "OpenTelemetry's API"},
		"the runner runs jobs":             {[]Package{imports(root+"queuerunner", core+"worker", core+"debugjobs")}, ""},
		"the apiserver runs jobs":          {[]Package{imports(root+"apiserver", core+"worker")}, "never runs one"},
		"the apiserver has debug handlers": {[]Package{imports(root+"apiserver", core+"debugjobs")}, "never runs one"},
		"the apiserver has mail handlers":  {[]Package{imports(root+"apiserver", core+"mail/agent")}, "never runs one"},
		"the apiserver runs jobs through another package": {
			[]Package{imports(root+"apiserver", core+"mail"), imports(core+"mail", core+"step"), imports(core+"step", core+"worker")},
			core + "mail, which imports " + core + "step, which imports " + core + "worker: the apiserver stores jobs and never runs one"},
		"the apiserver imports the runner": {[]Package{imports(root+"apiserver", root+"queuerunner/x")}, "deployed apart"},
		"the runner imports the apiserver": {[]Package{tests(root+"queuerunner", root+"apiserver")}, "deployed apart"},
		"the core imports a service":       {[]Package{imports(core+"x", root+"queuerunner")}, "knows nothing of the services"},
		"a service rehearses failure":      {[]Package{imports(root+"queuerunner", core+"fault")}, ""},
		"the worker makes faults":          {[]Package{imports(core+"worker", core+"fault")}, "in a rehearsal"},
		"a test uses the simulator":        {[]Package{tests(core+"worker", core+"internal/sim")}, ""},
		"the worker uses the simulator":    {[]Package{imports(core+"worker", core+"internal/sim")}, "helpers of tests"},
		"a logger of its own":              {[]Package{imports(core+"queue", "github.com/rs/zerolog")}, ""},
		"the global logger":                {[]Package{imports(core+"queue", "github.com/rs/zerolog/log")}, "global logger"},
		"no package comment":               {[]Package{{Path: core + "x"}}, "has 0 package comments"},
		"two package comments":             {[]Package{{Path: core + "x", DocComments: 2}}, "has 2 package comments"},
		"a circle ends":                    {[]Package{imports(root+"apiserver", core+"a"), imports(core+"a", core+"b"), imports(core+"b", core+"a")}, ""},
	} {
		wrong := Check(Rules, c.pkgs)
		switch {
		case c.want == "" && len(wrong) > 0:
			t.Errorf("%s: should be fine, got %q", name, wrong)
		case c.want != "" && (len(wrong) != 1 || !strings.Contains(wrong[0], c.want)):
			t.Errorf("%s: got %q, want one sentence with %q", name, wrong, c.want)
		}
	}
}
