-- What enqueuing and completing do in every case, they do in one statement.

-- A queue is known from its first job on.
CREATE TRIGGER jobs_queue AFTER INSERT ON jobs WHEN NOT EXISTS (SELECT 1 FROM queues WHERE name = new.queue) BEGIN
  INSERT INTO queues(name, created_at, updated_at) VALUES (new.queue, new.created_at, new.created_at);
END;

-- A completed job has a run that completed, and gives its key back. Programs
-- of earlier versions write that run themselves, first.
CREATE TRIGGER jobs_completed AFTER UPDATE OF state ON jobs WHEN new.state = 'completed' AND old.state = 'running' BEGIN
  INSERT INTO job_runs(job_id, run, runner, outcome, started_at, finished_at, created_at)
  VALUES (new.id, new.claims, old.claimed_by, 'completed', new.claimed_at, new.finished_at, new.finished_at) ON CONFLICT DO NOTHING;
END;
CREATE TRIGGER jobs_completed_key AFTER UPDATE OF state ON jobs WHEN new.state = 'completed' AND new.idempotency_key IS NOT NULL BEGIN
  DELETE FROM job_keys WHERE type = new.type AND key = new.idempotency_key AND scope = 'active' AND job_id = new.id;
END;

-- A start counts for the interval of its key also where no job of the key has
-- stood in line, such as one that runs alone.
DROP TRIGGER jobs_key_state;
CREATE TRIGGER jobs_key_state AFTER UPDATE OF state ON jobs WHEN new.limit_key IS NOT NULL AND new.state <> old.state BEGIN
  INSERT INTO limit_keys(key) SELECT new.limit_key WHERE new.state = 'running'
    AND EXISTS (SELECT 1 FROM limits WHERE scope = 'key' AND name IN (new.limit_key, '*') AND interval_ms IS NOT NULL) ON CONFLICT DO NOTHING;
  UPDATE limit_keys SET changed = 1, next_at = iif(new.state <> 'running', next_at, new.claimed_at +
    coalesce((SELECT interval_ms FROM limits WHERE scope = 'key' AND name IN (new.limit_key, '*') ORDER BY name = '*' LIMIT 1), -new.claimed_at))
  WHERE key = new.limit_key;
END;
