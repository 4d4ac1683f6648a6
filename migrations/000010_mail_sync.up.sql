-- What a sync last saw of a Maildir, so that the next one costs as much as has
-- changed, and accounts that rest or go.

-- removed_at: its rows are being deleted; nobody sees it any more.
ALTER TABLE accounts ADD COLUMN paused INTEGER NOT NULL DEFAULT 0 CHECK (paused IN (0, 1));
ALTER TABLE accounts ADD COLUMN removed_at INTEGER;

-- mtime_ns is the folder's time of change when it was last listed; 0 when it
-- had changed so shortly before that a later change might show the same time.
CREATE TABLE maildir_folders (
  account_id TEXT    NOT NULL,
  folder     TEXT    NOT NULL,
  sub        TEXT    NOT NULL CHECK (sub IN ('new', 'cur')),
  mtime_ns   INTEGER NOT NULL,
  created_at INTEGER NOT NULL,
  updated_at INTEGER NOT NULL,
  PRIMARY KEY (account_id, folder, sub)
) STRICT, WITHOUT ROWID;

-- The file as it was last seen: a hash of its folder and one of its name. NULL
-- when it is gone or was not seen yet.
ALTER TABLE messages ADD COLUMN file_dir INTEGER;
ALTER TABLE messages ADD COLUMN file_name INTEGER;
CREATE INDEX messages_file ON messages(account_id, file_dir, file_name) WHERE file_dir IS NOT NULL;
