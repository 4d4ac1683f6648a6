package libsql

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
)

// slow is a read that takes as long as its argument is large.
const slow = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?) SELECT count(*) FROM n"

func TestStatementsOfAReadSeeOneSnapshot(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, f DB) {
		mustWrite(t, f, Exec("INSERT INTO t(k, v) VALUES (1, 0)"))
		done := make(chan struct{})
		var wg sync.WaitGroup
		wg.Go(func() {
			defer close(done)
			for range 300 {
				if _, err := f.Write(t.Context(), batch(Exec("UPDATE t SET v = v + 1 WHERE k = 1"))); err != nil {
					t.Error(err)
					return
				}
			}
		})
		seen := map[int64]bool{}
		for running := true; running; {
			select {
			case <-done:
				running = false
			default:
			}
			// The count in between gives the writer time to commit.
			res, err := f.Read(t.Context(), Query("SELECT v FROM t"), Query(slow, 2000), Query("SELECT v FROM t"))
			if err != nil {
				t.Fatal(err)
			}
			before, after := res[0].Rows[0].Int(0), res[2].Rows[0].Int(0)
			if before != after {
				t.Fatalf("the first statement saw %d, the last %d", before, after)
			}
			seen[before] = true
		}
		wg.Wait()
		if len(seen) < 2 {
			t.Errorf("only %d states were seen: nothing was written meanwhile", len(seen))
		}
	})
}

func TestAReadWritesNothing(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, f DB) {
		for _, s := range []Stmt{
			Exec("INSERT INTO t(k) VALUES (1)"),
			Query("INSERT INTO t(k) VALUES (1) RETURNING k"),
			Exec("DROP TABLE t"),
		} {
			if _, err := f.Read(t.Context(), s); err == nil {
				t.Errorf("%s went through Read", s.SQL)
			}
			if _, err := f.Read(t.Context(), Query("SELECT 1"), s); err == nil {
				t.Errorf("%s went through Read as the second statement", s.SQL)
			}
		}
		if n := readInt(t, f, "SELECT count(*) FROM t"); n != 0 {
			t.Errorf("%d rows were written", n)
		}
		mustWrite(t, f, Exec("INSERT INTO t(k) VALUES (1)")) // and no lock is left behind
	})
}

func TestAReadReturnsAtItsContextsEnd(t *testing.T) {
	t.Parallel()
	// The abandoned read keeps its slot until it ends.
	f := open(t, Options{Path: newPath(t), Readers: 1})
	ctx, cancel := context.WithCancel(t.Context())
	result := make(chan error, 1)
	go func() {
		_, err := f.Read(ctx, Query(slow, 20_000_000))
		result <- err
	}()
	waitFor(t, func() bool { return len(f.slots) == 1 })
	cancel()
	err := <-result
	wantClass(t, err, Canceled)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("%v does not wrap the context's error", err)
	}

	// The only reader is still at work, so the next one waits in line.
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = f.Read(ended, Query("SELECT 1"))
	wantClass(t, err, Canceled)
}

func TestMoreReadsThanReadersWaitAndSucceed(t *testing.T) {
	t.Parallel()
	f := open(t, Options{Path: newPath(t), Readers: 2})
	var wg sync.WaitGroup
	for i := range 40 {
		wg.Go(func() {
			res, err := f.Read(t.Context(), Query(slow, 1000), Query("SELECT ?", i))
			if err != nil || res[1].Rows[0].Int(0) != int64(i) {
				t.Errorf("read %d gave %v, %v", i, res, err)
			}
		})
	}
	wg.Wait()
	f.mu.Lock()
	defer f.mu.Unlock()
	if n := len(f.readers); n > 2 {
		t.Errorf("%d reading connections, want at most 2", n)
	}
}

func TestForeignKeysAreEnforcedOnEveryConnection(t *testing.T) {
	t.Parallel()
	f := open(t, Options{Path: newPath(t), Readers: 3})
	mustWrite(t, f, Exec("CREATE TABLE parent (k INTEGER PRIMARY KEY) STRICT"),
		Exec("CREATE TABLE child (k INTEGER REFERENCES parent(k)) STRICT"))
	_, err := f.Write(t.Context(), batch(Exec("INSERT INTO child(k) VALUES (1)")))
	wantClass(t, err, Constraint)
	for _, r := range []role{writerRole, readerRole, migrateRole} {
		c, err := connect(f.opt.Path, "rw", r, "FULL")
		if err != nil {
			t.Fatal(err)
		}
		rows, err := c.query("PRAGMA foreign_keys")
		if err != nil || len(rows) != 1 || rows[0].Int(0) != 1 {
			t.Errorf("%s: foreign_keys is %v, %v", r, rows, err)
		}
		c.park("FULL")
	}
}

func TestOpenSetsWhatTheOptionsSay(t *testing.T) {
	t.Parallel()
	path := newPath(t)
	for _, c := range []struct {
		synchronous string
		want        int64
	}{{"", 2}, {"full", 2}, {"FULL", 2}, {"normal", 1}} {
		opt, err := Options{Path: path, Synchronous: c.synchronous}.withDefaults()
		if err != nil {
			t.Fatal(err)
		}
		conn, err := connect(path, "rw", writerRole, opt.Synchronous)
		if err != nil {
			t.Fatal(err)
		}
		rows, err := conn.query("PRAGMA synchronous")
		if err != nil || rows[0].Int(0) != c.want {
			t.Errorf("synchronous=%q gave %v, %v, want %d", c.synchronous, rows, err, c.want)
		}
		rows, err = conn.query("PRAGMA journal_mode")
		if err != nil || rows[0].Str(0) != "wal" {
			t.Errorf("the journal mode is %v, %v", rows, err)
		}
		conn.park(opt.Synchronous)
	}
	for _, opt := range []Options{{}, {Path: "libsql://user:secret@example.com"}, {Path: "http://"}, {Path: path, Synchronous: "off"}} {
		_, err := Open(t.Context(), opt)
		wantClass(t, err, Invalid)
		wantClass(t, Migrate(t.Context(), opt), Invalid)
		_, err = Schema(t.Context(), opt)
		wantClass(t, err, Invalid)
	}
}

func TestALoopThatWaitsForALockLeavesNoConnectionsBehind(t *testing.T) {
	t.Parallel()
	if _, err := os.ReadDir("/proc/self/fd"); err != nil {
		t.Skip("this system does not list open files: leaks were not looked for")
	}
	path := filepath.Join(t.TempDir(), "half.db")
	holder, err := openNative(path, "rwc", fileID{})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{"CREATE TABLE t (k INTEGER)", "BEGIN EXCLUSIVE"} {
		if _, err := holder.exec(s); err != nil {
			t.Fatal(err)
		}
	}
	for range 30 {
		_, err := connect(path, "rw", migrateRole, "FULL")
		wantClass(t, err, Busy)
	}
	if n := openFiles(t, path); n > 2 {
		t.Errorf("the file is open %d times, by the holder and one that waited", n)
	}
	if _, err := holder.exec("ROLLBACK"); err != nil {
		t.Fatal(err)
	}
	if _, err := connect(path, "rw", migrateRole, "FULL"); err != nil {
		t.Errorf("with the lock free: %v", err)
	}
}

// openFiles counts this process's descriptors of the file at path.
func openFiles(t *testing.T, path string) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, e := range entries {
		if target, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil && target == path {
			n++
		}
	}
	return n
}
