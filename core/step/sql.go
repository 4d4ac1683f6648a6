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

// Parts of an item, which is a text: the lease, the time since the step began
// (ms, filled up with spaces to 10), the length of the name in characters
// (to 4), the outcome (to 9), the name, and the rest: the result of a step
// that is done, the error of one that is not.
const (
	itemSince   = `CAST(substr(e.value, 69, 10) AS INTEGER)`
	itemLength  = `CAST(substr(e.value, 79, 4) AS INTEGER)`
	itemOutcome = `rtrim(substr(e.value, 83, 9))`
	itemName    = `substr(e.value, 92, ` + itemLength + `)`
	itemRest    = `substr(e.value, 92 + ` + itemLength + `)`
	itemResult  = `iif(` + itemOutcome + ` = 'done', ` + itemRest + `, NULL)`
	itemError   = `iif(` + itemOutcome + ` IN ('failed', 'uncertain'), CAST(` + itemRest + ` AS BLOB), NULL)`
)

// lostLease answers for those items only whose lease is lost: nothing was
// written for them.
const lostLease = `SELECT e.key FROM ` + queue.Items + ` WHERE NOT EXISTS (SELECT 1 FROM jobs AS j WHERE ` + queue.HeldByText + `)`

// All of the package's writes. Each item stands behind the fence of its own
// job's lease, and each is safe to repeat.
var (
	// opRecord writes down what this run does. A step that is done stays so.
	opRecord = &libsql.Op{Name: "record step", Misses: true, Stmts: []string{
		`INSERT INTO job_steps(job_id, name, run, outcome, started_at, finished_at, result_json, error, created_at, updated_at)
 SELECT j.id, ` + itemName + `, j.claims, ` + itemOutcome + `, c.ms - ` + itemSince + `, iif(` + itemOutcome + ` = 'running', NULL, c.ms),
   ` + itemResult + `, ` + itemError + `, c.ms, c.ms
 FROM ` + queue.Items + `, db_clock AS c CROSS JOIN jobs AS j WHERE ` + queue.HeldByText + `
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
		`UPDATE job_steps AS s SET outcome = ` + itemOutcome + `, finished_at = iif(` + itemOutcome + ` = 'uncertain', NULL, c.ms),
   result_json = ` + itemResult + `, error = ` + itemError + `, updated_at = c.ms
 FROM ` + queue.Items + `, db_clock AS c CROSS JOIN jobs AS j
 WHERE ` + queue.HeldByText + ` AND s.job_id = j.id AND s.name = ` + itemName + ` AND (s.outcome <> 'done' OR ` + itemOutcome + ` = 'uncertain')`,
		lostLease,
	}}
)
