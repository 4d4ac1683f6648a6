-- Schedules: each names instants, and for each instant a job. next_at is the
-- first instant that has not been dealt with; revision changes with every
-- change of the row, so that of several runners that read it one can act on it.
CREATE TABLE cron (
  name         TEXT    NOT NULL PRIMARY KEY,
  schedule     TEXT    NOT NULL,
  tz           TEXT    NOT NULL,
  catch_up     TEXT    NOT NULL CHECK (catch_up IN ('one', 'all', 'none')),
  overlap      TEXT    NOT NULL CHECK (overlap IN ('allow', 'skip')),
  paused       INTEGER NOT NULL DEFAULT 0 CHECK (paused IN (0, 1)),
  type         TEXT    NOT NULL,
  queue        TEXT,
  priority     INTEGER NOT NULL DEFAULT 0 CHECK (priority BETWEEN -100 AND 100),
  next_at      INTEGER NOT NULL,
  last_tick    INTEGER,
  last_job_id  TEXT,
  revision     TEXT    NOT NULL,
  created_at   INTEGER NOT NULL,
  updated_at   INTEGER NOT NULL,
  payload_json TEXT    NOT NULL CHECK (json_valid(payload_json)),
  CHECK (catch_up <> 'all' OR overlap = 'allow')
) STRICT;

-- What is due and what comes next.
CREATE INDEX cron_due ON cron(next_at, name) WHERE paused = 0;
