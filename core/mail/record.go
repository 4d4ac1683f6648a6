package mail

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/postroom/postroom/core/job"
	"github.com/postroom/postroom/core/libsql"
	"github.com/postroom/postroom/core/mail/message"
	"github.com/postroom/postroom/core/queue"
)

// What the handlers write. Each function records statements into the batch
// that also completes the handler's job.

// Place is where a message's original lies.
type Place struct {
	Folder string `json:"folder"` // "" is the INBOX
	Flags  string `json:"flags"`
	New    bool   `json:"new"`
}

// Raw is a message's raw_json: its place and what the parser found beside the
// columns.
type Raw struct {
	Place
	ListID        string               `json:"list_id,omitempty"`
	HasAttachment bool                 `json:"has_attachment"`
	Attachments   []message.Attachment `json:"attachments"`
	Notes         []string             `json:"notes"` // what could not be read
}

// MessageID returns the id of a stored message, "" when it is not stored.
func (s *Store) MessageID(ctx context.Context, accountID, unique string) (string, error) {
	res, err := s.db.Read(ctx, libsql.Query(sqlMessageID, accountID, unique))
	if err != nil || len(res[0].Rows) == 0 {
		return "", err
	}
	return res[0].Rows[0].Str(0), nil
}

// RecordMessage stores a message, its thread and the job that classifies it.
func (s *Store) RecordMessage(b *queue.Batch, id, accountID, unique, queueName string, m *message.Message, p Place, fileTime time.Time) {
	thread := threadKey(m, unique)
	var received, internal any
	if !fileTime.IsZero() {
		internal = fileTime.UnixMilli()
		received = internal
	}
	if !m.Date.IsZero() {
		received = m.Date.UnixMilli()
	}
	subject := blob(m.Subject)
	b.Exec(sqlUpsertThread, s.q.NewID(), accountID, thread, subject, blob(m.Snippet), received)
	raw := Raw{
		Place: p, ListID: m.ListID, HasAttachment: m.HasAttachment,
		Attachments: append([]message.Attachment{}, m.Attachments...), Notes: append([]string{}, m.Notes...),
	}
	b.Exec(sqlInsertMessage, id, accountID, thread, unique, null(m.MessageID), null(m.FromEmail), blob(m.FromName),
		addresses(m.To), addresses(m.Cc), addresses(m.Bcc), subject, blob(m.Snippet), received, internal,
		string(job.Payload(m.Headers)), m.Size, hex.EncodeToString(m.SHA256[:]), string(job.Payload(raw)),
		m.BodyPlain, m.BodyHTML)
	b.Enqueue(s.classifyJob(id, accountID, queueName))
}

func (s *Store) classifyJob(id, accountID, queueName string) job.New {
	return job.New{
		Type: job.MessageClassify, Queue: queueName, Key: id, LimitKey: accountID,
		Payload: job.Payload(job.ClassifyPayload{MessageID: id}),
	}
}

func addresses(list []message.Address) string {
	if list == nil {
		list = []message.Address{}
	}
	return string(job.Payload(list))
}

// threadKey is what ties messages together: the first of the references, the
// message answered, or the message itself.
func threadKey(m *message.Message, unique string) string {
	key := unique
	switch {
	case len(m.References) > 0:
		key = m.References[0]
	case len(m.InReplyTo) > 0:
		key = m.InReplyTo[0]
	case m.MessageID != "":
		key = m.MessageID
	}
	if len(key) > 500 { // a hostile header need not fill the index
		sum := sha256.Sum256([]byte(key))
		key = "sha256-" + hex.EncodeToString(sum[:])
	}
	return key
}

// RecordDelivered deletes the bytes of a posted message: they lie in the
// Maildir now.
func (s *Store) RecordDelivered(b *queue.Batch, jobID string) { b.Exec(sqlDeleteChunks, jobID) }

// Decided says whether the message was decided under that version of the
// rules.
func (s *Store) Decided(ctx context.Context, messageID string, rulesVersion int64) (bool, error) {
	res, err := s.db.Read(ctx, libsql.Query(sqlDecided, messageID, rulesVersion))
	if err != nil {
		return false, fmt.Errorf("read decisions: %w", err)
	}
	return len(res[0].Rows) > 0, nil
}

// Verdict is what the rules say about a message.
type Verdict struct {
	RulesVersion int64           `json:"rules_version"`
	RuleID       string          `json:"rule_id"`   // "" when no rule matched
	RuleName     string          `json:"rule_name"` //
	ActionType   string          `json:"action_type"`
	Parameters   json.RawMessage `json:"parameters"`
	Broken       []BrokenRule    `json:"broken,omitempty"` // rules that no longer compile
}

// BrokenRule is a rule to be disabled, and why.
type BrokenRule struct {
	ID     string `json:"id"`
	Reason string `json:"reason"`
}

// RecordVerdict stores the decision, the action it asks for and the job that
// carries it out, and disables broken rules.
func (s *Store) RecordVerdict(b *queue.Batch, m *MessageDetail, v Verdict, queueName, traceID string) {
	decision := map[string]any{"rule_id": nil, "rule_name": nil, "action_type": v.ActionType, "parameters": v.Parameters}
	rationale := "no rule matched"
	if v.RuleID != "" {
		decision["rule_id"], decision["rule_name"] = v.RuleID, v.RuleName
		rationale = "matched rule " + v.RuleName
	}
	decisionID := s.q.NewID()
	b.Exec(sqlInsertDecision, decisionID, m.AccountID, m.ID, string(job.Payload(decision)), v.ActionType, 1.0, []byte(rationale), v.RulesVersion)
	if v.ActionType != "none" {
		actionID := s.q.NewID()
		b.Exec(sqlInsertAction, actionID, m.AccountID, m.ID, decisionID, v.ActionType, string(v.Parameters), null(traceID))
		b.Enqueue(job.New{
			Type: job.ActionExecute, Queue: queueName, Key: actionID, LimitKey: m.AccountID,
			Payload: job.Payload(job.ActionPayload{ActionID: actionID}),
		})
	}
	for _, broken := range v.Broken {
		b.Exec(sqlDisableRule, []byte(broken.Reason), broken.ID)
	}
	if len(v.Broken) > 0 {
		b.Exec(sqlRaiseRulesVersion)
	}
}

// UndoHint is what an action needs to be found again after a crash and to be
// taken back: how things were before.
type UndoHint struct {
	Folder string          `json:"folder"`
	Flags  string          `json:"flags"`
	New    bool            `json:"new"`
	Labels json.RawMessage `json:"labels"`
}

// Hint reads the intent an executing action recorded; found is false before
// that.
func (a *Action) Hint() (h UndoHint, found bool, err error) {
	if a.Status == "queued" {
		return h, false, nil
	}
	if err := json.Unmarshal(a.UndoHint, &h); err != nil {
		return h, false, errors.New("the action's undo hint does not decode")
	}
	return h, true, nil
}

// RecordIntent marks an action as executing before anything is touched.
func (s *Store) RecordIntent(b *queue.Batch, actionID string, h UndoHint) {
	b.Exec(sqlActionExecuting, string(job.Payload(h)), actionID)
}

// RecordDone marks an action as completed and stores where the message is now.
func (s *Store) RecordDone(b *queue.Batch, a *Action, p Place, label string) {
	b.Exec(sqlMessagePlace, string(job.Payload(p)), a.MessageID)
	if label != "" {
		b.Exec(sqlAddLabel, label, a.MessageID)
	}
	b.Exec(sqlActionCompleted, a.ID)
}

// RecordFailed marks an action as failed for good.
func (s *Store) RecordFailed(b *queue.Batch, actionID, reason string) {
	b.Exec(sqlActionFailed, []byte(reason), actionID)
}
