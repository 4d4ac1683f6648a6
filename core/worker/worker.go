// Package worker runs jobs: it claims them, runs their handlers, keeps their
// leases alive and puts down what became of them. It survives panics, outages
// of the database and the death of other runners, and stops without losing or
// spending anything.
//
// A handler is a function of a context and a typed payload, bound to its job
// type with [Bind]; what it returns is the job's result, or says what is to
// become of the job (package job). Work that every handler shares stands around
// them as [Middleware].
//
// It may import core/job, core/queue, core/step, core/system and
// core/telemetry; it knows no handler.
package worker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"github.com/postroom/postroom/core/job"
	"github.com/postroom/postroom/core/libsql"
	"github.com/postroom/postroom/core/queue"
	"github.com/postroom/postroom/core/system"
)

// Config says how a worker works. The zero value works all queues.
type Config struct {
	Runner       queue.Runner    // ID, Host, PID, Version; [Self] without an ID; the rest is filled in
	Queues       []string        // nil for all
	Concurrency  int             // jobs at a time; 10
	Lease        time.Duration   // how long a job is held without a heartbeat; 1m
	Heartbeat    time.Duration   // a third of the lease
	Poll         time.Duration   // slowest fallback when nothing signals; 1s
	Eager        time.Duration   // where nothing signals: how soon to look again after there was work; 0 for not before Poll
	DrainTimeout time.Duration   // how long handlers may take to end after Run's context; 30s, negative for none
	Retention    queue.Retention // the zero value keeps every job
	Middleware   []Middleware    // around every handler, the first outermost
}

// fill puts in what was left out: the defaults of the configuration's section
// queue.
func (c *Config) fill(sys system.System) {
	if c.Runner.ID == "" {
		version := c.Runner.Version
		c.Runner = Self(sys)
		c.Runner.Version = version
	}
	c.Concurrency = cmp.Or(c.Concurrency, 10)
	c.Lease = cmp.Or(c.Lease, time.Minute)
	c.Heartbeat = cmp.Or(c.Heartbeat, c.Lease/3)
	c.Poll = cmp.Or(c.Poll, time.Second)
	c.DrainTimeout = cmp.Or(c.DrainTimeout, 30*time.Second)
}

// Self describes this start of the program as a runner, but for its version.
func Self(sys system.System) queue.Runner {
	host, err := os.Hostname()
	if err != nil || host == "" {
		host = "unknown"
	}
	var random [4]byte
	sys.Read(random[:])
	host = strings.ToValidUTF8(host, "-")
	pid := os.Getpid()
	return queue.Runner{ID: fmt.Sprintf("%s-%d-%x", host, pid, random), Host: host, PID: int64(pid)}
}

// Why a handler's context ended: see context.Cause.
var (
	ErrCanceled = errors.New("the job's cancel was requested")
	ErrTimeout  = errors.New("the job ran longer than its type allows")
	ErrShutdown = errors.New("the runner is shutting down")
)

// Worker runs jobs until it is told to stop.
type Worker struct {
	cfg   Config
	q     *queue.Queue
	sys   system.System
	types job.Types
	log   zerolog.Logger
	bound map[string]Binding

	wake    chan struct{} // something may be claimable
	due     system.Timer  // fires when the next waiting job becomes due
	earlier chan struct{} // a lease ends before nextEnd
	stirred chan struct{} // there was work: more may follow
	hurry   chan struct{} // closed when the drain is cut short
	once    sync.Once

	mu           sync.Mutex
	active       []*activeRun  // the jobs in hand
	busy         int           // how many of them wait for their handler or have it at work
	line         []*activeRun  // those that wait for a goroutine, in the order they were claimed
	spare        bool          // a goroutine is on its way to the line
	completed    []*activeRun  // those whose completion is not on its way
	completing   bool          // a call with completions is under way
	completeTook time.Duration // how long the last one took
	emptied      chan struct{} // nothing stands in line any more
	freed        chan struct{} // a slot became free
	draining     bool
	nextEnd      time.Time // of the lease that ends first; zero when the deadlines wait for a run
	contact      time.Time // since when the database has answered every call, without a gap; zero after a failure
	answered     time.Time // when it did so last
	troubles     map[string]libsql.Class
	reported     map[string]bool // unknown job types already warned of
	late         []lateClaim     // what may yet land
	metrics      metrics

	nextSolo time.Time // before when no job is made to run alone
	soloWait time.Duration
}

// New returns a worker for the jobs of q that the bindings handle. Their types
// must be among the queue's.
func New(q *queue.Queue, log zerolog.Logger, cfg Config, bindings ...Binding) (*Worker, error) {
	sys, types := q.System(), q.Types()
	cfg.fill(sys)
	w := &Worker{
		cfg: cfg, q: q, sys: sys, types: types, log: log,
		bound: map[string]Binding{}, due: sys.NewTimer(time.Hour),
		wake: make(chan struct{}, 1), earlier: make(chan struct{}, 1), stirred: make(chan struct{}, 1), hurry: make(chan struct{}), freed: make(chan struct{}, 1), emptied: make(chan struct{}, 1),
		troubles: map[string]libsql.Class{}, reported: map[string]bool{}, soloWait: 5 * time.Minute,
	}
	for _, b := range bindings {
		if _, known := types[b.Type]; !known {
			return nil, fmt.Errorf("worker: a handler is bound to %s, which is not among the queue's job types", b.Type)
		}
		if _, twice := w.bound[b.Type]; twice {
			return nil, fmt.Errorf("worker: two handlers are bound to %s", b.Type)
		}
		for _, m := range slices.Backward(cfg.Middleware) {
			b = b.within(m)
		}
		w.bound[b.Type] = b
		w.cfg.Runner.Types = append(w.cfg.Runner.Types, b.Type)
	}
	if w.cfg.Runner.Types == nil {
		w.cfg.Runner.Types = []string{}
	}
	w.cfg.Runner.Queues, w.cfg.Runner.Concurrency = cfg.Queues, int64(cfg.Concurrency)
	var err error
	w.metrics, err = newMetrics()
	return w, err
}

// Hurry cuts the waiting of a shutdown short.
func (w *Worker) Hurry() { w.once.Do(func() { close(w.hurry) }) }

// Draining says whether the worker is stopping.
func (w *Worker) Draining() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.draining
}

// Running is the number of jobs in hand.
func (w *Worker) Running() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.active)
}

// Run works until ctx ends, then stops in order: it claims no more, lets
// handlers finish, cancels those that take too long, hands back what is left,
// and returns within the drain timeout.
func (w *Worker) Run(ctx context.Context) error {
	// Handlers and heartbeats go on while the worker drains.
	work, stopWork := context.WithCancel(context.WithoutCancel(ctx))
	defer stopWork()
	var loops sync.WaitGroup
	start := func(name string, ctx context.Context, loop func(context.Context)) {
		loops.Add(1)
		w.sys.Go(name, func() { defer loops.Done(); loop(ctx) })
	}
	start("deadlines", work, w.deadlines)
	start("heartbeat", work, w.every(w.cfg.Heartbeat, w.heartbeat))
	start("cancel requests", work, w.every(min(w.cfg.Poll, time.Second), w.heedCancels))
	announced := make(chan struct{})
	start("announce", ctx, func(ctx context.Context) {
		defer close(announced)
		w.every(w.cfg.Heartbeat, w.announce)(ctx)
	})
	start("look around", ctx, w.every(min(w.cfg.Poll, w.cfg.Heartbeat), w.lookAround))
	start("prune", ctx, w.every(pruneInterval, w.prune))
	start("watch", ctx, w.watch)
	start("cron", ctx, w.cron)
	w.claimLoop(ctx, work)
	w.drain(work)
	<-announced // or its last write could come after the row is gone
	w.unregister(work)
	stopWork()
	loops.Wait()
	return nil
}

// RunNext claims the first job in line, if there is one, runs it, and returns
// its id once what became of it is stored; "" if there was none. It is for
// tests (package queuetest) and for programs that are started for one job: it
// does none of Run's housekeeping, and the two must not be used together. When
// ctx ends the handler's context does, and the job is handed back.
func (w *Worker) RunNext(ctx context.Context) (id string, err error) {
	work, stopWork := context.WithCancel(context.WithoutCancel(ctx))
	var loops sync.WaitGroup
	defer loops.Wait()
	defer stopWork()
	for _, loop := range []func(context.Context){w.deadlines, w.every(w.cfg.Heartbeat, w.heartbeat), w.every(min(w.cfg.Poll, time.Second), w.heedCancels)} {
		loops.Add(1)
		w.sys.Go("beside one job", func() { defer loops.Done(); loop(work) })
	}
	got, err := w.claim(ctx, work, 1, nil)
	if err != nil || len(got.Jobs) == 0 {
		return "", err
	}
	unhook := context.AfterFunc(ctx, func() { w.each(func(r *activeRun) { r.cancel(ErrShutdown) }) })
	defer unhook()
	for w.Running() > 0 {
		<-w.freed
	}
	return got.Jobs[0].JobID, nil
}

// claimLoop claims whenever there are free slots and a reason to look.
func (w *Worker) claimLoop(ctx, work context.Context) {
	defer w.due.Stop()
	backoff := w.cfg.Poll / 10
	var seen *queue.Sight // what the claim before saw, where there is no need to look again
	var backlog bool      // it left more than there were slots for
	var idle bool         // it left nothing for now
	var took time.Duration
	for ctx.Err() == nil {
		if w.free() == 0 {
			select {
			case <-w.freed:
			case <-ctx.Done():
			}
			continue
		}
		if backlog {
			w.gather(ctx, took)
		}
		began := w.sys.Now()
		var got claim
		var err error
		if idle {
			got, err = w.stand(ctx, work, seen)
		} else {
			got, err = w.claim(ctx, work, w.free(), seen)
		}
		seen, backlog, idle, took = nil, false, false, w.sys.Now().Sub(began)
		if err != nil {
			// Looking around will show when the database is back; until
			// then the tries become rarer, up to the poll interval.
			w.pause(ctx, backoff)
			backoff = min(2*backoff, w.cfg.Poll)
			continue
		}
		backoff = w.cfg.Poll / 10
		if got.asked == 0 {
			continue // something has to be looked at
		}
		if got.Suspect {
			w.solo(ctx, work)
		}
		seen = &got.Sight
		if len(got.Jobs) == got.asked && got.Ready {
			backlog = true
			continue
		}
		if got.NextDue != nil {
			w.due.Reset(*got.NextDue)
		}
		idle = true
	}
}

// gather waits for all slots to be free, but no longer than the claim before
// took: where more jobs wait than there are slots, a claim for each slot would
// cost many times what one for many does.
func (w *Worker) gather(ctx context.Context, atMost time.Duration) {
	t := w.sys.NewTimer(atMost)
	defer t.Stop()
	for w.free() < w.cfg.Concurrency {
		select {
		case <-w.freed:
		case <-t.C():
			return
		case <-ctx.Done():
			return
		}
	}
}

// stand waits for a reason to claim. What this process stores is claimed by the
// commit that stores it. For any other reason nothing was asked for, and the
// claim loop is to look: once for all reasons that there are by then.
func (w *Worker) stand(ctx, work context.Context, seen *queue.Sight) (got claim, err error) {
	join, withdraw := context.WithCancel(work)
	defer withdraw()
	req := w.request(0)
	req.Sight = seen
	var deadline time.Time // guarded by mu, as is asked
	var asked int
	answered := make(chan struct{})
	w.sys.Go("standing claim", func() {
		defer close(answered)
		got.Claim, err = w.q.ClaimStored(join, req, func() int {
			w.mu.Lock()
			defer w.mu.Unlock()
			asked, deadline = w.freeNow(), w.sys.Now().Add(w.cfg.Lease)
			return asked
		})
	})
	reason := true
	select {
	case <-answered:
		reason = false
	case <-w.wake:
	case <-w.q.Ready():
	case <-w.due.C():
	case <-ctx.Done():
	}
	withdraw()
	<-answered
	if libsql.ClassOf(err) == libsql.Canceled {
		w.heedAll()
		return claim{}, nil
	}
	if reason {
		w.signal() // it is another one still
	}
	w.mu.Lock()
	got.asked = asked
	w.mu.Unlock()
	return w.took(ctx, work, got, req.Token, deadline, err)
}

// heedAll takes the reasons to look that there are.
func (w *Worker) heedAll() {
	for {
		select {
		case <-w.wake:
		case <-w.q.Ready():
		case <-w.due.C():
		default:
			return
		}
	}
}

func (w *Worker) pause(ctx context.Context, d time.Duration) {
	t := w.sys.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C():
	case <-ctx.Done():
	}
}

// claim is what a claim brought.
type claim struct {
	queue.Claim

	asked int // how many jobs there were slots for; 0 if none were asked for
}

// claim takes jobs for the free slots and starts them.
func (w *Worker) claim(ctx, work context.Context, free int, seen *queue.Sight) (claim, error) {
	req := w.request(free)
	req.Sight = seen
	deadline := w.sys.Now().Add(w.cfg.Lease)
	got, err := w.q.Claim(work, req)
	return w.took(ctx, work, claim{got, free}, req.Token, deadline, err)
}

// took starts what a claim took.
func (w *Worker) took(ctx, work context.Context, got claim, token string, deadline time.Time, err error) (claim, error) {
	if libsql.ClassOf(err) == libsql.Unknown {
		// The claim may have landed: what carries its token is ours.
		got.Jobs, err = w.recoverClaim(ctx, work, token, deadline)
		got.Ready = true // nobody knows better
	}
	w.note("claim", err)
	if err != nil {
		return claim{}, err
	}
	for _, c := range got.Jobs {
		w.start(work, c, nil)
	}
	if len(got.Jobs) > 0 {
		w.stir()
	}
	return got, nil
}

func (w *Worker) request(limit int) queue.ClaimRequest {
	return queue.ClaimRequest{
		Runner: w.cfg.Runner.ID, Token: w.q.NewToken(), Types: w.cfg.Runner.Types,
		Queues: w.cfg.Queues, Limit: limit, Lease: w.cfg.Lease,
	}
}

// recoverClaim asks what a claim took whose reply was lost, through outages
// however long: a job whose local lease has ended by then is handed back
// unspent, where a rescue would count as a crash. It ends with ctx, at the
// shutdown.
func (w *Worker) recoverClaim(ctx, work context.Context, token string, deadline time.Time) ([]queue.Claimed, error) {
	for {
		jobs, err := w.q.ClaimedBy(work, token, deadline)
		if err == nil && len(jobs) == 0 {
			w.mu.Lock()
			w.late = append(w.late, lateClaim{token, deadline})
			w.mu.Unlock()
		}
		if err == nil || ctx.Err() != nil {
			return jobs, err
		}
		w.note("claim", err)
		w.pause(ctx, w.cfg.Poll)
	}
}

// lateClaim is a claim whose reply was lost and that had taken nothing when it
// was asked about. It may have been under way still.
type lateClaim struct {
	token string
	until time.Time // what has not landed by then is taken back like any other
}

// free is how many jobs may be claimed. A slot is free again when its handler
// has returned: the next claim shares a commit with what became of the jobs
// before. If those cannot be stored, no more than twice as many jobs as there
// are slots come together.
func (w *Worker) free() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.freeNow()
}

// freeNow is free for who holds mu.
func (w *Worker) freeNow() int {
	return min(w.cfg.Concurrency-w.busy, 2*w.cfg.Concurrency-len(w.active))
}

// stir says that there was work.
func (w *Worker) stir() {
	select {
	case w.stirred <- struct{}{}:
	default:
	}
}

func (w *Worker) signal() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// drain stops as guarantee 10 asks. Handlers have four fifths of the drain
// timeout to end by themselves and most of the rest to heed their context.
func (w *Worker) drain(ctx context.Context) {
	w.mu.Lock()
	w.draining = true
	n := len(w.active)
	w.mu.Unlock()
	w.log.Info().Int("running", n).Msg("draining")
	if !w.idleWithin(w.cfg.DrainTimeout*8/10, w.hurry) {
		w.each(func(r *activeRun) { r.cancel(ErrShutdown) })
		grace := min(w.cfg.DrainTimeout/10, 2*time.Second)
		if !w.idleWithin(grace, nil) {
			w.handBackAll(ctx)
		}
	}
}

func (w *Worker) unregister(ctx context.Context) {
	bound, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	w.note("unregister", w.q.Unregister(bound, w.cfg.Runner.ID))
}

// idleWithin waits until nothing runs, d has passed or cut is closed.
func (w *Worker) idleWithin(d time.Duration, cut <-chan struct{}) bool {
	t := w.sys.NewTimer(d)
	defer t.Stop()
	for {
		if w.Running() == 0 {
			return true
		}
		select {
		case <-w.freed:
		case <-cut:
			return false
		case <-t.C():
			return w.Running() == 0
		}
	}
}

func (w *Worker) each(fn func(*activeRun)) {
	w.mu.Lock()
	runs := slices.Clone(w.active)
	w.mu.Unlock()
	for _, r := range runs {
		fn(r)
	}
}

// handBackAll is the last write for handlers that ignore their context: their
// jobs go back unspent, and whatever the handlers still do is fenced off.
func (w *Worker) handBackAll(ctx context.Context) {
	// Even after the shortest drain the last write gets a second: a job that
	// is not handed back would wait for its lease and count as a crash.
	bound, cancel := context.WithTimeout(ctx, min(max(w.cfg.DrainTimeout/10, time.Second), 2*time.Second))
	defer cancel()
	var wg sync.WaitGroup
	w.each(func(r *activeRun) {
		wg.Add(1)
		w.sys.Go("hand back "+r.name(), func() {
			defer wg.Done()
			if _, err := w.q.Finish(bound, r.claimed.Lease, queue.Outcome{Kind: queue.HandedBack}); err != nil {
				r.log().Error().Ctx(r.ctx).Err(err).Msg("could not be handed back; it is taken back when its lease has run out")
				return
			}
			r.log().Warn().Ctx(r.ctx).Msg("handed back while its handler was still running")
		})
	})
	wg.Wait()
}

// note logs a background failure once per class and its end, counts it, and
// keeps the time of unbroken contact that a rescuer needs.
func (w *Worker) note(what string, err error) {
	class := libsql.ClassOf(err)
	if err != nil && class == "" {
		class = "other"
	}
	w.mu.Lock()
	before := w.troubles[what]
	if err == nil {
		delete(w.troubles, what)
		// A runner that was frozen saw no failure, and knows as little of the
		// others as after one: leases may have run out while all were frozen.
		// Half a lease is more than any runner waits between two heartbeats.
		now := w.sys.Now()
		if w.contact.IsZero() || gap(w.answered, now) > w.cfg.Lease/2 {
			w.contact = now
		}
		w.answered = now
	} else {
		w.troubles[what] = class
		w.contact = time.Time{}
	}
	w.mu.Unlock()
	switch {
	case err != nil:
		w.metrics.trouble(what, string(class))
		if class != before {
			w.log.Error().Err(err).Str("doing", what).Str("class", string(class)).Msg("the database does not answer; trying again")
		}
	case before != "":
		w.log.Info().Str("doing", what).Str("class", string(before)).Msg("the database answers again")
	}
}

// gap is the time between two readings of the clock, that in which the whole
// machine slept included: the monotonic clock stands still then.
func gap(a, b time.Time) time.Duration {
	return max(b.Sub(a), b.Round(0).Sub(a.Round(0)))
}
