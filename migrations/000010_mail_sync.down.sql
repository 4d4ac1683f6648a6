DROP INDEX messages_file;
ALTER TABLE messages DROP COLUMN file_name;
ALTER TABLE messages DROP COLUMN file_dir;
DROP TABLE maildir_folders;
ALTER TABLE accounts DROP COLUMN removed_at;
ALTER TABLE accounts DROP COLUMN paused;
