package libsql

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/postroom/postroom/core/libsql/sqldtest"
)

func silent(int64, int64) {}

// A backup that is made while others write holds everything that was
// acknowledged before, and of nothing a part.
func TestABackupIsTheDatabaseAtOneMoment(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, db DB) {
		path := ""
		switch db := db.(type) {
		case *File:
			path = db.opt.Path
		case *Remote:
			path = db.opt.Path
		}
		mustWrite(t, db, Exec("INSERT INTO t(v) WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < 20000) SELECT randomblob(500) FROM c"),
			Exec("CREATE TABLE pairs (k INTEGER PRIMARY KEY AUTOINCREMENT, v BLOB NOT NULL) STRICT"))
		var stored atomic.Int64
		ctx, cancel := context.WithCancel(t.Context())
		written := make(chan error, 1)
		began, more := make(chan struct{}), make(chan struct{}, 1)
		go func() {
			for ctx.Err() == nil {
				if _, err := db.Write(context.WithoutCancel(ctx), batch(Exec("INSERT INTO pairs(v) VALUES (randomblob(3000))"), Exec("INSERT INTO pairs(v) VALUES (randomblob(3000))"))); err != nil {
					written <- err
					return
				}
				if stored.Add(2) == 20 {
					close(began)
				}
				select {
				case more <- struct{}{}:
				default:
				}
			}
			written <- nil
		}()
		<-began
		to := filepath.Join(t.TempDir(), "backup.db")
		before := stored.Load()
		var shown [2]int64
		err := Backup(t.Context(), Options{Path: path}, to, func(done, total int64) {
			shown = [2]int64{done, total}
			for stored.Load() < before+4 { // one that began before, and one that did not
				<-more
			}
		})
		cancel()
		if err != nil {
			t.Fatal(err)
		}
		if err := <-written; err != nil {
			t.Fatal(err)
		}
		if info, err := os.Stat(to); err != nil || info.Mode().Perm() != 0o600 || shown != [2]int64{info.Size(), info.Size()} {
			t.Errorf("the copy is %v (%v), and the last word about it %v", info, err, shown)
		}
		c := open(t, Options{Path: to})
		n := readInt(t, c, "SELECT count(*) FROM pairs")
		if n < before || n%2 != 0 {
			t.Errorf("the copy holds %d rows of pairs, and %d were acknowledged before it began", n, before)
		}
		t.Logf("%d rows were acknowledged before, %d are in the copy, %d when it ended", before, n, stored.Load())
		if got := readInt(t, c, "SELECT count(*) FROM t"); got != 20000 {
			t.Errorf("the copy holds %d rows of t", got)
		}
		if mode := pragma(t, to, "journal_mode"); mode != "wal" {
			t.Errorf("the copy's journal is %s", mode)
		}
		mustWrite(t, c, Exec("INSERT INTO pairs(v) VALUES (x'00')"))
		if got := readInt(t, c, "SELECT max(k) FROM pairs"); got != n+1 {
			t.Errorf("the next key is %d, want %d", got, n+1)
		}
	})
}

// pragma asks a connection of its own.
func pragma(t *testing.T, path, name string) string {
	t.Helper()
	c, err := connect(path, "rw", readerRole, "FULL")
	if err != nil {
		t.Fatal(err)
	}
	defer c.park("FULL")
	rows, err := c.query("PRAGMA " + name)
	if err != nil {
		t.Fatal(err)
	}
	return rows[0].Str(0)
}

func TestABackupThatFailsLeavesNothing(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, db DB) {
		opt := Options{}
		switch db := db.(type) {
		case *File:
			opt.Path = db.opt.Path
		case *Remote:
			opt.Path = db.opt.Path
		}
		mustWrite(t, db, Exec("INSERT INTO t(v) WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < 5000) SELECT randomblob(500) FROM c"))
		to := filepath.Join(t.TempDir(), "backup.db")
		ctx, cancel := context.WithCancel(t.Context())
		err := Backup(ctx, opt, to, func(int64, int64) { cancel() })
		wantClass(t, err, Canceled)
		if _, err := os.Stat(to); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("a part of a copy stayed: %v", err)
		}
		if err := os.WriteFile(to, []byte("precious"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := Backup(t.Context(), opt, to, silent); !errors.Is(err, fs.ErrExist) {
			t.Errorf("%v", err)
		}
		if text, err := os.ReadFile(to); err != nil || string(text) != "precious" {
			t.Errorf("what was there is %q now (%v)", text, err)
		}
	})
	t.Run("of a server that stops in the middle", func(t *testing.T) {
		t.Parallel()
		r, s := setupRemote(t, Options{})
		for range 8 { // more than fits between the two; each part in good time on a busy machine as well
			mustWrite(t, r, Exec("INSERT INTO t(v) WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < 5000) SELECT randomblob(1000) FROM c"))
		}
		to := filepath.Join(t.TempDir(), "backup.db")
		frozen := false
		err := Backup(t.Context(), Options{Path: s.URL, CallTimeout: 300 * time.Millisecond}, to, func(int64, int64) {
			if !frozen {
				s.Freeze()
				frozen = true
			}
		})
		s.Thaw()
		wantClass(t, err, Unavailable)
		if _, err := os.Stat(to); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("a part of a copy stayed: %v", err)
		}
	})
	t.Run("of what is no database of ours", func(t *testing.T) {
		t.Parallel()
		path := filepath.Join(t.TempDir(), "other.db")
		c, err := connect(path, "rwc", migrateRole, "FULL")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.exec(tableT); err != nil {
			t.Fatal(err)
		}
		to := filepath.Join(t.TempDir(), "backup.db")
		if err := Backup(t.Context(), Options{Path: path}, to, silent); !errors.Is(err, errNotPostroom) {
			t.Errorf("%v", err)
		}
		if _, err := os.Stat(to); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the copy stayed: %v", err)
		}
	})
}

// backedUp returns a database with one row and a backup of it.
func backedUp(t *testing.T) (path, backup string) {
	t.Helper()
	f := setup(t)
	mustWrite(t, f, Exec("INSERT INTO t(k, v) VALUES (1, 'backed up')"))
	backup = filepath.Join(t.TempDir(), "backup.db")
	if err := Backup(t.Context(), Options{Path: f.opt.Path}, backup, silent); err != nil {
		t.Fatal(err)
	}
	return f.opt.Path, backup
}

func TestRestore(t *testing.T) {
	t.Parallel()
	t.Run("elsewhere", func(t *testing.T) {
		t.Parallel()
		path, backup := backedUp(t)
		to := filepath.Join(t.TempDir(), "new", "postroom.db")
		restored, err := Restore(t.Context(), Options{Path: to}, backup, false, silent)
		if info, statErr := os.Stat(to); err != nil || statErr != nil || restored.Aside != "" || restored.Bytes != info.Size() || restored.Schema == 0 {
			t.Fatalf("%v, %+v", err, restored)
		}
		f := open(t, Options{Path: to})
		if got := readInt(t, f, "SELECT count(*) FROM t WHERE v = 'backed up'"); got != 1 {
			t.Errorf("%d rows", got)
		}
		before := epochOf(t, open(t, Options{Path: path}))
		fresh := writtenEpoch(t, f)
		if fresh == before {
			t.Error("the epoch is the old one")
		}
		if writtenEpoch(t, f) != fresh {
			t.Error("each write changes the epoch")
		}
		if files := list(t, filepath.Dir(to)); files != "postroom.db postroom.db-shm postroom.db-wal" {
			t.Errorf("there are %s", files)
		}
	})

	t.Run("on a server, of a server's", func(t *testing.T) {
		t.Parallel()
		s := newServer(t)
		old := openOn(t, Options{Path: s.URL})
		epoch := writtenEpoch(t, old)
		backup := filepath.Join(t.TempDir(), "backup.db")
		if err := Backup(t.Context(), Options{Path: s.URL}, backup, silent); err != nil {
			t.Fatal(err)
		}
		dir := t.TempDir()
		// Where sqld has its database.
		if _, err := Restore(t.Context(), Options{Path: filepath.Join(dir, "data", "dbs", "default", "data")}, backup, false, silent); err != nil {
			t.Fatal(err)
		}
		f := openOn(t, Options{Path: sqldtest.StartIn(t, dir).URL})
		if fresh := writtenEpoch(t, f); fresh == epoch {
			t.Error("the epoch is the old one")
		}
	})

	t.Run("in the place of a database, which is set aside whole", func(t *testing.T) {
		t.Parallel()
		_, backup := backedUp(t)
		// As a process leaves it that was killed: with a log.
		path := filepath.Join(t.TempDir(), "postroom.db")
		there := setup(t)
		mustWrite(t, there, Exec("INSERT INTO t(k, v) VALUES (2, 'in the log')"))
		for _, suffix := range []string{"", "-wal"} {
			copyFile(t, there.opt.Path+suffix, path+suffix)
		}
		if _, err := Restore(t.Context(), Options{Path: path}, backup, false, silent); err == nil || !strings.Contains(err.Error(), "-replace") {
			t.Errorf("without -replace: %v", err)
		}
		restored, err := Restore(t.Context(), Options{Path: path}, backup, true, silent)
		if err != nil {
			t.Fatal(err)
		}
		if got := readInt(t, open(t, Options{Path: path}), "SELECT group_concat(k) = '1' FROM t"); got != 1 {
			t.Error("the database is not as it was backed up")
		}
		if got := readInt(t, open(t, Options{Path: restored.Aside}), "SELECT group_concat(k) = '2' FROM t"); got != 1 {
			t.Error("the database that was set aside is not as it was")
		}
	})

	t.Run("not while another process has the database open", func(t *testing.T) {
		t.Parallel()
		_, backup := backedUp(t)
		path := newPath(t)
		release := holdElsewhere(t, path)
		_, err := Restore(t.Context(), Options{Path: path}, backup, true, silent)
		wantClass(t, err, Busy)
		release()
	})

	t.Run("no damaged file, and nothing is changed", func(t *testing.T) {
		t.Parallel()
		_, backup := backedUp(t)
		raw, err := os.ReadFile(backup)
		if err != nil {
			t.Fatal(err)
		}
		for name, text := range map[string][]byte{
			"text": []byte("this is no database at all, whatever its name"), "empty": {},
			"cut off": raw[:len(raw)/2], "overwritten": append(append(append([]byte{}, raw[:len(raw)/2]...), make([]byte, 8192)...), raw[len(raw)/2+8192:]...),
		} {
			bad := filepath.Join(t.TempDir(), "bad.db")
			if err := os.WriteFile(bad, text, 0o600); err != nil {
				t.Fatal(err)
			}
			to := filepath.Join(t.TempDir(), "postroom.db")
			if _, err := Restore(t.Context(), Options{Path: to}, bad, true, silent); err == nil || !strings.Contains(err.Error(), "no sound backup") {
				t.Errorf("%s: %v", name, err)
			}
			if files := list(t, filepath.Dir(to)); files != "" {
				t.Errorf("%s: there are %s", name, files)
			}
		}
	})

	t.Run("no file with a log, no database on itself", func(t *testing.T) {
		t.Parallel()
		path, _ := backedUp(t)
		if _, err := Restore(t.Context(), Options{Path: path + "2"}, path, true, silent); err == nil || !strings.Contains(err.Error(), "in use") {
			t.Errorf("%v", err)
		}
		other := newPath(t)
		if _, err := Restore(t.Context(), Options{Path: other}, other, true, silent); err == nil || !strings.Contains(err.Error(), "itself") {
			t.Errorf("%v", err)
		}
		_, err := Restore(t.Context(), Options{Path: "http://127.0.0.1:1"}, path, true, silent)
		if err == nil || !strings.Contains(err.Error(), "on the server's machine") {
			t.Errorf("%v", err)
		}
	})

	t.Run("a copy without a log of its own gets one", func(t *testing.T) {
		t.Parallel()
		_, backup := backedUp(t)
		raw, err := os.ReadFile(backup)
		if err != nil {
			t.Fatal(err)
		}
		raw[18], raw[19] = 1, 1 // as VACUUM INTO and others leave it
		plain, to := filepath.Join(t.TempDir(), "plain.db"), filepath.Join(t.TempDir(), "postroom.db")
		if err := os.WriteFile(plain, raw, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Restore(t.Context(), Options{Path: to}, plain, false, silent); err != nil {
			t.Fatal(err)
		}
		if mode := pragma(t, to, "journal_mode"); mode != "wal" {
			t.Errorf("the journal is %s", mode)
		}
	})

	t.Run("no database of a later, incompatible version", func(t *testing.T) {
		t.Parallel()
		f := setup(t)
		mustWrite(t, f, Exec("UPDATE meta SET value = '9999' WHERE key = 'min_compatible'"))
		backup := filepath.Join(t.TempDir(), "backup.db")
		if err := Backup(t.Context(), Options{Path: f.opt.Path}, backup, silent); err != nil {
			t.Fatal(err)
		}
		to := filepath.Join(t.TempDir(), "postroom.db")
		if _, err := Restore(t.Context(), Options{Path: to}, backup, false, silent); !errors.Is(err, ErrIncompatible) {
			t.Errorf("%v", err)
		}
		if files := list(t, filepath.Dir(to)); files != "" {
			t.Errorf("there are %s", files)
		}
	})
}

// list names the files of a folder.
func list(t *testing.T, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	names := make([]string, len(entries))
	for i, e := range entries {
		names[i] = e.Name()
	}
	return strings.Join(names, " ")
}
