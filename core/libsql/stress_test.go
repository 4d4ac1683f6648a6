package libsql

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// The bundled library closes a local connection twice when it is told to once,
// which corrupts the heap. These tests show that the face, which never closes
// one, survives what kills the plain driver. docs/driver.md has the figures.
const (
	stressEnv      = "POSTROOM_STRESS"       // how long TestOpenAndCloseUnderStress runs
	stressPlainEnv = "POSTROOM_STRESS_PLAIN" // how long TestThePlainDriverUnderStress runs
	stressWorkers  = 6
	stressRounds   = 300 // per worker, where no duration is given
)

// stress runs round on several goroutines until it fails, for the duration, or
// for a number of rounds each when that is 0. It returns the rounds done.
func stress(d time.Duration, round func(worker int) error) (int64, error) {
	var rounds atomic.Int64
	errs := make([]error, stressWorkers)
	start := time.Now()
	var wg sync.WaitGroup
	for w := range stressWorkers {
		wg.Go(func() {
			for n := 0; d > 0 && time.Since(start) < d || d == 0 && n < stressRounds; n++ {
				if errs[w] = round(w); errs[w] != nil {
					return
				}
				rounds.Add(1)
			}
		})
	}
	wg.Wait()
	return rounds.Load(), errors.Join(errs...)
}

func duration(t *testing.T, env string) time.Duration {
	t.Helper()
	if os.Getenv(env) == "" {
		return 0
	}
	d, err := time.ParseDuration(os.Getenv(env))
	if err != nil {
		t.Fatalf("%s: %v", env, err)
	}
	return d
}

func TestOpenAndCloseUnderStress(t *testing.T) {
	t.Parallel()
	var paths [2]string // workers share files
	for i := range paths {
		paths[i] = newPath(t)
		mustWrite(t, open(t, Options{Path: paths[i]}), Exec("CREATE TABLE t (k INTEGER PRIMARY KEY, v BLOB) STRICT"))
	}
	n, err := stress(duration(t, stressEnv), func(w int) (err error) {
		ctx := context.Background()
		f, err := Open(ctx, Options{Path: paths[w%len(paths)], Synchronous: "normal", BusyTimeout: time.Minute, CallTimeout: time.Minute})
		if err != nil {
			return fmt.Errorf("open: %w", err)
		}
		defer func() { err = errors.Join(err, f.Close(ctx)) }()
		if _, err := f.Write(ctx, batch(Exec("INSERT INTO t(v) VALUES (?)", []byte("row")))); err != nil {
			return fmt.Errorf("write: %w", err)
		}
		if _, err := f.Read(ctx, Query("SELECT count(*) FROM t"), Query("SELECT v FROM t ORDER BY k DESC LIMIT 5")); err != nil {
			return fmt.Errorf("read: %w", err)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	var rows int64
	for _, p := range paths {
		rows += readInt(t, open(t, Options{Path: p}), "SELECT count(*) FROM t")
	}
	if rows != n {
		t.Errorf("%d rows after %d rounds of one", rows, n)
	}
	t.Logf("%d rounds of open, write, read and close by %d goroutines", n, stressWorkers)
}

// childPlain opens, reads and closes one file with database/sql and the plain
// driver, native close included. It only reads, so no lock is in anybody's way
// and whatever goes wrong is the closing.
func childPlain(args []string) error {
	d, err := time.ParseDuration(args[1])
	if err != nil {
		return err
	}
	var failed atomic.Int64
	n, err := stress(d, func(int) error {
		if err := plainRound("file:" + args[0]); err != nil && failed.Add(1) == 1 {
			fmt.Println("first error:", err)
		}
		return nil
	})
	fmt.Printf("%d opens, %d errors\n", n, failed.Load())
	return err
}

func plainRound(dsn string) (err error) {
	db, err := sql.Open("libsql", dsn)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	var n int
	return db.QueryRow("SELECT count(*) FROM sqlite_master").Scan(&n)
}

// The test passes when the plain driver misbehaves: the day it does not, the
// parking of connections can go.
func TestThePlainDriverUnderStress(t *testing.T) {
	t.Parallel()
	d := duration(t, stressPlainEnv)
	if d == 0 {
		t.Skipf("%s is not set: the plain driver was not driven into its crash", stressPlainEnv)
	}
	const runs = 12
	misbehaved := 0
	for i := range runs {
		cmd := Child(t, nil, "plain", filepath.Join(t.TempDir(), "plain.db"), (d / runs).String())
		out, err := cmd.CombinedOutput()
		if err != nil || !bytes.Contains(out, []byte(", 0 errors")) {
			misbehaved++
		}
		head := strings.Split(strings.TrimSpace(string(out)), "\n")
		t.Logf("run %d: %v\n%s", i+1, err, strings.Join(head[:min(len(head), 5)], "\n"))
	}
	t.Logf("%d of %d runs crashed or gave errors", misbehaved, runs)
	if misbehaved == 0 {
		t.Error("the plain driver survived")
	}
}
