package mail

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"unicode/utf8"

	"github.com/postroom/postroom/core/job"
	"github.com/postroom/postroom/core/libsql"
	"github.com/postroom/postroom/core/queue"
)

// AccountChange is what is to change about an account; nil fields stay.
type AccountChange struct {
	DisplayName *string
	Paused      *bool
}

// UpdateAccount changes an account. One that is no longer paused is synced at
// once.
func (s *Store) UpdateAccount(ctx context.Context, id string, c AccountChange) (*Account, error) {
	var name any
	if c.DisplayName != nil {
		if len(*c.DisplayName) > 1000 || !utf8.ValidString(*c.DisplayName) {
			return nil, invalid("display_name", "must be valid UTF-8 of at most 1000 bytes")
		}
		name = blob(*c.DisplayName)
	}
	var paused any
	if c.Paused != nil {
		paused = *c.Paused
	}
	var b libsql.Batch
	n := b.Query(sqlUpdateAccount, id, c.DisplayName != nil, name, paused)
	res, err := s.db.Write(ctx, &b)
	switch {
	case err != nil:
		return nil, fmt.Errorf("update account %s: %w", id, err)
	case len(res[n].Rows) == 0:
		return nil, fmt.Errorf("account %s: %w", id, ErrNotFound)
	}
	if c.Paused != nil && !*c.Paused {
		if _, err := s.q.PullForward(ctx, job.AccountSync, id); err != nil {
			return nil, err
		}
	}
	return s.Account(ctx, id)
}

// Resync forgets what the last sync saw, so that the next one, which is due
// now, looks at every file again.
func (s *Store) Resync(ctx context.Context, id string) (*Account, error) {
	acc, err := s.Account(ctx, id)
	if err != nil {
		return nil, err
	}
	cfg, err := acc.Maildir()
	if err != nil {
		return nil, err
	}
	b := s.q.NewBatch(ctx)
	b.Exec(sqlForgetFolders, id)
	b.Enqueue(SyncJob(id, cfg)) // the one that is there, unless it has failed
	if _, err := s.q.Write(ctx, b); err != nil {
		return nil, fmt.Errorf("resync account %s: %w", id, err)
	}
	if _, err := s.q.PullForward(ctx, job.AccountSync, id); err != nil {
		return nil, err
	}
	return acc, nil
}

// RemoveAccount takes an account out: at once nobody sees it any more, and a
// task deletes what is stored about it. Nothing happens to its mail.
func (s *Store) RemoveAccount(ctx context.Context, id string) (*Task, error) {
	if _, err := s.Account(ctx, id); err != nil {
		return nil, err
	}
	b := s.q.NewBatch(ctx)
	b.Query(sqlRemoveAccount, id)
	taskID, place := b.EnqueueAsking(job.New{Type: job.AccountRemove, Key: id, Payload: job.Payload(job.SyncPayload{AccountID: id})})
	b.Exec(sqlInsertTask, taskID, job.AccountRemove, id)
	res, err := s.q.Write(ctx, b)
	if err != nil {
		return nil, fmt.Errorf("remove account %s: %w", id, err)
	}
	return s.Task(ctx, queue.Answer(res[place]).ID)
}

// removeBatch is how many messages are deleted in a commit.
const removeBatch = 200

// RecordRemoval deletes a part of what is stored about a removed account, and
// the account itself with the last.
func (s *Store) RecordRemoval(b *queue.Batch, accountID string, last bool) {
	if last {
		for _, sql := range sqlRemoveRest {
			b.Exec(sql, accountID)
		}
		return
	}
	for _, sql := range sqlRemoveMessages {
		b.Exec(sql, accountID, removeBatch)
	}
	b.DropKeys(job.MessageIngest, accountID+":", 5*removeBatch)
}

// Remains counts what is still stored about an account.
func (s *Store) Remains(ctx context.Context, accountID string) (messages, keys int64, err error) {
	res, err := s.db.Read(ctx, libsql.Query(sqlRemains, accountID, accountID+":", accountID+":\U0010FFFF"))
	if err != nil {
		return 0, 0, fmt.Errorf("count what remains: %w", err)
	}
	return res[0].Rows[0].Int(0), res[0].Rows[0].Int(1), nil
}

// Formats of mail that can be imported.
var Formats = []string{"maildir", "mbox", "eml"}

// Import starts the task that takes mail from elsewhere into an account: a
// Maildir, an mbox file, or a folder of .eml files. It may be asked for again:
// what was taken in before is not taken in twice.
func (s *Store) Import(ctx context.Context, p job.ImportPayload) (t *Task, repeated bool, err error) {
	queueName, err := s.queueOf(ctx, p.AccountID)
	if err != nil {
		return nil, false, err
	}
	if !filepath.IsAbs(p.Path) {
		return nil, false, invalid("path", "must be an absolute path: it is opened by the runner, wherever that was started")
	}
	if err := job.CheckText("path", p.Path, 4096); err != nil {
		return nil, false, err
	}
	if p.Format != "" && !slices.Contains(Formats, p.Format) {
		return nil, false, invalid("format", "must be maildir, mbox or eml")
	}
	p.Path = filepath.Clean(p.Path)
	key := p.AccountID + ":" + p.Path
	if len(key) > job.MaxKey {
		key = p.AccountID + ":" + fmt.Sprint(hash(p.Path))
	}
	return s.startTask(ctx, p.AccountID, job.New{Type: job.MailImport, Queue: queueName, Key: key, Payload: job.Payload(p)})
}

// HoldNames keeps the sync from taking messages in that an import brings.
func (s *Store) HoldNames(b *queue.Batch, accountID string, uniques []string, jobID string) {
	keys := make([]string, len(uniques))
	for i, u := range uniques {
		keys[i] = IngestKey(accountID, u)
	}
	b.HoldKeys(job.MessageIngest, keys, jobID)
}
