package libsql

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// wantUnavailable checks that nothing can be done with f, and that a write
// says why.
func wantUnavailable(t *testing.T, f *File, why string) {
	t.Helper()
	_, err := f.Write(t.Context(), batch(Exec("INSERT INTO t(k) VALUES (666)")))
	wantClass(t, err, Unavailable)
	if err == nil || !strings.Contains(err.Error(), why) {
		t.Errorf("the error %v does not say %q", err, why)
	}
	_, err = f.Read(t.Context(), Query("SELECT count(*) FROM t"))
	wantClass(t, err, Unavailable)
	_, err = f.Health(t.Context())
	wantClass(t, err, Unavailable)
	_, err = f.ProbeWriter(t.Context())
	wantClass(t, err, Unavailable)
}

// wantRows checks that everything works and that t has n rows, one of which
// this call writes.
func wantRows(t *testing.T, f *File, n int64) {
	t.Helper()
	mustWrite(t, f, Exec("INSERT INTO t DEFAULT VALUES"))
	if got := readInt(t, f, "SELECT count(*) FROM t"); got != n {
		t.Errorf("%d rows, want %d", got, n)
	}
	if _, err := f.Health(t.Context()); err != nil {
		t.Error(err)
	}
	res, err := f.Read(t.Context(), Query("SELECT CAST(integrity_check AS BLOB) FROM pragma_integrity_check"))
	if err != nil || res[0].Rows[0].Str(0) != "ok" {
		t.Errorf("integrity_check gave %v, %v", res, err)
	}
}

func rename(t *testing.T, from, to string) {
	t.Helper()
	if err := os.Rename(from, to); err != nil {
		t.Fatal(err)
	}
}

func remove(t *testing.T, paths ...string) {
	t.Helper()
	for _, p := range paths {
		if err := os.Remove(p); err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
	}
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	b, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, b, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// backup writes a sound copy of the database, as an operator would.
func backup(t *testing.T, f *File) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), "backup.db")
	c, err := connect(f.opt.Path, "rw", migrateRole, "FULL")
	if err != nil {
		t.Fatal(err)
	}
	defer c.park("FULL")
	if _, err := c.exec("VACUUM INTO ?", to); err != nil {
		t.Fatal(err)
	}
	return to
}

// used returns a handle on a database in use: one row, a writer and a reader.
func used(t *testing.T) *File {
	t.Helper()
	f := setup(t)
	wantRows(t, f, 1)
	return f
}

func TestAFileThatIsMovedAway(t *testing.T) {
	t.Parallel()
	f := used(t)
	path, away := f.opt.Path, f.opt.Path+".away"
	for range 2 {
		rename(t, path, away)
		wantUnavailable(t, f, "missing")
		if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Error("a file was created in its place")
		}
		rename(t, away, path)
	}
	wantRows(t, f, 2)

	for _, suffix := range []string{"", "-wal", "-shm"} {
		rename(t, path+suffix, away+suffix)
	}
	wantUnavailable(t, f, "missing")
	for _, suffix := range []string{"", "-wal", "-shm"} {
		rename(t, away+suffix, path+suffix)
	}
	wantRows(t, f, 3)
}

func TestAFileThatGoesAwayUnderAWrite(t *testing.T) {
	t.Parallel()
	f := used(t)
	// The writer's own steps, with the move in between.
	c, err := f.writer.begin()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.exec("INSERT INTO t(k) VALUES (666)"); err != nil {
		t.Fatal(err)
	}
	rename(t, f.opt.Path, f.opt.Path+".away")
	wantClass(t, f.writer.commit(c), Unavailable)
	if _, err := c.exec("ROLLBACK"); err != nil {
		t.Errorf("the transaction was not open any more: %v", err)
	}
	rename(t, f.opt.Path+".away", f.opt.Path)
	wantRows(t, f, 2)
}

func TestAFileThatIsDeletedOrEmptied(t *testing.T) {
	t.Parallel()
	f := used(t)
	remove(t, f.opt.Path)
	wantUnavailable(t, f, "missing")

	f = used(t)
	if err := os.Truncate(f.opt.Path, 0); err != nil {
		t.Fatal(err)
	}
	wantUnavailable(t, f, "empty")
	if info, err := os.Stat(f.opt.Path); err != nil || info.Size() != 0 {
		t.Errorf("the emptied file has been written to: %v, %v", info, err)
	}
}

func TestAnotherFileInItsPlace(t *testing.T) {
	t.Parallel()
	// foreign returns a file that is not f's database.
	for name, foreign := range map[string]func(t *testing.T) string{
		"another Postroom database": func(t *testing.T) string { return backup(t, used(t)) },
		"another SQLite database": func(t *testing.T) string {
			path := filepath.Join(t.TempDir(), "foreign.db")
			c, err := connect(path, "rwc", readerRole, "FULL")
			if ClassOf(err) != Unavailable { // it is empty, and stays half open
				t.Fatalf("%v, %v", c, err)
			}
			c, err = connect(path, "rwc", migrateRole, "FULL")
			if err != nil {
				t.Fatal(err)
			}
			if _, err := c.exec("CREATE TABLE t (k INTEGER)"); err != nil {
				t.Fatal(err)
			}
			if _, err := c.query("PRAGMA wal_checkpoint(TRUNCATE)"); err != nil {
				t.Fatal(err)
			}
			return path
		},
		"no database": func(t *testing.T) string {
			path := filepath.Join(t.TempDir(), "text")
			if err := os.WriteFile(path, bytes.Repeat([]byte("not a database\n"), 1000), 0o600); err != nil {
				t.Fatal(err)
			}
			return path
		},
	} {
		for _, logs := range []string{"left behind", "moved away"} {
			t.Run(name+", the log "+logs, func(t *testing.T) {
				t.Parallel()
				f := used(t)
				path := f.opt.Path
				other := foreign(t)
				rename(t, path, path+".away")
				if logs == "moved away" {
					rename(t, path+"-wal", path+".away-wal")
					rename(t, path+"-shm", path+".away-shm")
				}
				copyFile(t, other, path)
				before, err := os.ReadFile(path)
				if err != nil {
					t.Fatal(err)
				}
				for range 3 {
					wantUnavailable(t, f, "replaced")
				}
				after, err := os.ReadFile(path)
				if err != nil || !bytes.Equal(before, after) {
					t.Errorf("the other file was written to (%v)", err)
				}
				if logs == "moved away" {
					remove(t, path, path+"-wal", path+"-shm")
					rename(t, path+".away-wal", path+"-wal")
					rename(t, path+".away-shm", path+"-shm")
				}
				rename(t, path+".away", path)
				wantRows(t, f, 2)
			})
		}
	}
}

func TestARestoredBackupIsAccepted(t *testing.T) {
	t.Parallel()
	for _, logs := range []string{"removed", "left behind"} {
		t.Run("the old log "+logs, func(t *testing.T) {
			t.Parallel()
			f := used(t)
			other := open(t, Options{Path: f.opt.Path}) // of another process, as far as the file goes
			saved := backup(t, f)
			wantRows(t, f, 2) // lost with the restore
			path := f.opt.Path
			restored := path + ".restored"
			copyFile(t, saved, restored)
			remove(t, path)
			if logs == "removed" {
				remove(t, path+"-wal", path+"-shm")
			}
			rename(t, restored, path)
			awaitRows(t, f, 2)
			wantRows(t, other, 3)
			if n := readInt(t, open(t, Options{Path: path}), "SELECT count(*) FROM t"); n != 3 {
				t.Errorf("a new handle sees %d rows, want 3", n)
			}
			if _, err := os.Stat(path + "-wal.replaced"); (err == nil) != (logs == "left behind") {
				t.Errorf("the old log %s: %v", logs, err)
			}
		})
	}
}

func TestABackupThatIsStillBeingCopiedIsNotTouched(t *testing.T) {
	t.Parallel()
	f := used(t)
	saved := backup(t, f)
	whole, err := os.ReadFile(saved)
	if err != nil {
		t.Fatal(err)
	}
	path := f.opt.Path
	remove(t, path)
	if err := os.WriteFile(path, whole[:len(whole)/2], 0o600); err != nil {
		t.Fatal(err)
	}
	wantUnavailable(t, f, "replaced")
	if err := os.WriteFile(path, whole, 0o600); err != nil { // the same inode goes on
		t.Fatal(err)
	}
	awaitRows(t, f, 2)
}

// awaitRows waits until the file that was put in place is taken up.
func awaitRows(t *testing.T, f *File, n int64) {
	t.Helper()
	awaitHealth(t, f)
	wantRows(t, f, n)
}

func awaitHealth(t *testing.T, f *File) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for range tick.C {
		if _, err := f.Health(t.Context()); err == nil {
			return
		}
	}
}

func TestTheLogOfARunningDatabaseIsRemoved(t *testing.T) {
	t.Parallel()
	for _, suffix := range []string{"-wal", "-shm"} {
		f := used(t)
		path := f.opt.Path
		rename(t, path+suffix, path+".away")
		wantUnavailable(t, f, "write-ahead log was removed or replaced")
		rename(t, path+".away", path+suffix)
		wantRows(t, f, 2)
		remove(t, path+suffix)
		wantUnavailable(t, f, "write-ahead log was removed or replaced")
	}
}

func TestAPathThatIsNoFile(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{folder, fifo} {
		opt := Options{Path: path}
		_, err := Open(t.Context(), opt)
		wantClass(t, err, Unavailable)
		_, err = Schema(t.Context(), opt)
		wantClass(t, err, Unavailable)
		wantClass(t, Migrate(t.Context(), opt), Unavailable)
	}

	f := used(t)
	path := f.opt.Path
	rename(t, path, path+".away")
	rename(t, fifo, path)
	wantUnavailable(t, f, "not a regular file")
	remove(t, path)
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	wantUnavailable(t, f, "not a regular file")
	remove(t, path)
	rename(t, path+".away", path)
	wantRows(t, f, 2)
}

func TestOnlyAMigratedFileIsOpened(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "missing", "postroom.db")
	_, err := Open(t.Context(), Options{Path: path})
	wantClass(t, err, Unavailable)
	if _, err := os.Stat(filepath.Dir(path)); !errors.Is(err, fs.ErrNotExist) {
		t.Error("Open created the folder")
	}
	garbage := filepath.Join(t.TempDir(), "garbage")
	if err := os.WriteFile(garbage, bytes.Repeat([]byte("x"), 8192), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = Open(t.Context(), Options{Path: garbage})
	wantClass(t, err, Corrupt)
}

func TestPathsThatAreHardToWrite(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"what?.db", "a?mode=memory", "no#1.db", "100%.db", "%41.db", "two words.db", "post büro ✉.db", "a&b=c;d.db", ":memory:", "it's.db", `back\slash.db`} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(t.TempDir(), name+" folder")
			path := filepath.Join(dir, name)
			if err := Migrate(t.Context(), Options{Path: path}); err != nil {
				t.Fatal(err)
			}
			f := open(t, Options{Path: path})
			mustWrite(t, f, Exec("CREATE TABLE t (k INTEGER PRIMARY KEY)"))
			wantRows(t, f, 1)
			entries, err := os.ReadDir(dir)
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range entries {
				if e.Name() != name && e.Name() != name+"-wal" && e.Name() != name+"-shm" {
					t.Errorf("there is a file %q", e.Name())
				}
			}
			if info, err := os.Stat(path); err != nil || info.Size() == 0 {
				t.Errorf("the file itself: %v, %v", info, err)
			}
		})
	}
}
