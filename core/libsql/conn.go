package libsql

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	_ "github.com/tursodatabase/go-libsql" // registers "libsql"
)

// conn is one native connection. It is never closed: the bundled library
// closes a local connection twice, which corrupts the heap (libsql#2251,
// go-libsql#90). What is no longer needed is parked for the next open of the
// same file.
type conn struct {
	native driver.Conn
	file   fileID
	role   role
	large  bool // its cache is
}

// role is what a parked connection was set up for.
type role string

const (
	writerRole  role = "writer"
	readerRole  role = "reader"
	migrateRole role = "migrate"
	halfOpen    role = "half-open" // not set up: something was in the way
)

// The process-wide parking place. A file that was replaced has another
// identity, so nothing parked for the old one is ever handed out for the new.
var parking struct {
	sync.Mutex
	lots map[lot][]*conn
}

type lot struct {
	file fileID
	role role
	sync string
}

var openDriver = sync.OnceValues(func() (driver.Driver, error) {
	// database/sql has no look-up of a driver by name. The handle opens an
	// in-memory database that nobody uses and is kept, not closed.
	db, err := sql.Open("libsql", ":memory:")
	if err != nil {
		return nil, err
	}
	return db.Driver(), nil
})

// connect returns a parked connection for the file at path, or a new one.
// The file must exist unless mode is rwc.
func connect(path, mode string, r role, synchronous string) (*conn, error) {
	id, err := statFile(path)
	if err != nil && mode != "rwc" {
		return nil, err
	}
	if err == nil {
		if c := unpark(lot{id, r, synchronous}); c != nil {
			return c, nil
		}
	}
	c := unpark(lot{file: id.bare(), role: halfOpen})
	if c == nil {
		if c, err = openNative(path, mode, id); err != nil {
			return nil, err
		}
	}
	c.role = r
	file, err := c.setUp(path, synchronous)
	if err != nil {
		// Kept for the next attempt: a loop that waits for another process's
		// lock would otherwise leave a connection behind at every turn.
		c.role = halfOpen
		c.park("")
		return nil, err
	}
	c.file = file
	return c, nil
}

// openNative opens the file that is at the path. before is what was there a
// moment ago, zero for a missing file.
func openNative(path, mode string, before fileID) (*conn, error) {
	drv, err := openDriver()
	if err != nil {
		return nil, classify("open", err)
	}
	native, err := drv.Open("file:" + escapePath(path) + "?mode=" + mode)
	if err != nil {
		return nil, classify("open", err)
	}
	// Looked at again now that the file is open: the identity read before could
	// belong to a file replaced in between.
	now, err := statFile(path)
	if now == (fileID{}) {
		return nil, err
	}
	if before != (fileID{}) && !now.sameFile(before) {
		return nil, errReplaced()
	}
	return &conn{native: native, file: now.bare()}, nil
}

func errReplaced() error {
	return &Error{Class: Unavailable, Op: "open", Detail: "the database file was replaced while it was opened"}
}

// setUp makes the connection ready for its role and returns the identity of
// the file with its log.
func (c *conn) setUp(path, synchronous string) (fileID, error) {
	c.large = false // says the pragma below
	for _, pragma := range c.pragmas(synchronous) {
		if _, err := c.query(pragma); err != nil {
			return fileID{}, err
		}
	}
	// The first access makes the connection take its shared lock and open the
	// write-ahead log, which is part of the identity.
	if _, err := c.query("SELECT count(*) FROM sqlite_master"); err != nil {
		return fileID{}, err
	}
	file, err := statFile(path)
	if err == nil && !file.sameFile(c.file) {
		err = errReplaced()
	}
	return file, err
}

// pragmas belong on every connection; the driver ignores them in its DSN.
// Waiting for locks is done here with short retries, not by SQLite's busy
// handler, which is unfair between processes and deaf to contexts.
func (c *conn) pragmas(synchronous string) []string {
	p := []string{
		"PRAGMA busy_timeout=0",
		"PRAGMA foreign_keys=ON",
		"PRAGMA synchronous=" + synchronous,
	}
	switch c.role {
	case readerRole:
		p = append(p, "PRAGMA cache_size=-1024", "PRAGMA query_only=ON")
	case migrateRole:
		p = append(p, "PRAGMA query_only=OFF", "PRAGMA journal_mode=wal") // kept in the file from then on
	default:
		p = append(p, "PRAGMA query_only=OFF", usualCache, "PRAGMA journal_size_limit=67108864")
	}
	return p
}

// park rolls back whatever is open and keeps the connection for reuse.
func (c *conn) park(synchronous string) {
	_, _ = c.exec("ROLLBACK") // an error says that there was nothing to roll back
	parking.Lock()
	defer parking.Unlock()
	if parking.lots == nil {
		parking.lots = map[lot][]*conn{}
	}
	key := lot{c.file, c.role, synchronous}
	parking.lots[key] = append(parking.lots[key], c)
}

// unpark takes a connection out of the parking place, or returns nil.
func unpark(key lot) *conn {
	parking.Lock()
	defer parking.Unlock()
	free := parking.lots[key]
	if len(free) == 0 {
		return nil
	}
	c := free[len(free)-1]
	parking.lots[key] = free[:len(free)-1]
	return c
}

// escapePath makes a path safe inside a URI, where ? and # would cut it.
func escapePath(path string) string {
	return strings.NewReplacer("%", "%25", "?", "%3f", "#", "%23").Replace(path)
}

// cache gives a writing connection its large cache or its usual one.
func (c *conn) cache(large bool) {
	if c.large == large {
		return
	}
	pragma := usualCache
	if large {
		pragma = largeCache
	}
	if _, err := c.query(pragma); err == nil { // a failure costs time or memory only
		c.large = large
	}
}

func (c *conn) run(s Stmt) (Result, error) {
	if s.rows {
		rows, err := c.query(s.SQL, s.Args...)
		return Result{Rows: rows}, err
	}
	n, err := c.exec(s.SQL, s.Args...)
	return Result{Changes: n}, err
}

func (c *conn) exec(query string, args ...any) (int64, error) {
	res, err := c.native.(driver.ExecerContext).ExecContext(context.Background(), query, named(args))
	if err != nil {
		return 0, classify("execute", err)
	}
	n, _ := res.RowsAffected() // the driver's never fails
	return n, nil
}

// query runs a statement and returns its rows.
func (c *conn) query(query string, args ...any) (out []Row, err error) {
	pragma := strings.HasPrefix(query, "PRAGMA") || strings.HasPrefix(query, "EXPLAIN")
	err = c.each(query, args, func(columns []string, vals []driver.Value) error {
		row := make(Row, len(vals))
		for i, v := range vals {
			switch v := v.(type) {
			case string:
				if !pragma {
					return textError(columns[i])
				}
				row[i] = []byte(v)
			case time.Time:
				return textError(columns[i])
			default:
				row[i] = v
			}
		}
		out = append(out, row)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// each runs a statement to its end or to fn's first error. Closing its rows
// ends it: a statement left half read would keep its locks.
func (c *conn) each(query string, args []any, fn func([]string, []driver.Value) error) error {
	rows, err := c.native.(driver.QueryerContext).QueryContext(context.Background(), query, named(args))
	if err != nil {
		return classify("execute", err)
	}
	defer func() { _ = rows.Close() }() // never fails
	columns := rows.Columns()
	for {
		vals := make([]driver.Value, len(columns))
		if err := rows.Next(vals); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return classify("execute", err)
		}
		if err := fn(columns, vals); err != nil {
			return err
		}
	}
}

// check runs a guard, whose rows nobody wants: only its error counts.
func (c *conn) check(s Stmt) error {
	return c.each(s.SQL, s.Args, func([]string, []driver.Value) error { return nil })
}

func textError(column string) error {
	return &Error{Class: Invalid, Op: "read", Detail: fmt.Sprintf("column %s is TEXT: select CAST(%s AS BLOB)", column, column)}
}

func named(args []any) []driver.NamedValue {
	if len(args) == 0 {
		return nil
	}
	out := make([]driver.NamedValue, len(args))
	for i, a := range args {
		switch v := a.(type) {
		case int:
			a = int64(v)
		case []byte:
			if v == nil {
				a = nil // the driver would store an empty BLOB
			}
		}
		out[i] = driver.NamedValue{Ordinal: i + 1, Value: a}
	}
	return out
}
