package e2e

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/postroom/postroom/core/libsql"
)

// scale multiplies what the long tests do: POSTROOM_E2E_SCALE=10 is for an
// evening, the gate runs with 1.
func scale(tb testing.TB) int {
	tb.Helper()
	text, set := os.LookupEnv("POSTROOM_E2E_SCALE")
	if !set {
		return 1
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		tb.Fatalf("POSTROOM_E2E_SCALE is %q, want a whole number from 1", text)
	}
	return n
}

// newJob is what a client asks for.
type newJob struct {
	ID      string `json:"id"`
	Type    string `json:"type"`
	Payload any    `json:"payload"`
	Delay   string `json:"delay,omitempty"`
}

// jobs makes n jobs of a type, each with the payload that fn gives it.
func jobs(n int, typ string, fn func(i int) any) []newJob {
	list := make([]newJob, n)
	for i := range list {
		list[i] = newJob{ID: newID(), Type: typ, Payload: fn(i)}
	}
	return list
}

func newID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	b[6], b[8] = 0x40|b[6]&0x0f, 0x80|b[8]&0x3f
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// enqueue stores all jobs or none, as a client does that must not lose any:
// the same request again, whatever became of the last, until it is accepted.
func (p *process) enqueue(list []newJob) {
	p.s.Helper()
	body, err := json.Marshal(map[string]any{"jobs": list})
	if err != nil {
		p.s.Fatal(err)
	}
	p.s.until("the jobs are stored", func() bool {
		r := p.postJSON("/v1/jobs:batch", string(body))
		switch {
		case r.status == http.StatusCreated:
			return true
		case r.status != http.StatusServiceUnavailable || r.header.Get("Retry-After") == "":
			p.s.Fatalf("enqueue: %d %s", r.status, r.body)
		}
		return false
	})
}

// inState counts the debug jobs in a state.
func (s *system) inState(db libsql.DB, state string) int64 {
	s.Helper()
	return s.count(db, "SELECT count(*) FROM jobs WHERE type LIKE 'debug.%' AND state = ?", state)
}

// allCompleted waits until all n debug jobs are completed.
func (s *system) allCompleted(db libsql.DB, n int) {
	s.Helper()
	s.until(fmt.Sprintf("all %d jobs are completed", n), func() bool {
		if failed := s.inState(db, "failed") + s.inState(db, "canceled"); failed > 0 {
			s.Fatalf("%d jobs failed or were canceled", failed)
		}
		return s.inState(db, "completed") == int64(n)
	})
}

// exactlyOnce checks what must hold of completed jobs whatever happened to
// them on the way, and the invariants of the whole database.
func (s *system) exactlyOnce(db libsql.DB, n int) {
	s.Helper()
	for what, sql := range map[string]string{
		"stored":    `SELECT count(*) FROM jobs WHERE type LIKE 'debug.%'`,
		"completed": `SELECT count(*) FROM jobs WHERE type LIKE 'debug.%' AND state = 'completed'`,
		"completed in exactly one run": `SELECT count(*) FROM jobs AS j WHERE type LIKE 'debug.%'
			AND (SELECT count(*) FROM job_runs AS r WHERE r.job_id = j.id AND r.outcome = 'completed') = 1`,
	} {
		if got := s.count(db, sql); got != int64(n) {
			s.Errorf("%d jobs are %s, want %d", got, what, n)
		}
	}
	if wrong := s.count(db, `SELECT count(*) FROM jobs WHERE type = 'debug.echo' AND result_json IS NOT payload_json`); wrong != 0 {
		s.Errorf("%d echoes have a wrong result", wrong)
	}
	if out, err := s.tool("queuerunner", "verify"); err != nil {
		s.Errorf("verify: %v\n%s", err, out)
	}
}

// runnerID is the id under which a queuerunner is known.
func (p *process) runnerID() string {
	p.s.Helper()
	var line struct{ Runner string }
	if err := json.Unmarshal([]byte(p.log.await(p.s, "queuerunner works")), &line); err != nil || line.Runner == "" {
		p.s.Fatalf("no runner's id: %v", err)
	}
	return line.Runner
}

// listening is a queuerunner that answers health checks.
func (s *system) listening(args ...string) *process {
	s.Helper()
	p := s.runner(append(args, "-set", "queue.http_addr=127.0.0.1:0")...)
	var line struct{ Address string }
	if err := json.Unmarshal([]byte(p.log.await(s, `"message":"listening"`)), &line); err != nil || line.Address == "" {
		s.Fatalf("the runner's address: %v", err)
	}
	p.url = "http://" + line.Address
	return p
}

// freeze stops the process where it is, until thaw.
func (p *process) freeze() { p.signal(syscall.SIGSTOP) }
func (p *process) thaw()   { p.signal(syscall.SIGCONT) }

func (p *process) signal(sig syscall.Signal) {
	p.s.Helper()
	if err := p.Process.Signal(sig); err != nil {
		p.s.Fatal(err)
	}
	if sig != syscall.SIGSTOP {
		return
	}
	p.s.until("the process is stopped", func() bool {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.Process.Pid))
		if err != nil {
			p.s.Fatal(err)
		}
		_, rest, _ := strings.Cut(string(stat), ") ")
		return strings.HasPrefix(rest, "T")
	})
}
