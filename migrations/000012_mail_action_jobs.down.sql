DROP TRIGGER jobs_approval_ended;
DROP TRIGGER jobs_action_ended;
