package worker_test

import (
	"context"
	"encoding/json"
	"runtime"
	"testing"

	"github.com/postroom/postroom/core/internal/dbtest"
	"github.com/postroom/postroom/core/job"
	"github.com/postroom/postroom/core/queue"
	"github.com/postroom/postroom/core/system"
	"github.com/postroom/postroom/core/worker"
)

// Traps that other queues fell into, which no other test here is named after.
// docs/guarantees.md lists them all.

// One row that did not decode failed every fetch of its queue (River before
// v0.48).
func TestABadRowFailsAlone(t *testing.T) {
	t.Parallel()
	q := queue.New(dbtest.Open(t), system.Real{}, job.Known())
	var jobs []job.New
	for i := range 20 {
		payload := json.RawMessage("1")
		if i == 0 {
			payload = json.RawMessage(`{"not":"a number"}`)
		}
		jobs = append(jobs, job.New{Type: job.ActionExecute, Payload: payload})
	}
	stored, err := q.EnqueueMany(t.Context(), jobs)
	if err != nil {
		t.Fatal(err)
	}
	r := startOn(t, q, "one", worker.Bind(job.ActionExecute, func(context.Context, *worker.Job[int]) (any, error) { return nil, nil }))
	for i, e := range stored {
		if i == 0 {
			if d := r.await(e.ID, job.Failed); d.Failures != 1 {
				t.Errorf("%+v", d)
			}
			continue
		}
		r.await(e.ID, job.Completed)
	}
}

// A runner that stops its heartbeats before it has drained loses the jobs it
// waits for (solid_queue#568).
func TestHeartbeatsGoOnWhileDraining(t *testing.T) {
	t.Parallel()
	r := keepsItsLease(t, func(r *rig) {
		r.stop()
		for !r.w.Draining() {
			runtime.Gosched()
		}
	})
	<-r.done
	r.done <- nil
}
