package libsql

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"unicode/utf8"
)

// Stmt is one SQL statement with positional arguments. Arguments are nil,
// int64, int, bool, float64, string (valid UTF-8 without NUL) or []byte.
type Stmt struct {
	SQL  string
	Args []any
	rows bool // it returns rows: a SELECT or something with RETURNING
}

// Query makes a statement that returns rows. TEXT columns must be selected as
// CAST(x AS BLOB): the library dies of text that is not UTF-8, so a TEXT result
// is an error here.
func Query(sql string, args ...any) Stmt { return Stmt{SQL: sql, Args: args, rows: true} }

// Exec makes a statement that returns no rows.
func Exec(sql string, args ...any) Stmt { return Stmt{SQL: sql, Args: args} }

// Batch is a recorded list of statements that is applied as a whole or not at
// all. Nothing runs while it is recorded.
type Batch struct {
	// Rouses says that its commit is one that others wait to join: see
	// [DB].Join.
	Rouses bool

	stmts  []Stmt
	guards int
}

// Guard records a statement that raises an error when the batch must not go
// on; the batch then fails as [Guard]. It is known by its place: guards stand
// before everything else.
func (b *Batch) Guard(sql string, args ...any) {
	if b.guards != len(b.stmts) {
		panic("libsql: a guard must stand before the other statements of its batch")
	}
	b.stmts = append(b.stmts, Query(sql, args...))
	b.guards++
}

// Exec records a statement and returns its place in the results.
func (b *Batch) Exec(sql string, args ...any) int { return b.Add(Exec(sql, args...)) }

// Query records a statement that returns rows and returns its place in the
// results.
func (b *Batch) Query(sql string, args ...any) int { return b.Add(Query(sql, args...)) }

// Add records a statement and returns its place in the results.
func (b *Batch) Add(s Stmt) int {
	b.stmts = append(b.stmts, s)
	return len(b.stmts) - 1
}

// Recorded returns the statements recorded so far and how many of them, at
// the front, are guards. It is for a [DB] that stands before another one.
func (b *Batch) Recorded() (stmts []Stmt, guards int) { return b.stmts, b.guards }

// Len is the number of statements recorded so far.
func (b *Batch) Len() int { return len(b.stmts) }

// Op is a transition that many callers ask for at once: statements that each
// take the JSON array of all items as their only argument, usually through
// json_each(?). The last one is a SELECT whose first column is the item's
// index in that array (json_each's key); the other columns are the item's
// answer, and an item without a row is answered nil. One that is no SELECT
// answers nil to all. Ops are compared by identity, so declare them as
// variables.
type Op struct {
	Name  string
	Stmts []string
	// Misses says that the last statement answers only for items that the one
	// before it did not change. It need not be run when that changed a row for
	// each item.
	Misses bool
	// Rouses says that its commits are among those that others wait to join:
	// see [DB].Join.
	Rouses bool
	// Packed says that the items are texts whose parts stand at known places,
	// in place of JSON. The argument is then a BLOB, and the statements find the
	// items in it with [PackedItems]: SQLite goes to a part of a BLOB at once,
	// where it walks an object for each of its members.
	Packed bool
}

// PackedItems are the items e of a packed op: e.key is the item's index, and
// e.value the place in ?1 where it begins. An item ends where it says itself.
const PackedItems = `(SELECT key, value FROM json_each(CAST(substr(?1, CAST(substr(?1, 1, 10) AS INTEGER)) AS TEXT))) AS e`

// Result is what one statement gave.
type Result struct {
	Rows    []Row
	Changes int64 // rows changed, for a statement that returns none
}

// Row is one row of values: nil, int64, float64 or []byte.
type Row []any

// Null says whether the column is NULL.
func (r Row) Null(i int) bool { return r[i] == nil }

// Int returns an integer column; NULL is 0.
func (r Row) Int(i int) int64 {
	v, _ := r[i].(int64)
	return v
}

// IntPtr returns an integer column; NULL is nil.
func (r Row) IntPtr(i int) *int64 {
	if v, ok := r[i].(int64); ok {
		return &v
	}
	return nil
}

// Bool returns a flag column.
func (r Row) Bool(i int) bool { return r.Int(i) != 0 }

// Float returns a real column; NULL is 0.
func (r Row) Float(i int) float64 {
	switch v := r[i].(type) {
	case float64:
		return v
	case int64:
		return float64(v)
	}
	return 0
}

// Bytes returns a BLOB column; NULL is nil.
func (r Row) Bytes(i int) []byte {
	v, _ := r[i].([]byte)
	return v
}

// Str returns a BLOB column as a string; NULL is "".
func (r Row) Str(i int) string { return string(r.Bytes(i)) }

// checkAll checks the arguments of several statements.
func checkAll(stmts []Stmt) error {
	for i, s := range stmts {
		err := s.checkArgs()
		var e *Error
		if errors.As(err, &e) {
			e.Index = i
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// checkArgs refuses what the library would cut, ignore or die of, before it
// joins a group with other callers' work.
func (s Stmt) checkArgs() error {
	invalid := func(format string, args ...any) error {
		return &Error{Class: Invalid, Op: "bind", Detail: fmt.Sprintf(format, args...)}
	}
	n, named, more := scan(s.SQL)
	switch {
	case named:
		return invalid("the statement has a named parameter")
	case more:
		return invalid("the text holds more than one statement")
	case n != len(s.Args):
		return invalid("%d arguments for %d placeholders", len(s.Args), n)
	}
	for i, a := range s.Args {
		switch v := a.(type) {
		case nil, int64, int, bool, []byte:
		case float64:
			if math.IsNaN(v) {
				return invalid("argument %d is not a number", i+1)
			}
		case string:
			if !utf8.ValidString(v) {
				return invalid("argument %d is not valid UTF-8", i+1)
			}
			if strings.IndexByte(v, 0) >= 0 {
				return invalid("argument %d contains a NUL", i+1)
			}
		default:
			return invalid("argument %d has type %T", i+1, a)
		}
	}
	return nil
}

// placeholders says how many arguments a statement takes: a ? takes the number
// after the largest so far, ?N is number N. The driver accepts missing
// arguments silently, so the count is checked here.
func placeholders(sql string) int {
	n, _, _ := scan(sql)
	return n
}

// scan counts the placeholders of a statement, and tells whether it has named
// parameters, which cannot be bound, or a second statement, which the driver
// would leave out without a word.
func scan(sql string) (n int, named, more bool) {
	ended := false
	for i := 0; i < len(sql); {
		if end := skip(sql, i); end > i {
			i = end
			continue
		}
		c := sql[i]
		i++
		switch {
		case c == '?':
			at := 0
			for ; i < len(sql) && sql[i] >= '0' && sql[i] <= '9'; i++ {
				at = min(10*at+int(sql[i]-'0'), math.MaxInt16)
			}
			if at == 0 {
				at = n + 1
			}
			n = max(n, at)
		case (c == ':' || c == '@' || c == '$') && i < len(sql) && isWord(sql[i]):
			named = true
		case c == ';' && !ended:
			ended = true
			more = len(splitStatements(sql)) > 1
		}
		if isWord(c) {
			for i < len(sql) && (isWord(sql[i]) || sql[i] == '$') {
				i++
			}
		}
	}
	return n, named, more
}

func (s Stmt) size() int {
	n := len(s.SQL)
	for _, a := range s.Args {
		switch v := a.(type) {
		case string:
			n += len(v)
		case []byte:
			n += len(v)
		default:
			n += 8
		}
	}
	return n
}
