package worker_test

import (
	"context"
	"encoding/json"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/postroom/postroom/core/debugjobs"
	"github.com/postroom/postroom/core/internal/dbtest"
	"github.com/postroom/postroom/core/job"
	"github.com/postroom/postroom/core/libsql"
	"github.com/postroom/postroom/core/queue"
	"github.com/postroom/postroom/core/step"
	"github.com/postroom/postroom/core/system"
	"github.com/postroom/postroom/core/worker"
)

// silent is a database that does not tell of other processes' commits.
type silent struct{ libsql.DB }

func (silent) Watch(context.Context) <-chan struct{} { return nil }

// Where nothing signals, a runner that had work finds what others store long
// before its next poll, which in this test never comes.
func TestABusyRunnerLooksForMoreWhereNothingSignals(t *testing.T) {
	t.Parallel()
	path := dbtest.Path(t)
	others := queue.New(dbtest.OpenPath(t, path), system.Real{}, job.Known())
	r := &rig{t: t, q: others, done: make(chan error, 1)}
	id := r.enqueue(job.DebugEcho, `0`) // which the runner finds when it starts
	w, err := worker.New(queue.New(silent{dbtest.OpenPath(t, path)}, system.Real{}, job.Known()), zerolog.New(zerolog.NewTestWriter(t)), worker.Config{
		Runner: queue.Runner{ID: "runner-1", Host: "test", Version: "test"}, Concurrency: 1,
		Lease: 10 * time.Hour, Heartbeat: 3 * time.Hour, Poll: 3 * time.Hour, Eager: time.Millisecond, DrainTimeout: 5 * time.Second,
	}, debugjobs.Bindings()...)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	go func() { r.done <- w.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-r.done })
	for range 3 {
		r.await(id, job.Completed)
		id = r.enqueue(job.DebugSleep, `{"ms":20}`) // longer than the first looks last
	}
	r.await(id, job.Completed)
}

// An idle runner finds by itself, when it polls, what nothing told it of.
func TestAnIdleRunnerFindsAJobWhenItPolls(t *testing.T) {
	t.Parallel()
	path := dbtest.Path(t)
	db := &counting{DB: silent{dbtest.OpenPath(t, path)}}
	others := queue.New(dbtest.OpenPath(t, path), system.Real{}, job.Known())
	r := &rig{t: t, q: others, done: make(chan error, 1)}
	w, err := worker.New(queue.New(db, system.Real{}, job.Known()), zerolog.New(zerolog.NewTestWriter(t)), worker.Config{
		Runner: queue.Runner{ID: "runner-1", Host: "test", Version: "test"}, Concurrency: 1,
		Lease: 10 * time.Hour, Heartbeat: 3 * time.Hour, Poll: 20 * time.Millisecond, DrainTimeout: 5 * time.Second,
	}, debugjobs.Bindings()...)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	go func() { r.done <- w.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-r.done })
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for db.reads.Load() < 3 { // it has looked in vain
		<-tick.C
	}
	r.await(r.enqueue(job.DebugEcho, `0`), job.Completed)
}

// counting counts the reads of a database.
type counting struct {
	libsql.DB
	reads atomic.Int64
}

func (c *counting) Read(ctx context.Context, stmts ...libsql.Stmt) ([]libsql.Result, error) {
	c.reads.Add(1)
	return c.DB.Read(ctx, stmts...)
}

// A claim answers what a look would: while there is a backlog no claim needs one.
func TestABacklogIsWorkedWithoutLooking(t *testing.T) {
	t.Parallel()
	db := &counting{DB: silent{dbtest.Open(t)}}
	q := queue.New(db, system.Real{}, job.Known())
	const jobs, slots = 400, 10
	store(t, q, jobs)
	var left sync.WaitGroup
	left.Add(jobs)
	w, err := worker.New(q, zerolog.Nop(), worker.Config{
		Runner: queue.Runner{ID: "runner-1", Host: "test", Version: "test"}, Concurrency: slots,
		Lease: 10 * time.Hour, Heartbeat: 3 * time.Hour, Poll: 3 * time.Hour, DrainTimeout: 5 * time.Second,
	}, worker.Bind(job.DebugEcho, func(context.Context, *worker.Job[json.RawMessage]) (any, error) {
		left.Done()
		return nil, nil
	}))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	stopped := make(chan error, 1)
	go func() { stopped <- w.Run(ctx) }()
	left.Wait()
	if n := db.reads.Load(); n >= jobs/slots {
		t.Errorf("%d reads for at least %d claims", n, jobs/slots)
	}
	cancel()
	if err := <-stopped; err != nil {
		t.Error(err)
	}
}

// An idle runner takes what its own process stores in the commit that stores it:
// a job costs two commits from its enqueue to its completion, and no look.
func TestAnIdleRunnerClaimsAJobInTheCommitThatStoresIt(t *testing.T) {
	t.Parallel()
	var commits atomic.Int64
	file, err := libsql.Open(t.Context(), libsql.Options{Path: dbtest.Path(t), CallTimeout: time.Hour, OnCommit: func(int, int) { commits.Add(1) }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = file.Close(context.WithoutCancel(t.Context())) })
	db := &counting{DB: silent{file}}
	r := &rig{t: t, q: queue.New(file, system.Real{}, job.Known()), done: make(chan error, 1)}
	w, err := worker.New(queue.New(db, system.Real{}, job.Known()), zerolog.Nop(), worker.Config{
		Runner: queue.Runner{ID: "runner-1", Host: "test", Version: "test"}, Concurrency: 2,
		Lease: 10 * time.Hour, Heartbeat: 3 * time.Hour, Poll: 3 * time.Hour, DrainTimeout: 5 * time.Second,
	}, debugjobs.Bindings()...)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	go func() { r.done <- w.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-r.done })
	r.await(r.enqueue(job.DebugEcho, `0`), job.Completed)
	const jobs = 20
	began, looks := commits.Load(), db.reads.Load()
	for range jobs {
		r.await(r.enqueue(job.DebugEcho, `0`), job.Completed)
	}
	// On a busy machine the runner may not be back in time now and then.
	if n := commits.Load() - began; n > 2*jobs+jobs/2 {
		t.Errorf("%d commits for %d jobs, want two for each", n, jobs)
	}
	if n := db.reads.Load() - looks; n > jobs/2 {
		t.Errorf("%d reads for %d jobs, want none", n, jobs)
	}
}

// What a handler hands over is claimed by the commit that completes its job.
func TestAFollowUpIsClaimedByTheCommitThatStoresIt(t *testing.T) {
	t.Parallel()
	var commits atomic.Int64
	file, err := libsql.Open(t.Context(), libsql.Options{Path: dbtest.Path(t), CallTimeout: time.Hour, OnCommit: func(int, int) { commits.Add(1) }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = file.Close(context.WithoutCancel(t.Context())) })
	q := queue.New(silent{file}, system.Real{}, job.Known())
	const jobs = 20
	reached := make(chan struct{})
	w, err := worker.New(q, zerolog.Nop(), worker.Config{
		Runner: queue.Runner{ID: "runner-1", Host: "test", Version: "test"}, Concurrency: 2,
		Lease: 10 * time.Hour, Heartbeat: 3 * time.Hour, Poll: 3 * time.Hour, DrainTimeout: 5 * time.Second,
	}, worker.Bind(job.DebugEcho, func(ctx context.Context, j *worker.Job[int]) (any, error) {
		if j.Payload == jobs {
			close(reached)
			return nil, nil
		}
		// A commit of its own, while the runner waits for what is stored next.
		if _, err := step.Run(ctx, "before", func(context.Context) (any, error) { return nil, nil }); err != nil {
			return nil, err
		}
		return nil, j.Commit(ctx, nil, func(b *queue.Batch) {
			b.Enqueue(job.New{Type: job.DebugEcho, Payload: job.Payload(j.Payload + 1)})
		})
	}))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := q.Enqueue(t.Context(), job.New{Type: job.DebugEcho, Payload: job.Payload(0)}); err != nil {
		t.Fatal(err)
	}
	began := commits.Load()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	stopped := make(chan error, 1)
	go func() { stopped <- w.Run(ctx) }()
	<-reached
	// A few are the runner's own; with one for each claim there would be a third more.
	if n := commits.Load() - began; n > 2*jobs+jobs/2 {
		t.Errorf("%d commits for %d steps and hand-overs, want one for each of both", n, jobs)
	}
	cancel()
	if err := <-stopped; err != nil {
		t.Error(err)
	}
}
