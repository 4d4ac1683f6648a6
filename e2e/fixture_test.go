// Package e2e tests the two real binaries together, as processes, over HTTP,
// on a real database file and a real Maildir. Besides the standard library it
// uses core's storage face, to look at the database from outside, its OTLP
// receiver, and chromedp, to use the web pages as people do.
package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/postroom/postroom/core/libsql/sqldtest"
)

// binaries is where TestMain built the two services.
var binaries string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "postroom-e2e-")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer func() { _ = os.RemoveAll(dir) }() // what is left is in the system's temporary folder
		for _, name := range []string{"queuerunner", "apiserver"} {
			cmd := exec.Command("go", "build", "-o", filepath.Join(dir, name), ".")
			cmd.Dir = filepath.Join("..", name)
			if out, err := cmd.CombinedOutput(); err != nil {
				fmt.Fprintf(os.Stderr, "build %s: %v\n%s", name, err, out)
				return 1
			}
		}
		binaries = dir
		return m.Run()
	}())
}

// system is a data folder with the services that work on it.
type system struct {
	testing.TB
	dir  string // database, Maildir
	bin  string // where its services are
	sqld *sqldtest.Server
	env  []string

	patience time.Duration // how long it waits for what must come
}

// newSystemOnServer is a system whose database is on a libsql server.
func newSystemOnServer(tb testing.TB, env ...string) *system {
	tb.Helper()
	s := newSystem(tb, env...)
	s.on(sqldtest.Start(tb))
	return s
}

// on moves the system's database to a server.
func (s *system) on(server *sqldtest.Server) {
	s.sqld = server
	s.env = append(s.env, "DATABASE_URL="+server.URL, "DATABASE_ADMIN_URL="+server.Admin)
}

// over is the system for processes that reach its server over a link.
func (s *system) over(l *link) *system {
	other := *s
	other.env = append(slices.Clone(s.env), "DATABASE_URL="+l.url)
	return &other
}

func newSystem(tb testing.TB, env ...string) *system {
	tb.Helper()
	dir := tb.TempDir()
	return &system{TB: tb, dir: dir, bin: binaries, patience: 3 * time.Minute, env: append([]string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "DATABASE_URL=" + filepath.Join(dir, "postroom.db"),
		"APP_PORT=0", "APP_DRAIN_DELAY=10ms", "QUEUE_HTTP_ADDR=", "QUEUE_LEASE=2s", "QUEUE_POLL=200ms", "MAIL_SYNC_INTERVAL=1s",
	}, env...)}
}

func (s *system) maildir() string { return filepath.Join(s.dir, "Maildir") }

func (s *system) database() string {
	if s.sqld != nil {
		return s.sqld.URL
	}
	return filepath.Join(s.dir, "postroom.db")
}

// process is a running service.
type process struct {
	*exec.Cmd
	s    *system
	log  *log
	done chan struct{}
	url  string // of an apiserver
}

func (s *system) start(name string, args ...string) *process {
	s.Helper()
	p := &process{Cmd: exec.Command(filepath.Join(s.bin, name), args...), s: s, log: newLog(), done: make(chan struct{})}
	p.Env, p.Stderr = s.env, p.log
	s.begin(p, name)
	return p
}

// begin starts a process, which ends with the test.
func (s *system) begin(p *process, name string) {
	s.Helper()
	p.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.Start(); err != nil {
		s.Fatal(err)
	}
	go func() { defer close(p.done); _ = p.Wait() }() // the exit code is in ProcessState
	s.Cleanup(func() {
		p.kill()
		if s.Failed() {
			s.Logf("%s said:\n%s", name, p.log.tail(60))
		}
	})
}

func (s *system) runner(args ...string) *process {
	s.Helper()
	p := s.start("queuerunner", args...)
	p.log.await(s, runnerWorks)
	return p
}

const runnerWorks, serverListens = "queuerunner works", `"message":"listening"`

func (s *system) server(args ...string) *process {
	s.Helper()
	p := s.start("apiserver", args...)
	p.reach(p.log.await(s, serverListens))
	return p
}

// reach takes an apiserver's address from its log.
func (p *process) reach(listening string) {
	p.s.Helper()
	var line struct {
		Address string `json:"address"`
	}
	if err := json.Unmarshal([]byte(listening), &line); err != nil || line.Address == "" {
		p.s.Fatalf("the apiserver's address: %v in %s", err, p.log.tail(3))
	}
	p.url = "http://" + line.Address
}

func (p *process) kill() {
	_ = p.Process.Kill() // it may have ended already
	<-p.done
}

// stop sends SIGTERM and returns the exit code.
func (p *process) stop() int {
	p.s.Helper()
	if err := p.Process.Signal(syscall.SIGTERM); err != nil {
		p.s.Fatal(err)
	}
	<-p.done
	return p.ProcessState.ExitCode()
}

// log collects a process's lines and lets tests wait for one.
type log struct {
	mu      sync.Mutex
	text    bytes.Buffer
	changed chan struct{}
}

func newLog() *log { return &log{changed: make(chan struct{})} }

func (l *log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	close(l.changed)
	l.changed = make(chan struct{})
	return l.text.Write(p)
}

func (l *log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func (l *log) tail(n int) string {
	lines := strings.Split(strings.TrimSpace(l.String()), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// await returns the first line that contains the text.
func (l *log) await(tb testing.TB, text string) string {
	tb.Helper()
	return l.awaitUnless(tb, text, nil)
}

// awaitUnless is await that gives up, with "", when the process has ended.
func (l *log) awaitUnless(tb testing.TB, text string, ended <-chan struct{}) string {
	tb.Helper()
	limit := time.After(time.Minute)
	for {
		l.mu.Lock()
		changed := l.changed
		l.mu.Unlock()
		for line := range strings.Lines(l.String()) {
			if strings.Contains(line, text) && strings.HasSuffix(line, "\n") {
				return line
			}
		}
		select {
		case <-changed:
		case <-ended:
			return ""
		case <-limit:
			tb.Fatalf("no line with %q in:\n%s", text, l.tail(40))
		}
	}
}

// until asks again and again until the condition holds.
func (s *system) until(what string, holds func() bool) {
	s.Helper()
	s.untilEvery(50*time.Millisecond, what, holds)
}

// untilEvery asks no more often, where asking would disturb.
func (s *system) untilEvery(interval time.Duration, what string, holds func() bool) {
	s.Helper()
	limit := time.After(s.patience)
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for !holds() {
		select {
		case <-tick.C:
		case <-limit:
			s.Fatalf("gave up waiting: %s", what)
		}
	}
}

// reply is an HTTP answer.
type reply struct {
	status int
	header http.Header
	body   []byte
}

func (r reply) into(tb testing.TB, v any) {
	tb.Helper()
	if err := json.Unmarshal(r.body, v); err != nil {
		tb.Fatalf("status %d, body %.300s: %v", r.status, r.body, err)
	}
}

func (p *process) get(path string) reply { p.s.Helper(); return p.do("GET", path, "", nil) }

func (p *process) postJSON(path, body string) reply {
	p.s.Helper()
	return p.do("POST", path, "application/json", strings.NewReader(body))
}

func (p *process) do(method, path, contentType string, body io.Reader) reply {
	p.s.Helper()
	r, err := p.try(method, path, contentType, body)
	if err != nil {
		p.s.Fatal(err)
	}
	return r
}

func (p *process) try(method, path, contentType string, body io.Reader) (reply, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, p.url+path, body)
	if err != nil {
		return reply{}, err
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return reply{}, err
	}
	defer res.Body.Close()
	out, err := io.ReadAll(res.Body)
	return reply{res.StatusCode, res.Header, out}, err
}

// account makes the system's account and returns its id.
func (p *process) account() string {
	p.s.Helper()
	r := p.postJSON("/v1/accounts", fmt.Sprintf(`{"provider":"maildir","email":"me@example.org","config":{"path":%q}}`, p.s.maildir()))
	if r.status != http.StatusCreated {
		p.s.Fatalf("create account: %d %s", r.status, r.body)
	}
	var a struct{ ID string }
	r.into(p.s, &a)
	return a.ID
}

// job waits until the job is final and returns it.
func (p *process) job(id string) map[string]any {
	p.s.Helper()
	var j map[string]any
	p.s.until("job "+id+" ends", func() bool {
		j = nil
		p.get("/v1/jobs/"+id).into(p.s, &j)
		return j["finished_at"] != nil
	})
	return j
}

// messages returns the real mail that lies beside the checkout, distinct by
// content, or else the demonstration's.
func messages(tb testing.TB) [][]byte {
	tb.Helper()
	root := filepath.Join("..", "..", "shared", "mail")
	if _, err := os.Stat(root); errors.Is(err, os.ErrNotExist) {
		root = filepath.Join("..", "deploy", "demo", "mail")
		tb.Logf("no real mail beside the checkout: using %s", root)
	}
	seen := map[string]bool{}
	var out [][]byte
	err := filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		raw, err := os.ReadFile(path)
		if err == nil && len(raw) > 0 && !seen[string(raw)] {
			seen[string(raw)] = true
			out = append(out, raw)
		}
		return err
	})
	if err != nil {
		tb.Fatal(err)
	}
	return out
}
