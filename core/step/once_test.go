package step_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/postroom/postroom/core/job"
	"github.com/postroom/postroom/core/queue"
	"github.com/postroom/postroom/core/step"
)

// Points of a run at which its process may die.
const (
	beforeIntent   = "before the intent is stored"
	afterIntent    = "after the intent is stored"
	beforeEffect   = "in the effect, before it happens"
	afterEffect    = "in the effect, after it happened"
	beforeResult   = "before the result is stored"
	afterResult    = "after the result is stored"
	afterStep      = "after the step"
	inReconcile    = "while it is asked whether the effect happened"
	beforeTold     = "before what reconcile told is stored"
	afterTold      = "after what reconcile told is stored"
	beforeIntent2  = "before the intent is stored again" // reconcile said that it did not happen
	afterIntent2   = "after the intent is stored again"
	never          = ""
	effectsResult  = "sent"
	reconcileFound = "found"
)

// mail is a handler whose only step sends a mail, and dies where it is told.
func (w *world) mail(deaths []string, reconcile func(context.Context) (string, step.Verdict, error)) script {
	return func(ctx context.Context, j *run) (any, error) {
		point := never
		if n := int(j.Number()); n <= len(deaths) {
			point = deaths[n-1]
		}
		here := func(p string) {
			if p == point {
				j.die()
			}
		}
		switch point {
		case beforeIntent, beforeTold, beforeIntent2:
			ctx = j.dying(ctx, 1, false)
		case afterIntent, afterTold, afterIntent2:
			ctx = j.dying(ctx, 1, true)
		case beforeResult:
			ctx = j.dying(ctx, 2, false)
		case afterResult:
			ctx = j.dying(ctx, 2, true)
		}
		effect := func(context.Context) (string, error) {
			here(beforeEffect)
			w.change()
			here(afterEffect)
			return effectsResult, nil
		}
		ask := reconcile
		if reconcile != nil {
			ask = func(ctx context.Context) (string, step.Verdict, error) {
				here(inReconcile)
				return reconcile(ctx)
			}
		}
		v, err := step.Once(ctx, "send", effect, ask)
		if err == nil {
			here(afterStep)
		}
		return v, err
	}
}

func cannotTell(context.Context) (string, step.Verdict, error) { return "", step.CannotTell, nil }

// Wherever a process dies, the effect happens once when reconcile knows what
// became of it, and is left to a person when nobody does.
func TestAnEffectIsNeverRepeatedBlindly(t *testing.T) {
	t.Parallel()
	r := setup(t)
	for _, c := range []struct {
		deaths []string // of the first runs
		open   bool     // the first death leaves it unknown whether the effect happened
		result string   // with a reconcile that knows
	}{
		{[]string{never}, false, effectsResult},
		{[]string{beforeIntent}, false, effectsResult},
		{[]string{afterIntent}, true, effectsResult},
		{[]string{beforeEffect}, true, effectsResult},
		{[]string{afterEffect}, true, reconcileFound},
		{[]string{beforeResult}, true, reconcileFound},
		{[]string{afterResult}, false, effectsResult},
		{[]string{afterStep}, false, effectsResult},
		// It happened, and the run that asks dies, too.
		{[]string{afterEffect, inReconcile}, true, reconcileFound},
		{[]string{afterEffect, beforeTold}, true, reconcileFound},
		{[]string{afterEffect, afterTold}, true, reconcileFound},
		{[]string{afterEffect, afterStep}, true, reconcileFound},
		// It did not happen, and the run that does it at last dies, too.
		{[]string{beforeEffect, inReconcile}, true, effectsResult},
		{[]string{beforeEffect, beforeIntent2}, true, effectsResult},
		{[]string{beforeEffect, afterIntent2}, true, effectsResult},
		{[]string{beforeEffect, beforeEffect}, true, effectsResult},
		{[]string{beforeEffect, afterEffect}, true, reconcileFound},
		{[]string{beforeEffect, beforeResult}, true, reconcileFound},
		{[]string{beforeEffect, afterResult}, true, effectsResult},
		{[]string{beforeEffect, afterStep}, true, effectsResult},
		{[]string{beforeEffect, afterEffect, beforeTold, afterTold}, true, reconcileFound},
	} {
		name := strings.Join(c.deaths, ", then ")
		t.Run("dying "+name+"/reconcile knows", func(t *testing.T) {
			t.Parallel()
			w := &world{}
			d := r.play(t, w.mail(c.deaths, w.look))
			if d.State != job.Completed || string(d.Result) != `"`+c.result+`"` || w.changed() != 1 {
				t.Errorf("it happened %d times: %s", w.changed(), show(d))
			}
			s := the(t, d)
			if s.Outcome != job.StepDone || string(s.Result) != string(d.Result) || s.FinishedAt == nil || s.Error != nil {
				t.Errorf("step %+v", s)
			}
			if c.result == reconcileFound && s.Run == int64(len(d.Runs)) {
				t.Errorf("the step names run %d, which only found out", s.Run)
			}
		})
		if len(c.deaths) > 1 && c.deaths[1] != inReconcile && c.deaths[1] != beforeTold && c.deaths[1] != afterTold {
			continue // reconcile has to know for that
		}
		for who, reconcile := range map[string]func(context.Context) (string, step.Verdict, error){"nobody knows": nil, "reconcile cannot tell": cannotTell} {
			t.Run("dying "+name+"/"+who, func(t *testing.T) {
				t.Parallel()
				w := &world{}
				d := r.play(t, w.mail(c.deaths, reconcile))
				if !c.open {
					if d.State != job.Completed || string(d.Result) != `"sent"` || w.changed() != 1 {
						t.Errorf("it happened %d times: %s", w.changed(), show(d))
					}
					return
				}
				happened := w.changed()
				isUncertain(t, d)
				// Retrying it without an answer changes nothing.
				if again := r.retry(t, d.ID); happened != w.changed() {
					t.Errorf("a retry repeated it: %s", show(again))
				} else {
					isUncertain(t, again)
				}
				// A person who looks settles it.
				settlement := queue.Settlement{Happened: happened > 0}
				if settlement.Happened {
					settlement.Result = json.RawMessage(`"settled"`)
				}
				if _, err := r.q.SettleStep(t.Context(), d.ID, "send", settlement); err != nil {
					t.Fatal(err)
				}
				d = r.retry(t, d.ID)
				want := `"sent"`
				if happened > 0 {
					want = `"settled"`
				}
				if d.State != job.Completed || string(d.Result) != want || w.changed() != 1 {
					t.Errorf("it happened %d times: %s", w.changed(), show(d))
				}
			})
		}
	}
}

// isUncertain checks that the job waits for a person.
func isUncertain(t *testing.T, d *queue.Detail) {
	t.Helper()
	s := the(t, d)
	if d.State != job.Failed || !strings.HasPrefix(text(d.LastError), "step_uncertain: ") || d.Failures != 1 ||
		s.Outcome != job.StepUncertain || s.FinishedAt != nil || text(s.Error) == "" || string(s.Result) != "null" {
		t.Errorf("it does not wait for a person: %s", show(d))
	}
}

func TestWhatTheErrorOfAnEffectMeans(t *testing.T) {
	t.Parallel()
	r := setup(t)
	const asked, executed = "asked", "executed"
	for name, c := range map[string]struct {
		effect  func(ctx context.Context, j *run) error
		repeat  string // what the next run does, when there is a reconcile function
		outcome job.StepOutcome
		says    string
		opts    []step.Option
	}{
		"an error: it did not happen": {
			effect: func(context.Context, *run) error { return errBroken },
			repeat: executed, outcome: job.StepFailed, says: "broken",
		},
		"a snooze: it did not happen": {
			effect: func(context.Context, *run) error { return job.Snooze(0) },
			repeat: executed, outcome: job.StepFailed, says: "snoozed for 0s",
		},
		"an effect that cannot say": {
			effect: func(context.Context, *run) error { return fmt.Errorf("send: %w", step.Uncertain(errBroken)) },
			repeat: asked, outcome: job.StepUncertain, says: "send: broken",
		},
		"a timeout of the step": {
			effect: func(ctx context.Context, _ *run) error { <-ctx.Done(); return errBroken },
			repeat: asked, outcome: job.StepUncertain, says: "step send: timed out after 5ms: broken",
			opts: []step.Option{step.Timeout(5 * time.Millisecond)},
		},
		"a timeout of its own": {
			effect: func(context.Context, *run) error { return fmt.Errorf("read: %w", os.ErrDeadlineExceeded) },
			repeat: asked, outcome: job.StepUncertain, says: "read: i/o timeout",
		},
		"a context of its own that ended": {
			effect: func(context.Context, *run) error { return fmt.Errorf("read: %w", context.Canceled) },
			repeat: asked, outcome: job.StepUncertain, says: "read: context canceled",
		},
		"a panic": {
			effect: func(context.Context, *run) error { panic("boom") },
			repeat: asked, outcome: job.StepUncertain, says: "it panicked or ended its goroutine; the run has the stack",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var left job.Step
			var repeated atomic.Value
			d := r.play(t, func(ctx context.Context, j *run) (any, error) {
				if j.Number() == 2 {
					left = the(t, r.job(t, j.ID()))
				}
				return step.Once(ctx, "send", func(ctx context.Context) (string, error) {
					if j.Number() == 1 {
						return "", c.effect(ctx, j)
					}
					repeated.CompareAndSwap(nil, executed)
					return "", nil
				}, func(context.Context) (string, step.Verdict, error) {
					repeated.CompareAndSwap(nil, asked)
					return "", step.Happened, nil
				}, c.opts...)
			})
			if d.State != job.Completed || repeated.Load() != c.repeat {
				t.Errorf("the next run %v: %s", repeated.Load(), show(d))
			}
			if left.Outcome != c.outcome || text(left.Error) != c.says || left.Run != 1 {
				t.Errorf("left as %+v", left)
			}
			if len(d.Runs) != 2 || d.Runs[0].Outcome != "retried" && d.Runs[0].Outcome != "snoozed" {
				t.Errorf("runs %+v", d.Runs)
			}
		})
		t.Run(name+", and nobody to ask", func(t *testing.T) {
			t.Parallel()
			var effects atomic.Int32
			d := r.play(t, func(ctx context.Context, j *run) (any, error) {
				return step.Once(ctx, "send", func(ctx context.Context) (string, error) {
					if effects.Add(1) == 1 {
						return "", c.effect(ctx, j)
					}
					return "", nil
				}, nil, c.opts...)
			})
			if c.repeat == executed {
				if d.State != job.Completed || effects.Load() != 2 {
					t.Errorf("%d effects: %s", effects.Load(), show(d))
				}
				return
			}
			isUncertain(t, d)
			if effects.Load() != 1 || len(d.Runs) != 1 {
				t.Errorf("%d effects in %d runs", effects.Load(), len(d.Runs))
			}
			if name == "a panic" && (text(d.LastError) != "step_uncertain: panic: boom" || !strings.Contains(text(d.Runs[0].Stack), "once_test.go")) {
				t.Errorf("the panic is shown as %s", show(d))
			}
		})
	}
}

// An effect that its own context cut short may have happened, whatever its
// error says.
func TestAnEffectThatIsCanceled(t *testing.T) {
	t.Parallel()
	r := setup(t)
	w := &world{}
	d := r.play(t, func(ctx context.Context, j *run) (any, error) {
		return step.Once(ctx, "send", func(ctx context.Context) (string, error) {
			w.change()
			j.cancel()
			<-ctx.Done()
			return "", errBroken
		}, w.look)
	})
	if s := the(t, d); d.State != job.Canceled || s.Outcome != job.StepUncertain || text(s.Error) != "broken" {
		t.Error(show(d))
	}
	if d = r.retry(t, d.ID); d.State != job.Completed || string(d.Result) != `"found"` || w.changed() != 1 {
		t.Errorf("it happened %d times: %s", w.changed(), show(d))
	}
}

func TestAReconcileThatFails(t *testing.T) {
	t.Parallel()
	r := setup(t)
	// Runs: 1 leaves it open, 2 to 4 ask in vain, 5 is told.
	var left []job.Step
	w := &world{}
	d := r.play(t, func(ctx context.Context, j *run) (any, error) {
		if j.Number() > 1 {
			left = append(left, the(t, r.job(t, j.ID())))
		}
		return step.Once(ctx, "send", func(context.Context) (string, error) {
			w.change()
			return "", step.Uncertain(errBroken)
		}, func(ctx context.Context) (string, step.Verdict, error) {
			switch j.Number() {
			case 2:
				return "", step.Happened, errors.New("the server is down") // the error counts
			case 3:
				return "", step.CannotTell, job.Snooze(0)
			case 4:
				panic("boom")
			case 5:
				<-ctx.Done()
				return "", step.Happened, ctx.Err()
			}
			return w.look(ctx)
		}, step.Timeout(5*time.Millisecond))
	})
	if d.State != job.Completed || string(d.Result) != `"found"` || w.changed() != 1 || the(t, d).Run != 1 {
		t.Errorf("it happened %d times: %s", w.changed(), show(d))
	}
	for i, want := range []string{
		"broken", "step send: reconcile: the server is down", "step send: reconcile: snoozed for 0s", "step send: reconcile: snoozed for 0s",
		"step send: reconcile: step send: timed out after 5ms: context deadline exceeded",
	} {
		if s := left[i]; s.Outcome != job.StepUncertain || text(s.Error) != want {
			t.Errorf("run %d left %+v, %s", i+1, s, text(s.Error))
		}
	}
	if d.Runs[2].Outcome != "snoozed" || d.Failures != 4 {
		t.Errorf("%d failures, runs %+v", d.Failures, d.Runs)
	}
}

// A handler that hides the error, or gives it another meaning, changes nothing.
func TestNoHandlerRetriesAnUncertainStep(t *testing.T) {
	t.Parallel()
	r := setup(t)
	for name, c := range map[string]struct {
		answer func(err error) error
		says   string
	}{
		"wraps it":        {func(err error) error { return fmt.Errorf("reply: %w", err) }, "reply: step send: it is not known whether it happened: broken"},
		"hides it":        {func(error) error { return errors.New("something went wrong") }, "something went wrong"},
		"wants to snooze": {func(error) error { return job.Snooze(0) }, "snoozed for 0s"},
		"wants a retry":   {func(err error) error { return job.RetryAfter(0, err) }, "step send: it is not known whether it happened: broken"},
		"panics":          {func(error) error { panic("boom") }, "panic: boom"},
	} {
		t.Run("one that "+name, func(t *testing.T) {
			t.Parallel()
			d := r.play(t, func(ctx context.Context, _ *run) (any, error) {
				_, err := step.Once(ctx, "send", func(context.Context) (string, error) { return "", step.Uncertain(errBroken) }, nil)
				return nil, c.answer(err)
			})
			isUncertain(t, d)
			if len(d.Runs) != 1 || text(d.LastError) != "step_uncertain: "+c.says {
				t.Error(show(d))
			}
		})
	}
	t.Run("one that can do without it completes", func(t *testing.T) {
		t.Parallel()
		d := r.play(t, func(ctx context.Context, _ *run) (any, error) {
			_, err := step.Once(ctx, "send", func(context.Context) (string, error) { return "", step.Uncertain(errBroken) }, nil)
			return err.Error(), nil
		})
		if d.State != job.Completed || the(t, d).Outcome != job.StepUncertain {
			t.Error(show(d))
		}
	})
	t.Run("nor does one that has become another kind of step", func(t *testing.T) {
		t.Parallel()
		d := r.play(t, func(ctx context.Context, j *run) (any, error) {
			if j.Number() == 1 {
				_, err := step.Once(ctx, "send", func(context.Context) (string, error) { return "", step.Uncertain(errBroken) }, nil)
				return nil, err
			}
			execute := func(context.Context) (string, error) { t.Error("executed"); return "", nil }
			if j.Number() == 2 {
				_, err := step.Run(ctx, "send", execute)
				return nil, err
			}
			return nil, step.StartStep(ctx, "send")
		})
		for range 2 {
			d = r.retry(t, d.ID)
			isUncertain(t, d)
		}
	})
}

// The effect happened; that its result cannot be kept must not repeat it.
func TestAnEffectWhoseResultCannotBeStored(t *testing.T) {
	t.Parallel()
	r := setup(t)
	w := &world{}
	var fits atomic.Bool
	d := r.play(t, func(ctx context.Context, _ *run) (any, error) {
		return step.Once(ctx, "send", func(context.Context) (any, error) { w.change(); return make(chan int), nil },
			func(context.Context) (any, step.Verdict, error) {
				if fits.Load() {
					return "fits", step.Happened, nil
				}
				return make(chan int), step.Happened, nil
			})
	})
	isUncertain(t, d)
	if want := "it happened, but step send: the result cannot be stored: json: unsupported type: chan int"; text(the(t, d).Error) != want || len(d.Runs) != 1 {
		t.Error(show(d))
	}
	isUncertain(t, r.retry(t, d.ID)) // reconcile has no better one
	fits.Store(true)
	if d = r.retry(t, d.ID); d.State != job.Completed || string(d.Result) != `"fits"` || w.changed() != 1 {
		t.Errorf("it happened %d times: %s", w.changed(), show(d))
	}
}

// A person who mistypes the result can put it right.
func TestASettledResultThatDoesNotFit(t *testing.T) {
	t.Parallel()
	r := setup(t)
	w := &world{}
	d := r.play(t, func(ctx context.Context, _ *run) (any, error) {
		return step.Once(ctx, "send", func(context.Context) (map[string]int, error) { w.change(); return nil, step.Uncertain(errBroken) }, nil)
	})
	for _, result := range []string{`"seven"`, `{"n":7}`} {
		isUncertain(t, d)
		if _, err := r.q.SettleStep(t.Context(), d.ID, "send", queue.Settlement{Happened: true, Result: json.RawMessage(result)}); err != nil {
			t.Fatal(err)
		}
		d = r.retry(t, d.ID)
	}
	if d.State != job.Completed || string(d.Result) != `{"n":7}` || w.changed() != 1 {
		t.Error(show(d))
	}
}
