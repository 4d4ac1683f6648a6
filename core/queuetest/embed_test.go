package queuetest_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// The program of docs/embedding.md, in a module outside of the workspace, with
// what the module cache has.
func TestAnotherModuleEmbedsTheQueue(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../docs/embedding.md")
	if err != nil {
		t.Fatal(err)
	}
	_, program, found := strings.Cut(string(page), "```go\n")
	program, _, ended := strings.Cut(program, "\n```\n")
	if !found || !ended {
		t.Fatal("docs/embedding.md has no program")
	}
	core, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	sums, err := os.ReadFile(filepath.Join(core, "go.sum"))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, text := range map[string]string{
		"main.go": program,
		"go.sum":  string(sums),
		"go.mod": fmt.Sprintf(`module example.org/reports

go 1.26.0

require github.com/postroom/postroom/core v0.0.0

replace (
	github.com/postroom/postroom/core => %s
	github.com/postroom/postroom/migrations => %s
)
`, core, filepath.Join(filepath.Dir(core), "migrations")),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(t.Context(), "go", "run", ".")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOWORK=off", "GOFLAGS=-mod=mod", "GOPROXY=off")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %s", err, &stderr)
	}
	if string(out) != "sent Report 7\nfiled\n" {
		t.Errorf("it printed %q, and on stderr %s", out, &stderr)
	}
}
