package queue_test

import (
	"context"
	"encoding/json"
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
	if !d.on.Load() {
		return d.DB.Write(ctx, b)
	}
	n := d.writes.Add(1)
	if n == 1 || d.forGood {
		return nil, &libsql.Error{Class: libsql.Busy}
	}
	res, err := d.DB.Write(ctx, b)
	if err == nil && n == 2 {
		return nil, &libsql.Error{Class: libsql.Unknown}
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
	db := &away{DB: dbtest.Open(t)}
	q, c := held(t, db)
	var child string
	filled := 0
	err := q.Commit(t.Context(), c.Lease, json.RawMessage("1"), func(b *queue.Batch) {
		filled++
		child = b.Enqueue(job.New{Type: job.DebugEcho})
	})
	if err != nil || filled != 1 {
		t.Fatalf("filled %d times, %v", filled, err)
	}
	if d, err := q.Detail(t.Context(), c.JobID); err != nil || d.State != job.Completed || len(d.Runs) != 1 {
		t.Errorf("%+v, %v", d, err)
	}
	if _, err := q.Get(t.Context(), child); err != nil {
		t.Errorf("the follow-up job: %v", err)
	}
	res, err := db.Read(t.Context(), libsql.Query("SELECT count(*) FROM jobs"))
	if err != nil || res[0].Rows[0].Int(0) != 2 {
		t.Errorf("%v, %v: want the job and one follow-up", res, err)
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
