package agent

import (
	"context"

	"github.com/postroom/postroom/core/job"
	"github.com/postroom/postroom/core/queue"
	"github.com/postroom/postroom/core/worker"
)

// remove deletes what is stored about an account that was removed, in batches.
// The Maildir is not touched.
func (a *Agent) remove(ctx context.Context, j *worker.Job[job.SyncPayload]) (any, error) {
	task, err := a.store.Task(ctx, j.ID())
	if err != nil {
		return nil, err
	}
	for {
		messages, keys, err := a.store.Remains(ctx, j.Payload.AccountID)
		if err != nil {
			return nil, err
		}
		if task.Total == nil {
			task.Total = &messages
		}
		task.Done = max(*task.Total-messages, 0)
		last := messages == 0 && keys == 0
		fill := func(b *queue.Batch) {
			a.store.RecordRemoval(b, j.Payload.AccountID, last)
			a.store.RecordProgress(b, task, nil)
		}
		if last {
			return nil, j.Commit(ctx, map[string]any{"messages": *task.Total}, fill)
		}
		if err := j.Write(ctx, fill); err != nil {
			return nil, err
		}
	}
}
