package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/postroom/postroom/core/job"
	"github.com/postroom/postroom/core/mail"
	"github.com/postroom/postroom/core/mail/maildir"
	"github.com/postroom/postroom/core/mail/message"
	"github.com/postroom/postroom/core/mail/source"
	"github.com/postroom/postroom/core/queue"
	"github.com/postroom/postroom/core/worker"
)

// importer takes mail from elsewhere in, in batches. Each is delivered first
// and then stored together with how far the task is; a run that was cut off
// between the two finds the files by their names, and goes on.
type importer struct {
	*Agent
	job   *worker.Job[job.ImportPayload]
	task  *mail.Task
	dir   *maildir.Dir
	queue string

	items    []source.Item
	bytes    int
	problems int64
	last     string
}

func (a *Agent) importMail(ctx context.Context, j *worker.Job[job.ImportPayload]) (any, error) {
	task, err := a.store.Task(ctx, j.ID())
	if err != nil {
		return nil, err
	}
	im := &importer{Agent: a, job: j, task: task}
	acc, dir, err := a.mailbox(ctx, j.Payload.AccountID)
	if isOutage(err) {
		return nil, im.wait(ctx, err)
	}
	if err != nil {
		return nil, err
	}
	cfg, err := acc.Maildir()
	if err != nil {
		return nil, job.Fatal(err)
	}
	if acc.Paused {
		return nil, job.Snooze(a.cfg.SyncInterval)
	}
	im.dir, im.queue = dir, cfg.Queue
	src, err := source.Open(j.Payload.Path, j.Payload.Format, cfg.Path, mail.MaxMessage)
	if err != nil {
		return nil, unreadable(err)
	}
	if task.Total == nil {
		total, err := src.Total(ctx)
		if err != nil {
			return nil, unreadable(err)
		}
		task.Total = &total
	}
	if task.Problems == 0 {
		task.LastProblem = nil // why an earlier run waited
	}
	if len(task.Resume()) == 0 { // a source without positions is read from its start
		task.Done, task.Problems = 0, 0
	}
	if err = src.Read(ctx, task.Resume(), func(it source.Item) error { return im.add(ctx, it) }); err == nil {
		err = im.flush(ctx, true)
	}
	switch {
	case errors.Is(err, errPaused):
		return nil, job.Snooze(a.cfg.SyncInterval)
	case errors.Is(err, errDeliver) && isOutage(err):
		return nil, im.wait(ctx, err)
	}
	return nil, unreadable(err)
}

// unreadable ends an import whose source is not there, is not mail or may not be
// read: somebody has to see that now, and can have it go on with a retry.
func unreadable(err error) error {
	missing := errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission)
	if errors.Is(err, source.ErrUnknown) || missing && !errors.Is(err, errDeliver) {
		return job.Fatal(err)
	}
	return err
}

var errDeliver = errors.New("the account's mailbox does not take the mail")

// wait shows why the import does not go on; it does by itself, and spends no
// attempt, when the mailbox is back or its disk has room.
func (im *importer) wait(ctx context.Context, err error) error {
	why := err.Error()
	im.task.LastProblem = &why
	werr := im.job.Write(ctx, func(b *queue.Batch) { im.store.RecordProgress(b, im.task, im.task.Resume()) })
	if werr != nil {
		return errors.Join(werr, err)
	}
	return job.Snooze(im.cfg.SyncInterval)
}

func (im *importer) add(ctx context.Context, it source.Item) error {
	if it.Problem != nil {
		im.problems++
		im.last = it.Problem.Error()
		it.Raw = nil
	}
	im.items = append(im.items, it)
	im.bytes += len(it.Raw)
	if len(im.items) < intakeBatch && im.bytes < intakeBytes {
		return nil
	}
	return im.flush(ctx, false)
}

// flush delivers and stores what was read.
func (im *importer) flush(ctx context.Context, end bool) error {
	var uniques []string
	for _, it := range im.items {
		if it.Problem == nil {
			uniques = append(uniques, it.Unique)
		}
	}
	accountID := im.job.Payload.AccountID
	if err := im.mayTakeIn(ctx, accountID); err != nil {
		return err
	}
	stored, err := im.store.Stored(ctx, accountID, uniques)
	if err != nil {
		return err
	}
	if len(uniques) > 0 {
		err := im.job.Write(ctx, func(b *queue.Batch) { im.store.HoldNames(b, accountID, uniques, im.job.ID()) })
		if err != nil {
			return err
		}
	}
	book, err := im.store.Book(ctx)
	if err != nil {
		return err
	}
	var arrived []mail.Arrival
	for _, it := range im.items {
		if it.Problem != nil || stored[it.Unique] {
			continue
		}
		stored[it.Unique] = true // identical messages of one batch are one
		entry := maildir.Entry{Unique: it.Unique, Folder: it.Folder, New: it.New, Flags: it.Flags, Path: it.Path}
		if it.Path == "" {
			if entry, _, err = im.dir.DeliverTo(entry, it.Raw); err != nil {
				return fmt.Errorf("import: %w: %w", errDeliver, err)
			}
		}
		m := message.Parse(it.Raw)
		a := mail.Arrival{Message: m, File: fileOf(entry), Time: fileTime(entry)}
		if im.job.Payload.ApplyRules {
			verdict := book.Judge(accountID, m)
			a.Verdict = &verdict
		}
		arrived = append(arrived, a)
	}
	for i, id := range im.q.NewIDs(len(arrived)) {
		arrived[i].ID = id
	}
	task := *im.task
	task.Done += int64(len(im.items))
	task.Changed += int64(len(arrived))
	task.Problems += im.problems
	if im.last != "" {
		task.LastProblem = &im.last
	}
	position := im.task.Resume()
	if len(im.items) > 0 {
		position = im.items[len(im.items)-1].Position
	}
	err = im.store.StoreMessages(ctx, accountID, im.queue, arrived, func(record func(*queue.Batch)) error {
		fill := func(b *queue.Batch) {
			record(b)
			im.store.RecordProgress(b, &task, position)
		}
		if end {
			return im.job.Commit(ctx, map[string]any{"read": task.Done, "taken_in": task.Changed, "problems": task.Problems}, fill)
		}
		return im.job.Write(ctx, fill)
	})
	if err != nil {
		return err
	}
	*im.task = task
	im.items, im.bytes, im.problems, im.last = im.items[:0], 0, 0, ""
	return nil
}
