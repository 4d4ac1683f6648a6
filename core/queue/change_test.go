package queue_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/postroom/postroom/core/internal/dbtest"
	"github.com/postroom/postroom/core/job"
	"github.com/postroom/postroom/core/libsql"
	"github.com/postroom/postroom/core/queue"
	"github.com/postroom/postroom/core/system"
)

// sound checks every rule of the database.
func sound(t *testing.T, q *queue.Queue) {
	t.Helper()
	rep, err := q.Verify(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range rep.Violations {
		t.Errorf("%s: %s: %s", v.Rule, v.What, v.Detail)
	}
}

func change(t *testing.T, q *queue.Queue, c queue.Change, f queue.Filter) queue.Changed {
	t.Helper()
	dry, err := q.ChangeMany(t.Context(), c, f, 0, true)
	if err != nil {
		t.Fatal(err)
	}
	out, err := q.ChangeMany(t.Context(), c, f, 0, false)
	if err != nil {
		t.Fatal(err)
	}
	if dry.Changed != 0 || dry.Matched != out.Matched {
		t.Errorf("the dry run says %+v, then %+v", dry, out)
	}
	return out
}

func TestManyJobsAreChangedAtOnce(t *testing.T) {
	t.Parallel()
	q, clock := setup(t)
	const many = 1100 // more than two transactions take
	jobs := make([]job.New, many)
	for i := range jobs {
		jobs[i] = job.New{Type: job.DebugEcho, Queue: "many", LimitKey: fmt.Sprint("k", i%3)}
	}
	if err := q.SetLimit(t.Context(), queue.Limit{Scope: queue.LimitKey, Name: queue.EachKey, MaxRunning: new(int64)}); err != nil {
		t.Fatal(err)
	}
	stored, err := q.EnqueueMany(t.Context(), jobs)
	if err != nil {
		t.Fatal(err)
	}
	other := enqueue(t, q, job.New{})
	runs := claimOne(t, q) // other: the keys let none start
	follows := enqueue(t, q, job.New{After: []string{stored[0].ID}, AfterFailure: job.AfterRun})

	if got := change(t, q, queue.ToCancel, queue.Filter{Queue: "many"}); got.Matched != many || got.Changed != many || got.Next != 0 {
		t.Errorf("canceled: %+v", got)
	}
	sound(t, q)
	if got := change(t, q, queue.ToCancel, queue.Filter{IDs: []string{other.ID}}); got.Changed != 1 {
		t.Errorf("a running job: %+v", got)
	}
	if s := finish(t, q, runs.Lease, queue.Outcome{Kind: queue.HandedBack}); s != job.Canceled {
		t.Errorf("the running one is %s", s)
	}
	if jobs := claim(t, q, 10); len(jobs) != 1 || jobs[0].JobID != follows.ID {
		t.Errorf("what came after a canceled job: %v", jobs)
	}
	if got := change(t, q, queue.ToRetry, queue.Filter{Queue: "many", State: "canceled"}); got.Changed != many {
		t.Errorf("retried: %+v", got)
	}
	sound(t, q)
	change(t, q, queue.ToCancel, queue.Filter{Queue: "many"})
	clock.advance(time.Hour)
	late := enqueue(t, q, job.New{Queue: "many"})
	if got := change(t, q, queue.ToDelete, queue.Filter{Queue: "many", Before: time.UnixMilli(clock.ms)}); got.Changed != many {
		t.Errorf("deleted: %+v", got)
	}
	sound(t, q)
	if p, err := q.List(t.Context(), queue.Filter{Queue: "many"}, 5, 0); err != nil || len(p.Jobs) != 1 || p.Jobs[0].ID != late.ID {
		t.Errorf("%d jobs are left, %v", len(p.Jobs), err)
	}
	if depth, err := q.Depth(t.Context(), "many"); err != nil || depth.Depth[job.Canceled] != 0 || depth.Depth[job.Queued] != 1 {
		t.Errorf("counts are %+v, %v", depth, err)
	}
	var inv *job.Invalid
	if _, err := q.ChangeMany(t.Context(), queue.ToDelete, queue.Filter{State: "queued"}, 0, false); !errors.As(err, &inv) || inv.Field != "state" {
		t.Errorf("queued jobs to delete: %v", err)
	}
	if err := q.Delete(t.Context(), late.ID); !errors.Is(err, queue.ErrInvalidState) {
		t.Errorf("a queued job was deleted: %v", err)
	}
	if err := q.Delete(t.Context(), other.ID); err != nil {
		t.Error(err)
	}
	if err := q.Delete(t.Context(), other.ID); !errors.Is(err, queue.ErrNotFound) {
		t.Errorf("deleted twice: %v", err)
	}
	sound(t, q)
}

func TestOfJobsWithOneKeyTheNewestIsRetried(t *testing.T) {
	t.Parallel()
	q, _ := setup(t)
	var ids []string
	for range 3 {
		e := enqueue(t, q, job.New{Key: "k", KeyScope: job.ScopeActive})
		if _, err := q.Cancel(t.Context(), e.ID); err != nil {
			t.Fatal(err)
		}
		ids = append(ids, e.ID)
	}
	got := change(t, q, queue.ToRetry, queue.Filter{Key: "k"})
	if want := (queue.Changed{Matched: 3, Changed: 1, KeyInUse: 2}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	if d := get(t, q, ids[2]); d.State != job.Queued {
		t.Errorf("the newest is %s", d.State)
	}
	sound(t, q)
}

// A failure after some jobs were changed ends the call where it stands.
func TestAChangeOfManyThatFailsSaysHowFarItCame(t *testing.T) {
	t.Parallel()
	db := &breaking{DB: dbtest.Open(t)}
	q := queue.New(db, system.Real{}, job.Known())
	jobs := make([]job.New, 1200)
	for i := range jobs {
		jobs[i].Type = job.DebugEcho
	}
	if _, err := q.EnqueueMany(t.Context(), jobs); err != nil {
		t.Fatal(err)
	}
	f := queue.Filter{State: "queued"}
	db.after = 1
	if got, err := q.ChangeMany(t.Context(), queue.ToCancel, f, 0, false); err == nil {
		t.Errorf("the first write failed: %+v", got)
	}
	db.after = 2
	first, err := q.ChangeMany(t.Context(), queue.ToCancel, f, 0, false)
	if err != nil || first.Changed != 500 || first.Next == 0 {
		t.Fatalf("the second write failed: %+v, %v", first, err)
	}
	rest, err := q.ChangeMany(t.Context(), queue.ToCancel, f, first.Next, false)
	if err != nil || rest.Changed != 700 || rest.Next != 0 {
		t.Errorf("the rest: %+v, %v", rest, err)
	}
}

// breaking is a database whose so-manieth write fails.
type breaking struct {
	libsql.DB
	after int
}

func (b *breaking) Write(ctx context.Context, batch *libsql.Batch) ([]libsql.Result, error) {
	if b.after--; b.after == 0 {
		return nil, errors.New("broken")
	}
	return b.DB.Write(ctx, batch)
}

func TestRunNow(t *testing.T) {
	t.Parallel()
	q, clock := setup(t)
	far := time.UnixMilli(clock.ms).Add(24 * time.Hour)
	waits := enqueue(t, q, job.New{NotBefore: far})
	if jobs := claim(t, q, 10); len(jobs) != 0 {
		t.Fatalf("claimed %v", jobs)
	}
	for range 2 { // the second time it is due already
		if j, err := q.RunNow(t.Context(), waits.ID); err != nil || j.NotBefore.Time().UnixMilli() != clock.ms {
			t.Errorf("%+v, %v", j, err)
		}
	}
	c := claimOne(t, q)
	if _, err := q.RunNow(t.Context(), c.JobID); !errors.Is(err, queue.ErrInvalidState) {
		t.Errorf("a running job: %v", err)
	}
	finish(t, q, c.Lease, queue.Outcome{Kind: queue.Failed, Error: "no", Delay: time.Hour})
	if _, err := q.RunNow(t.Context(), c.JobID); err != nil {
		t.Errorf("one that backs off: %v", err)
	}
	first := claimOne(t, q)
	after := enqueue(t, q, job.New{After: []string{first.JobID}, NotBefore: far})
	if _, err := q.RunNow(t.Context(), after.ID); !errors.Is(err, queue.ErrInvalidState) {
		t.Errorf("one that waits for another: %v", err)
	}
	if _, err := q.RunNow(t.Context(), "none"); !errors.Is(err, queue.ErrNotFound) {
		t.Errorf("none: %v", err)
	}

	t.Run("keeps within limits", func(t *testing.T) {
		if err := q.SetLimit(t.Context(), queue.Limit{Scope: queue.LimitKey, Name: "l", MaxRunning: new(int64)}); err != nil {
			t.Fatal(err)
		}
		limited := enqueue(t, q, job.New{NotBefore: far, LimitKey: "l"})
		if _, err := q.RunNow(t.Context(), limited.ID); err != nil {
			t.Fatal(err)
		}
		if jobs := claim(t, q, 10); len(jobs) != 0 {
			t.Errorf("claimed %v", jobs)
		}
		sound(t, q)
	})
	t.Run("a suspect runs alone all the same", func(t *testing.T) {
		t.Parallel()
		q, clock := setup(t)
		suspect := enqueue(t, q, job.New{Type: job.DebugSleep})
		for range 3 {
			if _, err := q.RunNow(t.Context(), suspect.ID); err != nil {
				t.Fatal(err)
			}
			claimOne(t, q)
			clock.advance(lease + time.Second)
			if _, err := q.Rescue(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := q.RunNow(t.Context(), suspect.ID); err != nil {
			t.Fatal(err)
		}
		if jobs := claim(t, q, 10); slices.ContainsFunc(jobs, func(c queue.Claimed) bool { return c.JobID == suspect.ID }) {
			t.Error("it was claimed beside others")
		}
		alone, err := q.ClaimSolo(t.Context(), queue.ClaimRequest{Runner: "r1", Token: q.NewToken(), Types: job.Known().Names(), Limit: 1, Lease: lease})
		if err != nil || alone == nil || alone.JobID != suspect.ID {
			t.Errorf("claimed alone: %+v, %v", alone, err)
		}
		sound(t, q)
	})
}

func TestListsLookIntoPayloads(t *testing.T) {
	t.Parallel()
	q, _ := setup(t)
	for _, payload := range []string{`{"user":{"id":7},"flag":true}`, `{"user":{"id":"7"},"two words":"a=b"}`, `{"user":{"id":70}}`, `7`, `null`, `{"user":7}`, `{"user":{"id":null}}`} {
		enqueue(t, q, job.New{Payload: json.RawMessage(payload)})
	}
	for ask, want := range map[string]int{
		"user.id=7": 2, "user.id=70": 1, "user.id=null": 1, "flag=true": 1, "flag=1": 0, "two words=a=b": 1, "user=7": 1, "nothing=": 0, "user.id=' OR 1": 0,
	} {
		in, err := queue.ParseInside(ask)
		if err != nil {
			t.Fatal(err)
		}
		p, err := q.List(t.Context(), queue.Filter{Payload: in}, 50, 0)
		if err != nil || len(p.Jobs) != want || p.Partial {
			t.Errorf("%s: %d jobs, want %d; %v", ask, len(p.Jobs), want, err)
		}
	}
	for _, wrong := range []string{"user", "=7", "a..b=1", `a"b=1`, "a\nb=1", "a=\n", `a\b=1`} {
		var inv *job.Invalid
		if _, err := queue.ParseInside(wrong); !errors.As(err, &inv) || inv.Field != "payload" {
			t.Errorf("%q: %v", wrong, err)
		}
	}
}

// What one call looks at is bounded, and a list that ended there says so.
func TestListsStopLookingAndSaySo(t *testing.T) {
	t.Parallel()
	q, _ := setup(t)
	oldest := enqueue(t, q, job.New{Queue: "oldest", Payload: json.RawMessage(`{"a":1}`)})
	big := json.RawMessage(`"` + string(slices.Repeat([]byte("x"), 900_000)) + `"`)
	for range 6 { // beyond 4 MiB
		enqueue(t, q, job.New{Payload: big})
	}
	p, err := q.List(t.Context(), queue.Filter{Payload: queue.Inside{Field: "a", Value: "1"}}, 5, 0)
	if err != nil || len(p.Jobs) != 0 || !p.Partial || p.Next == 0 {
		t.Fatalf("payloads of 5 MB: %d jobs, %v %v %v", len(p.Jobs), p.Partial, p.Next, err)
	}
	if p, err = q.List(t.Context(), queue.Filter{Payload: queue.Inside{Field: "a", Value: "1"}}, 5, p.Next); err != nil || len(p.Jobs) != 1 || p.Partial {
		t.Errorf("the next page: %d jobs, %v %v", len(p.Jobs), p.Partial, err)
	}
	if p, err = q.List(t.Context(), queue.Filter{Queue: "oldest"}, 5, 0); err != nil || len(p.Jobs) != 1 || p.Partial {
		t.Errorf("without a look into payloads: %d jobs, %v %v", len(p.Jobs), p.Partial, err)
	}
	var b libsql.Batch
	b.Exec(`INSERT INTO jobs(id, type, queue, state, payload_json, ready_key, created_at, updated_at)
	 WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000) SELECT 'j' || i, 'x', 'new', 'queued', '{}', 1, 1, 1 FROM n`)
	if _, err := q.DB().Write(t.Context(), &b); err != nil {
		t.Fatal(err)
	}
	pages := 0
	for next := int64(0); pages < 8; pages++ { // of 2,500 jobs each
		if p, err = q.List(t.Context(), queue.Filter{Payload: queue.Inside{Field: "a", Value: "1"}}, 5, next); err != nil || len(p.Jobs) != 0 || !p.Partial {
			break
		}
		next = p.Next
	}
	if pages != 8 {
		t.Errorf("a look into 20,000 payloads: %d pages, then %d jobs, %v %v", pages, len(p.Jobs), p.Partial, err)
	}
	p, err = q.List(t.Context(), queue.Filter{Queue: "oldest"}, 5, 0)
	if err != nil || len(p.Jobs) != 0 || !p.Partial {
		t.Fatalf("behind 20,000 others: %d jobs, %v %v", len(p.Jobs), p.Partial, err)
	}
	if p, err = q.List(t.Context(), queue.Filter{Queue: "oldest"}, 5, p.Next); err != nil || len(p.Jobs) != 1 || p.Jobs[0].ID != oldest.ID {
		t.Errorf("the next page: %d jobs, %v", len(p.Jobs), err)
	}
	if p, err = q.List(t.Context(), queue.Filter{IDs: []string{oldest.ID, "none"}}, 5, 0); err != nil || len(p.Jobs) != 1 || p.Partial {
		t.Errorf("by id: %d jobs, %v", len(p.Jobs), err)
	}
}
