package queue

// Every statement that touches the table of schedules. docs/cron.md tells in
// words what they do.

const cronColumns = `CAST(name AS BLOB), CAST(schedule AS BLOB), CAST(tz AS BLOB), CAST(catch_up AS BLOB), CAST(overlap AS BLOB),
 paused, CAST(type AS BLOB), CAST(queue AS BLOB), priority, CAST(payload_json AS BLOB), next_at, last_tick,
 CAST(last_job_id AS BLOB), created_at, updated_at`

// sqlCronGet also reads what a change of the row is conditional on, whether
// the last job is still to end, and the time.
const sqlCronGet = `SELECT ` + cronColumns + `, CAST(revision AS BLOB),
 EXISTS (SELECT 1 FROM jobs AS j WHERE j.id = cron.last_job_id AND j.finished_at IS NULL), (SELECT ms FROM db_clock)
 FROM cron WHERE name = ?`

const sqlCronList = `SELECT ` + cronColumns + ` FROM cron WHERE name > ? ORDER BY name LIMIT ?`

const sqlCronExists = `SELECT EXISTS (SELECT 1 FROM cron WHERE name = ?)`

// sqlCronSet keeps where a schedule stands unless its instants are others now.
// Arguments: name, schedule, tz, catch_up, overlap, type, queue, priority,
// payload, next_at, revision.
const sqlCronSet = `INSERT INTO cron(name, schedule, tz, catch_up, overlap, type, queue, priority, payload_json, next_at, revision,
   created_at, updated_at)
 SELECT ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, c.ms, c.ms FROM db_clock AS c WHERE true
 ON CONFLICT(name) DO UPDATE SET
   next_at = iif(schedule = excluded.schedule AND tz = excluded.tz, next_at, excluded.next_at),
   schedule = excluded.schedule, tz = excluded.tz, catch_up = excluded.catch_up, overlap = excluded.overlap,
   type = excluded.type, queue = excluded.queue, priority = excluded.priority, payload_json = excluded.payload_json,
   revision = excluded.revision, updated_at = excluded.updated_at`

// sqlCronSetGuard raises an error when an instant does not lie ahead any more:
// the call took so long that the schedule before may have dealt with it.
const sqlCronSetGuard = `SELECT length(json(iif((SELECT ms FROM db_clock) < ?, '{}', 'late')))`

const sqlCronDelete = `DELETE FROM cron WHERE name = ? RETURNING 1`

// sqlCronGuard raises an error unless the row is as it was read and the
// instant has come.
const sqlCronGuard = `SELECT length(json(iif(EXISTS (
  SELECT 1 FROM cron, db_clock AS c WHERE name = ? AND revision = ? AND c.ms >= ?), '{}', 'changed or not due')))`

// sqlCronTick moves a schedule past an instant. Its job, if it has one, is
// found by its key: another may have held it. Arguments: last_tick, next_at,
// key or NULL, revision, name.
const sqlCronTick = `UPDATE cron SET last_tick = ?, next_at = ?,
   last_job_id = coalesce((SELECT k.job_id FROM job_keys AS k WHERE k.type = cron.type AND k.key = ?), last_job_id),
   revision = ?, updated_at = c.ms
 FROM db_clock AS c WHERE name = ?`

const sqlCronTriggered = `UPDATE cron SET last_job_id = ?, revision = ?, updated_at = c.ms FROM db_clock AS c WHERE name = ?`

const sqlCronPause = `UPDATE cron SET paused = ?, next_at = ?, revision = ?, updated_at = c.ms FROM db_clock AS c WHERE name = ?`

// sqlCronDue lists what is due behind a place in the order.
const sqlCronDue = `SELECT next_at, CAST(name AS BLOB) FROM cron INDEXED BY cron_due
 WHERE paused = 0 AND next_at <= (SELECT ms FROM db_clock) AND (next_at, name) > (?, ?) ORDER BY next_at, name LIMIT 100`

// sqlCronNext is how long until the next instant of all schedules, in ms; what
// is overdue does not count.
const sqlCronNext = `SELECT min(next_at) - (SELECT ms FROM db_clock) FROM cron INDEXED BY cron_due
 WHERE paused = 0 AND next_at > (SELECT ms FROM db_clock)`
