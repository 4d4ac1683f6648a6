// Package queuetest runs jobs in tests of their handlers: one at a time, on a
// scratch database, with a clock that is moved instead of waited for.
//
// A test stores a job, runs it, and looks at what became of it: its result or
// error, its steps, and the jobs that it stored. Follow-up jobs and retries
// wait until the test asks for the next job; the hours that a retry, a snooze or
// a delay asks for pass at once.
//
// It may import core/job, core/libsql, core/queue, core/system, core/worker and
// zerolog. Only tests import it.
package queuetest

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/postroom/postroom/core/job"
	"github.com/postroom/postroom/core/libsql"
	"github.com/postroom/postroom/core/queue"
	"github.com/postroom/postroom/core/system"
	"github.com/postroom/postroom/core/worker"
)

// Rig is a queue on a scratch database, with the handlers under test.
type Rig struct {
	// Queue is for what else a test needs: to store further jobs, to set
	// limits, to cancel, to look at any job. Queue.DB is the database.
	Queue *queue.Queue

	t     testing.TB
	w     *worker.Worker
	cfg   worker.Config
	bound []string // types
}

// Ran is a job as one run has left it.
type Ran struct {
	queue.Detail
	// Stored are the jobs that its handler stored so far, the oldest first:
	// through Commit or Write of package worker, or with its id as ParentID.
	Stored []job.Job

	t testing.TB
}

// New returns a rig whose database is deleted when the test ends.
func New(t testing.TB, types job.Types, bindings ...worker.Binding) *Rig {
	t.Helper()
	return NewWith(t, types, worker.Config{}, bindings...)
}

// NewWith is New for a worker that is not the usual one: one with middleware,
// for example.
func NewWith(t testing.TB, types job.Types, cfg worker.Config, bindings ...worker.Binding) *Rig {
	t.Helper()
	ctx := t.Context()
	// What a test writes need not survive a power cut.
	opt := libsql.Options{Path: filepath.Join(t.TempDir(), "scratch.db"), Synchronous: "normal"}
	if err := libsql.Migrate(ctx, opt); err != nil {
		t.Fatalf("queuetest: %v", err)
	}
	db, err := libsql.Open(ctx, opt)
	if err != nil {
		t.Fatalf("queuetest: %v", err)
	}
	t.Cleanup(func() {
		if err := db.Close(context.WithoutCancel(ctx)); err != nil {
			t.Errorf("queuetest: %v", err)
		}
	})
	var b libsql.Batch
	b.Exec("CREATE TABLE queuetest_clock (ahead INTEGER NOT NULL) STRICT")
	b.Exec("INSERT INTO queuetest_clock VALUES (0)")
	b.Exec("DROP VIEW db_clock")
	b.Exec("CREATE VIEW db_clock(ms) AS SELECT CAST(unixepoch('subsec') * 1000 AS INTEGER) + ahead FROM queuetest_clock")
	if _, err := db.Write(ctx, &b); err != nil {
		t.Fatalf("queuetest: set up the clock: %v", err)
	}
	q := queue.New(db, system.Real{}, types)
	w, err := worker.New(q, zerolog.New(zerolog.NewTestWriter(t)), cfg, bindings...)
	if err != nil {
		t.Fatalf("queuetest: %v", err)
	}
	bound := make([]string, len(bindings))
	for i, b := range bindings {
		bound[i] = b.Type
	}
	return &Rig{Queue: q, t: t, w: w, cfg: cfg, bound: bound}
}

// Run stores a job and runs it once; what stands in line before it runs
// before it. The test fails if the job does not come to its turn: what keeps
// it is in the message.
func (r *Rig) Run(n job.New) *Ran {
	r.t.Helper()
	stored, err := r.Queue.Enqueue(r.t.Context(), n)
	if err != nil {
		r.t.Fatalf("queuetest: store the job: %v", err)
	}
	for {
		ran := r.Next()
		if ran == nil {
			r.t.Fatalf("queuetest: the %s job is not run: %s", n.Type, r.why(stored.ID))
			return nil
		}
		if ran.ID == stored.ID {
			return ran
		}
	}
}

// Next runs the next job in line and returns what became of it; nil when no
// job waits that a handler is bound to. If none is due, the clock is moved to
// when one is.
func (r *Rig) Next() *Ran {
	r.t.Helper()
	ctx := r.t.Context()
	for range 1000 {
		id, err := r.w.RunNext(ctx)
		if err != nil {
			r.t.Fatalf("queuetest: claim a job: %v", err)
		}
		if id != "" {
			return r.ran(id)
		}
		seen, err := r.Queue.Look(ctx)
		if err != nil {
			r.t.Fatalf("queuetest: look for jobs: %v", err)
		}
		if seen.NextDue == nil {
			return nil
		}
		r.Advance(max(*seen.NextDue, time.Millisecond))
	}
	return nil
}

// Drain runs jobs until none waits, follow-ups and retries included, and
// returns the runs in their order. The test fails after a hundred: a job that
// snoozes for ever has no end.
func (r *Rig) Drain() []*Ran {
	r.t.Helper()
	var all []*Ran
	for ran := r.Next(); ran != nil; ran = r.Next() {
		if all = append(all, ran); len(all) == 100 {
			r.t.Fatalf("queuetest: no end after 100 runs; the last was of a %s job", ran.Type)
		}
	}
	return all
}

// Advance moves the database's clock, which decides what is due.
func (r *Rig) Advance(d time.Duration) {
	r.t.Helper()
	var b libsql.Batch
	b.Exec("UPDATE queuetest_clock SET ahead = ahead + ?", d.Milliseconds())
	if _, err := r.Queue.DB().Write(r.t.Context(), &b); err != nil {
		r.t.Fatalf("queuetest: move the clock: %v", err)
	}
}

func (r *Rig) ran(id string) *Ran {
	r.t.Helper()
	d, err := r.Queue.Detail(r.t.Context(), id)
	if err != nil {
		r.t.Fatalf("queuetest: look at job %s: %v", id, err)
	}
	ran := &Ran{Detail: *d, Stored: []job.Job{}, t: r.t}
	page, err := r.Queue.List(r.t.Context(), queue.Filter{}, 1000, 0)
	if err != nil {
		r.t.Fatalf("queuetest: list the jobs: %v", err)
	}
	for i := len(page.Jobs) - 1; i >= 0; i-- {
		if j := page.Jobs[i]; j.ParentID != nil && *j.ParentID == id {
			ran.Stored = append(ran.Stored, j)
		}
	}
	return ran
}

func (r *Rig) why(id string) string {
	// The rig's worker is among the runners only where somebody asks.
	if err := r.Queue.Register(r.t.Context(), queue.Runner{ID: "queuetest", Queues: r.cfg.Queues, Types: r.bound, Concurrency: 1}); err != nil {
		return err.Error()
	}
	why, err := r.Queue.Why(r.t.Context(), id)
	if err != nil {
		return err.Error()
	}
	texts := make([]string, len(why.Reasons))
	for i, reason := range why.Reasons {
		texts[i] = reason.Text
	}
	return strings.Join(texts, "; ")
}

// Into decodes the result of a job that has completed.
func (r *Ran) Into(v any) {
	r.t.Helper()
	if r.State != job.Completed {
		r.t.Fatalf("queuetest: the %s job is %s, not completed: %s", r.Type, r.State, r.ErrorText())
	}
	if err := json.Unmarshal(r.Result, v); err != nil {
		r.t.Fatalf("queuetest: the result of the %s job is %s: %v", r.Type, r.Result, err)
	}
}

// ErrorText is the error of the job's last failed run, "" where none has failed.
func (r *Ran) ErrorText() string {
	if r.LastError == nil {
		return ""
	}
	return *r.LastError
}

// Step returns a step of the job.
func (r *Ran) Step(name string) job.Step {
	r.t.Helper()
	names := make([]string, len(r.Steps))
	for i, s := range r.Steps {
		if s.Name == name {
			return s
		}
		names[i] = fmt.Sprintf("%q", s.Name)
	}
	r.t.Fatalf("queuetest: the %s job has no step %q; it has %s", r.Type, name, strings.Join(names, ", "))
	return job.Step{}
}
