DROP TRIGGER jobs_delete;
CREATE TRIGGER jobs_delete AFTER DELETE ON jobs BEGIN
  UPDATE meta SET value = CAST(max(CAST(value AS INTEGER), coalesce((SELECT max(seq) FROM job_log WHERE job = old.seq), 0)) AS TEXT) WHERE key = 'log_pruned_to';
  DELETE FROM job_log WHERE job = old.seq;
  DELETE FROM job_runs WHERE job_id = old.id;
  DELETE FROM job_steps WHERE job_id = old.id;
  DELETE FROM job_deps WHERE job_id = old.id;
  UPDATE job_deps SET outcome = 'pruned', marked = 1 WHERE after_id = old.id AND outcome IS NOT 'completed';
  DELETE FROM message_chunks WHERE job_id = old.id;
END;
DROP TRIGGER jobs_log_update;
CREATE TRIGGER jobs_log_update AFTER UPDATE OF state ON jobs WHEN new.state <> old.state BEGIN
  INSERT INTO job_log(job, run, state, created_at) VALUES (new.seq, new.claims, new.state, new.updated_at);
END;
DELETE FROM meta WHERE key = 'log_counted_to';
DROP TABLE queue_counts;
ALTER TABLE job_log DROP COLUMN was;
