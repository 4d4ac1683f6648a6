-- An action ends with its job, whoever ends that: a person who cancels it, or
-- a budget that is spent. The key of the job is the action's id.
CREATE TRIGGER jobs_action_ended AFTER UPDATE OF state ON jobs
WHEN new.type = 'action.execute' AND new.state IN ('failed', 'canceled') AND new.state <> old.state BEGIN
  UPDATE actions SET
    status = iif(status = 'executing', 'failed', new.state),
    error_message = CAST('its job ' || iif(new.state = 'failed', 'failed: ' || coalesce(new.last_error, 'no reason was given'), 'was canceled')
      || iif(status = 'executing', '; the change may have been made', '') AS BLOB),
    updated_at = new.updated_at
  WHERE id = new.idempotency_key AND status IN ('queued', 'executing');
END;

-- The one that gives an approval up when nobody decides.
CREATE TRIGGER jobs_approval_ended AFTER UPDATE OF state ON jobs
WHEN new.type = 'action.expire' AND new.state IN ('failed', 'canceled') AND new.state <> old.state BEGIN
  UPDATE actions SET status = 'canceled', error_message = CAST('nothing waited for its approval any more' AS BLOB), updated_at = new.updated_at
  WHERE id = new.idempotency_key AND status = 'approved_pending';
END;

-- Those whose job has ended before.
UPDATE actions SET status = iif(status = 'executing', 'failed', 'canceled'), error_message = CAST('its job has ended' AS BLOB), updated_at = c.ms
FROM db_clock AS c WHERE status IN ('queued', 'executing')
AND EXISTS (SELECT 1 FROM jobs AS j WHERE j.type = 'action.execute' AND j.idempotency_key = actions.id AND j.state IN ('failed', 'canceled'));
