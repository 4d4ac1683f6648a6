DROP TRIGGER actions_status;
ALTER TABLE actions DROP COLUMN approved_at;
ALTER TABLE actions DROP COLUMN approval_expires_at;
ALTER TABLE actions DROP COLUMN not_before;
