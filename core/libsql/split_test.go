package libsql

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/postroom/postroom/migrations"
)

func TestSplitStatements(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		text string
		want []string
	}{
		"nothing":            {"", nil},
		"space and comments": {" \n-- a; b\n/* c; */ ;;\n", nil},
		"one without end":    {"SELECT 1", []string{"SELECT 1"}},
		"two":                {"SELECT 1;\nSELECT 2;\n", []string{"SELECT 1;", "SELECT 2;"}},
		"comments stay with what follows": {"-- one; here\nSELECT 1; /* two; */ SELECT 2 -- end;", []string{
			"-- one; here\nSELECT 1;", "/* two; */ SELECT 2 -- end;"}},
		"quotes": {"SELECT ';', 'it''s;', \"a;\"\"b\", `c;`, [d;e]; SELECT 2;", []string{
			"SELECT ';', 'it''s;', \"a;\"\"b\", `c;`, [d;e];", "SELECT 2;"}},
		"open quote":   {"SELECT 'a; SELECT 2;", []string{"SELECT 'a; SELECT 2;"}},
		"open comment": {"SELECT 1; SELECT 2 /* ; ", []string{"SELECT 1;", "SELECT 2 /* ;"}},
		"a trigger": {"CREATE TRIGGER a AFTER INSERT ON t BEGIN SELECT 1; SELECT 2; END; SELECT 3;", []string{
			"CREATE TRIGGER a AFTER INSERT ON t BEGIN SELECT 1; SELECT 2; END;", "SELECT 3;"}},
		"a trigger with CASE": {"create temp trigger a after update on t begin\n select case when 1 then 2 end;\n update t set a = case b when ';' then 1 else (2) end; -- end;\nend ; SELECT 3", []string{
			"create temp trigger a after update on t begin\n select case when 1 then 2 end;\n update t set a = case b when ';' then 1 else (2) end; -- end;\nend ;", "SELECT 3"}},
		"a trigger with a comment before its end": {"CREATE TEMPORARY TRIGGER a BEFORE DELETE ON t BEGIN SELECT 1; /* END; */ END;SELECT 3", []string{
			"CREATE TEMPORARY TRIGGER a BEFORE DELETE ON t BEGIN SELECT 1; /* END; */ END;", "SELECT 3"}},
		"an unfinished trigger":           {"CREATE TRIGGER a BEGIN SELECT 1; SELECT 2;", []string{"CREATE TRIGGER a BEGIN SELECT 1; SELECT 2;"}},
		"a table is no trigger":           {"CREATE TABLE trigger_log (a); SELECT 1;", []string{"CREATE TABLE trigger_log (a);", "SELECT 1;"}},
		"CASE outside a trigger":          {"SELECT CASE WHEN 1 THEN 2 END; SELECT 3;", []string{"SELECT CASE WHEN 1 THEN 2 END;", "SELECT 3;"}},
		"a minus and a slash are no mark": {"SELECT 1-2/3; SELECT 4;", []string{"SELECT 1-2/3;", "SELECT 4;"}},
		"signs alone":                     {"+; (", []string{"+;", "("}},
	} {
		if got := splitStatements(c.text); !slices.Equal(got, c.want) {
			t.Errorf("%s: got %q, want %q", name, got, c.want)
		}
	}
}

func TestTheMigrationsSplitAsTheyAreWritten(t *testing.T) {
	t.Parallel()
	all, err := versions(migrations.FS)
	if err != nil || len(all) < 4 {
		t.Fatalf("the migrations are %v, %v", all, err)
	}
	for i, v := range all {
		if v != int64(i+1) {
			t.Errorf("migration %d has the number %d", i+1, v)
		}
	}
	text, err := migrations.FS.ReadFile("000003_mail.up.sql")
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range splitStatements(string(text)) {
		if n := strings.Count(s, "CREATE "); n != 1 {
			t.Errorf("%d CREATEs in one statement: %.60s", n, s)
		}
	}
}

// nothing matches text between statements: space, comments and semicolons.
// closed is the same with every comment ended.
var (
	nothing = regexp.MustCompile(`^(?s:[ \t\r\n\f;]|--[^\n]*(\n|$)|/\*([^*]|\*+[^*/])*(\*+/|\**$))*$`)
	closed  = regexp.MustCompile(`^(?s:[ \t\r\n\f;]|--[^\n]*\n|/\*([^*]|\*+[^*/])*\*+/)*$`)
)

func FuzzSplitStatements(f *testing.F) {
	for _, s := range []string{
		"", ";", "SELECT 1;;SELECT 2", "-- a\nSELECT 1;", "/* ; */;", "'", "[;]", "a\x00;b", "\u00a0;x\u0085;",
		"CREATE TRIGGER a BEGIN SELECT CASE 1 WHEN 1 THEN 2 END; END; SELECT 1;", "CREATE TRIGGER; END;", "END; END;", "--", "/*", "-", "/", "CREATE TEMP;x", "/*a*/; a", "--a\n;a", "/**/[", "/**/;/", "/***/ /* ** */;a",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		list := splitStatements(text)
		for _, s := range list {
			if nothing.MatchString(s) {
				t.Errorf("%q is no statement", s)
			}
		}
		if !makesUp(text, list) {
			t.Fatalf("something was lost: %q of %q", list, text)
		}
		if _, _, more := scan(text); more != (len(list) > 1) {
			t.Errorf("scan says more=%t of %q", more, list)
		}
	})
}

// makesUp says whether text is the statements with nothing between them. A
// comment in a gap may hold a statement's words, so each place is tried.
func makesUp(text string, statements []string) bool {
	if len(statements) == 0 {
		return nothing.MatchString(text)
	}
	s := statements[0]
	for at := 0; ; at++ {
		n := strings.Index(text[at:], s)
		if n < 0 {
			return false
		}
		at += n
		if closed.MatchString(text[:at]) && makesUp(text[at+len(s):], statements[1:]) {
			return true
		}
	}
}
