-- The mail side. Free text (subjects, names, bodies, errors) is BLOB: it comes
-- from outside and must come back byte for byte.

CREATE TABLE accounts (
  id           TEXT NOT NULL PRIMARY KEY,
  provider     TEXT NOT NULL CHECK (provider IN ('maildir', 'imap', 'jmap', 'gmail')),
  email        TEXT NOT NULL UNIQUE,
  display_name BLOB,
  config_json  TEXT NOT NULL CHECK (json_valid(config_json)),
  state_json   TEXT NOT NULL DEFAULT '{}' CHECK (json_valid(state_json)),
  created_at   INTEGER NOT NULL,
  updated_at   INTEGER NOT NULL
) STRICT;

CREATE TABLE threads (
  id                 TEXT NOT NULL PRIMARY KEY,
  account_id         TEXT NOT NULL REFERENCES accounts(id),
  provider_thread_id TEXT NOT NULL,
  subject            BLOB,
  snippet            BLOB,
  last_message_at    INTEGER,
  metadata_json      TEXT NOT NULL DEFAULT '{}' CHECK (json_valid(metadata_json)),
  raw_json           TEXT NOT NULL DEFAULT '{}' CHECK (json_valid(raw_json)),
  created_at         INTEGER NOT NULL,
  updated_at         INTEGER NOT NULL,
  UNIQUE (account_id, provider_thread_id)
) STRICT;
CREATE INDEX threads_recent ON threads(account_id, last_message_at);

CREATE TABLE messages (
  id                  TEXT NOT NULL PRIMARY KEY,
  account_id          TEXT NOT NULL REFERENCES accounts(id),
  thread_id           TEXT NOT NULL REFERENCES threads(id),
  provider_message_id TEXT NOT NULL,
  rfc822_message_id   TEXT,
  from_email          TEXT,
  from_name           BLOB,
  to_json             TEXT NOT NULL DEFAULT '[]' CHECK (json_valid(to_json)),
  cc_json             TEXT NOT NULL DEFAULT '[]' CHECK (json_valid(cc_json)),
  bcc_json            TEXT NOT NULL DEFAULT '[]' CHECK (json_valid(bcc_json)),
  subject             BLOB,
  snippet             BLOB,
  received_at         INTEGER,
  internal_date       INTEGER,
  labels_json         TEXT NOT NULL DEFAULT '[]' CHECK (json_valid(labels_json)),
  headers_json        TEXT NOT NULL DEFAULT '{}' CHECK (json_valid(headers_json)),
  size_bytes          INTEGER NOT NULL,
  content_sha256      TEXT NOT NULL,
  raw_json            TEXT NOT NULL DEFAULT '{}' CHECK (json_valid(raw_json)),
  created_at          INTEGER NOT NULL,
  updated_at          INTEGER NOT NULL,
  body_plain          BLOB,
  body_html           BLOB,
  UNIQUE (account_id, provider_message_id)
) STRICT;
CREATE INDEX messages_content ON messages(account_id, content_sha256);
CREATE INDEX messages_thread ON messages(thread_id, received_at);
CREATE INDEX messages_sender ON messages(account_id, from_email);

CREATE TABLE decisions (
  id             TEXT NOT NULL PRIMARY KEY,
  account_id     TEXT NOT NULL REFERENCES accounts(id),
  message_id     TEXT NOT NULL REFERENCES messages(id),
  source         TEXT NOT NULL CHECK (source IN ('llm', 'deterministic')),
  decision_json  TEXT NOT NULL CHECK (json_valid(decision_json)),
  action_type    TEXT,
  confidence     REAL,
  needs_approval INTEGER NOT NULL DEFAULT 0 CHECK (needs_approval IN (0, 1)),
  rationale      BLOB,
  rules_version  INTEGER NOT NULL,
  telemetry_json TEXT NOT NULL DEFAULT '{}' CHECK (json_valid(telemetry_json)),
  created_at     INTEGER NOT NULL,
  updated_at     INTEGER NOT NULL,
  UNIQUE (message_id, rules_version, source)
) STRICT;
CREATE INDEX decisions_message ON decisions(message_id);
CREATE INDEX decisions_recent ON decisions(created_at);

CREATE TABLE actions (
  id              TEXT NOT NULL PRIMARY KEY,
  account_id      TEXT NOT NULL REFERENCES accounts(id),
  message_id      TEXT NOT NULL REFERENCES messages(id),
  decision_id     TEXT REFERENCES decisions(id),
  action_type     TEXT NOT NULL,
  parameters_json TEXT NOT NULL CHECK (json_valid(parameters_json)),
  status          TEXT NOT NULL CHECK (status IN ('queued', 'executing', 'completed', 'failed', 'canceled', 'rejected', 'approved_pending')),
  error_message   BLOB,
  executed_at     INTEGER,
  undo_hint_json  TEXT NOT NULL DEFAULT '{}' CHECK (json_valid(undo_hint_json)),
  trace_id        TEXT,
  created_at      INTEGER NOT NULL,
  updated_at      INTEGER NOT NULL
) STRICT;
CREATE INDEX actions_message ON actions(message_id, created_at);
CREATE INDEX actions_status ON actions(status, created_at);

CREATE TABLE action_links (
  id               TEXT NOT NULL PRIMARY KEY,
  cause_action_id  TEXT NOT NULL REFERENCES actions(id),
  effect_action_id TEXT NOT NULL REFERENCES actions(id),
  relation_type    TEXT NOT NULL CHECK (relation_type IN ('undo_of', 'approval_for', 'spawned', 'related')),
  created_at       INTEGER NOT NULL
) STRICT;
CREATE INDEX action_links_cause ON action_links(cause_action_id);
CREATE INDEX action_links_effect ON action_links(effect_action_id);
CREATE UNIQUE INDEX action_links_undo ON action_links(effect_action_id) WHERE relation_type = 'undo_of';

-- A posted message on its way to the runner that holds its account, in pieces
-- of 1 MiB that are stored and deleted together with their job's progress.
CREATE TABLE message_chunks (
  job_id     TEXT NOT NULL,
  n          INTEGER NOT NULL,
  data       BLOB NOT NULL,
  created_at INTEGER NOT NULL,
  PRIMARY KEY (job_id, n)
) STRICT;
