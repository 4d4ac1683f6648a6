package queue_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/postroom/postroom/core/internal/dbtest"
	"github.com/postroom/postroom/core/job"
	"github.com/postroom/postroom/core/libsql"
	"github.com/postroom/postroom/core/queue"
	"github.com/postroom/postroom/core/system"
)

// setup returns a queue over a fresh database whose clock stands still until
// advance moves it.
func setup(t *testing.T) (*queue.Queue, *clock) {
	t.Helper()
	db := dbtest.Open(t)
	c := &clock{t: t, db: db}
	c.set(1_700_000_000_000)
	return queue.New(db, system.Real{}, job.Known()), c
}

// clock replaces the database's view of the time.
type clock struct {
	t  *testing.T
	db libsql.DB
	ms int64
}

func (c *clock) set(ms int64) {
	c.t.Helper()
	c.ms = ms
	var b libsql.Batch
	b.Exec("DROP VIEW IF EXISTS db_clock")
	b.Exec("CREATE TABLE IF NOT EXISTS test_clock(ms INTEGER)")
	b.Exec("DELETE FROM test_clock")
	b.Exec("INSERT INTO test_clock VALUES (?)", ms)
	b.Exec("CREATE VIEW db_clock(ms) AS SELECT ms FROM test_clock")
	if _, err := c.db.Write(c.t.Context(), &b); err != nil {
		c.t.Fatalf("set the clock: %v", err)
	}
}

func (c *clock) advance(d time.Duration) {
	c.t.Helper()
	c.set(c.ms + d.Milliseconds())
}

const lease = time.Minute

func enqueue(t *testing.T, q *queue.Queue, n job.New) queue.Enqueued {
	t.Helper()
	if n.Type == "" {
		n.Type = job.DebugEcho
	}
	e, err := q.Enqueue(t.Context(), n)
	if err != nil {
		t.Fatalf("enqueue: %v", err)
	}
	return e
}

func claim(t *testing.T, q *queue.Queue, limit int) []queue.Claimed {
	t.Helper()
	c, err := q.Claim(t.Context(), queue.ClaimRequest{
		Runner: "r1", Token: q.NewToken(), Types: job.Known().Names(), Limit: limit, Lease: lease,
	})
	if err != nil {
		t.Fatalf("claim: %v", err)
	}
	return c.Jobs
}

func claimOne(t *testing.T, q *queue.Queue) queue.Claimed {
	t.Helper()
	jobs := claim(t, q, 1)
	if len(jobs) != 1 {
		t.Fatalf("claimed %d jobs, want 1", len(jobs))
	}
	return jobs[0]
}

func finish(t *testing.T, q *queue.Queue, l queue.Lease, o queue.Outcome) job.State {
	t.Helper()
	s, err := q.Finish(t.Context(), l, o)
	if err != nil {
		t.Fatalf("finish: %v", err)
	}
	return s
}

func get(t *testing.T, q *queue.Queue, id string) *queue.Detail {
	t.Helper()
	d, err := q.Detail(t.Context(), id)
	if err != nil {
		t.Fatalf("get: %v", err)
	}
	return d
}

func TestLifeOfAJob(t *testing.T) {
	t.Parallel()
	q, _ := setup(t)
	e := enqueue(t, q, job.New{Payload: json.RawMessage(`{"a": [1, "2024-01-02", "\u0000"]}`)})
	c := claimOne(t, q)
	if c.JobID != e.ID || c.Attempt != 1 || c.Run != 1 || string(c.Payload) != `{"a": [1, "2024-01-02", "\u0000"]}` {
		t.Fatalf("claimed %+v", c)
	}
	if s := finish(t, q, c.Lease, queue.Outcome{Kind: queue.Completed, Result: json.RawMessage(`"done"`)}); s != job.Completed {
		t.Fatalf("state %s, want completed", s)
	}
	d := get(t, q, e.ID)
	if d.State != job.Completed || string(d.Result) != `"done"` || d.ClaimedBy != nil || d.FinishedAt == nil || len(d.Runs) != 1 || d.Runs[0].Outcome != "completed" || d.Runs[0].Runner != "r1" {
		t.Fatalf("job %+v", d)
	}
	if more := claim(t, q, 10); len(more) != 0 {
		t.Fatalf("a finished job was claimed: %+v", more)
	}
}

// A claim says what it left, and the next one need not look.
func TestAClaimSaysWhatItLeaves(t *testing.T) {
	t.Parallel()
	q := queue.New(dbtest.Open(t), system.Real{}, job.Known())
	if _, err := q.EnqueueMany(t.Context(), []job.New{{Type: job.DebugEcho}, {Type: job.DebugEcho}, {Type: job.DebugEcho, Delay: time.Hour}}); err != nil {
		t.Fatal(err)
	}
	var left *queue.Sight
	for _, want := range []struct {
		jobs  int
		ready bool
	}{{1, true}, {1, false}, {0, false}} {
		c, err := q.Claim(t.Context(), queue.ClaimRequest{Runner: "r", Token: q.NewToken(), Types: []string{job.DebugEcho}, Limit: 1, Lease: time.Minute, Sight: left})
		if err != nil || len(c.Jobs) != want.jobs || c.Ready != want.ready || c.NextDue == nil {
			t.Fatalf("claimed %d, more %v, next %v, %v; want %d, %v and the delayed job's time", len(c.Jobs), c.Ready, c.NextDue, err, want.jobs, want.ready)
		}
		left = &c.Sight
	}
}

// A claim that goes with what is stored takes it, heeds a limit that it does not
// know of, and takes nothing once it is withdrawn.
func TestAClaimOfWhatIsStored(t *testing.T) {
	t.Parallel()
	q := queue.New(dbtest.Open(t), system.Real{}, job.Known())
	three := []job.New{{Type: job.DebugEcho}, {Type: job.DebugEcho}, {Type: job.DebugEcho}}
	claimStored := func(ctx context.Context, limit int) (queue.Claim, error) {
		r := queue.ClaimRequest{Runner: "r", Token: q.NewToken(), Types: []string{job.DebugEcho}, Lease: time.Minute}
		return q.ClaimStored(ctx, r, func() int { return limit })
	}
	for _, want := range []struct {
		limit, jobs int
		ready       bool
	}{{2, 2, true}, {10, 4, false}} {
		if _, err := q.EnqueueMany(t.Context(), slices.Clone(three)); err != nil {
			t.Fatal(err)
		}
		c, err := claimStored(t.Context(), want.limit)
		if err != nil || len(c.Jobs) != want.jobs || c.Ready != want.ready {
			t.Fatalf("claimed %d of %d, more %v, %v; want %d, %v", len(c.Jobs), want.limit, c.Ready, err, want.jobs, want.ready)
		}
	}

	most := int64(7) // of which six run
	if err := q.SetLimit(t.Context(), queue.Limit{Scope: queue.LimitType, Name: job.DebugEcho, MaxRunning: &most}); err != nil {
		t.Fatal(err)
	}
	if _, err := q.EnqueueMany(t.Context(), slices.Clone(three)); err != nil {
		t.Fatal(err)
	}
	c, err := claimStored(t.Context(), 10)
	if err != nil || len(c.Jobs) != 1 {
		t.Fatalf("claimed %d, %v; want the one that the limit leaves room for", len(c.Jobs), err)
	}

	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := claimStored(ended, 10); libsql.ClassOf(err) != libsql.Canceled {
		t.Errorf("%v, want class canceled", err)
	}
}

func TestFailRetriesUntilTheBudgetIsSpent(t *testing.T) {
	t.Parallel()
	q, clock := setup(t)
	e := enqueue(t, q, job.New{MaxAttempts: 2})
	c := claimOne(t, q)
	if s := finish(t, q, c.Lease, queue.Outcome{Kind: queue.Failed, Error: "boom", Delay: 2 * time.Second}); s != job.Queued {
		t.Fatalf("state %s, want queued", s)
	}
	if jobs := claim(t, q, 1); len(jobs) != 0 {
		t.Fatal("the job was claimed before its backoff was over")
	}
	clock.advance(2 * time.Second)
	c = claimOne(t, q)
	if s := finish(t, q, c.Lease, queue.Outcome{Kind: queue.Failed, Error: "boom again"}); s != job.Failed {
		t.Fatalf("state %s, want failed", s)
	}
	d := get(t, q, e.ID)
	if d.Attempts != 2 || d.Failures != 2 || d.LastError == nil || *d.LastError != "boom again" || len(d.Runs) != 2 || d.Runs[0].Outcome != "retried" || d.Runs[1].Outcome != "failed" {
		t.Fatalf("job %+v", d)
	}
}

func TestAStaleWorkerChangesNothing(t *testing.T) {
	t.Parallel()
	q, clock := setup(t)
	e := enqueue(t, q, job.New{})
	stale := claimOne(t, q)
	clock.advance(lease + time.Second)
	rescued, err := q.Rescue(t.Context())
	if err != nil || len(rescued) != 1 || rescued[0].Crashes != 1 {
		t.Fatalf("rescued %+v, %v", rescued, err)
	}
	if _, err := q.Finish(t.Context(), stale.Lease, queue.Outcome{Kind: queue.Completed}); !errors.Is(err, queue.ErrLeaseLost) {
		t.Fatalf("finish after a rescue: %v, want ErrLeaseLost", err)
	}
	if jobs := claim(t, q, 1); len(jobs) != 0 {
		t.Fatal("a rescued job was claimed without its delay")
	}
	clock.advance(2 * time.Second)
	fresh := claimOne(t, q)
	if _, err := q.Finish(t.Context(), stale.Lease, queue.Outcome{Kind: queue.Completed}); !errors.Is(err, queue.ErrLeaseLost) {
		t.Fatalf("finish under another's lease: %v, want ErrLeaseLost", err)
	}
	beats, err := q.Heartbeat(t.Context(), []queue.Lease{stale.Lease, fresh.Lease}, lease)
	if err != nil || beats[0].Held || !beats[1].Held {
		t.Fatalf("beats %+v, %v", beats, err)
	}
	finish(t, q, fresh.Lease, queue.Outcome{Kind: queue.Fatal, Error: "no"})
	d := get(t, q, e.ID)
	if d.State != job.Failed || d.Attempts != 2 || d.Crashes != 1 || d.Failures != 1 || len(d.Runs) != 2 || d.Runs[0].Outcome != "rescued" {
		t.Fatalf("job %+v", d)
	}
}

func TestRunsThatCompleteTogetherHaveEachItsFence(t *testing.T) {
	t.Parallel()
	q, clock := setup(t)
	enqueue(t, q, job.New{})
	stale := claimOne(t, q)
	clock.advance(lease + time.Second)
	if rescued, err := q.Rescue(t.Context()); err != nil || len(rescued) != 1 {
		t.Fatalf("rescued %+v, %v", rescued, err)
	}
	runs := []queue.Completion{{Lease: stale.Lease}}
	for range 3 {
		enqueue(t, q, job.New{})
		runs = append(runs, queue.Completion{Lease: claimOne(t, q).Lease, Result: json.RawMessage(`"done"`)})
	}
	finish(t, q, runs[2].Lease, queue.Outcome{Kind: queue.Fatal, Error: "no"})
	want := []bool{false, true, true, true} // the third has ended under its very lease: a repeat
	for range 2 {
		if held, err := q.Complete(t.Context(), runs); err != nil || !slices.Equal(held, want) {
			t.Errorf("held %v, %v; want %v", held, err, want)
		}
	}
	states := []job.State{job.Queued, job.Completed, job.Failed, job.Completed}
	for i, run := range runs {
		if d := get(t, q, run.JobID); d.State != states[i] || (string(d.Result) == `"done"`) != (states[i] == job.Completed) {
			t.Errorf("job %d: %s, result %s; want %s", i, d.State, d.Result, states[i])
		}
	}
	if _, err := q.Complete(t.Context(), []queue.Completion{{Lease: stale.Lease, Result: json.RawMessage(`{`)}}); err == nil {
		t.Error("a result that is not JSON was taken")
	}
}

func TestKeys(t *testing.T) {
	t.Parallel()
	q, clock := setup(t)
	a := enqueue(t, q, job.New{Key: "k", KeyScope: job.ScopeActive})
	if b := enqueue(t, q, job.New{Key: "k", KeyScope: job.ScopeActive, Payload: json.RawMessage("1")}); !b.Duplicate || b.ID != a.ID {
		t.Fatalf("duplicate %+v, want %s", b, a.ID)
	}
	finish(t, q, claimOne(t, q).Lease, queue.Outcome{Kind: queue.Completed})
	if b := enqueue(t, q, job.New{Key: "k", KeyScope: job.ScopeActive}); b.Duplicate {
		t.Fatal("an active key outlived its job")
	}
	u := enqueue(t, q, job.New{Key: "u"})
	clock.advance(23 * time.Hour)
	if b := enqueue(t, q, job.New{Key: "u"}); !b.Duplicate || b.ID != u.ID {
		t.Fatalf("%+v, want a duplicate of %s", b, u.ID)
	}
	clock.advance(2 * time.Hour)
	if b := enqueue(t, q, job.New{Key: "u"}); b.Duplicate {
		t.Fatal("a key outlived its time to live")
	}
	many, err := q.EnqueueMany(t.Context(), []job.New{{Type: "x", Key: "m"}, {Type: "x"}, {Type: "x", Key: "m"}, {Type: "y", Key: "m"}})
	if err != nil || many[0].Duplicate || many[1].Duplicate || !many[2].Duplicate || many[2].ID != many[0].ID || many[3].Duplicate {
		t.Fatalf("%+v, %v", many, err)
	}
}

// Jobs that depend on each other and together are longer than a server takes in
// one argument are stored by one call all the same, or none of them.
func TestManyLongJobsWithIDsAreStoredTogether(t *testing.T) {
	t.Parallel()
	q := queue.New(dbtest.Open(t), system.Real{}, job.Known())
	long := json.RawMessage(`"` + strings.Repeat("<", job.MaxPayload-2) + `"`) // what HTML escapes as six bytes
	jobs := make([]job.New, 7)
	for i := range jobs {
		jobs[i] = job.New{ID: q.NewID(), Type: "debug.echo", Payload: long}
		if i > 0 {
			jobs[i].After = []string{jobs[i-1].ID, jobs[0].ID}
		}
	}
	bad := slices.Clone(jobs)
	bad[6].After = []string{q.NewID()}
	_, err := q.EnqueueMany(t.Context(), bad)
	var inv *job.Invalid
	if !errors.As(err, &inv) || inv.Field != "jobs[6].after[0]" {
		t.Errorf("a job to come after that is not stored: %v", err)
	}
	if _, err := q.Get(t.Context(), jobs[0].ID); !errors.Is(err, queue.ErrNotFound) {
		t.Errorf("the others were stored: %v", err)
	}
	for range 2 { // the second time is a repeat
		out, err := q.EnqueueMany(t.Context(), slices.Clone(jobs))
		if err != nil {
			t.Fatal(err)
		}
		for i, e := range out {
			if e.ID != jobs[i].ID || e.Duplicate {
				t.Errorf("job %d: %+v", i, e)
			}
		}
	}
	for i, n := range jobs {
		d, err := q.Detail(t.Context(), n.ID)
		if err != nil {
			t.Fatal(err)
		}
		if want := min(i, 2); i == 1 && len(d.After) != 1 || i > 1 && len(d.After) != want || !bytes.Equal(d.Payload, long) {
			t.Errorf("job %d comes after %v", i, d.After)
		}
	}
}
