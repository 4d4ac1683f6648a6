// Package driver runs one workload against one queue and prints what came of
// it as a line of JSON. Each program under peer/ is a queue behind [Peer] and
// a call of [Main]: libraries that cannot be linked into one program have one
// each, and no queue runs in the memory another one left behind. It imports
// the standard library only.
package driver

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/postroom/postroom/core/system"
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

// Stepper is a queue with durable steps: it calls step so many times for each
// job, and stores the result of each before it goes on, then handle.
type Stepper interface {
	WorkSteps(ctx context.Context, steps int, step func() Result, handle func(Args)) error
}

// Follower is a queue whose handlers hand follow-up jobs over in the commit
// that completes their own.
type Follower interface {
	WorkAndFollow(ctx context.Context, handle func(Args) []Args) error
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
		{"enqueue-1000", "enqueue, 1,000 callers, one job per call", enqueue(1000, 1, 2)},
		{"bulk", "enqueue, one caller, 1,000 jobs per call", enqueue(1, bulk, 1)},
		{"work", "work a backlog of no-ops", work},
		{"mixed", "16 callers enqueue one by one while the worker works", mixed},
		{"steps", "work a backlog of jobs with three durable steps", steps},
		{"follow-ups", "work a backlog in which every other job stores the next", followUps},
		{"processes", "work a backlog of no-ops in four processes", processes},
		{"pickup", "from before the enqueue to the start of the handler, at 100 jobs/s", pickup},
		{"pickup-70", "the same at 70 % of the rate of mixed", pickupLoaded},
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
	join := flag.Bool("join", false, "work what another process of this program stores, from the first line of the input to its end")
	flag.Parse()
	system.Ballast() // as the services have, for all peers
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var err error
	if *join {
		err = joined(ctx, open, *at, os.Stdin, os.Stdout)
	} else {
		err = run(ctx, open, *at, *name, *size, os.Stdout)
	}
	if err != nil {
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
		return start(ctx, p, size, p.Work, func(Args) {}).await()
	})
}

// steps works a tenth of the jobs.
func steps(ctx context.Context, p Peer, size int) (Report, error) {
	s, ok := p.(Stepper)
	if !ok {
		return Report{}, errors.New("the queue has no steps")
	}
	jobs := max(size/10, 1)
	if err := store(ctx, p, 1, bulk, 0, jobs); err != nil {
		return Report{}, err
	}
	return timed(jobs, func() error {
		return start(ctx, p, jobs, func(ctx context.Context, handle func(Args)) error {
			return s.WorkSteps(ctx, 3, func() Result { return Result{OK: true} }, handle)
		}, func(Args) {}).await()
	})
}

// followUps works the first half of a fifth of the jobs, whose handlers store
// the second half. A queue that is no Follower stores them by the way.
func followUps(ctx context.Context, p Peer, size int) (Report, error) {
	half := max(size/10, 1)
	if err := store(ctx, p, 1, bulk, 0, half); err != nil {
		return Report{}, err
	}
	next := func(a Args) []Args {
		if a.N >= half {
			return nil
		}
		return []Args{NewArgs(a.N + half)}
	}
	failed := make(chan error, half)
	work := func(ctx context.Context, handle func(Args)) error {
		return p.Work(ctx, func(a Args) {
			if more := next(a); more != nil {
				if err := p.Enqueue(ctx, more); err != nil {
					failed <- err
				}
			}
			handle(a)
		})
	}
	if f, ok := p.(Follower); ok {
		work = func(ctx context.Context, handle func(Args)) error {
			return f.WorkAndFollow(ctx, func(a Args) []Args {
				handle(a)
				return next(a)
			})
		}
	}
	return timed(2*half, func() error {
		w := start(ctx, p, 2*half, work, func(Args) {})
		select {
		case <-w.all:
		case err := <-failed:
			return err
		case <-ctx.Done():
		}
		return w.await()
	})
}

// processes works a backlog in this process and three more of the same
// program, on the same database.
func processes(ctx context.Context, p Peer, size int) (Report, error) {
	if err := store(ctx, p, 1, bulk, 0, size); err != nil {
		return Report{}, err
	}
	ctx, cancel := context.WithCancel(ctx) // which ends the others
	defer cancel()
	self, err := os.Executable()
	if err != nil {
		return Report{}, err
	}
	var starts []io.Writer
	for range 3 {
		cmd := exec.CommandContext(ctx, self, append(slices.Clone(os.Args[1:]), "-join")...) //nolint:gosec // itself
		cmd.Stderr = os.Stderr
		in, err := cmd.StdinPipe()
		if err != nil {
			return Report{}, err
		}
		out, err := cmd.StdoutPipe()
		if err != nil {
			return Report{}, err
		}
		if err := cmd.Start(); err != nil {
			return Report{}, err
		}
		defer func() { _ = in.Close(); _ = cmd.Wait() }() // how it ends does not matter
		if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
			return Report{}, fmt.Errorf("another process did not begin: %w", err)
		}
		starts = append(starts, in)
	}
	return timed(size, func() error {
		for _, in := range starts {
			if _, err := io.WriteString(in, "\n"); err != nil {
				return err
			}
		}
		return start(ctx, p, noMatter, p.Work, func(Args) {}).drained()
	})
}

// joined is one of the other processes.
func joined(ctx context.Context, open func(context.Context, string) (Peer, error), at string, in io.Reader, out io.Writer) error {
	p, err := open(ctx, at)
	if err != nil {
		return fmt.Errorf("open: %w", err)
	}
	if _, err := io.WriteString(out, "ready\n"); err != nil {
		return err
	}
	lines := bufio.NewReader(in)
	if _, err := lines.ReadString('\n'); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- p.Work(ctx, func(Args) {}) }()
	over := make(chan struct{})
	go func() {
		defer close(over)
		_, _ = io.Copy(io.Discard, lines)
	}()
	select {
	case <-over: // the work is done, and nothing is left to stop
		return nil
	case err := <-ended:
		return err
	}
}

func mixed(ctx context.Context, p Peer, size int) (Report, error) {
	jobs := max(size/10, 16)
	return timed(jobs, func() error {
		w := start(ctx, p, jobs, p.Work, func(Args) {})
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
	l := newLatency(0, jobs)
	w := start(ctx, p, jobs, p.Work, l.begins)
	return l.measure(ctx, w, 1, 10*time.Millisecond)
}

// pickupLoaded finds out what mixed gives, and then asks for jobs at 70 % of
// that rate.
func pickupLoaded(ctx context.Context, p Peer, size int) (Report, error) {
	jobs := max(size/20, 64)
	l := newLatency(jobs, jobs)
	w := start(ctx, p, 2*jobs, p.Work, l.begins)
	full, err := timed(jobs, func() error {
		if err := store(ctx, p, 16, 1, 0, jobs); err != nil {
			return err
		}
		return w.drained()
	})
	if err != nil {
		return full, err
	}
	return l.measure(ctx, w, 64, time.Duration(full.Seconds*float64(time.Second)/float64(jobs)/0.7))
}

// latency measures how long jobs take from when they are due to the start of
// their handlers.
type latency struct {
	first int // the number of the first job that counts

	mu   sync.Mutex
	due  []time.Time
	took []time.Duration
}

func newLatency(first, jobs int) *latency {
	return &latency{first: first, due: make([]time.Time, jobs), took: make([]time.Duration, jobs)}
}

func (l *latency) begins(a Args) {
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	if n := a.N - l.first; n >= 0 {
		l.took[n] = now.Sub(l.due[n])
	}
}

// measure has a job asked for at an interval, whether a caller is free for it
// or not: a queue that falls behind must not be asked for less.
func (l *latency) measure(ctx context.Context, w *working, callers int, every time.Duration) (Report, error) {
	jobs := len(l.due)
	r, err := timed(jobs, func() error {
		due := make(chan int, jobs)
		failed := make(chan error, callers)
		for range callers {
			go func() {
				var err error
				for n := range due {
					if err == nil {
						err = w.p.Enqueue(ctx, []Args{NewArgs(n)})
					}
				}
				failed <- err
			}()
		}
		began := time.Now()
		for n := range jobs {
			at := began.Add(time.Duration(n+1) * every)
			select {
			case <-time.After(time.Until(at)):
			case <-ctx.Done():
			}
			l.mu.Lock()
			l.due[n] = time.Now() // not at: the timer comes half a millisecond late where nothing else is awake
			l.mu.Unlock()
			due <- l.first + n
		}
		close(due)
		for range callers {
			if err := <-failed; err != nil {
				return err
			}
		}
		return w.await()
	})
	slices.Sort(l.took)
	r.P50, r.P99 = ms(l.took[jobs/2]), ms(l.took[jobs*99/100])
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

// noMatter is for a worker that is not alone.
const noMatter = -1

// start runs a worker, by work, that handles so many jobs.
func start(ctx context.Context, p Peer, jobs int, work func(context.Context, func(Args)) error, handle func(Args)) *working {
	w := &working{ctx: ctx, p: p, all: make(chan struct{}), ended: make(chan error, 1)}
	var handled atomic.Int64
	go func() {
		w.ended <- work(ctx, func(a Args) {
			handle(a)
			if handled.Add(1) == int64(jobs) {
				close(w.all)
			}
		})
	}()
	return w
}

// await returns when every job was handled and all of them are done. The
// worker runs on: how long it takes to stop is no part of the time, and the
// program ends soon.
func (w *working) await() error {
	select {
	case <-w.all:
	case err := <-w.ended:
		return fmt.Errorf("the worker ended before its work: %w", err)
	case <-w.ctx.Done():
		return w.ctx.Err()
	}
	return w.drained()
}

// drained returns when the queue itself says that nothing is left.
func (w *working) drained() error {
	tick := time.NewTicker(5 * time.Millisecond) // asking takes its part of the one connection that some have
	defer tick.Stop()
	for {
		left, err := w.p.Unfinished(w.ctx)
		if err != nil || left == 0 {
			return err
		}
		select {
		case <-tick.C:
		case err := <-w.ended:
			return fmt.Errorf("the worker ended before its work: %w", err)
		case <-w.ctx.Done():
			return w.ctx.Err()
		}
	}
}
