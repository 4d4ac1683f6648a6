-- Which thread a Message-ID belongs to: its own message's, and that of every
-- message that names it, whichever of them came first.
CREATE TABLE thread_ids (
  account_id TEXT NOT NULL,
  message_id TEXT NOT NULL,
  thread_id  TEXT NOT NULL,
  created_at INTEGER NOT NULL,
  updated_at INTEGER NOT NULL,
  PRIMARY KEY (account_id, message_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX thread_ids_thread ON thread_ids(thread_id);

INSERT INTO thread_ids(account_id, message_id, thread_id, created_at, updated_at)
SELECT account_id, provider_thread_id, id, created_at, updated_at FROM threads;

-- Who wrote it was a program: bounce, auto_reply, list or bulk.
ALTER TABLE messages ADD COLUMN automatic TEXT CHECK (automatic IN ('bounce', 'auto_reply', 'list', 'bulk'));

-- The words of messages. The index keeps no text of its own; message_docs says
-- which message a row of it is.
CREATE TABLE message_docs (
  doc        INTEGER PRIMARY KEY,
  message_id TEXT NOT NULL UNIQUE,
  created_at INTEGER NOT NULL,
  updated_at INTEGER NOT NULL
) STRICT;
CREATE VIRTUAL TABLE message_search USING fts5(
  sender, subject, body, content='', contentless_delete=1, tokenize='unicode61 remove_diacritics 2');

INSERT INTO message_docs(message_id, created_at, updated_at) SELECT id, created_at, updated_at FROM messages ORDER BY id;
INSERT INTO message_search(rowid, sender, subject, body)
SELECT d.doc, coalesce(CAST(m.from_name AS TEXT), '') || ' ' || coalesce(m.from_email, ''), CAST(m.subject AS TEXT), CAST(m.body_plain AS TEXT)
FROM message_docs AS d JOIN messages AS m ON m.id = d.message_id ORDER BY d.doc;
CREATE INDEX messages_received ON messages(account_id, received_at);

-- Which messages carry a label, kept equal to messages.labels_json.
CREATE TABLE message_labels (
  label      TEXT NOT NULL,
  message_id TEXT NOT NULL,
  created_at INTEGER NOT NULL,
  PRIMARY KEY (label, message_id)
) STRICT, WITHOUT ROWID;
INSERT INTO message_labels(label, message_id, created_at)
SELECT DISTINCT l.value, m.id, m.updated_at FROM messages AS m, json_each(m.labels_json) AS l;
CREATE TRIGGER messages_labels AFTER UPDATE OF labels_json ON messages WHEN OLD.labels_json <> NEW.labels_json BEGIN
  DELETE FROM message_labels WHERE message_id = NEW.id AND label IN (SELECT value FROM json_each(OLD.labels_json));
  INSERT INTO message_labels(label, message_id, created_at)
  SELECT DISTINCT l.value, NEW.id, NEW.updated_at FROM json_each(NEW.labels_json) AS l;
END;
