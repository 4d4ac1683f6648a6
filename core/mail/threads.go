package mail

import (
	"context"
	"fmt"
	"unicode"

	"github.com/postroom/postroom/core/job"
	"github.com/postroom/postroom/core/libsql"
)

// Thread is messages that answer each other.
type Thread struct {
	ID               string    `json:"id"`
	AccountID        string    `json:"account_id"`
	ProviderThreadID string    `json:"provider_thread_id"`
	Subject          *string   `json:"subject"` // of its first message
	Snippet          *string   `json:"snippet"` // of its last
	LastMessageAt    *job.Time `json:"last_message_at"`
	MessageCount     int64     `json:"message_count"`
	CreatedAt        job.Time  `json:"created_at"`
	UpdatedAt        job.Time  `json:"updated_at"`
}

// Threads lists an account's threads, the one with the newest message first.
func (s *Store) Threads(ctx context.Context, accountID string, p PageOf) ([]Thread, string, error) {
	below, err := p.below()
	if err != nil {
		return nil, "", err
	}
	if _, err := s.Account(ctx, accountID); err != nil {
		return nil, "", err
	}
	res, err := s.db.Read(ctx, libsql.Query(sqlThreads, accountID, below, p.Limit+1))
	if err != nil {
		return nil, "", fmt.Errorf("list threads: %w", err)
	}
	out := make([]Thread, len(res[0].Rows))
	for i, r := range res[0].Rows {
		out[i] = threadRow(r)
	}
	out, next := page(out, p.Limit, func(t Thread) string { return t.ID })
	return out, next, nil
}

// Thread returns one thread.
func (s *Store) Thread(ctx context.Context, id string) (*Thread, error) {
	res, err := s.db.Read(ctx, libsql.Query(sqlThread, id))
	if err != nil {
		return nil, fmt.Errorf("get thread: %w", err)
	}
	if len(res[0].Rows) == 0 {
		return nil, fmt.Errorf("thread %s: %w", id, ErrNotFound)
	}
	t := threadRow(res[0].Rows[0])
	return &t, nil
}

func threadRow(r libsql.Row) Thread {
	return Thread{
		ID: r.Str(0), AccountID: r.Str(1), ProviderThreadID: r.Str(2), Subject: textPtr(r, 3), Snippet: textPtr(r, 4),
		LastMessageAt: timePtr(r, 5), MessageCount: r.Int(6), CreatedAt: job.Time(r.Int(7)), UpdatedAt: job.Time(r.Int(8)),
	}
}

// isWordRune tells what the index of words keeps: letters and numbers of any
// script.
func isWordRune(r rune) bool { return unicode.IsLetter(r) || unicode.IsNumber(r) }
