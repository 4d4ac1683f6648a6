package queue_test

import (
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/postroom/postroom/core/internal/dbtest"
	"github.com/postroom/postroom/core/job"
	"github.com/postroom/postroom/core/queue"
	"github.com/postroom/postroom/core/system"
)

// Traps that other queues fell into, which no other test here is named after.
// docs/guarantees.md lists them all.

// A rescuer that reads whose lease has run out and writes later undoes what
// has happened in between (river#1302). Here holders end their runs while
// rescuers are at work: each job ends in one of the two ways, whole.
func TestARescuerActsOnNoStaleSnapshot(t *testing.T) {
	t.Parallel()
	path := dbtest.Path(t)
	q := queue.New(dbtest.OpenPath(t, path), system.Real{}, job.Known())
	const jobs, rescuers = 300, 3
	many := make([]job.New, jobs)
	for i := range many {
		many[i] = job.New{Type: job.DebugEcho}
	}
	if _, err := q.EnqueueMany(t.Context(), many); err != nil {
		t.Fatal(err)
	}
	c, err := q.Claim(t.Context(), queue.ClaimRequest{Runner: "late", Token: q.NewToken(), Types: job.Known().Names(), Limit: jobs, Lease: time.Nanosecond})
	if err != nil || len(c.Jobs) != jobs {
		t.Fatalf("%d jobs, %v", len(c.Jobs), err)
	}
	var wg sync.WaitGroup
	for range rescuers {
		other := queue.New(dbtest.OpenPath(t, path), system.Real{}, job.Known())
		wg.Go(func() {
			for {
				switch got, err := other.Rescue(t.Context()); {
				case err != nil:
					t.Error(err)
					return
				case len(got) == 0:
					return
				}
			}
		})
	}
	ended := make([]bool, jobs)
	for i, j := range c.Jobs {
		wg.Go(func() {
			_, err := q.Finish(t.Context(), j.Lease, queue.Outcome{Kind: queue.Completed})
			if ended[i] = err == nil; err != nil && !errors.Is(err, queue.ErrLeaseLost) {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for i, j := range c.Jobs {
		state, outcome := job.Queued, "rescued"
		if ended[i] {
			state, outcome = job.Completed, "completed"
		}
		if d := get(t, q, j.JobID); d.State != state || len(d.Runs) != 1 || d.Runs[0].Outcome != outcome {
			t.Errorf("the holder was told %v; %s, runs %+v", ended[i], d.State, d.Runs)
		}
	}
	if rep, err := q.Verify(t.Context()); err != nil || len(rep.Violations) > 0 {
		t.Errorf("%+v, %v", rep, err)
	}
}

// A key that outlives the work it stands for blocks the next: a second
// backfill was never queued, an archived task kept its key (asynq#842).
func TestAKeyNeverBlocksWorkThatIsWantedAgain(t *testing.T) {
	t.Parallel()
	for how, end := range map[string]func(*testing.T, *queue.Queue, *clock, string){
		"completed": func(t *testing.T, q *queue.Queue, _ *clock, _ string) {
			finish(t, q, claimOne(t, q).Lease, queue.Outcome{Kind: queue.Completed})
		},
		"failed": func(t *testing.T, q *queue.Queue, _ *clock, _ string) {
			finish(t, q, claimOne(t, q).Lease, queue.Outcome{Kind: queue.Fatal, Error: "x"})
		},
		"canceled": func(t *testing.T, q *queue.Queue, _ *clock, id string) {
			if _, err := q.Cancel(t.Context(), id); err != nil {
				t.Fatal(err)
			}
		},
		"canceled while it ran, and never ended": func(t *testing.T, q *queue.Queue, c *clock, id string) {
			claimOne(t, q)
			if _, err := q.Cancel(t.Context(), id); err != nil {
				t.Fatal(err)
			}
			c.advance(lease + time.Second)
			if got, err := q.Rescue(t.Context()); err != nil || len(got) != 1 {
				t.Fatalf("%+v, %v", got, err)
			}
		},
	} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			q, clock := setup(t)
			work := job.New{Type: job.AccountSync, Key: "account-1"} // its type says for how long the key holds
			first := enqueue(t, q, work)
			if again := enqueue(t, q, work); !again.Duplicate {
				t.Fatalf("stored twice: %+v", again)
			}
			end(t, q, clock, first.ID)
			next := enqueue(t, q, work)
			if next.Duplicate || next.ID == first.ID {
				t.Fatalf("the next one is taken for the first: %+v", next)
			}
			if got := claim(t, q, 9); len(got) != 1 || got[0].JobID != next.ID {
				t.Errorf("claimed %+v", got)
			}
		})
	}
}
