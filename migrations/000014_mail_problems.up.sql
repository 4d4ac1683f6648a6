-- What lies in a Maildir and cannot be taken in: by the job that tries to.
CREATE TABLE mail_problems (
  job_id     TEXT    NOT NULL PRIMARY KEY,
  account_id TEXT    NOT NULL,
  name       TEXT    NOT NULL,
  problem    BLOB    NOT NULL,
  created_at INTEGER NOT NULL,
  updated_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX mail_problems_account ON mail_problems(account_id, job_id);

-- A problem is over when the message is in, or nobody tries any more. One that
-- made its job fail is shown as long as the job.
CREATE TRIGGER jobs_problem_over AFTER UPDATE OF state ON jobs
WHEN new.type = 'message.ingest' AND new.state IN ('completed', 'canceled') BEGIN
  DELETE FROM mail_problems WHERE job_id = new.id;
END;
CREATE TRIGGER jobs_problem_delete AFTER DELETE ON jobs WHEN old.type = 'message.ingest' BEGIN
  DELETE FROM mail_problems WHERE job_id = old.id;
END;

-- What could not be used when a directory was last listed.
ALTER TABLE maildir_folders ADD COLUMN problems INTEGER NOT NULL DEFAULT 0;
