-- What every other table stands on: the database's own facts and its clock.
CREATE TABLE meta (
  key        TEXT NOT NULL PRIMARY KEY,
  value      TEXT NOT NULL,
  created_at INTEGER NOT NULL,
  updated_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- SQL asks for the time only here, so that tests can replace the clock.
-- Milliseconds since 1970, UTC.
CREATE VIEW db_clock(ms) AS SELECT CAST(round(unixepoch('subsec') * 1000) AS INTEGER);

-- database_id tells a restored backup from another database put in its place.
-- epoch changes when a backup is restored. A program whose newest migration is
-- older than min_compatible refuses the database.
INSERT INTO meta(key, value, created_at, updated_at)
SELECT k.column1, k.column2, c.ms, c.ms
FROM (VALUES
  ('database_id', lower(hex(randomblob(16)))),
  ('epoch', lower(hex(randomblob(8)))),
  ('min_compatible', '1'),
  ('rules_version', '1')) AS k, db_clock AS c;
