package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/postroom/postroom/core/job"
	"github.com/postroom/postroom/core/mail"
	"github.com/postroom/postroom/core/mail/action"
	"github.com/postroom/postroom/core/mail/maildir"
)

// execution is an action in hand: what it will change, found out before
// anything is touched.
type execution struct {
	agent   *Agent
	action  *mail.Action
	message *mail.MessageDetail
	params  mail.ActionParameters
	queue   string
	dir     *maildir.Dir
	entry   maildir.Entry // where the message is now
	before  mail.UndoHint // how things were when the action began
	change  func() (*mail.Place, error)
	done    mail.Done // what is recorded beside the place
}

// execution finds the message and plans the change.
func (a *Agent) execution(ctx context.Context, act *mail.Action) (*execution, error) {
	m, err := a.store.Message(ctx, act.MessageID)
	if err != nil {
		return nil, err
	}
	acc, err := a.store.Account(ctx, act.AccountID)
	if err != nil {
		return nil, err
	}
	if acc.Paused {
		return nil, job.Snooze(a.cfg.SyncInterval)
	}
	cfg, err := acc.Maildir()
	if err != nil {
		return nil, job.Fatal(err)
	}
	e := &execution{agent: a, action: act, message: m, queue: cfg.Queue}
	if e.params, err = act.Decode(); err != nil {
		return nil, job.Fatal(err)
	}
	begun := act.Status == action.Executing
	if begun {
		if e.before, _, err = act.Hint(); err != nil {
			return nil, job.Fatal(err)
		}
	} else {
		e.before.Labels = m.Labels
	}
	return e, e.plan(begun, cfg.Path)
}

// plan sets what the action changes. Labels live in the database, so an action
// on them needs no file.
func (e *execution) plan(begun bool, path string) error {
	nothing := func() (*mail.Place, error) { return nil, nil } //nolint:nilnil // no place changes
	switch e.action.ActionType {
	case "none":
		e.change = nothing
		return nil
	case "apply_label":
		e.change, e.done.Label = nothing, e.params.Label
		return nil
	case "remove_label":
		e.change, e.done.Unlabel = nothing, e.params.Label
		return nil
	}
	undone, hint, err := e.undone()
	if err != nil {
		return err
	}
	if undone != nil && e.planLabelUndo(undone, hint) {
		e.change = nothing
		return nil
	}
	if err := e.find(begun, path); err != nil {
		if begun && e.action.ActionType == "delete" && errors.Is(err, maildir.ErrGone) {
			e.change = func() (*mail.Place, error) { return &mail.Place{Gone: true}, nil } // by the run before
			return nil
		}
		return err
	}
	if undone != nil {
		return e.planUndo(begun, undone, hint)
	}
	switch e.action.ActionType {
	case "archive":
		return e.move(begun, mail.FolderArchive)
	case "trash":
		return e.move(begun, mail.FolderTrash)
	case "move":
		folder, err := maildir.CleanFolder(e.params.Folder)
		if err != nil {
			return job.Fatal(err)
		}
		return e.move(begun, folder)
	case "restore":
		return e.restore(begun)
	case "snooze":
		return e.snooze(begun)
	case "mark_read":
		e.flags("S", "")
	case "mark_unread":
		e.flags("", "S")
	case "star":
		e.flags("F", "")
	case "unstar":
		e.flags("", "F")
	case "delete":
		e.change = func() (*mail.Place, error) { return &mail.Place{Gone: true}, e.dir.Remove(e.entry) }
	default:
		return job.Fatal(fmt.Errorf("action type %s is not carried out by this version", e.action.ActionType))
	}
	return nil
}

// find looks the message up and, before the intent is recorded, notes how it
// lies there.
func (e *execution) find(begun bool, path string) error {
	dir, err := maildir.Open(path)
	if err != nil {
		return err
	}
	e.dir = dir
	var place mail.Place
	if err := json.Unmarshal(e.message.Raw, &place); err != nil {
		return job.Fatal(fmt.Errorf("message %s: its place does not decode", e.message.ID))
	}
	look := place.Folder
	if begun {
		look = e.before.Folder
	}
	e.entry, err = dir.Resolve(maildir.Entry{Unique: e.message.ProviderMessageID, Folder: look})
	if err != nil || begun {
		return err
	}
	name := filepath.Base(e.entry.Path)
	if !utf8.ValidString(name) {
		name = "" // the flags have to do
	}
	e.before.Folder, e.before.Name, e.before.Flags, e.before.New = e.entry.Folder, name, e.entry.Flags, e.entry.New
	e.before.Target, e.before.Back = e.entry.Folder, e.entry.Folder
	return nil
}

// move plans that the message goes to a folder. One that is at neither of the
// two places after a crash was moved by somebody else since: that stands.
func (e *execution) move(begun bool, folder string) error {
	if !begun {
		e.before.Target = folder
	} else if folder = e.before.Target; e.entry.Folder != folder && e.entry.Folder != e.before.Folder {
		return &calledOff{"another program moved the message meanwhile"}
	}
	e.change = func() (*mail.Place, error) { return placeOf(e.dir.Move(e.entry, folder)) }
	return nil
}

func (e *execution) flags(add, remove string) {
	e.change = func() (*mail.Place, error) { return placeOf(e.dir.SetFlags(e.entry, add, remove)) }
}

func placeOf(entry maildir.Entry, err error) (*mail.Place, error) {
	return &mail.Place{Folder: entry.Folder, Flags: entry.Flags, New: entry.New}, err
}

// restore plans that the message goes back to where it was before it was put
// into the trash or snoozed; to the INBOX where that is not known. A message
// that lies in neither stays where it is.
func (e *execution) restore(begun bool) error {
	e.done.EndSnooze = e.before.Folder == mail.FolderSnoozed
	if id := e.action.SnoozeID(); id != "" {
		if !begun && e.entry.Folder != mail.FolderSnoozed {
			return &calledOff{"the message is no longer among the snoozed"}
		}
		h, err := e.hintOf(id)
		if err != nil {
			return err
		}
		return e.move(begun, h.Back)
	}
	if wake := e.wake(); wake != nil && !begun {
		e.before.Wakes = wake.NotBefore
	}
	by := map[string]string{mail.FolderTrash: "trash", mail.FolderSnoozed: "snooze"}[e.before.Folder]
	if by == "" {
		return e.move(begun, e.entry.Folder)
	}
	return e.move(begun, e.last(by).Back)
}

// last is the hint of the newest completed action of a type on the message.
func (e *execution) last(actionType string) mail.UndoHint {
	for _, a := range slices.Backward(e.message.Actions) {
		if a.ActionType == actionType && a.Status == action.Completed && a.UndoneBy == nil {
			if h, found, err := a.Hint(); err == nil && found {
				return h
			}
		}
	}
	return mail.UndoHint{}
}

// snooze plans that the message sleeps among the snoozed. A message that sleeps
// already sleeps until the new time, and wakes where the first snooze found it.
func (e *execution) snooze(begun bool) error {
	wake := &mail.Wake{}
	var err error
	if e.params.Until != "" {
		wake.Until, err = time.Parse(time.RFC3339, e.params.Until)
	} else {
		wake.For, err = time.ParseDuration(e.params.For)
	}
	if err != nil {
		return job.Fatal(errors.New("the snooze's time does not decode"))
	}
	e.done.Wake = wake
	if !begun && e.entry.Folder == mail.FolderSnoozed {
		e.before.Back = e.last("snooze").Back
	}
	return e.move(begun, mail.FolderSnoozed)
}

// wake is the action that waits to wake the message; nil when none does.
func (e *execution) wake() *mail.Action {
	for i := range e.message.Actions {
		if a := &e.message.Actions[i]; a.Status == action.Queued && a.SnoozeID() != "" {
			return a
		}
	}
	return nil
}

// hintOf is the hint of another action on the message.
func (e *execution) hintOf(id string) (mail.UndoHint, error) {
	for _, a := range e.message.Actions {
		if a.ID == id {
			h, _, err := a.Hint()
			if err != nil {
				err = job.Fatal(err)
			}
			return h, err
		}
	}
	return mail.UndoHint{}, job.Fatal(fmt.Errorf("action %s is not one of the message's", id))
}

// undone is the action that this one takes back; nil when it is none of those.
func (e *execution) undone() (*mail.Action, mail.UndoHint, error) {
	if e.action.ActionType != action.Undo {
		return nil, mail.UndoHint{}, nil
	}
	h, err := e.hintOf(e.params.ActionID)
	for i := range e.message.Actions {
		if a := &e.message.Actions[i]; a.ID == e.params.ActionID {
			return a, h, err
		}
	}
	return nil, h, err
}

// planLabelUndo takes back what the action changed about labels, and only that:
// labels given or taken since stay. It says false for other actions.
func (e *execution) planLabelUndo(undone *mail.Action, hint mail.UndoHint) bool {
	var before []string
	_ = json.Unmarshal(hint.Labels, &before) // nothing there is no label
	p, _ := undone.Decode()                  // it was decoded to be carried out
	switch had := slices.Contains(before, p.Label); {
	case undone.ActionType == "apply_label" && !had:
		e.done.Unlabel = p.Label
	case undone.ActionType == "remove_label" && had:
		e.done.Label = p.Label
	}
	return undone.ActionType == "apply_label" || undone.ActionType == "remove_label" || undone.ActionType == "none"
}

// planUndo plans the inverse: the message goes back to its folder wherever it
// is now, and the flag that was changed, and no other, gets its old value.
func (e *execution) planUndo(begun bool, undone *mail.Action, hint mail.UndoHint) error {
	had := func(flag string) bool { return strings.Contains(hint.Flags, flag) }
	add, remove := "", ""
	switch undone.ActionType {
	case "archive", "trash", "move", "restore", "snooze":
		e.done.EndSnooze = undone.ActionType == "snooze"
		switch {
		case hint.Back == hint.Target: // it had changed nothing
			return e.move(begun, e.entry.Folder)
		case undone.ActionType == "restore" && hint.Back == mail.FolderSnoozed:
			if hint.Wakes != nil { // at once, when that has passed meanwhile
				e.done.Wake = &mail.Wake{Until: hint.Wakes.Time()}
			}
			return e.move(begun, mail.FolderSnoozed)
		case hint.Back == mail.FolderSnoozed && e.wake() == nil:
			return e.move(begun, e.last("snooze").Back) // its time has passed meanwhile
		}
		return e.move(begun, hint.Back)
	case "mark_read":
		if !had("S") {
			remove = "S"
		}
	case "mark_unread":
		if had("S") {
			add = "S"
		}
	case "star":
		if !had("F") {
			remove = "F"
		}
	case "unstar":
		if had("F") {
			add = "F"
		}
	default:
		return job.Fatal(mail.ErrNotUndoable)
	}
	if add+remove == "" {
		e.change = func() (*mail.Place, error) { return placeOf(e.entry, nil) }
		return nil
	}
	e.change = func() (*mail.Place, error) {
		return placeOf(e.dir.RevertFlags(e.entry, add, remove, hint.Name, hint.New))
	}
	return nil
}
