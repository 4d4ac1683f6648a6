-- The durable job queue. docs/lifecycle.md lists every transition of a row.

CREATE TABLE queues (
  name       TEXT NOT NULL PRIMARY KEY,
  paused     INTEGER NOT NULL DEFAULT 0 CHECK (paused IN (0, 1)),
  created_at INTEGER NOT NULL,
  updated_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- seq orders jobs by when they were stored, whatever clocks say. ready_key is
-- max(not_before, created_at) - priority * 30000 for a job that can be
-- claimed, and NULL for every other. The states are compared one by one: for a
-- list SQLite looks into a table of its own, which is a tenth of what a claim
-- and a completion cost.
CREATE TABLE jobs (
  seq                 INTEGER PRIMARY KEY,
  id                  TEXT    NOT NULL UNIQUE,
  type                TEXT    NOT NULL,
  queue               TEXT    NOT NULL,
  state               TEXT    NOT NULL CHECK (state = 'queued' OR state = 'running' OR state = 'completed' OR state = 'failed' OR state = 'canceled'),
  priority            INTEGER NOT NULL DEFAULT 0 CHECK (priority BETWEEN -100 AND 100),
  ready_key           INTEGER,
  not_before          INTEGER,
  max_attempts        INTEGER NOT NULL DEFAULT 5 CHECK (max_attempts >= 1),
  attempts            INTEGER NOT NULL DEFAULT 0 CHECK (attempts >= 0),
  failures            INTEGER NOT NULL DEFAULT 0 CHECK (failures >= 0),
  crashes             INTEGER NOT NULL DEFAULT 0 CHECK (crashes >= 0),
  claims              INTEGER NOT NULL DEFAULT 0 CHECK (claims >= 0),
  lease_token         TEXT,
  lease_expires_at    INTEGER,
  claimed_by          TEXT,
  claimed_at          INTEGER,
  heartbeat_at        INTEGER,
  cancel_requested_at INTEGER,
  finished_at         INTEGER,
  created_at          INTEGER NOT NULL,
  updated_at          INTEGER NOT NULL,
  idempotency_key     TEXT,
  limit_key           TEXT,
  parent_id           TEXT,
  trace_parent        TEXT,
  last_error          BLOB,
  result_json         TEXT CHECK (result_json IS NULL OR json_valid(result_json)),
  payload_json        TEXT NOT NULL CHECK (json_valid(payload_json)),
  CHECK ((state = 'running') = (lease_expires_at IS NOT NULL)),
  CHECK ((state = 'completed' OR state = 'failed' OR state = 'canceled') = (finished_at IS NOT NULL)),
  CHECK (ready_key IS NULL OR state = 'queued')
) STRICT;

-- Each change of a row asks of every partial index whether the row is in it, so
-- what says no for most jobs at the least cost comes first.

-- The claim: the first jobs of a queue in claim order, and nothing else.
CREATE INDEX jobs_ready ON jobs(queue, ready_key) WHERE ready_key IS NOT NULL;
-- Promotion of jobs that have become due, and when the next one will.
CREATE INDEX jobs_due ON jobs(not_before) WHERE state = 'queued' AND ready_key IS NULL;
-- Rescue of jobs whose lease has run out.
CREATE INDEX jobs_lease ON jobs(lease_expires_at) WHERE lease_expires_at IS NOT NULL;
-- Running jobs that somebody wants canceled.
CREATE INDEX jobs_cancel ON jobs(cancel_requested_at) WHERE cancel_requested_at IS NOT NULL AND state = 'running';

-- Idempotency keys, apart from the jobs so that only jobs with a key pay for
-- one. scope active: until the job is final; until: up to expires_at;
-- forever: outlives the job.
CREATE TABLE job_keys (
  type       TEXT NOT NULL,
  key        TEXT NOT NULL,
  job_id     TEXT NOT NULL,
  scope      TEXT NOT NULL CHECK (scope IN ('active', 'until', 'forever')),
  expires_at INTEGER,
  created_at INTEGER NOT NULL,
  PRIMARY KEY (type, key),
  CHECK ((scope = 'until') = (expires_at IS NOT NULL))
) STRICT, WITHOUT ROWID;

-- One row per ended run of a job; run is the job's claims at that time.
CREATE TABLE job_runs (
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

-- One row per (job, step): a finished step's result is replayed on a retry.
CREATE TABLE job_steps (
  job_id      TEXT    NOT NULL,
  name        TEXT    NOT NULL,
  run         INTEGER NOT NULL,
  outcome     TEXT    NOT NULL CHECK (outcome = 'running' OR outcome = 'done' OR outcome = 'failed' OR outcome = 'uncertain'),
  started_at  INTEGER NOT NULL,
  finished_at INTEGER,
  created_at  INTEGER NOT NULL,
  updated_at  INTEGER NOT NULL,
  result_json TEXT CHECK (result_json IS NULL OR json_valid(result_json)),
  error       BLOB,
  PRIMARY KEY (job_id, name)
) STRICT, WITHOUT ROWID;

-- Who works: written by each runner at its start and with its heartbeats.
CREATE TABLE runners (
  id           TEXT    NOT NULL PRIMARY KEY,
  host         TEXT    NOT NULL,
  pid          INTEGER NOT NULL,
  version      TEXT    NOT NULL,
  queues_json  TEXT    NOT NULL CHECK (json_valid(queues_json)),
  types_json   TEXT    NOT NULL CHECK (json_valid(types_json)),
  concurrency  INTEGER NOT NULL,
  started_at   INTEGER NOT NULL,
  heartbeat_at INTEGER NOT NULL,
  created_at   INTEGER NOT NULL,
  updated_at   INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
