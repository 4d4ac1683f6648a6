package queue_test

import (
	"testing"
	"time"

	"github.com/postroom/postroom/core/job"
	"github.com/postroom/postroom/core/queue"
)

func TestClearingAQueueLeavesNothingOfIt(t *testing.T) {
	t.Parallel()
	q, _ := setup(t)
	kept := enqueue(t, q, job.New{Queue: "other"})
	finish(t, q, claimOne(t, q).Lease, queue.Outcome{Kind: queue.Completed})
	before := enqueue(t, q, job.New{Queue: "scratch", Delay: time.Hour})
	jobs := make([]job.New, 1200) // more than one batch
	for i := range jobs {
		jobs[i] = job.New{Type: job.DebugEcho, Queue: "scratch"}
	}
	stored, err := q.EnqueueMany(t.Context(), jobs)
	if err != nil {
		t.Fatal(err)
	}
	finish(t, q, claimOne(t, q).Lease, queue.Outcome{Kind: queue.Completed})

	if err := q.Clear(t.Context(), "scratch", stored[0].ID); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{kept.ID, before.ID} {
		if _, err := q.Get(t.Context(), id); err != nil {
			t.Errorf("%s: %v", id, err)
		}
	}
	if n := count(t, q, "jobs"); n != 2 {
		t.Errorf("%d jobs are left, want 2", n)
	}
	if err := q.Clear(t.Context(), "scratch", before.ID); err != nil {
		t.Fatal(err)
	}
	if n := count(t, q, "jobs"); n != 1 {
		t.Errorf("%d jobs are left, want 1", n)
	}
	depths, err := q.Queues(t.Context())
	if err != nil || len(depths) != 1 || depths[0].Name != "other" {
		t.Errorf("%+v, %v", depths, err)
	}
	if rep, err := q.Verify(t.Context()); err != nil || len(rep.Violations) > 0 {
		t.Errorf("%+v, %v", rep, err)
	}
}
