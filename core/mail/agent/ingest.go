package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/postroom/postroom/core/job"
	"github.com/postroom/postroom/core/mail"
	"github.com/postroom/postroom/core/mail/maildir"
	"github.com/postroom/postroom/core/mail/message"
	"github.com/postroom/postroom/core/queue"
	"github.com/postroom/postroom/core/step"
	"github.com/postroom/postroom/core/telemetry"
	"github.com/postroom/postroom/core/worker"
)

// ingest takes one message in: a posted one is first delivered into the
// Maildir, then the file is read, parsed and stored, together with the job
// that classifies it.
func (a *Agent) ingest(ctx context.Context, j *worker.Job[job.IngestPayload]) (result any, err error) {
	p := j.Payload
	ctx, span := telemetry.EmailReceive(ctx, p.AccountID)
	defer func() { telemetry.End(span, err) }()

	// A mailbox that is away or full, and a file that nobody may read now, are
	// waited for: that spends no attempt.
	defer func() {
		if isOutage(err) {
			a.log.Warn().Ctx(ctx).Str("account_id", p.AccountID).Err(err).Msg("a message cannot be taken in now; trying again at the next interval")
			err = job.Snooze(a.cfg.SyncInterval)
		}
	}()
	acc, dir, err := a.mailbox(ctx, p.AccountID)
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
	stored, err := a.store.MessageID(ctx, p.AccountID, p.Unique)
	if err != nil || stored != "" {
		return map[string]any{"message_id": stored}, err
	}
	if p.Posted {
		if err := a.deliver(ctx, j, dir); err != nil {
			return nil, err
		}
	}
	raw, entry, err := dir.Read(maildir.Entry{Unique: p.Unique}, mail.MaxMessage)
	switch {
	case errors.Is(err, maildir.ErrGone):
		// Somebody deleted it between the listing and now: nothing to take in.
		return map[string]any{"message_id": nil, "note": "message_gone"}, nil
	case err != nil:
		if ctx.Err() != nil {
			return nil, err
		}
		werr := j.Write(ctx, func(b *queue.Batch) { a.store.RecordProblem(b, j.ID(), p, err.Error()) })
		if werr == nil && (errors.Is(err, maildir.ErrTooLarge) || errors.Is(err, maildir.ErrNotRegular)) {
			return nil, job.Fatal(err)
		}
		return nil, errors.Join(err, werr)
	}
	m := message.Parse(raw)
	id := a.q.NewID()
	arrived := []mail.Arrival{{ID: id, Message: m, File: fileOf(entry), Time: entry.Time}}
	return nil, a.store.StoreMessages(ctx, p.AccountID, cfg.Queue, arrived, func(record func(*queue.Batch)) error {
		return j.Commit(ctx, map[string]any{"message_id": id, "notes": len(m.Notes)}, func(b *queue.Batch) {
			record(b)
			a.store.RecordClassify(b, id, p.AccountID, cfg.Queue)
			if p.Posted {
				a.store.RecordDelivered(b, j.ID())
			}
		})
	})
}

// deliver writes a posted message into the Maildir, once: the name comes from
// the bytes, so a repeat finds the file that is there.
func (a *Agent) deliver(ctx context.Context, j *worker.Job[job.IngestPayload], dir *maildir.Dir) error {
	_, err := step.Run(ctx, "deliver", func(ctx context.Context) (map[string]int, error) {
		raw, err := a.store.PostedBytes(ctx, j.ID())
		if err != nil {
			return nil, err
		}
		if raw == nil {
			return nil, job.Fatal(errors.New("the posted bytes are no longer stored"))
		}
		deliver := dir.Deliver
		if j.Number() == 1 {
			deliver = dir.DeliverFresh // nobody can have delivered it before
		}
		if _, _, err := deliver(j.Payload.Unique, raw); err != nil {
			return nil, fmt.Errorf("deliver: %w", err)
		}
		return map[string]int{"bytes": len(raw)}, nil
	})
	return err
}

func fileTime(e maildir.Entry) time.Time {
	info, err := os.Lstat(e.Path)
	if err != nil {
		return time.Time{} // moved meanwhile; the Date header has to do
	}
	return info.ModTime()
}
