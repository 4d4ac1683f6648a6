package libsql

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"
)

const sqlEpoch = "SELECT CAST(value AS BLOB) FROM meta WHERE key = 'epoch'"

// epochOf reads the epoch without a write.
func epochOf(t *testing.T, f DB) string {
	t.Helper()
	res, err := f.Read(t.Context(), Query(sqlEpoch))
	if err != nil {
		t.Fatal(err)
	}
	return res[0].Rows[0].Str(0)
}

// writtenEpoch is the epoch in which a write finds itself.
func writtenEpoch(t testing.TB, f DB) string {
	t.Helper()
	return mustWrite(t, f, Query(sqlEpoch))[0].Rows[0].Str(0)
}

// usedBefore returns the path of a database that was used and closed, and its epoch.
func usedBefore(t *testing.T) (path, epoch string) {
	t.Helper()
	path = newPath(t)
	f, err := Open(t.Context(), Options{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	epoch = writtenEpoch(t, f)
	if err := f.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	return path, epoch
}

// restore puts a copy of the file in its place, as of a backup.
func restore(t *testing.T, path string) {
	t.Helper()
	copyFile(t, path, path+".backup")
	remove(t, path, path+"-wal", path+"-shm")
	copyFile(t, path+".backup", path)
}

func TestTheEpochStaysWithTheFile(t *testing.T) {
	t.Parallel()
	path, epoch := usedBefore(t)
	f := open(t, Options{Path: path, Settle: true})
	if got := writtenEpoch(t, f); got != epoch {
		t.Error("it changed when the file was opened again")
	}
	if got := writtenEpoch(t, open(t, Options{Path: path})); got != epoch {
		t.Error("it changed when the file was opened twice")
	}
	if err := f.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	moved := filepath.Join(filepath.Dir(path), "moved.db")
	rename(t, path, moved)
	if got := writtenEpoch(t, open(t, Options{Path: moved})); got != epoch {
		t.Error("it changed when the file was renamed")
	}
	t.Run("also with one that has never noted where it lies", func(t *testing.T) {
		t.Parallel()
		path, epoch := usedBefore(t)
		f := open(t, Options{Path: path})
		mustWrite(t, f, Exec("DELETE FROM meta WHERE key = 'file'"))
		for range 2 { // the second time it has
			if got := writtenEpoch(t, open(t, Options{Path: path})); got != epoch {
				t.Error("it changed")
			}
		}
		if n := readInt(t, f, "SELECT count(*) FROM meta WHERE key = 'file'"); n != 1 {
			t.Error("where it lies was not noted")
		}
	})
}

func TestARestoredFileHasANewEpoch(t *testing.T) {
	t.Parallel()
	for name, put := range map[string]func(t *testing.T, path string){
		"a copy in the place of the deleted file": restore,
		"a copy beside the file that was moved away": func(t *testing.T, path string) {
			rename(t, path, path+".away")
			copyFile(t, path+".away", path)
		},
		"a copy that is moved over the file": func(t *testing.T, path string) {
			copyFile(t, path, path+".new")
			rename(t, path+".new", path)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path, epoch := usedBefore(t)
			put(t, path)
			f := open(t, Options{Path: path})
			if got := epochOf(t, f); got != epoch {
				t.Errorf("it was %s and is %s before anything was written", epoch, got)
			}
			fresh := writtenEpoch(t, f)
			if fresh == epoch || len(fresh) != 16 {
				t.Errorf("it was %s and is %s in the first write", epoch, fresh)
			}
			for _, other := range []*File{f, open(t, Options{Path: path})} {
				if got := writtenEpoch(t, other); got != fresh {
					t.Errorf("then it is %s, no longer %s", got, fresh)
				}
			}
			f.mu.Lock()
			if f.homeless != "" {
				t.Error("each write settles it again")
			}
			f.mu.Unlock()
			put(t, path) // the same backup once more, under the handles that are there
			awaitHealth(t, f)
			if again := writtenEpoch(t, f); again == epoch || again == fresh {
				t.Errorf("restored once more it is %s", again)
			}
		})
	}
}

// childUse makes a database, writes to it and ends, and with it every
// descriptor that keeps the file's inode from being given again.
func childUse(args []string) error {
	ctx := context.Background()
	if err := Migrate(ctx, Options{Path: args[0]}); err != nil {
		return err
	}
	f, err := Open(ctx, Options{Path: args[0]})
	if err != nil {
		return err
	}
	if _, err := f.Write(ctx, batch(Exec("UPDATE meta SET value = 'first' WHERE key = 'epoch'"))); err != nil {
		return err
	}
	return f.Close(ctx)
}

func TestARestoredFileMayHaveTheOldInode(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "postroom.db")
	if out, err := Child(t, nil, "use", path).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if birth(path) == 0 {
		t.Skip("this file system does not tell when a file was made")
	}
	before := inode(path)
	restore(t, path)
	t.Logf("the inode was %d and is %d", before, inode(path))
	f := open(t, Options{Path: path})
	if got := epochOf(t, f); got != "first" {
		t.Errorf("it is %s before anything was written", got)
	}
	if got := writtenEpoch(t, f); got == "first" {
		t.Error("it did not change")
	}
}

func TestTheNewEpochComesWithTheFirstWriteThatSucceeds(t *testing.T) {
	t.Parallel()
	path, epoch := usedBefore(t)
	restore(t, path)
	f := open(t, Options{Path: path})
	_, err := f.Write(t.Context(), batch(Exec("INSERT INTO meta(key, value, created_at, updated_at) VALUES ('epoch', '', 0, 0)")))
	wantClass(t, err, Constraint)
	if got := epochOf(t, f); got != epoch {
		t.Error("it changed with a write that failed")
	}
	if got := writtenEpoch(t, f); got == epoch {
		t.Error("it did not change with the next")
	}
}

func TestManyProcessesAgreeOnTheNewEpoch(t *testing.T) {
	t.Parallel()
	path, epoch := usedBefore(t)
	restore(t, path)
	var mu sync.Mutex
	seen := []string{epoch}
	var wg sync.WaitGroup
	for range 8 {
		f := open(t, Options{Path: path, Settle: true, RetryTimes: 8}) // a writer of its own, as of another process
		wg.Go(func() {
			for range 3 {
				got := writtenEpoch(t, f)
				mu.Lock()
				seen = append(seen, got)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	slices.Sort(seen[1:])
	if n := len(slices.Compact(seen)); n != 2 {
		t.Errorf("there were %d epochs: %v", n, seen)
	}
}

func TestAFileThatIsWatchedGetsItsEpochAtOnce(t *testing.T) {
	t.Parallel()
	path, epoch := usedBefore(t)
	restore(t, path)
	commits := make(chan int, 100)
	f := open(t, Options{Path: path, Settle: true, OnCommit: func(_, statements int) { commits <- statements }})
	<-commits
	first := epochOf(t, f)
	if first == epoch {
		t.Error("it did not change when the file was opened")
	}
	restore(t, path)
	awaitHealth(t, f) // which only reads
	<-commits
	if got := epochOf(t, f); got == epoch || got == first {
		t.Errorf("it was %s, then %s, and is %s when the file was replaced", epoch, first, got)
	}
	if len(commits) != 0 {
		t.Error("there was more than one commit")
	}
}

func TestReadersNeedNoNewEpoch(t *testing.T) {
	t.Parallel()
	path, epoch := usedBefore(t)
	restore(t, path)
	for _, atOnce := range []bool{false, true} {
		release := holdElsewhere(t, path)
		db, err := Open(t.Context(), Options{Path: path, Settle: atOnce, BusyTimeout: time.Hour, CallTimeout: time.Hour})
		if err != nil {
			t.Fatal(err)
		}
		f := db.(*File)
		if got := epochOf(t, f); got != epoch {
			t.Errorf("at once %v: the epoch is %s, want %s", atOnce, got, epoch)
		}
		if atOnce {
			waitPending(t, f, 1) // it waits for the lock, and nobody for it
		}
		if err := f.Close(t.Context()); err != nil {
			t.Errorf("at once %v: %v", atOnce, err)
		}
		release()
	}
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	f, err := Open(t.Context(), Options{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	epochOf(t, f)
	if err := f.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if after, err := os.ReadFile(path); err != nil || string(after) != string(before) {
		t.Errorf("a reader has written to the file (%v)", err)
	}
	if got := writtenEpoch(t, open(t, Options{Path: path})); got == epoch {
		t.Error("the next writer did not change it")
	}
}
