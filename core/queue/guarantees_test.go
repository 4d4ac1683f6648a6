package queue_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/postroom/postroom/core/internal/dbtest"
	"github.com/postroom/postroom/core/job"
	"github.com/postroom/postroom/core/libsql"
	"github.com/postroom/postroom/core/queue"
	"github.com/postroom/postroom/core/system"
)

func TestEveryJobIsClaimedOnceByManyRunners(t *testing.T) {
	t.Parallel()
	path := dbtest.Path(t)
	const jobs, runners = 400, 4
	var all []job.New
	for range jobs {
		all = append(all, job.New{Type: job.DebugEcho})
	}
	seed := queue.New(dbtest.OpenPath(t, path), system.Real{}, job.Known())
	if _, err := seed.EnqueueMany(t.Context(), all); err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	claimed := map[string]int{}
	var wg sync.WaitGroup
	for range runners {
		q := queue.New(dbtest.OpenPath(t, path), system.Real{}, job.Known()) // a handle of its own: another writer
		wg.Go(func() {
			for {
				got := claim(t, q, 7)
				if len(got) == 0 {
					return
				}
				mu.Lock()
				for _, c := range got {
					claimed[c.JobID]++
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if len(claimed) != jobs {
		t.Errorf("%d of %d jobs were claimed", len(claimed), jobs)
	}
	for id, n := range claimed {
		if n != 1 {
			t.Errorf("job %s was claimed %d times", id, n)
		}
	}
}

func TestOrderIsPriorityThenAge(t *testing.T) {
	t.Parallel()
	q, clock := setup(t)
	name := map[string]string{}
	add := func(n string, priority int) { // each in a queue of its own: the order holds across them
		name[enqueue(t, q, job.New{Priority: priority, Queue: n}).ID] = n
	}
	add("patient", -1) // 30 s younger than it is
	add("old", 0)
	clock.advance(10 * time.Second)
	add("urgent", 1) // 30 s older than it is: before old
	add("young", 0)
	clock.advance(40 * time.Second)
	add("late urgent", 1) // 50 s younger than old, so 20 s behind it
	var order []string
	for range 3 { // two at a time: the order decides who is in which claim
		for _, c := range claim(t, q, 2) {
			order = append(order, name[c.JobID])
		}
	}
	if got, want := strings.Join(order, ", "), "urgent, old, young, late urgent, patient"; got != want {
		t.Errorf("claimed %s; want %s", got, want)
	}
}

func TestJobsOfOneMillisecondGoInTheOrderTheyWereStored(t *testing.T) {
	t.Parallel()
	q, _ := setup(t) // the clock stands still
	var want []string
	for _, key := range []string{"b", "", "a", "b", ""} { // whatever else tells them apart
		want = append(want, enqueue(t, q, job.New{LimitKey: key}).ID)
	}
	var got []string
	for range want {
		got = append(got, claimOne(t, q).JobID)
	}
	if !slices.Equal(got, want) {
		t.Errorf("claimed %v; want %v", got, want)
	}
}

func TestNothingStartsBeforeItsTime(t *testing.T) {
	t.Parallel()
	q, clock := setup(t)
	at := time.UnixMilli(clock.ms).Add(time.Minute)
	e := enqueue(t, q, job.New{NotBefore: at})
	enqueue(t, q, job.New{Delay: 2 * time.Minute})
	c, err := q.Claim(t.Context(), queue.ClaimRequest{Runner: "r", Token: q.NewToken(), Types: job.Known().Names(), Limit: 9, Lease: lease})
	if err != nil || len(c.Jobs) != 0 || c.NextDue == nil || *c.NextDue != time.Minute {
		t.Fatalf("claimed %+v, %v; want nothing, and the next due in a minute", c, err)
	}
	clock.advance(time.Minute)
	if got := claimOne(t, q); got.JobID != e.ID {
		t.Errorf("claimed %s, want the one that is due", got.JobID)
	}
	if d := get(t, q, e.ID); d.NotBefore.Time() != at.UTC() {
		t.Errorf("not_before is %v, want %v as it was given", d.NotBefore, at)
	}
}

func TestATypeThatNobodyKnowsWaits(t *testing.T) {
	t.Parallel()
	q, _ := setup(t)
	enqueue(t, q, job.New{Type: "from.the.future"})
	known := enqueue(t, q, job.New{})
	if got := claim(t, q, 10); len(got) != 1 || got[0].JobID != known.ID {
		t.Errorf("claimed %+v", got)
	}
	types, err := q.UnknownTypes(t.Context())
	if err != nil || len(types) == 0 || types[0] != "from.the.future" {
		t.Errorf("unknown types %v, %v", types, err)
	}
}

func TestARunnerWorksOnlyItsQueues(t *testing.T) {
	t.Parallel()
	q, _ := setup(t)
	enqueue(t, q, job.New{Queue: "a"})
	b := enqueue(t, q, job.New{Queue: "b"})
	c, err := q.Claim(t.Context(), queue.ClaimRequest{Runner: "r", Token: q.NewToken(), Types: job.Known().Names(), Queues: []string{"b", "none"}, Limit: 9, Lease: lease})
	if err != nil || len(c.Jobs) != 1 || c.Jobs[0].JobID != b.ID {
		t.Errorf("claimed %+v, %v", c.Jobs, err)
	}
}

func TestALostReplyIsResolvedByRepeating(t *testing.T) {
	t.Parallel()
	t.Run("enqueue with the same id", func(t *testing.T) {
		t.Parallel()
		q, _ := setup(t)
		n := job.New{ID: q.NewID(), Type: job.DebugEcho, Key: "k"}
		first := enqueue(t, q, n)
		if again := enqueue(t, q, n); again != first || again.Duplicate {
			t.Errorf("the repeat gave %+v, the first call %+v", again, first)
		}
		n.Type = job.DebugSleep
		if _, err := q.Enqueue(t.Context(), n); !errors.Is(err, queue.ErrIDInUse) {
			t.Errorf("the id for another type: %v", err)
		}
	})
	t.Run("claim", func(t *testing.T) {
		t.Parallel()
		q, _ := setup(t)
		enqueue(t, q, job.New{})
		c := claimOne(t, q)
		got, err := q.ClaimedBy(t.Context(), c.Token, c.Deadline)
		if err != nil || len(got) != 1 || got[0].JobID != c.JobID || got[0].Run != c.Run {
			t.Errorf("%+v, %v", got, err)
		}
	})
	for name, o := range map[string]queue.Outcome{
		"complete": {Kind: queue.Completed, Result: json.RawMessage("1")},
		"fail":     {Kind: queue.Failed, Error: "x", Delay: time.Hour},
		"fatal":    {Kind: queue.Fatal, Error: "x"},
		"snooze":   {Kind: queue.Snoozed, Delay: time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			q, _ := setup(t)
			e := enqueue(t, q, job.New{})
			c := claimOne(t, q)
			first := finish(t, q, c.Lease, o)
			before := get(t, q, e.ID)
			if again := finish(t, q, c.Lease, o); again != first {
				t.Errorf("the repeat gave %s, the first call %s", again, first)
			}
			if after := get(t, q, e.ID); fmt.Sprint(*after) != fmt.Sprint(*before) && after.Attempts != before.Attempts {
				t.Errorf("the repeat changed the job: %+v, before %+v", after, before)
			}
		})
	}
}

func TestHandOverIsAllOrNothing(t *testing.T) {
	t.Parallel()
	q, clock := setup(t)
	parent := enqueue(t, q, job.New{})
	c := claimOne(t, q)
	var child string
	fill := func(b *queue.Batch) {
		child = b.Enqueue(job.New{ID: "0193f1a0-8c5e-7abc-8def-0123456789ab", Type: job.DebugSleep})
		b.Exec("INSERT INTO directions(id, content, created_at, updated_at) VALUES (?, ?, 1, 1) ON CONFLICT DO NOTHING", "d1", []byte("x"))
	}
	if err := q.Commit(t.Context(), c.Lease, json.RawMessage(`{"ok":true}`), fill); err != nil {
		t.Fatal(err)
	}
	if d := get(t, q, parent.ID); d.State != job.Completed || string(d.Result) != `{"ok":true}` {
		t.Errorf("parent %+v", d)
	}
	if d := get(t, q, child); d.State != job.Queued || d.ParentID == nil || *d.ParentID != parent.ID {
		t.Errorf("child %+v", d)
	}
	if err := q.Commit(t.Context(), c.Lease, json.RawMessage(`{"ok":true}`), fill); err != nil {
		t.Errorf("the repeat after a lost reply: %v", err)
	}

	other := enqueue(t, q, job.New{Type: job.DebugEcho})
	stale := claimOne(t, q)
	for stale.JobID != other.ID {
		stale = claimOne(t, q)
	}
	clock.advance(lease + time.Second)
	if _, err := q.Rescue(t.Context()); err != nil {
		t.Fatal(err)
	}
	err := q.Commit(t.Context(), stale.Lease, nil, func(b *queue.Batch) {
		b.Exec("INSERT INTO directions(id, content, created_at, updated_at) VALUES (?, ?, 1, 1)", "d2", []byte("x"))
	})
	if !errors.Is(err, queue.ErrLeaseLost) {
		t.Errorf("a commit under a lost lease: %v", err)
	}
	res, rerr := q.DB().Read(t.Context(), libsql.Query("SELECT count(*) FROM directions"))
	if rerr != nil || res[0].Rows[0].Int(0) != 1 {
		t.Errorf("%d rows, %v; want only the first commit's", res[0].Rows[0].Int(0), rerr)
	}
}

func TestSnoozeAndHandBackSpendNothing(t *testing.T) {
	t.Parallel()
	q, clock := setup(t)
	e := enqueue(t, q, job.New{MaxAttempts: 1})
	for range 3 {
		finish(t, q, claimOne(t, q).Lease, queue.Outcome{Kind: queue.Snoozed, Delay: time.Minute})
		clock.advance(time.Minute)
		finish(t, q, claimOne(t, q).Lease, queue.Outcome{Kind: queue.HandedBack})
	}
	d := get(t, q, e.ID)
	if d.Attempts != 0 || d.Failures != 0 || d.State != job.Queued {
		t.Errorf("job %+v", d)
	}
	if c := claimOne(t, q); c.Attempt != 1 || c.Run != 7 {
		t.Errorf("attempt %d, run %d; want 1 and 7", c.Attempt, c.Run)
	}
}

func TestOnlyTheLastOfARowOfSnoozesIsKept(t *testing.T) {
	t.Parallel()
	q, clock := setup(t)
	e := enqueue(t, q, job.New{})
	for range 5 {
		finish(t, q, claimOne(t, q).Lease, queue.Outcome{Kind: queue.Snoozed, Delay: time.Second})
		clock.advance(time.Second)
	}
	if d := get(t, q, e.ID); len(d.Runs) != 1 || d.Runs[0].Run != 5 {
		t.Errorf("runs %+v", d.Runs)
	}
}

func TestCancel(t *testing.T) {
	t.Parallel()
	t.Run("a queued job ends at once and frees its key", func(t *testing.T) {
		t.Parallel()
		q, _ := setup(t)
		e := enqueue(t, q, job.New{Key: "k", KeyScope: job.ScopeActive})
		for range 2 { // a repeat changes nothing
			if j, err := q.Cancel(t.Context(), e.ID); err != nil || j.State != job.Canceled || j.FinishedAt == nil {
				t.Fatalf("%+v, %v", j, err)
			}
		}
		if again := enqueue(t, q, job.New{Key: "k", KeyScope: job.ScopeActive}); again.Duplicate {
			t.Error("the key of a canceled job is still held")
		}
		if got := claim(t, q, 9); len(got) != 1 || got[0].JobID == e.ID {
			t.Errorf("claimed %+v", got)
		}
	})
	t.Run("a running job is asked, and canceled when it gives up", func(t *testing.T) {
		t.Parallel()
		q, _ := setup(t)
		e := enqueue(t, q, job.New{})
		c := claimOne(t, q)
		if j, err := q.Cancel(t.Context(), e.ID); err != nil || j.State != job.Running || j.CancelRequestedAt == nil {
			t.Fatalf("%+v, %v", j, err)
		}
		ids, err := q.CancelRequested(t.Context(), "r1")
		if err != nil || len(ids) != 1 || ids[0] != e.ID {
			t.Errorf("cancel requests %v, %v", ids, err)
		}
		beats, err := q.Heartbeat(t.Context(), []queue.Lease{c.Lease}, lease)
		if err != nil || !beats[0].Held || !beats[0].CancelRequested {
			t.Errorf("%+v, %v", beats, err)
		}
		if s := finish(t, q, c.Lease, queue.Outcome{Kind: queue.Failed, Error: "context canceled"}); s != job.Canceled {
			t.Errorf("state %s", s)
		}
	})
	t.Run("one that completes all the same is completed", func(t *testing.T) {
		t.Parallel()
		q, _ := setup(t)
		e := enqueue(t, q, job.New{})
		c := claimOne(t, q)
		if _, err := q.Cancel(t.Context(), e.ID); err != nil {
			t.Fatal(err)
		}
		if s := finish(t, q, c.Lease, queue.Outcome{Kind: queue.Completed}); s != job.Completed {
			t.Errorf("state %s", s)
		}
		if _, err := q.Cancel(t.Context(), e.ID); !errors.Is(err, queue.ErrInvalidState) {
			t.Errorf("canceling a completed job: %v", err)
		}
	})
	t.Run("one whose runner died is canceled by the rescue", func(t *testing.T) {
		t.Parallel()
		q, clock := setup(t)
		e := enqueue(t, q, job.New{Key: "k", KeyScope: job.ScopeActive})
		claimOne(t, q)
		if _, err := q.Cancel(t.Context(), e.ID); err != nil {
			t.Fatal(err)
		}
		clock.advance(lease + time.Second)
		got, err := q.Rescue(t.Context())
		if err != nil || len(got) != 1 || got[0].State != job.Canceled {
			t.Fatalf("%+v, %v", got, err)
		}
		if again := enqueue(t, q, job.New{Key: "k", KeyScope: job.ScopeActive}); again.Duplicate {
			t.Error("the key is still held")
		}
	})
	t.Run("no such job", func(t *testing.T) {
		t.Parallel()
		q, _ := setup(t)
		if _, err := q.Cancel(t.Context(), "none"); !errors.Is(err, queue.ErrNotFound) {
			t.Errorf("%v", err)
		}
	})
}

func TestRetryByHand(t *testing.T) {
	t.Parallel()
	q, clock := setup(t)
	e := enqueue(t, q, job.New{Key: "k", KeyScope: job.ScopeActive, MaxAttempts: 1})
	if _, err := q.Retry(t.Context(), e.ID); !errors.Is(err, queue.ErrInvalidState) {
		t.Errorf("retrying a queued job: %v", err)
	}
	finish(t, q, claimOne(t, q).Lease, queue.Outcome{Kind: queue.Failed, Error: "x"})
	clock.advance(time.Hour)
	if j, err := q.Retry(t.Context(), e.ID); err != nil || j.State != job.Queued || j.Failures != 0 || j.FinishedAt != nil {
		t.Fatalf("%+v, %v", j, err)
	}
	if dup := enqueue(t, q, job.New{Key: "k", KeyScope: job.ScopeActive}); !dup.Duplicate || dup.ID != e.ID {
		t.Errorf("the retried job does not hold its key again: %+v", dup)
	}
	finish(t, q, claimOne(t, q).Lease, queue.Outcome{Kind: queue.Fatal, Error: "x"})
	other := enqueue(t, q, job.New{Key: "k", KeyScope: job.ScopeActive})
	if _, err := q.Retry(t.Context(), e.ID); !errors.Is(err, queue.ErrKeyInUse) {
		t.Errorf("retrying while %s holds the key: %v", other.ID, err)
	}
	if d := get(t, q, e.ID); d.State != job.Failed || d.Attempts != 2 {
		t.Errorf("the refused retry changed the job: %+v", d)
	}
}

func TestALateHeartbeatRevivesTheLease(t *testing.T) {
	t.Parallel()
	q, clock := setup(t)
	enqueue(t, q, job.New{})
	c := claimOne(t, q)
	clock.advance(lease + time.Second)
	beats, err := q.Heartbeat(t.Context(), []queue.Lease{c.Lease}, lease)
	if err != nil || !beats[0].Held {
		t.Fatalf("%+v, %v", beats, err)
	}
	if got, err := q.Rescue(t.Context()); err != nil || len(got) != 0 {
		t.Errorf("rescued %+v, %v", got, err)
	}
}

func TestRescueDelaysDouble(t *testing.T) {
	t.Parallel()
	q, clock := setup(t)
	e := enqueue(t, q, job.New{})
	for i := range 3 {
		claimOne(t, q)
		clock.advance(lease + time.Second)
		if got, err := q.Rescue(t.Context()); err != nil || len(got) != 1 {
			t.Fatalf("%+v, %v", got, err)
		}
		wait := 2 * time.Second << i
		clock.advance(wait - time.Millisecond)
		if got := claim(t, q, 1); len(got) != 0 {
			t.Fatalf("claimed before %s were over", wait)
		}
		clock.advance(time.Millisecond)
	}
	if d := get(t, q, e.ID); d.Crashes != 3 || d.Failures != 0 {
		t.Errorf("job %+v", d)
	}
}

// A job that never ends by itself is not poisoned by the few runners that die
// in its life.
func TestASnoozeForgetsCrashes(t *testing.T) {
	t.Parallel()
	q, clock := setup(t)
	e := enqueue(t, q, job.New{})
	for range 2 {
		for range 2 {
			claimOne(t, q)
			clock.advance(lease + time.Second)
			if got, err := q.Rescue(t.Context()); err != nil || len(got) != 1 || got[0].Solo {
				t.Fatalf("%+v, %v", got, err)
			}
			clock.advance(time.Minute)
		}
		finish(t, q, claimOne(t, q).Lease, queue.Outcome{Kind: queue.Snoozed})
		if d := get(t, q, e.ID); d.Crashes != 0 {
			t.Errorf("%d crashes", d.Crashes)
		}
	}
}

func TestAClaimWithATokenThatCannotBeWrittenBackIsRefused(t *testing.T) {
	t.Parallel()
	q, _ := setup(t)
	e := enqueue(t, q, job.New{})
	for _, token := range []string{"", strings.Repeat("x", queue.TokenLength+1)} {
		r := queue.ClaimRequest{Runner: "r", Token: token, Types: []string{get(t, q, e.ID).Type}, Limit: 1, Lease: lease}
		if got, err := q.Claim(t.Context(), r); err == nil {
			t.Errorf("%q claimed %+v", token, got)
		}
		if got, err := q.ClaimSolo(t.Context(), r); err == nil {
			t.Errorf("%q claimed %+v", token, got)
		}
	}
}

func TestAKeyThatOutlivesItsJob(t *testing.T) {
	t.Parallel()
	q, _ := setup(t)
	e := enqueue(t, q, job.New{Key: "k", KeyScope: job.ScopeForever})
	finish(t, q, claimOne(t, q).Lease, queue.Outcome{Kind: queue.Completed})
	var b libsql.Batch // as retention will
	b.Exec("DELETE FROM jobs")
	if _, err := q.DB().Write(t.Context(), &b); err != nil {
		t.Fatal(err)
	}
	if again := enqueue(t, q, job.New{Key: "k", KeyScope: job.ScopeForever}); !again.Duplicate || !again.Pruned || again.ID != e.ID {
		t.Errorf("%+v, want the pruned duplicate of %s", again, e.ID)
	}
}

func TestConcurrentEnqueuesOfOneKeyMakeOneJob(t *testing.T) {
	t.Parallel()
	q, _ := setup(t)
	ids := make(chan queue.Enqueued, 50)
	var wg sync.WaitGroup
	for range cap(ids) {
		wg.Go(func() { ids <- enqueue(t, q, job.New{Key: "k"}) })
	}
	wg.Wait()
	close(ids)
	first, fresh := "", 0
	for e := range ids {
		if first == "" {
			first = e.ID
		}
		if e.ID != first {
			t.Errorf("two ids for one key: %s and %s", e.ID, first)
		}
		if !e.Duplicate {
			fresh++
		}
	}
	if fresh != 1 {
		t.Errorf("%d callers made the job, want 1", fresh)
	}
}

func TestBadInputIsRefusedBeforeItJoinsAGroup(t *testing.T) {
	t.Parallel()
	q, _ := setup(t)
	deep := strings.Repeat("[", 501) + strings.Repeat("]", 501)
	for name, test := range map[string]struct {
		n           job.New
		field, code string
	}{
		"no type":             {job.New{}, "type", "invalid"},
		"a NUL in the key":    {job.New{Type: "x", Key: "a\x00b"}, "idempotency_key", "invalid"},
		"a Latin-1 byte":      {job.New{Type: "x", Payload: json.RawMessage("\"caf\xe9\"")}, "payload", "invalid_utf8"},
		"no JSON":             {job.New{Type: "x", Payload: json.RawMessage("{")}, "payload", "invalid"},
		"deep JSON":           {job.New{Type: "x", Payload: json.RawMessage(deep)}, "payload", "invalid"},
		"a large payload":     {job.New{Type: "x", Payload: json.RawMessage(`"` + strings.Repeat("x", 1<<20) + `"`)}, "payload", "invalid"},
		"priority":            {job.New{Type: "x", Priority: 101}, "priority", "invalid"},
		"an id that is none":  {job.New{Type: "x", ID: "1"}, "id", "invalid"},
		"a scope and no key":  {job.New{Type: "x", KeyScope: job.ScopeForever}, "key_scope", "invalid"},
		"delay and instant":   {job.New{Type: "x", Delay: 1, NotBefore: time.Unix(1, 0)}, "delay", "invalid"},
		"a queue in Latin-1":  {job.New{Type: "x", Queue: "\xe9"}, "queue", "invalid_utf8"},
		"ttl with a scope":    {job.New{Type: "x", Key: "k", KeyScope: job.ScopeActive, KeyTTL: time.Hour}, "key_ttl", "invalid"},
		"negative attempts":   {job.New{Type: "x", MaxAttempts: -1}, "max_attempts", "invalid"},
		"a year beyond 9999":  {job.New{Type: "x", NotBefore: time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC)}, "not_before", "invalid"},
		"a type with a break": {job.New{Type: "a\nb"}, "type", "invalid"},
	} {
		_, err := q.Enqueue(t.Context(), test.n)
		var inv *job.Invalid
		if !errors.As(err, &inv) || inv.Field != test.field || inv.Code != test.code {
			t.Errorf("%s: %v, want %s in %s", name, err, test.code, test.field)
		}
	}
	_, err := q.EnqueueMany(t.Context(), []job.New{{Type: "x"}, {Type: ""}})
	if err == nil || !strings.HasPrefix(err.Error(), "jobs[1].type: ") {
		t.Errorf("the second of two: %v", err)
	}
	if p, err := q.List(t.Context(), queue.Filter{}, 9, 0); err != nil || len(p.Jobs) != 0 {
		t.Errorf("%d jobs were stored, %v", len(p.Jobs), err)
	}
}

func TestHandlersTextIsRepaired(t *testing.T) {
	t.Parallel()
	q, _ := setup(t)
	e := enqueue(t, q, job.New{})
	c := claimOne(t, q)
	finish(t, q, c.Lease, queue.Outcome{Kind: queue.Failed, Error: "caf\xe9\x00 2024-01-02", Delay: time.Hour})
	if d := get(t, q, e.ID); *d.LastError != "caf\uFFFD\uFFFD 2024-01-02" {
		t.Errorf("last error %q", *d.LastError)
	}
}

func TestListsAreNewestFirstInPages(t *testing.T) {
	t.Parallel()
	q, _ := setup(t)
	var want []string
	for i := range 5 {
		want = append([]string{enqueue(t, q, job.New{Key: fmt.Sprintf("k%d", i), Queue: "q"}).ID}, want...)
	}
	enqueue(t, q, job.New{Queue: "other"})
	var got []string
	cursor := int64(0)
	for pages := 0; ; pages++ {
		p, err := q.List(t.Context(), queue.Filter{Queue: "q"}, 2, cursor)
		if err != nil || p.Partial {
			t.Fatalf("%+v, %v", p, err)
		}
		for _, j := range p.Jobs {
			got = append(got, j.ID)
		}
		if p.Next == 0 {
			break
		}
		cursor = p.Next
	}
	if strings.Join(got, " ") != strings.Join(want, " ") {
		t.Errorf("listed %v, want %v", got, want)
	}
	p, err := q.List(t.Context(), queue.Filter{Key: "k3"}, 2, 0)
	if err != nil || len(p.Jobs) != 1 || *p.Jobs[0].IdempotencyKey != "k3" {
		t.Errorf("by key: %+v, %v", p, err)
	}
}

// The counts that queues show are kept with the claims, some entries of the log
// behind, and are those of the jobs all the same.
func TestCountsAreThoseOfTheJobs(t *testing.T) {
	t.Parallel()
	q, clock := setup(t)
	check := func(when string) {
		t.Helper()
		rep, err := q.Verify(t.Context())
		if err != nil || len(rep.Violations) > 0 {
			t.Fatalf("%s: %+v, %v", when, rep.Violations, err)
		}
	}
	shown := func() string {
		t.Helper()
		list, err := q.Queues(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var out []string
		for _, d := range list {
			out = append(out, fmt.Sprint(d.Name, " ", d.Depth))
		}
		return strings.Join(out, "; ")
	}
	jobs := make([]job.New, 150)
	for i := range jobs {
		jobs[i] = job.New{Type: job.DebugEcho, Queue: []string{"a", "b"}[i%2], MaxAttempts: 1}
	}
	if _, err := q.EnqueueMany(t.Context(), jobs); err != nil {
		t.Fatal(err)
	}
	check("nothing is in the counts")
	got := claim(t, q, 60) // takes the log in
	check("some is")
	for i, c := range got[:40] {
		finish(t, q, c.Lease, queue.Outcome{Kind: []queue.Kind{queue.Completed, queue.Failed, queue.Snoozed, queue.HandedBack}[i%4]})
	}
	check("jobs ended")
	if want := "a map[canceled:0 completed:10 failed:0 queued:55 running:10]; b map[canceled:0 completed:0 failed:10 queued:55 running:10]"; shown() != want {
		t.Errorf("%s\nwant %s", shown(), want)
	}
	clock.advance(4 * time.Hour)
	if n, err := q.Prune(t.Context(), retention, 100); err != nil || n != 20 {
		t.Fatalf("%d pruned, %v", n, err)
	}
	check("jobs are gone whose end is not counted")
	for range 3 {
		claim(t, q, 60)
		check("the rest is claimed")
	}
	if want := "a map[canceled:0 completed:0 failed:0 queued:0 running:65]; b map[canceled:0 completed:0 failed:0 queued:0 running:65]"; shown() != want {
		t.Errorf("%s\nwant %s", shown(), want)
	}
}

func TestQueuesShowTheirDepth(t *testing.T) {
	t.Parallel()
	q, clock := setup(t)
	enqueue(t, q, job.New{Queue: "a"})
	enqueue(t, q, job.New{Queue: "a", Delay: time.Hour})
	enqueue(t, q, job.New{Queue: "b"})
	claim(t, q, 1)
	clock.advance(5 * time.Second)
	list, err := q.Queues(t.Context())
	if err != nil || len(list) != 2 || list[0].Name != "a" || list[0].Depth[job.Running] != 1 || list[0].Depth[job.Queued] != 1 || list[1].OldestWaitingFor != 5000 {
		t.Errorf("%+v, %v", list, err)
	}
}
