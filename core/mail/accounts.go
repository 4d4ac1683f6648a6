package mail

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"unicode/utf8"

	"github.com/postroom/postroom/core/job"
	"github.com/postroom/postroom/core/libsql"
	"github.com/postroom/postroom/core/queue"
)

// NewAccount is an account to be made.
type NewAccount struct {
	Provider, Email, DisplayName string
	Config                       json.RawMessage
}

// CreateAccount stores an account together with the job that syncs it.
func (s *Store) CreateAccount(ctx context.Context, n NewAccount) (*Account, error) {
	cfg, err := n.check()
	if err != nil {
		return nil, err
	}
	id := s.q.NewID()
	b := s.q.NewBatch(ctx)
	b.Exec(sqlInsertAccount, id, n.Provider, n.Email, blob(n.DisplayName), string(job.Payload(cfg)))
	b.Enqueue(SyncJob(id, cfg))
	if _, err := s.q.Write(ctx, b); err != nil {
		if libsql.ClassOf(err) == libsql.Constraint && strings.Contains(err.Error(), "accounts.email") {
			return nil, ErrEmailInUse
		}
		return nil, fmt.Errorf("create account: %w", err)
	}
	return s.Account(ctx, id)
}

// SyncJob is the one job that keeps an account in sync.
func SyncJob(accountID string, cfg MaildirConfig) job.New {
	return job.New{
		Type: job.AccountSync, Queue: cfg.Queue, Key: accountID, LimitKey: accountID,
		Payload: job.Payload(job.SyncPayload{AccountID: accountID}),
	}
}

func (n *NewAccount) check() (MaildirConfig, error) {
	var cfg MaildirConfig
	switch n.Provider {
	case "maildir":
	case "imap", "jmap", "gmail":
		return cfg, invalid("provider", "is not supported yet by this version: only \"maildir\" is")
	case "":
		return cfg, invalid("provider", "is required: \"maildir\"")
	default:
		return cfg, invalid("provider", "is unknown: only \"maildir\" is supported by this version")
	}
	if at := strings.LastIndexByte(n.Email, '@'); at < 1 || at == len(n.Email)-1 || strings.ContainsAny(n.Email, " <>,") {
		return cfg, invalid("email", "must be an address such as me@example.com")
	}
	if err := job.CheckText("email", n.Email, 320); err != nil {
		return cfg, err
	}
	if len(n.DisplayName) > 1000 || !utf8.ValidString(n.DisplayName) {
		return cfg, invalid("display_name", "must be valid UTF-8 of at most 1000 bytes")
	}
	if len(n.Config) == 0 {
		return cfg, invalid("config", `is required: {"path": "/var/mail/me"}`)
	}
	if err := job.CheckJSON("config", n.Config); err != nil {
		return cfg, err
	}
	dec := json.NewDecoder(bytes.NewReader(n.Config))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&cfg); err != nil {
		return cfg, invalid("config", `must be an object with "path" and, if wanted, "queue"`)
	}
	if !filepath.IsAbs(cfg.Path) {
		return cfg, invalid("config.path", "must be an absolute path: it is opened by the runner, wherever that was started")
	}
	if err := job.CheckText("config.path", cfg.Path, 4096); err != nil {
		return cfg, err
	}
	if cfg.Queue == "" {
		cfg.Queue = job.DefaultQueue
	}
	return cfg, job.CheckText("config.queue", cfg.Queue, job.MaxName)
}

// Maildir reads the account's config.
func (a *Account) Maildir() (MaildirConfig, error) {
	var cfg MaildirConfig
	if err := json.Unmarshal(a.Config, &cfg); err != nil || cfg.Path == "" {
		return cfg, fmt.Errorf("account %s: its config names no path", a.ID)
	}
	if cfg.Queue == "" {
		cfg.Queue = job.DefaultQueue
	}
	return cfg, nil
}

// Account returns one account.
func (s *Store) Account(ctx context.Context, id string) (*Account, error) {
	res, err := s.db.Read(ctx, libsql.Query(sqlAccount, id))
	if err != nil {
		return nil, fmt.Errorf("get account: %w", err)
	}
	if len(res[0].Rows) == 0 {
		return nil, fmt.Errorf("account %s: %w", id, ErrNotFound)
	}
	a := accountRow(res[0].Rows[0])
	return &a, nil
}

// Accounts lists accounts and returns the cursor of the next page.
func (s *Store) Accounts(ctx context.Context, p PageOf) ([]Account, string, error) {
	below, err := p.below()
	if err != nil {
		return nil, "", err
	}
	res, err := s.db.Read(ctx, libsql.Query(sqlAccounts, below, p.Limit+1))
	if err != nil {
		return nil, "", fmt.Errorf("list accounts: %w", err)
	}
	out := make([]Account, len(res[0].Rows))
	for i, r := range res[0].Rows {
		out[i] = accountRow(r)
	}
	out, next := page(out, p.Limit, func(a Account) string { return a.ID })
	return out, next, nil
}

func accountRow(r libsql.Row) Account {
	return Account{
		ID: r.Str(0), Provider: r.Str(1), Email: r.Str(2), DisplayName: textPtr(r, 3),
		Config: r.Bytes(4), State: r.Bytes(5), CreatedAt: job.Time(r.Int(6)), UpdatedAt: job.Time(r.Int(7)), Paused: r.Bool(8),
	}
}

// Unsynced lists accounts without a job that keeps them in sync: it has failed,
// or somebody canceled it.
func (s *Store) Unsynced(ctx context.Context) ([]Account, error) {
	res, err := s.db.Read(ctx, libsql.Query(sqlUnsynced))
	if err != nil {
		return nil, fmt.Errorf("list accounts: %w", err)
	}
	out := make([]Account, len(res[0].Rows))
	for i, r := range res[0].Rows {
		out[i] = accountRow(r)
	}
	return out, nil
}

// RecordAccountState merges fields into the account's state.
func (s *Store) RecordAccountState(b *queue.Batch, id string, fields map[string]any) {
	b.Exec(sqlAccountState, string(job.Payload(fields)), id)
}

// SetAccountState merges fields into the account's state at once.
func (s *Store) SetAccountState(ctx context.Context, id string, fields map[string]any) error {
	b := s.q.NewBatch(ctx)
	s.RecordAccountState(b, id, fields)
	if _, err := s.q.Write(ctx, b); err != nil {
		return fmt.Errorf("account %s: store its state: %w", id, err)
	}
	return nil
}
