package agent

import (
	"context"

	"github.com/postroom/postroom/core/mail"
	"github.com/postroom/postroom/core/mail/maildir"
	"github.com/postroom/postroom/core/queue"
)

// ScanBatch is how many names are looked up at a time.
const ScanBatch = scanBatch

// CrashAt has every action stop with fn's error when it reaches a point, as a
// crash there would stop it.
func (a *Agent) CrashAt(fn func(ctx context.Context, point, actionID string) error) { a.crash = fn }

// ScanOnce is the part of a sync that looks at the Maildir.
func (a *Agent) ScanOnce(ctx context.Context, acc *mail.Account, dir *maildir.Dir) error {
	write := func(ctx context.Context, fill func(*queue.Batch)) error {
		b := a.q.NewBatch(ctx)
		fill(b)
		_, err := a.q.Write(ctx, b)
		return err
	}
	return (&scan{agent: a, account: acc, dir: dir, jobID: "scan", write: write}).run(ctx)
}

// Blind keeps the agent from watching an account's Maildir.
func (a *Agent) Blind(accountID string) { a.watchers.running[accountID] = true }
