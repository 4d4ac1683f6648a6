DROP TABLE mail_tasks;
