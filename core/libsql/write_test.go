package libsql

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"testing"
)

func TestABatchIsAppliedAsAWholeOrNotAtAll(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, f DB) {
		res := mustWrite(t, f,
			Exec("INSERT INTO t(k, v) VALUES (1, 'a'), (2, 'b')"),
			Query("UPDATE t SET v = ? WHERE k = 2 RETURNING k, CAST(v AS BLOB)", "c"),
			Exec("DELETE FROM t WHERE k = 99"),
			Query("SELECT k FROM t ORDER BY k"))
		if len(res) != 4 || res[0].Changes != 2 || len(res[1].Rows) != 1 || res[1].Rows[0].Str(1) != "c" || res[2].Changes != 0 || len(res[3].Rows) != 2 {
			t.Errorf("the results are %v", res)
		}
		_, err := f.Write(t.Context(), batch(
			Exec("INSERT INTO t(k, v) VALUES (3, 'a')"),
			Exec("INSERT INTO t(k, v) VALUES (4, 'bad')"),
			Exec("INSERT INTO t(k, v) VALUES (5, 'a')")))
		wantClass(t, err, Constraint)
		var e *Error
		if !errors.As(err, &e) || e.Index != 1 {
			t.Errorf("the error %v does not name statement 1", err)
		}
		if n := readInt(t, f, "SELECT count(*) FROM t"); n != 2 {
			t.Errorf("%d rows, want the 2 of the first batch", n)
		}
	})
}

func TestAFailingBatchFailsAloneInItsGroup(t *testing.T) {
	t.Parallel()
	path := newPath(t)
	var mu sync.Mutex
	var commits []int
	f := open(t, Options{Path: path, Synchronous: "normal", OnCommit: func(requests, _ int) {
		mu.Lock()
		defer mu.Unlock()
		commits = append(commits, requests)
	}})
	mustWrite(t, f, Exec("CREATE TABLE t (k INTEGER PRIMARY KEY, v TEXT CHECK (v <> 'bad')) STRICT"))
	release := pin(t, path)
	errs := make([]error, 9)
	var wg sync.WaitGroup
	for i := range errs {
		wg.Go(func() {
			v := "good"
			if i%3 == 1 {
				v = "bad"
			}
			_, errs[i] = f.Write(t.Context(), batch(
				Exec("INSERT INTO t(k, v) VALUES (?, 'first')", 100+i),
				Exec("INSERT INTO t(k, v) VALUES (?, ?)", i, v)))
		})
	}
	waitPending(t, f, len(errs))
	release()
	wg.Wait()
	for i, err := range errs {
		if i%3 == 1 {
			wantClass(t, err, Constraint)
		} else if err != nil {
			t.Errorf("batch %d: %v", i, err)
		}
	}
	if n := readInt(t, f, "SELECT count(*) FROM t"); n != 12 {
		t.Errorf("%d rows, want 2 of each of the 6 good batches", n)
	}
	mu.Lock()
	defer mu.Unlock()
	if !slices.Equal(commits, []int{1, 9}) {
		t.Errorf("the commits held %v requests, want 1 and then all 9", commits)
	}
}

func TestAGuardStopsItsBatch(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, f DB) {
		const guard = "SELECT json(iif(?, '{}', 'the guard says no'))"
		for i, want := range []int{0, 1, -1} {
			b := &Batch{}
			b.Guard(guard, i != 0)
			b.Guard(guard, i != 1)
			at := b.Exec("INSERT INTO t(k) VALUES (?)", i)
			if at != 2 || b.Len() != 3 {
				t.Errorf("the statement is number %d of %d", at, b.Len())
			}
			res, err := f.Write(t.Context(), b)
			if got := GuardIndex(err); got != want {
				t.Errorf("guard %d raised the error %v, want %d", got, err, want)
			}
			if want < 0 && (err != nil || res[at].Changes != 1) {
				t.Errorf("a batch whose guards hold gave %v, %v", res, err)
			}
		}
		if n := readInt(t, f, "SELECT count(*) FROM t"); n != 1 {
			t.Errorf("%d rows, want the one of the batch that was let through", n)
		}
		t.Run("an error elsewhere is no guard's", func(t *testing.T) {
			t.Parallel()
			b := &Batch{}
			b.Guard(guard, true)
			b.Query("SELECT json(?)", "not JSON")
			_, err := f.Write(t.Context(), b)
			wantClass(t, err, Invalid)
			if GuardIndex(err) != -1 {
				t.Errorf("guard %d is blamed", GuardIndex(err))
			}
		})
		t.Run("nor is wrong SQL in a guard", func(t *testing.T) {
			t.Parallel()
			b := &Batch{}
			b.Guard("SELECT json(?) FROM no_such_table", "{}")
			_, err := f.Write(t.Context(), b)
			wantClass(t, err, Invalid)
		})
	})
}

// opPut stores items {"k":…,"v":…} and answers with their values doubled.
var opPut = &Op{Name: "put", Stmts: []string{
	"INSERT INTO t(k, v) SELECT value->>'k', value->>'v' FROM json_each(?)",
	"SELECT e.key, CAST(t.v || t.v AS BLOB) FROM json_each(?) AS e JOIN t ON t.k = e.value->>'k' WHERE t.v <> 'silent'",
}}

// opTouch raises the values of keys {"k":…} and answers for those that are not
// there.
var opTouch = &Op{Name: "touch", Misses: true, Stmts: []string{
	"UPDATE t SET v = v || '+' FROM json_each(?) AS e WHERE t.k = e.value->>'k'",
	"SELECT e.key, e.value->>'k' FROM json_each(?) AS e LEFT JOIN t ON t.k = e.value->>'k' WHERE t.k IS NULL",
}}

// What nobody missed is not asked for, on a file; what somebody missed is
// answered to them alone.
func TestMisses(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, f DB) {
		mustWrite(t, f, Exec("INSERT INTO t VALUES (1, 'a'), (2, 'b')"))
		for _, c := range []struct {
			items []string
			miss  int // the item that is answered, -1 for none
		}{
			{[]string{`{"k":1}`, `{"k":2}`}, -1},
			{[]string{`{"k":1}`, `{"k":3}`}, 1},
			{[]string{`{"k":2}`, `{"k":2}`}, -1},
			{[]string{`{"k":4}`}, 0},
		} {
			items := make([][]byte, len(c.items))
			for i, it := range c.items {
				items[i] = []byte(it)
			}
			rows, err := f.Merge(t.Context(), opTouch, items...)
			if err != nil {
				t.Fatal(err)
			}
			for i, row := range rows {
				if (row != nil) != (i == c.miss) {
					t.Errorf("%v: item %d is answered %v", c.items, i, row)
				}
			}
		}
	})
}

// opPutPacked stores items of a key in four bytes and a value, and answers for
// those whose value is "loud".
var opPutPacked = &Op{Name: "put packed", Packed: true, Stmts: []string{
	"INSERT INTO t(k, v) SELECT CAST(substr(?1, e.value, 4) AS INTEGER), CAST(substr(?1, e.value + 4, 4) AS TEXT) FROM " + PackedItems,
	"SELECT e.key, CAST(t.v AS BLOB) FROM " + PackedItems + " JOIN t ON t.k = CAST(substr(?1, e.value, 4) AS INTEGER) WHERE t.v = 'loud'",
}}

func TestPackedItems(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, f DB) {
		var callers sync.WaitGroup
		for i := range 20 {
			callers.Go(func() {
				k := 1000 + 3*i
				rows, err := f.Merge(t.Context(), opPutPacked, fmt.Appendf(nil, "%d]\"é", k), fmt.Appendf(nil, "%dloud", k+1), fmt.Appendf(nil, "%d10, and more", k+2))
				if err != nil {
					t.Error(err)
				} else if rows[0] != nil || rows[1].Str(1) != "loud" || rows[2] != nil {
					t.Errorf("caller %d got %v", i, rows)
				}
			})
		}
		callers.Wait()
		for i, want := range []string{"]\"é", "loud", "10, "} {
			if n := readInt(t, f, "SELECT count(*) FROM t WHERE (k - 1000) % 3 = ? AND CAST(v AS BLOB) = CAST(? AS BLOB)", i, want); n != 20 {
				t.Errorf("%d values are %q, want 20", n, want)
			}
		}
		for _, bad := range []string{"2000\xff", "2000a\x00"} {
			_, err := f.Merge(t.Context(), opPutPacked, []byte("2001fine"), []byte(bad))
			wantClass(t, err, Invalid)
		}
		if n := readInt(t, f, "SELECT count(*) FROM t WHERE k >= 2000"); n != 0 {
			t.Errorf("%d items of refused calls were stored", n)
		}
	})
}

func TestMerge(t *testing.T) {
	t.Parallel()
	path := newPath(t)
	var mu sync.Mutex
	var commits, statements int
	f := open(t, Options{Path: path, Synchronous: "normal", OnCommit: func(_, n int) {
		mu.Lock()
		defer mu.Unlock()
		commits, statements = commits+1, statements+n
	}})
	mustWrite(t, f, Exec("CREATE TABLE t (k INTEGER PRIMARY KEY, v TEXT CHECK (v <> 'bad')) STRICT"))
	// together runs calls that all wait before the writer takes the first.
	together := func(t *testing.T, n int, call func(i int)) (int, int) {
		t.Helper()
		release := pin(t, path)
		mu.Lock()
		commits, statements = 0, 0
		mu.Unlock()
		var wg sync.WaitGroup
		for i := range n {
			wg.Go(func() { call(i) })
		}
		waitPending(t, f, n)
		release()
		wg.Wait()
		mu.Lock()
		defer mu.Unlock()
		return commits, statements
	}
	item := func(k int, v string) []byte { return fmt.Appendf(nil, `{"k":%d,"v":%q}`, k, v) }

	// In order, because the counters are shared.
	t.Run("many callers end in one commit and each gets its own rows", func(t *testing.T) {
		commits, statements := together(t, 200, func(i int) {
			rows, err := f.Merge(t.Context(), opPut, item(1000+2*i, fmt.Sprint("v", i, ",")), item(1001+2*i, "silent"))
			if err != nil {
				t.Error(err)
				return
			}
			if want := fmt.Sprintf("v%d,v%d,", i, i); len(rows) != 2 || rows[0].Str(1) != want || rows[1] != nil {
				t.Errorf("caller %d got %v, want %s and nothing", i, rows, want)
			}
		})
		if commits != 1 || statements != 2 {
			t.Errorf("%d commits of %d statements, want 1 of 2", commits, statements)
		}
	})
	t.Run("a bad item fails alone", func(t *testing.T) {
		errs := make([]error, 20)
		together(t, len(errs), func(i int) {
			v := "fine"
			if i == 7 {
				v = "bad"
			}
			_, errs[i] = f.Merge(t.Context(), opPut, item(2000+i, v))
		})
		for i, err := range errs {
			if i == 7 {
				wantClass(t, err, Constraint)
			} else if err != nil {
				t.Errorf("caller %d: %v", i, err)
			}
		}
		if n := readInt(t, f, "SELECT count(*) FROM t WHERE k BETWEEN 2000 AND 2999"); n != 19 {
			t.Errorf("%d rows, want 19", n)
		}
	})
	t.Run("an item that is not one JSON value is refused before it joins", func(t *testing.T) {
		for _, it := range []string{"", "{", "1,2", "[1],[2]", `{"k":1} x`, "1]", "\"\xff\""} {
			_, err := f.Merge(t.Context(), opPut, item(3000, "fine"), []byte(it))
			wantClass(t, err, Invalid)
		}
		if n := readInt(t, f, "SELECT count(*) FROM t WHERE k = 3000"); n != 0 {
			t.Error("the good item of a refused call was stored")
		}
	})
	t.Run("an item too deep for SQLite fails alone", func(t *testing.T) {
		deep := make([]byte, 0, 5000)
		for range 2000 {
			deep = append(deep, '[')
		}
		for range 2000 {
			deep = append(deep, ']')
		}
		if !json.Valid(deep) {
			t.Fatal("the item should be JSON for Go")
		}
		var bad, good error
		together(t, 2, func(i int) {
			if i == 0 {
				_, bad = f.Merge(t.Context(), opPut, deep)
			} else {
				_, good = f.Merge(t.Context(), opPut, item(4000, "fine"))
			}
		})
		wantClass(t, bad, Invalid)
		if good != nil {
			t.Error(good)
		}
	})
	t.Run("ops and batches share a commit", func(t *testing.T) {
		commits, _ := together(t, 10, func(i int) {
			var err error
			if i%2 == 0 {
				_, err = f.Merge(t.Context(), opPut, item(5000+i, "fine"))
			} else {
				_, err = f.Write(t.Context(), batch(Exec("INSERT INTO t(k) VALUES (?)", 5000+i)))
			}
			if err != nil {
				t.Error(err)
			}
		})
		if commits != 1 {
			t.Errorf("%d commits, want 1", commits)
		}
	})
	t.Run("nothing to merge", func(t *testing.T) {
		if rows, err := f.Merge(t.Context(), opPut); err != nil || len(rows) != 0 {
			t.Errorf("%v, %v", rows, err)
		}
	})
}

func TestAContextThatEndsBeforeTheWriteBegan(t *testing.T) {
	t.Parallel()
	f := setup(t)
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := f.Write(ended, batch(Exec("INSERT INTO t(k) VALUES (1)")))
	wantClass(t, err, Canceled)

	release := pin(t, f.opt.Path)
	ctx, cancel := context.WithCancel(t.Context())
	result := make(chan error, 2)
	go func() {
		_, err := f.Write(ctx, batch(Exec("INSERT INTO t(k) VALUES (2)")))
		result <- err
	}()
	go func() {
		_, err := f.Merge(ctx, opPut, []byte(`{"k":3}`))
		result <- err
	}()
	waitPending(t, f, 2)
	cancel()
	for range 2 {
		err := <-result
		wantClass(t, err, Canceled)
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%v does not wrap the context's error", err)
		}
	}
	release()
	mustWrite(t, f, Exec("INSERT INTO t(k) VALUES (9)"))
	if n := readInt(t, f, "SELECT sum(k) FROM t"); n != 9 {
		t.Errorf("the keys sum to %d: a canceled write was applied", n)
	}
}

func TestAContextThatEndsWhileTheWriteIsUnderWay(t *testing.T) {
	t.Parallel()
	committed, goOn := make(chan struct{}), make(chan struct{})
	var once sync.Once
	f := open(t, Options{Path: newPath(t), Synchronous: "normal", OnCommit: func(int, int) {
		once.Do(func() { close(committed); <-goOn })
	}})
	ctx, cancel := context.WithCancel(t.Context())
	result := make(chan error, 1)
	go func() {
		_, err := f.Write(ctx, batch(Exec("CREATE TABLE seen (k INTEGER) STRICT")))
		result <- err
	}()
	<-committed
	cancel()
	wantClass(t, <-result, Unknown)
	close(goOn)
	if n := readInt(t, f, "SELECT count(*) FROM sqlite_master WHERE name = 'seen'"); n != 1 {
		t.Error("the write of unknown outcome had been committed here")
	}
}

func TestCloseFinishesWhatIsPending(t *testing.T) {
	t.Parallel()
	path := newPath(t)
	f := open(t, Options{Path: path, Synchronous: "normal"})
	release := pin(t, path)
	result := make(chan error, 1)
	go func() {
		_, err := f.Write(t.Context(), batch(Exec("CREATE TABLE late (k INTEGER) STRICT")))
		result <- err
	}()
	waitPending(t, f, 1)
	closed := make(chan error, 1)
	go func() { closed <- f.Close(t.Context()) }()
	waitFor(t, func() bool {
		f.writer.mu.Lock()
		defer f.writer.mu.Unlock()
		return f.writer.stopped
	})
	_, err := f.Write(t.Context(), &Batch{})
	wantClass(t, err, Closed)
	release()
	if err := errors.Join(<-result, <-closed); err != nil {
		t.Error(err)
	}
	_, err = f.Read(t.Context(), Query("SELECT 1"))
	wantClass(t, err, Closed)
	_, err = f.Health(t.Context())
	wantClass(t, err, Closed)
	if n := readInt(t, open(t, Options{Path: path}), "SELECT count(*) FROM sqlite_master WHERE name = 'late'"); n != 1 {
		t.Error("the pending write was lost")
	}
}

// A large commit has room for the pages it touches, and a log that is not folded
// back after each of its kind; neither is kept for small ones.
func TestALargeCommitHasALargeCache(t *testing.T) {
	t.Parallel()
	f := open(t, Options{Path: newPath(t)})
	room := func() (out [2]int64) {
		t.Helper()
		for i, name := range []string{"cache_size", "wal_autocheckpoint"} {
			rows, err := f.writer.conn.query("PRAGMA " + name)
			if err != nil {
				t.Fatal(err)
			}
			out[i] = rows[0].Int(0)
		}
		return out
	}
	usual, large := [2]int64{-8192, 1000}, [2]int64{-32768, 8000}
	mustWrite(t, f, Exec("CREATE TABLE t (v BLOB) STRICT"))
	if got := room(); got != usual {
		t.Errorf("%d", got)
	}
	mustWrite(t, f, Exec("INSERT INTO t VALUES (?)", make([]byte, 2<<20)))
	if got := room(); got != large {
		t.Errorf("%d for a large commit", got)
	}
	f.writer.conn.room(false) // as when all is quiet
	if got := room(); got != usual {
		t.Errorf("%d afterwards", got)
	}
}

// The log of small commits is folded back while nobody waits, long before it is
// so full that a commit does it: the file grows only by that.
func TestTheLogIsFoldedBackWhileNobodyWaits(t *testing.T) {
	t.Parallel()
	path := newPath(t)
	f := open(t, Options{Path: path, Synchronous: "normal"})
	mustWrite(t, f, Exec("CREATE TABLE t (v BLOB) STRICT"))
	size := func() int64 {
		t.Helper()
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		return info.Size()
	}
	before, commits := size(), 0
	for size() == before && commits < 100 {
		mustWrite(t, f, Exec("INSERT INTO t VALUES (?)", make([]byte, 12<<10))) // three pages, of a thousand
		commits++
	}
	t.Logf("folded back after %d commits", commits)
	if size() == before {
		t.Errorf("the log was not folded back after %d commits", commits)
	}
}
