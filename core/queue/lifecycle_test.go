package queue_test

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/postroom/postroom/core/job"
	"github.com/postroom/postroom/migrations"
)

// The page, the constants and the schema tell one story.
func TestLifecyclePageStatesAndSchemaAgree(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../docs/lifecycle.md")
	if err != nil {
		t.Fatal(err)
	}
	schema, err := migrations.FS.ReadFile("000002_queue.up.sql")
	if err != nil {
		t.Fatal(err)
	}
	later, err := migrations.FS.ReadFile("000005_queue_guarantees.up.sql")
	if err != nil {
		t.Fatal(err)
	}
	var states []string
	for _, m := range regexp.MustCompile("(?m)^\\| `([a-z]+)` \\|").FindAllStringSubmatch(section(t, string(page), "States"), -1) {
		states = append(states, m[1])
	}
	var constants []string
	for _, s := range job.States {
		constants = append(constants, string(s))
	}
	if !slices.Equal(states, constants) {
		t.Errorf("docs/lifecycle.md has the states %v, package job has %v", states, constants)
	}
	if got := check(string(schema), "state"); !slices.Equal(got, constants) {
		t.Errorf("the schema allows the states %v, package job has %v", got, constants)
	}
	outcomes := map[string]bool{}
	for _, m := range regexp.MustCompile("run `([a-z_]+)`").FindAllStringSubmatch(section(t, string(page), "Transitions"), -1) {
		outcomes[m[1]] = true
	}
	allowed := check(string(later), "outcome")
	for _, o := range allowed {
		if !outcomes[o] {
			t.Errorf("the schema allows the outcome %s, which no transition of docs/lifecycle.md writes", o)
		}
	}
	if len(outcomes) != len(allowed) {
		t.Errorf("docs/lifecycle.md names the outcomes %v, the schema allows %v", outcomes, allowed)
	}
}

// Every statement the page names exists.
func TestLifecyclePageNamesRealStatements(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../docs/lifecycle.md")
	if err != nil {
		t.Fatal(err)
	}
	var source []byte
	for _, name := range []string{"sql.go", "limits.go", "prune.go", "settle.go"} {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		source = append(source, text...)
	}
	names := regexp.MustCompile("`((?:sql|op)[A-Z][A-Za-z]+)`").FindAllStringSubmatch(string(page), -1)
	if len(names) < 15 {
		t.Fatalf("found only %d statements on the page", len(names))
	}
	for _, m := range names {
		if !regexp.MustCompile(`(?m)^(const|var) ` + m[1] + ` =`).Match(source) {
			t.Errorf("docs/lifecycle.md names %s, which is not there", m[1])
		}
	}
}

func section(t *testing.T, page, title string) string {
	t.Helper()
	_, rest, ok := strings.Cut(page, "\n## "+title+"\n")
	if !ok {
		t.Fatalf("docs/lifecycle.md has no section %s", title)
	}
	body, _, _ := strings.Cut(rest, "\n## ")
	return body
}

// check returns the values that a column's CHECK allows.
func check(schema, column string) []string {
	m := regexp.MustCompile(`(?m)^\s*` + column + `\s+TEXT\s+NOT NULL CHECK \(` + column + ` (?:IN|=) (.*)$`).FindStringSubmatch(schema)
	if m == nil {
		return nil
	}
	var out []string
	for _, v := range regexp.MustCompile(`'([^']*)'`).FindAllStringSubmatch(m[1], -1) {
		out = append(out, v[1])
	}
	return out
}
