package step_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/postroom/postroom/core/job"
	"github.com/postroom/postroom/core/libsql"
	"github.com/postroom/postroom/core/queue"
	"github.com/postroom/postroom/core/step"
	"github.com/postroom/postroom/core/system"
	"github.com/postroom/postroom/core/worker"
)

func TestNothingBeginsWithoutTheLease(t *testing.T) {
	t.Parallel()
	t.Run("the context ended while the intent was stored", func(t *testing.T) {
		t.Parallel()
		r := setup(t)
		id := r.start(t, func(ctx context.Context, j *run) (any, error) {
			slow := at(ctx, 1, fault{after: true, act: func() error {
				j.cancel()
				<-ctx.Done()
				return nil
			}})
			return step.Once(slow, "send", func(context.Context) (string, error) { t.Error("it began"); return "", nil }, nil)
		})
		d := r.await(t, id)
		s := the(t, d)
		if d.State != job.Canceled || s.Outcome != job.StepFailed || text(s.Error) != "step send: not begun: "+worker.ErrCanceled.Error() {
			t.Error(show(d))
		}
	})
	t.Run("the lease ran out while the intent was stored", func(t *testing.T) {
		t.Parallel()
		r := byHand(t)
		ctx := at(r.ctx, 1, fault{after: true, act: func() error { r.frozen(); return nil }})
		_, err := step.Once(ctx, "send", func(context.Context) (string, error) { t.Error("it began"); return "", nil }, nil)
		if !errors.Is(err, queue.ErrLeaseLost) || r.steps.Uncertain() {
			t.Errorf("error %v", err)
		}
	})
	t.Run("another runner has the job", func(t *testing.T) {
		t.Parallel()
		r := setup(t)
		w := &world{}
		stale := make(chan error, 1)
		d := r.play(t, func(ctx context.Context, j *run) (any, error) {
			if j.Number() == 1 {
				j.end() // and the process does not know
			}
			v, err := step.Once(ctx, "send", func(context.Context) (string, error) { w.change(); return "", nil }, nil)
			if j.Number() == 1 {
				stale <- err
			}
			return v, err
		})
		// Where the write takes its time, the run is stopped before it has begun.
		if err := <-stale; !errors.Is(err, queue.ErrLeaseLost) && libsql.ClassOf(err) != libsql.Canceled {
			t.Errorf("the stale run: %v", err)
		}
		if d.State != job.Completed || w.changed() != 1 {
			t.Errorf("it happened %d times: %s", w.changed(), show(d))
		}
	})
	t.Run("a run that ends its effect too late changes nothing", func(t *testing.T) {
		t.Parallel()
		r := setup(t)
		w := &world{}
		asked, late := make(chan struct{}), make(chan error, 1)
		d := r.play(t, func(ctx context.Context, j *run) (any, error) {
			v, err := step.Once(ctx, "send", func(context.Context) (string, error) {
				w.change()
				j.end() // stopped here, and resumed when the next run has asked
				<-asked
				return "late", nil
			}, func(ctx context.Context) (string, step.Verdict, error) {
				defer close(asked)
				return w.look(ctx)
			})
			if j.Number() == 1 {
				late <- err
			}
			return v, err
		})
		if err := <-late; !errors.Is(err, queue.ErrLeaseLost) {
			t.Errorf("the late run: %v", err)
		}
		if string(d.Result) != `"found"` || w.changed() != 1 || string(the(t, d).Result) != `"found"` {
			t.Error(show(d))
		}
	})
	t.Run("an outage that outlasts the context is not waited for", func(t *testing.T) {
		t.Parallel()
		r := byHand(t)
		ctx, cancel := context.WithCancel(r.ctx)
		tries := 0
		away := fault{act: func() error {
			if tries++; tries == 3 {
				cancel()
			}
			return errAway
		}}
		ctx = withPlan(ctx, &plan{faults: map[int]fault{1: away, 2: away, 3: away, 4: away}})
		_, err := step.Once(ctx, "send", func(context.Context) (string, error) { t.Error("it began"); return "", nil }, nil)
		if !errors.Is(err, errAway) || tries != 3 {
			t.Errorf("after %d tries: %v", tries, err)
		}
	})
}

// What an effect did is written down when the database is back, however late,
// if nobody has taken the job; the end of the runner ends that.
func TestAResultOutlastsTheLocalLease(t *testing.T) {
	t.Parallel()
	for end, c := range map[string]struct {
		stop bool
		want error
	}{"the database comes back": {false, nil}, "the runner stops": {true, errAway}} {
		t.Run(end, func(t *testing.T) {
			t.Parallel()
			r := byHand(t)
			handler, cancel := context.WithCancel(r.ctx)
			tries := 0
			away := fault{act: func() error {
				if tries++; tries == 2 && c.stop {
					r.stop()
				}
				return errAway
			}}
			ctx := withPlan(handler, &plan{faults: map[int]fault{2: away, 3: away}})
			v, err := step.Once(ctx, "send", func(context.Context) (string, error) {
				r.frozen()
				cancel()
				return "sent", nil
			}, nil)
			if v != "sent" || !errors.Is(err, c.want) || tries != 2 {
				t.Errorf("%q after %d tries: %v", v, tries, err)
			}
			s := the(t, r.rig.job(t, r.id))
			if done := s.Outcome == job.StepDone; done == c.stop {
				t.Errorf("step %+v", s)
			}
		})
	}
}

// hand is a run without a worker, whose lease ends as its test wants.
type hand struct {
	rig    *rig
	id     string
	ctx    context.Context
	stop   context.CancelFunc // of the runner
	steps  *step.Recorder
	ending atomic.Int64 // Unix milliseconds
}

// frozen is what a process finds that was stopped until its lease had run out.
func (h *hand) frozen() { h.ending.Store(0) }

func byHand(t *testing.T) *hand {
	t.Helper()
	r := setup(t)
	e, err := r.q.Enqueue(t.Context(), job.New{Type: job.DebugEcho}) // which the rig's worker does not know
	if err != nil {
		t.Fatal(err)
	}
	c, err := r.q.Claim(t.Context(), queue.ClaimRequest{Runner: "hand", Token: "t", Types: []string{job.DebugEcho}, Limit: 1, Lease: time.Minute})
	if err != nil || len(c.Jobs) != 1 || c.Jobs[0].JobID != e.ID {
		t.Fatalf("claimed %+v, %v", c.Jobs, err)
	}
	worker, stop := context.WithCancel(t.Context())
	t.Cleanup(stop)
	h := &hand{rig: r, id: e.ID, stop: stop}
	h.ending.Store(c.Jobs[0].Deadline.UnixMilli())
	h.steps = step.NewRecorder(step.Config{
		DB: r.q.DB(), System: system.Real{}, Lease: c.Jobs[0].Lease, Run: c.Jobs[0].Run,
		LeaseEnds: func() time.Time { return time.UnixMilli(h.ending.Load()) }, Worker: worker, Log: quiet,
	})
	h.ctx = step.NewContext(t.Context(), h.steps)
	return h
}
