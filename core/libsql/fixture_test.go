package libsql

import (
	"bufio"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/postroom/postroom/core/libsql/sqldtest"
	"github.com/postroom/postroom/core/system"
)

// Children are the bodies of child processes: the test binary runs itself with
// childEnv set to one of these names. External tests add theirs.
var Children = map[string]func(args []string) error{
	"hold":      childHold,
	"increment": childIncrement,
	"migrate":   childMigrate,
	"plain":     childPlain,
	"use":       childUse,
}

const childEnv = "POSTROOM_TEST_CHILD"

// RunChild runs the child that the environment names, if any.
func RunChild() {
	name, args, _ := strings.Cut(os.Getenv(childEnv), "\n")
	if name == "" {
		return
	}
	if err := Children[name](strings.Split(args, "\n")); err != nil {
		_, _ = io.WriteString(os.Stderr, err.Error()+"\n")
		os.Exit(1)
	}
	os.Exit(0)
}

// Child prepares a process that runs the named child; a tracer may stand
// before it.
func Child(t *testing.T, tracer []string, name string, args ...string) *exec.Cmd {
	t.Helper()
	argv := append(tracer, os.Args[0]) //nolint:gocritic // a new slice is wanted
	cmd := exec.CommandContext(t.Context(), argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), childEnv+"="+strings.Join(append([]string{name}, args...), "\n"))
	return cmd
}

// newPath returns the path of a migrated database.
func newPath(t testing.TB) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "postroom.db")
	if err := Migrate(t.Context(), Options{Path: path, Synchronous: "normal"}); err != nil {
		t.Fatal(err)
	}
	return path
}

// open opens a handle that is closed when the test ends.
func open(t testing.TB, opt Options) *File {
	t.Helper()
	db, err := Open(t.Context(), opt)
	if err != nil {
		t.Fatal(err)
	}
	f := db.(*File)
	t.Cleanup(func() {
		if err := f.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return f
}

// setup returns a handle on a fresh database with a table t(k, v).
func setup(t testing.TB) *File {
	t.Helper()
	f := open(t, Options{Path: newPath(t), Synchronous: "normal"})
	mustWrite(t, f, Exec(tableT))
	return f
}

const tableT = "CREATE TABLE t (k INTEGER PRIMARY KEY, v ANY CHECK (v <> 'bad')) STRICT"

// onBoth runs a test on a file and on a server, each with a table t(k, v).
func onBoth(t *testing.T, test func(t *testing.T, db DB)) {
	t.Run("file", func(t *testing.T) {
		t.Parallel()
		test(t, setup(t))
	})
	t.Run("server", func(t *testing.T) {
		t.Parallel()
		r, _ := setupRemote(t, Options{})
		test(t, r)
	})
}

// newServer starts a server with a migrated database.
func newServer(t testing.TB) *sqldtest.Server {
	t.Helper()
	s := sqldtest.Start(t)
	if err := Migrate(t.Context(), Options{Path: s.URL}); err != nil {
		t.Fatal(err)
	}
	return s
}

// setupRemote returns a handle on a fresh database with a table t(k, v) on a
// server.
func setupRemote(t testing.TB, opt Options) (*Remote, *sqldtest.Server) {
	t.Helper()
	s := newServer(t)
	opt.Path = s.URL
	r := openOn(t, opt)
	mustWrite(t, r, Exec(tableT))
	return r, s
}

// openOn opens a handle on a server that is closed when the test ends.
func openOn(t testing.TB, opt Options) *Remote {
	t.Helper()
	db, err := Open(t.Context(), opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := db.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	return db.(*Remote)
}

func batch(stmts ...Stmt) *Batch {
	b := &Batch{}
	for _, s := range stmts {
		b.Add(s)
	}
	return b
}

func mustWrite(t testing.TB, f DB, stmts ...Stmt) []Result {
	t.Helper()
	res, err := f.Write(t.Context(), batch(stmts...))
	if err != nil {
		t.Fatal(err)
	}
	return res
}

func readInt(t testing.TB, f DB, sql string, args ...any) int64 {
	t.Helper()
	res, err := f.Read(t.Context(), Query(sql, args...))
	if err != nil {
		t.Fatal(err)
	}
	return res[0].Rows[0].Int(0)
}

func wantClass(t testing.TB, err error, want Class) {
	t.Helper()
	if ClassOf(err) != want {
		t.Errorf("the error is %v, want class %s", err, want)
	}
}

// pin takes the write lock on a connection of its own and returns what gives
// it back; so does the end of the test.
func pin(t testing.TB, path string) (release func()) {
	t.Helper()
	c, err := connect(path, "rw", writerRole, "NORMAL")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.exec("BEGIN IMMEDIATE"); err != nil {
		t.Fatal(err)
	}
	release = sync.OnceFunc(func() { c.park("NORMAL") })
	t.Cleanup(release)
	return release
}

// waitFor gives way until cond holds.
func waitFor(t testing.TB, cond func() bool) {
	t.Helper()
	for !cond() {
		if t.Context().Err() != nil {
			t.Fatal("the test ended while it waited")
		}
		runtime.Gosched()
	}
}

// waitPending gives way until n requests wait for the writer.
func waitPending(t testing.TB, f *File, n int) {
	t.Helper()
	waitFor(t, func() bool {
		f.writer.mu.Lock()
		defer f.writer.mu.Unlock()
		return len(f.writer.pending) == n
	})
}

// clock is the real system with a clock that can be put forward.
type clock struct {
	ahead atomic.Int64
	system.Real
}

func (c *clock) Now() time.Time { return c.Real.Now().Add(time.Duration(c.ahead.Load())) }

func (c *clock) advance(d time.Duration) { c.ahead.Add(int64(d)) }

// childHold holds the write lock of args[0] from the line it prints until its
// standard input ends.
func childHold(args []string) error {
	c, err := connect(args[0], "rw", writerRole, "NORMAL")
	if err != nil {
		return err
	}
	if _, err := c.exec("BEGIN IMMEDIATE"); err != nil {
		return err
	}
	if _, err := os.Stdout.WriteString("held\n"); err != nil {
		return err
	}
	if _, err := io.Copy(io.Discard, os.Stdin); err != nil {
		return err
	}
	_, err = c.exec("ROLLBACK")
	return err
}

// holdElsewhere makes another process hold the write lock until release is
// called.
func holdElsewhere(t *testing.T, path string) (release func()) {
	t.Helper()
	cmd := Child(t, nil, "hold", path)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	release = sync.OnceFunc(func() {
		if err := errors.Join(in.Close(), cmd.Wait()); err != nil {
			t.Errorf("the holder: %v", err)
		}
	})
	t.Cleanup(release)
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "held\n" {
		t.Fatalf("the holder said %q, %v", line, err)
	}
	return release
}
