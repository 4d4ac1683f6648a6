package native

import (
	"errors"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"
)

func open(t *testing.T) *Conn {
	t.Helper()
	path := filepath.Join(t.TempDir(), "n.db")
	c, err := Open("file:" + path + "?mode=rwc")
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (c *Conn) must(t *testing.T, sql string, args ...any) int64 {
	t.Helper()
	n, err := c.Exec(sql, args)
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return n
}

func (c *Conn) rows(t *testing.T, sql string, args ...any) (out [][]any) {
	t.Helper()
	err := c.Query(sql, args, false, func(_ []string, row []any) error {
		out = append(out, row)
		return nil
	})
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return out
}

func TestValuesComeBackAsTheyWere(t *testing.T) {
	t.Parallel()
	c := open(t)
	for range 2 { // compiled, and kept
		for _, v := range []any{nil, int64(-1), 1.5, []byte("a\x00\xff"), []byte{}} {
			if got := c.rows(t, "SELECT ?", v)[0][0]; !reflect.DeepEqual(got, v) {
				t.Errorf("%#v came back as %#v", v, got)
			}
		}
		if got := c.rows(t, "SELECT ?, ?, CAST(? AS BLOB)", true, 7, "text")[0]; got[0] != int64(1) || got[1] != int64(7) || string(got[2].([]byte)) != "text" {
			t.Errorf("got %v", got)
		}
	}
	if got := c.rows(t, "SELECT ?", "2026-01-02")[0][0]; got != (Text{}) {
		t.Errorf("TEXT came as %#v", got)
	}
	if _, err := c.Exec("SELECT ?", []any{struct{}{}}); !errors.Is(err, ErrBind) {
		t.Errorf("a struct was bound: %v", err)
	}
}

// A statement that is kept must work again after everything that can end a
// run: an error, a reader that had enough, another schema.
func TestAKeptStatementWorksAgain(t *testing.T) {
	t.Parallel()
	c := open(t)
	c.must(t, "CREATE TABLE t(a INTEGER PRIMARY KEY, b)")
	const insert, list = "INSERT INTO t(a, b) VALUES (?, ?)", "SELECT a, b FROM t ORDER BY a"
	c.must(t, insert, 1, "x")
	if _, err := c.Exec(insert, []any{1, "y"}); err == nil || !strings.Contains(err.Error(), "constraint") {
		t.Errorf("the same key twice: %v", err)
	}
	if n := c.must(t, insert, 2, "y"); n != 1 {
		t.Errorf("%d rows changed, want 1", n)
	}
	enough := errors.New("enough")
	if err := c.Query(list, nil, false, func([]string, []any) error { return enough }); !errors.Is(err, enough) {
		t.Errorf("got %v", err)
	}
	c.must(t, "ALTER TABLE t ADD COLUMN c")
	c.must(t, "DROP TABLE t")
	c.must(t, "CREATE TABLE t(b, a INTEGER PRIMARY KEY)")
	c.must(t, insert, 3, "z")
	if got := c.rows(t, list); len(got) != 1 || got[0][0] != int64(3) {
		t.Errorf("got %v", got)
	}
	if _, err := c.Exec("SELECT 1", nil); err == nil {
		t.Error("a statement with rows was executed")
	}
	if _, err := c.Exec("SELECT no", nil); err == nil || !strings.Contains(err.Error(), "no such column") {
		t.Errorf("got %v", err)
	}
}

func TestOnlySoManyStatementsAreKept(t *testing.T) {
	t.Parallel()
	c := open(t)
	c.rows(t, "SELECT 'first'")
	for i := range 3 * keep {
		c.rows(t, "SELECT "+strconv.Itoa(i))
		c.rows(t, "SELECT 'first'")
	}
	if len(c.kept) != keep || c.kept["SELECT 'first'"] == nil {
		t.Errorf("%d kept, the one that is used all the time: %v", len(c.kept), c.kept["SELECT 'first'"])
	}
	c.rows(t, "PRAGMA user_version")
	c.rows(t, "SELECT length(?)", strings.Repeat("x", large+1))
	c.rows(t, "SELECT length(?)", make([]byte, large+1))
	if c.kept["PRAGMA user_version"] != nil || c.kept["SELECT length(?)"] != nil {
		t.Error("a pragma or a mebibyte of arguments is kept")
	}
	c.Forget()
	if len(c.kept) != 0 {
		t.Errorf("%d kept after all", len(c.kept))
	}
	c.rows(t, "SELECT 'first'")
}
