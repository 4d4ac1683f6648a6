-- Actions that wait for a person or for their time, and a status that moves
-- only along the status machine (docs/mail.md), whoever writes.

-- not_before: when it is carried out at the earliest (the wake of a snooze).
-- approval_expires_at: when an action nobody decided about is given up.
-- approved_at: when a person let it pass.
ALTER TABLE actions ADD COLUMN not_before INTEGER;
ALTER TABLE actions ADD COLUMN approval_expires_at INTEGER;
ALTER TABLE actions ADD COLUMN approved_at INTEGER;

CREATE TRIGGER actions_status BEFORE UPDATE OF status ON actions
WHEN OLD.status <> NEW.status AND OLD.status || '>' || NEW.status NOT IN (
  'queued>executing', 'queued>canceled', 'queued>rejected', 'queued>approved_pending', 'queued>failed',
  'executing>completed', 'executing>failed', 'executing>canceled',
  'approved_pending>queued', 'approved_pending>canceled', 'approved_pending>rejected')
BEGIN
  SELECT RAISE(ABORT, 'actions.status: not a transition of the status machine');
END;
