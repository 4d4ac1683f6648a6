-- How many jobs of a queue are in which state, for whoever shows it: counting
-- them would read the whole table. What the log says beyond log_counted_to is
-- not in these counts yet; the claims take it in, many entries at a time.
ALTER TABLE job_log ADD COLUMN was TEXT; -- the state before; NULL for none
CREATE TABLE queue_counts (
  queue TEXT    NOT NULL,
  state TEXT    NOT NULL,
  jobs  INTEGER NOT NULL,
  PRIMARY KEY (queue, state)
) STRICT, WITHOUT ROWID;
INSERT INTO queue_counts(queue, state, jobs) SELECT queue, state, count(*) FROM jobs GROUP BY queue, state;
INSERT INTO meta(key, value, created_at, updated_at)
  SELECT 'log_counted_to', CAST(coalesce((SELECT max(seq) FROM job_log), 0) AS TEXT), ms, ms FROM db_clock;

DROP TRIGGER jobs_log_update;
CREATE TRIGGER jobs_log_update AFTER UPDATE OF state ON jobs WHEN new.state <> old.state BEGIN
  INSERT INTO job_log(job, run, state, was, created_at) VALUES (new.seq, new.claims, new.state, old.state, new.updated_at);
END;

-- A job that is deleted leaves the count it is in: that of its state, or of
-- the one it had before what is not counted yet; or none.
DROP TRIGGER jobs_delete;
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
