package libsql

import (
	"bytes"
	"math"
	"strings"
	"testing"
	"time"
)

func TestScan(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		sql         string
		n           int
		named, more bool
	}{
		{sql: "", n: 0},
		{sql: "SELECT 1", n: 0},
		{sql: "SELECT ?", n: 1},
		{sql: "SELECT ?, ?", n: 2},
		{sql: "SELECT ?1, ?1", n: 1},
		{sql: "SELECT ?2, ?1", n: 2},
		{sql: "SELECT ?3, ?", n: 4},
		{sql: "SELECT ?12", n: 12},
		{sql: "SELECT '?', ?", n: 1},
		{sql: "SELECT 'it''s ?', ?", n: 1},
		{sql: `SELECT "?" FROM t WHERE a = ?`, n: 1},
		{sql: "SELECT `?`, [?], ?", n: 1},
		{sql: "SELECT ? -- ? and ?\n, ?", n: 2},
		{sql: "SELECT ? /* ? ' */, ?", n: 2},
		{sql: "SELECT ? -- the end?", n: 1},
		{sql: "SELECT ? /* open ?", n: 1},
		{sql: "SELECT 'open ?", n: 0},
		{sql: "SELECT a->>'$.b' FROM t WHERE c=?", n: 1},
		{sql: "SELECT ?;", n: 1},
		{sql: "SELECT ?; -- done\n /* really */ ;", n: 1},
		{sql: "SELECT ?; SELECT ?", n: 2, more: true},
		{sql: "SELECT ';', \";\" -- ;\n", n: 0},
		{sql: "SELECT :a", named: true},
		{sql: "SELECT @a, ?", n: 1, named: true},
		{sql: "SELECT $a", named: true},
		{sql: "SELECT ':a @b $c' -- :d\n", n: 0},
		{sql: "CREATE TRIGGER x AFTER INSERT ON t BEGIN SELECT 1; SELECT 2; END;", n: 0},
	} {
		n, named, more := scan(c.sql)
		if n != c.n || named != c.named || more != c.more {
			t.Errorf("scan(%q) = %d, %t, %t, want %d, %t, %t", c.sql, n, named, more, c.n, c.named, c.more)
		}
		if p := placeholders(c.sql); p != n {
			t.Errorf("placeholders(%q) = %d, want %d", c.sql, p, n)
		}
	}
}

// secret stands for a value that no error may repeat.
const secret = "s3cr3t-payload"

func TestArgumentsThatAreRefused(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, f DB) {
		for name, c := range map[string]struct {
			stmt Stmt
			says string
		}{
			"a string that is not UTF-8":      {Exec("INSERT INTO t(v) VALUES (?)", secret+"\xff"), "argument 1 is not valid UTF-8"},
			"a lone Latin-1 byte inside JSON": {Exec("INSERT INTO t(v) VALUES (?)", `{"a":"`+secret+"\xe9\"}"), "argument 1 is not valid UTF-8"},
			"a string with a NUL":             {Exec("INSERT INTO t(k, v) VALUES (?, ?)", 1, secret+"\x00"), "argument 2 contains a NUL"},
			"too few arguments":               {Exec("INSERT INTO t(k, v) VALUES (?, ?)", secret), "1 arguments for 2 placeholders"},
			"too many arguments":              {Exec("INSERT INTO t(v) VALUES (?)", secret, secret), "2 arguments for 1 placeholders"},
			"none at all":                     {Exec("INSERT INTO t(v) VALUES (?)"), "0 arguments for 1 placeholders"},
			"a named parameter":               {Exec("INSERT INTO t(v) VALUES (:v)", secret), "named parameter"},
			"a type that is not bound":        {Exec("INSERT INTO t(v) VALUES (?)", []string{secret}), "argument 1 has type []string"},
			"a time":                          {Exec("INSERT INTO t(v) VALUES (?)", time.Unix(0, 0)), "argument 1 has type time.Time"},
			"not a number":                    {Exec("INSERT INTO t(v) VALUES (?)", math.NaN()), "argument 1 is not a number"},
			"a second statement":              {Exec("INSERT INTO t(v) VALUES (?); DELETE FROM t", secret), "more than one statement"},
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				good := Exec("INSERT INTO t(v) VALUES (1)")
				_, err := f.Write(t.Context(), batch(good, c.stmt))
				wantClass(t, err, Invalid)
				if strings.Contains(err.Error(), secret) || !strings.Contains(err.Error(), c.says) {
					t.Errorf("the error %q does not say %q, or repeats the value", err, c.says)
				}
				if e, ok := err.(*Error); !ok || e.Index != 1 {
					t.Errorf("the error %#v does not name statement 1", err)
				}
				_, err = f.Read(t.Context(), c.stmt)
				wantClass(t, err, Invalid)
			})
		}
		t.Cleanup(func() {
			res, err := f.Read(t.Context(), Query("SELECT count(*) FROM t"))
			if err == nil && res[0].Rows[0].Int(0) != 0 {
				t.Error("a refused batch left rows")
			}
		})
	})
}

func TestValuesComeBackAsTheyWereStored(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, f DB) {
		big := bytes.Repeat([]byte("0123456789abcdef\x00\xff"), maxValue/18)
		for name, v := range map[string][]byte{
			"a NUL":            []byte("a\x00b"),
			"invalid UTF-8":    {0xff, 0xfe, 0x80},
			"a date":           []byte("2024-01-02"),
			"a time":           []byte("2024-01-02T03:04:05Z"),
			"nothing":          {},
			"5 MB":             big,
			"a quoted literal": []byte("'); DROP TABLE t; --"),
		} {
			t.Run(name+" as a BLOB", func(t *testing.T) {
				t.Parallel()
				res := mustWrite(t, f, Query("INSERT INTO t(v) VALUES (?) RETURNING v, typeof(v) = 'blob'", v))
				row := res[0].Rows[0]
				if !bytes.Equal(row.Bytes(0), v) || row.Null(0) || !row.Bool(1) {
					t.Errorf("%d bytes came back from the write as %d, null %t, a blob %t", len(v), len(row.Bytes(0)), row.Null(0), row.Bool(1))
				}
				res, err := f.Read(t.Context(), Query("SELECT count(*) FROM t WHERE v = ?", v))
				if err != nil || res[0].Rows[0].Int(0) != 1 {
					t.Errorf("it was not found again: %v, %v", res, err)
				}
			})
		}
		t.Run("text cast to a BLOB", func(t *testing.T) {
			t.Parallel()
			const date = "2024-01-02"
			res := mustWrite(t, f, Query("INSERT INTO t(v) VALUES (?) RETURNING CAST(v AS BLOB), typeof(v) = 'text'", date))
			if row := res[0].Rows[0]; row.Str(0) != date || !row.Bool(1) {
				t.Errorf("%q came back as %q, text %t", date, row.Str(0), row.Bool(1))
			}
		})
		t.Run("NULL, integers, floats and flags", func(t *testing.T) {
			t.Parallel()
			res, err := f.Read(t.Context(), Query("SELECT ?, ?, ?, ?, ?, ?", nil, []byte(nil), int64(math.MinInt64), 7, 1.5, true))
			if err != nil {
				t.Fatal(err)
			}
			row := res[0].Rows[0]
			if !row.Null(0) || !row.Null(1) || row.Int(2) != math.MinInt64 || row.Int(3) != 7 || row.Float(4) != 1.5 || !row.Bool(5) {
				t.Errorf("the row came back as %v", row)
			}
			if row.IntPtr(0) != nil || row.IntPtr(3) == nil || row.Str(0) != "" || row.Float(3) != 7 {
				t.Error("the accessors do not agree with the row")
			}
		})
	})
}

func TestATextColumnIsRefusedWithAHint(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, f DB) {
		for _, v := range []string{secret, "2024-01-02", ""} {
			_, err := f.Read(t.Context(), Query("SELECT 1, ? AS subject", v))
			wantClass(t, err, Invalid)
			if !strings.Contains(err.Error(), "CAST(subject AS BLOB)") || strings.Contains(err.Error(), secret) {
				t.Errorf("%q: the error %v does not say what to do, or says too much", v, err)
			}
		}
	})
}

func TestAGuardStandsFirst(t *testing.T) {
	t.Parallel()
	defer func() {
		if recover() == nil {
			t.Error("a guard behind another statement was recorded")
		}
	}()
	b := batch(Exec("SELECT 1"))
	b.Guard("SELECT 1")
}
