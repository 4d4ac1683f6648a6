// Package native calls the libsql library that go-libsql brings with it. The
// driver compiles a statement each time it is run; here that is done once for
// each connection. A row is fetched with one call instead of three for each
// column, and no dates are guessed in TEXT. Like the driver, the library dies
// of TEXT in a result that is not UTF-8.
package native

/*
#cgo darwin LDFLAGS: -Wl,-undefined,dynamic_lookup
#include <stdlib.h>

// The part of go-libsql's libsql.h that is used. The symbols are weak because
// they are only there when the whole program is linked, with go-libsql's
// library.
typedef struct database *database_t;
typedef struct connection *connection_t;
typedef struct stmt *stmt_t;
typedef struct rows *rows_t;
typedef struct row *row_t;
typedef struct { const char *ptr; int len; } blob;

#define WEAK extern __attribute__((weak))

WEAK int libsql_open_file(const char *url, database_t *out, char **err);
WEAK int libsql_connect(database_t db, connection_t *out, char **err);
WEAK int libsql_prepare(connection_t conn, const char *sql, stmt_t *out, char **err);
WEAK int libsql_bind_int(stmt_t stmt, int idx, long long value, char **err);
WEAK int libsql_bind_float(stmt_t stmt, int idx, double value, char **err);
WEAK int libsql_bind_null(stmt_t stmt, int idx, char **err);
WEAK int libsql_bind_string(stmt_t stmt, int idx, const char *value, char **err);
WEAK int libsql_bind_blob(stmt_t stmt, int idx, const unsigned char *value, int len, char **err);
WEAK int libsql_query_stmt(stmt_t stmt, rows_t *out, char **err);
WEAK int libsql_execute_stmt(stmt_t stmt, char **err);
WEAK int libsql_reset_stmt(stmt_t stmt, char **err);
WEAK void libsql_free_stmt(stmt_t stmt);
WEAK void libsql_free_rows(rows_t rows);
WEAK int libsql_column_count(rows_t rows);
WEAK int libsql_column_name(rows_t rows, int col, char **out, char **err);
WEAK int libsql_column_type(rows_t rows, row_t row, int col, int *out, char **err);
WEAK unsigned long long libsql_changes(connection_t conn);
WEAK int libsql_next_row(rows_t rows, row_t *out, char **err);
WEAK void libsql_free_row(row_t row);
WEAK int libsql_get_string(row_t row, int col, char **out, char **err);
WEAK void libsql_free_string(char *s);
WEAK int libsql_get_int(row_t row, int col, long long *out, char **err);
WEAK int libsql_get_float(row_t row, int col, double *out, char **err);
WEAK int libsql_get_blob(row_t row, int col, blob *out, char **err);
WEAK void libsql_free_blob(blob b);

typedef struct { long long i; double f; const char *p; int len, type; } cell;

// fetch reads the next row into n cells, or leaves row null after the last. It
// copies TEXT only where it is asked for.
static int fetch(rows_t rows, int n, int text, row_t *row, cell *cells, char **err) {
	int rc = libsql_next_row(rows, row, err);
	for (int k = 0; rc == 0 && *row != 0 && k < n; k++) {
		cell *c = &cells[k];
		c->p = 0;
		c->len = 0;
		rc = libsql_column_type(rows, *row, k, &c->type, err);
		if (rc != 0) {
			c->type = 0;
		} else if (c->type == 1) {
			rc = libsql_get_int(*row, k, &c->i, err);
		} else if (c->type == 2) {
			rc = libsql_get_float(*row, k, &c->f, err);
		} else if (c->type == 3 && text) {
			rc = libsql_get_string(*row, k, (char **)&c->p, err);
		} else if (c->type == 4) {
			blob b = {0, 0};
			rc = libsql_get_blob(*row, k, &b, err);
			c->p = b.ptr;
			c->len = b.len;
		}
		if (rc != 0) {
			n = k; // what follows holds nothing
		}
	}
	return rc;
}

static void release(int n, row_t row, cell *cells) {
	for (int k = 0; k < n; k++) {
		if (cells[k].p == 0) {
			continue;
		}
		if (cells[k].type == 3) {
			libsql_free_string((char *)cells[k].p);
		} else {
			blob b = {cells[k].p, cells[k].len};
			libsql_free_blob(b);
		}
		cells[k].p = 0;
	}
	if (row != 0) {
		libsql_free_row(row);
	}
}
*/
import "C"

import (
	"errors"
	"strings"
	"unsafe"

	_ "github.com/tursodatabase/go-libsql" // the library
)

// The types of a column's value.
const (
	typeInt = iota + 1
	typeFloat
	typeText
	typeBlob
)

// A connection keeps so many compiled statements, which is more than a busy
// writer uses by turns. One with longer arguments than large is not kept: it
// would keep those, too.
const (
	keep  = 64
	large = 1 << 20
)

// ErrBind says that an argument could not be bound. The library's own words
// would quote it.
var ErrBind = errors.New("an argument cannot be bound")

var empty byte // an empty BLOB begins somewhere, too

// Text stands for a TEXT value that is not decoded.
type Text struct{}

// Conn is a connection to a file. One goroutine uses it at a time. It cannot
// be closed: the library would close it twice.
type Conn struct {
	ptr  C.connection_t
	kept map[string]*stmt
	turn int64
}

// stmt is a compiled statement, ready to be bound and run.
type stmt struct {
	ptr     C.stmt_t
	sql     string
	kept    bool
	bytes   int   // of its arguments
	used    int64 // the turn it was last used in
	columns []string
	cells   []C.cell
}

// Open opens the file that a URI names.
func Open(uri string) (*Conn, error) {
	var db C.database_t
	var msg *C.char
	if err := failure(C.libsql_open_file(cString(uri), &db, &msg), &msg); err != nil {
		return nil, err
	}
	c := &Conn{kept: map[string]*stmt{}}
	if err := failure(C.libsql_connect(db, &c.ptr, &msg), &msg); err != nil {
		return nil, err
	}
	return c, nil
}

// Exec runs a statement that returns no rows and returns how many it changed.
func (c *Conn) Exec(sql string, args []any) (int64, error) {
	s, err := c.prepared(sql, args)
	if err != nil {
		return 0, err
	}
	defer c.done(s)
	var msg *C.char
	if err := failure(C.libsql_execute_stmt(s.ptr, &msg), &msg); err != nil {
		return 0, err
	}
	return int64(C.libsql_changes(c.ptr)), nil //nolint:gosec // no statement changes 2^63 rows
}

// Query runs a statement and hands each of its rows to fn, until its first
// error. A value is nil, an int64, a float64, a []byte, or for TEXT a string
// where text says that it is SQLite's own, and else [Text].
func (c *Conn) Query(sql string, args []any, text bool, fn func(columns []string, row []any) error) error {
	s, err := c.prepared(sql, args)
	if err != nil {
		return err
	}
	defer c.done(s)
	var rows C.rows_t
	var msg *C.char
	if err := failure(C.libsql_query_stmt(s.ptr, &rows, &msg), &msg); err != nil {
		return err
	}
	defer C.libsql_free_rows(rows)
	if err := s.describe(rows); err != nil {
		return err
	}
	for {
		row, err := s.next(rows, text)
		if row == nil || err != nil {
			return err
		}
		if err := fn(s.columns, row); err != nil {
			return err
		}
	}
}

// Forget frees the statements that are kept.
func (c *Conn) Forget() {
	for sql, s := range c.kept {
		C.libsql_free_stmt(s.ptr)
		delete(c.kept, sql)
	}
}

// prepared returns a statement with its arguments bound.
func (c *Conn) prepared(sql string, args []any) (*stmt, error) {
	s := c.kept[sql]
	if s == nil {
		s = &stmt{sql: sql, kept: repeats(sql)}
		var msg *C.char
		if err := failure(C.libsql_prepare(c.ptr, cString(sql), &s.ptr, &msg), &msg); err != nil {
			return nil, err
		}
		if s.kept {
			c.makeRoom()
			c.kept[sql] = s
		}
	}
	c.turn++
	s.used, s.bytes = c.turn, 0
	for i, arg := range args {
		if !s.bind(C.int(i+1), arg) {
			c.done(s)
			return nil, ErrBind
		}
	}
	return s, nil
}

// repeats says whether a statement may be run again as it was compiled: some
// pragmas act when they are compiled, and what changes the schema comes once.
func repeats(sql string) bool {
	for _, begin := range []string{"PRAGMA", "EXPLAIN", "CREATE", "DROP", "ALTER", "VACUUM"} {
		if strings.HasPrefix(sql, begin) {
			return false
		}
	}
	return true
}

// makeRoom frees the statement that was not used for longest when there are
// too many.
func (c *Conn) makeRoom() {
	if len(c.kept) < keep {
		return
	}
	oldest := ""
	for sql, s := range c.kept {
		if oldest == "" || s.used < c.kept[oldest].used {
			oldest = sql
		}
	}
	C.libsql_free_stmt(c.kept[oldest].ptr)
	delete(c.kept, oldest)
}

// done ends the statement's run, and with it its locks.
func (c *Conn) done(s *stmt) {
	if s.kept && s.bytes > large {
		delete(c.kept, s.sql)
		s.kept = false
	}
	if !s.kept {
		C.libsql_free_stmt(s.ptr)
		return
	}
	var msg *C.char
	C.libsql_reset_stmt(s.ptr, &msg) // fails only without a statement
}

func (s *stmt) bind(at C.int, arg any) bool {
	var msg *C.char
	var rc C.int
	switch v := arg.(type) {
	case nil:
		rc = C.libsql_bind_null(s.ptr, at, &msg)
	case int64:
		rc = C.libsql_bind_int(s.ptr, at, C.longlong(v), &msg)
	case int:
		rc = C.libsql_bind_int(s.ptr, at, C.longlong(v), &msg)
	case bool:
		var n C.longlong
		if v {
			n = 1
		}
		rc = C.libsql_bind_int(s.ptr, at, n, &msg)
	case float64:
		rc = C.libsql_bind_float(s.ptr, at, C.double(v), &msg)
	case string:
		s.bytes += len(v)
		rc = C.libsql_bind_string(s.ptr, at, cString(v), &msg)
	case []byte:
		if v == nil {
			rc = C.libsql_bind_null(s.ptr, at, &msg)
			break
		}
		s.bytes += len(v)
		first := &empty
		if len(v) > 0 {
			first = &v[0]
		}
		rc = C.libsql_bind_blob(s.ptr, at, (*C.uchar)(first), C.int(len(v)), &msg)
	default:
		return false
	}
	if rc != 0 {
		C.libsql_free_string(msg)
	}
	return rc == 0
}

// describe finds the names of the columns, which a change of the schema may
// have changed since the last run.
func (s *stmt) describe(rows C.rows_t) error {
	n := int(C.libsql_column_count(rows))
	if s.cells != nil && len(s.columns) == n {
		return nil
	}
	s.columns, s.cells = make([]string, n), make([]C.cell, n+1) // one more, so that there is a first
	for i := range s.columns {
		var name, msg *C.char
		if err := failure(C.libsql_column_name(rows, C.int(i), &name, &msg), &msg); err != nil {
			return err
		}
		s.columns[i] = C.GoString(name)
		C.libsql_free_string(name)
	}
	return nil
}

// next returns the next row, nil after the last.
func (s *stmt) next(rows C.rows_t, text bool) ([]any, error) {
	n := C.int(len(s.columns))
	var decode C.int
	if text {
		decode = 1
	}
	var row C.row_t
	var msg *C.char
	rc := C.fetch(rows, n, decode, &row, &s.cells[0], &msg)
	if rc == 0 && row == nil {
		return nil, nil
	}
	defer C.release(n, row, &s.cells[0])
	if err := failure(rc, &msg); err != nil {
		return nil, err
	}
	out := make([]any, n)
	for i := range out {
		switch c := &s.cells[i]; c._type {
		case typeInt:
			out[i] = int64(c.i)
		case typeFloat:
			out[i] = float64(c.f)
		case typeText:
			out[i] = Text{}
			if text {
				out[i] = C.GoString(c.p)
			}
		case typeBlob:
			out[i] = C.GoBytes(unsafe.Pointer(c.p), c.len)
		}
	}
	return out, nil
}

// cString returns the text with a NUL behind it. The library copies it.
func cString(s string) *C.char {
	b := make([]byte, len(s)+1)
	copy(b, s)
	return (*C.char)(unsafe.Pointer(unsafe.SliceData(b)))
}

// failure is what the library says went wrong, if anything did. SQL and values
// are not in it but where SQLite's own words have them.
func failure(rc C.int, msg **C.char) error {
	if rc == 0 {
		return nil
	}
	if *msg == nil {
		return errors.New("the library gives no reason")
	}
	defer C.libsql_free_string(*msg)
	return errors.New(C.GoString(*msg))
}
