package step

import "github.com/postroom/postroom/core/libsql"

const (
	// sqlLoad is how the steps of earlier runs stand, without their results,
	// which may be a mebibyte each.
	sqlLoad = `SELECT CAST(name AS BLOB), CAST(outcome AS BLOB), run FROM job_steps WHERE job_id = ?`

	sqlStored = `SELECT CAST(result_json AS BLOB), error FROM job_steps WHERE job_id = ? AND name = ?`
)

// isHolder is true for the row j when the item e carries the token of its
// claim and the job still runs.
const isHolder = `j.lease_token = e.value->>'t' AND j.state = 'running'`

// each is the items e of an op. The LIMIT keeps SQLite from putting json_each
// in its place, which would write out the item's text for every mention of it.
const each = `(SELECT key, value FROM json_each(?) LIMIT -1) AS e`

// lostLease answers for those items only whose lease is lost: nothing was
// written for them.
const lostLease = `SELECT e.key FROM ` + each + ` WHERE NOT EXISTS (SELECT 1 FROM jobs AS j WHERE j.id = e.value->>'id' AND ` + isHolder + `)`

// All of the package's writes. Each item stands behind the fence of its own
// job's lease, and each is safe to repeat. Items: id, t, name, run, o
// (outcome), ms (since it began), result (text), err.
var (
	// opRecord writes down what this run does. A step that is done stays so.
	opRecord = &libsql.Op{Name: "record step", Misses: true, Stmts: []string{
		`INSERT INTO job_steps(job_id, name, run, outcome, started_at, finished_at, result_json, error, created_at, updated_at)
 SELECT j.id, e.value->>'name', e.value->>'run', e.value->>'o', c.ms - (e.value->>'ms'), iif(e.value->>'o' = 'running', NULL, c.ms),
   e.value->>'result', CAST(e.value->>'err' AS BLOB), c.ms, c.ms
 FROM ` + each + `, db_clock AS c CROSS JOIN jobs AS j WHERE j.id = e.value->>'id' AND ` + isHolder + `
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
 FROM ` + each + `, db_clock AS c CROSS JOIN jobs AS j
 WHERE j.id = e.value->>'id' AND ` + isHolder + ` AND s.job_id = j.id AND s.name = e.value->>'name'
   AND (s.outcome <> 'done' OR e.value->>'o' = 'uncertain')`,
		lostLease,
	}}
)
