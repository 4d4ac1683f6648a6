// Package driver runs one workload against one queue and prints what came of
// it as a line of JSON. Each program under peer/ is a queue behind [Peer] and
// a call of [Main]: libraries that cannot be linked into one program have one
// each, and no queue runs in the memory another one left behind. It imports
// the standard library only.
package driver

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Args is the payload of every job: two hundred bytes.
type Args struct {
	To   string `json:"to"`
	N    int    `json:"n"`
	Text string `json:"text"`
}

// Kind is the name that queues know the job by.
func (Args) Kind() string { return "bench" }

// NewArgs returns the payload of job n.
func NewArgs(n int) Args {
	return Args{To: "somebody@example.org", N: n, Text: "two hundred bytes of a payload that is as long as the payloads " +
		"that jobs of this kind usually have in real life, more or less; the rest of it is there to fill up the line"}
}

// Result is what every handler gives back, for those queues that store it.
type Result struct {
	OK bool `json:"ok"`
}

// Peer is a queue under test.
type Peer interface {
	// Enqueue stores jobs and returns when they are as durable as the queue
	// makes them. It is called by many goroutines at once.
	Enqueue(ctx context.Context, jobs []Args) error
	// Work calls handle for each job until ctx ends.
	Work(ctx context.Context, handle func(Args)) error
	// Unfinished is how many jobs are stored and not yet done.
	Unfinished(ctx context.Context) (int, error)
}

// Report is what a workload came to.
type Report struct {
	Jobs    int     `json:"jobs"`
	Seconds float64 `json:"seconds"`
	P50     float64 `json:"p50_ms,omitempty"`
	P99     float64 `json:"p99_ms,omitempty"`
	Growth  float64 `json:"growth,omitempty"` // time per job of the last tenth, as a multiple of the first tenth's
}

// Workloads are the names that -workload takes, with what each is.
func Workloads() []Workload {
	return []Workload{
		{"enqueue-1", "enqueue, one caller, one job per call", enqueue(1, 1, 50)},
		{"enqueue-64", "enqueue, 64 callers, one job per call", enqueue(64, 1, 10)},
		{"bulk", "enqueue, one caller, 1,000 jobs per call", enqueue(1, bulk, 1)},
		{"work", "work a backlog of no-ops", work},
		{"mixed", "16 callers enqueue one by one while the worker works", mixed},
		{"pickup", "from before the enqueue to the start of the handler, at 100 jobs/s", pickup},
		{"growth", "enqueue in bulk: the last tenth beside the first", growth},
	}
}

// Workload is something to measure. Its share of the jobs asked for is what
// the slowest queue does in a reasonable time.
type Workload struct {
	Name, Help string
	run        func(ctx context.Context, p Peer, size int) (Report, error)
}

const bulk = 1000

// Main runs the workload that the flags name and prints its report. open is
// called with the place of an empty database: a folder, or the URL of a server.
func Main(open func(ctx context.Context, at string) (Peer, error)) {
	at := flag.String("at", "", "the folder or the server's URL")
	name := flag.String("workload", "", "what to measure")
	size := flag.Int("size", 100_000, "how many jobs")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, open, *at, *name, *size, os.Stdout); err != nil {
		_, _ = fmt.Fprintln(os.Stderr, err)
		os.Exit(1) //nolint:gocritic // nothing is left to stop
	}
}

func run(ctx context.Context, open func(context.Context, string) (Peer, error), at, name string, size int, out io.Writer) error {
	i := slices.IndexFunc(Workloads(), func(w Workload) bool { return w.Name == name })
	if i < 0 {
		return fmt.Errorf("there is no workload %q", name)
	}
	p, err := open(ctx, at)
	if err != nil {
		return fmt.Errorf("open: %w", err)
	}
	r, err := Workloads()[i].run(ctx, p, size)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return json.NewEncoder(out).Encode(r)
}

// enqueue measures callers that store jobs, each so many per call. They store
// a share of the size.
func enqueue(callers, perCall, share int) func(context.Context, Peer, int) (Report, error) {
	return func(ctx context.Context, p Peer, size int) (Report, error) {
		jobs := max(size/share, callers)
		return timed(jobs, func() error { return store(ctx, p, callers, perCall, 0, jobs) })
	}
}

func timed(jobs int, do func() error) (Report, error) {
	began := time.Now()
	err := do()
	return Report{Jobs: jobs, Seconds: time.Since(began).Seconds()}, err
}

// store stores the jobs from first to before last.
func store(ctx context.Context, p Peer, callers, perCall, first, last int) error {
	calls := make(chan []Args)
	var wg sync.WaitGroup
	var mu sync.Mutex
	var failed error
	for range callers {
		wg.Go(func() {
			for jobs := range calls {
				if err := p.Enqueue(ctx, jobs); err != nil {
					mu.Lock()
					failed = errors.Join(failed, err)
					mu.Unlock()
				}
			}
		})
	}
	for n := first; n < last; n += perCall {
		jobs := make([]Args, 0, perCall)
		for i := n; i < min(n+perCall, last); i++ {
			jobs = append(jobs, NewArgs(i))
		}
		calls <- jobs
	}
	close(calls)
	wg.Wait()
	return failed
}

func work(ctx context.Context, p Peer, size int) (Report, error) {
	if err := store(ctx, p, 1, bulk, 0, size); err != nil {
		return Report{}, err
	}
	return timed(size, func() error {
		return start(ctx, p, size, func(Args) {}).await()
	})
}

func mixed(ctx context.Context, p Peer, size int) (Report, error) {
	jobs := max(size/10, 16)
	return timed(jobs, func() error {
		w := start(ctx, p, jobs, func(Args) {})
		if err := store(ctx, p, 16, 1, 0, jobs); err != nil {
			return err
		}
		return w.await()
	})
}

// pickup asks for a job a hundred times a second and measures how long each
// takes from before the enqueue to the start of its handler.
func pickup(ctx context.Context, p Peer, size int) (Report, error) {
	jobs := max(size/200, 20)
	asked, took := make([]time.Time, jobs), make([]time.Duration, jobs)
	var mu sync.Mutex
	w := start(ctx, p, jobs, func(a Args) {
		now := time.Now()
		mu.Lock()
		defer mu.Unlock()
		took[a.N] = now.Sub(asked[a.N])
	})
	r, err := timed(jobs, func() error {
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for n := range jobs {
			<-tick.C
			mu.Lock()
			asked[n] = time.Now()
			mu.Unlock()
			if err := p.Enqueue(ctx, []Args{NewArgs(n)}); err != nil {
				return err
			}
		}
		return w.await()
	})
	slices.Sort(took)
	r.P50, r.P99 = ms(took[jobs/2]), ms(took[jobs*99/100])
	return r, err
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// growth stores a backlog and compares its last tenth with its first.
func growth(ctx context.Context, p Peer, size int) (Report, error) {
	var tenths [10]time.Duration
	r, err := timed(size, func() error {
		for i := range tenths {
			began := time.Now()
			if err := store(ctx, p, 1, bulk, i*size/10, (i+1)*size/10); err != nil {
				return err
			}
			tenths[i] = time.Since(began)
		}
		return nil
	})
	r.Growth = float64(tenths[9]) / float64(tenths[0])
	return r, err
}

// working is a worker that runs.
type working struct {
	ctx   context.Context //nolint:containedctx // of the measurement
	p     Peer
	all   chan struct{} // closed when every job was handled
	ended chan error
}

// start runs a worker that handles so many jobs.
func start(ctx context.Context, p Peer, jobs int, handle func(Args)) *working {
	w := &working{ctx: ctx, p: p, all: make(chan struct{}), ended: make(chan error, 1)}
	var handled atomic.Int64
	go func() {
		w.ended <- p.Work(ctx, func(a Args) {
			handle(a)
			if handled.Add(1) == int64(jobs) {
				close(w.all)
			}
		})
	}()
	return w
}

// await returns when every job was handled and all of them are done, which
// the queue itself must say. The worker runs on: how long it takes to stop is
// no part of the time, and the program ends soon.
func (w *working) await() error {
	select {
	case <-w.all:
	case err := <-w.ended:
		return fmt.Errorf("the worker ended before its work: %w", err)
	case <-w.ctx.Done():
		return w.ctx.Err()
	}
	tick := time.NewTicker(5 * time.Millisecond) // asking takes its part of the one connection that some have
	defer tick.Stop()
	for {
		left, err := w.p.Unfinished(w.ctx)
		if err != nil || left == 0 {
			return err
		}
		<-tick.C
	}
}
