-- What decides: rules that are evaluated, rules and directions for a language
-- model, and the conversations in which they are written.

CREATE TABLE deterministic_rules (
  id                     TEXT NOT NULL PRIMARY KEY,
  name                   BLOB NOT NULL,
  description            BLOB,
  scope                  TEXT NOT NULL CHECK (scope IN ('global', 'account', 'sender', 'domain')),
  scope_ref              TEXT,
  priority               INTEGER NOT NULL DEFAULT 100,
  enabled                INTEGER NOT NULL DEFAULT 1 CHECK (enabled IN (0, 1)),
  disabled_reason        BLOB,
  conditions_json        TEXT NOT NULL CHECK (json_valid(conditions_json)),
  action_type            TEXT NOT NULL,
  action_parameters_json TEXT NOT NULL CHECK (json_valid(action_parameters_json)),
  safe_mode              TEXT NOT NULL DEFAULT 'default' CHECK (safe_mode IN ('default', 'always_safe', 'dangerous_override')),
  created_at             INTEGER NOT NULL,
  updated_at             INTEGER NOT NULL,
  CHECK ((scope = 'global') = (scope_ref IS NULL))
) STRICT;
CREATE INDEX deterministic_rules_scope ON deterministic_rules(scope, scope_ref);
CREATE INDEX deterministic_rules_order ON deterministic_rules(enabled, priority);

CREATE TABLE llm_rules (
  id            TEXT NOT NULL PRIMARY KEY,
  name          BLOB NOT NULL,
  description   BLOB,
  scope         TEXT NOT NULL CHECK (scope IN ('global', 'account', 'sender', 'domain')),
  scope_ref     TEXT,
  rule_text     BLOB NOT NULL,
  enabled       INTEGER NOT NULL DEFAULT 1 CHECK (enabled IN (0, 1)),
  metadata_json TEXT NOT NULL DEFAULT '{}' CHECK (json_valid(metadata_json)),
  created_at    INTEGER NOT NULL,
  updated_at    INTEGER NOT NULL,
  CHECK ((scope = 'global') = (scope_ref IS NULL))
) STRICT;
CREATE INDEX llm_rules_scope ON llm_rules(scope, scope_ref);
CREATE INDEX llm_rules_recent ON llm_rules(enabled, created_at);

CREATE TABLE directions (
  id         TEXT NOT NULL PRIMARY KEY,
  content    BLOB NOT NULL,
  enabled    INTEGER NOT NULL DEFAULT 1 CHECK (enabled IN (0, 1)),
  created_at INTEGER NOT NULL,
  updated_at INTEGER NOT NULL
) STRICT;
CREATE INDEX directions_recent ON directions(enabled, created_at);

CREATE TABLE rules_chat_sessions (
  id         TEXT NOT NULL PRIMARY KEY,
  title      BLOB,
  created_at INTEGER NOT NULL,
  updated_at INTEGER NOT NULL
) STRICT;
CREATE INDEX rules_chat_sessions_recent ON rules_chat_sessions(created_at);

CREATE TABLE rules_chat_messages (
  id         TEXT NOT NULL PRIMARY KEY,
  session_id TEXT NOT NULL REFERENCES rules_chat_sessions(id) ON DELETE CASCADE,
  role       TEXT NOT NULL CHECK (role IN ('user', 'assistant', 'system')),
  content    BLOB NOT NULL,
  created_at INTEGER NOT NULL
) STRICT;
CREATE INDEX rules_chat_messages_session ON rules_chat_messages(session_id, created_at);

CREATE TABLE discord_whitelist (
  id         TEXT NOT NULL PRIMARY KEY,
  user_id    TEXT NOT NULL UNIQUE CHECK (user_id GLOB '[0-9]*' AND user_id NOT GLOB '*[^0-9]*'),
  username   BLOB NOT NULL,
  created_at INTEGER NOT NULL,
  updated_at INTEGER NOT NULL
) STRICT;
