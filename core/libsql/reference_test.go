package libsql_test

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/postroom/postroom/core/internal/dbtest"
	"github.com/postroom/postroom/core/libsql"
	"github.com/postroom/postroom/core/reference"
	"github.com/postroom/postroom/migrations"
)

// docs/reference/tables.md is the schema as the migrations make it, with what
// their comments say.
func TestReferenceOfTables(t *testing.T) {
	t.Parallel()
	reference.Hold(t, "tables.md", tablesPage(t, dbtest.Open(t)))
}

func tablesPage(t *testing.T, db libsql.DB) string {
	notes := migrationNotes(t)
	var b strings.Builder
	b.WriteString("# Tables\n\nThe schema as the migrations of `migrations/` make it, and what their comments say. [data-model.md](../data-model.md) tells what a row means.\n")
	const objects = "SELECT CAST(name AS BLOB), CAST(sql AS BLOB) FROM sqlite_master WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite_%' AND type = ?"
	for _, row := range query(t, db, objects+" AND name NOT LIKE 'message_search_%' UNION ALL "+objects+" ORDER BY 1", "table", "view") {
		name, sql := row.Str(0), row.Str(1)
		if name == "schema_migrations" {
			continue
		}
		fmt.Fprintf(&b, "\n## %s\n", name)
		for _, note := range notes[name] {
			fmt.Fprintf(&b, "\n%s\n", note)
		}
		fmt.Fprintf(&b, "\n```sql\n%s;\n```\n", sql)
		for _, kind := range []string{"index", "trigger"} {
			list := query(t, db, objects+" AND tbl_name = ? ORDER BY name", kind, name)
			if len(list) == 0 {
				continue
			}
			fmt.Fprintf(&b, "\n| %s | on | why |\n|---|---|---|\n", kind)
			for _, o := range list {
				fmt.Fprintf(&b, "| `%s` | `%s` | %s |\n", o.Str(0), reference.Cell(target(o.Str(1))), reference.Cell(strings.Join(notes[o.Str(0)], " ")))
			}
		}
	}
	return b.String()
}

// target is what an index or trigger is on, without its name and body.
func target(sql string) string {
	sql, _, _ = strings.Cut(sql, " BEGIN")
	if m := regexp.MustCompile(`(?s)^CREATE TRIGGER \w+ (.*)$`).FindStringSubmatch(sql); m != nil {
		return m[1]
	}
	return regexp.MustCompile(`(?s)^CREATE (?:UNIQUE )?INDEX \w+ ON \w+`).ReplaceAllString(sql, "")
}

// migrationNotes is what the comments of the migrations say of each table,
// index, trigger and view. A comment is about the statements up to the next
// comment or empty line; a later one about the same index or trigger replaces
// it, and joins it for a table.
func migrationNotes(t *testing.T) map[string][]string {
	t.Helper()
	files, err := fs.Glob(migrations.FS, "*.up.sql")
	if err != nil || len(files) == 0 {
		t.Fatalf("%d migrations, %v", len(files), err)
	}
	notes := map[string][]string{}
	made := regexp.MustCompile(`^CREATE (?:UNIQUE |VIRTUAL )?(TABLE|INDEX|TRIGGER|VIEW) (\w+)`)
	column := regexp.MustCompile(`^ALTER TABLE (\w+) ADD COLUMN`)
	renamed := regexp.MustCompile(`^ALTER TABLE (\w+) RENAME TO (\w+)`)
	for _, file := range files {
		text, err := fs.ReadFile(migrations.FS, file)
		if err != nil {
			t.Fatal(err)
		}
		note, open := "", false // open while a comment goes on
		for line := range strings.Lines(string(text)) {
			line = strings.TrimRight(line, "\n")
			said, isComment := strings.CutPrefix(line, "--")
			if isComment && !open {
				note = ""
			}
			switch {
			case isComment:
				note = strings.TrimSpace(note + " " + strings.TrimSpace(said))
			case line == "":
				note = ""
			case note == "":
			case made.MatchString(line):
				m := made.FindStringSubmatch(line)
				if m[1] != "TABLE" {
					notes[m[2]] = nil
				}
				notes[m[2]] = append(notes[m[2]], note)
			case column.MatchString(line):
				name := column.FindStringSubmatch(line)[1]
				if !slices.Contains(notes[name], note) {
					notes[name] = append(notes[name], note)
				}
			}
			if m := renamed.FindStringSubmatch(line); m != nil {
				notes[m[2]] = append(notes[m[2]], notes[m[1]]...)
				delete(notes, m[1])
			}
			open = isComment
		}
	}
	return notes
}

// A table that a page names, and a column that it writes with its table, is
// there; docs/data-model.md names all tables.
func TestPagesNameTablesThatExist(t *testing.T) {
	t.Parallel()
	db := dbtest.Open(t)
	columns, objects := map[string][]string{}, map[string]bool{}
	for _, r := range query(t, db, "SELECT CAST(name AS BLOB), type IN ('table', 'view') FROM sqlite_master") {
		objects[r.Str(0)] = true
		if r.Int(1) == 1 {
			columns[r.Str(0)] = strs(query(t, db, "SELECT CAST(name AS BLOB) FROM pragma_table_info(?)", r.Str(0)))
		}
	}
	columns["meta"] = append(columns["meta"], append(strs(query(t, db, "SELECT CAST(key AS BLOB) FROM meta")), "file")...) // a fact stands for its row
	for _, names := range columns {
		for _, name := range names {
			objects[name] = true
		}
	}
	code := goCode(t)
	pages, err := filepath.Glob("../../docs/*.md")
	if err != nil || len(pages) == 0 {
		t.Fatalf("%d pages, %v", len(pages), err)
	}
	var (
		dotted = regexp.MustCompile("`([a-z_]+)\\.([a-z_]+)`")
		snake  = regexp.MustCompile("`([a-z]+(?:_[a-z]+)+)`")
		inSQL  = regexp.MustCompile(`\b(?:FROM|JOIN|INTO|UPDATE) ([a-z][a-z_]*)\b`)
	)
	found := 0
	for _, page := range append(pages, "../../README.md", "../../CONTRIBUTING.md") {
		raw, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		text := string(raw)
		for _, m := range dotted.FindAllStringSubmatch(text, -1) {
			if has, isTable := columns[m[1]]; isTable && m[2] != "go" {
				if found++; !slices.Contains(has, m[2]) {
					t.Errorf("%s names %s.%s: the table has no such column", page, m[1], m[2])
				}
			}
		}
		for _, m := range inSQL.FindAllStringSubmatch(text, -1) {
			if found++; columns[m[1]] == nil {
				t.Errorf("%s names the table %s in SQL, which does not exist", page, m[1])
			}
		}
		for _, m := range snake.FindAllStringSubmatch(text, -1) { // metrics have a test of their own
			if found++; !objects[m[1]] && !strings.Contains(code, m[1]) && !strings.HasPrefix(m[1], "postroom_") {
				t.Errorf("%s names %s, which is neither in the schema nor in the code", page, m[1])
			}
		}
	}
	if found < 100 {
		t.Errorf("only %d names were found", found)
	}

	model, err := os.ReadFile("../../docs/data-model.md")
	if err != nil {
		t.Fatal(err)
	}
	described := map[string]bool{}
	for _, m := range regexp.MustCompile("(?m)^\\| ((?:`\\w+`(?:, )?)+)").FindAllStringSubmatch(string(model), -1) {
		for name := range strings.SplitSeq(m[1], ", ") {
			described[strings.Trim(name, "`")] = true
		}
	}
	for name := range described {
		if columns[name] == nil {
			t.Errorf("docs/data-model.md describes %s, which does not exist", name)
		}
	}
	for name := range columns {
		if !described[name] && !strings.HasPrefix(name, "sqlite_") && !strings.HasPrefix(name, "message_search_") {
			t.Errorf("docs/data-model.md does not describe %s", name)
		}
	}
}

// goCode is all of the program, and the files that come with it.
func goCode(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir("../..", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		switch {
		case d.IsDir() && (d.Name() == "docs" || path != "../.." && strings.HasPrefix(d.Name(), ".") && d.Name() != ".."):
			return fs.SkipDir
		case strings.HasSuffix(path, "_test.go"), !slices.Contains([]string{".go", ".sql", ".yml", ".toml", ".cfg"}, filepath.Ext(path)):
			return nil
		}
		text, err := os.ReadFile(path)
		b.Write(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}
