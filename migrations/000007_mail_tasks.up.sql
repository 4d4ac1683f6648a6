-- Long work on the mail side (applying rules, importing) and how far it is.
-- A row belongs to the job with its id and is written under that job's lease.
-- position is where the next run goes on.
CREATE TABLE mail_tasks (
  id             TEXT    NOT NULL PRIMARY KEY,
  kind           TEXT    NOT NULL CHECK (kind IN ('rules.apply', 'mail.import', 'account.remove')),
  account_id     TEXT,
  total          INTEGER,
  done           INTEGER NOT NULL DEFAULT 0,
  changed        INTEGER NOT NULL DEFAULT 0,
  problems       INTEGER NOT NULL DEFAULT 0,
  last_problem   BLOB,
  position       BLOB,
  created_at     INTEGER NOT NULL,
  updated_at     INTEGER NOT NULL
) STRICT;
