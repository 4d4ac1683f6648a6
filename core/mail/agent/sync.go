package agent

import (
	"context"
	"errors"
	"time"

	"github.com/postroom/postroom/core/job"
	"github.com/postroom/postroom/core/mail"
	"github.com/postroom/postroom/core/worker"
)

// sync finds messages of an account's INBOX that were never taken in, and
// snoozes until the next time. One sync per account exists at any time.
func (a *Agent) sync(ctx context.Context, j *worker.Job[job.SyncPayload]) (any, error) {
	acc, err := a.store.Account(ctx, j.Payload.AccountID)
	if errors.Is(err, mail.ErrNotFound) {
		return map[string]any{"note": "the account was removed"}, nil
	}
	if err != nil {
		return nil, err
	}
	if acc.Paused {
		return nil, job.Snooze(a.cfg.SyncInterval)
	}
	_, dir, err := a.mailbox(ctx, acc.ID)
	if err != nil {
		return nil, a.syncFailed(ctx, acc.ID, err)
	}
	a.watchers.ensure(acc.ID, dir.Path())
	s := &scan{agent: a, account: acc, dir: dir, jobID: j.ID(), write: j.Write}
	err = s.run(ctx)
	if errors.Is(err, errPaused) {
		return nil, job.Snooze(a.cfg.SyncInterval)
	}
	if err != nil {
		return nil, a.syncFailed(ctx, acc.ID, err)
	}
	if s.found+s.moved+s.gone > 0 {
		a.log.Info().Ctx(ctx).Str("account_id", acc.ID).Int("found", s.found).Int("moved", s.moved).Int("gone", s.gone).
			Int("problems", s.problems).Msg("mailbox synced")
	}
	report := map[string]any{"last_sync_at": job.At(time.Now()), "last_error": nil, "taking_in": nil, "problems": s.problems}
	err = a.store.SetAccountState(ctx, acc.ID, report)
	if err != nil {
		return nil, err
	}
	return nil, job.Snooze(a.cfg.SyncInterval)
}

// syncFailed shows the error on the account and tries again at the next
// interval: a mailbox that is away today may be back tomorrow, so that spends
// no attempt.
func (a *Agent) syncFailed(ctx context.Context, accountID string, err error) error {
	if ctx.Err() != nil || job.IsFatal(err) {
		return err
	}
	a.log.Warn().Ctx(ctx).Str("account_id", accountID).Err(err).Msg("mailbox cannot be synced; trying again at the next interval")
	if err := a.store.SetAccountState(ctx, accountID, map[string]any{"last_error": err.Error()}); err != nil {
		return err
	}
	return job.Snooze(a.cfg.SyncInterval)
}
