package step

// All of the package's SQL. Every write stands behind the guard of the job's
// lease, and each is safe to repeat.
const (
	// sqlLoad is how the steps of earlier runs stand, without their results,
	// which may be a mebibyte each.
	sqlLoad = `SELECT CAST(name AS BLOB), CAST(outcome AS BLOB), run FROM job_steps WHERE job_id = ?`

	sqlStored = `SELECT CAST(result_json AS BLOB), error FROM job_steps WHERE job_id = ? AND name = ?`

	// sqlRecord writes down what this run does. A step that is done stays so.
	// Arguments: 1 job, 2 name, 3 run, 4 outcome, 5 ms since it began, 6
	// result, 7 error.
	sqlRecord = `INSERT INTO job_steps(job_id, name, run, outcome, started_at, finished_at, result_json, error, created_at, updated_at)
 SELECT ?1, ?2, ?3, ?4, c.ms - ?5, iif(?4 = 'running', NULL, c.ms), ?6, ?7, c.ms, c.ms FROM db_clock AS c WHERE true
 ON CONFLICT(job_id, name) DO UPDATE SET run = excluded.run, outcome = excluded.outcome,
   started_at = iif(job_steps.outcome = 'running' AND job_steps.run = excluded.run, job_steps.started_at, excluded.started_at),
   finished_at = excluded.finished_at, result_json = excluded.result_json, error = excluded.error, updated_at = excluded.updated_at
 WHERE job_steps.outcome <> 'done'`

	// sqlResolve writes down what is known of an effect whose intent is
	// recorded, in this run or an earlier one, which stays named. Only a
	// result that cannot be read makes a step that is done uncertain.
	// Arguments: 1 job, 2 name, 3 outcome, 4 result, 5 error.
	sqlResolve = `UPDATE job_steps SET outcome = ?3, finished_at = iif(?3 = 'uncertain', NULL, c.ms),
   result_json = ?4, error = ?5, updated_at = c.ms
 FROM db_clock AS c WHERE job_id = ?1 AND name = ?2 AND (outcome <> 'done' OR ?3 = 'uncertain')`
)
