package mail

import (
	"context"
	"errors"
	"fmt"

	"github.com/postroom/postroom/core/job"
	"github.com/postroom/postroom/core/libsql"
	"github.com/postroom/postroom/core/queue"
)

// ApplyRules starts the task that applies the enabled rules to the mail that
// is there: to each message that the present version has not judged. It is one
// at a time for an account, and one for all with "".
func (s *Store) ApplyRules(ctx context.Context, accountID string) (t *Task, repeated bool, err error) {
	n := job.New{Type: job.RulesApply, Key: "all", Payload: job.Payload(job.ApplyPayload{AccountID: accountID})}
	if accountID != "" {
		if n.Queue, err = s.queueOf(ctx, accountID); err != nil {
			return nil, false, err
		}
		n.Key = accountID
	}
	return s.startTask(ctx, accountID, n)
}

// ApplyBatch is how many messages are judged between two commits.
const ApplyBatch = 100

// Applied is a batch of messages that were judged and are still to be recorded.
type Applied struct {
	Last     string // the batch's last message, or the last of all
	Looked   int64
	Verdicts []MessageVerdict
	Version  int64
	Finished bool
}

// ApplyEnd is the last message that the task looks at, and how many there are.
func (s *Store) ApplyEnd(ctx context.Context, accountID string) (last string, total int64, err error) {
	res, err := s.db.Read(ctx, libsql.Query(sqlMessagesUpTo, null(accountID)))
	if err != nil {
		return "", 0, fmt.Errorf("count messages: %w", err)
	}
	r := res[0].Rows[0]
	return r.Str(1), r.Int(0), nil
}

// ApplyNext judges the next messages after a place, up to the last.
func (s *Store) ApplyNext(ctx context.Context, accountID, after, last string) (*Applied, error) {
	book, err := s.Book(ctx)
	if err != nil {
		return nil, err
	}
	res, err := s.db.Read(ctx, libsql.Query(sqlUndecided, after, last, null(accountID), book.Version, ApplyBatch))
	if err != nil {
		return nil, fmt.Errorf("read messages: %w", err)
	}
	out := &Applied{Last: last, Version: book.Version, Finished: len(res[0].Rows) < ApplyBatch}
	if !out.Finished {
		out.Last = res[0].Rows[len(res[0].Rows)-1].Str(0)
	}
	queues := map[string]string{}
	for _, r := range res[0].Rows {
		m, err := s.judged(ctx, r.Str(0))
		if errors.Is(err, ErrNotFound) {
			continue // deleted meanwhile
		}
		if err != nil {
			return nil, err
		}
		if _, known := queues[m.AccountID]; !known {
			if queues[m.AccountID], err = s.queueOf(ctx, m.AccountID); err != nil {
				return nil, err
			}
		}
		out.Verdicts = append(out.Verdicts, MessageVerdict{
			MessageID: m.ID, AccountID: m.AccountID, Queue: queues[m.AccountID], Verdict: book.verdict(m.AccountID, &m.input),
		})
	}
	res, err = s.db.Read(ctx, libsql.Query(sqlMessagesTo, out.Last, null(accountID)))
	if err != nil {
		return nil, fmt.Errorf("count messages: %w", err)
	}
	out.Looked = res[0].Rows[0].Int(0)
	return out, nil
}

// RecordApplied stores a batch's decisions and actions. Its guards come first;
// they fail the batch when a message was decided meanwhile.
func (s *Store) RecordApplied(ctx context.Context, b *queue.Batch, a *Applied) (actions int64) {
	for _, v := range a.Verdicts {
		s.GuardUndecided(b, v.MessageID, v.RulesVersion)
	}
	return s.RecordVerdicts(ctx, b, a.Verdicts)
}
