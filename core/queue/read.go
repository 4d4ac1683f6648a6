package queue

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/postroom/postroom/core/job"
	"github.com/postroom/postroom/core/libsql"
	"github.com/postroom/postroom/core/telemetry"
)

// Get returns one job.
func (q *Queue) Get(ctx context.Context, id string) (*job.Job, error) {
	res, err := q.db.Read(ctx, libsql.Query(sqlGet, id))
	if err != nil {
		return nil, fmt.Errorf("get job %s: %w", id, err)
	}
	if len(res[0].Rows) == 0 {
		return nil, fmt.Errorf("get job %s: %w", id, ErrNotFound)
	}
	j, _ := jobRow(res[0].Rows[0])
	return &j, nil
}

// Detail is a job with what happened to it.
type Detail struct {
	job.Job
	After   []job.Dependency `json:"after"` // the jobs it comes after
	Steps   []job.Step       `json:"steps"`
	Runs    []job.Run        `json:"runs"`
	History []job.Transition `json:"history"` // every change of its state
}

// Detail returns one job with all that is kept of it, on one snapshot.
func (q *Queue) Detail(ctx context.Context, id string) (*Detail, error) {
	res, err := q.db.Read(ctx, libsql.Query(sqlGet, id), libsql.Query(sqlSteps, id), libsql.Query(sqlRuns, id),
		libsql.Query(sqlHistory, id), libsql.Query(sqlDeps, id))
	if err != nil {
		return nil, fmt.Errorf("get job %s: %w", id, err)
	}
	if len(res[0].Rows) == 0 {
		return nil, fmt.Errorf("get job %s: %w", id, ErrNotFound)
	}
	d := &Detail{
		Steps: make([]job.Step, len(res[1].Rows)), Runs: make([]job.Run, len(res[2].Rows)),
		History: make([]job.Transition, len(res[3].Rows)), After: make([]job.Dependency, len(res[4].Rows)),
	}
	d.Job, _ = jobRow(res[0].Rows[0])
	for i, r := range res[1].Rows {
		d.Steps[i] = stepRow(r)
	}
	for i, r := range res[2].Rows {
		d.Runs[i] = job.Run{
			Run: r.Int(0), Runner: r.Str(1), Outcome: r.Str(2), StartedAt: job.Time(r.Int(3)),
			FinishedAt: job.Time(r.Int(4)), Error: textPtr(r, 5), Stack: textPtr(r, 6),
		}
	}
	for i, r := range res[3].Rows {
		d.History[i] = job.Transition{Seq: r.Int(0), Run: r.Int(1), At: job.Time(r.Int(2)), State: job.State(r.Str(3))}
	}
	for i, r := range res[4].Rows {
		d.After[i] = job.Dependency{ID: r.Str(0), Outcome: textPtr(r, 1)}
	}
	return d, nil
}

// Depth is a queue with the number of its jobs by state.
type Depth struct {
	Name             string              `json:"name"`
	Paused           bool                `json:"paused"`
	MaxRunning       *int64              `json:"max_running"` // its limit; null for none
	Depth            map[job.State]int64 `json:"depth"`
	OldestWaitingAt  *job.Time           `json:"oldest_waiting_at"`
	OldestWaitingFor int64               `json:"oldest_waiting_ms"`
}

// Queues lists the queues.
func (q *Queue) Queues(ctx context.Context) ([]Depth, error) { return q.queues(ctx, nil) }

// Depth returns one queue.
func (q *Queue) Depth(ctx context.Context, name string) (*Depth, error) {
	list, err := q.queues(ctx, name)
	if err == nil && len(list) == 0 {
		err = fmt.Errorf("queue %s: %w", name, ErrNoQueue)
	}
	if err != nil {
		return nil, err
	}
	return &list[0], nil
}

// ErrNoQueue is returned for a queue that no job was ever stored in.
var ErrNoQueue = errors.New("no such queue")

func (q *Queue) queues(ctx context.Context, name any) ([]Depth, error) {
	res, err := q.db.Read(ctx, libsql.Query(sqlQueues, name))
	if err != nil {
		return nil, fmt.Errorf("list queues: %w", err)
	}
	out := []Depth{}
	for _, r := range res[0].Rows {
		if n := len(out); n == 0 || out[n-1].Name != r.Str(0) {
			d := Depth{Name: r.Str(0), Paused: r.Bool(1), MaxRunning: r.IntPtr(6), Depth: map[job.State]int64{}}
			for _, s := range job.States {
				d.Depth[s] = 0
			}
			out = append(out, d)
		}
		d := &out[len(out)-1]
		if !r.Null(2) {
			d.Depth[job.State(r.Str(2))] = r.Int(3)
		}
		if at := timePtr(r, 4); at != nil {
			d.OldestWaitingAt, d.OldestWaitingFor = at, max(0, r.Int(5)-int64(*at))
		}
	}
	return out, nil
}

// Runners lists the runners that were heard of in the last day.
func (q *Queue) Runners(ctx context.Context) ([]Runner, error) {
	res, err := q.db.Read(ctx, libsql.Query(sqlRunners))
	if err != nil {
		return nil, fmt.Errorf("list runners: %w", err)
	}
	out := make([]Runner, len(res[0].Rows))
	for i, r := range res[0].Rows {
		out[i] = Runner{
			ID: r.Str(0), Host: r.Str(1), PID: r.Int(2), Version: r.Str(3), Concurrency: r.Int(6),
			StartedAt: job.Time(r.Int(7)), HeartbeatAt: job.Time(r.Int(8)),
		}
		if err := json.Unmarshal(r.Bytes(4), &out[i].Queues); err != nil {
			return nil, fmt.Errorf("list runners: queues of %s: %w", out[i].ID, err)
		}
		if err := json.Unmarshal(r.Bytes(5), &out[i].Types); err != nil {
			return nil, fmt.Errorf("list runners: types of %s: %w", out[i].ID, err)
		}
	}
	return out, nil
}

// Held counts the jobs in the hands of each runner that has any, by its id.
func (q *Queue) Held(ctx context.Context) (map[string]int64, error) {
	res, err := q.db.Read(ctx, libsql.Query(sqlHeld))
	if err != nil {
		return nil, fmt.Errorf("count the jobs of runners: %w", err)
	}
	held := make(map[string]int64, len(res[0].Rows))
	for _, r := range res[0].Rows {
		held[r.Str(0)] = r.Int(1)
	}
	return held, nil
}

// liveRunners counts the runners that were heard of just now.
func (q *Queue) liveRunners(ctx context.Context) (int64, error) {
	res, err := q.db.Read(ctx, libsql.Query(sqlLiveRunners))
	if err != nil {
		return 0, fmt.Errorf("count runners: %w", err)
	}
	return res[0].Rows[0].Int(0), nil
}

// jobRow reads a row of jobColumns and its place in the order.
func jobRow(r libsql.Row) (job.Job, int64) {
	j := job.Job{
		ID: r.Str(1), Type: r.Str(2), Queue: r.Str(3), State: job.State(r.Str(4)), Priority: r.Int(5),
		Attempts: r.Int(6), MaxAttempts: r.Int(7), Failures: r.Int(8), Crashes: r.Int(9),
		Payload: raw(r, 10), Result: raw(r, 11), LastError: textPtr(r, 12),
		NotBefore: timePtr(r, 13), IdempotencyKey: textPtr(r, 14), LimitKey: textPtr(r, 15),
		CreatedAt: job.Time(r.Int(16)), UpdatedAt: job.Time(r.Int(17)), FinishedAt: timePtr(r, 18),
		HeartbeatAt: timePtr(r, 19), CancelRequestedAt: timePtr(r, 20),
		ClaimedBy: textPtr(r, 21), ParentID: textPtr(r, 22),
	}
	if id := telemetry.TraceID(r.Str(23)); id != "" {
		j.TraceID = &id
	}
	return j, r.Int(0)
}

// stepRow reads a row of stepColumns.
func stepRow(r libsql.Row) job.Step {
	return job.Step{
		Name: r.Str(0), Run: r.Int(1), Outcome: job.StepOutcome(r.Str(2)), StartedAt: job.Time(r.Int(3)),
		FinishedAt: timePtr(r, 4), Result: raw(r, 5), Error: textPtr(r, 6),
	}
}

func raw(r libsql.Row, i int) json.RawMessage { return orNull(r.Bytes(i)) }

func textPtr(r libsql.Row, i int) *string {
	if r.Null(i) {
		return nil
	}
	s := job.RepairText(r.Str(i), 1<<30)
	return &s
}

func timePtr(r libsql.Row, i int) *job.Time {
	if v := r.IntPtr(i); v != nil {
		t := job.Time(*v)
		return &t
	}
	return nil
}

// UnknownTypes lists job types that wait to be claimed and that no registered
// runner knows.
func (q *Queue) UnknownTypes(ctx context.Context) ([]string, error) {
	res, err := q.db.Read(ctx, libsql.Query(sqlUnknownTypes))
	if err != nil {
		return nil, fmt.Errorf("unknown types: %w", err)
	}
	types := make([]string, len(res[0].Rows))
	for i, r := range res[0].Rows {
		types[i] = r.Str(0)
	}
	return types, nil
}
