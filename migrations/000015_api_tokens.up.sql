-- Who may call the API. A token is a random secret of 256 bits, of which only
-- the SHA-256 hash is stored.
CREATE TABLE api_tokens (
  name       TEXT    NOT NULL PRIMARY KEY,
  role       TEXT    NOT NULL CHECK (role IN ('read', 'operate', 'admin')),
  hash       BLOB    NOT NULL CHECK (length(hash) = 32),
  created_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
