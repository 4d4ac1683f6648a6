DROP TRIGGER jobs_completed;
DROP TRIGGER jobs_delete;
DROP VIEW job_runs;
INSERT INTO job_run_rows(job_id, run, runner, outcome, started_at, finished_at, created_at)
  SELECT id, claims, completed_by, 'completed', claimed_at, finished_at, finished_at FROM jobs WHERE completed_by IS NOT NULL;
ALTER TABLE jobs DROP COLUMN completed_by;
ALTER TABLE job_run_rows RENAME TO job_runs;
CREATE TRIGGER jobs_completed AFTER UPDATE OF state ON jobs WHEN new.state = 'completed' AND old.state = 'running' BEGIN
  INSERT INTO job_runs(job_id, run, runner, outcome, started_at, finished_at, created_at)
  VALUES (new.id, new.claims, old.claimed_by, 'completed', new.claimed_at, new.finished_at, new.finished_at) ON CONFLICT DO NOTHING;
END;
CREATE TRIGGER jobs_delete AFTER DELETE ON jobs BEGIN
  UPDATE queue_counts SET jobs = jobs - 1 WHERE queue = old.queue AND state = (
    SELECT was FROM (SELECT was, seq FROM job_log WHERE job = old.seq AND seq > (SELECT CAST(value AS INTEGER) FROM meta WHERE key = 'log_counted_to')
      UNION ALL SELECT old.state, 1 << 62) ORDER BY seq LIMIT 1);
  UPDATE meta SET value = CAST(max(CAST(value AS INTEGER), coalesce((SELECT max(seq) FROM job_log WHERE job = old.seq), 0)) AS TEXT) WHERE key = 'log_pruned_to';
  DELETE FROM job_log WHERE job = old.seq;
  DELETE FROM job_runs WHERE job_id = old.id;
  DELETE FROM job_steps WHERE job_id = old.id;
  DELETE FROM job_deps WHERE job_id = old.id;
  UPDATE job_deps SET outcome = 'pruned', marked = 1 WHERE after_id = old.id AND outcome IS NOT 'completed';
  DELETE FROM message_chunks WHERE job_id = old.id;
END;
