package worker_test

import (
	"context"
	"encoding/json"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/postroom/postroom/core/debugjobs"
	"github.com/postroom/postroom/core/internal/dbtest"
	"github.com/postroom/postroom/core/job"
	"github.com/postroom/postroom/core/libsql"
	"github.com/postroom/postroom/core/queue"
	"github.com/postroom/postroom/core/system"
	"github.com/postroom/postroom/core/worker"
)

// rig is a worker over a fresh database.
type rig struct {
	t    *testing.T
	q    *queue.Queue
	w    *worker.Worker
	stop context.CancelFunc
	done chan error
}

func start(t *testing.T, bindings ...worker.Binding) *rig {
	t.Helper()
	return startOn(t, queue.New(dbtest.Open(t), system.Real{}, job.Known()), "runner-1", bindings...)
}

func startOn(t *testing.T, q *queue.Queue, id string, bindings ...worker.Binding) *rig {
	t.Helper()
	w, err := worker.New(q, zerolog.New(zerolog.NewTestWriter(t)), worker.Config{
		Runner: queue.Runner{ID: id, Host: "test", Version: "test"}, Concurrency: 4,
		Lease: time.Second, Heartbeat: 200 * time.Millisecond, Poll: 50 * time.Millisecond, DrainTimeout: 5 * time.Second,
	}, append(debugjobs.Bindings(), bindings...)...)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	r := &rig{t: t, q: q, w: w, stop: cancel, done: make(chan error, 1)}
	go func() { r.done <- w.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-r.done; r.done <- nil })
	return r
}

func (r *rig) enqueue(typ, payload string) string {
	r.t.Helper()
	e, err := r.q.Enqueue(r.t.Context(), job.New{Type: typ, Payload: json.RawMessage(payload)})
	if err != nil {
		r.t.Fatal(err)
	}
	return e.ID
}

// await polls until the job is in the state; the test's own deadline bounds it.
func (r *rig) await(id string, state job.State) *queue.Detail {
	r.t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for range tick.C {
		d, err := r.q.Detail(r.t.Context(), id)
		if err != nil {
			r.t.Fatal(err)
		}
		if d.State == state {
			return d
		}
		if d.State.Final() {
			r.t.Fatalf("job %s is %s, want %s: %+v", id, d.State, state, d)
		}
	}
	return nil
}

func TestDebugJobs(t *testing.T) {
	t.Parallel()
	r := start(t)
	t.Run("echo returns its payload", func(t *testing.T) {
		d := r.await(r.enqueue(job.DebugEcho, `{"a":[1,2,{"b":null}]}`), job.Completed)
		if string(d.Result) != `{"a":[1,2,{"b":null}]}` {
			t.Errorf("result %s", d.Result)
		}
	})
	t.Run("steps are replayed after a failure", func(t *testing.T) {
		d := r.await(r.enqueue(job.DebugSteps, `{"n":5,"fail_after":3}`), job.Completed)
		if string(d.Result) != `{"steps":[1,1,1,2,2]}` || d.Attempts != 2 || len(d.Steps) != 5 {
			t.Errorf("result %s, attempts %d, steps %+v", d.Result, d.Attempts, d.Steps)
		}
	})
	t.Run("a panic is a failed attempt with its stack", func(t *testing.T) {
		e, err := r.q.Enqueue(t.Context(), job.New{Type: job.DebugPanic, MaxAttempts: 1})
		if err != nil {
			t.Fatal(err)
		}
		d := r.await(e.ID, job.Failed)
		if *d.LastError != "panic: debug.panic" || d.Runs[0].Stack == nil {
			t.Errorf("job %+v", d)
		}
	})
	t.Run("a payload that does not decode is fatal", func(t *testing.T) {
		d := r.await(r.enqueue(job.DebugSleep, `{"ms":"soon"}`), job.Failed)
		if *d.LastError != "payload.ms (byte 7, line 1) must be of type int64" || d.Attempts != 1 {
			t.Errorf("error %q", *d.LastError)
		}
	})
}

// A slot is free again when its handler has returned, while what became of the
// job is still to be stored; but what cannot be stored does not pile up.
func TestASlotIsFreeWhenItsHandlerHasReturned(t *testing.T) {
	t.Parallel()
	gate := &storeGate{DB: dbtest.Open(t), open: make(chan struct{})}
	q := queue.New(gate, system.Real{}, job.Known())
	var mu sync.Mutex
	called := 0
	reached := make(chan struct{})
	r := startOn(t, q, "one", handler(func(context.Context, *worker.Job[json.RawMessage]) (any, error) {
		mu.Lock()
		defer mu.Unlock()
		if called++; called == 8 { // twice the slots
			close(reached)
		}
		return nil, nil
	}))
	jobs := make([]job.New, 12)
	for i := range jobs {
		jobs[i] = job.New{Type: job.ActionExecute}
	}
	stored, err := q.EnqueueMany(t.Context(), jobs)
	if err != nil {
		t.Fatal(err)
	}
	<-reached
	if n := r.w.Running(); n != 8 {
		t.Errorf("%d jobs in hand, want twice the four slots", n)
	}
	close(gate.open)
	for _, e := range stored {
		r.await(e.ID, job.Completed)
	}
}

// storeGate holds back completions until it is open.
type storeGate struct {
	libsql.DB
	open chan struct{}
}

func (g *storeGate) Merge(ctx context.Context, op *libsql.Op, items ...[]byte) ([]libsql.Row, error) {
	if op.Name == "complete" {
		<-g.open
	}
	return g.DB.Merge(ctx, op, items...)
}
