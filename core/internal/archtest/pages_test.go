package archtest

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// A page that names a test, a benchmark or a fuzz target names one that there
// is.
func TestPagesNameTestsThatExist(t *testing.T) {
	t.Parallel()
	declared := regexp.MustCompile(`(?m)^func ((?:Test|Benchmark|Fuzz)[A-Z]\w*)\(`)
	named := regexp.MustCompile("`((?:Test|Benchmark|Fuzz)[A-Z]\\w+)`")
	there := map[string]bool{}
	var pages []string
	err := filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && path != top && strings.HasPrefix(d.Name(), ".") && d.Name() != "..":
			return filepath.SkipDir
		case strings.HasSuffix(path, ".md"):
			pages = append(pages, path)
		case strings.HasSuffix(path, "_test.go"):
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			for _, m := range declared.FindAllSubmatch(text, -1) {
				there[string(m[1])] = true
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	count := 0
	for _, page := range pages {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range named.FindAllSubmatch(text, -1) {
			if count++; !there[string(m[1])] {
				t.Errorf("%s names %s, which does not exist", strings.TrimPrefix(page, top+"/"), m[1])
			}
		}
	}
	if count == 0 {
		t.Error("no page names a test")
	}
}

// SECURITY.md says of every direct dependency why it is there, and of no other.
func TestEachDependencyHasItsReason(t *testing.T) {
	t.Parallel()
	page := read(t, "SECURITY.md")
	listed := map[string]bool{} // those that were found in a go.mod
	for _, m := range regexp.MustCompile("`((?:[a-z0-9.]+\\.[a-z]+)/[^`]+)`").FindAllStringSubmatch(page, -1) {
		listed[m[1]] = false
	}
	direct := regexp.MustCompile(`(?m)^(?:require )?\t?(\S+\.\S+/\S+) v\S+$`) // no comment: not indirect
	files, err := filepath.Glob(filepath.Join(top, "*/go.mod"))
	if err != nil || len(files) == 0 {
		t.Fatalf("%d modules, %v", len(files), err)
	}
	for _, file := range files {
		if filepath.Base(filepath.Dir(file)) == "bench" {
			continue // ships nothing
		}
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range direct.FindAllStringSubmatch(string(text), -1) {
			name := m[1]
			if strings.HasPrefix(name, "github.com/postroom/") {
				continue
			}
			if strings.HasPrefix(name, "go.opentelemetry.io/") {
				name = "go.opentelemetry.io/…"
			}
			if _, is := listed[name]; !is {
				t.Errorf("SECURITY.md does not say why %s requires %s", strings.TrimPrefix(file, top+"/"), name)
			}
			listed[name] = true
		}
	}
	for name, used := range listed {
		if !used {
			t.Errorf("SECURITY.md lists %s, which no module requires itself", name)
		}
	}
}

// The diagram of the packages shows imports that there are.
func TestTheDiagramOfPackagesIsTrue(t *testing.T) {
	t.Parallel()
	imports := map[string][]string{}
	for _, p := range load(t) {
		imports[p.Path] = p.Imports
	}
	path := func(name string) string {
		switch name {
		case "migrations", "apiserver", "queuerunner":
			return root + name
		}
		return core + name
	}
	arrows := regexp.MustCompile(`(?m)^  (\S+) --> (\S+)$`)
	_, diagram, _ := strings.Cut(read(t, "docs/architecture.md"), "flowchart BT\n")
	diagram, _, _ = strings.Cut(diagram, "```")
	found := arrows.FindAllStringSubmatch(diagram, -1)
	if len(found) < 10 || len(found) != strings.Count(strings.TrimSpace(diagram), "\n")+1 {
		t.Errorf("%d arrows in:\n%s", len(found), diagram)
	}
	for _, m := range found {
		if !slices.Contains(imports[path(m[2])], path(m[1])) {
			t.Errorf("docs/architecture.md says that %s imports %s", m[2], m[1])
		}
	}
}
