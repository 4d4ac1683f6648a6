package step_test

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/postroom/postroom/core/job"
	"github.com/postroom/postroom/migrations"
)

// docs/lifecycle.md, the constants and the schema name the same outcomes, and
// the page names the points at which the tests let a process die.
func TestThePageTellsTheSame(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../docs/lifecycle.md")
	if err != nil {
		t.Fatal(err)
	}
	_, page, _ := strings.Cut(string(text), "\n## Steps\n")
	page, _, _ = strings.Cut(page, "\n## ")
	schema, err := migrations.FS.ReadFile("000002_queue.up.sql")
	if err != nil {
		t.Fatal(err)
	}
	var constants []string
	for _, o := range job.StepOutcomes {
		constants = append(constants, string(o))
	}
	described, _, _ := strings.Cut(page, "\n| a later run finds ")
	var onPage []string
	for _, m := range regexp.MustCompile("(?m)^\\| `([a-z]+)` \\|").FindAllStringSubmatch(described, -1) {
		onPage = append(onPage, m[1])
	}
	if !slices.Equal(onPage, constants) {
		t.Errorf("the page has the outcomes %v, package job has %v", onPage, constants)
	}
	_, table, _ := strings.Cut(string(schema), "CREATE TABLE job_steps (")
	if want := "CHECK (outcome = '" + strings.Join(constants, "' OR outcome = '") + "')"; !strings.Contains(table, want) {
		t.Errorf("the schema has not %s", want)
	}
	for _, code := range []string{job.CodeStepUncertain, "TestAnEffectIsNeverRepeatedBlindly", "`step.Uncertain(err)`", "`step.ErrTimeout`"} {
		if !strings.Contains(page, code) {
			t.Errorf("the page does not name %s", code)
		}
	}
}
