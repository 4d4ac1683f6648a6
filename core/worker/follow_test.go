package worker_test

import (
	"cmp"
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

// quietly runs a worker that does for hours nothing by itself but what cfg asks
// for, until the test ends.
func quietly(t *testing.T, q *queue.Queue, cfg worker.Config, bindings ...worker.Binding) {
	t.Helper()
	cfg.Runner = queue.Runner{ID: "runner-1", Host: "test", Version: "test"}
	cfg.Lease, cfg.Heartbeat, cfg.DrainTimeout = 10*time.Hour, 3*time.Hour, 5*time.Second
	cfg.Poll = cmp.Or(cfg.Poll, 3*time.Hour)
	w, err := worker.New(q, zerolog.New(zerolog.NewTestWriter(t)), cfg, bindings...)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// openCounted opens a new database and counts its commits.
func openCounted(t *testing.T) (libsql.DB, *atomic.Int64) {
	t.Helper()
	var commits atomic.Int64
	db, err := libsql.Open(t.Context(), libsql.Options{
		Path: dbtest.Path(t), CallTimeout: time.Hour, // a try that is repeated would count twice
		OnCommit: func(int, int) { commits.Add(1) },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close(context.WithoutCancel(t.Context())) })
	return db, &commits
}

// Where nothing signals, a runner that had work finds what others store long
// before its next poll, which in this test never comes.
func TestABusyRunnerLooksForMoreWhereNothingSignals(t *testing.T) {
	t.Parallel()
	path := dbtest.Path(t)
	others := queue.New(dbtest.OpenPath(t, path), system.Real{}, job.Known())
	r := &rig{t: t, q: others}
	id := r.enqueue(job.DebugEcho, `0`) // which the runner finds when it starts
	q := queue.New(silent{dbtest.OpenPath(t, path)}, system.Real{}, job.Known())
	quietly(t, q, worker.Config{Concurrency: 1, Eager: time.Millisecond}, debugjobs.Bindings()...)
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
	r := &rig{t: t, q: others}
	quietly(t, queue.New(db, system.Real{}, job.Known()), worker.Config{Concurrency: 1, Poll: 20 * time.Millisecond}, debugjobs.Bindings()...)
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
	quietly(t, q, worker.Config{Concurrency: slots}, worker.Bind(job.DebugEcho, func(context.Context, *worker.Job[json.RawMessage]) (any, error) {
		left.Done()
		return nil, nil
	}))
	left.Wait()
	if n := db.reads.Load(); n >= jobs/slots {
		t.Errorf("%d reads for at least %d claims", n, jobs/slots)
	}
}

// An idle runner takes what its own process stores in the commit that stores it:
// a job costs two commits from its enqueue to its completion, and no look.
func TestAnIdleRunnerClaimsAJobInTheCommitThatStoresIt(t *testing.T) {
	t.Parallel()
	file, commits := openCounted(t)
	db := &counting{DB: silent{file}}
	r := &rig{t: t, q: queue.New(file, system.Real{}, job.Known())}
	quietly(t, queue.New(db, system.Real{}, job.Known()), worker.Config{Concurrency: 2}, debugjobs.Bindings()...)
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
	file, commits := openCounted(t)
	q := queue.New(silent{file}, system.Real{}, job.Known())
	const jobs = 20
	reached := make(chan struct{})
	handOver := worker.Bind(job.DebugEcho, func(ctx context.Context, j *worker.Job[int]) (any, error) {
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
	})
	if _, err := q.Enqueue(t.Context(), job.New{Type: job.DebugEcho, Payload: job.Payload(0)}); err != nil {
		t.Fatal(err)
	}
	began := commits.Load()
	quietly(t, q, worker.Config{Concurrency: 2}, handOver)
	<-reached
	// A few are the runner's own; with one for each claim there would be a third more.
	if n := commits.Load() - began; n > 2*jobs+jobs/2 {
		t.Errorf("%d commits for %d steps and hand-overs, want one for each of both", n, jobs)
	}
}
