-- What a job without key, limit or chain pays at its end, it pays in its own
-- row.

DROP TRIGGER jobs_completed;
DROP TRIGGER jobs_delete;
ALTER TABLE job_runs RENAME TO job_run_rows;

-- completed_by is the runner that completed the job. Such a job never runs
-- again, so its row tells its last run for ever.
ALTER TABLE jobs ADD COLUMN completed_by TEXT;

-- All runs that have ended: those of job_run_rows, and the last one of each
-- completed job. The casts let SQLite look up a job in both halves, which must
-- be of the same types for that. Programs of earlier versions write here, and
-- complete a job without saying who did.
CREATE VIEW job_runs(job_id, run, runner, outcome, started_at, finished_at, created_at, error, stack) AS
  SELECT job_id, run, runner, outcome, started_at, finished_at, created_at, error, stack FROM job_run_rows
  UNION ALL
  SELECT id, claims, completed_by, CAST('completed' AS TEXT), claimed_at, finished_at, finished_at, CAST(NULL AS BLOB), CAST(NULL AS BLOB) FROM jobs WHERE completed_by IS NOT NULL;
CREATE TRIGGER job_runs_insert INSTEAD OF INSERT ON job_runs BEGIN
  INSERT INTO job_run_rows(job_id, run, runner, outcome, started_at, finished_at, created_at, error, stack)
  VALUES (new.job_id, new.run, new.runner, new.outcome, new.started_at, new.finished_at, new.created_at, new.error, new.stack);
END;
CREATE TRIGGER job_runs_delete INSTEAD OF DELETE ON job_runs BEGIN
  DELETE FROM job_run_rows WHERE job_id = old.job_id AND run = old.run;
END;
CREATE TRIGGER jobs_completed AFTER UPDATE OF finished_at ON jobs WHEN new.state = 'completed' AND new.completed_by IS NULL AND old.state = 'running' BEGIN
  INSERT INTO job_run_rows(job_id, run, runner, outcome, started_at, finished_at, created_at)
  VALUES (new.id, new.claims, old.claimed_by, 'completed', new.claimed_at, new.finished_at, new.finished_at) ON CONFLICT DO NOTHING;
END;

-- A job that is deleted leaves the count it is in: that of its state, or of
-- the one it had before what is not counted yet; or none.
CREATE TRIGGER jobs_delete AFTER DELETE ON jobs BEGIN
  UPDATE queue_counts SET jobs = jobs - 1 WHERE queue = old.queue AND state = (
    SELECT was FROM (SELECT was, seq FROM job_log WHERE job = old.seq AND seq > (SELECT CAST(value AS INTEGER) FROM meta WHERE key = 'log_counted_to')
      UNION ALL SELECT old.state, 1 << 62) ORDER BY seq LIMIT 1);
  UPDATE meta SET value = CAST(max(CAST(value AS INTEGER), coalesce((SELECT max(seq) FROM job_log WHERE job = old.seq), 0)) AS TEXT) WHERE key = 'log_pruned_to';
  DELETE FROM job_log WHERE job = old.seq;
  DELETE FROM job_run_rows WHERE job_id = old.id;
  DELETE FROM job_steps WHERE job_id = old.id;
  DELETE FROM job_deps WHERE job_id = old.id;
  UPDATE job_deps SET outcome = 'pruned', marked = 1 WHERE after_id = old.id AND outcome IS NOT 'completed';
  DELETE FROM message_chunks WHERE job_id = old.id;
END;
