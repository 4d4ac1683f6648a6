package action

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// table reads the rows of the table of docs/mail.md whose first heading is
// given: the cells by the word in code in the first.
func table(t *testing.T, heading string) map[string][]string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "..", "docs", "mail.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, found := strings.Cut(string(text), "\n| "+heading+" |")
	if !found {
		t.Fatalf("docs/mail.md has no table of %s", heading)
	}
	rows := map[string][]string{}
	for line := range strings.Lines(rest) {
		if !strings.HasPrefix(line, "|") {
			if len(rows) > 0 {
				break
			}
			continue
		}
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		for i, cell := range cells {
			cells[i] = strings.TrimSpace(cell)
		}
		if name := strings.Trim(cells[0], "`"); name != cells[0] {
			rows[name] = cells[1:]
		}
	}
	return rows
}

// words lists what stands in code in a cell.
func words(cell string) []string {
	var out []string
	for i, part := range strings.Split(cell, "`") {
		if i%2 == 1 {
			out = append(out, part)
		}
	}
	return out
}

func TestTheTableOfActionsSaysWhatTheCodeDoes(t *testing.T) {
	t.Parallel()
	rows := table(t, "action")
	for _, typ := range Types {
		row, found := rows[typ.Name]
		delete(rows, typ.Name)
		if !found || len(row) != 5 {
			t.Errorf("the row of %s is %q", typ.Name, row)
			continue
		}
		danger, parameters, disk, inverse := row[0], row[1], row[2], row[4]
		if danger != string(typ.Danger) {
			t.Errorf("%s is %s in the table and %s in the code", typ.Name, danger, typ.Danger)
		}
		if got := words(parameters); !slices.Equal(got, typ.OneOf) {
			t.Errorf("%s takes %q in the table and %q in the code", typ.Name, got, typ.OneOf)
		}
		if says := !strings.HasPrefix(disk, "not carried out"); says != typ.CarriedOut {
			t.Errorf("%s is carried out: %t in the table, %t in the code", typ.Name, says, typ.CarriedOut)
		}
		if says := inverse != "" && !strings.HasPrefix(inverse, "none"); says != typ.Undoable {
			t.Errorf("%s has an inverse: %t in the table (%q), %t in the code", typ.Name, says, inverse, typ.Undoable)
		}
	}
	for name := range rows {
		t.Errorf("the table has %s, which the code has not", name)
	}
}

func TestTheTableOfStatusesSaysWhatTheCodeAllows(t *testing.T) {
	t.Parallel()
	rows := table(t, "status")
	if len(rows) != len(Statuses) {
		t.Errorf("%d statuses in the table, %d in the code", len(rows), len(Statuses))
	}
	for _, from := range Statuses {
		next := words(rows[string(from)][0])
		for _, to := range Statuses {
			if says := slices.Contains(next, string(to)); says != from.MayFollow(to) {
				t.Errorf("%s to %s: %t in the table, %t in the code", from, to, says, from.MayFollow(to))
			}
		}
		if from.Final() != (len(next) == 0) {
			t.Errorf("%s is final: %t", from, from.Final())
		}
	}
}
