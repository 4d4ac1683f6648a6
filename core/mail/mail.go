// Package mail stores the mail side: accounts, messages, decisions, actions
// and the rules that decide. The handlers that do the work are in
// core/mail/agent; reading mail and judging it, without a database, is in
// core/mail/maildir, message, rules and action. It may import those, core/job,
// core/libsql, core/queue and OpenTelemetry's trace API.
package mail

import (
	"encoding/json"
	"errors"
	"strings"

	"github.com/postroom/postroom/core/job"
	"github.com/postroom/postroom/core/libsql"
	"github.com/postroom/postroom/core/mail/action"
	"github.com/postroom/postroom/core/queue"
)

// MaxMessage is the largest message that is taken in.
const MaxMessage = 25 << 20

// Errors that callers act on.
var (
	ErrNotFound   = errors.New("not found")
	ErrEmailInUse = errors.New("another account has this e-mail address")
	ErrTooLarge   = errors.New("the message is larger than 25 MiB")
	// ErrInvalidState: the action's status does not allow what was asked.
	ErrInvalidState = errors.New("the action's status does not allow this")
	// ErrNotUndoable: the action has no inverse.
	ErrNotUndoable = errors.New("the action cannot be taken back")
)

// Store reads and writes the mail side of one database.
type Store struct {
	db     libsql.DB
	q      *queue.Queue
	policy Policy
	judge  judge
}

// NewStore returns a store; what it writes enqueues jobs on q, and what policy
// says so waits for a person.
func NewStore(db libsql.DB, q *queue.Queue, policy Policy) *Store {
	return &Store{db: db, q: q, policy: policy}
}

// Account is a mailbox.
type Account struct {
	ID          string          `json:"id"`
	Provider    string          `json:"provider"`
	Email       string          `json:"email"`
	DisplayName *string         `json:"display_name"`
	Config      json.RawMessage `json:"config"`
	State       json.RawMessage `json:"state"`
	Paused      bool            `json:"paused"` // nothing is done for it
	CreatedAt   job.Time        `json:"created_at"`
	UpdatedAt   job.Time        `json:"updated_at"`
}

// MaildirConfig is the config of a maildir account.
type MaildirConfig struct {
	Path  string `json:"path"`            // absolute, as the runner of the queue sees it
	Queue string `json:"queue,omitempty"` // whose runners see the path; "default" if empty
}

// Message is a stored message without its text.
type Message struct {
	ID                string           `json:"id"`
	AccountID         string           `json:"account_id"`
	ThreadID          string           `json:"thread_id"`
	ProviderMessageID string           `json:"provider_message_id"`
	RFC822MessageID   *string          `json:"rfc822_message_id"`
	FromEmail         *string          `json:"from_email"`
	FromName          *string          `json:"from_name"`
	To                json.RawMessage  `json:"to"`
	Cc                json.RawMessage  `json:"cc"`
	Bcc               json.RawMessage  `json:"bcc"`
	Subject           *string          `json:"subject"`
	Snippet           *string          `json:"snippet"`
	ReceivedAt        *job.Time        `json:"received_at"`
	InternalDate      *job.Time        `json:"internal_date"`
	Labels            json.RawMessage  `json:"labels"`
	Automatic         *string          `json:"automatic" enum:"bounce,auto_reply,list,bulk"` // null for mail that a person may have written
	SizeBytes         int64            `json:"size_bytes"`
	ContentSHA256     string           `json:"content_sha256"`
	Raw               json.RawMessage  `json:"raw"`
	CreatedAt         job.Time         `json:"created_at"`
	UpdatedAt         job.Time         `json:"updated_at"`
	Decision          *MessageDecision `json:"decision"`
}

// MessageDecision is the newest decision on a message, in a list.
type MessageDecision struct {
	ActionType   string  `json:"action_type"`
	RuleName     *string `json:"rule_name"`
	ActionStatus *string `json:"action_status"` // null where there is nothing to do
}

// MessageDetail is a message with its text and what was decided and done.
type MessageDetail struct {
	Message
	Headers   json.RawMessage `json:"headers"`
	BodyPlain *string         `json:"body_plain"`
	BodyHTML  *string         `json:"body_html"`
	Decisions []Decision      `json:"decisions"`
	Actions   []Action        `json:"actions"`
}

// Decision is what a source decided about a message under one version of the
// rules.
type Decision struct {
	ID            string          `json:"id"`
	AccountID     string          `json:"account_id"`
	MessageID     string          `json:"message_id"`
	Source        string          `json:"source"`
	Decision      json.RawMessage `json:"decision"`
	ActionType    *string         `json:"action_type"`
	Confidence    *float64        `json:"confidence"`
	NeedsApproval bool            `json:"needs_approval"`
	Rationale     *string         `json:"rationale"`
	RulesVersion  int64           `json:"rules_version"`
	Telemetry     json.RawMessage `json:"telemetry"`
	CreatedAt     job.Time        `json:"created_at"`
	UpdatedAt     job.Time        `json:"updated_at"`
}

// Action is a change to a message: wanted, under way or done.
type Action struct {
	ID                string          `json:"id"`
	AccountID         string          `json:"account_id"`
	MessageID         string          `json:"message_id"`
	DecisionID        *string         `json:"decision_id"`
	ActionType        string          `json:"action_type"`
	Parameters        json.RawMessage `json:"parameters"`
	Status            action.Status   `json:"status" enum:"queued,executing,completed,failed,canceled,rejected,approved_pending"`
	ErrorMessage      *string         `json:"error_message"`
	NotBefore         *job.Time       `json:"not_before"` // when it is carried out at the earliest
	ApprovalExpiresAt *job.Time       `json:"approval_expires_at"`
	ApprovedAt        *job.Time       `json:"approved_at"`
	ExecutedAt        *job.Time       `json:"executed_at"`
	UndoHint          json.RawMessage `json:"undo_hint"`
	// Undoable: once it is completed it can be taken back, and was not yet.
	Undoable  bool     `json:"undoable"`
	UndoneBy  *string  `json:"undone_by"` // the action that takes it back, unless that failed
	TraceID   *string  `json:"trace_id"`
	CreatedAt job.Time `json:"created_at"`
	UpdatedAt job.Time `json:"updated_at"`
}

// Rule is a deterministic rule.
type Rule struct {
	ID               string          `json:"id"`
	Name             string          `json:"name"`
	Description      *string         `json:"description"`
	Scope            string          `json:"scope"`
	ScopeRef         *string         `json:"scope_ref"`
	Priority         int64           `json:"priority"`
	Enabled          bool            `json:"enabled"`
	DisabledReason   *string         `json:"disabled_reason"`
	Conditions       json.RawMessage `json:"conditions"`
	ActionType       string          `json:"action_type"`
	ActionParameters json.RawMessage `json:"action_parameters"`
	SafeMode         string          `json:"safe_mode"`
	CreatedAt        job.Time        `json:"created_at"`
	UpdatedAt        job.Time        `json:"updated_at"`
}

// PageOf asks for a part of a list, newest first.
type PageOf struct {
	Limit  int
	Cursor string // where the last page ended; "" for the newest
}

// below is the id the page starts under.
func (p PageOf) below() (any, error) {
	if p.Cursor == "" {
		return nil, nil
	}
	if !job.IsUUID(p.Cursor) {
		return nil, &job.Invalid{Field: "cursor", Code: "invalid", Reason: "is not one that a list has returned"}
	}
	return p.Cursor, nil
}

// page cuts the row that was read beyond the limit off and returns the cursor
// of the next page.
func page[T any](rows []T, limit int, id func(T) string) ([]T, string) {
	if len(rows) <= limit {
		return rows, ""
	}
	return rows[:limit], id(rows[limit-1])
}

func invalid(field, reason string) error {
	return &job.Invalid{Field: field, Code: "invalid", Reason: reason}
}

// blob is free text on its way into a BLOB column; "" is NULL.
func blob(s string) any {
	if s == "" {
		return nil
	}
	return []byte(s)
}

// null is text on its way into a TEXT column; "" is NULL.
func null(s string) any {
	if s == "" {
		return nil
	}
	return s
}

// textPtr reads a BLOB as UTF-8, with U+FFFD for what is not.
func textPtr(r libsql.Row, i int) *string {
	if r.Null(i) {
		return nil
	}
	s := strings.ToValidUTF8(r.Str(i), "\uFFFD")
	return &s
}

func timePtr(r libsql.Row, i int) *job.Time {
	if v := r.IntPtr(i); v != nil {
		t := job.Time(*v)
		return &t
	}
	return nil
}
