package mail

import (
	"context"
	"fmt"

	"github.com/postroom/postroom/core/job"
	"github.com/postroom/postroom/core/libsql"
	"github.com/postroom/postroom/core/queue"
)

// Task is long work on the mail side and how far it is. Its id is its job's,
// which is canceled and retried like any other.
type Task struct {
	ID          string   `json:"id"`
	Kind        string   `json:"kind" enum:"rules.apply,mail.import,account.remove"`
	AccountID   *string  `json:"account_id"`
	State       *string  `json:"state"` // its job's; null once that was pruned
	Total       *int64   `json:"total"` // null until it is known
	Done        int64    `json:"done"`
	Changed     int64    `json:"changed"` // of those done: actions asked for, messages taken in
	Problems    int64    `json:"problems"`
	LastProblem *string  `json:"last_problem"`
	LastError   *string  `json:"last_error"` // its job's
	CreatedAt   job.Time `json:"created_at"`
	UpdatedAt   job.Time `json:"updated_at"`

	position []byte
}

// Task returns one task.
func (s *Store) Task(ctx context.Context, id string) (*Task, error) {
	res, err := s.db.Read(ctx, libsql.Query(sqlTask, id))
	if err != nil {
		return nil, fmt.Errorf("get task: %w", err)
	}
	if len(res[0].Rows) == 0 {
		return nil, fmt.Errorf("task %s: %w", id, ErrNotFound)
	}
	t := taskRow(res[0].Rows[0])
	return &t, nil
}

// Tasks lists tasks of an account, or of all with "", newest first.
func (s *Store) Tasks(ctx context.Context, accountID string, p PageOf) ([]Task, string, error) {
	below, err := p.below()
	if err != nil {
		return nil, "", err
	}
	res, err := s.db.Read(ctx, libsql.Query(sqlTasks, null(accountID), below, p.Limit+1))
	if err != nil {
		return nil, "", fmt.Errorf("list tasks: %w", err)
	}
	out := make([]Task, len(res[0].Rows))
	for i, r := range res[0].Rows {
		out[i] = taskRow(r)
	}
	out, next := page(out, p.Limit, func(t Task) string { return t.ID })
	return out, next, nil
}

func taskRow(r libsql.Row) Task {
	return Task{
		ID: r.Str(0), Kind: r.Str(1), AccountID: textPtr(r, 2), State: textPtr(r, 3), Total: r.IntPtr(4), Done: r.Int(5),
		Changed: r.Int(6), Problems: r.Int(7), LastProblem: textPtr(r, 8), LastError: textPtr(r, 9),
		CreatedAt: job.Time(r.Int(10)), UpdatedAt: job.Time(r.Int(11)), position: r.Bytes(12),
	}
}

// startTask stores a task with its job. While a job with the same key is not
// over, that one's task is returned, and repeated is true.
func (s *Store) startTask(ctx context.Context, accountID string, n job.New) (t *Task, repeated bool, err error) {
	b := s.q.NewBatch(ctx)
	id, place := b.EnqueueAsking(n)
	b.Exec(sqlInsertTask, id, n.Type, null(accountID))
	res, err := s.q.Write(ctx, b)
	if err != nil {
		return nil, false, fmt.Errorf("start %s: %w", n.Type, err)
	}
	stored := queue.Answer(res[place])
	t, err = s.Task(ctx, stored.ID)
	return t, stored.Duplicate, err
}

// Resume is where an earlier run of the task has stopped; nothing for the
// first.
func (t *Task) Resume() []byte { return t.position }

// RecordProgress stores how far a task is, with what was done since.
func (s *Store) RecordProgress(b *queue.Batch, t *Task, position []byte) {
	var total any
	if t.Total != nil {
		total = *t.Total
	}
	var problem any
	if t.LastProblem != nil {
		problem = []byte(*t.LastProblem)
	}
	b.Exec(sqlTaskProgress, total, t.Done, t.Changed, t.Problems, problem, position, t.ID)
}
