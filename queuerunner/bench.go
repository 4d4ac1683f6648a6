package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"github.com/postroom/postroom/core/config"
	"github.com/postroom/postroom/core/job"
	"github.com/postroom/postroom/core/libsql"
	"github.com/postroom/postroom/core/queue"
	"github.com/postroom/postroom/core/system"
	"github.com/postroom/postroom/core/worker"
)

const (
	// benchType is known to no runner, so that none but the benchmark's own
	// worker takes its jobs.
	benchType = "bench.noop"
	// benchCleanUp is how long the cleaning up may take.
	benchCleanUp = 5 * time.Minute
	// benchPickups is how many jobs are picked up, a hundred a second.
	benchPickups = 200
)

// bench is `bench`.
func bench(c *call, flags *flag.FlagSet) action {
	jobs := 10_000
	intFlag(flags, &jobs, "jobs", "how many jobs to store and work, `N` from 100 to 1000000")
	asJSON := flags.Bool("json", false, "print JSON")
	return func(ctx context.Context, _ []string) error {
		if jobs < 100 || jobs > 1_000_000 {
			return wrongUse("-jobs must be from 100 to 1000000")
		}
		ctx, _, stop := system.StopSignals(ctx)
		defer stop()
		return c.withDatabase(ctx, func(cfg *config.Loaded, db libsql.DB) error {
			b := newBenchmark(cfg, db)
			end := c.busy("measuring")
			got, err := b.measure(ctx, jobs)
			bound, cancel := context.WithTimeout(context.WithoutCancel(ctx), benchCleanUp)
			defer cancel()
			gone := b.q.Clear(bound, b.queue, b.first)
			end()
			switch {
			case gone == nil && ctx.Err() != nil:
				c.note("interrupted; what was stored is gone again")
				return reported(exitFailed)
			case err != nil || gone != nil:
				return errors.Join(err, gone)
			}
			if *asJSON {
				return c.printJSON(got)
			}
			return c.printf("%s", got)
		})
	}
}

// benchmark stores and works jobs in a queue of its own.
type benchmark struct {
	q     *queue.Queue
	cfg   worker.Config
	queue string
	first string // the job that is stored first
}

// benchFigures are what was measured.
type benchFigures struct {
	Concurrency int       `json:"concurrency"`
	One         benchRate `json:"enqueue_1_caller"`
	Many        benchRate `json:"enqueue_64_callers"`
	Bulk        benchRate `json:"enqueue_1000_per_call"`
	Work        benchRate `json:"work"`
	PickupP50   float64   `json:"pickup_p50_ms"`
	PickupP99   float64   `json:"pickup_p99_ms"`
}

type benchRate struct {
	Jobs      int     `json:"jobs"`
	PerSecond float64 `json:"per_second"`
}

func (f *benchFigures) String() string {
	t := newTable()
	row := func(what string, r benchRate) {
		t.row(what, fmt.Sprintf("%.0f jobs/s", r.PerSecond), fmt.Sprintf("%d jobs", r.Jobs))
	}
	row("enqueue, one caller", f.One)
	row("enqueue, 64 callers", f.Many)
	row("enqueue, 1000 jobs per call", f.Bulk)
	row(fmt.Sprintf("work no-op jobs, concurrency %d", f.Concurrency), f.Work)
	t.row("pickup at 100 jobs/s", fmt.Sprintf("median %.1f ms", f.PickupP50), fmt.Sprintf("99th percentile %.1f ms", f.PickupP99))
	return t.String()
}

// newBenchmark works as a runner with this configuration does.
func newBenchmark(cfg *config.Loaded, db libsql.DB) *benchmark {
	sys := system.Real{}
	name := "bench-" + queue.New(db, sys, nil).NewID()
	types := job.Types{benchType: {Name: benchType, Queue: name, MaxAttempts: 5, Backoff: job.DefaultBackoff, Timeout: time.Minute}}
	c := cfg.Queue
	b := &benchmark{q: queue.New(db, sys, types), queue: name, cfg: worker.Config{
		Runner: self(sys), Queues: []string{name}, Concurrency: c.Concurrency, Lease: c.Lease.Duration,
		Heartbeat: c.Heartbeat.Duration, Poll: c.Poll.Duration, DrainTimeout: c.DrainTimeout.Duration,
	}}
	b.first = b.q.NewID()
	return b
}

func (b *benchmark) measure(ctx context.Context, jobs int) (*benchFigures, error) {
	f := &benchFigures{Concurrency: b.cfg.Concurrency}
	// The first one opens the connections and marks where the scratch begins.
	if _, err := b.q.Enqueue(ctx, job.New{ID: b.first, Type: benchType}); err != nil {
		return nil, err
	}
	stored := 1
	for _, e := range []struct {
		rate                   *benchRate
		jobs, callers, perCall int
	}{{&f.One, jobs / 100, 1, 1}, {&f.Many, jobs / 10, 64, 1}, {&f.Bulk, jobs, 1, 1000}} {
		began := time.Now()
		if err := b.store(ctx, e.jobs, e.callers, e.perCall); err != nil {
			return nil, err
		}
		*e.rate = newBenchRate(e.jobs, began)
		stored += e.jobs
	}

	began := time.Now()
	err := b.work(ctx, func(handled <-chan time.Time) error {
		for range stored {
			if _, err := next(ctx, handled); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	f.Work = newBenchRate(stored, began) // work has ended, so that all of it is durable

	took := make([]time.Duration, benchPickups)
	err = b.work(ctx, func(handled <-chan time.Time) error {
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for i := range took {
			<-tick.C
			asked := time.Now()
			if err := b.store(ctx, 1, 1, 1); err != nil {
				return err
			}
			at, err := next(ctx, handled)
			if err != nil {
				return err
			}
			took[i] = at.Sub(asked)
		}
		return nil
	})
	slices.Sort(took)
	f.PickupP50, f.PickupP99 = millis(took[len(took)/2]), millis(took[len(took)*99/100])
	return f, err
}

func newBenchRate(jobs int, began time.Time) benchRate {
	return benchRate{Jobs: jobs, PerSecond: float64(jobs) / time.Since(began).Seconds()}
}

func millis(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// store stores jobs from so many callers at once, each so many per call.
func (b *benchmark) store(ctx context.Context, jobs, callers, perCall int) error {
	calls := make(chan int)
	errs := make([]error, callers)
	var wg sync.WaitGroup
	for i := range callers {
		wg.Go(func() {
			for n := range calls {
				if errs[i] != nil {
					continue // the rest is not worth trying
				}
				batch := make([]job.New, n)
				for j := range batch {
					batch[j] = job.New{Type: benchType, Payload: benchPayload}
				}
				_, errs[i] = b.q.EnqueueMany(ctx, batch)
			}
		})
	}
	for left := jobs; left > 0; left -= perCall {
		calls <- min(left, perCall)
	}
	close(calls)
	wg.Wait()
	return errors.Join(errs...)
}

// benchPayload is as long as payloads usually are.
var benchPayload = job.Payload(map[string]string{"to": "somebody@example.org", "text": "two hundred bytes of a payload that is as long as the payloads " +
	"that jobs of this kind usually have in real life, more or less; the rest of it is there to fill up the line"})

// work runs a worker until use returns, and then until what was handled is
// stored. handled receives the time at which each job's handler began.
func (b *benchmark) work(ctx context.Context, use func(handled <-chan time.Time) error) error {
	handled := make(chan time.Time, 1024)
	running, stop := context.WithCancel(ctx)
	defer stop()
	w, err := worker.New(b.q, zerolog.Nop(), b.cfg,
		worker.Bind(benchType, func(ctx context.Context, _ *worker.Job[any]) (any, error) {
			select {
			case handled <- time.Now():
				return nil, nil
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}))
	if err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- w.Run(running) }()
	err = use(handled)
	stop()
	return errors.Join(err, <-ended)
}

func next(ctx context.Context, handled <-chan time.Time) (time.Time, error) {
	select {
	case at := <-handled:
		return at, nil
	case <-ctx.Done():
		return time.Time{}, ctx.Err()
	}
}
