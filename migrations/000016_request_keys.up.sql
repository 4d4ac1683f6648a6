-- What was answered to requests with an Idempotency-Key, for the same request
-- sent again. A row is made before the request is carried out: status is NULL
-- while it is, and 0 where nobody knows whether it had an effect.
CREATE TABLE request_keys (
  caller     TEXT    NOT NULL,
  key        TEXT    NOT NULL,
  request    BLOB    NOT NULL CHECK (length(request) = 32), -- SHA-256 of what was asked for
  owner      BLOB    NOT NULL CHECK (length(owner) = 16),   -- who carries it out
  status     INTEGER CHECK (status = 0 OR status BETWEEN 200 AND 299),
  answer     BLOB,
  created_at INTEGER NOT NULL,
  updated_at INTEGER NOT NULL,
  UNIQUE (caller, key),
  CHECK ((answer IS NULL) = (ifnull(status, 0) = 0))
) STRICT;

-- For the pruning of answers that were kept long enough.
CREATE INDEX request_keys_created ON request_keys (created_at);
