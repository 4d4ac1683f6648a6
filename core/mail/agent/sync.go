package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/postroom/postroom/core/job"
	"github.com/postroom/postroom/core/mail"
	"github.com/postroom/postroom/core/mail/maildir"
	"github.com/postroom/postroom/core/worker"
)

// scanBatch is how many names are looked up, and how many jobs stored, at a
// time.
const scanBatch = 500

// sync finds messages of an account's INBOX that were never taken in, and
// snoozes until the next time. One sync per account exists at any time.
func (a *Agent) sync(ctx context.Context, j *worker.Job[job.SyncPayload]) (any, error) {
	acc, err := a.store.Account(ctx, j.Payload.AccountID)
	if errors.Is(err, mail.ErrNotFound) {
		return nil, job.Fatal(err)
	}
	if err != nil {
		return nil, err
	}
	var state struct {
		LastSyncAt *job.Time `json:"last_sync_at"`
	}
	if err := json.Unmarshal(acc.State, &state); err != nil {
		return nil, job.Fatal(fmt.Errorf("account %s: its state does not decode", acc.ID))
	}
	_, dir, err := a.mailbox(ctx, acc.ID, state.LastSyncAt == nil)
	if err != nil {
		return nil, a.syncFailed(ctx, acc.ID, err)
	}
	a.watchers.ensure(acc.ID, dir.Path())
	found, problems, err := a.scan(ctx, acc, dir)
	if err != nil {
		return nil, a.syncFailed(ctx, acc.ID, err)
	}
	if found > 0 || problems > 0 {
		a.log.Info().Ctx(ctx).Str("account_id", acc.ID).Int("found", found).Int("problems", problems).Msg("mailbox synced")
	}
	err = a.store.SetAccountState(ctx, acc.ID, map[string]any{
		"last_sync_at": job.At(time.Now()), "last_error": nil, "problems": problems,
	})
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

func (a *Agent) scan(ctx context.Context, acc *mail.Account, dir *maildir.Dir) (found, problems int, err error) {
	cfg, err := acc.Maildir()
	if err != nil {
		return 0, 0, job.Fatal(err)
	}
	var names []string
	flush := func() error {
		unknown, err := a.store.Unknown(ctx, acc.ID, names)
		if err != nil {
			return err
		}
		names = names[:0]
		jobs := make([]job.New, len(unknown))
		for i, unique := range unknown {
			jobs[i] = job.New{
				Type: job.MessageIngest, Queue: cfg.Queue, Key: mail.IngestKey(acc.ID, unique), LimitKey: acc.ID,
				Payload: job.Payload(job.IngestPayload{AccountID: acc.ID, Unique: unique}),
			}
		}
		_, err = a.q.EnqueueMany(ctx, jobs)
		found += len(jobs)
		return err
	}
	err = dir.ScanFolder(ctx, "", func(e maildir.Entry) error {
		if job.CheckText("name", e.Unique, job.MaxName) != nil {
			problems++
			return nil
		}
		if names = append(names, e.Unique); len(names) == scanBatch {
			return flush()
		}
		return nil
	})
	var some *maildir.ScanError
	if errors.As(err, &some) {
		problems += len(some.Problems)
		a.log.Warn().Ctx(ctx).Str("account_id", acc.ID).Err(some).Msg("parts of the mailbox cannot be read")
		err = nil
	}
	if err == nil {
		err = flush()
	}
	return found, problems, err
}
