DROP TABLE runners;
DROP TABLE job_steps;
DROP TABLE job_runs;
DROP TABLE job_keys;
DROP TABLE jobs;
DROP TABLE queues;
