package agent

import (
	"context"
	"strings"

	"github.com/postroom/postroom/core/job"
	"github.com/postroom/postroom/core/libsql"
	"github.com/postroom/postroom/core/queue"
	"github.com/postroom/postroom/core/worker"
)

// apply judges the mail that is there under the present rules, in batches; each
// is stored with how far the task is, so that a run that was cut off, or
// canceled and retried, goes on where it stopped. Rules that change meanwhile
// hold for what is still to come.
func (a *Agent) apply(ctx context.Context, j *worker.Job[job.ApplyPayload]) (any, error) {
	task, err := a.store.Task(ctx, j.ID())
	if err != nil {
		return nil, err
	}
	accountID := j.Payload.AccountID
	after, last, begun := strings.Cut(string(task.Resume()), " ")
	if !begun {
		after = ""
		var total int64
		if last, total, err = a.store.ApplyEnd(ctx, accountID); err != nil {
			return nil, err
		}
		task.Total = &total
	}
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		batch, err := a.store.ApplyNext(ctx, accountID, after, last)
		if err != nil {
			return nil, err
		}
		progress := *task
		progress.Done = min(batch.Looked, *orZero(task.Total))
		fill := func(b *queue.Batch) {
			actions := a.store.RecordApplied(ctx, b, batch)
			progress.Changed = task.Changed + actions
			a.store.RecordProgress(b, &progress, []byte(batch.Last+" "+last))
		}
		if batch.Finished {
			err = j.Commit(ctx, map[string]any{"judged": progress.Done}, fill)
		} else {
			err = j.Write(ctx, fill)
		}
		if libsql.GuardIndex(err) > 0 {
			continue // a message was decided meanwhile: it is left out now
		}
		if err != nil || batch.Finished {
			return nil, err
		}
		*task, after = progress, batch.Last
	}
}

func orZero(n *int64) *int64 {
	if n == nil {
		n = new(int64)
	}
	return n
}
