package worker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime/debug"
	"strconv"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"github.com/postroom/postroom/core/job"
	"github.com/postroom/postroom/core/libsql"
	"github.com/postroom/postroom/core/queue"
	"github.com/postroom/postroom/core/step"
	"github.com/postroom/postroom/core/telemetry"
)

// activeRun is a job in hand, from its claim until what became of it is
// stored.
type activeRun struct {
	claimed queue.Claimed
	ctx     context.Context //nolint:containedctx // the run's own, for its log lines
	worker  context.Context //nolint:containedctx // ends when the worker has stopped
	cancel  context.CancelCauseFunc
	log     zerolog.Logger
	steps   *step.Recorder
	took    time.Duration // what the handler did
	over    bool          // the handler has returned; guarded by the worker's mu
	place   int           // in the worker's active; guarded by the worker's mu

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

// start takes a slot for a claimed job and runs it, once prepare, where there
// is one, says so. done is closed when the slot is free again.
func (w *Worker) start(ctx context.Context, c queue.Claimed, prepare func(*activeRun) bool) (r *activeRun, done <-chan struct{}) {
	info := telemetry.JobInfo{ID: c.JobID, Type: c.Type, Queue: c.Queue, Attempt: int(c.Attempt)}
	if c.Run > c.Attempt {
		info.LinkTo = c.TraceParent // snoozed before, perhaps for ever: a trace of its own
	} else {
		ctx = telemetry.ContextWithTraceParent(ctx, c.TraceParent)
	}
	w.metrics.claimed(c.Type, c.Waited)
	worker := ctx
	ctx, span := telemetry.QueueJob(ctx, info)
	ctx, cancel := context.WithCancelCause(ctx)
	r = &activeRun{claimed: c, worker: worker, cancel: cancel, deadline: c.Deadline}
	r.log = w.log.With().Str("job_id", c.JobID).Str("job_type", c.Type).Int64("attempt", c.Attempt).Logger()
	r.ctx = ctx
	w.mu.Lock()
	r.place = len(w.active)
	w.active = append(w.active, r)
	w.busy++
	earlier := w.nextEnd.IsZero() || c.Deadline.Before(w.nextEnd)
	if earlier {
		w.nextEnd = c.Deadline
	}
	w.mu.Unlock()
	if earlier {
		select {
		case w.earlier <- struct{}{}:
		default:
		}
	}
	ended := make(chan struct{})
	w.sys.Go("job "+r.name(), func() {
		defer close(ended)
		var err error
		if prepare == nil || prepare(r) {
			err = w.work(r)
		}
		telemetry.End(span, err)
		cancel(nil)
		w.returned(r)
		w.mu.Lock()
		last := len(w.active) - 1
		w.active[r.place], w.active[last].place = w.active[last], r.place
		w.active[last] = nil
		w.active = w.active[:last]
		w.mu.Unlock()
		w.signalFreed()
	})
	return r, ended
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

// work runs the handler and stores what became of the job. The error returned
// is the run's, for its span.
func (w *Worker) work(r *activeRun) error {
	c := r.claimed
	handlerCtx, stop := context.WithTimeoutCause(r.ctx, w.types.Lookup(c.Type).Timeout, ErrTimeout)
	defer stop()
	r.steps = step.NewRecorder(step.Config{
		DB: w.q.DB(), System: w.sys, Lease: c.Lease, Run: c.Run, LeaseEnds: r.leaseEnds, Worker: r.worker, Log: r.log,
	})
	handlerCtx = step.NewContext(handlerCtx, r.steps)
	run := &Run{claimed: c, queue: w.q, log: r.log}
	var result any
	var stack string
	var err error
	if began := w.sys.Now(); began.Before(r.leaseEnds()) {
		result, stack, err = w.protect(handlerCtx, r, run)
		r.took = w.sys.Now().Sub(began)
	} else { // the claim's reply came so late that another may have the job
		r.cancel(queue.ErrLeaseLost)
		err = queue.ErrLeaseLost
	}
	if run.committed.Load() {
		if err != nil {
			r.log.Warn().Ctx(r.ctx).Err(err).Msg("the handler failed after it had committed; the job stays completed")
		}
		w.metrics.ran(c.Type, string(queue.Completed), r.took)
		r.log.Debug().Ctx(r.ctx).Msg("job completed")
		return nil
	}
	o := w.outcome(handlerCtx, r, result, stack, err)
	w.returned(r)
	w.store(r, o)
	return err
}

// protect calls the handler so that neither a panic nor a runtime.Goexit gets
// past it.
func (w *Worker) protect(ctx context.Context, r *activeRun, run *Run) (result any, stack string, err error) {
	done := make(chan struct{})
	w.sys.Go("handler "+r.name(), func() {
		returned := false
		defer close(done)
		defer func() {
			if p := recover(); p != nil {
				result, stack, err = nil, string(debug.Stack()), fmt.Errorf("panic: %v", p)
			} else if !returned {
				result, stack, err = nil, string(debug.Stack()), errors.New("panic: the handler ended its goroutine")
			}
		}()
		result, err = w.bound[run.claimed.Type].handle(ctx, run)
		returned = true
	})
	<-done
	return result, stack, err
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

// store puts the outcome down, through outages however long: nobody else takes
// the job before a whole lease has passed since the database is back, and if
// somebody has, the fence says so. While it tries, heartbeats go on.
func (w *Worker) store(r *activeRun, o queue.Outcome) {
	ctx := context.WithoutCancel(r.ctx)
	for delay := 20 * time.Millisecond; ; delay = min(2*delay, time.Second) {
		state, err := w.q.Finish(ctx, r.claimed.Lease, o)
		switch {
		case errors.Is(err, queue.ErrLeaseLost):
			w.metrics.ended(r.claimed.Type, "lease_lost")
			r.log.Warn().Ctx(ctx).Str("outcome", string(o.Kind)).Str("error", o.Error).Msg("the lease was lost before the outcome could be stored; nothing was changed")
			return
		case libsql.ClassOf(err) == libsql.Invalid || libsql.ClassOf(err) == libsql.Constraint:
			if o.Kind == queue.Fatal {
				r.log.Error().Ctx(ctx).Err(err).Msg("the outcome cannot be stored; the job is left to the next runner")
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
			r.log.Error().Ctx(ctx).Err(err).Msg("the outcome could not be stored before the runner stopped")
			return
		}
		w.pause(r.worker, delay)
	}
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
		r.log.Error().Ctx(r.ctx).Str("error", o.Error).Msg("job failed")
	case state == job.Canceled:
		r.log.Info().Ctx(r.ctx).Msg("job canceled")
	case o.Kind == queue.Failed:
		r.log.Warn().Ctx(r.ctx).Str("error", o.Error).Dur("retry_in_ms", o.Delay).Msg("job failed; it will be tried again")
	case o.Kind == queue.Snoozed && o.Error != "":
		r.log.Warn().Ctx(r.ctx).Str("error", o.Error).Dur("retry_in_ms", o.Delay).Msg("the database did not let the job go on; it will be tried again, and no attempt is spent")
	default:
		r.log.Debug().Ctx(r.ctx).Str("outcome", outcome).Msg("job " + outcome)
	}
}
