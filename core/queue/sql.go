package queue

import "github.com/postroom/postroom/core/libsql"

// Every statement that touches the queue's tables is here, in the order of
// docs/lifecycle.md, which tells the transitions in words. TEXT goes out as
// BLOB: the driver would guess dates in it. Statements that take the time ask
// db_clock once.

// isHolder is true for the row j when the item e carries the token of its
// claim and the job still runs.
const isHolder = `j.lease_token = e.value->>'t' AND j.state = 'running'`

// opEnqueue stores jobs. Items: id, type, queue, prio, max, delay (ms), nb
// (ms), payload (text), key, scope, ttl (ms), limit, parent, trace. Answer:
// the id that stands for the item, whether it is another job's, whether that
// one was pruned, whether the id is taken by a job of another type.
var opEnqueue = &libsql.Op{Name: "enqueue", Stmts: []string{
	`INSERT INTO queues(name, created_at, updated_at)
	 SELECT DISTINCT e.value->>'queue', c.ms, c.ms FROM json_each(?) AS e, db_clock AS c
	 WHERE true ON CONFLICT DO NOTHING`,

	`DELETE FROM job_keys WHERE (type, key) IN
	   (SELECT e.value->>'type', e.value->>'key' FROM json_each(?) AS e WHERE e.value->>'key' IS NOT NULL)
	 AND scope = 'until' AND expires_at <= (SELECT ms FROM db_clock)`,

	`INSERT INTO job_keys(type, key, job_id, scope, expires_at, created_at)
	 SELECT e.value->>'type', e.value->>'key', e.value->>'id', e.value->>'scope', c.ms + (e.value->>'ttl'), c.ms
	 FROM json_each(?) AS e, db_clock AS c
	 WHERE e.value->>'key' IS NOT NULL AND NOT EXISTS (SELECT 1 FROM jobs AS j WHERE j.id = e.value->>'id')
	 ORDER BY e.key ON CONFLICT DO NOTHING`,

	`INSERT INTO jobs(id, type, queue, state, priority, max_attempts, not_before, ready_key,
	   payload_json, idempotency_key, limit_key, parent_id, trace_parent, created_at, updated_at)
	 SELECT n.id, n.type, n.queue, 'queued', n.prio, n.max, n.nb,
	   iif(n.nb > n.ms, NULL, n.ms - n.prio * 30000),
	   n.payload, n.key, n.lim, n.parent, n.trace, n.ms, n.ms
	 FROM (SELECT e.key AS pos, e.value->>'id' AS id, e.value->>'type' AS type, e.value->>'queue' AS queue,
	         e.value->>'prio' AS prio, e.value->>'max' AS max,
	         coalesce(e.value->>'nb', c.ms + (e.value->>'delay')) AS nb,
	         e.value->>'payload' AS payload, e.value->>'key' AS key, e.value->>'limit' AS lim,
	         e.value->>'parent' AS parent, e.value->>'trace' AS trace, c.ms AS ms
	       FROM json_each(?) AS e, db_clock AS c) AS n
	 LEFT JOIN job_keys AS k ON k.type = n.type AND k.key = n.key
	 WHERE n.key IS NULL OR k.job_id = n.id
	 ORDER BY n.pos ON CONFLICT(id) DO NOTHING`,

	`SELECT n.pos, CAST(coalesce(k.job_id, n.id) AS BLOB), coalesce(k.job_id <> n.id, 0), j.id IS NULL, j.type <> n.type
	 FROM (SELECT e.key AS pos, e.value->>'id' AS id, e.value->>'type' AS type, e.value->>'key' AS key
	       FROM json_each(?) AS e) AS n
	 LEFT JOIN job_keys AS k ON k.type = n.type AND k.key = n.key
	   AND NOT EXISTS (SELECT 1 FROM jobs AS o WHERE o.id = n.id)
	 LEFT JOIN jobs AS j ON j.id = coalesce(k.job_id, n.id)`,
}}

// sqlPromote makes jobs that have become due claimable, a bounded number at a
// time.
const sqlPromote = `UPDATE jobs SET ready_key = max(coalesce(not_before, 0), created_at) - priority * 30000
 WHERE seq IN (SELECT seq FROM jobs INDEXED BY jobs_due
   WHERE state = 'queued' AND ready_key IS NULL AND not_before <= (SELECT ms FROM db_clock)
   ORDER BY not_before LIMIT 500)`

// sqlClaim takes the first jobs in claim order over the wanted queues. The
// inner select reads at most limit rows of each queue's index. Arguments:
// 1 token, 2 runner, 3 lease (ms), 4 types (JSON), 5 limit, 6 queues (JSON; NULL
// for all). RETURNING has no order of its own.
const sqlClaim = `UPDATE jobs SET state = 'running', ready_key = NULL, claims = claims + 1, attempts = attempts + 1,
   lease_token = ?1, claimed_by = ?2, lease_expires_at = c.ms + ?3, claimed_at = c.ms, heartbeat_at = c.ms, updated_at = c.ms
 FROM db_clock AS c
 WHERE jobs.seq IN (
   SELECT j.seq FROM queues AS q CROSS JOIN jobs AS j
   WHERE q.paused = 0 AND (?6 IS NULL OR q.name IN (SELECT value FROM json_each(?6)))
   AND j.seq IN (SELECT i.seq FROM jobs AS i INDEXED BY jobs_ready
     WHERE i.queue = q.name AND i.ready_key IS NOT NULL AND i.type IN (SELECT value FROM json_each(?4))
     ORDER BY i.ready_key LIMIT ?5)
   ORDER BY j.ready_key, j.seq LIMIT ?5)
 RETURNING ` + claimColumns

const claimColumns = `CAST(id AS BLOB), CAST(type AS BLOB), CAST(queue AS BLOB), priority, attempts, max_attempts,
   failures, claims, CAST(payload_json AS BLOB), CAST(trace_parent AS BLOB), seq, created_at,
   max(coalesce(not_before, 0), created_at) - priority * 30000, CAST(lease_token AS BLOB)`

// sqlByToken finds what a claim whose reply was lost has taken.
const sqlByToken = `SELECT ` + claimColumns + ` FROM jobs INDEXED BY jobs_lease
 WHERE state = 'running' AND lease_expires_at IS NOT NULL AND lease_token = ?`

// sqlNextDue is how long until the next job becomes due, in ms; NULL for none.
const sqlNextDue = `SELECT min(not_before) - (SELECT ms FROM db_clock) FROM jobs INDEXED BY jobs_due
 WHERE state = 'queued' AND ready_key IS NULL AND not_before IS NOT NULL`

// sqlLook asks whether a claim or a rescue would find anything.
const sqlLook = `SELECT EXISTS (SELECT 1 FROM jobs INDEXED BY jobs_ready WHERE ready_key IS NOT NULL),
 (` + sqlNextDue + `),
 EXISTS (SELECT 1 FROM jobs INDEXED BY jobs_lease WHERE state = 'running' AND lease_expires_at < (SELECT ms FROM db_clock))`

// opHeartbeat extends leases. Items: id, t, lease (ms). Answer: whether the
// token still holds, whether somebody wants the job canceled.
var opHeartbeat = &libsql.Op{Name: "heartbeat", Stmts: []string{
	`UPDATE jobs AS j SET lease_expires_at = c.ms + (e.value->>'lease'), heartbeat_at = c.ms
	 FROM json_each(?) AS e, db_clock AS c WHERE j.id = e.value->>'id' AND ` + isHolder,
	`SELECT e.key, coalesce(` + isHolder + `, 0), j.cancel_requested_at IS NOT NULL
	 FROM json_each(?) AS e LEFT JOIN jobs AS j ON j.id = e.value->>'id'`,
}}

// finishStatements end a run. Items: id, t, o (completed, failed, fatal,
// snoozed, handed_back), d (ms), r (result, text), err, stack. The row of
// job_runs is written first and decides what becomes of the job, so that one
// CASE holds the rules. The last statement answers whether the item's token is
// still on the row and the job runs no more: then it has landed, now or in an
// earlier try whose reply was lost.
var finishStatements = []string{
	`INSERT INTO job_runs(job_id, run, runner, outcome, started_at, finished_at, created_at, error, stack)
	 SELECT j.id, j.claims, j.claimed_by,
	   CASE WHEN e.value->>'o' = 'completed' THEN 'completed'
	        WHEN j.cancel_requested_at IS NOT NULL THEN 'canceled'
	        WHEN e.value->>'o' = 'fatal' THEN 'failed'
	        WHEN e.value->>'o' = 'failed' THEN iif(j.failures + 1 >= j.max_attempts, 'failed', 'retried')
	        ELSE e.value->>'o' END,
	   j.claimed_at, c.ms, c.ms, CAST(e.value->>'err' AS BLOB), CAST(e.value->>'stack' AS BLOB)
	 FROM json_each(?) AS e, db_clock AS c JOIN jobs AS j ON j.id = e.value->>'id'
	 WHERE ` + isHolder,

	`UPDATE jobs AS j SET
	   state = CASE r.outcome WHEN 'completed' THEN 'completed' WHEN 'failed' THEN 'failed'
	           WHEN 'canceled' THEN 'canceled' ELSE 'queued' END,
	   attempts = j.attempts - (r.outcome IN ('snoozed', 'handed_back')),
	   failures = j.failures + (r.outcome IN ('failed', 'retried')),
	   not_before = iif(r.outcome IN ('retried', 'snoozed'), r.finished_at + (e.value->>'d'), j.not_before),
	   ready_key = iif(r.outcome = 'handed_back', max(coalesce(j.not_before, 0), j.created_at) - j.priority * 30000, NULL),
	   finished_at = iif(r.outcome IN ('completed', 'failed', 'canceled'), r.finished_at, NULL),
	   result_json = iif(r.outcome = 'completed', e.value->>'r', j.result_json),
	   last_error = iif(r.outcome IN ('failed', 'retried'), r.error, j.last_error),
	   lease_expires_at = NULL, claimed_by = NULL, updated_at = r.finished_at
	 FROM json_each(?) AS e, job_runs AS r
	 WHERE j.id = e.value->>'id' AND r.job_id = j.id AND r.run = j.claims AND ` + isHolder,

	`DELETE FROM job_keys WHERE scope = 'active' AND (type, key, job_id) IN
	   (SELECT j.type, j.idempotency_key, j.id FROM json_each(?) AS e JOIN jobs AS j ON j.id = e.value->>'id'
	    WHERE j.idempotency_key IS NOT NULL AND j.finished_at IS NOT NULL AND j.lease_token = e.value->>'t')`,

	`SELECT e.key, coalesce(j.lease_token = e.value->>'t' AND j.state <> 'running', 0), CAST(j.state AS BLOB)
	 FROM json_each(?) AS e LEFT JOIN jobs AS j ON j.id = e.value->>'id'`,
}

var opFinish = &libsql.Op{Name: "finish", Stmts: finishStatements}

// opSnooze is opFinish for snoozed runs. A job that snoozes for ever (a
// mailbox's sync) keeps the last of a row of snoozed runs, not all of them.
var opSnooze = &libsql.Op{Name: "snooze", Stmts: append([]string{
	`DELETE FROM job_runs WHERE outcome = 'snoozed' AND (job_id, run) IN
	   (SELECT j.id, j.claims - 1 FROM json_each(?) AS e JOIN jobs AS j ON j.id = e.value->>'id' WHERE ` + isHolder + `)`,
}, finishStatements...)}

// sqlGuard raises an error unless the token still holds the job.
const sqlGuard = `SELECT length(json(iif(EXISTS (
  SELECT 1 FROM jobs WHERE id = ? AND lease_token = ? AND state = 'running'), '{}', 'lease lost')))`

// Rescue takes back jobs whose lease has run out, a bounded number at a time.
// The row of job_runs marks which ones, so that both statements mean the same
// jobs although each reads the clock. The token goes: a late write of the old
// holder must not pass for one that landed.
const sqlRescueRuns = `INSERT INTO job_runs(job_id, run, runner, outcome, started_at, finished_at, created_at, error)
 SELECT id, claims, claimed_by, 'rescued', claimed_at, (SELECT ms FROM db_clock), (SELECT ms FROM db_clock),
   CAST('the runner stopped renewing its lease' AS BLOB)
 FROM jobs INDEXED BY jobs_lease
 WHERE state = 'running' AND lease_expires_at < (SELECT ms FROM db_clock) ORDER BY lease_expires_at LIMIT 100`

// justMarked finds the jobs that sqlRescueRuns marked in this transaction: an
// ended run of the current claim and still running is otherwise impossible.
const justMarked = `i.state = 'running' AND i.lease_expires_at IS NOT NULL
   AND EXISTS (SELECT 1 FROM job_runs AS r WHERE r.job_id = i.id AND r.run = i.claims)`

const sqlRescueKeys = `DELETE FROM job_keys WHERE scope = 'active' AND (type, key, job_id) IN
   (SELECT i.type, i.idempotency_key, i.id FROM jobs AS i INDEXED BY jobs_lease
    WHERE i.idempotency_key IS NOT NULL AND i.cancel_requested_at IS NOT NULL AND ` + justMarked + `)`

const sqlRescue = `UPDATE jobs SET
   state = iif(cancel_requested_at IS NULL, 'queued', 'canceled'),
   finished_at = iif(cancel_requested_at IS NULL, NULL, c.ms),
   crashes = crashes + 1, not_before = c.ms + min(300000, 2000 << min(crashes, 16)), ready_key = NULL,
   lease_token = NULL, lease_expires_at = NULL, claimed_by = NULL, updated_at = c.ms
 FROM db_clock AS c
 WHERE jobs.seq IN (SELECT i.seq FROM jobs AS i INDEXED BY jobs_lease WHERE ` + justMarked + `)
 RETURNING CAST(id AS BLOB), CAST(type AS BLOB), CAST(state AS BLOB), crashes`

// Cancel. A queued job ends at once and frees its key; a running one is asked
// to stop.
const sqlCancelKey = `DELETE FROM job_keys WHERE scope = 'active' AND (type, key, job_id) IN
   (SELECT type, idempotency_key, id FROM jobs WHERE id = ? AND state = 'queued' AND idempotency_key IS NOT NULL)`

const sqlCancel = `UPDATE jobs SET
   cancel_requested_at = coalesce(cancel_requested_at, c.ms),
   finished_at = iif(state = 'queued', c.ms, NULL), ready_key = NULL, updated_at = c.ms,
   state = iif(state = 'queued', 'canceled', state)
 FROM db_clock AS c WHERE id = ? AND state IN ('queued', 'running') RETURNING seq`

const sqlCancelRequested = `SELECT CAST(id AS BLOB) FROM jobs INDEXED BY jobs_cancel
 WHERE state = 'running' AND cancel_requested_at IS NOT NULL AND claimed_by = ?`

// Retry by hand. The key is taken again if it is free; if another job has it,
// the guard stops the batch.
const sqlRetryGuardState = `SELECT length(json(iif(EXISTS (
  SELECT 1 FROM jobs WHERE id = ? AND state IN ('failed', 'canceled')), '{}', 'not final')))`

const sqlRetryGuardKey = `SELECT length(json(iif(NOT EXISTS (
  SELECT 1 FROM jobs AS j JOIN job_keys AS k ON k.type = j.type AND k.key = j.idempotency_key
  WHERE j.id = ? AND k.job_id <> j.id AND (k.expires_at IS NULL OR k.expires_at > (SELECT ms FROM db_clock))), '{}', 'key in use')))`

const sqlRetryKey = `INSERT INTO job_keys(type, key, job_id, scope, expires_at, created_at)
 SELECT j.type, j.idempotency_key, j.id, 'active', NULL, c.ms FROM jobs AS j, db_clock AS c
 WHERE j.id = ? AND j.idempotency_key IS NOT NULL
 ON CONFLICT DO UPDATE SET job_id = excluded.job_id, scope = excluded.scope, expires_at = NULL, created_at = excluded.created_at
 WHERE job_keys.job_id <> excluded.job_id`

const sqlRetry = `UPDATE jobs SET state = 'queued', failures = 0, crashes = 0, cancel_requested_at = NULL,
   finished_at = NULL, not_before = c.ms, ready_key = c.ms - priority * 30000, lease_token = NULL, updated_at = c.ms
 FROM db_clock AS c WHERE id = ?`

// sqlPullForward makes a job that waits for its time due now.
const sqlPullForward = `UPDATE jobs SET not_before = c.ms, ready_key = c.ms - priority * 30000, updated_at = c.ms
 FROM db_clock AS c WHERE jobs.seq IN (
   SELECT j.seq FROM job_keys AS k JOIN jobs AS j ON j.id = k.job_id
   WHERE k.type = ? AND k.key = ? AND j.state = 'queued' AND j.not_before > (SELECT ms FROM db_clock)) RETURNING seq`

const jobColumns = `seq, CAST(id AS BLOB), CAST(type AS BLOB), CAST(queue AS BLOB), CAST(state AS BLOB), priority,
 attempts, max_attempts, failures, crashes, CAST(payload_json AS BLOB), CAST(result_json AS BLOB), last_error,
 not_before, CAST(idempotency_key AS BLOB), CAST(limit_key AS BLOB), created_at, updated_at, finished_at,
 heartbeat_at, cancel_requested_at, CAST(claimed_by AS BLOB), CAST(parent_id AS BLOB), CAST(trace_parent AS BLOB)`

const sqlGet = `SELECT ` + jobColumns + ` FROM jobs WHERE id = ?`

// sqlList looks at a bounded window of the newest jobs below a cursor and
// applies the filters inside it. Arguments: 1 below, 2 window, 3 state, 4
// type, 5 queue, 6 key (NULL for any), 7 limit.
const sqlList = `SELECT ` + jobColumns + ` FROM (SELECT * FROM jobs WHERE seq < ?1 ORDER BY seq DESC LIMIT ?2)
 WHERE (?3 IS NULL OR state = ?3) AND (?4 IS NULL OR type = ?4) AND (?5 IS NULL OR queue = ?5)
 AND (?6 IS NULL OR idempotency_key = ?6 OR limit_key = ?6) ORDER BY seq DESC LIMIT ?7`

// sqlListEnd is where that window ends: no row when it reaches the oldest job.
const sqlListEnd = `SELECT seq FROM jobs WHERE seq < ? ORDER BY seq DESC LIMIT 1 OFFSET ?`

const sqlRuns = `SELECT run, CAST(runner AS BLOB), CAST(outcome AS BLOB), started_at, finished_at, error, stack
 FROM job_runs WHERE job_id = ? ORDER BY run`

const sqlSteps = `SELECT CAST(name AS BLOB), run, CAST(outcome AS BLOB), started_at, finished_at, CAST(result_json AS BLOB), error
 FROM job_steps WHERE job_id = ? ORDER BY started_at, name`

const sqlQueues = `SELECT CAST(q.name AS BLOB), q.paused, CAST(j.state AS BLOB), count(j.seq),
   min(CASE WHEN j.ready_key IS NOT NULL THEN max(coalesce(j.not_before, 0), j.created_at) END), (SELECT ms FROM db_clock)
 FROM queues AS q LEFT JOIN jobs AS j ON j.queue = q.name GROUP BY q.name, j.state ORDER BY q.name`

// sqlRunner writes the runner's own row, at its start and with its heartbeats.
const sqlRunner = `INSERT INTO runners(id, host, pid, version, queues_json, types_json, concurrency, started_at, heartbeat_at, created_at, updated_at)
 SELECT ?, ?, ?, ?, ?, ?, ?, c.ms, c.ms, c.ms, c.ms FROM db_clock AS c WHERE true
 ON CONFLICT(id) DO UPDATE SET heartbeat_at = excluded.heartbeat_at, updated_at = excluded.updated_at`

const sqlRunnerGone = `DELETE FROM runners WHERE id = ?`

// sqlRunnersForget drops runners that have been silent for a day.
const sqlRunnersForget = `DELETE FROM runners WHERE heartbeat_at < (SELECT ms FROM db_clock) - 86400000`

const sqlRunners = `SELECT CAST(id AS BLOB), CAST(host AS BLOB), pid, CAST(version AS BLOB), CAST(queues_json AS BLOB),
 CAST(types_json AS BLOB), concurrency, started_at, heartbeat_at FROM runners ORDER BY started_at, id`

// sqlUnknownTypes looks at the head of each queue for types that no living
// runner has registered.
const sqlUnknownTypes = `SELECT DISTINCT CAST(type AS BLOB) FROM (
   SELECT type FROM jobs INDEXED BY jobs_ready WHERE ready_key IS NOT NULL LIMIT 100)
 WHERE type NOT IN (SELECT t.value FROM runners AS r, json_each(r.types_json) AS t)`
