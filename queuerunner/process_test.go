package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/postroom/postroom/core/job"
	"github.com/postroom/postroom/core/libsql"
	"github.com/postroom/postroom/core/libsql/sqldtest"
	"github.com/postroom/postroom/core/mail"
	"github.com/postroom/postroom/core/queue"
	"github.com/postroom/postroom/core/system"
	"github.com/postroom/postroom/core/wiring"
)

// asProgram makes the test binary be the program, so that the processes of
// the tests run the very code under test, race detector included.
const asProgram = "POSTROOM_TEST_RUN_AS_QUEUERUNNER"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		main()
	}
	os.Exit(m.Run())
}

// patience bounds every wait; only a failing test uses it up.
const patience = 90 * time.Second

// process is a queuerunner that works on a database file.
type process struct {
	t    *testing.T
	cmd  *exec.Cmd
	log  *buffer
	out  *buffer
	done chan struct{}
}

// startRunner starts `queuerunner run` with debug jobs and without a listener,
// unless the settings (KEY=VALUE) say otherwise.
func startRunner(t *testing.T, path string, settings ...string) *process {
	t.Helper()
	args := []string{}
	for _, s := range append([]string{"paths.database=" + path, "queue.debug_jobs=true", "queue.http_addr="}, settings...) {
		args = append(args, "-set", s)
	}
	return startProcess(t, args...)
}

// startCommand starts a command on a database file.
func startCommand(t *testing.T, path string, args ...string) *process {
	t.Helper()
	return startProcess(t, append([]string{"-set", "paths.database=" + path}, args...)...)
}

func startProcess(t *testing.T, args ...string) *process {
	t.Helper()
	p := &process{t: t, cmd: exec.Command(os.Args[0], args...), log: &buffer{}, out: &buffer{}, done: make(chan struct{})}
	p.cmd.Env = []string{asProgram + "=1", "HOME=" + t.TempDir()}
	p.cmd.Stderr, p.cmd.Stdout = p.log, p.out
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = p.cmd.Wait() // the exit code is read from ProcessState
		close(p.done)
	}()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill() // it may have ended
		<-p.done
		if t.Failed() {
			t.Logf("log of process %d:\n%s", p.cmd.Process.Pid, p.log)
		}
	})
	return p
}

func (p *process) signal(s syscall.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Fatal(err)
	}
}

// exit waits for the end and returns the exit code, -1 for a signal.
func (p *process) exit() int {
	p.t.Helper()
	select {
	case <-p.done:
	case <-time.After(patience):
		p.t.Fatal("the process does not end")
	}
	return p.cmd.ProcessState.ExitCode()
}

// logged returns the log lines with this message.
func (p *process) logged(message string) []map[string]any {
	p.t.Helper()
	var out []map[string]any
	for line := range strings.Lines(p.log.String()) {
		var fields map[string]any
		if err := json.Unmarshal([]byte(line), &fields); err != nil {
			continue // not yet written to its end
		}
		if fields["message"] == message {
			out = append(out, fields)
		}
	}
	return out
}

// buffer is a bytes.Buffer that two goroutines may use.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// await asks until the condition holds.
func await(t *testing.T, what string, holds func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

// database is a migrated database with a handle on it.
type database struct {
	t    *testing.T
	path string
	q    *queue.Queue
	mail *mail.Store
}

func newDatabase(t *testing.T) *database {
	t.Helper()
	path := sqldtest.NewPlace(t).Path
	if err := libsql.Migrate(t.Context(), libsql.Options{Path: path, Synchronous: "normal"}); err != nil {
		t.Fatal(err)
	}
	return openDatabase(t, path)
}

func openDatabase(t *testing.T, path string) *database {
	t.Helper()
	db, err := libsql.Open(t.Context(), libsql.Options{Path: path, RetryTimes: 8})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := wiring.CloseDatabase(context.Background(), db); err != nil {
			t.Error(err)
		}
	})
	q := queue.New(db, system.Real{}, job.Known())
	return &database{t: t, path: path, q: q, mail: mail.NewStore(db, q, mail.Policy{ApprovalExpiry: time.Hour})}
}

func (d *database) enqueue(typ, payload string) string {
	d.t.Helper()
	e, err := d.q.Enqueue(d.t.Context(), job.New{Type: typ, Payload: json.RawMessage(payload)})
	if err != nil {
		d.t.Fatal(err)
	}
	return e.ID
}

func (d *database) job(id string) *queue.Detail {
	d.t.Helper()
	j, err := d.q.Detail(d.t.Context(), id)
	if err != nil {
		d.t.Fatal(err)
	}
	return j
}

// await waits until the job is in the state.
func (d *database) await(id string, state job.State) *queue.Detail {
	d.t.Helper()
	var j *queue.Detail
	await(d.t, "job "+id+" is "+string(state), func() bool {
		j = d.job(id)
		return j.State == state
	})
	return j
}

// outcomes lists how the job's runs ended.
func outcomes(j *queue.Detail) []string {
	out := []string{}
	for _, r := range j.Runs {
		out = append(out, r.Outcome)
	}
	return out
}

// result is what one use of the command line gave.
type result struct {
	code     int
	out, err string
}

// cli runs the command line in this process on a database file.
func cli(t *testing.T, path string, args ...string) result {
	t.Helper()
	return cliWith(t, path, "", args...)
}

func cliWith(t *testing.T, path, stdin string, args ...string) result {
	t.Helper()
	lookup := func(name string) (string, bool) {
		if name == "PATHS_DATABASE" {
			return path, true
		}
		return "", false
	}
	var out, errs bytes.Buffer
	code := run(t.Context(), args, lookup, strings.NewReader(stdin), &out, &errs)
	return result{code, out.String(), errs.String()}
}

// fine is cli for what must succeed; it returns stdout.
func fine(t *testing.T, path string, args ...string) string {
	t.Helper()
	r := cli(t, path, args...)
	if r.code != exitFine {
		t.Fatalf("%v: exit %d: %s", args, r.code, r.err)
	}
	return r.out
}

// decode reads JSON that a command printed.
func decode[T any](t *testing.T, text string) T {
	t.Helper()
	var v T
	d := json.NewDecoder(strings.NewReader(text))
	if err := d.Decode(&v); err != nil {
		t.Fatalf("%v in %q", err, text)
	}
	return v
}
