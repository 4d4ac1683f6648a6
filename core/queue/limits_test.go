package queue_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/postroom/postroom/core/job"
	"github.com/postroom/postroom/core/libsql"
	"github.com/postroom/postroom/core/queue"
)

func atMost(n int64) *int64 { return &n }

func setLimit(t *testing.T, q *queue.Queue, l queue.Limit) {
	t.Helper()
	if err := q.SetLimit(t.Context(), l); err != nil {
		t.Fatal(err)
	}
}

// claimAll claims until nothing more is to be had, and counts by limit key.
func claimAll(t *testing.T, q *queue.Queue) (all []queue.Claimed, byKey map[string]int) {
	t.Helper()
	byKey = map[string]int{}
	for {
		got := claim(t, q, 100)
		if len(got) == 0 {
			return all, byKey
		}
		for _, c := range got {
			d := get(t, q, c.JobID)
			if d.LimitKey != nil {
				byKey[*d.LimitKey]++
			}
		}
		all = append(all, got...)
	}
}

// A claim that goes by what the one before left must not stop at a job whose
// key has lost its room since, nor where no key had a limit then.
func TestAJobWithoutRoomKeepsNobodyFromItsPlaceWithoutALook(t *testing.T) {
	t.Parallel()
	for name, limited := range map[string]bool{"limits are known": true, "no limits are known": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			q, _ := setup(t)
			claim := func(typ string, s *queue.Sight) queue.Claim {
				t.Helper()
				c, err := q.Claim(t.Context(), queue.ClaimRequest{
					Runner: "r", Token: q.NewToken(), Types: []string{typ}, Limit: 1, Lease: time.Minute, Sight: s,
				})
				if err != nil {
					t.Fatal(err)
				}
				return c
			}
			free := enqueue(t, q, job.New{Priority: -1})
			left := claim("none", nil).Sight
			setLimit(t, q, queue.Limit{Scope: queue.LimitKey, Name: "a", Interval: time.Hour})
			first := enqueue(t, q, job.New{LimitKey: "a", Queue: "first"})
			enqueue(t, q, job.New{LimitKey: "a"})
			lined := claim("none", nil).Sight // lines the key's jobs up and takes none
			if limited {
				left = lined
			}
			if c := claimOne(t, q); c.JobID != first.ID {
				t.Fatalf("claimed %s", c.JobID)
			}
			if c := claim(job.DebugEcho, &left); len(c.Jobs) != 1 || c.Jobs[0].JobID != free.ID {
				t.Fatalf("claimed %+v; want the job without a limit", c.Jobs)
			}
		})
	}
}

func TestAKeyRunsNoMoreThanItsLimit(t *testing.T) {
	t.Parallel()
	q, _ := setup(t)
	setLimit(t, q, queue.Limit{Scope: queue.LimitKey, Name: "a", MaxRunning: atMost(2)})
	for range 5 {
		enqueue(t, q, job.New{LimitKey: "a"})
		enqueue(t, q, job.New{LimitKey: "b"})
	}
	all, byKey := claimAll(t, q)
	if byKey["a"] != 2 || byKey["b"] != 5 {
		t.Fatalf("claimed %v, want 2 of a and all of b", byKey)
	}
	// Whatever ends a run makes room for one more: no sooner, no later.
	for i, kind := range []queue.Kind{queue.Completed, queue.Failed, queue.Fatal, queue.Snoozed} {
		held := all[slices.IndexFunc(all, func(c queue.Claimed) bool { return *get(t, q, c.JobID).LimitKey == "a" })]
		finish(t, q, held.Lease, queue.Outcome{Kind: kind, Delay: time.Hour, Error: "x"})
		got, byKey := claimAll(t, q)
		if want := min(1, 3-i); byKey["a"] != max(want, 0) {
			t.Errorf("after a run that ended as %s: claimed %v", kind, byKey)
		}
		all = append(slices.DeleteFunc(all, func(c queue.Claimed) bool { return c.JobID == held.JobID }), got...)
	}
}

func TestOneClaimDoesNotExceedALimit(t *testing.T) {
	t.Parallel()
	for name, l := range map[string]queue.Limit{
		"queue": {Scope: queue.LimitQueue, Name: "default", MaxRunning: atMost(3)},
		"type":  {Scope: queue.LimitType, Name: job.DebugEcho, MaxRunning: atMost(3)},
		"key":   {Scope: queue.LimitKey, Name: "k", MaxRunning: atMost(3)},
		"each":  {Scope: queue.LimitKey, Name: queue.EachKey, MaxRunning: atMost(3)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			q, clock := setup(t)
			for range 5 { // half of them before there is a limit
				enqueue(t, q, job.New{LimitKey: "k"})
			}
			setLimit(t, q, l)
			for range 5 {
				enqueue(t, q, job.New{LimitKey: "k", Delay: time.Second})
			}
			clock.advance(time.Second)
			all, _ := claimAll(t, q)
			if len(all) != 3 {
				t.Fatalf("claimed %d, want 3", len(all))
			}
			finish(t, q, all[0].Lease, queue.Outcome{Kind: queue.Completed})
			clock.advance(time.Hour) // an expired lease still counts: its holder may be at work
			more, _ := claimAll(t, q)
			if len(more) != 1 {
				t.Fatalf("claimed %d after one had ended, want 1", len(more))
			}
			if got, err := q.Limits(t.Context()); err != nil || len(got) != 1 || got[0].Running != 3 || *got[0].MaxRunning != 3 {
				t.Errorf("limits %+v, %v", got, err)
			}
			if err := q.DropLimit(t.Context(), l.Scope, l.Name); err != nil {
				t.Fatal(err)
			}
			if more, _ = claimAll(t, q); len(more) != 6 {
				t.Errorf("claimed %d without a limit, want the other 6", len(more))
			}
		})
	}
}

func TestAFullTypeDoesNotHideTheOthersOfItsQueue(t *testing.T) {
	t.Parallel()
	q, _ := setup(t)
	setLimit(t, q, queue.Limit{Scope: queue.LimitType, Name: job.DebugSleep, MaxRunning: atMost(0)})
	var many []job.New
	for range 1000 {
		many = append(many, job.New{Type: job.DebugSleep})
	}
	if _, err := q.EnqueueMany(t.Context(), many); err != nil {
		t.Fatal(err)
	}
	e := enqueue(t, q, job.New{})
	if got := claim(t, q, 1); len(got) != 1 || got[0].JobID != e.ID {
		t.Errorf("claimed %+v", got)
	}
}

func TestStartsOfAKeyLieApart(t *testing.T) {
	t.Parallel()
	q, clock := setup(t)
	setLimit(t, q, queue.Limit{Scope: queue.LimitKey, Name: "slow", Interval: time.Second})
	for range 3 {
		enqueue(t, q, job.New{LimitKey: "slow"})
	}
	var starts []int64
	for range 40 {
		for _, c := range claim(t, q, 10) {
			starts = append(starts, clock.ms)
			finish(t, q, c.Lease, queue.Outcome{Kind: queue.Completed})
		}
		clock.advance(100 * time.Millisecond)
	}
	if len(starts) != 3 || starts[1]-starts[0] != 1000 || starts[2]-starts[1] != 1000 {
		t.Errorf("starts %v, want three, a second apart", starts)
	}
	if s, err := q.Look(t.Context()); err != nil || s.Ready || s.NextDue != nil {
		t.Errorf("a key of which nothing is left keeps the runners awake: %+v, %v", s, err)
	}
}

func TestAThrottledKeySaysWhenItMayStartAgain(t *testing.T) {
	t.Parallel()
	q, clock := setup(t)
	setLimit(t, q, queue.Limit{Scope: queue.LimitKey, Name: "slow", Interval: time.Minute})
	enqueue(t, q, job.New{LimitKey: "slow"})
	enqueue(t, q, job.New{LimitKey: "slow"})
	claimOne(t, q)
	clock.advance(20 * time.Second)
	if len(claim(t, q, 1)) != 0 {
		t.Fatal("claimed too early")
	}
	if s, err := q.Look(t.Context()); err != nil || s.Ready || s.NextDue == nil || *s.NextDue != 40*time.Second {
		t.Errorf("%+v, %v; want the next in 40 s", s, err)
	}
}

func TestKeysTakeTurns(t *testing.T) {
	t.Parallel()
	q, clock := setup(t)
	setLimit(t, q, queue.Limit{Scope: queue.LimitKey, Name: queue.EachKey, MaxRunning: atMost(1)})
	for range 20 {
		enqueue(t, q, job.New{LimitKey: "import"})
	}
	clock.advance(time.Hour)
	for _, k := range []string{"b", "c"} {
		enqueue(t, q, job.New{LimitKey: k})
		enqueue(t, q, job.New{LimitKey: k})
	}
	var order []string
	for range 6 { // one slot
		c := claimOne(t, q)
		order = append(order, *get(t, q, c.JobID).LimitKey)
		clock.advance(time.Second)
		finish(t, q, c.Lease, queue.Outcome{Kind: queue.Completed})
	}
	first, second := slices.Sorted(slices.Values(order[:3])), slices.Sorted(slices.Values(order[3:]))
	if want := []string{"b", "c", "import"}; !slices.Equal(first, want) || !slices.Equal(second, want) {
		t.Errorf("order %v: the old backlog of one key holds up the others", order)
	}
}

func TestAJobNobodyCanClaimDoesNotHoldUpItsKey(t *testing.T) {
	t.Parallel()
	q, _ := setup(t)
	setLimit(t, q, queue.Limit{Scope: queue.LimitKey, Name: "k", MaxRunning: atMost(1)})
	enqueue(t, q, job.New{LimitKey: "k", Type: "nobody.knows"})
	enqueue(t, q, job.New{LimitKey: "k", Queue: "paused"})
	if err := q.Pause(t.Context(), "paused"); err != nil {
		t.Fatal(err)
	}
	e := enqueue(t, q, job.New{LimitKey: "k"})
	if got := claim(t, q, 5); len(got) != 1 || got[0].JobID != e.ID {
		t.Errorf("claimed %+v", got)
	}
}

func TestAnUrgentJobOvertakesWithinItsKey(t *testing.T) {
	t.Parallel()
	q, _ := setup(t)
	setLimit(t, q, queue.Limit{Scope: queue.LimitKey, Name: "k", MaxRunning: atMost(1)})
	enqueue(t, q, job.New{LimitKey: "k"})
	c := claimOne(t, q)
	enqueue(t, q, job.New{LimitKey: "k"})
	finish(t, q, c.Lease, queue.Outcome{Kind: queue.Completed})
	if err := q.Pause(t.Context(), "default"); err != nil { // the next one is let in and not claimed
		t.Fatal(err)
	}
	claim(t, q, 1)
	urgent := enqueue(t, q, job.New{LimitKey: "k", Priority: 50})
	if err := q.Resume(t.Context(), "default"); err != nil {
		t.Fatal(err)
	}
	if got := claimOne(t, q); got.JobID != urgent.ID {
		t.Error("the urgent job did not go first")
	}
}

func TestPauseAndResume(t *testing.T) {
	t.Parallel()
	q, _ := setup(t)
	if err := q.Pause(t.Context(), "default"); err != nil {
		t.Fatal(err)
	}
	enqueue(t, q, job.New{})
	if got := claim(t, q, 1); len(got) != 0 {
		t.Errorf("claimed from a paused queue: %+v", got)
	}
	if err := q.Resume(t.Context(), "default"); err != nil {
		t.Fatal(err)
	}
	claimOne(t, q)
	var invalid *job.Invalid
	if err := q.Pause(t.Context(), "a\x00"); !errors.As(err, &invalid) {
		t.Errorf("%v", err)
	}
}

func TestASeededLimitIsAppliedOnce(t *testing.T) {
	t.Parallel()
	q, _ := setup(t)
	seed := func(n int64) int64 {
		t.Helper()
		if err := q.SeedLimits(t.Context(), []queue.Limit{{Scope: queue.LimitQueue, Name: "mail", MaxRunning: atMost(n)}}); err != nil {
			t.Fatal(err)
		}
		l, err := q.GetLimit(t.Context(), queue.LimitQueue, "mail")
		if err != nil {
			t.Fatal(err)
		}
		return *l.MaxRunning
	}
	if got := seed(5); got != 5 {
		t.Errorf("%d", got)
	}
	setLimit(t, q, queue.Limit{Scope: queue.LimitQueue, Name: "mail", MaxRunning: atMost(2)})
	if got := seed(5); got != 2 {
		t.Errorf("a restart undid what was set by hand: %d", got)
	}
	if got := seed(7); got != 7 {
		t.Errorf("a new configured value was not applied: %d", got)
	}
}

func TestLimitsAreCheckedBeforeTheyAreStored(t *testing.T) {
	t.Parallel()
	q, _ := setup(t)
	for field, l := range map[string]queue.Limit{
		"scope":       {Scope: "x", Name: "n", MaxRunning: atMost(1)},
		"name":        {Scope: "key", MaxRunning: atMost(1)},
		"max_running": {Scope: "key", Name: "n"},
		"interval":    {Scope: "type", Name: "n", MaxRunning: atMost(1), Interval: time.Second},
	} {
		var invalid *job.Invalid
		if err := q.SetLimit(t.Context(), l); !errors.As(err, &invalid) || invalid.Field != field {
			t.Errorf("%s: %v", field, err)
		}
	}
	if err := q.DropLimit(t.Context(), "key", "none"); !errors.Is(err, queue.ErrNoLimit) {
		t.Errorf("%v", err)
	}
}

func TestChains(t *testing.T) {
	t.Parallel()
	end := func(t *testing.T, q *queue.Queue, kind queue.Kind) {
		t.Helper()
		finish(t, q, claimOne(t, q).Lease, queue.Outcome{Kind: kind, Error: "x"})
	}
	t.Run("a report comes after all ingests, in one call", func(t *testing.T) {
		t.Parallel()
		q, _ := setup(t)
		a, b := q.NewID(), q.NewID()
		es, err := q.EnqueueMany(t.Context(), []job.New{{ID: a, Type: job.DebugEcho}, {ID: b, Type: job.DebugEcho}, {Type: job.DebugSleep, After: []string{a, b}}})
		if err != nil {
			t.Fatal(err)
		}
		end(t, q, queue.Completed)
		if got := claimOne(t, q); got.Type != job.DebugEcho || len(claim(t, q, 1)) != 0 {
			t.Fatal("the report was claimed before all had ended")
		} else {
			finish(t, q, got.Lease, queue.Outcome{Kind: queue.Completed})
		}
		if got := claimOne(t, q); got.JobID != es[2].ID {
			t.Errorf("claimed %+v", got)
		}
	})
	for _, test := range []struct {
		policy  job.AfterFailure
		kind    queue.Kind
		claimed bool
		state   job.State
	}{
		{"", queue.Completed, true, job.Running},
		{"", queue.Fatal, false, job.Canceled},
		{job.AfterRun, queue.Fatal, true, job.Running},
		{job.AfterWait, queue.Fatal, false, job.Queued},
	} {
		t.Run(fmt.Sprintf("%s when it %s", test.policy, test.kind), func(t *testing.T) {
			t.Parallel()
			q, _ := setup(t)
			first := enqueue(t, q, job.New{})
			second := enqueue(t, q, job.New{After: []string{first.ID}, AfterFailure: test.policy, Key: "k", KeyScope: job.ScopeActive})
			third := enqueue(t, q, job.New{After: []string{second.ID}})
			end(t, q, test.kind)
			if got := len(claim(t, q, 5)) == 1; got != test.claimed {
				t.Errorf("claimed: %v", got)
			}
			claim(t, q, 5) // what the first one's cancel has marked
			d := get(t, q, second.ID)
			if d.State != test.state {
				t.Errorf("%+v", d.Job)
			}
			if test.state == job.Canceled {
				if last := get(t, q, third.ID); last.State != job.Canceled || *last.LastError != "it was to come after job "+second.ID+", which was canceled" {
					t.Errorf("the one after it: %+v", last.Job)
				}
				if again := enqueue(t, q, job.New{Key: "k", KeyScope: job.ScopeActive}); again.Duplicate {
					t.Error("the canceled job keeps its key")
				}
			}
			if test.policy == job.AfterWait { // a retry that completes ends the wait
				if _, err := q.Retry(t.Context(), first.ID); err != nil {
					t.Fatal(err)
				}
				end(t, q, queue.Completed)
				if got := claimOne(t, q); got.JobID != second.ID {
					t.Errorf("claimed %+v", got)
				}
			}
		})
	}
	t.Run("after one that has ended already", func(t *testing.T) {
		t.Parallel()
		q, _ := setup(t)
		first := enqueue(t, q, job.New{})
		end(t, q, queue.Completed)
		n := job.New{ID: q.NewID(), Type: job.DebugEcho, After: []string{first.ID}}
		for range 2 { // a repeat is the same request
			enqueue(t, q, n)
		}
		if got := claimOne(t, q); got.JobID != n.ID {
			t.Errorf("claimed %+v", got)
		}
	})
	t.Run("after one that is not stored", func(t *testing.T) {
		t.Parallel()
		q, _ := setup(t)
		var invalid *job.Invalid
		_, err := q.EnqueueMany(t.Context(), []job.New{{Type: job.DebugEcho}, {Type: job.DebugEcho, After: []string{q.NewID()}}})
		if !errors.As(err, &invalid) || invalid.Code != "unknown_job" {
			t.Errorf("%v", err)
		}
		if got := claim(t, q, 9); len(got) != 0 {
			t.Errorf("stored in part: %+v", got)
		}
	})
	t.Run("after a duplicate in the same call comes after the first", func(t *testing.T) {
		t.Parallel()
		q, _ := setup(t)
		first := enqueue(t, q, job.New{Key: "k"})
		dup := q.NewID()
		es, err := q.EnqueueMany(t.Context(), []job.New{{ID: dup, Type: job.DebugEcho, Key: "k"}, {Type: job.DebugEcho, After: []string{dup}}})
		if err != nil || es[0].ID != first.ID {
			t.Fatalf("%+v, %v", es, err)
		}
		end(t, q, queue.Completed)
		if got := claimOne(t, q); got.JobID != es[1].ID {
			t.Errorf("claimed %+v", got)
		}
	})
	t.Run("with a time of its own", func(t *testing.T) {
		t.Parallel()
		q, clock := setup(t)
		first := enqueue(t, q, job.New{})
		second := enqueue(t, q, job.New{After: []string{first.ID}, Delay: time.Minute, LimitKey: "k"})
		setLimit(t, q, queue.Limit{Scope: queue.LimitKey, Name: "k", MaxRunning: atMost(1)})
		end(t, q, queue.Completed)
		if len(claim(t, q, 1)) != 0 {
			t.Error("claimed before its time")
		}
		clock.advance(time.Minute)
		if got := claimOne(t, q); got.JobID != second.ID {
			t.Errorf("claimed %+v", got)
		}
	})
	t.Run("cancel ends the wait", func(t *testing.T) {
		t.Parallel()
		q, _ := setup(t)
		first := enqueue(t, q, job.New{})
		second := enqueue(t, q, job.New{After: []string{first.ID}})
		if j, err := q.Cancel(t.Context(), second.ID); err != nil || j.State != job.Canceled {
			t.Fatalf("%+v, %v", j, err)
		}
		end(t, q, queue.Completed)
		if got := claim(t, q, 1); len(got) != 0 {
			t.Errorf("claimed %+v", got)
		}
	})
}

func TestStartsOfAKeyLieApartAlsoWhenItsJobsRunAlone(t *testing.T) {
	t.Parallel()
	q, clock := setup(t)
	setLimit(t, q, queue.Limit{Scope: queue.LimitKey, Name: "k", Interval: 10 * time.Second})
	enqueue(t, q, job.New{LimitKey: "k"})
	enqueue(t, q, job.New{LimitKey: "k"})
	var b libsql.Batch
	b.Exec("UPDATE jobs SET solo = 1, crashes = 3, wait_key = NULL, ready_key = NULL, not_before = created_at")
	if _, err := q.DB().Write(t.Context(), &b); err != nil {
		t.Fatal(err)
	}
	claim(t, q, 9) // finds nothing, and forgets the key: none of its jobs stands in line
	solo := func() bool {
		t.Helper()
		c, err := q.ClaimSolo(t.Context(), queue.ClaimRequest{Runner: "r1", Token: q.NewToken(), Types: job.Known().Names(), Lease: lease})
		if err != nil {
			t.Fatal(err)
		}
		return c != nil
	}
	if !solo() {
		t.Fatal("the first one may start")
	}
	clock.advance(9999 * time.Millisecond)
	claim(t, q, 9)
	if solo() {
		t.Fatal("a millisecond too early")
	}
	clock.advance(time.Millisecond)
	claim(t, q, 9) // settles the key
	if !solo() {
		t.Error("the second one may start")
	}
}

func TestAJobThatKillsItsRunnersRunsAloneAndIsThenPoisoned(t *testing.T) {
	t.Parallel()
	q, clock := setup(t)
	e := enqueue(t, q, job.New{Key: "k", KeyScope: job.ScopeActive})
	crash := func() queue.Rescued {
		t.Helper()
		clock.advance(lease + time.Second)
		got, err := q.Rescue(t.Context())
		if err != nil || len(got) != 1 {
			t.Fatalf("%+v, %v", got, err)
		}
		clock.advance(time.Hour)
		return got[0]
	}
	solo := func() *queue.Claimed {
		t.Helper()
		if got := claim(t, q, 9); len(got) != 0 {
			t.Fatalf("claimed beside others: %+v", got)
		}
		c, err := q.ClaimSolo(t.Context(), queue.ClaimRequest{Runner: "r1", Token: q.NewToken(), Types: job.Known().Names(), Lease: lease})
		if err != nil || c == nil || c.JobID != e.ID {
			t.Fatalf("%+v, %v", c, err)
		}
		return c
	}
	for i := range 3 {
		claimOne(t, q)
		if r := crash(); r.Crashes != int64(i+1) || r.Solo != (i == 2) {
			t.Fatalf("rescued %+v", r)
		}
	}
	if s, err := q.Look(t.Context()); err != nil || !s.Suspect {
		t.Fatalf("%+v, %v", s, err)
	}
	solo() // its runner dies before the job begins to run: not the job's fault
	if r := crash(); r.Crashes != 3 || !r.Solo || r.State != job.Queued {
		t.Fatalf("rescued %+v", r)
	}
	c := solo() // handed back: its turn comes again
	finish(t, q, c.Lease, queue.Outcome{Kind: queue.HandedBack, Delay: time.Minute})
	clock.advance(time.Minute)
	c = solo()
	if err := q.BeginSolo(t.Context(), c.Lease); err != nil {
		t.Fatal(err)
	}
	var b libsql.Batch
	b.Exec("INSERT INTO job_steps(job_id, name, run, outcome, started_at, created_at, updated_at) VALUES (?, 'send', 4, 'running', 1, 1, 1)", e.ID)
	if _, err := q.DB().Write(t.Context(), &b); err != nil {
		t.Fatal(err)
	}
	if r := crash(); r.State != job.Failed {
		t.Fatalf("rescued %+v", r)
	}
	d := get(t, q, e.ID)
	if *d.LastError != "poisoned: 4 runners died while they ran this job, the last one while it ran alone; its last step was send" ||
		d.Attempts != 4 || d.Crashes != 4 || d.Failures != 0 || len(d.Steps) != 1 || d.Runs[len(d.Runs)-1].Outcome != "poisoned" {
		t.Errorf("%+v", d)
	}
	if again := enqueue(t, q, job.New{Key: "k", KeyScope: job.ScopeActive}); again.Duplicate {
		t.Error("a poisoned job keeps its key")
	}
}

func TestASoloRunThatEndsByItselfIsAnOrdinaryJobAgain(t *testing.T) {
	t.Parallel()
	q, clock := setup(t)
	e := enqueue(t, q, job.New{})
	for range 3 {
		claimOne(t, q)
		clock.advance(lease + time.Second)
		if _, err := q.Rescue(t.Context()); err != nil {
			t.Fatal(err)
		}
		clock.advance(time.Hour)
	}
	c, err := q.ClaimSolo(t.Context(), queue.ClaimRequest{Runner: "r1", Token: q.NewToken(), Types: job.Known().Names(), Lease: lease})
	if err != nil || c == nil {
		t.Fatal(c, err)
	}
	if err := q.BeginSolo(t.Context(), c.Lease); err != nil {
		t.Fatal(err)
	}
	finish(t, q, c.Lease, queue.Outcome{Kind: queue.Failed, Error: "x", Delay: time.Second})
	clock.advance(time.Second)
	if got := claimOne(t, q); got.JobID != e.ID {
		t.Errorf("claimed %+v", got)
	}
}

func TestManyKeysAreSettledInBoundedBatches(t *testing.T) {
	t.Parallel()
	q, _ := setup(t)
	setLimit(t, q, queue.Limit{Scope: queue.LimitKey, Name: queue.EachKey, MaxRunning: atMost(1)})
	const keys = 1200 // more than two batches
	for range 2 {
		jobs := make([]job.New, keys)
		for i := range jobs {
			jobs[i] = job.New{Type: job.DebugEcho, LimitKey: fmt.Sprintf("key %d", i)}
		}
		if _, err := q.EnqueueMany(t.Context(), jobs); err != nil {
			t.Fatal(err)
		}
	}
	// A worker claims as long as the queue says that there is more.
	drain := func() (all []queue.Claimed) {
		t.Helper()
		for more := true; more; {
			all = append(all, claim(t, q, 100)...)
			select {
			case <-q.Ready():
			default:
				more = false
			}
			if s, err := q.Look(t.Context()); err != nil {
				t.Fatal(err)
			} else if s.Ready {
				more = true
			}
		}
		return all
	}
	for range 2 {
		all := drain()
		if len(all) != keys {
			t.Fatalf("claimed %d, want one of each of %d keys", len(all), keys)
		}
		for _, c := range all {
			finish(t, q, c.Lease, queue.Outcome{Kind: queue.Completed})
		}
	}
	if got := count(t, q, "limit_keys"); got != 0 {
		claim(t, q, 1)
	}
}

func TestAJobThatCannotRunAloneNowIsNoReasonToLookAtOnce(t *testing.T) {
	t.Parallel()
	q, clock := setup(t)
	enqueue(t, q, job.New{})
	for range 3 {
		claimOne(t, q)
		clock.advance(lease + time.Second)
		if _, err := q.Rescue(t.Context()); err != nil {
			t.Fatal(err)
		}
		clock.advance(time.Hour)
	}
	if err := q.Pause(t.Context(), job.DefaultQueue); err != nil {
		t.Fatal(err)
	}
	s, err := q.Look(t.Context())
	if err != nil || !s.Suspect || s.NextDue != nil {
		t.Errorf("%+v, %v; want a suspect and nothing that becomes due: a runner that looked at once would find the same for ever", s, err)
	}
}

func TestANegativePriorityIsWaitedForOnce(t *testing.T) {
	t.Parallel()
	q, clock := setup(t)
	setLimit(t, q, queue.Limit{Scope: queue.LimitKey, Name: "a", MaxRunning: atMost(1)})
	low := enqueue(t, q, job.New{LimitKey: "a", Priority: -100}) // as if it came 50 min later
	clock.advance(time.Hour)
	enqueue(t, q, job.New{})
	if got := claimOne(t, q); got.JobID != low.ID {
		t.Error("a job that was stored an hour later went first")
	}
}
