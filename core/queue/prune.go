package queue

import (
	"context"
	"fmt"
	"time"

	"github.com/postroom/postroom/core/libsql"
)

// Retention: how long final jobs and expired keys stay. What belongs to a job
// goes with it, by the trigger jobs_delete.

// sqlPrune deletes a bounded number of final jobs. Arguments: 1 limit, 2, 3
// and 4 how long completed, canceled and failed ones are kept (ms; NULL for
// ever).
const sqlPrune = `DELETE FROM jobs WHERE seq IN (
   SELECT * FROM (SELECT seq FROM jobs INDEXED BY jobs_final WHERE finished_at IS NOT NULL AND state = 'completed'
     AND finished_at <= (SELECT ms FROM db_clock) - ?2 ORDER BY finished_at LIMIT ?1)
   UNION ALL
   SELECT * FROM (SELECT seq FROM jobs INDEXED BY jobs_final WHERE finished_at IS NOT NULL AND state = 'canceled'
     AND finished_at <= (SELECT ms FROM db_clock) - ?3 ORDER BY finished_at LIMIT ?1)
   UNION ALL
   SELECT * FROM (SELECT seq FROM jobs INDEXED BY jobs_final WHERE finished_at IS NOT NULL AND state = 'failed'
     AND finished_at <= (SELECT ms FROM db_clock) - ?4 ORDER BY finished_at LIMIT ?1)
   LIMIT ?1)`

const sqlPruneKeys = `DELETE FROM job_keys WHERE (type, key) IN (
   SELECT type, key FROM job_keys INDEXED BY job_keys_expired
   WHERE expires_at IS NOT NULL AND expires_at <= (SELECT ms FROM db_clock) ORDER BY expires_at LIMIT ?)`

// Retention is how long final jobs are kept; zero keeps them for ever.
type Retention struct {
	Completed, Canceled, Failed time.Duration
}

// Prune deletes up to limit jobs, and as many expired keys, that are older
// than they need be, and returns how many there were of both.
func (q *Queue) Prune(ctx context.Context, r Retention, limit int) (int, error) {
	keep := func(d time.Duration) any {
		if d <= 0 {
			return nil
		}
		return millis(d)
	}
	var b libsql.Batch
	jobs := b.Exec(sqlPrune, limit, keep(r.Completed), keep(r.Canceled), keep(r.Failed))
	keys := b.Exec(sqlPruneKeys, limit)
	res, err := q.db.Write(ctx, &b)
	if err != nil {
		return 0, fmt.Errorf("prune: %w", err)
	}
	return int(res[jobs].Changes + res[keys].Changes), nil
}
