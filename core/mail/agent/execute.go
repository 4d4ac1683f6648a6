package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/postroom/postroom/core/job"
	"github.com/postroom/postroom/core/mail"
	"github.com/postroom/postroom/core/mail/maildir"
	"github.com/postroom/postroom/core/queue"
	"github.com/postroom/postroom/core/step"
	"github.com/postroom/postroom/core/telemetry"
	"github.com/postroom/postroom/core/worker"
)

// Folders that actions put messages into.
const (
	archiveFolder = "Archive"
	trashFolder   = "Trash"
)

// messageGone is the error of an action whose message is nowhere.
const messageGone = "message_gone"

// execute carries one action out: the intent first, with how things were; then
// the change, which finds its own work done when it is repeated; then the
// record of it. docs/mail.md has the table of changes and inverses.
func (a *Agent) execute(ctx context.Context, j *worker.Job[job.ActionPayload]) (result any, err error) {
	action, err := a.store.Action(ctx, j.Payload.ActionID)
	if errors.Is(err, mail.ErrNotFound) {
		return nil, job.Fatal(err)
	}
	if err != nil {
		return nil, err
	}
	ctx, span := telemetry.EmailAction(ctx, action.MessageID, action.ActionType)
	defer func() { telemetry.End(span, err) }()

	if action.Status != "queued" && action.Status != "executing" {
		return map[string]any{"status": action.Status}, nil
	}
	entry, label, err := a.change(ctx, j, action)
	if err != nil {
		if errors.Is(err, maildir.ErrGone) {
			err = job.Fatal(errors.New(messageGone))
		}
		if job.IsFatal(err) || j.LastAttempt() && ctx.Err() == nil {
			reason := err.Error()
			werr := j.Write(ctx, func(b *queue.Batch) { a.store.RecordFailed(b, action.ID, reason) })
			if werr != nil {
				return nil, errors.Join(werr, err)
			}
		}
		return nil, err
	}
	done := mail.Place{Folder: entry.Folder, Flags: entry.Flags, New: entry.New}
	return nil, j.Commit(ctx, map[string]any{"status": "completed", "folder": done.Folder, "flags": done.Flags}, func(b *queue.Batch) {
		a.store.RecordDone(b, action, done, label)
	})
}

// change does what the action says to the message's file and returns where it
// is now, and the label to add.
func (a *Agent) change(ctx context.Context, j *worker.Job[job.ActionPayload], action *mail.Action) (maildir.Entry, string, error) {
	m, err := a.store.Message(ctx, action.MessageID)
	if err != nil {
		return maildir.Entry{}, "", err
	}
	_, dir, err := a.mailbox(ctx, action.AccountID, false)
	if err != nil {
		return maildir.Entry{}, "", err
	}
	var place mail.Place
	if err := json.Unmarshal(m.Raw, &place); err != nil {
		return maildir.Entry{}, "", job.Fatal(fmt.Errorf("message %s: its place does not decode", m.ID))
	}
	var params struct {
		Folder string `json:"folder"`
		Label  string `json:"label"`
	}
	if err := json.Unmarshal(action.Parameters, &params); err != nil {
		return maildir.Entry{}, "", job.Fatal(errors.New("the action's parameters do not decode"))
	}
	entry, err := dir.Resolve(maildir.Entry{Unique: m.ProviderMessageID, Folder: place.Folder})
	if err != nil {
		return maildir.Entry{}, "", err
	}
	if _, intended, err := action.Hint(); err != nil {
		return maildir.Entry{}, "", job.Fatal(err)
	} else if !intended {
		before := mail.UndoHint{Folder: entry.Folder, Flags: entry.Flags, New: entry.New, Labels: m.Labels}
		if err := j.Write(ctx, func(b *queue.Batch) { a.store.RecordIntent(b, action.ID, before) }); err != nil {
			return maildir.Entry{}, "", err
		}
	}
	after, err := step.Run(ctx, "change", func(context.Context) (maildir.Entry, error) {
		return applyTo(dir, entry, action.ActionType, params.Folder)
	})
	return after, params.Label, err
}

// applyTo makes the change. Each is safe to repeat: a message that is already
// where it should be, or has the flag, stays as it is.
func applyTo(dir *maildir.Dir, e maildir.Entry, actionType, folder string) (maildir.Entry, error) {
	switch actionType {
	case "archive":
		return dir.Move(e, archiveFolder)
	case "move":
		return dir.Move(e, folder)
	case "trash":
		return dir.Move(e, trashFolder)
	case "mark_read":
		return dir.SetFlags(e, "S", "")
	case "star":
		return dir.SetFlags(e, "F", "")
	case "apply_label", "none":
		return e, nil // labels live in the database
	}
	return maildir.Entry{}, job.Fatal(fmt.Errorf("action type %s is not carried out by this version", actionType))
}
