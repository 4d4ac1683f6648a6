package queue

import (
	"context"
	"fmt"

	"github.com/postroom/postroom/core/libsql"
)

// sqlClear deletes a bounded number of a queue's jobs, the newest first, down
// to a given one: what is older than that is not looked at. Arguments: 1 its
// id, 2 queue, 3 limit.
const sqlClear = `DELETE FROM jobs WHERE seq IN (
   SELECT seq FROM jobs WHERE seq >= (SELECT seq FROM jobs WHERE id = ?1) AND +queue = ?2 ORDER BY seq DESC LIMIT ?3)`

const sqlForgetQueue = `DELETE FROM queues WHERE name = ?`

const sqlForgetCounts = `DELETE FROM queue_counts WHERE queue = ? AND jobs = 0`

// clearBatch is how many jobs one transaction of Clear deletes: others write
// in between.
const clearBatch = 500

// Clear deletes the jobs of a scratch queue, whatever became of them, and the
// queue. first is the job that was stored in it first. Nobody may work on them
// any more, and they must have no keys. Listeners to the log that were not
// there meanwhile are told to begin anew, as after any pruning.
func (q *Queue) Clear(ctx context.Context, name, first string) error {
	for deleted := int64(clearBatch); deleted == clearBatch; {
		var b libsql.Batch
		n := b.Exec(sqlClear, first, name, clearBatch)
		b.Exec(sqlForgetQueue, name) // storing a job makes it again
		b.Exec(sqlForgetCounts, name)
		res, err := q.db.Write(ctx, &b)
		if err != nil {
			return fmt.Errorf("clear %s: %w", name, err)
		}
		deleted = res[n].Changes
	}
	return nil
}
