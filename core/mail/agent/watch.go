package agent

import (
	"context"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"github.com/postroom/postroom/core/job"
	"github.com/postroom/postroom/core/mail/maildir"
	"github.com/postroom/postroom/core/queue"
)

// watchers wake an account's sync when files arrive in its Maildir.
type watchers struct {
	ctx context.Context //nolint:containedctx // the process's: watchers outlive the sync that starts them
	q   *queue.Queue
	log zerolog.Logger

	mu      sync.Mutex
	running map[string]bool
}

func (w *watchers) start(ctx context.Context, q *queue.Queue, log zerolog.Logger) {
	w.ctx, w.q, w.log = ctx, q, log
	w.running = map[string]bool{}
}

// ensure starts the account's watcher unless it runs. One that ended (the
// folder went away, the system has no watches left) is started again by the
// next sync; until then the sync interval has to do.
func (w *watchers) ensure(accountID, path string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.running[accountID] || w.ctx.Err() != nil {
		return
	}
	w.running[accountID] = true
	go func() {
		err := maildir.Watch(w.ctx, path, func() { w.wake(accountID) })
		w.mu.Lock()
		delete(w.running, accountID)
		w.mu.Unlock()
		if w.ctx.Err() == nil {
			w.log.Warn().Str("account_id", accountID).Err(err).Msg("the mailbox is not watched; new mail is found at the sync interval")
		}
	}()
}

// wake pulls the sync to now. A sync that is running may have passed the new
// file already, so it is asked until one waits for its time.
func (w *watchers) wake(accountID string) {
	t := time.NewTicker(100 * time.Millisecond)
	defer t.Stop()
	for range 50 {
		pulled, err := w.q.PullForward(w.ctx, job.AccountSync, accountID)
		if pulled || w.ctx.Err() != nil {
			return
		}
		if err != nil {
			w.log.Warn().Str("account_id", accountID).Err(err).Msg("the sync could not be woken")
		}
		select {
		case <-t.C:
		case <-w.ctx.Done():
			return
		}
	}
}
