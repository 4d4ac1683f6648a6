package libsql

import (
	"fmt"
	"strings"
	"sync"

	"github.com/postroom/postroom/core/libsql/internal/native"
)

// conn is one native connection. It is never closed: the bundled library
// closes a local connection twice, which corrupts the heap (libsql#2251,
// go-libsql#90). What is no longer needed is parked for the next open of the
// same file.
type conn struct {
	native *native.Conn
	file   fileID
	role   role
	large  bool // its cache and log are
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
	opened, err := native.Open("file:" + escapePath(path) + "?mode=" + mode)
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
	return &conn{native: opened, file: now.bare()}, nil
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
		// Both are kept in the file from then on; a file that has pages keeps
		// their size. With pages of 4 KiB half as many rows share one, and each is
		// written with calls of its own.
		p = append(p, "PRAGMA query_only=OFF", "PRAGMA page_size=8192", "PRAGMA journal_mode=wal")
	default:
		p = append(append(p, "PRAGMA query_only=OFF", "PRAGMA journal_size_limit=67108864"), usualRoom...)
	}
	return p
}

// park rolls back whatever is open and keeps the connection for reuse.
func (c *conn) park(synchronous string) {
	_, _ = c.exec("ROLLBACK") // an error says that there was nothing to roll back
	c.native.Forget()
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

// room gives a writing connection a large cache and log or its usual ones.
func (c *conn) room(large bool) {
	if c.large == large {
		return
	}
	pragmas := usualRoom
	if large {
		pragmas = largeRoom
	}
	for _, pragma := range pragmas {
		if _, err := c.query(pragma); err != nil {
			return // a failure costs memory or time only
		}
	}
	c.large = large
}

// rest gives back the memory that nobody needs while all is quiet.
func (c *conn) rest() {
	c.room(false)
	c.native.Forget()
	_, _ = c.query("PRAGMA shrink_memory") // its page cache; a failure costs memory only
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
	n, err := c.native.Exec(query, args)
	if err != nil {
		return 0, classify("execute", err)
	}
	return n, nil
}

// query runs a statement and returns its rows.
func (c *conn) query(query string, args ...any) (out []Row, err error) {
	err = c.each(query, args, func(_ []string, row []any) error {
		out = append(out, row)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// each runs a statement to its end or to fn's first error. The text of SQLite's
// own answers is given as bytes.
func (c *conn) each(query string, args []any, fn func([]string, []any) error) error {
	var refused error
	err := c.native.Query(query, args, told(query), func(columns []string, row []any) error {
		for i, v := range row {
			switch v := v.(type) {
			case string:
				row[i] = []byte(v)
			case native.Text:
				refused = textError(columns[i])
				return refused
			}
		}
		refused = fn(columns, row)
		return refused
	})
	if err != nil && refused == nil {
		return classify("execute", err)
	}
	return err
}

// told says whether what a statement returns are SQLite's own words.
func told(query string) bool {
	return strings.HasPrefix(query, "PRAGMA") || strings.HasPrefix(query, "EXPLAIN")
}

// check runs a guard, whose rows nobody wants: only its error counts.
func (c *conn) check(s Stmt) error {
	if err := c.native.Query(s.SQL, s.Args, false, func([]string, []any) error { return nil }); err != nil {
		return classify("execute", err)
	}
	return nil
}

func textError(column string) error {
	return &Error{Class: Invalid, Op: "read", Detail: fmt.Sprintf("column %s is TEXT: select CAST(%s AS BLOB)", column, column)}
}
