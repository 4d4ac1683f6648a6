ALTER TABLE maildir_folders DROP COLUMN problems;
DROP TRIGGER jobs_problem_delete;
DROP TRIGGER jobs_problem_over;
DROP TABLE mail_problems;
