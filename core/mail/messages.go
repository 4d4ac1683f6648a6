package mail

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"

	"github.com/postroom/postroom/core/job"
	"github.com/postroom/postroom/core/libsql"
	"github.com/postroom/postroom/core/queue"
)

// chunkSize is how the bytes of a posted message travel.
const chunkSize = 1 << 20

// IngestKey is the idempotency key of a message's ingest: however often the
// message is found or posted, it is taken in once.
func IngestKey(accountID, unique string) string { return accountID + ":" + unique }

// PostMessage stores a raw message with the job that takes it in, in one
// commit. The same bytes again are a duplicate, for ever.
func (s *Store) PostMessage(ctx context.Context, accountID string, raw []byte) (queue.Enqueued, error) {
	switch {
	case len(raw) == 0:
		return queue.Enqueued{}, invalid("body", "is empty: it must be a message")
	case len(raw) > MaxMessage:
		return queue.Enqueued{}, ErrTooLarge
	}
	account, err := s.Account(ctx, accountID)
	if err != nil {
		return queue.Enqueued{}, err
	}
	cfg, err := account.Maildir()
	if err != nil {
		return queue.Enqueued{}, err
	}
	sum := sha256.Sum256(raw)
	unique := "sha256-" + hex.EncodeToString(sum[:])
	key := IngestKey(accountID, unique)
	if held, found, err := s.keyHolder(ctx, key); err != nil || found {
		return held, err
	}
	b := s.q.NewBatch(ctx)
	id, place := b.EnqueueAsking(job.New{
		Type: job.MessageIngest, Queue: cfg.Queue, Key: key, LimitKey: accountID,
		Payload: job.Payload(job.IngestPayload{AccountID: accountID, Unique: unique, Posted: true}),
	})
	for n := 0; n*chunkSize < len(raw); n++ {
		b.Exec(sqlInsertChunk, id, n, raw[n*chunkSize:min((n+1)*chunkSize, len(raw))])
	}
	res, err := s.q.Write(ctx, b)
	if err != nil {
		return queue.Enqueued{}, fmt.Errorf("post message: %w", err)
	}
	return queue.Answer(res[place]), nil
}

// keyHolder spares a duplicate the transport of its bytes.
func (s *Store) keyHolder(ctx context.Context, key string) (queue.Enqueued, bool, error) {
	res, err := s.db.Read(ctx, libsql.Query(sqlKeyHolder, job.MessageIngest, key))
	if err != nil {
		return queue.Enqueued{}, false, fmt.Errorf("post message: %w", err)
	}
	if len(res[0].Rows) == 0 {
		return queue.Enqueued{}, false, nil
	}
	r := res[0].Rows[0]
	return queue.Enqueued{ID: r.Str(0), Duplicate: true, Pruned: r.Bool(1)}, true, nil
}

// PostedBytes puts a posted message together again; nil when its bytes are no
// longer stored.
func (s *Store) PostedBytes(ctx context.Context, jobID string) ([]byte, error) {
	var raw []byte
	for n := 0; ; n++ {
		res, err := s.db.Read(ctx, libsql.Query(sqlChunk, jobID, n))
		if err != nil {
			return nil, fmt.Errorf("posted message: %w", err)
		}
		if len(res[0].Rows) == 0 {
			return raw, nil
		}
		raw = append(raw, res[0].Rows[0].Bytes(0)...)
	}
}

// Unknown keeps, of the unique names given, those whose ingest was never
// asked for.
func (s *Store) Unknown(ctx context.Context, accountID string, uniques []string) ([]string, error) {
	keys := make([]string, len(uniques))
	for i, u := range uniques {
		keys[i] = IngestKey(accountID, u)
	}
	res, err := s.db.Read(ctx, libsql.Query(sqlUnknown, string(job.Payload(keys))))
	if err != nil {
		return nil, fmt.Errorf("look messages up: %w", err)
	}
	out := make([]string, len(res[0].Rows))
	for i, r := range res[0].Rows {
		out[i] = uniques[r.Int(0)]
	}
	return out, nil
}

// Message returns a message with its text, decisions and actions.
func (s *Store) Message(ctx context.Context, id string) (*MessageDetail, error) {
	res, err := s.db.Read(ctx, libsql.Query(sqlMessage, id), libsql.Query(sqlDecisions, id), libsql.Query(sqlActionsOf, id))
	if err != nil {
		return nil, fmt.Errorf("get message: %w", err)
	}
	if len(res[0].Rows) == 0 {
		return nil, fmt.Errorf("message %s: %w", id, ErrNotFound)
	}
	r := res[0].Rows[0]
	d := &MessageDetail{
		Message: messageRow(r), Headers: r.Bytes(24), BodyPlain: textPtr(r, 25), BodyHTML: textPtr(r, 26),
		Decisions: make([]Decision, len(res[1].Rows)), Actions: make([]Action, len(res[2].Rows)),
	}
	for i, r := range res[1].Rows {
		d.Decisions[i] = Decision{
			ID: r.Str(0), AccountID: r.Str(1), MessageID: r.Str(2), Source: r.Str(3), Decision: r.Bytes(4),
			ActionType: textPtr(r, 5), NeedsApproval: r.Bool(7), Rationale: textPtr(r, 8), RulesVersion: r.Int(9),
			Telemetry: r.Bytes(10), CreatedAt: job.Time(r.Int(11)), UpdatedAt: job.Time(r.Int(12)),
		}
		if !r.Null(6) {
			c := r.Float(6)
			d.Decisions[i].Confidence = &c
		}
	}
	for i, r := range res[2].Rows {
		d.Actions[i] = readAction(r)
	}
	return d, nil
}

func messageRow(r libsql.Row) Message {
	m := Message{
		ID: r.Str(0), AccountID: r.Str(1), ThreadID: r.Str(2), ProviderMessageID: r.Str(3), RFC822MessageID: textPtr(r, 4),
		FromEmail: textPtr(r, 5), FromName: textPtr(r, 6), To: r.Bytes(7), Cc: r.Bytes(8), Bcc: r.Bytes(9),
		Subject: textPtr(r, 10), Snippet: textPtr(r, 11), ReceivedAt: timePtr(r, 12), InternalDate: timePtr(r, 13),
		Labels: r.Bytes(14), SizeBytes: r.Int(15), ContentSHA256: r.Str(16), Raw: r.Bytes(17),
		CreatedAt: job.Time(r.Int(18)), UpdatedAt: job.Time(r.Int(19)), Automatic: textPtr(r, 22),
	}
	if !r.Null(20) {
		m.Decision = &MessageDecision{ActionType: r.Str(20), RuleName: textPtr(r, 21), ActionStatus: textPtr(r, 23)}
	}
	return m
}
