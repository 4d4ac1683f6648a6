// Package step records the steps of a job, so that a run that comes after a
// crash or a failure does not repeat what is done: a finished step's stored
// result comes back instead. It may import core/job, core/queue, core/libsql
// and the span helpers of core/telemetry.
package step

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/postroom/postroom/core/job"
	"github.com/postroom/postroom/core/libsql"
	"github.com/postroom/postroom/core/queue"
	"github.com/postroom/postroom/core/telemetry"
)

// MaxResult is how large a step's stored result may be, in bytes of JSON.
const MaxResult = job.MaxPayload

// All of the package's SQL. A step that failed or was only begun may be
// written again; one that is done may not.
const (
	sqlLoad = `SELECT CAST(name AS BLOB), CAST(outcome AS BLOB), CAST(result_json AS BLOB) FROM job_steps WHERE job_id = ?`

	sqlRecord = `INSERT INTO job_steps(job_id, name, run, outcome, started_at, finished_at, result_json, error, created_at, updated_at)
 SELECT ?1, ?2, ?3, ?4, c.ms - ?5, iif(?4 = 'running', NULL, c.ms), ?6, ?7, c.ms, c.ms FROM db_clock AS c WHERE true
 ON CONFLICT(job_id, name) DO UPDATE SET run = excluded.run, outcome = excluded.outcome, 
   started_at = iif(job_steps.outcome = 'running' AND job_steps.run = excluded.run, job_steps.started_at, excluded.started_at),
   finished_at = excluded.finished_at, result_json = excluded.result_json, error = excluded.error, updated_at = excluded.updated_at
 WHERE job_steps.outcome <> 'done'`
)

// Recorder records the steps of one run of one job.
type Recorder struct {
	db    libsql.DB
	lease queue.Lease
	run   int64
	now   func() time.Time

	mu     sync.Mutex
	loaded bool
	done   map[string]json.RawMessage // results of finished steps
	used   map[string]bool            // names this run has used
}

// NewRecorder returns the recorder of a run; run is the claim's number and now
// measures how long steps take.
func NewRecorder(db libsql.DB, l queue.Lease, run int64, now func() time.Time) *Recorder {
	return &Recorder{db: db, lease: l, run: run, now: now, used: map[string]bool{}}
}

type contextKey struct{}

// NewContext gives a handler's context its recorder.
func NewContext(ctx context.Context, r *Recorder) context.Context {
	return context.WithValue(ctx, contextKey{}, r)
}

// ErrNoJob is returned outside of a job's handler.
var ErrNoJob = errors.New("step: the context belongs to no running job")

func fromContext(ctx context.Context) (*Recorder, error) {
	if r, ok := ctx.Value(contextKey{}).(*Recorder); ok {
		return r, nil
	}
	return nil, ErrNoJob
}

// Run executes fn as the step called name and stores its result before it
// returns; when an earlier run of the job finished that step, fn is not
// executed and the stored result comes back. A name may be used once per run.
// The error of fn comes back as it is, and is recorded.
func Run[T any](ctx context.Context, name string, fn func(context.Context) (T, error)) (T, error) {
	var zero T
	r, err := fromContext(ctx)
	if err != nil {
		return zero, err
	}
	stored, found, err := r.begin(ctx, name)
	if err != nil {
		return zero, err
	}
	if found {
		var v T
		if err := json.Unmarshal(stored, &v); err != nil {
			return zero, job.Fatal(fmt.Errorf("step %s: the stored result does not fit its type any more: %w", name, err))
		}
		return v, nil
	}
	ctx, span := telemetry.Step(ctx, name)
	start := r.now()
	v, err := fn(ctx)
	if err != nil {
		telemetry.End(span, err)
		if _, snoozed := job.SnoozeOf(err); snoozed {
			return zero, err
		}
		return zero, errors.Join(err, r.record(context.WithoutCancel(ctx), name, "failed", r.now().Sub(start), nil, err))
	}
	err = r.finish(ctx, name, r.now().Sub(start), v)
	telemetry.End(span, err)
	if err != nil {
		return zero, err
	}
	return v, nil
}

// StartStep records that a step has begun, for watching only: nothing is
// replayed. FinishStep ends it.
func StartStep(ctx context.Context, name string) error {
	r, err := fromContext(ctx)
	if err != nil {
		return err
	}
	if _, found, err := r.begin(ctx, name); err != nil || found {
		return err
	}
	return r.record(ctx, name, "running", 0, nil, nil)
}

// FinishStep records how a step that StartStep began has ended. The time it
// took is that since its start.
func FinishStep(ctx context.Context, name string, result any, stepErr error) error {
	r, err := fromContext(ctx)
	if err != nil {
		return err
	}
	if stepErr != nil {
		return r.record(ctx, name, "failed", 0, nil, stepErr)
	}
	return r.finish(ctx, name, 0, result)
}

// begin checks the name and returns the result an earlier run stored.
func (r *Recorder) begin(ctx context.Context, name string) (json.RawMessage, bool, error) {
	if name == "" {
		return nil, false, job.Fatal(errors.New("step: the name is empty"))
	}
	if err := job.CheckText("step name", name, job.MaxName); err != nil {
		return nil, false, job.Fatal(err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.used[name] {
		return nil, false, job.Fatal(fmt.Errorf("step %s: the name was used before in this run", name))
	}
	if !r.loaded {
		if err := r.load(ctx); err != nil {
			return nil, false, err
		}
	}
	r.used[name] = true
	stored, found := r.done[name]
	return stored, found, nil
}

// load reads the steps of earlier runs, once; a first run has none to read.
func (r *Recorder) load(ctx context.Context) error {
	if r.run > 1 {
		res, err := r.db.Read(ctx, libsql.Query(sqlLoad, r.lease.JobID))
		if err != nil {
			return fmt.Errorf("load steps: %w", err)
		}
		r.done = make(map[string]json.RawMessage, len(res[0].Rows))
		for _, row := range res[0].Rows {
			if row.Str(1) == "done" {
				r.done[row.Str(0)] = row.Bytes(2)
			}
		}
	}
	r.loaded = true
	return nil
}

func (r *Recorder) finish(ctx context.Context, name string, took time.Duration, v any) error {
	result, err := json.Marshal(v)
	if err == nil {
		err = job.CheckJSON("result", result)
	}
	if err != nil {
		return job.Fatal(fmt.Errorf("step %s: the result cannot be stored: %w", name, err))
	}
	return r.record(ctx, name, "done", took, result, nil)
}

// record writes the step's row under the job's fence. Safe to repeat.
func (r *Recorder) record(ctx context.Context, name, outcome string, took time.Duration, result json.RawMessage, stepErr error) error {
	var text any
	if stepErr != nil {
		text = []byte(strings.ToValidUTF8(stepErr.Error(), "\uFFFD"))
	}
	var res any
	if result != nil {
		res = string(result)
	}
	var b libsql.Batch
	r.lease.Guard(&b)
	b.Exec(sqlRecord, r.lease.JobID, name, r.run, outcome, took.Milliseconds(), res, text)
	_, err := r.db.Write(ctx, &b)
	if libsql.GuardIndex(err) == 0 {
		err = queue.ErrLeaseLost
	}
	if err != nil {
		return fmt.Errorf("record step %s: %w", name, err)
	}
	return nil
}
