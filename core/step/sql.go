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

// Items are packed: [queue.Lease.AppendPacked]; filled up with spaces the time since
// the step began (ms, to 10 bytes), the length of the name in bytes (to 4), the
// outcome (to 9) and the length of the rest (to 7); the name; and the rest: the
// result of a step that is done, the error of one that is not. The LIMIT keeps
// SQLite from writing what is read from the item here out wherever it is
// mentioned.
const items = `(SELECT key, value, rtrim(CAST(substr(?1, value + 65, 9) AS TEXT)) AS outcome,
     CAST(substr(?1, value + 61, 4) AS INTEGER) AS length, (SELECT ms FROM db_clock) AS ms
   FROM ` + libsql.PackedItems + ` LIMIT -1) AS e`

const (
	itemSince  = `CAST(substr(?1, e.value + 51, 10) AS INTEGER)`
	itemName   = `CAST(substr(?1, e.value + 81, e.length) AS TEXT)`
	itemRest   = `substr(?1, e.value + 81 + e.length, CAST(substr(?1, e.value + 74, 7) AS INTEGER))`
	itemResult = `iif(e.outcome = 'done', CAST(` + itemRest + ` AS TEXT), NULL)`
	itemError  = `iif(e.outcome = 'failed' OR e.outcome = 'uncertain', ` + itemRest + `, NULL)`
)

// lostLease answers for those items only whose lease is lost: nothing was
// written for them.
var lostLease = `SELECT e.key FROM ` + libsql.PackedItems + ` WHERE NOT EXISTS (SELECT 1 FROM jobs AS j WHERE ` + queue.HeldByPacked(`e.value`) + `)`

// All of the package's writes. Each item stands behind the fence of its own
// job's lease, and each is safe to repeat.
var (
	// opRecord writes down what this run does. A step that is done stays so.
	opRecord = &libsql.Op{Name: "record step", Misses: true, Packed: true, Stmts: []string{
		`INSERT INTO job_steps(job_id, name, run, outcome, started_at, finished_at, result_json, error, created_at, updated_at)
 SELECT j.id, ` + itemName + `, j.claims, e.outcome, e.ms - ` + itemSince + `, iif(e.outcome = 'running', NULL, e.ms),
   ` + itemResult + `, ` + itemError + `, e.ms, e.ms
 FROM ` + items + ` CROSS JOIN jobs AS j WHERE ` + queue.HeldByPacked(`e.value`) + `
 ON CONFLICT(job_id, name) DO UPDATE SET run = excluded.run, outcome = excluded.outcome,
   started_at = iif(job_steps.outcome = 'running' AND job_steps.run = excluded.run, job_steps.started_at, excluded.started_at),
   finished_at = excluded.finished_at, result_json = excluded.result_json, error = excluded.error, updated_at = excluded.updated_at
 WHERE job_steps.outcome <> 'done'`,
		lostLease,
	}}

	// opResolve writes down what is known of an effect whose intent is
	// recorded, in this run or an earlier one, which stays named. Only a
	// result that cannot be read makes a step that is done uncertain.
	opResolve = &libsql.Op{Name: "resolve step", Misses: true, Packed: true, Stmts: []string{
		`UPDATE job_steps AS s SET outcome = e.outcome, finished_at = iif(e.outcome = 'uncertain', NULL, e.ms),
   result_json = ` + itemResult + `, error = ` + itemError + `, updated_at = e.ms
 FROM ` + items + ` JOIN jobs AS j
 WHERE ` + queue.HeldByPacked(`e.value`) + ` AND s.job_id = j.id AND s.name = ` + itemName + ` AND (s.outcome <> 'done' OR e.outcome = 'uncertain')`,
		lostLease,
	}}
)
