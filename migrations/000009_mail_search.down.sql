DROP TRIGGER messages_labels;
DROP TABLE message_labels;
DROP INDEX messages_received;
DROP TABLE message_search;
DROP TABLE message_docs;
ALTER TABLE messages DROP COLUMN automatic;
DROP TABLE thread_ids;
