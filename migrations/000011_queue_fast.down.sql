DROP TRIGGER jobs_completed_key;
DROP TRIGGER jobs_completed;
DROP TRIGGER jobs_queue;
DROP TRIGGER jobs_key_state;
CREATE TRIGGER jobs_key_state AFTER UPDATE OF state ON jobs WHEN new.limit_key IS NOT NULL AND new.state <> old.state BEGIN
  UPDATE limit_keys SET changed = 1, next_at = iif(new.state <> 'running', next_at, new.claimed_at +
    coalesce((SELECT interval_ms FROM limits WHERE scope = 'key' AND name IN (new.limit_key, '*') ORDER BY name = '*' LIMIT 1), -new.claimed_at))
  WHERE key = new.limit_key;
END;
