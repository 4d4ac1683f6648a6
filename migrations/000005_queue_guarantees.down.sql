DROP TRIGGER jobs_delete;
DROP TRIGGER jobs_log_update;
DROP TRIGGER jobs_log_insert;
DROP TRIGGER jobs_after_again;
DROP TRIGGER jobs_after_final;
DROP TRIGGER jobs_key_state;
DROP TRIGGER jobs_wait_update;
DROP TRIGGER jobs_wait_insert;
DROP TABLE job_log;
DELETE FROM meta WHERE key = 'log_pruned_to';
DROP TABLE job_deps;
DROP TABLE limit_keys;
DROP TABLE limits;
DROP INDEX job_keys_expired;
DROP INDEX jobs_final;
DROP INDEX jobs_holding;
DROP INDEX jobs_exposed;
DROP INDEX jobs_waiting;
DROP INDEX jobs_suspect;
DROP INDEX jobs_due;
DROP INDEX jobs_ready;
-- What waited for room, for others or for a solo run is due as any other job.
UPDATE jobs SET wait_key = NULL, waits = 0, solo = 0, not_before = coalesce(not_before, created_at)
WHERE wait_key IS NOT NULL OR waits = 1 OR solo > 0;
ALTER TABLE jobs DROP COLUMN solo;
ALTER TABLE jobs DROP COLUMN after_failure;
ALTER TABLE jobs DROP COLUMN waits;
ALTER TABLE jobs DROP COLUMN wait_key;
CREATE INDEX jobs_ready ON jobs(queue, ready_key) WHERE ready_key IS NOT NULL;
CREATE INDEX jobs_due ON jobs(not_before) WHERE state = 'queued' AND ready_key IS NULL;
CREATE TABLE job_runs_old (
  job_id      TEXT    NOT NULL,
  run         INTEGER NOT NULL,
  runner      TEXT    NOT NULL,
  outcome     TEXT    NOT NULL CHECK (outcome IN ('completed', 'failed', 'retried', 'snoozed', 'handed_back', 'canceled', 'rescued')),
  started_at  INTEGER NOT NULL,
  finished_at INTEGER NOT NULL,
  created_at  INTEGER NOT NULL,
  error       BLOB,
  stack       BLOB,
  PRIMARY KEY (job_id, run)
) STRICT, WITHOUT ROWID;
INSERT INTO job_runs_old SELECT job_id, run, runner, iif(outcome = 'poisoned', 'rescued', outcome), started_at, finished_at, created_at, error, stack FROM job_runs;
DROP TABLE job_runs;
ALTER TABLE job_runs_old RENAME TO job_runs;
UPDATE meta SET value = '1', updated_at = (SELECT ms FROM db_clock) WHERE key = 'min_compatible';
