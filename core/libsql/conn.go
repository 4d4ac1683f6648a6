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
}

// role is what a parked connection was set up for.
type role string

const (
	writerRole  role = "writer"
	readerRole  role = "reader"
	migrateRole role = "migrate"
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
	if err == nil {
		key := lot{id, r, synchronous}
		parking.Lock()
		if free := parking.lots[key]; len(free) > 0 {
			c := free[len(free)-1]
			parking.lots[key] = free[:len(free)-1]
			parking.Unlock()
			return c, nil
		}
		parking.Unlock()
	} else if mode != "rwc" {
		return nil, err
	}
	drv, err := openDriver()
	if err != nil {
		return nil, classify("open", err)
	}
	native, err := drv.Open("file:" + escapePath(path) + "?mode=" + mode)
	if err != nil {
		return nil, classify("open", err)
	}
	c := &conn{native: native, role: r}
	for _, pragma := range c.pragmas(synchronous) {
		if _, err := c.query(pragma); err != nil {
			return nil, err // the native connection is left behind, never closed
		}
	}
	// The first access makes the connection take its shared lock and open the
	// write-ahead log, which is part of the identity.
	if _, err := c.query("SELECT count(*) FROM sqlite_master"); err != nil {
		return nil, err
	}
	// Looked at again now that the file is open: an identity read before the
	// open could belong to a file replaced in between.
	after, err := statFile(path)
	if err != nil {
		return nil, err
	}
	if id != (fileID{}) && !after.sameFile(id) {
		return nil, &Error{Class: Unavailable, Op: "open", Detail: "the database file was replaced while it was opened"}
	}
	c.file = after
	return c, nil
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
		p = append(p, "PRAGMA journal_mode=wal") // kept in the file from then on
	default:
		p = append(p, "PRAGMA cache_size=-8192", "PRAGMA journal_size_limit=67108864")
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

// escapePath makes a path safe inside a URI, where ? and # would cut it.
func escapePath(path string) string {
	return strings.NewReplacer("%", "%25", "?", "%3f", "#", "%23").Replace(path)
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

// query runs a statement to its end: a statement left half read would keep
// its locks.
func (c *conn) query(query string, args ...any) (out []Row, err error) {
	rows, err := c.native.(driver.QueryerContext).QueryContext(context.Background(), query, named(args))
	if err != nil {
		return nil, classify("execute", err)
	}
	defer func() { _ = rows.Close() }() // never fails
	columns := rows.Columns()
	pragma := strings.HasPrefix(query, "PRAGMA") || strings.HasPrefix(query, "EXPLAIN")
	for {
		vals := make([]driver.Value, len(columns))
		if err := rows.Next(vals); errors.Is(err, io.EOF) {
			return out, nil
		} else if err != nil {
			return nil, classify("execute", err)
		}
		row := make(Row, len(vals))
		for i, v := range vals {
			switch v := v.(type) {
			case string:
				if !pragma {
					return nil, textError(columns[i])
				}
				row[i] = []byte(v)
			case time.Time:
				return nil, textError(columns[i])
			default:
				row[i] = v
			}
		}
		out = append(out, row)
	}
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
