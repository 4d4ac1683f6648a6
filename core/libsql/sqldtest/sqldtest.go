// Package sqldtest starts real libsql servers for tests, of all modules. `make
// setup` installs the program; where it is missing, tests that need it skip
// and say so. It may import the standard library only.
package sqldtest

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// Env names the database that tests with a choice run on: "sqld" for a server
// per test, nothing for a file per test.
const Env = "POSTROOM_TEST_DATABASE"

// Chosen says whether tests with a choice run on a server.
func Chosen() bool { return os.Getenv(Env) == "sqld" }

// Place is where a test may create its database.
type Place struct {
	Path   string // of a file that is not there yet, or the URL of a server
	server *Server
}

// NewPlace returns a place at a new server if tests are to run on one, and a
// file otherwise.
func NewPlace(t testing.TB) Place {
	t.Helper()
	if Chosen() {
		s := Start(t)
		return Place{s.URL, s}
	}
	return Place{Path: filepath.Join(t.TempDir(), "postroom.db")}
}

// TakeAway makes the database unavailable: it moves the file, or kills the
// server. What it returns brings it back as it was.
func (p Place) TakeAway(t testing.TB) (bringBack func()) {
	t.Helper()
	if p.server != nil {
		p.server.Kill()
		return p.server.Restart
	}
	move := func(from, to string) {
		t.Helper()
		for _, suffix := range []string{"", "-wal", "-shm"} {
			if err := os.Rename(from+suffix, to+suffix); err != nil && !errors.Is(err, os.ErrNotExist) {
				t.Fatal(err)
			}
		}
	}
	move(p.Path, p.Path+".away")
	return func() { move(p.Path+".away", p.Path) }
}

// answers is how long a server may take to start: it takes 40 ms on a machine
// with nothing else to do.
const answers = 30 * time.Second

// Server is a server in a process of its own.
type Server struct {
	URL   string // of its database
	Admin string // of its admin API

	t     testing.TB
	dir   string
	flags []string
	cmd   *exec.Cmd
	said  *bytes.Buffer
}

// Start starts a server on an address of its own and an empty folder, with further flags.
// It is killed when the test ends.
func Start(t testing.TB, flags ...string) *Server {
	t.Helper()
	return StartIn(t, t.TempDir(), flags...)
}

// StartIn is Start with a folder of the caller's.
func StartIn(t testing.TB, dir string, flags ...string) *Server {
	t.Helper()
	path := Program(t)
	s := &Server{t: t, dir: dir, flags: append([]string{path}, flags...)}
	host := FreeHost()
	http, admin := host+":8080", host+":9090"
	s.URL, s.Admin = "http://"+http, "http://"+admin
	// Two connections at a time: docs/remote.md tells why.
	s.flags = append(s.flags, "--max-concurrent-connections", "2", "--connection-creation-timeout-sec", "10", "--no-welcome", "--db-path", filepath.Join(s.dir, "data"), "--http-listen-addr", http, "--admin-listen-addr", admin)
	t.Cleanup(s.Kill)
	s.Restart()
	return s
}

// Restart kills the server, if it runs, starts it again in its folder, and
// waits until it answers.
func (s *Server) Restart() {
	s.t.Helper()
	s.Launch()
	s.Await()
}

// Launch is Restart without the waiting.
func (s *Server) Launch() {
	s.t.Helper()
	s.Kill()
	s.said = &bytes.Buffer{}
	s.cmd = exec.Command(s.flags[0], s.flags[1:]...) //nolint:noctx // Kill ends it
	s.cmd.Stdout, s.cmd.Stderr = s.said, s.said
	if err := s.cmd.Start(); err != nil {
		s.t.Fatalf("sqld: %v", err)
	}
}

// Await waits until the server answers.
func (s *Server) Await() {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), answers)
	defer cancel()
	retry := time.NewTicker(5 * time.Millisecond)
	defer retry.Stop()
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.URL+"/health", nil)
		if err != nil {
			s.t.Fatal(err)
		}
		if res, err := http.DefaultClient.Do(req); err == nil {
			_ = res.Body.Close()
			if res.StatusCode == http.StatusOK {
				return
			}
		}
		select {
		case <-retry.C:
		case <-ctx.Done():
			s.Kill()
			s.t.Fatalf("sqld does not answer; it said:\n%s", s.said)
		}
	}
}

// Kill ends the server as kill -9 does.
func (s *Server) Kill() {
	if s.cmd == nil {
		return
	}
	_ = s.cmd.Process.Kill() // it may be gone
	_ = s.cmd.Wait()         // "killed" is what is wanted
	s.cmd = nil
}

// Freeze stops the server, which keeps its connections, until Thaw.
func (s *Server) Freeze() { s.signal(syscall.SIGSTOP) }

// Thaw lets a frozen server go on.
func (s *Server) Thaw() { s.signal(syscall.SIGCONT) }

func (s *Server) signal(sig syscall.Signal) {
	s.t.Helper()
	if err := s.cmd.Process.Signal(sig); err != nil {
		s.t.Fatalf("sqld: %v", err)
	}
}

// Program finds the server that `make setup` installed, in the workspace this
// test belongs to.
func Program(t testing.TB) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for ; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.work")); err == nil {
			break
		}
		if dir == filepath.Dir(dir) {
			t.Fatal("no go.work above the test's folder")
		}
	}
	path := filepath.Join(dir, ".cache", "sqld", "sqld")
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
		if Chosen() {
			t.Fatalf("%s=sqld, but there is no %s: make setup", Env, path)
		}
		t.Skip("there is no libsql server on this machine: make setup installs one where it can")
	}
	return path
}

// FreeHost is an address of this machine that nobody else uses: all of
// 127.0.0.0/8 is there, so servers that start at once need no luck with ports.
func FreeHost() string {
	n := 1<<16 + rand.IntN(1<<24-1<<17)
	return net.IPv4(127, byte(n>>16), byte(n>>8), byte(n)).String()
}
