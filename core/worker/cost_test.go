package worker_test

import (
	"context"
	"encoding/json"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/postroom/postroom/core/internal/dbtest"
	"github.com/postroom/postroom/core/job"
	"github.com/postroom/postroom/core/libsql"
	"github.com/postroom/postroom/core/queue"
	"github.com/postroom/postroom/core/system"
	"github.com/postroom/postroom/core/worker"
)

// cost is what a job of a workload may cost. Counts say the same on every
// machine, where times do not.
type cost struct {
	commits    float64 // each is a sync
	statements float64 // of the transactions; looks are reads and not among them
	cgo        float64 // calls into the database library, reads included
	allocs     float64 // of memory, by Go
	pages      float64 // written to the write-ahead log
}

// Few enough for the write-ahead log not to begin anew, which it does after a
// thousand pages, and when nobody waits after 25 commits: its size would say
// nothing.
const (
	costJobs = 400
	costOnes = 20
)

// TestAJobCostsNoMoreThanItDid holds fixed workloads against limits. A change
// that needs a higher one says why; a change that makes a job cheaper lowers
// it. The machine decides how many jobs share a commit, what a commit costs is
// shared with them, and the race detector allocates too: the limits lie 15 %
// above the most that was seen. It is not parallel, because the runtime counts
// for the whole process.
//
//nolint:paralleltest // see above
func TestAJobCostsNoMoreThanItDid(t *testing.T) {
	if os.Getenv("POSTROOM_TEST_DATABASE") != "" {
		t.Skip("counts what a file costs")
	}
	together := func(t testing.TB, q *queue.Queue, n int) { store(t, q, n) }
	oneByOne := func(t testing.TB, q *queue.Queue, n int) {
		for range n {
			store(t, q, 1)
		}
	}
	for _, c := range []struct {
		name    string
		jobs    int
		enqueue func(t testing.TB, q *queue.Queue, n int)
		handler func(context.Context, *worker.Job[json.RawMessage]) (any, error) // nil: enqueueing is what counts
		limit   cost
	}{
		{"enqueue one by one", costOnes, oneByOne, nil, cost{commits: 1, statements: 1, cgo: 14, allocs: 72, pages: 7}},
		{"enqueue together", costJobs, together, nil, cost{commits: 0.01, statements: 0.01, cgo: 0.05, allocs: 6.6, pages: 0.085}},
		{"work no-ops", costJobs, together, noOp, cost{commits: 0.3, statements: 0.5, cgo: 10, allocs: 68, pages: 1}},
		{"work jobs with three steps", costJobs, together, threeSteps, cost{commits: 0.5, statements: 1, cgo: 20, allocs: 117, pages: 1.8}},
		{"work jobs with a follow-up", costJobs, together, followUp, cost{commits: 0.3, statements: 1, cgo: 20, allocs: 130, pages: 1.5}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := measureCost(t, c.jobs, c.enqueue, c.handler)
			for _, n := range []struct {
				what       string
				got, limit float64
			}{
				{"commits", got.commits, c.limit.commits},
				{"statements", got.statements, c.limit.statements},
				{"cgo calls", got.cgo, c.limit.cgo},
				{"allocations", got.allocs, c.limit.allocs},
				{"pages", got.pages, c.limit.pages},
			} {
				t.Logf("%s per job: %.3f (limit %.3f)", n.what, n.got, n.limit)
				if n.got > n.limit {
					t.Errorf("%s per job: %.3f, limit %.3f", n.what, n.got, n.limit)
				}
			}
		})
	}
}

func measureCost(t *testing.T, jobs int, enqueue func(testing.TB, *queue.Queue, int), handler func(context.Context, *worker.Job[json.RawMessage]) (any, error)) cost {
	t.Helper()
	var commits, statements atomic.Int64
	path := dbtest.Path(t)
	db, err := libsql.Open(t.Context(), libsql.Options{
		Path: path, CallTimeout: time.Hour, // a try that is repeated would count twice
		OnCommit: func(_, s int) {
			commits.Add(1)
			statements.Add(int64(s))
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close(context.WithoutCancel(t.Context())) })
	q := queue.New(db, system.Real{}, job.Known())
	store(t, q, 1) // opens the connections and settles the file
	if handler != nil {
		enqueue(t, q, jobs)
	}

	var before, after runtime.MemStats
	commits.Store(0)
	statements.Store(0)
	pages, cgo := walPages(t, path), runtime.NumCgoCall()
	runtime.ReadMemStats(&before)
	if handler == nil {
		enqueue(t, q, jobs)
	} else {
		workAll(t, q, jobs, handler)
	}
	runtime.ReadMemStats(&after)
	n := float64(jobs)
	return cost{
		commits:    float64(commits.Load()) / n,
		statements: float64(statements.Load()) / n,
		cgo:        float64(runtime.NumCgoCall()-cgo) / n,
		allocs:     float64(after.Mallocs-before.Mallocs) / n,
		pages:      float64(walPages(t, path)-pages) / n,
	}
}

// workAll runs a worker until its handler was called for every job.
func workAll(t *testing.T, q *queue.Queue, jobs int, handler func(context.Context, *worker.Job[json.RawMessage]) (any, error)) {
	t.Helper()
	var left sync.WaitGroup
	left.Add(jobs + 1) // the first one was stored before
	w, err := worker.New(q, zerolog.Nop(), worker.Config{
		Runner: queue.Runner{ID: "cost", Host: "cost", Version: "cost"}, Concurrency: 100,
		Lease: time.Minute, Heartbeat: 20 * time.Second, Poll: time.Second, DrainTimeout: time.Minute,
	}, worker.Bind(job.DebugEcho, func(ctx context.Context, j *worker.Job[json.RawMessage]) (any, error) {
		defer left.Done()
		return handler(ctx, j)
	}))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	stopped := make(chan error, 1)
	go func() { stopped <- w.Run(ctx) }()
	left.Wait()
	cancel()
	if err := <-stopped; err != nil { // it has drained: every completion is stored
		t.Fatal(err)
	}
}

// walPages counts the pages in the write-ahead log.
func walPages(t *testing.T, path string) int64 {
	t.Helper()
	info, err := os.Stat(path + "-wal")
	if err != nil {
		t.Fatal(err)
	}
	const header, frame = 32, 24 + 8192
	return (info.Size() - header) / frame
}
