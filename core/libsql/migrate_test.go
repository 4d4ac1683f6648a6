package libsql

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/postroom/postroom/migrations"
)

func mode(t *testing.T, path string) fs.FileMode {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Mode().Perm()
}

func status(t *testing.T, path string) SchemaStatus {
	t.Helper()
	st, err := Schema(t.Context(), Options{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	return st
}

// objects lists everything in the schema of the file at path.
func objects(t *testing.T, path string) string {
	t.Helper()
	c, err := connect(path, "rw", migrateRole, "FULL")
	if err != nil {
		t.Fatal(err)
	}
	defer c.park("FULL")
	rows, err := c.query("SELECT CAST(group_concat(type || ' ' || name || ' ' || coalesce(sql, ''), char(10) ORDER BY type, name) AS BLOB) FROM sqlite_master WHERE name NOT LIKE 'sqlite%'")
	if err != nil {
		t.Fatal(err)
	}
	return rows[0].Str(0)
}

func TestMigrateUpAndDown(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "new", "folder")
	path := filepath.Join(dir, "postroom.db")
	opt := Options{Path: path}

	if st := status(t, path); st.Version != 0 || len(st.Pending) != int(st.Latest) {
		t.Errorf("a missing file has the status %+v", st)
	}
	if err := MigrateDown(t.Context(), opt, 0); err != nil {
		t.Errorf("nothing to take back: %v", err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Fatal("looking at the status, or taking nothing back, created something")
	}

	if err := Migrate(t.Context(), opt); err != nil {
		t.Fatal(err)
	}
	if got := mode(t, dir); got&^0o750 != 0 { // the umask may take more
		t.Errorf("the folder's mode is %o, want 750", got)
	}
	for _, suffix := range []string{"", "-wal", "-shm"} {
		if got := mode(t, path+suffix); got != 0o600 {
			t.Errorf("the mode of postroom.db%s is %o, want 600", suffix, got)
		}
	}
	st := status(t, path)
	if st.Version != st.Latest || st.Version < 4 || len(st.Pending) != 0 || st.MinCompatible < 1 || st.MinCompatible > st.Latest {
		t.Errorf("the status is %+v", st)
	}

	f := open(t, opt)
	id := f.databaseID
	if err := Migrate(t.Context(), opt); err != nil {
		t.Errorf("a second time: %v", err)
	}
	if again := open(t, opt); again.databaseID != id || id == "" {
		t.Errorf("the database id was %q and is %q", id, again.databaseID)
	}

	full := objects(t, path)
	if err := MigrateDown(t.Context(), opt, int(st.Latest)+1); err == nil || !strings.Contains(err.Error(), "migrations are applied") {
		t.Errorf("more steps than there are gave %v", err)
	}
	if now := status(t, path); now.Version != st.Version {
		t.Errorf("and took something back: %+v", now)
	}
	for v := st.Latest - 1; v >= 1; v-- {
		if err := MigrateDown(t.Context(), opt, 1); err != nil {
			t.Fatalf("down to %d: %v", v, err)
		}
		if now := status(t, path); now.Version != v || len(now.Pending) != int(st.Latest-v) || now.Pending[0] != v+1 {
			t.Errorf("the status is %+v, want version %d", now, v)
		}
	}
	if err := MigrateDown(t.Context(), opt, 1); err != nil {
		t.Fatal(err)
	}
	if left := objects(t, path); !strings.Contains(left, "schema_migrations") || strings.Count(left, "\n") != 0 {
		t.Errorf("all the way down there is still: %s", left)
	}
	if err := Migrate(t.Context(), opt); err != nil {
		t.Fatal(err)
	}
	if now := objects(t, path); now != full {
		t.Errorf("after going down and up the schema differs:\n%s\n\nwas\n\n%s", now, full)
	}
	if err := MigrateDown(t.Context(), opt, 0); err != nil {
		t.Fatal(err)
	}
	if now := status(t, path); now.Version != 0 {
		t.Errorf("all the way down in one go the status is %+v", now)
	}
}

// source is a set of migrations of its own, beside the real ones.
func source(extra map[string]string) fs.FS {
	files := fstest.MapFS{}
	names, _ := fs.Glob(migrations.FS, "*.sql") // the pattern is sound
	for _, n := range names {
		b, _ := migrations.FS.ReadFile(n) // it was just listed
		files[n] = &fstest.MapFile{Data: b}
	}
	for n, text := range extra {
		files[n] = &fstest.MapFile{Data: []byte(text)}
	}
	return files
}

func TestAFailingMigrationLeavesNothingBehind(t *testing.T) {
	t.Parallel()
	bad := source(map[string]string{
		"000100_good.up.sql": "CREATE TABLE good (k INTEGER) STRICT;",
		"000101_bad.up.sql":  "CREATE TABLE half (k INTEGER) STRICT;\nINSERT INTO meta(key) VALUES ('" + secret + "');\nCREATE TABLE never (k INTEGER) STRICT;",
	})
	check := func(t *testing.T, opt Options) {
		t.Helper()
		opt, err := opt.withDefaults()
		if err != nil {
			t.Fatal(err)
		}
		err = migrateUp(t.Context(), opt, bad)
		wantClass(t, err, Constraint)
		if err == nil || !strings.Contains(err.Error(), "statement 2") || strings.Contains(err.Error(), secret) {
			t.Errorf("the error is %v", err)
		}
	}
	t.Run("in a new file", func(t *testing.T) {
		t.Parallel()
		opt := Options{Path: filepath.Join(t.TempDir(), "postroom.db")}
		check(t, opt)
		if left := objects(t, opt.Path); left != "" {
			t.Errorf("there is %s", left)
		}
		if err := Migrate(t.Context(), opt); err != nil {
			t.Errorf("the sound migrations afterwards: %v", err)
		}
	})
	t.Run("in a database in use", func(t *testing.T) {
		t.Parallel()
		opt := Options{Path: newPath(t)}
		before := objects(t, opt.Path)
		check(t, opt)
		check(t, opt)
		if after := objects(t, opt.Path); after != before {
			t.Errorf("the schema is now\n%s\n\nand was\n\n%s", after, before)
		}
		if st := status(t, opt.Path); st.Version != st.Latest {
			t.Errorf("the status is %+v", st)
		}
		mustWrite(t, open(t, opt)) // no lock is left behind
	})
}

func TestADatabaseOfANewerProgram(t *testing.T) {
	t.Parallel()
	opt, err := Options{Path: newPath(t)}.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	newer := source(map[string]string{"000100_newer.up.sql": "CREATE TABLE newer (k INTEGER) STRICT;"})
	if err := migrateUp(t.Context(), opt, newer); err != nil {
		t.Fatal(err)
	}
	if err := Migrate(t.Context(), opt); err != nil {
		t.Errorf("a newer schema that is compatible: %v", err)
	}
	st := status(t, opt.Path)
	if st.Version != 100 || len(st.Pending) != 0 {
		t.Errorf("the status is %+v", st)
	}
	if err := MigrateDown(t.Context(), opt, 1); err == nil || !strings.Contains(err.Error(), "newer") {
		t.Errorf("going down from a schema of another program gave %v", err)
	}
	f := open(t, opt)
	mustWrite(t, f, Exec("UPDATE meta SET value = ? WHERE key = 'min_compatible'", fmt.Sprint(st.Latest)))
	if err := Migrate(t.Context(), opt); err != nil {
		t.Errorf("min_compatible is this program's own: %v", err)
	}
	mustWrite(t, f, Exec("UPDATE meta SET value = ? WHERE key = 'min_compatible'", fmt.Sprint(st.Latest+1)))
	if err := Migrate(t.Context(), opt); !errors.Is(err, ErrIncompatible) {
		t.Errorf("an incompatible schema gave %v", err)
	}
}

func TestMigrateWaitsNoLongerThanItsContext(t *testing.T) {
	t.Parallel()
	opt := Options{Path: newPath(t)}
	if err := MigrateDown(t.Context(), opt, 1); err != nil {
		t.Fatal(err)
	}
	pin(t, opt.Path)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := Migrate(ctx, opt); !errors.Is(err, context.Canceled) {
		t.Errorf("the error is %v", err)
	}
}

// countedSource marks each time it is applied, which nothing in it prevents
// from happening twice.
var countedSource = map[string]string{
	"000100_count.up.sql": "CREATE TABLE IF NOT EXISTS applied (pid TEXT) STRICT;\nINSERT INTO applied VALUES (hex(randomblob(8)));",
}

func childMigrate(args []string) error {
	opt, err := Options{Path: args[0]}.withDefaults()
	if err != nil {
		return err
	}
	if err := migrateUp(context.Background(), opt, source(countedSource)); err != nil {
		return err
	}
	f, err := Open(context.Background(), opt)
	if err != nil {
		return err
	}
	return f.Close(context.Background())
}

func TestSixProcessesMigrateAtOnce(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "folder", "postroom.db")
	cmds := make([]*exec.Cmd, 6)
	out := make([]bytes.Buffer, len(cmds))
	for i := range cmds {
		cmds[i] = Child(t, nil, "migrate", path)
		cmds[i].Stderr = &out[i]
		if err := cmds[i].Start(); err != nil {
			t.Fatal(err)
		}
	}
	for i, cmd := range cmds {
		if err := cmd.Wait(); err != nil {
			t.Errorf("process %d: %v: %s", i, err, &out[i])
		}
	}
	f := open(t, Options{Path: path, CallTimeout: time.Minute})
	if n := readInt(t, f, "SELECT count(*) FROM applied"); n != 1 {
		t.Errorf("the migration was applied %d times", n)
	}
	if got := mode(t, path); got != 0o600 {
		t.Errorf("the file's mode is %o", got)
	}
}
