package queue_test

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/postroom/postroom/core/internal/dbtest"
	"github.com/postroom/postroom/core/job"
	"github.com/postroom/postroom/core/libsql"
	"github.com/postroom/postroom/core/queue"
	"github.com/postroom/postroom/core/system"
)

// away answers its first writes with errors: busy, then applied with the reply
// lost. From then on it works, or is away for good.
type away struct {
	libsql.DB
	on      atomic.Bool
	forGood bool
	writes  atomic.Int64
}

func (d *away) Write(ctx context.Context, b *libsql.Batch) ([]libsql.Result, error) {
	return unsteady(d, func() ([]libsql.Result, error) { return d.DB.Write(ctx, b) })
}

func (d *away) Merge(ctx context.Context, op *libsql.Op, items ...[]byte) ([]libsql.Row, error) {
	return unsteady(d, func() ([]libsql.Row, error) { return d.DB.Merge(ctx, op, items...) })
}

func unsteady[T any](d *away, write func() (T, error)) (none T, err error) {
	if !d.on.Load() {
		return write()
	}
	n := d.writes.Add(1)
	if n == 1 || d.forGood {
		return none, &libsql.Error{Class: libsql.Busy}
	}
	res, err := write()
	if err == nil && n == 2 {
		return none, &libsql.Error{Class: libsql.Unknown}
	}
	return res, err
}

func held(t *testing.T, db *away) (*queue.Queue, queue.Claimed) {
	t.Helper()
	q := queue.New(db, system.Real{}, job.Known())
	if _, err := q.Enqueue(t.Context(), job.New{Type: job.DebugEcho}); err != nil {
		t.Fatal(err)
	}
	c, err := q.Claim(t.Context(), queue.ClaimRequest{Runner: "r", Token: q.NewToken(), Types: []string{job.DebugEcho}, Limit: 1, Lease: time.Minute})
	if err != nil || len(c.Jobs) != 1 {
		t.Fatalf("%+v, %v", c, err)
	}
	db.on.Store(true)
	return q, c.Jobs[0]
}

func TestAHandOverOutlastsBusyErrorsAndLostReplies(t *testing.T) {
	t.Parallel()
	for name, more := range map[string]func(*queue.Batch){
		"of new jobs alone":    func(*queue.Batch) {},
		"of other things, too": func(b *queue.Batch) { b.Exec("UPDATE queues SET paused = 0 WHERE name = 'none'") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := &away{DB: dbtest.Open(t)}
			q, c := held(t, db)
			var child string
			filled := 0
			err := q.Commit(t.Context(), c.Lease, json.RawMessage("1"), func(b *queue.Batch) {
				filled++
				child = b.Enqueue(job.New{Type: job.DebugEcho})
				more(b)
			})
			if err != nil || filled != 1 {
				t.Fatalf("filled %d times, %v", filled, err)
			}
			d, err := q.Detail(t.Context(), c.JobID)
			if err != nil || d.State != job.Completed || len(d.Runs) != 1 || string(d.Result) != "1" {
				t.Errorf("%+v, %v", d, err)
			}
			if j, err := q.Get(t.Context(), child); err != nil || j.ParentID == nil || *j.ParentID != c.JobID {
				t.Errorf("the follow-up job: %+v, %v", j, err)
			}
			res, err := db.Read(t.Context(), libsql.Query("SELECT count(*) FROM jobs"))
			if err != nil || res[0].Rows[0].Int(0) != 2 {
				t.Errorf("%v, %v: want the job and one follow-up", res, err)
			}
		})
	}
}

// Hand-overs of many runs share their statements: who has lost the lease
// stores nothing, and the others do not notice.
func TestHandOversThatShareTheirStatements(t *testing.T) {
	t.Parallel()
	db := dbtest.Open(t)
	q := queue.New(db, system.Real{}, job.Known())
	const n = 4
	for range n {
		if _, err := q.Enqueue(t.Context(), job.New{Type: job.DebugEcho}); err != nil {
			t.Fatal(err)
		}
	}
	c, err := q.Claim(t.Context(), queue.ClaimRequest{Runner: "r", Token: "short", Types: []string{job.DebugEcho}, Limit: n, Lease: time.Minute})
	if err != nil || len(c.Jobs) != n {
		t.Fatalf("claimed %d, %v", len(c.Jobs), err)
	}
	change := func(sql string, id string) {
		var b libsql.Batch
		b.Exec(sql, id)
		if _, err := db.Write(t.Context(), &b); err != nil {
			t.Fatal(err)
		}
	}
	change("UPDATE jobs SET lease_token = 'another' WHERE id = ?", c.Jobs[1].JobID)
	change("UPDATE jobs SET state = 'queued', lease_expires_at = NULL, lease_token = NULL WHERE id = ?", c.Jobs[2].JobID)
	together := queue.New(dbtest.Gather(db, n), system.Real{}, job.Known())
	follow := make([][]string, n)
	errs := make([]error, n)
	var all sync.WaitGroup
	for i, j := range c.Jobs {
		all.Go(func() {
			errs[i] = together.Commit(t.Context(), j.Lease, json.RawMessage(`"done"`), func(b *queue.Batch) {
				for range 3 - i {
					follow[i] = append(follow[i], b.Enqueue(job.New{Type: job.DebugEcho, Payload: json.RawMessage(`{"t":"[\"]"}`), Delay: time.Hour}))
				}
			})
		})
	}
	all.Wait()
	for i, j := range c.Jobs {
		lost := i == 1 || i == 2
		if errors.Is(errs[i], queue.ErrLeaseLost) != lost || !lost && errs[i] != nil {
			t.Errorf("%d: %v", i, errs[i])
		}
		d, err := q.Detail(t.Context(), j.JobID)
		if err != nil || (d.State == job.Completed) == lost || (string(d.Result) == `"done"`) == lost {
			t.Errorf("%d: %+v, %v", i, d, err)
		}
		for _, id := range follow[i] {
			if _, err := q.Get(t.Context(), id); errors.Is(err, queue.ErrNotFound) != lost {
				t.Errorf("%d: follow-up: %v", i, err)
			}
		}
	}
}

func TestAHandOverEndsWithItsContext(t *testing.T) {
	t.Parallel()
	db := &away{DB: dbtest.Open(t), forGood: true}
	q, c := held(t, db)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- q.Commit(ctx, c.Lease, nil, func(*queue.Batch) {}) }()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for db.writes.Load() < 2 { // it tries again
		<-tick.C
	}
	cancel()
	if err := <-done; libsql.ClassOf(err) != libsql.Busy {
		t.Errorf("error %v", err)
	}
}

// What a run hands over is not stored once it has ended, although its token is
// still on the job.
func TestAnEndedRunHandsNothingOver(t *testing.T) {
	t.Parallel()
	q, _ := setup(t)
	enqueue(t, q, job.New{})
	c := claimOne(t, q)
	if held, err := q.Complete(t.Context(), []queue.Completion{{Lease: c.Lease}}); err != nil || !held[0] {
		t.Fatalf("%v, %v", held, err)
	}
	if err := q.Commit(t.Context(), c.Lease, nil, func(b *queue.Batch) { b.Enqueue(job.New{Type: job.DebugEcho}) }); err != nil {
		t.Errorf("to finish a run twice is a repeat, but: %v", err)
	}
	if n := count(t, q, "jobs"); n != 1 {
		t.Errorf("%d jobs are stored, want 1", n)
	}
}

// A completion is not taken for a job to be stored, not even where what it
// begins with would read as the lease of another run.
func TestACompletionIsNoFollowUp(t *testing.T) {
	t.Parallel()
	q, _ := setup(t)
	for range 11 {
		enqueue(t, q, job.New{})
	}
	c, err := q.Claim(t.Context(), queue.ClaimRequest{
		Runner: "r", Token: strings.Repeat("1", queue.TokenLength), Types: []string{job.DebugEcho}, Limit: 11, Lease: lease,
	})
	if err != nil || len(c.Jobs) != 11 || c.Jobs[10].Seq != 11 {
		t.Fatalf("%+v, %v", c.Jobs, err)
	}
	result := json.RawMessage(`"` + strings.Repeat("1", 1200) + `"`)
	if err := q.Commit(t.Context(), c.Jobs[10].Lease, result, func(b *queue.Batch) { b.Enqueue(job.New{Type: job.DebugEcho}) }); err != nil {
		t.Error(err)
	}
	if n := count(t, q, "jobs"); n != 12 {
		t.Errorf("%d jobs are stored, want 12", n)
	}
}
