// Package dbtest gives tests a fresh, migrated database: a file, or with
// POSTROOM_TEST_DATABASE=sqld a real libsql server. What holds on one must hold
// on the other, so tests of behaviour run unchanged on both. It may import
// core/libsql, sqldtest and the standard library only.
package dbtest

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/postroom/postroom/core/libsql"
	"github.com/postroom/postroom/core/libsql/sqldtest"
)

// Open returns a new database that is closed when the test ends.
func Open(t testing.TB) libsql.DB {
	t.Helper()
	return OpenPath(t, Path(t))
}

// Path returns the path or URL of a new, migrated database.
func Path(t testing.TB) string {
	t.Helper()
	return Place(t).Path
}

// Place returns the place of a new, migrated database.
func Place(t testing.TB) sqldtest.Place {
	t.Helper()
	p := sqldtest.NewPlace(t)
	// The schema itself needs no durability in a test.
	if err := libsql.Migrate(t.Context(), libsql.Options{Path: p.Path, Synchronous: "normal"}); err != nil {
		t.Fatalf("migrate: %v", err)
	}
	return p
}

// OpenPath opens the database at path, which other handles may share.
func OpenPath(t testing.TB, path string) libsql.DB {
	t.Helper()
	db, err := libsql.Open(t.Context(), libsql.Options{Path: path, RetryTimes: 3})
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := db.Close(ctx); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return db
}

// Gather returns a database that lets callers of Merge wait until n have come,
// all with one op, and merges their items together: as the writer does when
// they happen to come at once.
func Gather(db libsql.DB, n int) libsql.DB { return &gathering{DB: db, n: n} }

type gathering struct {
	libsql.DB

	n       int
	mu      sync.Mutex
	waiting []*gathered
}

type gathered struct {
	items [][]byte
	rows  []libsql.Row
	err   error
	done  chan struct{}
}

func (g *gathering) Merge(ctx context.Context, op *libsql.Op, items ...[]byte) ([]libsql.Row, error) {
	mine := &gathered{items: items, done: make(chan struct{})}
	g.mu.Lock()
	g.waiting = append(g.waiting, mine)
	if len(g.waiting) == g.n {
		var all [][]byte
		for _, c := range g.waiting {
			all = append(all, c.items...)
		}
		rows, err := g.DB.Merge(ctx, op, all...)
		for _, c := range g.waiting {
			if c.err = err; err == nil {
				c.rows, rows = rows[:len(c.items)], rows[len(c.items):]
			}
			close(c.done)
		}
		g.waiting = nil
	}
	g.mu.Unlock()
	select {
	case <-mine.done:
		return mine.rows, mine.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}
