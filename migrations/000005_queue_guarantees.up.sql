-- Limits, chains, solo runs, retention and the transition log.

-- A run can end as poisoned: its runner died while it ran alone.
CREATE TABLE job_runs_new (
  job_id      TEXT    NOT NULL,
  run         INTEGER NOT NULL,
  runner      TEXT    NOT NULL,
  outcome     TEXT    NOT NULL CHECK (outcome IN ('completed', 'failed', 'retried', 'snoozed', 'handed_back', 'canceled', 'rescued', 'poisoned')),
  started_at  INTEGER NOT NULL,
  finished_at INTEGER NOT NULL,
  created_at  INTEGER NOT NULL,
  error       BLOB,
  stack       BLOB,
  PRIMARY KEY (job_id, run)
) STRICT, WITHOUT ROWID;
INSERT INTO job_runs_new SELECT * FROM job_runs;
DROP TABLE job_runs;
ALTER TABLE job_runs_new RENAME TO job_runs;

-- wait_key is the ready_key that a due job would have if its key had room: of
-- the jobs with a limited key only the next few stand in the claim index.
-- waits is 1 until the jobs it comes after have ended; after_failure says what
-- becomes of it when one of them did not complete.
-- solo is 1 for a job whose runs have ended in too many crashes, so that it
-- runs next alone, and 2 while it does.
ALTER TABLE jobs ADD COLUMN wait_key INTEGER CHECK (wait_key IS NULL OR (state = 'queued' AND ready_key IS NULL));
ALTER TABLE jobs ADD COLUMN waits INTEGER NOT NULL DEFAULT 0 CHECK (waits = 0 OR (waits = 1 AND state = 'queued' AND ready_key IS NULL AND wait_key IS NULL));
ALTER TABLE jobs ADD COLUMN after_failure TEXT CHECK (after_failure = 'cancel' OR after_failure = 'run' OR after_failure = 'wait');
ALTER TABLE jobs ADD COLUMN solo INTEGER NOT NULL DEFAULT 0 CHECK (solo = 0 OR (solo = 1 AND state IN ('queued', 'running') AND ready_key IS NULL AND wait_key IS NULL) OR (solo = 2 AND state = 'running'));

-- The claim: the first jobs of each queue and type in claim order, and nothing
-- else. limit_key is there so that a claim need not look at the row of a job
-- that it does not take; it comes behind seq, which decides between jobs of the
-- same millisecond.
DROP INDEX jobs_ready;
CREATE INDEX jobs_ready ON jobs(queue, type, ready_key, seq, limit_key) WHERE ready_key IS NOT NULL;
-- Promotion of jobs that have become due, and when the next one will.
DROP INDEX jobs_due;
CREATE INDEX jobs_due ON jobs(not_before) WHERE not_before IS NOT NULL AND state = 'queued' AND ready_key IS NULL AND wait_key IS NULL AND waits = 0 AND solo = 0;
-- Jobs that run alone next.
CREATE INDEX jobs_suspect ON jobs(not_before) WHERE solo = 1 AND state = 'queued';
-- Of a limited key: the jobs that wait for room, those that stand in the claim
-- index, and those that hold a place. Jobs without a key pay for none of them.
CREATE INDEX jobs_waiting ON jobs(limit_key, queue, type, wait_key, seq) WHERE wait_key IS NOT NULL;
CREATE INDEX jobs_exposed ON jobs(limit_key) WHERE limit_key IS NOT NULL AND ready_key IS NOT NULL;
CREATE INDEX jobs_holding ON jobs(limit_key) WHERE limit_key IS NOT NULL AND state = 'running';
-- Retention.
CREATE INDEX jobs_final ON jobs(state, finished_at) WHERE finished_at IS NOT NULL;
CREATE INDEX job_keys_expired ON job_keys(expires_at) WHERE expires_at IS NOT NULL;

-- What limits there are. scope queue and type: how many run at once. scope
-- key: that, and how long must lie between two starts; the name * stands for
-- each key that has no row of its own. seed is the value that the
-- configuration had when it was last applied.
CREATE TABLE limits (
  scope       TEXT NOT NULL CHECK (scope IN ('queue', 'type', 'key')),
  name        TEXT NOT NULL,
  max_running INTEGER CHECK (max_running >= 0),
  interval_ms INTEGER CHECK (interval_ms IS NULL OR (interval_ms >= 1 AND scope = 'key')),
  seed        TEXT,
  created_at  INTEGER NOT NULL,
  updated_at  INTEGER NOT NULL,
  PRIMARY KEY (scope, name),
  CHECK (max_running IS NOT NULL OR interval_ms IS NOT NULL)
) STRICT, WITHOUT ROWID;

-- The limited keys that have jobs waiting or a start not long ago. changed
-- says that what stands in the claim index must be settled anew; next_at is
-- before when no job of the key may start, 0 when one may, -1 for a row that is
-- no longer needed.
CREATE TABLE limit_keys (
  key     TEXT    NOT NULL PRIMARY KEY,
  next_at INTEGER NOT NULL DEFAULT 0,
  changed INTEGER NOT NULL DEFAULT 1 CHECK (changed IN (0, 1))
) STRICT, WITHOUT ROWID;
CREATE INDEX limit_keys_changed ON limit_keys(key) WHERE changed = 1;
CREATE INDEX limit_keys_next ON limit_keys(next_at) WHERE next_at <> 0;

CREATE TRIGGER jobs_wait_insert AFTER INSERT ON jobs WHEN new.wait_key IS NOT NULL BEGIN
  INSERT INTO limit_keys(key) VALUES (new.limit_key) ON CONFLICT DO UPDATE SET changed = 1 WHERE changed = 0;
END;
CREATE TRIGGER jobs_wait_update AFTER UPDATE OF wait_key ON jobs WHEN new.wait_key IS NOT NULL BEGIN
  INSERT INTO limit_keys(key) VALUES (new.limit_key) ON CONFLICT DO UPDATE SET changed = 1 WHERE changed = 0;
END;
CREATE TRIGGER jobs_key_state AFTER UPDATE OF state ON jobs WHEN new.limit_key IS NOT NULL AND new.state <> old.state BEGIN
  UPDATE limit_keys SET changed = 1, next_at = iif(new.state <> 'running', next_at, new.claimed_at +
    coalesce((SELECT interval_ms FROM limits WHERE scope = 'key' AND name IN (new.limit_key, '*') ORDER BY name = '*' LIMIT 1), -new.claimed_at))
  WHERE key = new.limit_key;
END;

-- A job that comes after others. outcome is the state the other one ended in,
-- or 'pruned'; marked is 1 while the waiting job has not been looked at since,
-- and 2 within the batch that looks.
CREATE TABLE job_deps (
  job_id     TEXT    NOT NULL,
  after_id   TEXT    NOT NULL,
  outcome    TEXT    CHECK (outcome IN ('completed', 'failed', 'canceled', 'pruned')),
  marked     INTEGER NOT NULL DEFAULT 0 CHECK (marked IN (0, 1, 2)),
  created_at INTEGER NOT NULL,
  PRIMARY KEY (job_id, after_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX job_deps_after ON job_deps(after_id);
CREATE INDEX job_deps_open ON job_deps(job_id) WHERE outcome IS NULL;
CREATE INDEX job_deps_bad ON job_deps(job_id) WHERE outcome <> 'completed';
CREATE INDEX job_deps_marked ON job_deps(marked, job_id) WHERE marked > 0;

CREATE TRIGGER jobs_after_final AFTER UPDATE OF finished_at ON jobs WHEN new.finished_at IS NOT NULL AND old.finished_at IS NULL BEGIN
  UPDATE job_deps SET outcome = new.state, marked = 1 WHERE after_id = new.id;
END;
CREATE TRIGGER jobs_after_again AFTER UPDATE OF finished_at ON jobs WHEN new.finished_at IS NULL AND old.finished_at IS NOT NULL BEGIN
  UPDATE job_deps SET outcome = NULL, marked = 0 WHERE after_id = new.id;
END;

-- Every change of a job's state, in the order of the commits. job is jobs.seq.
-- AUTOINCREMENT: a number is never given twice, whatever was pruned.
CREATE TABLE job_log (
  seq        INTEGER PRIMARY KEY AUTOINCREMENT,
  job        INTEGER NOT NULL,
  run        INTEGER NOT NULL,
  state      TEXT    NOT NULL,
  created_at INTEGER NOT NULL
) STRICT;
CREATE INDEX job_log_job ON job_log(job);

CREATE TRIGGER jobs_log_insert AFTER INSERT ON jobs BEGIN
  INSERT INTO job_log(job, run, state, created_at) VALUES (new.seq, 0, new.state, new.created_at);
END;
CREATE TRIGGER jobs_log_update AFTER UPDATE OF state ON jobs WHEN new.state <> old.state BEGIN
  INSERT INTO job_log(job, run, state, created_at) VALUES (new.seq, new.claims, new.state, new.updated_at);
END;

-- log_pruned_to is the highest number that was taken out of the log: who has
-- read less far has missed something.
INSERT INTO meta(key, value, created_at, updated_at) SELECT 'log_pruned_to', '0', ms, ms FROM db_clock;

-- What belongs to a job goes with it.
CREATE TRIGGER jobs_delete AFTER DELETE ON jobs BEGIN
  UPDATE meta SET value = CAST(max(CAST(value AS INTEGER), coalesce((SELECT max(seq) FROM job_log WHERE job = old.seq), 0)) AS TEXT) WHERE key = 'log_pruned_to';
  DELETE FROM job_log WHERE job = old.seq;
  DELETE FROM job_runs WHERE job_id = old.id;
  DELETE FROM job_steps WHERE job_id = old.id;
  DELETE FROM job_deps WHERE job_id = old.id;
  UPDATE job_deps SET outcome = 'pruned', marked = 1 WHERE after_id = old.id AND outcome IS NOT 'completed';
  DELETE FROM message_chunks WHERE job_id = old.id;
END;

-- Jobs from before the log get the state they are in.
INSERT INTO job_log(job, run, state, created_at) SELECT seq, claims, state, updated_at FROM jobs ORDER BY seq;

-- Older programs know neither limits nor solo runs.
UPDATE meta SET value = '5', updated_at = (SELECT ms FROM db_clock) WHERE key = 'min_compatible';
