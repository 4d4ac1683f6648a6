package queue

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/postroom/postroom/core/job"
	"github.com/postroom/postroom/core/libsql"
)

// Errors of settling a step.
var (
	ErrStepNotFound = errors.New("the job has no such step")
	// ErrNotUncertain means that there is nothing to settle.
	ErrNotUncertain = errors.New("the step is not uncertain")
)

// Settle by hand. The job must be final: one that can still run may be asking
// its reconcile function the same question.
const sqlSettleGuardJob = `SELECT length(json(iif(EXISTS (
  SELECT 1 FROM jobs WHERE id = ? AND finished_at IS NOT NULL), '{}', 'not final')))`

const sqlSettleGuardStep = `SELECT length(json(iif(EXISTS (
  SELECT 1 FROM job_steps WHERE job_id = ? AND name = ? AND outcome = 'uncertain'), '{}', 'not uncertain')))`

// sqlSettle keeps what is known of the execution: its run, its start, and why
// it was uncertain. Arguments: 1 job, 2 name, 3 outcome, 4 result.
const sqlSettle = `UPDATE job_steps SET outcome = ?3, result_json = ?4, finished_at = c.ms, updated_at = c.ms,
   error = CAST('settled by hand; it was uncertain: ' || coalesce(error, '') AS BLOB)
 FROM db_clock AS c WHERE job_id = ?1 AND name = ?2
 RETURNING ` + stepColumns + `, (SELECT CAST(state AS BLOB) FROM jobs WHERE id = ?1)`

// Settlement is what a person found out about a step that is uncertain.
type Settlement struct {
	Happened bool
	Result   json.RawMessage // of the step, if it happened; nil is null
}

// Settled is a step that was settled, and how its job stands.
type Settled struct {
	job.Step
	JobID    string    `json:"job_id"`
	JobState job.State `json:"job_state" enum:"completed,failed,canceled"`
}

// SettleStep puts down what became of an uncertain step of a final job: done,
// with its result, or failed. The job stays as it is. [Queue.Retry] runs it
// again: a step that happened is then replayed, one that did not is executed.
func (q *Queue) SettleStep(ctx context.Context, id, name string, s Settlement) (*Settled, error) {
	if err := s.Check(name); err != nil {
		return nil, err
	}
	outcome, result := job.StepFailed, any(nil)
	if s.Happened {
		outcome, result = job.StepDone, string(orNull(s.Result))
	}
	var b libsql.Batch
	b.Guard(sqlSettleGuardJob, id)
	b.Guard(sqlSettleGuardStep, id, name)
	n := b.Query(sqlSettle, id, name, string(outcome), result)
	res, err := q.db.Write(ctx, &b)
	if guard := libsql.GuardIndex(err); guard >= 0 {
		err = q.whyNotSettled(ctx, id, name, guard)
	}
	if err != nil {
		return nil, fmt.Errorf("settle step %s of job %s: %w", name, id, err)
	}
	row := res[n].Rows[0]
	return &Settled{Step: stepRow(row), JobID: id, JobState: job.State(row.Str(7))}, nil
}

// Check refuses what cannot be stored for a step of that name.
func (s Settlement) Check(name string) error {
	if err := job.CheckText("name", name, job.MaxName); err != nil {
		return err
	}
	if !s.Happened && s.Result != nil {
		return &job.Invalid{Field: "result", Code: "invalid", Reason: "goes with a step that happened only"}
	}
	return job.CheckJSON("result", orNull(s.Result))
}

// whyNotSettled turns the guard that stopped a settlement into what the caller
// can act on: a job or a step that is not there comes first.
func (q *Queue) whyNotSettled(ctx context.Context, id, name string, guard int) error {
	d, err := q.Detail(ctx, id)
	switch {
	case err != nil:
		return err
	case !slices.ContainsFunc(d.Steps, func(s job.Step) bool { return s.Name == name }):
		return ErrStepNotFound
	case guard == 0:
		return ErrInvalidState
	}
	return ErrNotUncertain
}
