DROP TABLE message_chunks;
DROP TABLE action_links;
DROP TABLE actions;
DROP TABLE decisions;
DROP TABLE messages;
DROP TABLE threads;
DROP TABLE accounts;
