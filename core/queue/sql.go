package queue

import (
	"slices"

	"github.com/postroom/postroom/core/libsql"
)

// Every statement that touches the queue's tables is here, in the order of
// docs/lifecycle.md, which tells the transitions in words. TEXT goes out as
// BLOB: see libsql.Query. Statements that take the time ask db_clock once.

// items is the items e of an op that is not packed. The LIMIT keeps SQLite from
// putting json_each in its place, which would write out the item's text for
// every mention of it.
const items = `(SELECT key, value FROM json_each(?) LIMIT -1) AS e`

// heldByObject is true for the row j of jobs when the item e, an object with
// that job's id, carries the token of its claim (t) and the job still runs: the
// fence of every op.
const heldByObject = `j.lease_token = e.value->>'t' AND j.state = 'running'`

// packedJob is the row j of jobs whose lease, as [Lease.AppendPacked] writes it,
// stands at a place in the argument of a packed op.
func packedJob(at string) string { return `j.seq = CAST(substr(?1, ` + at + `, 19) AS INTEGER)` }

func packedToken(at string) string {
	return `j.lease_token = rtrim(CAST(substr(?1, ` + at + ` + 19, 32) AS TEXT))`
}

// HeldByPacked is the fence of packed ops.
func HeldByPacked(at string) string {
	return packedJob(at) + ` AND ` + packedToken(at) + ` AND j.state = 'running'`
}

// place is where the row j stands in the claim order: the age of a job counts
// from when it was stored or, if that is later, from when it becomes due.
const place = `max(coalesce(j.not_before, 0), j.created_at) - j.priority * 30000`

// boost is how many ms of age a step of priority is worth, as place has it.
const boost = 30_000

// isLimited is true for the row j when its key has a limit. Such a job waits
// under wait_key until the key has room: see limits.go.
const isLimited = `(j.limit_key IS NOT NULL AND EXISTS (SELECT 1 FROM limits AS l WHERE l.scope = 'key' AND l.name IN (j.limit_key, '*')))`

// lineUp sets ready_key or wait_key of the row j when the condition holds,
// and neither when it does not.
func lineUp(condition string) string {
	return `ready_key = iif((` + condition + `) AND NOT ` + isLimited + `, ` + place + `, NULL),
   wait_key = iif((` + condition + `) AND ` + isLimited + `, ` + place + `, NULL)`
}

// opEnqueue stores jobs. Items: id, type, queue, prio, max, delay (ms), nb
// (ms), payload (text), key, scope, ttl (ms), limit, parent, trace, after (see
// sqlAfter), fail (what becomes of it when one of those did not complete).
// An id that comes twice is one job, the first: the second takes no key.
// Answer: the id that stands for the item, whether it is another job's,
// whether that one was pruned, whether the id is taken by a job of another
// type.
var opEnqueue = &libsql.Op{Name: "enqueue", Rouses: true, Stmts: []string{
	`DELETE FROM job_keys WHERE (type, key) IN
	   (SELECT e.value->>'type', e.value->>'key' FROM json_each(?) AS e WHERE e.value->>'key' IS NOT NULL)
	 AND scope = 'until' AND expires_at <= (SELECT ms FROM db_clock)`,

	`INSERT INTO job_keys(type, key, job_id, scope, expires_at, created_at)
	 SELECT e.value->>'type', e.value->>'key', e.value->>'id', e.value->>'scope', c.ms + (e.value->>'ttl'), c.ms
	 FROM (SELECT key, value, row_number() OVER (PARTITION BY value->>'id' ORDER BY key) AS nth FROM json_each(?1)
	   WHERE EXISTS (SELECT 1 FROM json_each(?1) WHERE value->>'key' IS NOT NULL)) AS e, db_clock AS c
	 WHERE e.nth = 1 AND e.value->>'key' IS NOT NULL AND NOT EXISTS (SELECT 1 FROM jobs AS j WHERE j.id = e.value->>'id')
	 ORDER BY e.key ON CONFLICT DO NOTHING`,

	`INSERT INTO jobs(id, type, queue, state, priority, max_attempts, not_before, ready_key, wait_key, waits, after_failure,
   payload_json, idempotency_key, limit_key, parent_id, trace_parent, created_at, updated_at)
 SELECT n.id, n.type, n.queue, 'queued', n.prio, n.max, n.nb,
   iif(n.fail IS NOT NULL OR n.nb > n.ms OR n.limited, NULL, n.ms - n.prio * 30000),
   iif(n.fail IS NOT NULL OR n.nb > n.ms OR NOT n.limited, NULL, n.ms - n.prio * 30000), n.fail IS NOT NULL, n.fail,
   n.payload, n.key, n.lim, n.parent, n.trace, n.ms, n.ms
 FROM (SELECT e.key AS pos, e.value->>'id' AS id, e.value->>'type' AS type, e.value->>'queue' AS queue,
         e.value->>'prio' AS prio, e.value->>'max' AS max,
         coalesce(e.value->>'nb', c.ms + (e.value->>'delay')) AS nb,
         e.value->>'payload' AS payload, e.value->>'key' AS key, e.value->>'limit' AS lim,
         e.value->>'limit' IS NOT NULL AND EXISTS (SELECT 1 FROM limits AS l WHERE l.scope = 'key' AND l.name IN (e.value->>'limit', '*')) AS limited,
         e.value->>'parent' AS parent, e.value->>'trace' AS trace, e.value->>'fail' AS fail, c.ms AS ms
       FROM ` + items + `, db_clock AS c LIMIT -1) AS n
	 LEFT JOIN job_keys AS k ON k.type = n.type AND k.key = n.key
	 WHERE n.key IS NULL OR k.job_id = n.id
	 ORDER BY n.pos ON CONFLICT(id) DO NOTHING`,

	enqueueAnswer(``),
}}

// opEnqueueShown is opEnqueue with the job that stands for the item in its
// answer, for one round trip.
var opEnqueueShown = &libsql.Op{Name: "enqueue shown", Rouses: true, Stmts: append(slices.Clone(opEnqueue.Stmts[:len(opEnqueue.Stmts)-1]), enqueueAnswer(`, `+jobColumns))}

func enqueueAnswer(more string) string {
	return `SELECT n.pos, CAST(n.stands AS BLOB), n.stands <> n.own, jobs.seq IS NULL, jobs.type <> n.wanted` + more + `
	 FROM (SELECT e.key AS pos, e.value->>'id' AS own, e.value->>'type' AS wanted, coalesce(k.job_id, e.value->>'id') AS stands
	       FROM json_each(?) AS e
	       LEFT JOIN job_keys AS k ON k.type = e.value->>'type' AND k.key = e.value->>'key'
	         AND NOT EXISTS (SELECT 1 FROM jobs AS o WHERE o.id = e.value->>'id')) AS n
	 LEFT JOIN jobs ON jobs.id = n.stands`
}

// opEnqueueNew is opEnqueue for jobs without a key, an id of their caller's or
// others to come after: there is nothing to ask about them. Its items are
// texts: see pack.
var opEnqueueNew = &libsql.Op{Name: "enqueue new", Rouses: true, Packed: true, Stmts: []string{sqlInsertNew}}

// opEnqueueNewShown is opEnqueueNew with the answer of opEnqueueShown.
var opEnqueueNewShown = &libsql.Op{Name: "enqueue new shown", Rouses: true, Packed: true, Stmts: []string{sqlInsertNew,
	`SELECT e.key, CAST(jobs.id AS BLOB), 0, 0, 0, ` + jobColumns + `
	 FROM ` + libsql.PackedItems + ` JOIN jobs ON jobs.id = CAST(substr(?1, e.value, 36) AS TEXT)`,
}}

var sqlInsertNew = insertNew(`e.value`, `true`)

// insertNew stores the packed jobs of those items for which the condition holds.
// o is where a job begins; the lengths of its parts are t, q, l and m, and x is
// the object with what few jobs have. The LIMITs keep SQLite from writing the
// text for each of these out wherever it is mentioned.
func insertNew(begins, condition string) string {
	return `INSERT INTO jobs(id, type, queue, state, priority, max_attempts, not_before, ready_key, wait_key,
   payload_json, limit_key, parent_id, trace_parent, created_at, updated_at)
 SELECT CAST(substr(?1, o, 36) AS TEXT), CAST(substr(?1, o + 64, t) AS TEXT), CAST(substr(?1, o + 64 + t, q) AS TEXT), 'queued',
   p, CAST(substr(?1, o + 40, 4) AS INTEGER), iif(x IS NULL, NULL, ` + newNotBefore + `),
   iif(x IS NULL, ms - p * 30000, iif(` + newNotBefore + ` > ms OR ` + newIsLimited + `, NULL, ms - p * 30000)),
   iif(x IS NULL, NULL, iif(` + newNotBefore + ` > ms OR NOT ` + newIsLimited + `, NULL, ms - p * 30000)),
   CAST(substr(?1, o + 64 + t + q, l) AS TEXT), iif(x IS NULL, NULL, x->>'limit'), iif(x IS NULL, NULL, x->>'parent'),
   iif(x IS NULL, NULL, x->>'trace'), ms, ms
 FROM (SELECT o, p, t, q, l, iif(m = 0, NULL, CAST(substr(?1, o + 64 + t + q + l, m) AS TEXT)) AS x, ms
   FROM (SELECT o, CAST(substr(?1, o + 36, 4) AS INTEGER) AS p, CAST(substr(?1, o + 44, 3) AS INTEGER) AS t,
           CAST(substr(?1, o + 47, 3) AS INTEGER) AS q, CAST(substr(?1, o + 50, 7) AS INTEGER) AS l,
           CAST(substr(?1, o + 57, 7) AS INTEGER) AS m, ms
         FROM (SELECT ` + begins + ` AS o, (SELECT ms FROM db_clock) AS ms FROM ` + libsql.PackedItems + ` WHERE ` + condition + ` LIMIT -1) LIMIT -1) LIMIT -1)
 WHERE true ON CONFLICT(id) DO NOTHING`
}

const newNotBefore = `coalesce(x->>'nb', ms + (x->>'delay'))`

const newIsLimited = `(x->>'limit' IS NOT NULL AND EXISTS (SELECT 1 FROM limits AS l WHERE l.scope = 'key' AND l.name IN (x->>'limit', '*')))`

// Guards of an enqueue that is not one merged item. The first refuses an id
// that belongs to a job of another type, the second a job to come after that
// is not stored; a repeat of a request that has landed passes.
const sqlEnqueueGuardID = `SELECT length(json(iif(NOT EXISTS (
  SELECT 1 FROM json_each(?) AS e JOIN jobs AS j ON j.id = e.value->>'id' WHERE j.type <> e.value->>'type'), '{}', 'id in use')))`

const sqlEnqueueGuardAfter = `SELECT length(json(iif(NOT EXISTS (SELECT 1 FROM ` + unknownAfter + `), '{}', 'unknown job')))`

const unknownAfter = `json_each(?) AS e CROSS JOIN json_each(e.value, '$.after') AS a
  WHERE a.value->>'new' IS NULL AND NOT EXISTS (SELECT 1 FROM jobs WHERE id = a.value->>'id')
  AND NOT EXISTS (SELECT 1 FROM jobs WHERE id = e.value->>'id')`

// sqlUnknownAfter says for which item, and which of the jobs it names, the
// second guard raised its error.
const sqlUnknownAfter = `SELECT e.key, a.key FROM ` + unknownAfter + ` ORDER BY e.key, a.key LIMIT 1`

// sqlAfter records which jobs an item comes after: its after is a list of
// {id}, and of {id, new, type, key} for those that are stored by the same call
// and may turn out to be duplicates. The jobs of one that has ended already
// are marked, so that the next claim looks at it. A repeat, which finds what
// the job comes after, adds nothing.
const sqlAfter = `INSERT INTO job_deps(job_id, after_id, outcome, marked, created_at)
 SELECT d.job_id, d.after_id, CASE WHEN o.id IS NULL THEN 'pruned' WHEN o.finished_at IS NOT NULL THEN o.state END,
   o.id IS NULL OR o.finished_at IS NOT NULL, (SELECT ms FROM db_clock)
 FROM (SELECT j.id AS job_id, coalesce((SELECT s.id FROM jobs AS s WHERE s.id = a.value->>'id'),
         (SELECT k.job_id FROM job_keys AS k WHERE k.type = a.value->>'type' AND k.key = a.value->>'key'), a.value->>'id') AS after_id
       FROM json_each(?) AS e CROSS JOIN json_each(e.value, '$.after') AS a JOIN jobs AS j ON j.id = e.value->>'id' AND j.waits = 1
       WHERE NOT EXISTS (SELECT 1 FROM job_deps AS x WHERE x.job_id = j.id)) AS d
 LEFT JOIN jobs AS o ON o.id = d.after_id WHERE true ON CONFLICT DO NOTHING`

// What moves jobs into the claim index. Each takes a bounded number of rows;
// sqlLook says which of them have anything to do.

// sqlHoldKeys takes keys for ever in the name of a job, so that no other job is
// stored for them. Arguments: 1 type, 2 keys (JSON), 3 job.
const sqlHoldKeys = `INSERT INTO job_keys(type, key, job_id, scope, created_at)
 SELECT ?1, e.value, ?3, 'forever', c.ms FROM json_each(?2) AS e, db_clock AS c WHERE true ON CONFLICT DO NOTHING`

// sqlDropKeys frees keys that begin alike, a bounded number at a time. The
// prefix (2) is followed by 3, the least text that is above all of them.
const sqlDropKeys = `DELETE FROM job_keys WHERE type = ?1 AND key IN (
   SELECT key FROM job_keys WHERE type = ?1 AND key >= ?2 AND key < ?3 LIMIT ?4) RETURNING 1`

// sqlPromote lines up jobs that have become due.
var sqlPromote = `UPDATE jobs AS j SET ` + lineUp(`true`) + `
 WHERE j.seq IN (SELECT seq FROM jobs INDEXED BY jobs_due
   WHERE state = 'queued' AND ready_key IS NULL AND wait_key IS NULL AND waits = 0 AND solo = 0 AND not_before <= (SELECT ms FROM db_clock)
   ORDER BY not_before LIMIT 500)`

// sqlAfterTake picks the waiting jobs to look at, of which another one has
// ended. What is marked by the looking itself is left for the next batch.
const sqlAfterTake = `UPDATE job_deps SET marked = 2 WHERE (job_id, after_id) IN
   (SELECT job_id, after_id FROM job_deps INDEXED BY job_deps_marked WHERE marked > 0 AND marked = 1 LIMIT 200)`

const theMarked = `(SELECT job_id FROM job_deps INDEXED BY job_deps_marked WHERE marked > 0 AND marked = 2)`

// hasBad is true for the waiting row j when a job before it ended otherwise
// than completed.
const hasBad = `EXISTS (SELECT 1 FROM job_deps AS d INDEXED BY job_deps_bad WHERE d.job_id = j.id AND d.outcome <> 'completed')`

// sqlAfterCancel cancels those that were to come after a job that did not
// complete. One that would wait for a retry is canceled when no retry can come
// any more.
const sqlAfterCancel = `UPDATE jobs AS j SET state = 'canceled', waits = 0, finished_at = c.ms, updated_at = c.ms,
   last_error = (SELECT CAST('it was to come after job ' || d.after_id || ', which ' ||
       CASE d.outcome WHEN 'failed' THEN 'failed' WHEN 'canceled' THEN 'was canceled' ELSE 'is no longer stored' END AS BLOB)
     FROM job_deps AS d INDEXED BY job_deps_bad WHERE d.job_id = j.id AND d.outcome <> 'completed' ORDER BY d.outcome = 'pruned' DESC LIMIT 1)
 FROM db_clock AS c
 WHERE j.id IN ` + theMarked + ` AND j.waits = 1 AND (j.after_failure = 'cancel' AND ` + hasBad + ` OR j.after_failure = 'wait'
   AND EXISTS (SELECT 1 FROM job_deps AS d INDEXED BY job_deps_bad WHERE d.job_id = j.id AND d.outcome <> 'completed' AND d.outcome = 'pruned'))`

const sqlAfterKeys = `DELETE FROM job_keys WHERE scope = 'active' AND (type, key, job_id) IN
   (SELECT type, idempotency_key, id FROM jobs WHERE id IN ` + theMarked + ` AND idempotency_key IS NOT NULL AND finished_at IS NOT NULL)`

// sqlAfterRelease lines up those whose wait is over.
var sqlAfterRelease = `UPDATE jobs AS j SET waits = 0, updated_at = c.ms, ` + lineUp(`j.not_before IS NULL OR j.not_before <= c.ms`) + `
 FROM db_clock AS c
 WHERE j.id IN ` + theMarked + ` AND j.waits = 1 AND (j.after_failure = 'run' OR NOT ` + hasBad + `)
   AND NOT EXISTS (SELECT 1 FROM job_deps AS d INDEXED BY job_deps_open WHERE d.job_id = j.id AND d.outcome IS NULL)`

const sqlAfterDone = `UPDATE job_deps SET marked = 0 WHERE (job_id, after_id) IN
   (SELECT job_id, after_id FROM job_deps INDEXED BY job_deps_marked WHERE marked > 0 AND marked = 2)`

// lanes walks the claim index from the first job of one (queue, type) to that
// of the next: its cost is the number of lanes with claimable jobs, however
// many jobs wait in each. To ask for (queue, type) > (?, ?) would read a whole
// lane: SQLite begins such a search at the first row that is equal.
const lanes = `lane(seq) AS (
   SELECT (SELECT seq FROM jobs INDEXED BY jobs_ready WHERE ready_key IS NOT NULL ORDER BY queue, type LIMIT 1)
   UNION ALL
   SELECT coalesce(
     (SELECT f.seq FROM jobs AS f INDEXED BY jobs_ready WHERE f.ready_key IS NOT NULL AND f.queue = p.queue AND f.type > p.type ORDER BY f.type LIMIT 1),
     (SELECT f.seq FROM jobs AS f INDEXED BY jobs_ready WHERE f.ready_key IS NOT NULL AND f.queue > p.queue ORDER BY f.queue, f.type LIMIT 1))
   FROM lane CROSS JOIN jobs AS p ON p.seq = lane.seq)`

// openLanes are the lanes whose jobs may be claimed, each with the columns given.
// Arguments of the claim: 4 types (JSON), 6 queues (JSON; NULL for all).
func openLanes(columns, names string) string {
	return `WITH RECURSIVE ` + lanes + `,
 open(queue, type` + names + `) AS MATERIALIZED (
   SELECT p.queue, p.type` + columns + `
   FROM lane CROSS JOIN jobs AS p ON p.seq = lane.seq
   WHERE p.type IN (SELECT value FROM json_each(?4)) AND (?6 IS NULL OR p.queue IN (SELECT value FROM json_each(?6)))
   AND NOT EXISTS (SELECT 1 FROM queues AS q WHERE q.name = p.queue AND q.paused = 1))`
}

// A claim takes the first jobs in claim order over the lanes that the runner
// works. Arguments: 1 token, 2 runner, 3 lease (ms), 4 types (JSON), 5 limit, 6
// queues (JSON; NULL for all).

// theFirst are the jobs that a claim takes where nothing is limited. One lane
// is read in its order; of several at most limit jobs each are sorted.
const theFirst = `(SELECT seq AS taken FROM (SELECT i.seq FROM jobs AS i INDEXED BY jobs_ready
     WHERE (SELECT count(*) FROM open) = 1 AND i.queue = (SELECT queue FROM open) AND i.type = (SELECT type FROM open) AND i.ready_key IS NOT NULL
     ORDER BY i.ready_key, i.seq LIMIT ?5)
   UNION ALL
   SELECT seq FROM (SELECT j.seq FROM open AS o CROSS JOIN jobs AS j ON j.seq IN (SELECT i.seq FROM jobs AS i INDEXED BY jobs_ready
       WHERE i.queue = o.queue AND i.type = o.type AND i.ready_key IS NOT NULL ORDER BY i.ready_key, i.seq LIMIT ?5)
     WHERE (SELECT count(*) FROM open) > 1
     ORDER BY j.ready_key, j.seq LIMIT ?5))`

// sqlPick reads the jobs as sqlTake, which follows it in the same transaction,
// leaves them: to return them from the update would copy each row twice more.
var sqlPick = openLanes(``, ``) + `
 SELECT ` + claimColumns(`attempts + 1`, `claims + 1`, `(SELECT ms FROM db_clock)`) + `
 FROM ` + theFirst + ` CROSS JOIN jobs ON seq = taken`

var sqlTake = openLanes(``, ``) + `
 UPDATE jobs SET ` + claimed + `
 WHERE seq IN ` + theFirst

// claimed is what a claim sets.
const claimed = `state = 'running', ready_key = NULL, claims = claims + 1, attempts = attempts + 1, lease_token = ?1, claimed_by = ?2,
   lease_expires_at = (SELECT ms FROM db_clock) + ?3, claimed_at = (SELECT ms FROM db_clock), heartbeat_at = (SELECT ms FROM db_clock),
   updated_at = (SELECT ms FROM db_clock)`

// sqlClaim is the claim where something is limited. From each lane at most
// limit entries of the index are looked at. What is limited is then ranked
// within its queue, its type and its key, so that this statement's own jobs
// count too. RETURNING has no order of its own.
var sqlClaim = openLanes(`, `+roomOf+`'queue' AND l.name = p.queue), `+roomOf+`'type' AND l.name = p.type)`, `, in_queue, in_type`) + `,
 candidate(seq, ready_key, queue, type, limit_key, in_queue, in_type, in_key) AS MATERIALIZED (
   SELECT j.seq, j.ready_key, j.queue, j.type, j.limit_key, o.in_queue, o.in_type,
     iif(j.limit_key IS NULL, NULL, ` + roomInKey(`j.limit_key`) + `)
   FROM open AS o CROSS JOIN jobs AS j ON j.seq IN (
     SELECT i.seq FROM jobs AS i INDEXED BY jobs_ready
     WHERE i.queue = o.queue AND i.type = o.type AND i.ready_key IS NOT NULL ORDER BY i.ready_key, i.seq LIMIT ?5)
   WHERE coalesce(o.in_queue, 1) > 0 AND coalesce(o.in_type, 1) > 0)
 UPDATE jobs SET ` + claimed + `
 WHERE jobs.seq IN (SELECT seq FROM (
   SELECT seq, ready_key FROM candidate WHERE coalesce(in_queue, in_type, in_key) IS NULL
   UNION ALL
   SELECT seq, ready_key FROM (SELECT seq, ready_key, in_queue, in_type, in_key,
       row_number() OVER (PARTITION BY queue ORDER BY ready_key, seq) AS of_queue,
       row_number() OVER (PARTITION BY type ORDER BY ready_key, seq) AS of_type,
       row_number() OVER (PARTITION BY limit_key ORDER BY ready_key, seq) AS of_key
     FROM candidate WHERE coalesce(in_queue, in_type, in_key) IS NOT NULL AND coalesce(in_key, 1) > 0)
   WHERE of_queue <= coalesce(in_queue, of_queue) AND of_type <= coalesce(in_type, of_type) AND of_key <= coalesce(in_key, of_key))
   ORDER BY ready_key, seq LIMIT ?5)
 RETURNING ` + claimedRow

// sqlGuardUnlimited raises an error if there are limits: a claim that heeds none
// goes by that.
const sqlGuardUnlimited = `SELECT length(json(iif(EXISTS (SELECT 1 FROM limits), 'limited', '{}')))`

// claimColumns is a job for its runner as one text of lines, which saves
// fourteen columns a call each, or as much JSON. Only the payload, which comes
// last, may hold the character that ends a line. concat_ws leaves out what is
// empty.
func claimColumns(attempts, claims, claimedAt string) string {
	return `CAST(concat_ws(char(10), id, type, queue, priority, ` + attempts + `, max_attempts, failures, ` + claims + `, seq, max(coalesce(not_before, 0), created_at),
   ` + claimedAt + `, 't' || coalesce(trace_parent, ''), 'k' || coalesce(idempotency_key, ''), payload_json) AS BLOB)`
}

// claimedRow is that of a job that is claimed already.
var claimedRow = claimColumns(`attempts`, `claims`, `claimed_at`)

// sqlClaimSolo reserves one job that must run alone. It waits in the runner's
// hands until the other slots have drained; sqlSoloBegins marks that it runs.
// Arguments as sqlClaim's, without the limit.
var sqlClaimSolo = `UPDATE jobs SET ` + claimed + `
 WHERE jobs.seq = (SELECT j.seq FROM jobs AS j INDEXED BY jobs_suspect
   WHERE j.state = 'queued' AND j.solo = 1 AND j.not_before <= (SELECT ms FROM db_clock)
   AND j.type IN (SELECT value FROM json_each(?4)) AND (?5 IS NULL OR j.queue IN (SELECT value FROM json_each(?5)))
   AND NOT EXISTS (SELECT 1 FROM queues AS q WHERE q.name = j.queue AND q.paused = 1)
   AND coalesce(` + roomOf + `'queue' AND l.name = j.queue), 1) > 0 AND coalesce(` + roomOf + `'type' AND l.name = j.type), 1) > 0
   AND (j.limit_key IS NULL OR coalesce(` + roomInKey(`j.limit_key`) + `, 1) > 0)
   ORDER BY j.not_before LIMIT 1)
 RETURNING ` + claimedRow

const sqlSoloBegins = `UPDATE jobs SET solo = 2 WHERE id = ?`

// sqlByToken finds what a claim whose reply was lost has taken.
var sqlByToken = `SELECT ` + claimedRow + ` FROM jobs INDEXED BY jobs_lease
 WHERE state = 'running' AND lease_expires_at IS NOT NULL AND lease_token = ?`

// sqlLook asks what there is to do: claim, promote, settle keys, release jobs
// that waited for others, run one alone, rescue; and how long until the next
// of these comes by itself, in ms (NULL for never). A job that is to run alone
// now may have to wait (its queue is paused, its type limited or not known
// here), so it is no reason to look again at once.
const sqlLook = `SELECT EXISTS (SELECT 1 FROM jobs INDEXED BY jobs_ready WHERE ready_key IS NOT NULL),
 due.at <= c.ms,
 EXISTS (SELECT 1 FROM limit_keys INDEXED BY limit_keys_changed WHERE changed = 1) OR next.at <= c.ms,
 EXISTS (SELECT 1 FROM job_deps INDEXED BY job_deps_marked WHERE marked > 0 AND marked = 1),
 alone.at <= c.ms,
 EXISTS (SELECT 1 FROM jobs INDEXED BY jobs_lease WHERE state = 'running' AND lease_expires_at < c.ms),
 nullif(min(coalesce(due.at, 1 << 60), coalesce(next.at, 1 << 60), iif(alone.at > c.ms, alone.at, 1 << 60)), 1 << 60) - c.ms,
 EXISTS (SELECT 1 FROM limits),
 coalesce((SELECT max(seq) FROM job_log), 0) > ` + countedTo + ` + 100
 FROM db_clock AS c,
 (SELECT min(not_before) AS at FROM jobs INDEXED BY jobs_due
  WHERE state = 'queued' AND ready_key IS NULL AND wait_key IS NULL AND waits = 0 AND solo = 0 AND not_before IS NOT NULL) AS due,
 (SELECT min(next_at) AS at FROM limit_keys INDEXED BY limit_keys_next WHERE next_at <> 0 AND next_at > 0) AS next,
 (SELECT min(not_before) AS at FROM jobs INDEXED BY jobs_suspect WHERE state = 'queued' AND solo = 1) AS alone`

// opHeartbeat extends leases. Items: id, t, lease (ms). Answer: whether the
// token still holds, whether somebody wants the job canceled.
var opHeartbeat = &libsql.Op{Name: "heartbeat", Stmts: []string{
	`UPDATE jobs AS j SET lease_expires_at = c.ms + (e.value->>'lease'), heartbeat_at = c.ms
	 FROM ` + items + `, db_clock AS c WHERE j.id = e.value->>'id' AND ` + heldByObject,
	`SELECT e.key, coalesce(` + heldByObject + `, 0), j.cancel_requested_at IS NOT NULL
	 FROM ` + items + ` LEFT JOIN jobs AS j ON j.id = e.value->>'id'`,
}}

// opComplete completes runs. Its items are packed: [Lease.AppendPacked], the length of
// the result in bytes, filled up with spaces to 7, and the result, if any. The
// job's row is the run's as well, and a trigger frees the key. The second
// statement answers for those only whose lease was lost: the item's token is no
// longer on the row, or the job still runs. All others have landed, now or in an
// earlier try whose reply was lost.
var opComplete = &libsql.Op{Name: "complete", Misses: true, Packed: true, Stmts: []string{
	`UPDATE jobs AS j SET state = 'completed',
	   result_json = nullif(CAST(substr(?1, e.value + 58, CAST(substr(?1, e.value + 51, 7) AS INTEGER)) AS TEXT), ''),
	   finished_at = (SELECT ms FROM db_clock), updated_at = (SELECT ms FROM db_clock),
	   lease_expires_at = NULL, completed_by = j.claimed_by, claimed_by = NULL, solo = 0
	 FROM ` + libsql.PackedItems + ` WHERE ` + HeldByPacked(`e.value`),
	`SELECT e.key FROM ` + libsql.PackedItems + ` LEFT JOIN jobs AS j ON ` + packedJob(`e.value`) + `
	 WHERE coalesce(` + packedToken(`e.value`) + ` AND j.state <> 'running', 0) = 0`,
}}

// opHandOver completes runs and stores the jobs that follow them. Its items are
// opComplete's, and before each of them those of its jobs: a letter, which makes
// them no completion of any job, the lease of the run they follow, and the item
// of opEnqueueNew.
var opHandOver = &libsql.Op{Name: "hand over", Rouses: true, Packed: true, Stmts: append([]string{
	insertNew(`e.value + 52`, `substr(?1, e.value, 1) = CAST('J' AS BLOB) AND EXISTS (SELECT 1 FROM jobs AS j WHERE `+HeldByPacked(`e.value + 1`)+`)`),
}, opComplete.Stmts...)}

// finishStatements end a run otherwise. Items: id, t, o (failed, fatal,
// snoozed, handed_back), d (ms), err, stack. The row of job_run_rows is written
// first and decides what becomes of the job, so that one CASE holds the rules.
// The last statement answers whether the item's token is still on the row and
// the job runs no more: then it has landed, now or in an earlier try whose reply
// was lost.
var finishStatements = []string{
	`INSERT INTO job_run_rows(job_id, run, runner, outcome, started_at, finished_at, created_at, error, stack)
	 SELECT j.id, j.claims, j.claimed_by,
	   CASE WHEN j.cancel_requested_at IS NOT NULL THEN 'canceled'
	        WHEN e.value->>'o' = 'fatal' THEN 'failed'
	        WHEN e.value->>'o' = 'failed' THEN iif(j.failures + 1 >= j.max_attempts, 'failed', 'retried')
	        ELSE e.value->>'o' END,
	   j.claimed_at, c.ms, c.ms, CAST(e.value->>'err' AS BLOB), CAST(e.value->>'stack' AS BLOB)
	 FROM json_each(?) AS e, db_clock AS c JOIN jobs AS j ON j.id = e.value->>'id'
	 WHERE ` + heldByObject,

	`UPDATE jobs AS j SET
	   state = CASE r.outcome WHEN 'failed' THEN 'failed' WHEN 'canceled' THEN 'canceled' ELSE 'queued' END,
	   attempts = j.attempts - (r.outcome IN ('snoozed', 'handed_back')),
	   failures = j.failures + (r.outcome IN ('failed', 'retried')),
	   crashes = iif(r.outcome = 'snoozed', 0, j.crashes),
	   not_before = iif(r.outcome IN ('retried', 'snoozed') OR r.outcome = 'handed_back' AND j.solo > 0, r.finished_at + (e.value->>'d'), j.not_before),
	   ` + lineUp(`r.outcome = 'handed_back' AND j.solo = 0`) + `,
   solo = (r.outcome = 'handed_back' AND j.solo > 0),
	   finished_at = iif(r.outcome IN ('failed', 'canceled'), r.finished_at, NULL),
	   last_error = iif(r.outcome IN ('failed', 'retried'), r.error, j.last_error),
	   lease_expires_at = NULL, claimed_by = NULL, updated_at = r.finished_at
	 FROM json_each(?) AS e, job_run_rows AS r
	 WHERE j.id = e.value->>'id' AND r.job_id = j.id AND r.run = j.claims AND ` + heldByObject,

	`DELETE FROM job_keys WHERE scope = 'active' AND (type, key, job_id) IN
	   (SELECT j.type, j.idempotency_key, j.id FROM json_each(?) AS e JOIN jobs AS j ON j.id = e.value->>'id'
	    WHERE j.idempotency_key IS NOT NULL AND j.finished_at IS NOT NULL AND j.lease_token = e.value->>'t')`,

	`SELECT e.key, coalesce(j.lease_token = e.value->>'t' AND j.state <> 'running', 0), CAST(j.state AS BLOB)
	 FROM json_each(?) AS e LEFT JOIN jobs AS j ON j.id = e.value->>'id'`,
}

var opFinish = &libsql.Op{Name: "finish", Stmts: finishStatements}

// opSnooze is opFinish for snoozed runs. A job that snoozes for ever (a
// mailbox's sync) keeps the last of a row of snoozed runs, not all of them,
// and of the log what oldLog leaves.
var opSnooze = &libsql.Op{Name: "snooze", Stmts: append([]string{
	`DELETE FROM job_run_rows WHERE outcome = 'snoozed' AND (job_id, run) IN
	   (SELECT j.id, j.claims - 1 FROM json_each(?) AS e JOIN jobs AS j ON j.id = e.value->>'id' WHERE ` + heldByObject + `)`,
	`UPDATE meta SET value = CAST(max(CAST(meta.value AS INTEGER), o.seq) AS TEXT) FROM (SELECT max(seq) AS seq FROM (` + oldLog + `)) AS o
	 WHERE meta.key = 'log_pruned_to' AND o.seq IS NOT NULL`,
	`DELETE FROM job_log WHERE seq IN (` + oldLog + `)`,
}, finishStatements...)}

// oldLog finds what a snoozed job's log no longer needs: what is counted,
// an hour old and not among its last hundred entries, a few at a time.
const oldLog = `SELECT l.seq FROM json_each(?) AS e JOIN jobs AS j ON j.id = e.value->>'id'
   CROSS JOIN job_log AS l ON l.seq IN (SELECT seq FROM job_log WHERE job = j.seq ORDER BY seq LIMIT 10)
   WHERE l.created_at < (SELECT ms FROM db_clock) - 3600000
   AND l.seq <= min(` + countedTo + `, (SELECT seq FROM job_log WHERE job = j.seq ORDER BY seq DESC LIMIT 1 OFFSET 100)) AND ` + heldByObject

// sqlGuard raises an error unless the token still holds the job.
const sqlGuard = `SELECT length(json(iif(EXISTS (
  SELECT 1 FROM jobs WHERE id = ? AND lease_token = ? AND state = 'running'), '{}', 'lease lost')))`

// Rescue takes back jobs whose lease has run out, a bounded number at a time.
// The row of job_run_rows marks which ones, so that both statements mean the same
// jobs although each reads the clock. The token goes: a late write of the old
// holder must not pass for one that landed.
const sqlRescueRuns = `INSERT INTO job_run_rows(job_id, run, runner, outcome, started_at, finished_at, created_at, error)
 SELECT id, claims, claimed_by, CASE solo WHEN 0 THEN 'rescued' WHEN 1 THEN 'handed_back' ELSE 'poisoned' END,
   claimed_at, (SELECT ms FROM db_clock), (SELECT ms FROM db_clock),
   CAST('the runner stopped renewing its lease' || iif(solo = 1, ' before the job began to run alone', '') AS BLOB)
 FROM jobs INDEXED BY jobs_lease
 WHERE state = 'running' AND lease_expires_at < (SELECT ms FROM db_clock) ORDER BY lease_expires_at LIMIT 100`

// justMarked finds the jobs that sqlRescueRuns marked in this transaction: an
// ended run of the current claim and still running is otherwise impossible.
const justMarked = `i.state = 'running' AND i.lease_expires_at IS NOT NULL
   AND EXISTS (SELECT 1 FROM job_run_rows AS r WHERE r.job_id = i.id AND r.run = i.claims)`

const sqlRescueKeys = `DELETE FROM job_keys WHERE scope = 'active' AND (type, key, job_id) IN
   (SELECT i.type, i.idempotency_key, i.id FROM jobs AS i INDEXED BY jobs_lease
    WHERE i.idempotency_key IS NOT NULL AND (i.cancel_requested_at IS NOT NULL OR i.solo = 2) AND ` + justMarked + `)`

// A job that crashed for the third time runs alone next; a crash there fails
// it. One that was only reserved for that has not crashed.
const sqlRescue = `UPDATE jobs AS j SET
   state = CASE WHEN j.cancel_requested_at IS NOT NULL THEN 'canceled' WHEN j.solo = 2 THEN 'failed' ELSE 'queued' END,
   finished_at = iif(j.cancel_requested_at IS NULL AND j.solo < 2, NULL, c.ms),
   last_error = iif(j.cancel_requested_at IS NULL AND j.solo = 2, CAST('poisoned: ' || (j.crashes + 1) ||
     ' runners died while they ran this job, the last one while it ran alone' || coalesce(
       (SELECT '; its last step was ' || s.name FROM job_steps AS s WHERE s.job_id = j.id ORDER BY s.started_at DESC, s.created_at DESC LIMIT 1), '') AS BLOB), j.last_error),
   attempts = j.attempts - (j.solo = 1), crashes = j.crashes + (j.solo <> 1),
   solo = (j.cancel_requested_at IS NULL AND (j.solo = 1 OR j.solo = 0 AND j.crashes + 1 >= ` + crashBudget + `)),
   not_before = c.ms + min(300000, 2000 << min(j.crashes, 16)), ready_key = NULL,
   lease_token = NULL, lease_expires_at = NULL, claimed_by = NULL, updated_at = c.ms
 FROM db_clock AS c
 WHERE j.seq IN (SELECT i.seq FROM jobs AS i INDEXED BY jobs_lease WHERE ` + justMarked + `)
 RETURNING CAST(id AS BLOB), CAST(type AS BLOB), CAST(state AS BLOB), crashes, solo`

// crashBudget is how many crashes a job may have before it must run alone.
const crashBudget = `3`

// sqlTakeAway makes one lease run out, for the statements of the rescue that
// come after it. The argument chooses among the jobs in hand.
const sqlTakeAway = `UPDATE jobs SET lease_expires_at = c.ms - 1 FROM db_clock AS c
 WHERE jobs.seq = (SELECT i.seq FROM jobs AS i INDEXED BY jobs_lease
   WHERE i.state = 'running' AND i.lease_expires_at IS NOT NULL AND i.crashes = 0
   ORDER BY (i.seq * ?) % 10007 LIMIT 1)`

// Changes by hand take the ids of the jobs, as JSON. Each statement looks for
// itself whether the job's state allows the change; the last one of a change
// returns those that were changed.
const given = `(SELECT value FROM json_each(?1))`

// Cancel. A queued job ends at once and frees its key; a running one is asked
// to stop.
const sqlCancelKey = `DELETE FROM job_keys WHERE scope = 'active' AND (type, key, job_id) IN
   (SELECT type, idempotency_key, id FROM jobs WHERE id IN ` + given + ` AND state = 'queued' AND idempotency_key IS NOT NULL)`

const sqlCancel = `UPDATE jobs SET
   cancel_requested_at = coalesce(cancel_requested_at, c.ms),
   finished_at = iif(state = 'queued', c.ms, NULL), ready_key = NULL, wait_key = NULL, waits = 0,
   solo = iif(state = 'queued', 0, solo), updated_at = c.ms,
   state = iif(state = 'queued', 'canceled', state)
 FROM db_clock AS c WHERE id IN ` + given + ` AND state IN ('queued', 'running') RETURNING seq`

const sqlCancelRequested = `SELECT CAST(id AS BLOB) FROM jobs INDEXED BY jobs_cancel
 WHERE state = 'running' AND cancel_requested_at IS NOT NULL AND claimed_by = ?`

// Retry by hand. The key is taken again if it is free, or expired; a job whose
// key another one has stays as it is. Of two with the same key the newer one
// takes it.
const sqlRetryKey = `INSERT INTO job_keys(type, key, job_id, scope, expires_at, created_at)
 SELECT j.type, j.idempotency_key, j.id, 'active', NULL, c.ms FROM jobs AS j, db_clock AS c
 WHERE j.id IN ` + given + ` AND j.state IN ('failed', 'canceled') AND j.idempotency_key IS NOT NULL ORDER BY j.seq DESC
 ON CONFLICT DO UPDATE SET job_id = excluded.job_id, scope = excluded.scope, expires_at = NULL, created_at = excluded.created_at
 WHERE job_keys.expires_at <= excluded.created_at`

const sqlRetry = `UPDATE jobs AS j SET state = 'queued', failures = 0, crashes = 0, cancel_requested_at = NULL,
   finished_at = NULL, not_before = c.ms, lease_token = NULL, updated_at = c.ms, ` + readyNow + `
 FROM db_clock AS c WHERE j.id IN ` + given + ` AND j.state IN ('failed', 'canceled') AND (j.idempotency_key IS NULL
   OR EXISTS (SELECT 1 FROM job_keys AS k WHERE k.type = j.type AND k.key = j.idempotency_key AND k.job_id = j.id)) RETURNING seq`

// sqlRetryHeld counts the jobs that another one's key keeps from a retry.
const sqlRetryHeld = `SELECT count(*) FROM jobs WHERE id IN ` + given + ` AND state IN ('failed', 'canceled')`

// readyNow lines the row j up as one that is due now.
const readyNow = `ready_key = iif(` + isLimited + `, NULL, c.ms - j.priority * 30000), wait_key = iif(` + isLimited + `, c.ms - j.priority * 30000, NULL)`

// sqlDelete deletes jobs that have ended. What belongs to them goes with them,
// by the trigger jobs_delete; their keys stay, as after retention.
const sqlDelete = `DELETE FROM jobs WHERE id IN ` + given + ` AND finished_at IS NOT NULL RETURNING seq`

// sqlRunNow makes jobs that wait for their time due now.
const sqlRunNow = `UPDATE jobs AS j SET not_before = c.ms, updated_at = c.ms,
   ready_key = iif(j.solo = 1 OR ` + isLimited + `, NULL, c.ms - j.priority * 30000), wait_key = iif(j.solo = 0 AND ` + isLimited + `, c.ms - j.priority * 30000, NULL)
 FROM db_clock AS c WHERE j.id IN ` + given + ` AND j.state = 'queued' AND j.waits = 0 AND j.not_before > c.ms RETURNING seq`

// sqlIsDue finds a queued job that waits neither for its time nor for others.
const sqlIsDue = `SELECT 1 FROM jobs WHERE id = ? AND state = 'queued' AND waits = 0 AND coalesce(not_before, 0) <= (SELECT ms FROM db_clock)`

// sqlPullForward makes a job that waits for its time due now.
const sqlPullForward = `UPDATE jobs AS j SET not_before = c.ms, updated_at = c.ms, ` + readyNow + `
 FROM db_clock AS c WHERE j.seq IN (
   SELECT o.seq FROM job_keys AS k JOIN jobs AS o ON o.id = k.job_id
   WHERE k.type = ? AND k.key = ? AND (k.expires_at IS NULL OR k.expires_at > (SELECT ms FROM db_clock)) AND o.state = 'queued' AND o.waits = 0 AND o.solo = 0 AND o.not_before > (SELECT ms FROM db_clock)) RETURNING seq`

const jobColumns = `seq, CAST(id AS BLOB), CAST(type AS BLOB), CAST(queue AS BLOB), CAST(state AS BLOB), priority,
 attempts, max_attempts, failures, crashes, CAST(payload_json AS BLOB), CAST(result_json AS BLOB), last_error,
 not_before, CAST(idempotency_key AS BLOB), CAST(limit_key AS BLOB), created_at, updated_at, finished_at,
 heartbeat_at, cancel_requested_at, CAST(claimed_by AS BLOB), CAST(parent_id AS BLOB), CAST(trace_parent AS BLOB)`

const sqlGet = `SELECT ` + jobColumns + ` FROM jobs WHERE id = ?`

// Lists, the newest first. They have the same arguments: 1 below this job, 2
// down to this one or, where jobs are given, their ids (JSON), 3 states (JSON),
// 4 type, 5 queue, 6 key, 7 and 8 stored from and before (ms), 9 and 10 a path
// into the payload and what is there; NULL for any; 11 limit. No index can
// serve every filter, so that the jobs looked at are bounded instead: sqlSeen.
var (
	sqlList        = listSQL(jobColumns, `jobs NOT INDEXED WHERE seq >= ?2`)
	sqlListGiven   = listSQL(jobColumns, `jobs WHERE id IN (SELECT value FROM json_each(?2))`)
	sqlPlaces      = listSQL(`seq, CAST(id AS BLOB)`, `jobs NOT INDEXED WHERE seq >= ?2`)
	sqlPlacesGiven = listSQL(`seq, CAST(id AS BLOB)`, `jobs WHERE id IN (SELECT value FROM json_each(?2))`)
)

// listSQL writes a list. What is in a payload is compared as JSON and, where it
// is a string, as its text; it comes last because it costs most.
func listSQL(columns, from string) string {
	return `SELECT ` + columns + ` FROM ` + from + ` AND seq < ?1
 AND (?3 IS NULL OR state IN (SELECT value FROM json_each(?3))) AND (?4 IS NULL OR type = ?4) AND (?5 IS NULL OR queue = ?5)
 AND (?6 IS NULL OR idempotency_key = ?6 OR limit_key = ?6) AND (?7 IS NULL OR created_at >= ?7) AND (?8 IS NULL OR created_at < ?8)
 AND (?9 IS NULL OR payload_json -> ?9 = ?10 OR json_type(payload_json, ?9) = 'text' AND payload_json ->> ?9 = ?10)
 ORDER BY seq DESC LIMIT ?11`
}

// sqlSeen is the last of so many jobs below a given one: no row when there are
// fewer.
const sqlSeen = `SELECT seq FROM jobs NOT INDEXED WHERE seq < ? ORDER BY seq DESC LIMIT 1 OFFSET ? - 1`

// sqlSeenInside is sqlSeen for who looks into the payloads, which costs as much
// as they are long: it stops at 3 bytes of them, too.
const sqlSeenInside = `SELECT seq FROM (SELECT seq, row_number() OVER below AS jobs, sum(bytes) OVER below AS bytes
   FROM (SELECT seq, octet_length(payload_json) AS bytes FROM jobs NOT INDEXED WHERE seq < ?1 ORDER BY seq DESC LIMIT ?2)
   WINDOW below AS (ORDER BY seq DESC ROWS UNBOUNDED PRECEDING))
 WHERE jobs = ?2 OR bytes > ?3 ORDER BY seq DESC LIMIT 1`

const sqlRuns = `SELECT run, CAST(runner AS BLOB), CAST(outcome AS BLOB), started_at, finished_at, error, stack
 FROM job_runs WHERE job_id = ? ORDER BY run`

const sqlHistory = `SELECT l.seq, l.run, l.created_at, CAST(l.state AS BLOB) FROM jobs AS j CROSS JOIN job_log AS l ON l.job = j.seq WHERE j.id = ? ORDER BY l.seq`

const sqlDeps = `SELECT CAST(after_id AS BLOB), CAST(outcome AS BLOB) FROM job_deps WHERE job_id = ? ORDER BY after_id`

const stepColumns = `CAST(name AS BLOB), run, CAST(outcome AS BLOB), started_at, finished_at, CAST(result_json AS BLOB), error`

const sqlSteps = `SELECT ` + stepColumns + `
 FROM job_steps WHERE job_id = ? ORDER BY started_at, name`

// countedTo is how far the log is taken into queue_counts.
const countedTo = `(SELECT CAST(value AS INTEGER) FROM meta WHERE key = 'log_counted_to')`

// counted is what entries of the log change in the counts, as (queue, state,
// jobs): the state that a job came to has one more, the one it left one less.
// Entries of one kind are counted before they are taken apart, by one text: to
// sort by three columns would cost more.
func counted(condition string) string {
	return `SELECT g.queue AS queue, iif(s.n = 1, g.state, g.was) AS state, sum(s.n * g.jobs) AS jobs
 FROM (SELECT j.queue AS queue, l.state AS state, l.was AS was, count(*) AS jobs FROM job_log AS l CROSS JOIN jobs AS j ON j.seq = l.job
   WHERE l.seq > ` + countedTo + condition + ` GROUP BY concat(l.state, '/', l.was, '/', j.queue)) AS g CROSS JOIN (SELECT 1 AS n UNION ALL SELECT -1) AS s
 WHERE s.n = 1 OR g.was IS NOT NULL GROUP BY 1, 2`
}

// sqlCount takes the next entries of the log into the counts, and
// sqlCountedTo says so.
var sqlCount = `INSERT INTO queue_counts(queue, state, jobs) SELECT * FROM (` + counted(` AND l.seq <= `+countedTo+` + 2000`) + `) WHERE true
 ON CONFLICT DO UPDATE SET jobs = queue_counts.jobs + excluded.jobs`

const sqlCountedTo = `UPDATE meta SET value = CAST(max(CAST(value AS INTEGER),
   min(CAST(value AS INTEGER) + 2000, (SELECT coalesce(max(seq), 0) FROM job_log))) AS TEXT) WHERE key = 'log_counted_to'`

// nowCounted is the counts as of now.
var nowCounted = `SELECT queue, state, sum(jobs) AS jobs FROM (
   SELECT queue, state, jobs FROM queue_counts UNION ALL SELECT * FROM (` + counted(``) + `)) GROUP BY queue, state`

// sqlQueues shows the queues. How long a queue's jobs have waited is asked of
// the first in line of each type.
var sqlQueues = `WITH RECURSIVE ` + lanes + `,
 first(queue, since) AS (SELECT p.queue, min(max(coalesce(p.not_before, 0), p.created_at)) FROM lane CROSS JOIN jobs AS p ON p.seq = lane.seq GROUP BY p.queue)
 SELECT CAST(q.name AS BLOB), q.paused, CAST(n.state AS BLOB), n.jobs, f.since, (SELECT ms FROM db_clock),
   (SELECT max_running FROM limits WHERE scope = 'queue' AND name = q.name)
 FROM queues AS q LEFT JOIN (` + nowCounted + `) AS n ON n.queue = q.name LEFT JOIN first AS f ON f.queue = q.name
 WHERE ?1 IS NULL OR q.name = ?1 ORDER BY q.name`

// sqlRunner writes the runner's own row, at its start and with its heartbeats.
const sqlRunner = `INSERT INTO runners(id, host, pid, version, queues_json, types_json, concurrency, started_at, heartbeat_at, created_at, updated_at)
 SELECT ?, ?, ?, ?, ?, ?, ?, c.ms, c.ms, c.ms, c.ms FROM db_clock AS c WHERE true
 ON CONFLICT(id) DO UPDATE SET heartbeat_at = excluded.heartbeat_at, updated_at = excluded.updated_at`

const sqlRunnerGone = `DELETE FROM runners WHERE id = ?`

// sqlHeld counts the jobs in each runner's hands.
const sqlHeld = `SELECT CAST(claimed_by AS BLOB), count(*) FROM jobs INDEXED BY jobs_lease
 WHERE state = 'running' AND lease_expires_at IS NOT NULL GROUP BY claimed_by`

// sqlRunnersForget drops runners that have been silent for a day.
const sqlRunnersForget = `DELETE FROM runners WHERE heartbeat_at < (SELECT ms FROM db_clock) - 86400000`

const sqlRunners = `SELECT CAST(id AS BLOB), CAST(host AS BLOB), pid, CAST(version AS BLOB), CAST(queues_json AS BLOB),
 CAST(types_json AS BLOB), concurrency, started_at, heartbeat_at FROM runners ORDER BY started_at, id`

const sqlLiveRunners = `SELECT count(*) FROM runners WHERE heartbeat_at > (SELECT ms FROM db_clock) - ` + silentRunner

// sqlUnknownTypes lists the types of claimable jobs that no runner has
// registered.
const sqlUnknownTypes = `WITH RECURSIVE ` + lanes + `
 SELECT DISTINCT CAST(p.type AS BLOB) FROM lane CROSS JOIN jobs AS p ON p.seq = lane.seq
 WHERE p.type NOT IN (SELECT t.value FROM runners AS r, json_each(r.types_json) AS t)`
