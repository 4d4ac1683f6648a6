package agent

import (
	"context"
	"errors"
	"syscall"

	"github.com/postroom/postroom/core/job"
	"github.com/postroom/postroom/core/libsql"
	"github.com/postroom/postroom/core/mail"
	"github.com/postroom/postroom/core/mail/action"
	"github.com/postroom/postroom/core/mail/maildir"
	"github.com/postroom/postroom/core/queue"
	"github.com/postroom/postroom/core/step"
	"github.com/postroom/postroom/core/telemetry"
	"github.com/postroom/postroom/core/worker"
)

// errGone is the error of an action whose message is nowhere.
var errGone = errors.New("message_gone")

// calledOff ends an action as canceled: nothing is left changed by it.
type calledOff struct{ reason string }

func (c *calledOff) Error() string { return c.reason }

// execute carries one action out: the intent first, with how things were; then
// the change, which finds its own work done when it is repeated; then the
// record of it. docs/mail.md has the table of changes and inverses.
func (a *Agent) execute(ctx context.Context, j *worker.Job[job.ActionPayload]) (result any, err error) {
	act, err := a.store.Action(ctx, j.Payload.ActionID)
	if errors.Is(err, mail.ErrNotFound) {
		return nil, job.Fatal(err)
	}
	if err != nil {
		return nil, err
	}
	ctx, span := telemetry.EmailAction(ctx, act.MessageID, act.ActionType)
	defer func() { telemetry.End(span, err) }()

	if act.Status != action.Queued && act.Status != action.Executing {
		return map[string]any{"status": act.Status}, nil
	}
	e, err := a.execution(ctx, act)
	if err != nil {
		return nil, a.notDone(ctx, j, act, err)
	}
	done, err := e.carryOut(ctx, j)
	if err != nil {
		return nil, a.notDone(ctx, j, act, err)
	}
	if err := a.reach(ctx, beforeCommit, act.ID); err != nil {
		return nil, err
	}
	result = map[string]any{"status": action.Completed, "place": done.Place}
	return nil, j.Commit(context.WithoutCancel(ctx), result, func(b *queue.Batch) { a.store.RecordDone(ctx, b, act, done, e.queue) })
}

// notDone records what became of an action that was not carried out, and
// returns what the job answers.
func (a *Agent) notDone(ctx context.Context, j *worker.Job[job.ActionPayload], act *mail.Action, err error) error {
	var off *calledOff
	switch {
	case ctx.Err() != nil || libsql.Transient(err):
		return err // the job is run again, and nothing has become of the action yet
	case isSnooze(err):
		return err // the account is paused
	case errors.Is(err, mail.ErrNotFound):
		return job.Fatal(err) // the account or message was removed
	case errors.As(err, &off):
		return j.Commit(ctx, map[string]any{"status": action.Canceled, "reason": off.reason}, func(b *queue.Batch) {
			a.store.RecordCanceled(b, act.ID, off.reason)
		})
	case isOutage(err):
		// The action waits as long as the mailbox is away or its disk full: no
		// attempt is spent, and nobody has to ask for it again.
		a.log.Warn().Ctx(ctx).Str("action_id", act.ID).Err(err).Msg("the mailbox does not take changes; trying again at the next interval")
		werr := j.Write(ctx, func(b *queue.Batch) { a.store.RecordWaits(b, act.ID, err.Error()) })
		if werr != nil {
			return errors.Join(werr, err)
		}
		return job.Snooze(a.cfg.SyncInterval)
	case errors.Is(err, maildir.ErrGone):
		err = job.Fatal(errGone)
	case errors.Is(err, maildir.ErrNotRegular):
		err = job.Fatal(err)
	}
	if job.IsFatal(err) || j.LastAttempt() {
		werr := j.Write(ctx, func(b *queue.Batch) { a.store.RecordFailed(b, act.ID, err.Error()) })
		if werr != nil {
			return errors.Join(werr, err)
		}
	}
	return err
}

func isSnooze(err error) bool {
	_, is := job.SnoozeOf(err)
	return is
}

// isOutage tells a mailbox that is away, or cannot be written now, from a
// change that is impossible.
func isOutage(err error) bool {
	for _, e := range []error{
		maildir.ErrNotMaildir, syscall.ENOSPC, syscall.EDQUOT, syscall.EROFS, syscall.EIO, syscall.ESTALE,
		syscall.ETIMEDOUT, syscall.EACCES, syscall.EPERM, syscall.ENOTCONN, syscall.EHOSTDOWN,
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// carryOut records the intent, makes the change and returns what is to be
// recorded of it. Once the intent is recorded it is deaf to a cancel, which
// must leave no change that is not recorded.
func (e *execution) carryOut(ctx context.Context, j *worker.Job[job.ActionPayload]) (mail.Done, error) {
	if e.action.Status == action.Queued {
		if err := e.agent.reach(ctx, beforeIntent, e.action.ID); err != nil {
			return mail.Done{}, err
		}
		err := j.Write(ctx, func(b *queue.Batch) { e.agent.store.RecordIntent(b, e.action.ID, e.before) })
		if err != nil {
			return mail.Done{}, err
		}
	}
	if err := e.agent.reach(ctx, afterIntent, e.action.ID); err != nil {
		return mail.Done{}, err
	}
	place, err := step.Run(context.WithoutCancel(ctx), "change", func(context.Context) (*mail.Place, error) {
		place, err := e.change()
		if err == nil {
			err = e.agent.reach(ctx, afterChange, e.action.ID)
		}
		return place, err
	})
	done := e.done
	done.Place = place
	return done, err
}

// expire gives up an action that waited too long for a person.
func (a *Agent) expire(ctx context.Context, j *worker.Job[job.ActionPayload]) (any, error) {
	return nil, j.Commit(ctx, nil, func(b *queue.Batch) { a.store.RecordExpired(b, j.Payload.ActionID) })
}

// The points of an action at which tests stop it as a crash would.
const (
	beforeIntent = "before the intent"
	afterIntent  = "after the intent"
	afterChange  = "after the change"
	beforeCommit = "before the record"
)

func (a *Agent) reach(ctx context.Context, point, actionID string) error {
	if a.crash == nil {
		return nil
	}
	return a.crash(ctx, point, actionID)
}
