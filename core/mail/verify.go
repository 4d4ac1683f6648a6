package mail

import (
	"context"
	"fmt"

	"github.com/postroom/postroom/core/libsql"
	"github.com/postroom/postroom/core/queue"
)

// Report is the result of a verification of queue and mail.
type Report struct {
	queue.Report
	Messages int64    `json:"messages"`
	Files    int64    `json:"files"`   // that were compared
	Skipped  []string `json:"skipped"` // what was not compared, and why
}

// Verify checks the invariants of the database, of the queue's tables and of
// the mail side's. The files are the agent's to compare.
func (s *Store) Verify(ctx context.Context) (*Report, error) {
	rep, err := s.q.Verify(ctx, verifyRules...)
	if err != nil {
		return nil, err
	}
	res, err := s.db.Read(ctx, libsql.Query(sqlCountMessages))
	if err != nil {
		return nil, fmt.Errorf("verify: %w", err)
	}
	return &Report{Report: *rep, Messages: res[0].Rows[0].Int(0), Skipped: []string{}}, nil
}

// StoredFile is what is stored about a message's file.
type StoredFile struct {
	NameHash int64
	ID       string
	Unique   string
	SHA256   string
	Place    Place
}

// StoredFiles reads what is stored about the files of a directory, in the order
// of their names' hashes, from after one of them on.
func (s *Store) StoredFiles(ctx context.Context, accountID string, dirHash, after int64, limit int) ([]StoredFile, error) {
	res, err := s.db.Read(ctx, libsql.Query(sqlStoredFiles, accountID, dirHash, after, limit))
	if err != nil {
		return nil, fmt.Errorf("read files: %w", err)
	}
	out := make([]StoredFile, len(res[0].Rows))
	for i, r := range res[0].Rows {
		out[i] = StoredFile{NameHash: r.Int(0), ID: r.Str(1), Unique: r.Str(2), SHA256: r.Str(3), Place: Place{
			Folder: r.Str(4), Flags: r.Str(5), New: r.Bool(6), Gone: r.Bool(7),
		}}
	}
	return out, nil
}
