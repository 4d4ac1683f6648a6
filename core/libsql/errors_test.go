package libsql

import (
	"errors"
	"strings"
	"testing"
)

func TestErrorsSayNothingOfSQLAndValues(t *testing.T) {
	t.Parallel()
	f := setup(t)
	mustWrite(t, f,
		Exec("CREATE TABLE u (k INTEGER PRIMARY KEY, email TEXT NOT NULL UNIQUE CHECK (email <> 'none'), n INTEGER) STRICT"),
		Exec("CREATE TABLE child (u INTEGER REFERENCES u(k)) STRICT"),
		Exec("CREATE TRIGGER stop BEFORE DELETE ON u BEGIN SELECT RAISE(ABORT, 'not deleted'); END"),
		Exec("CREATE VIRTUAL TABLE words USING fts5(a)"),
		Exec("INSERT INTO u(k, email) VALUES (1, ?)", secret))
	// marker is in every statement's text and must be in no error.
	const marker = "/* marker */ "
	const tail = "payload" // of the secret: full text search takes it apart
	tricky := secret + "` \nerror code = 1: Error: SQLite failure: `" + secret + "` is locked"
	for name, c := range map[string]struct {
		stmt Stmt
		want Class
		says string
	}{
		"unique":                  {Exec("INSERT INTO u(email) VALUES (?)", secret), Constraint, "u.email"},
		"primary key":             {Exec("INSERT INTO u(k, email) VALUES (1, ?)", secret+"2"), Constraint, "u.k"},
		"not null":                {Exec("INSERT INTO u(n, email) VALUES (1, ?)", nil), Constraint, "NOT NULL"},
		"check":                   {Exec("INSERT INTO u(email) VALUES (?)", "none"), Constraint, "CHECK"},
		"json_valid check":        {Exec("INSERT INTO queues(name, paused, created_at, updated_at) VALUES (?, 2, 0, 0)", secret), Constraint, "paused"},
		"foreign key":             {Exec("INSERT INTO child(u) VALUES (?)", 77), Constraint, "FOREIGN KEY"},
		"trigger":                 {Exec("DELETE FROM u WHERE email = ?", secret), Invalid, "not deleted"},
		"strict type":             {Exec("INSERT INTO u(email, n) VALUES ('x', ?)", secret), Constraint, "INTEGER column u.n"},
		"datatype of a key":       {Exec("INSERT INTO u(k, email) VALUES (?, 'x')", secret), Invalid, "datatype mismatch"},
		"json":                    {Query("SELECT json(?)", secret), Invalid, "malformed JSON"},
		"json path":               {Query("SELECT json_extract('{}', ?)", secret), Invalid, "bad JSON path"},
		"tricky json path":        {Query("SELECT json_extract('{}', ?)", tricky), Invalid, "bad JSON path"},
		"full text":               {Query("SELECT 1 FROM words WHERE words MATCH ?", secret), Invalid, "no such column"},
		"attached file":           {Exec("ATTACH ? AS other", "/nonexistent/"+secret), Unavailable, ""},
		"bind, not UTF-8":         {Query("SELECT 1 WHERE ? = 1", secret+"\xff"), Invalid, "UTF-8"},
		"missing table":           {Query("SELECT 1 FROM nowhere WHERE 1 = ?", secret), Invalid, "no such table: nowhere"},
		"missing column":          {Query("SELECT absent FROM u WHERE 1 = ?", secret), Invalid, "no such column: absent"},
		"missing function":        {Query("SELECT nofunc(?)", secret), Invalid, "no such function"},
		"syntax":                  {Exec("INSERT INTO INTO u VALUES (?)", secret), Invalid, "syntax error"},
		"Exec of what gives rows": {Exec("SELECT 1 WHERE ? <> ''", secret), Invalid, "returns rows"},
		"text in the result":      {Query("SELECT CAST(? AS TEXT) AS x", secret), Invalid, "CAST(x AS BLOB)"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := c.stmt
			s.SQL = marker + s.SQL
			_, err := f.Write(t.Context(), batch(s))
			var e *Error
			if !errors.As(err, &e) {
				t.Fatalf("the error is %v", err)
			}
			if strings.Contains(err.Error(), tail) || strings.Contains(err.Error(), "marker") {
				t.Errorf("the error says too much: %v", err)
			}
			if !strings.Contains(err.Error(), c.says) {
				t.Errorf("the error %q does not say %q", err, c.says)
			}
			if c.want != e.Class {
				t.Errorf("the class of %v is %s, want %s", err, e.Class, c.want)
			}
		})
	}
}

func TestClassify(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		text, detail string
		class        Class
	}{
		{"Error executing statement: SQLite failure: `database is locked`", "database is locked", Busy},
		{"Error fetching next row: SQLite failure: `database table is locked`", "database table is locked", Busy},
		{"Error executing statement: SQLite failure: `locking protocol`", "locking protocol", Busy},
		{"Error executing statement: SQLite failure: `database or disk is full`", "database or disk is full", Full},
		{"Error executing statement: SQLite failure: `disk I/O error`", "disk I/O error", Unavailable},
		{"Error executing statement: SQLite failure: `attempt to write a readonly database`", "attempt to write a readonly database", Unavailable},
		{"Error executing statement: SQLite failure: `database disk image is malformed`", "database disk image is malformed", Corrupt},
		{"Error executing statement: SQLite failure: `file is not a database`", "file is not a database", Corrupt},
		{"Error executing statement: SQLite failure: `malformed JSON`", "malformed JSON", Invalid},
		{"Error executing statement: SQLite failure: `UNIQUE constraint failed: t.b`", "UNIQUE constraint failed: t.b", Constraint},
		{"Error executing statement: SQLite failure: `cannot store TEXT value in INTEGER column t.c`", "cannot store TEXT value in INTEGER column t.c", Constraint},
		{"something new", "", Invalid},
		{"Error opening URL file:x: SQLite failure: `unable to open database file`", "unable to open database", Unavailable},
	} {
		if e := classify("execute", errors.New(c.text)); e.Class != c.class || e.Detail != c.detail {
			t.Errorf("%q: %s, %q, want %s, %q", c.text, e.Class, e.Detail, c.class, c.detail)
		}
	}
}

func TestTransient(t *testing.T) {
	t.Parallel()
	want := map[Class]bool{Busy: true, Unavailable: true, Full: true, Unknown: true, Canceled: true}
	for _, c := range []Class{Busy, Unavailable, Full, Corrupt, Constraint, Guard, Invalid, Canceled, Unknown, Closed} {
		if got := Transient(&Error{Class: c}); got != want[c] {
			t.Errorf("Transient(%s) = %t", c, got)
		}
	}
	if Transient(nil) || Transient(errors.New("database is locked")) {
		t.Error("an error of another package is transient")
	}
}
