package step

import (
	"context"
	"errors"
	"fmt"

	"github.com/postroom/postroom/core/job"
	"github.com/postroom/postroom/core/queue"
	"github.com/postroom/postroom/core/telemetry"
)

// Verdict is what a reconcile function found out about an effect that an
// earlier run began.
type Verdict int

const (
	// CannotTell fails the job as step_uncertain: a person has to settle the
	// step. It is the zero value, so that a forgotten verdict repeats nothing.
	CannotTell Verdict = iota
	// Happened stores the result that goes with it; the effect is not
	// executed.
	Happened
	// DidNotHappen executes the effect.
	DidNotHappen
)

type uncertainError struct{ err error }

func (e *uncertainError) Error() string { return e.err.Error() }
func (e *uncertainError) Unwrap() error { return e.err }

// Uncertain is what an effect returns when it failed and cannot say whether it
// happened: the connection broke after the last byte was sent.
func Uncertain(err error) error { return &uncertainError{err} }

// Once executes an effect that must not be repeated blindly, and stores its
// result before it returns. A stored result comes back as with [Run].
//
// The intent is stored before the effect begins. A run that finds an intent
// without a result calls reconcile, which must have no effect of its own, and
// goes by its [Verdict]; an error of reconcile is a failed attempt (or a
// snooze), and the next run asks again. Where there is no reconcile (nil), or
// it cannot tell, the job fails at once as step_uncertain and is not tried
// again before a person has settled the step.
//
// An error of the effect says that it did not happen: the next run executes it
// again. [Uncertain] says that it may have, and so do an error about a timeout,
// any error after the effect's context has ended, and a panic.
//
// The effect must heed its context. A process that is stopped in the middle of
// an effect and resumed after its lease has run out may end it while another
// run asks reconcile; reconcile answers CannotTell where that matters.
func Once[T any](ctx context.Context, name string, effect func(context.Context) (T, error),
	reconcile func(context.Context) (T, Verdict, error), opts ...Option,
) (v T, err error) {
	c, err := open(ctx, name, opts)
	if err != nil {
		return v, err
	}
	ctx, span := telemetry.Step(ctx, c.name)
	defer func() { telemetry.End(span, err) }()
	switch c.before.outcome {
	case job.StepDone:
		var misfit error
		if v, misfit, err = stored[T](ctx, c); misfit != nil {
			err = c.giveUp(ctx, misfit) // it happened, but nobody can say with what result
		}
		return v, err
	case job.StepRunning, job.StepUncertain:
		var told bool
		if v, told, err = ask(ctx, c, reconcile); told || err != nil {
			return v, err
		}
	}
	if err = c.intend(ctx); err != nil {
		return v, err
	}
	unknown := func(why error) error { // whether it happened
		if reconcile == nil {
			return c.giveUp(ctx, why)
		}
		return errors.Join(why, c.resolve(ctx, job.StepUncertain, nil, why))
	}
	v, late, err := execute(ctx, c, effect, func() { _ = unknown(errPanicked) }) // the panic is the error that is seen
	switch {
	case err == nil:
		return v, c.happened(ctx, v)
	case late || mayHaveHappened(err):
		return v, unknown(err)
	}
	return v, errors.Join(err, c.resolve(ctx, job.StepFailed, nil, err))
}

// ask finds out what became of an effect that an earlier run began. told says
// that it happened, and v is its result.
func ask[T any](ctx context.Context, c *call, reconcile func(context.Context) (T, Verdict, error)) (v T, told bool, err error) {
	if reconcile == nil {
		return v, false, c.giveUpAgain(ctx)
	}
	verdict := CannotTell
	v, _, err = execute(ctx, c, func(ctx context.Context) (v T, err error) {
		v, verdict, err = reconcile(ctx)
		return v, err
	}, func() {}) // a panic leaves the step as it is
	switch {
	case err != nil:
		err = fmt.Errorf("step %s: reconcile: %w", c.name, err)
		return v, false, errors.Join(err, c.resolve(ctx, job.StepUncertain, nil, err))
	case verdict == Happened:
		return v, true, c.happened(ctx, v)
	case verdict == DidNotHappen:
		return v, false, nil
	}
	return v, false, c.giveUp(ctx, errors.New("reconcile cannot tell"))
}

// intend records the intent of an effect, and makes sure once more that the
// effect may begin: the write may have taken long.
func (c *call) intend(ctx context.Context) error {
	c.start = c.cfg.System.Now()
	if err := c.recordNow(ctx, job.StepRunning, nil, nil); err != nil {
		return err
	}
	why := context.Cause(ctx)
	if why == nil && !c.cfg.System.Now().Before(c.cfg.LeaseEnds()) {
		why = queue.ErrLeaseLost
	}
	if why == nil {
		return nil
	}
	why = fmt.Errorf("step %s: not begun: %w", c.name, why)
	return errors.Join(why, c.resolve(ctx, job.StepFailed, nil, why))
}

// happened records the result of an effect. One that cannot be stored is a
// mistake of the handler; the effect must not pay for it by being repeated.
func (c *call) happened(ctx context.Context, v any) error {
	encoded, unfit := c.encode(v)
	if unfit != nil {
		return c.giveUp(ctx, fmt.Errorf("it happened, but %w", unfit))
	}
	return c.resolve(ctx, job.StepDone, encoded, nil)
}

// giveUp leaves the step to a person and returns the error that ends the job.
// If that cannot be written down, the next run has to give it up.
func (c *call) giveUp(ctx context.Context, why error) error {
	if err := c.resolve(ctx, job.StepUncertain, nil, why); err != nil {
		return errors.Join(why, err)
	}
	return c.unknown(why)
}

// giveUpAgain is giveUp for a step whose row is all there is to know.
func (c *call) giveUpAgain(ctx context.Context) error {
	if c.before.outcome == job.StepRunning {
		return c.giveUp(ctx, fmt.Errorf("run %d began it and ended without a result", c.before.run))
	}
	_, why, err := c.row(ctx)
	if err != nil {
		return err
	}
	return c.unknown(errors.New(why))
}

// unknown is the error that ends the job, whatever the handler makes of it.
func (c *call) unknown(why error) error {
	c.mu.Lock()
	c.uncertain = true
	c.mu.Unlock()
	return job.Fatal(fmt.Errorf("step %s: it is not known whether it happened: %w", c.name, why))
}

// mayHaveHappened says whether an effect that returned err may have happened
// all the same. A timeout is the usual way of not knowing.
func mayHaveHappened(err error) bool {
	var said *uncertainError
	var timeout interface{ Timeout() bool }
	return errors.As(err, &said) || errors.Is(err, context.Canceled) || errors.As(err, &timeout) && timeout.Timeout()
}
