// Package dbtest gives tests a fresh, migrated database file. It may import
// core/libsql and the standard library only.
package dbtest

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"github.com/postroom/postroom/core/libsql"
)

// Open returns a new database that is closed when the test ends.
func Open(t testing.TB) *libsql.File {
	t.Helper()
	return OpenPath(t, Path(t))
}

// Path returns the path of a new, migrated database file.
func Path(t testing.TB) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "postroom.db")
	// The schema itself needs no durability in a test.
	if err := libsql.Migrate(t.Context(), libsql.Options{Path: path, Synchronous: "normal"}); err != nil {
		t.Fatalf("migrate: %v", err)
	}
	return path
}

// OpenPath opens the file at path, which other handles may share.
func OpenPath(t testing.TB, path string) *libsql.File {
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
