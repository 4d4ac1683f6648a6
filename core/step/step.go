// Package step records the steps of a job, so that a run that comes after a
// crash or a failure does not repeat what is done: a finished step's stored
// result comes back instead.
//
// [Run] is for work that may be repeated: after a crash in the middle it is.
// [Once] is for an effect that must not be (sending a mail): its intent is
// stored before it begins, and a run that finds an intent without a result
// asks whether it happened. docs/lifecycle.md has the table of what each
// repeat does. [StartStep] and [FinishStep] only let a step be watched.
//
// A name stands for one step of the job and may be used once per run. What is
// not UTF-8 in it, or no printing character, is written as \xe9. A result is
// stored as JSON, MaxResult bytes at most.
//
// The package may import core/job, core/queue, core/libsql, core/system,
// zerolog and the span helpers of core/telemetry.
package step

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/postroom/postroom/core/job"
	"github.com/postroom/postroom/core/telemetry"
)

// MaxResult is how large a step's stored result may be, in bytes of JSON.
const MaxResult = job.MaxPayload

// Errors that handlers may look for.
var (
	// ErrNoJob is returned outside of a job's handler.
	ErrNoJob = errors.New("step: the context belongs to no running job")
	// ErrTimeout is the cause of a step's context that ended because of
	// [Timeout], and is in the error of such a step.
	ErrTimeout = errors.New("timed out")
)

// Option changes how one step is executed.
type Option func(*options)

type options struct {
	timeout *time.Duration
}

// Timeout ends the context of the step's function (and of reconcile, which has
// d for itself) after d, with a cause that is [ErrTimeout]. An error the function returns then is a failed attempt that
// names the step and d; a result it returns all the same counts. A function
// that does not heed its context is waited for.
func Timeout(d time.Duration) Option { return func(o *options) { o.timeout = &d } }

// Run executes fn as the step called name and stores its result before it
// returns; when an earlier run of the job finished that step, fn is not
// executed and the stored result comes back. The error of fn comes back as it
// is, and is recorded. An outage of the database is waited out, before fn until
// the context ends, after it until the runner stops.
func Run[T any](ctx context.Context, name string, fn func(context.Context) (T, error), opts ...Option) (v T, err error) {
	c, err := open(ctx, name, opts)
	if err != nil {
		return v, err
	}
	switch c.before.outcome {
	case job.StepDone:
		var misfit error
		if v, misfit, err = stored[T](ctx, c); misfit != nil {
			err = job.Fatal(fmt.Errorf("step %s: %w", c.name, misfit))
		}
		return v, err
	case job.StepUncertain: // it was a Once in an earlier version
		return v, c.giveUpAgain(ctx)
	}
	ctx, span := telemetry.Step(ctx, c.name)
	defer func() { telemetry.End(span, err) }()
	v, _, err = execute(ctx, c, fn, func() { _ = c.record(ctx, job.StepFailed, nil, errPanicked) }) // the panic is the error to see
	if _, snoozed := job.SnoozeOf(err); snoozed {
		return v, err // neither done nor failed
	}
	if err != nil {
		return v, errors.Join(err, c.record(ctx, job.StepFailed, nil, err))
	}
	encoded, unfit := c.encode(v)
	if unfit != nil {
		return v, errors.Join(job.Fatal(unfit), c.record(ctx, job.StepFailed, nil, unfit))
	}
	return v, c.record(ctx, job.StepDone, encoded, nil)
}

// StartStep records that a step has begun, for watching only: nothing is
// replayed. FinishStep ends it.
func StartStep(ctx context.Context, name string) error {
	c, err := open(ctx, name, nil)
	switch {
	case err != nil, c.before.outcome == job.StepDone:
		return err
	case c.before.outcome == job.StepUncertain:
		return c.giveUpAgain(ctx)
	}
	return c.recordNow(ctx, job.StepRunning, nil, nil)
}

// FinishStep records how a step that StartStep began has ended. The time it
// took is that since its start.
func FinishStep(ctx context.Context, name string, result any, stepErr error) error {
	r, err := fromContext(ctx)
	if err != nil {
		return err
	}
	c, err := r.named(name)
	if err != nil {
		return err
	}
	if stepErr != nil {
		return c.record(ctx, job.StepFailed, nil, stepErr)
	}
	encoded, err := c.encode(result)
	if err != nil {
		return job.Fatal(err)
	}
	return c.record(ctx, job.StepDone, encoded, nil)
}

var errPanicked = errors.New("it panicked or ended its goroutine; the run has the stack")

// execute calls fn under the step's timeout. late says that its context had
// ended by the time it returned; abandoned is called when it does not return.
func execute[T any](ctx context.Context, c *call, fn func(context.Context) (T, error), abandoned func()) (v T, late bool, err error) {
	var timeout error
	if c.timeout != nil {
		timeout = fmt.Errorf("step %s: %w after %s", c.name, ErrTimeout, *c.timeout)
		var stop context.CancelFunc
		ctx, stop = context.WithTimeoutCause(ctx, *c.timeout, timeout)
		defer stop()
	}
	c.start = c.cfg.System.Now()
	returned := false
	defer func() {
		if !returned {
			abandoned()
		}
	}()
	v, err = fn(ctx)
	returned = true
	if timeout != nil && err != nil && errors.Is(context.Cause(ctx), timeout) {
		err = fmt.Errorf("%w: %w", timeout, err)
	}
	return v, ctx.Err() != nil, err
}
