package step_test

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/postroom/postroom/core/internal/dbtest"
	"github.com/postroom/postroom/core/job"
	"github.com/postroom/postroom/core/libsql"
	"github.com/postroom/postroom/core/queue"
	"github.com/postroom/postroom/core/step"
	"github.com/postroom/postroom/core/system"
)

var (
	errBroken = errors.New("broken")
	errAway   = &libsql.Error{Class: libsql.Unavailable, Op: "begin"}

	errUnknown = &libsql.Error{Class: libsql.Unknown, Op: "write"} // the reply is lost
)

func TestAFinishedStepIsNotExecutedAgain(t *testing.T) {
	t.Parallel()
	r := setup(t)
	type value struct {
		Text string
		N    []int
	}
	large := strings.Repeat("x", step.MaxResult-2) // and two quotes
	var bodies atomic.Int32
	d := r.play(t, func(ctx context.Context, j *run) (any, error) {
		v, err := step.Run(ctx, "struct", func(context.Context) (value, error) {
			bodies.Add(1)
			return value{"é \u0000", []int{1}}, nil
		})
		if err != nil || v.Text != "é \u0000" || v.N[0] != 1 {
			t.Errorf("run %d: %+v, %v", j.Number(), v, err)
		}
		s, err := step.Run(ctx, "large", func(context.Context) (string, error) { bodies.Add(1); return large, nil })
		if err != nil || s != large {
			t.Errorf("run %d: %d bytes, %v", j.Number(), len(s), err)
		}
		p, err := step.Run(ctx, "nothing", func(context.Context) (*value, error) { bodies.Add(1); return nil, nil })
		if err != nil || p != nil {
			t.Errorf("run %d: %v, %v", j.Number(), p, err)
		}
		if j.Number() < 4 {
			return nil, errBroken
		}
		return nil, nil
	})
	if d.State != job.Completed || d.Attempts != 4 || bodies.Load() != 3 {
		t.Errorf("%s after %d runs, with %d bodies executed", d.State, d.Attempts, bodies.Load())
	}
	for _, s := range d.Steps {
		if s.Outcome != job.StepDone || s.Run != 1 || s.FinishedAt == nil || s.Error != nil {
			t.Errorf("step %+v", s)
		}
	}
}

func TestAFailedStepIsExecutedAgain(t *testing.T) {
	t.Parallel()
	r := setup(t)
	var seen []job.Step
	d := r.play(t, func(ctx context.Context, j *run) (any, error) {
		if j.Number() > 1 {
			seen = append(seen, the(t, r.job(t, j.ID())))
		}
		return step.Run(ctx, "s", func(context.Context) (int64, error) {
			switch j.Number() {
			case 1:
				return 0, errors.New("caf\xe9\x00" + strings.Repeat("!", 1<<20))
			case 2:
				panic("at the disco")
			case 3:
				return 0, job.Snooze(0)
			}
			return j.Number(), nil
		})
	})
	if string(d.Result) != "4" || the(t, d).Run != 4 {
		t.Error(show(d))
	}
	if s := seen[0]; s.Outcome != job.StepFailed || !strings.HasPrefix(text(s.Error), "caf\uFFFD\uFFFD!!!") || len(*s.Error) > 20<<10 {
		t.Errorf("after an error: %.200s", text(s.Error))
	}
	if s := seen[1]; s.Outcome != job.StepFailed || s.Run != 2 || text(s.Error) != "it panicked or ended its goroutine; the run has the stack" {
		t.Errorf("after a panic: %+v", s)
	}
	if s := seen[2]; s.Run != 2 {
		t.Errorf("a snooze left %+v", s)
	}
}

func TestAStepThatTakesTooLong(t *testing.T) {
	t.Parallel()
	r := setup(t)
	t.Run("is a failed attempt that says so", func(t *testing.T) {
		t.Parallel()
		var first job.Step
		d := r.play(t, func(ctx context.Context, j *run) (any, error) {
			if j.Number() > 1 {
				first = the(t, r.job(t, j.ID()))
			}
			return step.Run(ctx, "fetch", func(ctx context.Context) (string, error) {
				if j.Number() > 1 {
					return "at last", nil
				}
				<-ctx.Done()
				if cause := context.Cause(ctx); !errors.Is(cause, step.ErrTimeout) || cause.Error() != "step fetch: timed out after 10ms" {
					t.Errorf("the cause is %v", cause)
				}
				return "", ctx.Err()
			}, step.Timeout(10*time.Millisecond*time.Duration(1+1000*(j.Number()-1))))
		})
		const want = "step fetch: timed out after 10ms: context deadline exceeded"
		if first.Outcome != job.StepFailed || text(first.Error) != want || text(d.Runs[0].Error) != want || d.Runs[0].Outcome != "retried" {
			t.Errorf("step %+v, run %+v", first, d.Runs[0])
		}
		if string(d.Result) != `"at last"` || d.Failures != 1 {
			t.Error(show(d))
		}
	})
	t.Run("and has a result all the same is done", func(t *testing.T) {
		t.Parallel()
		d := r.play(t, func(ctx context.Context, _ *run) (any, error) {
			return step.Run(ctx, "fetch", func(ctx context.Context) (string, error) {
				<-ctx.Done()
				return "late", nil
			}, step.Timeout(time.Millisecond))
		})
		if string(d.Result) != `"late"` || d.Attempts != 1 {
			t.Error(show(d))
		}
	})
	t.Run("inside of another is told from it", func(t *testing.T) {
		t.Parallel()
		d := r.play(t, func(ctx context.Context, _ *run) (any, error) {
			_, err := step.Run(ctx, "outer", func(ctx context.Context) (int, error) {
				return step.Run(ctx, "inner", func(ctx context.Context) (int, error) {
					<-ctx.Done()
					return 0, ctx.Err()
				}, step.Timeout(time.Hour))
			}, step.Timeout(5*time.Millisecond))
			return nil, job.Fatal(err)
		})
		if text(d.LastError) != "step outer: timed out after 5ms: context deadline exceeded" || len(d.Steps) != 2 {
			t.Error(show(d))
		}
	})
	t.Run("must be given some time", func(t *testing.T) {
		t.Parallel()
		d := r.play(t, func(ctx context.Context, _ *run) (any, error) {
			return step.Run(ctx, "s", func(context.Context) (int, error) { return 1, nil }, step.Timeout(0))
		})
		if d.State != job.Failed || text(d.LastError) != "step s: a timeout must be positive, not 0s" {
			t.Error(show(d))
		}
	})
}

func TestAResultIsStoredWhateverBecameOfTheContext(t *testing.T) {
	t.Parallel()
	r := setup(t)
	id := r.start(t, func(ctx context.Context, j *run) (any, error) {
		return step.Run(ctx, "s", func(ctx context.Context) (int64, error) {
			if j.Number() == 1 {
				j.cancel()
				<-ctx.Done()
			}
			return j.Number(), nil
		})
	})
	d := r.await(t, id)
	if s := the(t, d); s.Outcome != job.StepDone || string(s.Result) != "1" {
		t.Error(show(d))
	}
}

func TestAnOutageIsWaitedOut(t *testing.T) {
	t.Parallel()
	r := setup(t)
	var bodies atomic.Int32
	away := fault{act: func() error { return errAway }}
	lost := fault{after: true, act: func() error { return errUnknown }}
	d := r.play(t, func(ctx context.Context, j *run) (any, error) {
		if j.Number() == 1 {
			return nil, errBroken // so that the next run has steps to read
		}
		p := &plan{away: 2, faults: map[int]fault{1: away, 2: lost, 4: lost, 5: away, 6: lost}}
		ctx = withPlan(ctx, p)
		if _, err := step.Run(ctx, "a", func(context.Context) (int, error) { bodies.Add(1); return 1, nil }); err != nil {
			t.Error(err)
		}
		if p.writes != 3 || p.away >= 0 {
			t.Errorf("%d writes, %d reads left", p.writes, p.away)
		}
		return step.Once(ctx, "b", func(context.Context) (int, error) { bodies.Add(1); return 2, nil }, nil)
	})
	if d.State != job.Completed || d.Failures != 1 || bodies.Load() != 2 || len(d.Steps) != 2 {
		t.Errorf("%d bodies: %s", bodies.Load(), show(d))
	}
}

func TestNamesOfSteps(t *testing.T) {
	t.Parallel()
	r := setup(t)
	t.Run("what cannot be stored in one is written out", func(t *testing.T) {
		t.Parallel()
		var bodies atomic.Int32
		d := r.play(t, func(ctx context.Context, j *run) (any, error) {
			for _, name := range []string{"caf\xe9", "caf\xe8", "caf\uFFFD", "a\nb"} { // alike they would be one step
				if _, err := step.Run(ctx, name, func(context.Context) (int, error) { bodies.Add(1); return 1, nil }); err != nil {
					return nil, job.Fatal(err)
				}
			}
			if err := step.StartStep(ctx, "w\xff"); err != nil {
				return nil, job.Fatal(err)
			}
			if err := step.FinishStep(ctx, "w\xff", 1, nil); err != nil {
				return nil, job.Fatal(err)
			}
			if j.Number() == 1 {
				return nil, errBroken
			}
			return nil, nil
		})
		names := map[string]bool{}
		for _, s := range d.Steps {
			names[s.Name] = true
		}
		want := map[string]bool{`caf\xe9`: true, `caf\xe8`: true, "caf\uFFFD": true, `a\x0ab`: true, `w\xff`: true}
		if !maps.Equal(names, want) || bodies.Load() != 4 {
			t.Errorf("names %v, %d bodies: %s", names, bodies.Load(), show(d))
		}
		if !r.log.has(`caf\\xe9","message":"the step's name had bytes that cannot be stored`) {
			t.Error("nothing is noted")
		}
	})
	for problem, c := range map[string]struct{ name, want string }{
		"is empty":      {"", "step: the name is empty"},
		"is too long":   {strings.Repeat("x", job.MaxName+1), "step name: is 201 bytes long, more than 200"},
		"is used twice": {"s", "step s: the name was used before in this run"},
	} {
		t.Run("one that "+problem+" is refused", func(t *testing.T) {
			t.Parallel()
			d := r.play(t, func(ctx context.Context, _ *run) (any, error) {
				if c.name == "s" {
					if err := step.StartStep(ctx, "s"); err != nil {
						t.Error(err)
					}
				}
				return step.Run(ctx, c.name, func(context.Context) (int, error) { return 1, nil })
			})
			if d.State != job.Failed || d.Attempts != 1 || text(d.LastError) != c.want {
				t.Error(show(d))
			}
		})
	}
	if err := step.StartStep(t.Context(), "x"); !errors.Is(err, step.ErrNoJob) {
		t.Errorf("a step outside of a job: %v", err)
	}
}

func TestResultsOfSteps(t *testing.T) {
	t.Parallel()
	r := setup(t)
	t.Run("one that is not UTF-8 is repaired", func(t *testing.T) {
		t.Parallel()
		d := r.play(t, func(ctx context.Context, j *run) (any, error) {
			v, err := step.Run(ctx, "s", func(context.Context) (json.RawMessage, error) { return json.RawMessage("\"caf\xe9\""), nil })
			if err == nil && j.Number() == 1 {
				return nil, errBroken
			}
			return v, err
		})
		if string(d.Result) != "\"caf\uFFFD\"" || string(the(t, d).Result) != "\"caf\uFFFD\"" || !r.log.has("the step's result was not valid UTF-8") {
			t.Error(show(d))
		}
	})
	for problem, c := range map[string]struct {
		v    any
		want string
	}{
		"is no JSON":     {make(chan int), "json: unsupported type: chan int"},
		"is too large":   {strings.Repeat("x", step.MaxResult-1), "result: is 1048577 bytes long, more than 1048576"},
		"is nested deep": {json.RawMessage(strings.Repeat("[", 501) + strings.Repeat("]", 501)), "result: is nested deeper than 500 levels"},
	} {
		t.Run("one that "+problem+" fails the step and the job", func(t *testing.T) {
			t.Parallel()
			d := r.play(t, func(ctx context.Context, _ *run) (any, error) {
				return step.Run(ctx, "s", func(context.Context) (any, error) { return c.v, nil })
			})
			want := "step s: the result cannot be stored: " + c.want
			if s := the(t, d); d.State != job.Failed || d.Attempts != 1 || text(d.LastError) != want || s.Outcome != job.StepFailed || text(s.Error) != want {
				t.Error(show(d))
			}
		})
	}
	t.Run("one that no longer fits its type is fatal", func(t *testing.T) {
		t.Parallel()
		d := r.play(t, func(ctx context.Context, j *run) (any, error) {
			if j.Number() == 1 {
				_, err := step.Run(ctx, "s", func(context.Context) (map[string]string, error) { return map[string]string{"a": "secret"}, nil })
				return nil, errors.Join(err, errBroken)
			}
			return step.Run(ctx, "s", func(context.Context) (map[string]int, error) { return nil, nil })
		})
		if d.State != job.Failed || text(d.LastError) != "step s: the stored result does not fit its type: byte 13 must be of type int" {
			t.Error(show(d))
		}
	})
}

func TestStepsThatAreOnlyWatched(t *testing.T) {
	t.Parallel()
	r := setup(t)
	var begun job.Step
	d := r.play(t, func(ctx context.Context, j *run) (any, error) {
		if err := step.StartStep(ctx, "w"); err != nil {
			return nil, err
		}
		switch j.Number() {
		case 1:
			begun = the(t, r.job(t, j.ID()))
			return nil, errors.Join(errBroken, step.FinishStep(ctx, "w", nil, errBroken))
		case 2:
			return nil, errors.Join(errBroken, step.FinishStep(ctx, "w", map[string]int{"n": 1}, nil))
		}
		return nil, step.FinishStep(ctx, "w", "of a step that was done", nil)
	})
	if begun.Outcome != job.StepRunning || begun.FinishedAt != nil {
		t.Errorf("begun: %+v", begun)
	}
	if s := the(t, d); s.Outcome != job.StepDone || string(s.Result) != `{"n":1}` || s.FinishedAt == nil || s.Run != 2 {
		t.Error(show(d))
	}
}

// The steps of a job that ended badly say how far it came.
func TestStepsStayWhateverBecomesOfTheJob(t *testing.T) {
	t.Parallel()
	r := setup(t)
	for name, c := range map[string]struct {
		end  func(ctx context.Context, j *run) error
		want job.State
	}{
		"a fatal error":    {func(context.Context, *run) error { return job.Fatal(errBroken) }, job.Failed},
		"its budget spent": {func(context.Context, *run) error { return errBroken }, job.Failed},
		"canceled": {func(ctx context.Context, j *run) error {
			j.cancel()
			return errBroken
		}, job.Canceled},
		"canceled after its runner died": {func(ctx context.Context, j *run) error {
			j.cancel()
			j.die()
			return nil
		}, job.Canceled},
		"its runner died": {func(_ context.Context, j *run) error {
			if j.Number() == 1 {
				j.die()
			}
			return nil
		}, job.Completed},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := r.play(t, func(ctx context.Context, j *run) (any, error) {
				if _, err := step.Run(ctx, "first", func(context.Context) (int, error) { return 1, nil }); err != nil {
					return nil, err
				}
				if err := step.StartStep(ctx, "last"); err != nil {
					return nil, err
				}
				return nil, c.end(ctx, j)
			})
			if d.State != c.want || len(d.Steps) != 2 || d.Steps[0].Outcome != job.StepDone || d.Steps[1].Outcome != job.StepRunning {
				t.Error(show(d))
			}
		})
	}
}

// later is a clock that goes on by a second whenever it is asked.
type later struct {
	system.Real
	asked atomic.Int64
}

func (l *later) Now() time.Time { return time.Unix(1_700_000_000+l.asked.Add(1), 0) }

func TestAStepBeganWhenItsFunctionWasCalled(t *testing.T) {
	t.Parallel()
	q := queue.New(dbtest.Open(t), system.Real{}, job.Known())
	if _, err := q.Enqueue(t.Context(), job.New{Type: job.DebugEcho}); err != nil {
		t.Fatal(err)
	}
	c, err := q.Claim(t.Context(), queue.ClaimRequest{Runner: "r", Token: q.NewToken(), Types: []string{job.DebugEcho}, Limit: 1, Lease: time.Minute})
	if err != nil || len(c.Jobs) != 1 {
		t.Fatalf("%+v, %v", c, err)
	}
	r := step.NewRecorder(step.Config{
		DB: q.DB(), System: &later{}, Lease: c.Jobs[0].Lease, Run: 1,
		LeaseEnds: func() time.Time { return time.Time{} }, Worker: t.Context(), Log: quiet,
	})
	if _, err := step.Run(step.NewContext(t.Context(), r), "x", func(context.Context) (int, error) { return 1, nil }); err != nil {
		t.Fatal(err)
	}
	d, err := q.Detail(t.Context(), c.Jobs[0].JobID)
	if err != nil || len(d.Steps) != 1 || d.Steps[0].FinishedAt == nil {
		t.Fatalf("%+v, %v", d, err)
	}
	if took := *d.Steps[0].FinishedAt - d.Steps[0].StartedAt; took != 1000 {
		t.Errorf("it took %d ms, want 1000", took)
	}
}
