package queue_test

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/postroom/postroom/core/job"
	"github.com/postroom/postroom/core/queue"
)

// why returns the codes of what keeps a job from running.
func why(t *testing.T, q *queue.Queue, id string) (codes []string, w *queue.Why) {
	t.Helper()
	w, err := q.Why(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range w.Reasons {
		if r.Text == "" {
			t.Errorf("%s says nothing", r.Code)
		}
		codes = append(codes, r.Code)
	}
	return codes, w
}

func wantWhy(t *testing.T, q *queue.Queue, id string, want ...string) *queue.Why {
	t.Helper()
	codes, w := why(t, q, id)
	if !slices.Equal(codes, want) {
		t.Errorf("reasons %v, want %v: %+v", codes, want, w.Reasons)
	}
	return w
}

func TestWhyAJobIsNotRunning(t *testing.T) {
	t.Parallel()
	start := func(t *testing.T) (*queue.Queue, *clock) {
		t.Helper()
		q, clock := setup(t)
		err := q.Register(t.Context(), queue.Runner{ID: "r1", Host: "h", Version: "v", Types: job.Known().Names(), Concurrency: 10})
		if err != nil {
			t.Fatal(err)
		}
		return q, clock
	}
	t.Run("nothing but others before it", func(t *testing.T) {
		t.Parallel()
		q, _ := start(t)
		for range 3 {
			enqueue(t, q, job.New{Priority: 1})
		}
		e := enqueue(t, q, job.New{})
		if w := wantWhy(t, q, e.ID, "in_line"); *w.Ahead != 3 || w.Reasons[0].Text != "it is in line: 3 jobs of its queue stand before it; 1 runners with 10 slots work there" {
			t.Errorf("%+v", w)
		}
	})
	t.Run("its time", func(t *testing.T) {
		t.Parallel()
		q, clock := start(t)
		e := enqueue(t, q, job.New{Delay: time.Hour})
		if w := wantWhy(t, q, e.ID, "not_due"); int64(*w.Reasons[0].Until) != clock.ms+3_600_000 || w.Ahead != nil {
			t.Errorf("%+v", w)
		}
	})
	t.Run("a retry", func(t *testing.T) {
		t.Parallel()
		q, _ := start(t)
		e := enqueue(t, q, job.New{})
		finish(t, q, claimOne(t, q).Lease, queue.Outcome{Kind: queue.Failed, Error: "boom", Delay: time.Minute})
		if w := wantWhy(t, q, e.ID, "not_due"); w.Reasons[0].Text != "it failed 1 of 5 times and is tried again later: boom" {
			t.Errorf("%+v", w)
		}
	})
	t.Run("a paused queue", func(t *testing.T) {
		t.Parallel()
		q, _ := start(t)
		e := enqueue(t, q, job.New{})
		if err := q.Pause(t.Context(), "default"); err != nil {
			t.Fatal(err)
		}
		wantWhy(t, q, e.ID, "queue_paused")
	})
	t.Run("no runner", func(t *testing.T) {
		t.Parallel()
		q, clock := start(t)
		unknown := enqueue(t, q, job.New{Type: "nobody.knows"})
		known := enqueue(t, q, job.New{})
		if w := wantWhy(t, q, unknown.ID, "no_runner"); w.Reasons[0].Text != "none of the 1 runners knows the type nobody.knows" {
			t.Errorf("%+v", w)
		}
		wantWhy(t, q, known.ID, "in_line")
		clock.advance(10 * time.Minute)
		wantWhy(t, q, known.ID, "no_runner")
		err := q.Register(t.Context(), queue.Runner{ID: "r2", Host: "h", Version: "v", Types: job.Known().Names(), Queues: []string{"mail"}})
		if err != nil {
			t.Fatal(err)
		}
		if w := wantWhy(t, q, known.ID, "no_runner"); w.Reasons[0].Text != "no runner that knows the type debug.echo works the queue default" {
			t.Errorf("%+v", w)
		}
	})
	t.Run("limits and who holds them", func(t *testing.T) {
		t.Parallel()
		q, _ := start(t)
		for scope, name := range map[string]string{"queue": "default", "type": job.DebugEcho, "key": "k"} {
			setLimit(t, q, queue.Limit{Scope: scope, Name: name, MaxRunning: atMost(1)})
		}
		holder := enqueue(t, q, job.New{LimitKey: "k"})
		claimOne(t, q)
		e := enqueue(t, q, job.New{LimitKey: "k"})
		codes, w := why(t, q, e.ID)
		slices.Sort(codes)
		if !slices.Equal(codes, []string{"limit_key", "limit_queue", "limit_type"}) {
			t.Errorf("%v", codes)
		}
		for _, r := range w.Reasons {
			if !slices.Equal(r.Jobs, []string{holder.ID}) {
				t.Errorf("%s: %v", r.Code, r.Jobs)
			}
		}
	})
	t.Run("a throttled key", func(t *testing.T) {
		t.Parallel()
		q, clock := start(t)
		setLimit(t, q, queue.Limit{Scope: "key", Name: "*", Interval: time.Minute})
		enqueue(t, q, job.New{LimitKey: "k"})
		e := enqueue(t, q, job.New{LimitKey: "k"})
		claimOne(t, q)
		if w := wantWhy(t, q, e.ID, "throttled"); int64(*w.Reasons[0].Until) != clock.ms+60_000 || *w.Ahead != 0 {
			t.Errorf("%+v", w)
		}
	})
	t.Run("other jobs", func(t *testing.T) {
		t.Parallel()
		q, _ := start(t)
		first := enqueue(t, q, job.New{})
		e := enqueue(t, q, job.New{After: []string{first.ID}})
		if w := wantWhy(t, q, e.ID, "waits_for_jobs"); !slices.Equal(w.Reasons[0].Jobs, []string{first.ID}) {
			t.Errorf("%+v", w)
		}
	})
	t.Run("it is running, then asked to stop, then its runner is silent", func(t *testing.T) {
		t.Parallel()
		q, clock := start(t)
		e := enqueue(t, q, job.New{})
		claimOne(t, q)
		wantWhy(t, q, e.ID, "running")
		if _, err := q.Cancel(t.Context(), e.ID); err != nil {
			t.Fatal(err)
		}
		wantWhy(t, q, e.ID, "running", "cancel_requested")
		clock.advance(lease + time.Second)
		wantWhy(t, q, e.ID, "lease_expired")
	})
	t.Run("it has ended", func(t *testing.T) {
		t.Parallel()
		q, _ := start(t)
		e := enqueue(t, q, job.New{})
		finish(t, q, claimOne(t, q).Lease, queue.Outcome{Kind: queue.Fatal, Error: "no"})
		if w := wantWhy(t, q, e.ID, "final"); w.Reasons[0].Text != "it has ended as failed at "+job.Time(1_700_000_000_000).String()+": no" {
			t.Errorf("%+v", w)
		}
	})
	t.Run("there is no such job", func(t *testing.T) {
		t.Parallel()
		q, _ := start(t)
		if _, err := q.Why(t.Context(), "none"); !errors.Is(err, queue.ErrNotFound) {
			t.Errorf("%v", err)
		}
	})
}
