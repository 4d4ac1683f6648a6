package step

import (
	"github.com/postroom/postroom/core/libsql"
	"github.com/postroom/postroom/core/queue"
)

const (
	// sqlLoad is how the steps of earlier runs stand, without their results,
	// which may be a mebibyte each.
	sqlLoad = `SELECT CAST(name AS BLOB), CAST(outcome AS BLOB), run FROM job_steps WHERE job_id = ?`

	sqlStored = `SELECT CAST(result_json AS BLOB), error FROM job_steps WHERE job_id = ? AND name = ?`
)

// lostLease answers for those items only whose lease is lost: nothing was
// written for them.
const lostLease = `SELECT e.key FROM ` + queue.Items + ` WHERE NOT EXISTS (SELECT 1 FROM jobs AS j WHERE j.id = e.value->>'id' AND ` + queue.IsHolder + `)`

// All of the package's writes. Each item stands behind the fence of its own
// job's lease, and each is safe to repeat. Items: id, t, name, run, o
// (outcome), ms (since it began), result (text), err.
var (
	// opRecord writes down what this run does. A step that is done stays so.
	opRecord = &libsql.Op{Name: "record step", Misses: true, Stmts: []string{
		`INSERT INTO job_steps(job_id, name, run, outcome, started_at, finished_at, result_json, error, created_at, updated_at)
 SELECT j.id, e.value->>'name', e.value->>'run', e.value->>'o', c.ms - (e.value->>'ms'), iif(e.value->>'o' = 'running', NULL, c.ms),
   e.value->>'result', CAST(e.value->>'err' AS BLOB), c.ms, c.ms
 FROM ` + queue.Items + `, db_clock AS c CROSS JOIN jobs AS j WHERE j.id = e.value->>'id' AND ` + queue.IsHolder + `
 ON CONFLICT(job_id, name) DO UPDATE SET run = excluded.run, outcome = excluded.outcome,
   started_at = iif(job_steps.outcome = 'running' AND job_steps.run = excluded.run, job_steps.started_at, excluded.started_at),
   finished_at = excluded.finished_at, result_json = excluded.result_json, error = excluded.error, updated_at = excluded.updated_at
 WHERE job_steps.outcome <> 'done'`,
		lostLease,
	}}

	// opResolve writes down what is known of an effect whose intent is
	// recorded, in this run or an earlier one, which stays named. Only a
	// result that cannot be read makes a step that is done uncertain.
	opResolve = &libsql.Op{Name: "resolve step", Misses: true, Stmts: []string{
		`UPDATE job_steps AS s SET outcome = e.value->>'o', finished_at = iif(e.value->>'o' = 'uncertain', NULL, c.ms),
   result_json = e.value->>'result', error = CAST(e.value->>'err' AS BLOB), updated_at = c.ms
 FROM ` + queue.Items + `, db_clock AS c CROSS JOIN jobs AS j
 WHERE j.id = e.value->>'id' AND ` + queue.IsHolder + ` AND s.job_id = j.id AND s.name = e.value->>'name'
   AND (s.outcome <> 'done' OR e.value->>'o' = 'uncertain')`,
		lostLease,
	}}
)
