// Package agent holds the handlers of the mail path: they find messages,
// take them in, judge them and carry the decisions out, each as a durable
// job. It may import core/mail and what lies under it, core/worker, core/step
// and core/telemetry. The apiserver never imports it.
package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/rs/zerolog"

	"github.com/postroom/postroom/core/job"
	"github.com/postroom/postroom/core/mail"
	"github.com/postroom/postroom/core/mail/maildir"
	"github.com/postroom/postroom/core/queue"
	"github.com/postroom/postroom/core/worker"
)

// Config says how the mail path works.
type Config struct {
	SyncInterval time.Duration
}

// Agent carries the mail path's jobs out.
type Agent struct {
	store    *mail.Store
	q        *queue.Queue
	log      zerolog.Logger
	cfg      Config
	watchers watchers
	known    known
	crash    func(ctx context.Context, point, actionID string) error // of tests
}

// New returns an agent. Its watchers live until ctx ends.
func New(ctx context.Context, store *mail.Store, q *queue.Queue, log zerolog.Logger, cfg Config) *Agent {
	a := &Agent{store: store, q: q, log: log, cfg: cfg}
	a.watchers.start(ctx, q, log)
	return a
}

// Bindings lists the mail path's handlers.
func (a *Agent) Bindings() []worker.Binding {
	return []worker.Binding{
		worker.Bind(job.AccountSync, a.sync),
		worker.Bind(job.MessageIngest, a.ingest),
		worker.Bind(job.MessageClassify, a.classify),
		worker.Bind(job.ActionExecute, a.execute),
		worker.Bind(job.ActionExpire, a.expire),
		worker.Bind(job.RulesApply, a.apply),
		worker.Bind(job.MailImport, a.importMail),
		worker.Bind(job.AccountRemove, a.remove),
	}
}

// Ensure makes sure that every account has its sync job, and that it runs
// soon: files may have come while no runner watched. It is called at start.
func (a *Agent) Ensure(ctx context.Context) error {
	if err := a.mend(ctx); err != nil {
		return err
	}
	for p := (mail.PageOf{Limit: 200}); ; {
		accounts, next, err := a.store.Accounts(ctx, p)
		if err != nil {
			return err
		}
		for _, acc := range accounts {
			if _, err := a.q.PullForward(ctx, job.AccountSync, acc.ID); err != nil {
				return err
			}
		}
		if p.Cursor = next; next == "" {
			return nil
		}
	}
}

// Keep gives accounts a sync job again whose job has ended, each interval until
// ctx ends: one that was killed with its runner too often has failed, and its
// account must not rest for ever.
func (a *Agent) Keep(ctx context.Context) {
	t := time.NewTicker(a.cfg.SyncInterval)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		if err := a.mend(ctx); err != nil && ctx.Err() == nil {
			a.log.Warn().Err(err).Msg("accounts without a sync could not be looked for")
		}
	}
}

// mend stores a sync job for each account that has none.
func (a *Agent) mend(ctx context.Context) error {
	accounts, err := a.store.Unsynced(ctx)
	if err != nil {
		return err
	}
	for _, acc := range accounts {
		cfg, err := acc.Maildir()
		if err != nil {
			a.log.Warn().Err(err).Msg("account skipped")
			continue
		}
		if _, err := a.q.Enqueue(ctx, mail.SyncJob(acc.ID, cfg)); err != nil {
			return fmt.Errorf("account %s: %w", acc.ID, err)
		}
	}
	return nil
}

// mailbox returns an account with its Maildir. A Maildir that is not there is
// made before the first sync only: later its absence is an outage (a disk that
// is not mounted), not a new mailbox.
func (a *Agent) mailbox(ctx context.Context, accountID string) (*mail.Account, *maildir.Dir, error) {
	acc, err := a.store.Account(ctx, accountID)
	if errors.Is(err, mail.ErrNotFound) {
		return nil, nil, job.Fatal(err)
	}
	if err != nil {
		return nil, nil, err
	}
	cfg, err := acc.Maildir()
	if err != nil {
		return nil, nil, job.Fatal(err)
	}
	var state struct {
		LastSyncAt *job.Time `json:"last_sync_at"`
	}
	if err := json.Unmarshal(acc.State, &state); err != nil {
		return nil, nil, job.Fatal(fmt.Errorf("account %s: its state does not decode", acc.ID))
	}
	dir, err := maildir.Open(cfg.Path)
	if state.LastSyncAt == nil && errors.Is(err, fs.ErrNotExist) {
		dir, err = maildir.Create(cfg.Path)
	}
	return acc, dir, err
}
