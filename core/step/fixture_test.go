package step_test

import (
	"context"
	"encoding/json"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/postroom/postroom/core/internal/dbtest"
	"github.com/postroom/postroom/core/job"
	"github.com/postroom/postroom/core/libsql"
	"github.com/postroom/postroom/core/queue"
	"github.com/postroom/postroom/core/step"
	"github.com/postroom/postroom/core/system"
	"github.com/postroom/postroom/core/worker"
)

// script is a handler of one test.
type script func(ctx context.Context, r *run) (any, error)

// run is one run of a job, as its script sees it.
type run struct {
	*worker.Job[string]
	rig *rig
}

// rig is a real worker over a real database whose jobs each have a script.
type rig struct {
	t   *testing.T
	q   *queue.Queue
	log *logged

	mu      sync.Mutex
	scripts map[string]script // by idempotency key, which is the payload, too
}

func quiet() *zerolog.Logger {
	log := zerolog.Nop()
	return &log
}

func setup(t *testing.T) *rig {
	t.Helper()
	types := job.Known()
	quick := types[job.ActionExecute]
	quick.Backoff = job.Backoff{Base: time.Millisecond, Cap: time.Millisecond}
	types[job.ActionExecute] = quick
	r := &rig{t: t, log: &logged{}, scripts: map[string]script{}}
	r.q = queue.New(faulty{dbtest.Open(t)}, system.Real{}, types)
	w, err := worker.New(r.q, zerolog.New(r.log), worker.Config{
		Runner: queue.Runner{ID: "runner", Host: "test", Version: "test"}, Concurrency: 16,
		Lease: 10 * time.Second, Heartbeat: time.Second, Poll: 20 * time.Millisecond, DrainTimeout: 5 * time.Second,
	}, worker.Bind(job.ActionExecute, func(ctx context.Context, j *worker.Job[string]) (any, error) {
		r.mu.Lock()
		play := r.scripts[j.Payload]
		r.mu.Unlock()
		return play(ctx, &run{j, r})
	}))
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	t.Cleanup(func() { stop(); w.Hurry(); <-done })
	return r
}

// start stores a job that plays the script.
func (r *rig) start(t *testing.T, play script) string {
	t.Helper()
	key := r.q.NewID()
	r.mu.Lock()
	r.scripts[key] = play
	r.mu.Unlock()
	e, err := r.q.Enqueue(t.Context(), job.New{Type: job.ActionExecute, Payload: job.Payload(key), Key: key, MaxAttempts: 20})
	if err != nil {
		t.Fatal(err)
	}
	return e.ID
}

// play runs the script to its end.
func (r *rig) play(t *testing.T, play script) *queue.Detail {
	t.Helper()
	return r.await(t, r.start(t, play))
}

// await waits until the job is final; the test's own deadline bounds it.
func (r *rig) await(t *testing.T, id string) *queue.Detail {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for range tick.C {
		if d := r.job(t, id); d.State.Final() {
			return d
		}
	}
	return nil
}

func (r *rig) job(t *testing.T, id string) *queue.Detail {
	t.Helper()
	d, err := r.q.Detail(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// retry retries a final job and waits for its next end.
func (r *rig) retry(t *testing.T, id string) *queue.Detail {
	t.Helper()
	if _, err := r.q.Retry(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	return r.await(t, id)
}

// end takes the job away from its run, as a rescuer does after the lease of a
// runner that died, and lets the next run begin.
func (r *run) end() {
	ctx := context.Background()
	for held := true; held; { // a heartbeat may revive the lease before the rescue
		var b libsql.Batch
		b.Exec("UPDATE jobs SET lease_expires_at = 0, crashes = 0 WHERE id = ? AND claims = ? AND state = 'running'", r.ID(), r.Number())
		_, err := r.rig.q.DB().Write(ctx, &b)
		if err == nil {
			_, err = r.rig.q.Rescue(ctx)
		}
		var res []libsql.Result
		if err == nil {
			res, err = r.rig.q.DB().Read(ctx, libsql.Query("SELECT 1 FROM jobs WHERE id = ? AND claims = ? AND state = 'running'", r.ID(), r.Number()))
		}
		if err != nil {
			r.rig.t.Errorf("end a run: %v", err)
			return
		}
		held = len(res[0].Rows) > 0
	}
	if _, err := r.rig.q.PullForward(ctx, job.ActionExecute, r.Payload); err != nil {
		r.rig.t.Errorf("start the next run: %v", err)
	}
}

// die is the death of the run's process at this point.
func (r *run) die() {
	r.end()
	runtime.Goexit()
}

// cancel is somebody who wants the job canceled.
func (r *run) cancel() {
	if _, err := r.rig.q.Cancel(context.Background(), r.ID()); err != nil {
		r.rig.t.Errorf("cancel: %v", err)
	}
}

// fault is what befalls one write of a run.
type fault struct {
	after bool         // the write is applied first
	act   func() error // what its caller gets; nil goes on as if nothing had been
}

// plan holds the faults of the writes of a run, from 1, and how many reads
// find the database away first.
type plan struct {
	mu     sync.Mutex
	writes int
	faults map[int]fault
	away   int
}

type planKey struct{}

func withPlan(ctx context.Context, p *plan) context.Context {
	return context.WithValue(ctx, planKey{}, p)
}

// at returns a context under which the nth write has a fault.
func at(ctx context.Context, n int, f fault) context.Context {
	return withPlan(ctx, &plan{faults: map[int]fault{n: f}})
}

// dying is the death of the process before or after the nth write is applied.
func (r *run) dying(ctx context.Context, n int, after bool) context.Context {
	return at(ctx, n, fault{after, func() error { r.die(); return nil }})
}

// faulty is a database with the faults of its callers' plans.
type faulty struct{ libsql.DB }

func (f faulty) Merge(ctx context.Context, op *libsql.Op, items ...[]byte) ([]libsql.Row, error) {
	p, _ := ctx.Value(planKey{}).(*plan)
	if p == nil {
		return f.DB.Merge(ctx, op, items...)
	}
	p.mu.Lock()
	p.writes++
	it, has := p.faults[p.writes]
	p.mu.Unlock()
	if !has {
		return f.DB.Merge(ctx, op, items...)
	}
	if !it.after {
		if err := it.act(); err != nil {
			return nil, err
		}
		return f.DB.Merge(ctx, op, items...)
	}
	rows, err := f.DB.Merge(ctx, op, items...)
	if err != nil {
		return nil, err
	}
	if err := it.act(); err != nil {
		return nil, err
	}
	return rows, nil
}

func (f faulty) Read(ctx context.Context, stmts ...libsql.Stmt) ([]libsql.Result, error) {
	if p, _ := ctx.Value(planKey{}).(*plan); p != nil {
		p.mu.Lock()
		away := p.away > 0
		p.away--
		p.mu.Unlock()
		if away {
			return nil, &libsql.Error{Class: libsql.Unavailable, Op: "read"}
		}
	}
	return f.DB.Read(ctx, stmts...)
}

// world is what an effect changes outside of the database, where nothing is
// taken back.
type world struct {
	mu    sync.Mutex
	times int
}

func (w *world) change() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.times++
}

func (w *world) changed() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.times
}

// look is a reconcile function that knows.
func (w *world) look(context.Context) (string, step.Verdict, error) {
	if w.changed() > 0 {
		return "found", step.Happened, nil
	}
	return "", step.DidNotHappen, nil
}

// logged is a log that tests read while it is written.
type logged struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logged) has(s string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Contains(l.text.String(), s)
}

// the returns the only step of the job.
func the(t *testing.T, d *queue.Detail) job.Step {
	t.Helper()
	if len(d.Steps) != 1 {
		t.Fatalf("steps %+v", d.Steps)
	}
	return d.Steps[0]
}

func text(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

func show(d *queue.Detail) string {
	b, err := json.Marshal(d)
	if err != nil {
		return err.Error()
	}
	return string(b)
}
