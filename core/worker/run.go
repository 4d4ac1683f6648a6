package worker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/rs/zerolog"
	"go.opentelemetry.io/otel/trace"

	"github.com/postroom/postroom/core/job"
	"github.com/postroom/postroom/core/libsql"
	"github.com/postroom/postroom/core/queue"
	"github.com/postroom/postroom/core/step"
	"github.com/postroom/postroom/core/telemetry"
)

// activeRun is a job in hand, from its claim until what became of it is
// stored.
type activeRun struct {
	Run
	ctx     context.Context //nolint:containedctx // the run's own, for its log lines
	worker  context.Context //nolint:containedctx // ends when the worker has stopped
	cancel  context.CancelCauseFunc
	span    trace.Span
	prepare func(*activeRun) bool // says whether the job may run; nil for yes
	ended   chan struct{}         // closed when the run is over; nil where nobody asks
	steps   *step.Recorder
	result  json.RawMessage // of a job that has completed
	took    time.Duration   // what the handler did
	over    bool            // the handler has returned; guarded by the worker's mu
	place   int             // in the worker's active; guarded by the worker's mu

	mu       sync.Mutex
	deadline time.Time // local end of the lease
}

// name tells the goroutines of this run from all others.
func (r *activeRun) name() string {
	return r.claimed.JobID + " run " + strconv.FormatInt(r.claimed.Run, 10)
}

func (r *activeRun) leaseEnds() time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.deadline
}

// extend moves the lease's end, which an answer that comes late leaves alone.
func (r *activeRun) extend(to time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if to.After(r.deadline) {
		r.deadline = to
	}
}

// start takes a slot for a claimed job and puts it in line for a goroutine.
func (w *Worker) start(ctx context.Context, c queue.Claimed, prepare func(*activeRun) bool) *activeRun {
	info := telemetry.JobInfo{ID: c.JobID, Type: c.Type, Queue: c.Queue, Attempt: int(c.Attempt)}
	if c.Run > c.Attempt {
		info.LinkTo = c.TraceParent // snoozed before, perhaps for ever: a trace of its own
	} else {
		ctx = telemetry.ContextWithTraceParent(ctx, c.TraceParent)
	}
	w.metrics.claimed(c.Type, c.Waited)
	r := &activeRun{Run: Run{claimed: c, queue: w.q, base: w.log}, worker: ctx, prepare: prepare, deadline: c.Deadline}
	if prepare != nil {
		r.ended = make(chan struct{})
	}
	ctx, r.span = telemetry.QueueJob(ctx, info)
	r.ctx, r.cancel = context.WithCancelCause(ctx)
	w.mu.Lock()
	r.place = len(w.active)
	w.active = append(w.active, r)
	w.busy++
	earlier := w.nextEnd.IsZero() || c.Deadline.Before(w.nextEnd)
	if earlier {
		w.nextEnd = c.Deadline
	}
	w.line = append(w.line, r)
	idle := !w.spare
	w.spare = true
	w.mu.Unlock()
	if earlier {
		select {
		case w.earlier <- struct{}{}:
		default:
		}
	}
	if idle {
		w.sys.Go("slot", w.slot)
	}
	return r
}

// slot runs jobs until the line is empty. While it is not, one more goroutine
// is on its way there: handlers that take long get one each, and many that
// take none share a few.
func (w *Worker) slot() {
	for first := true; ; first = false {
		w.mu.Lock()
		if first {
			w.spare = false
		}
		if len(w.line) == 0 {
			w.mu.Unlock()
			return
		}
		r := w.line[0]
		w.line[0] = nil
		w.line = w.line[1:]
		another := len(w.line) > 0 && !w.spare
		if another {
			w.spare = true
		}
		if len(w.line) == 0 {
			select {
			case w.emptied <- struct{}{}:
			default:
			}
		}
		w.mu.Unlock()
		if another {
			w.sys.Go("slot", w.slot)
		}
		if r.prepare == nil || r.prepare(r) {
			w.work(r)
		} else {
			w.leave(r, nil)
		}
	}
}

// returned frees the slot of a run whose handler is over.
func (w *Worker) returned(r *activeRun) {
	w.mu.Lock()
	over := r.over
	if !over {
		r.over = true
		w.busy--
	}
	w.mu.Unlock()
	if !over {
		w.signalFreed()
		w.stir()
	}
}

func (w *Worker) signalFreed() {
	select {
	case w.freed <- struct{}{}:
	default:
	}
}

// leave ends a run whose outcome is stored, or cannot be. The error is the
// run's, for its span.
func (w *Worker) leave(r *activeRun, err error) {
	telemetry.End(r.span, err)
	r.cancel(nil)
	w.returned(r)
	w.mu.Lock()
	last := len(w.active) - 1
	w.active[r.place], w.active[last].place = w.active[last], r.place
	w.active[last] = nil
	w.active = w.active[:last]
	w.mu.Unlock()
	w.signalFreed()
	if r.ended != nil {
		close(r.ended)
	}
}

// work runs the handler and sees to it that what became of the job is stored.
func (w *Worker) work(r *activeRun) {
	c := r.claimed
	ctx, stop := context.WithTimeoutCause(r.ctx, w.types.Lookup(c.Type).Timeout, ErrTimeout)
	r.steps = step.NewRecorder(step.Config{
		DB: w.q.DB(), System: w.sys, Lease: c.Lease, Run: c.Run, LeaseEnds: r.leaseEnds, Worker: r.worker, Log: r.log,
	})
	ctx = step.NewContext(ctx, r.steps)
	began := w.sys.Now()
	if !began.Before(r.leaseEnds()) { // the claim's reply came so late that another may have the job
		r.cancel(queue.ErrLeaseLost)
		w.conclude(ctx, stop, r, nil, "", queue.ErrLeaseLost)
		return
	}
	w.protect(ctx, r, func(result any, stack string, err error) {
		r.took = w.sys.Now().Sub(began)
		w.conclude(ctx, stop, r, result, stack, err)
	})
}

// protect calls the handler so that neither a panic nor a runtime.Goexit gets
// past it, and passes its answer on: after a Goexit from another goroutine,
// because this one ends.
func (w *Worker) protect(ctx context.Context, r *activeRun, then func(result any, stack string, err error)) {
	var result any
	var stack string
	var err error
	func() {
		returned := false
		defer func() {
			if returned {
				return
			}
			stack = string(debug.Stack())
			if p := recover(); p != nil {
				err = fmt.Errorf("panic: %v", p)
				return
			}
			err = errors.New("panic: the handler ended its goroutine")
			w.sys.Go("after "+r.name(), func() { then(nil, stack, err) })
		}()
		result, err = w.bound[r.claimed.Type].handle(ctx, &r.Run)
		returned = true
	}()
	then(result, stack, err)
}

// conclude takes a handler's answer.
func (w *Worker) conclude(ctx context.Context, stop context.CancelFunc, r *activeRun, result any, stack string, err error) {
	defer stop()
	if r.committed.Load() {
		if err != nil {
			r.log().Warn().Ctx(r.ctx).Err(err).Msg("the handler failed after it had committed; the job stays completed")
		}
		w.metrics.ran(r.claimed.Type, string(queue.Completed), r.took)
		w.mention(r, string(queue.Completed))
		w.leave(r, nil)
		return
	}
	o := w.outcome(ctx, r, result, stack, err)
	w.returned(r)
	if o.Kind == queue.Completed && len(o.Result) <= smallResult {
		r.result = o.Result
		w.complete(r)
		return
	}
	w.store(r, o)
	w.leave(r, err)
}

// outcome turns a handler's answer into what is asked of the queue.
func (w *Worker) outcome(ctx context.Context, r *activeRun, result any, stack string, err error) queue.Outcome {
	var encoded json.RawMessage
	if err == nil {
		if encoded, err = encodeResult(r.log, result); err == nil {
			return queue.Outcome{Kind: queue.Completed, Result: encoded}
		}
	}
	if r.steps.Uncertain() {
		// Whatever the handler made of it, no runner may try again by itself.
		return queue.Outcome{Kind: queue.Fatal, Error: job.CodeStepUncertain + ": " + err.Error(), Stack: stack}
	}
	if d, ok := job.SnoozeOf(err); ok {
		return queue.Outcome{Kind: queue.Snoozed, Delay: d}
	}
	cause := context.Cause(ctx)
	// A run that was cut off is not the job's fault. After a lost lease the
	// fence lets this through only if nobody has taken the job back yet.
	if (errors.Is(cause, ErrShutdown) || errors.Is(cause, queue.ErrLeaseLost)) && stack == "" && !job.IsFatal(err) {
		return queue.Outcome{Kind: queue.HandedBack, Error: err.Error()}
	}
	if errors.Is(cause, ErrTimeout) {
		err = fmt.Errorf("timed out after %s: %w", w.types.Lookup(r.claimed.Type).Timeout, err)
	}
	o := queue.Outcome{Kind: queue.Failed, Error: err.Error(), Stack: stack}
	if job.IsFatal(err) {
		o.Kind = queue.Fatal
		return o
	}
	if isOutage(err) {
		o.Kind = queue.Snoozed // later, for where the handler's write does not fit, this one may
	}
	if d, ok := job.RetryAfterOf(err); ok {
		o.Delay = d
	} else {
		o.Delay = w.q.Backoff(r.claimed.Type, r.claimed.Failures+1)
	}
	return o
}

// isOutage tells that the database was away, busy or full, which is not the
// job's fault, from a call that was given up with its context.
func isOutage(err error) bool {
	return libsql.Transient(err) && !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded)
}

// Completed jobs are stored together, so many with one call at most.
const (
	completeAtOnce = 1000
	smallResult    = 4 << 10 // a longer one goes alone
	mostGather     = 20 * time.Millisecond
)

// complete stores that a job has completed, with all others that have by then.
func (w *Worker) complete(r *activeRun) {
	w.mu.Lock()
	w.completed = append(w.completed, r)
	idle := !w.completing
	w.completing = true
	w.mu.Unlock()
	if idle {
		w.sys.Go("complete", w.completeAll)
	}
}

// gatherCompleted waits while claimed jobs stand in line for a goroutine, but
// no longer than half of what the call before took, nor than mostGather: they
// may complete at once, and then one commit holds what would have been several.
func (w *Worker) gatherCompleted() {
	w.mu.Lock()
	inLine, atMost := len(w.line) > 0, min(w.completeTook/2, mostGather)
	select {
	case <-w.emptied:
	default:
	}
	w.mu.Unlock()
	if !inLine || atMost <= 0 {
		return
	}
	t := w.sys.NewTimer(atMost)
	defer t.Stop()
	select {
	case <-w.emptied:
	case <-t.C():
	}
}

func (w *Worker) completeAll() {
	w.gatherCompleted()
	w.mu.Lock()
	runs := w.completed
	if len(runs) > completeAtOnce {
		runs = runs[:completeAtOnce:completeAtOnce]
	}
	w.completed = slices.Clone(w.completed[len(runs):])
	w.mu.Unlock()
	done := make([]queue.Completion, len(runs))
	for i, r := range runs {
		done[i] = queue.Completion{Lease: r.claimed.Lease, Result: r.result}
	}
	began := w.sys.Now()
	held, err := w.q.Complete(context.WithoutCancel(runs[0].worker), done)
	// What has come meanwhile is on its way while these are reported.
	w.mu.Lock()
	w.completeTook = w.sys.Now().Sub(began)
	w.completing = len(w.completed) > 0
	more := w.completing
	w.mu.Unlock()
	if more {
		w.sys.Go("complete", w.completeAll)
	}
	if err == nil || libsql.Transient(err) {
		w.note("finish", err)
	}
	for i, r := range runs {
		o := queue.Outcome{Kind: queue.Completed, Result: r.result}
		switch {
		case err != nil: // each alone: one may be what the database refuses
			w.sys.Go("store "+r.name(), func() { w.store(r, o); w.leave(r, nil) })
			continue
		case held[i]:
			w.report(r, o, job.Completed)
		default:
			w.lost(r, o)
		}
		w.leave(r, nil)
	}
}

// store puts the outcome down, through outages however long: nobody else takes
// the job before a whole lease has passed since the database is back, and if
// somebody has, the fence says so. While it tries, heartbeats go on.
func (w *Worker) store(r *activeRun, o queue.Outcome) {
	ctx := context.WithoutCancel(r.ctx)
	for delay := 20 * time.Millisecond; ; delay = min(2*delay, time.Second) {
		state, err := w.q.Finish(ctx, r.claimed.Lease, o)
		switch {
		case errors.Is(err, queue.ErrLeaseLost):
			w.lost(r, o)
			return
		case libsql.ClassOf(err) == libsql.Invalid || libsql.ClassOf(err) == libsql.Constraint:
			if o.Kind == queue.Fatal {
				r.log().Error().Ctx(ctx).Err(err).Msg("the outcome cannot be stored; the job is left to the next runner")
				return
			}
			o = queue.Outcome{Kind: queue.Fatal, Error: "the outcome cannot be stored: " + err.Error()}
			continue
		}
		w.note("finish", err)
		if err == nil {
			w.report(r, o, state)
			return
		}
		if r.worker.Err() != nil {
			r.log().Error().Ctx(ctx).Err(err).Msg("the outcome could not be stored before the runner stopped")
			return
		}
		w.pause(r.worker, delay)
	}
}

// lost reports a run that another one has taken the place of.
func (w *Worker) lost(r *activeRun, o queue.Outcome) {
	w.metrics.ended(r.claimed.Type, "lease_lost")
	r.log().Warn().Ctx(r.ctx).Str("outcome", string(o.Kind)).Str("error", o.Error).Msg("the lease was lost before the outcome could be stored; nothing was changed")
}

// report writes the run's one log line.
func (w *Worker) report(r *activeRun, o queue.Outcome, state job.State) {
	outcome := string(o.Kind)
	switch {
	case state == job.Canceled || state == job.Failed:
		outcome = string(state)
	case o.Kind == queue.Failed:
		outcome = "retried"
	}
	w.metrics.ran(r.claimed.Type, outcome, r.took)
	switch {
	case state == job.Failed:
		r.log().Error().Ctx(r.ctx).Str("error", o.Error).Msg("job failed")
	case state == job.Canceled:
		r.log().Info().Ctx(r.ctx).Msg("job canceled")
	case o.Kind == queue.Failed:
		r.log().Warn().Ctx(r.ctx).Str("error", o.Error).Dur("retry_in_ms", o.Delay).Msg("job failed; it will be tried again")
	case o.Kind == queue.Snoozed && o.Error != "":
		r.log().Warn().Ctx(r.ctx).Str("error", o.Error).Dur("retry_in_ms", o.Delay).Msg("the database did not let the job go on; it will be tried again, and no attempt is spent")
	default:
		w.mention(r, outcome)
	}
}

// mention writes the line of a run that ended as it should, which is rarely
// asked for: its logger is made only then.
func (w *Worker) mention(r *activeRun, outcome string) {
	if w.log.GetLevel() <= zerolog.DebugLevel && zerolog.GlobalLevel() <= zerolog.DebugLevel {
		r.log().Debug().Ctx(r.ctx).Str("outcome", outcome).Msg("job " + outcome)
	}
}
