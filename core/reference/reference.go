// Package reference holds the pages of docs/reference to the code that they are
// made from. Tests of all modules use it: each makes its page and compares.
// It may import the standard library only.
package reference

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Env, set to "write", makes tests write their pages instead of comparing
// them: `make docs`.
const Env = "POSTROOM_DOCS"

// Hold fails the test unless docs/reference has the page with this text.
func Hold(t testing.TB, page, text string) {
	t.Helper()
	text = "<!-- Made by `make docs`; do not edit. -->\n\n" + strings.TrimSpace(text) + "\n"
	path := filepath.Join(root(t), "docs", "reference", page)
	if os.Getenv(Env) == "write" {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	have, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	if string(have) != text {
		t.Errorf("docs/reference/%s is not what the code says any more; run: make docs\nthe first difference: %s", page, difference(string(have), text))
	}
}

// root is the folder of the workspace.
func root(t testing.TB) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for ; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.work")); err == nil {
			return dir
		}
		if dir == filepath.Dir(dir) {
			t.Fatal("there is no go.work above this test")
		}
	}
}

// difference shows the first line that differs.
func difference(have, want string) string {
	h, w := strings.Split(have, "\n"), strings.Split(want, "\n")
	for i := range min(len(h), len(w)) {
		if h[i] != w[i] {
			return "the page has " + quote(h[i]) + ", the code " + quote(w[i])
		}
	}
	if len(h) < len(w) {
		return "the page lacks " + quote(w[len(h)])
	}
	return "the page goes on with " + quote(h[len(w)])
}

func quote(s string) string { return "`" + s + "`" }

// Cell makes text safe for a cell of a table.
func Cell(s string) string {
	return strings.ReplaceAll(strings.Join(strings.Fields(s), " "), "|", "\\|")
}
