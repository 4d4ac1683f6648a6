package mail

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/postroom/postroom/core/job"
	"github.com/postroom/postroom/core/libsql"
	"github.com/postroom/postroom/core/mail/action"
	"github.com/postroom/postroom/core/mail/rules"
	"github.com/postroom/postroom/core/queue"
)

// ActionFilter narrows a list of actions; empty fields do not.
type ActionFilter struct{ Message, Status, Account string }

// Actions lists actions, newest first.
func (s *Store) Actions(ctx context.Context, f ActionFilter, p PageOf) ([]Action, string, error) {
	below, err := p.below()
	if err != nil {
		return nil, "", err
	}
	res, err := s.db.Read(ctx, libsql.Query(sqlActions, null(f.Message), null(f.Status), null(f.Account), below, p.Limit+1))
	if err != nil {
		return nil, "", fmt.Errorf("list actions: %w", err)
	}
	out := make([]Action, len(res[0].Rows))
	for i, r := range res[0].Rows {
		out[i] = readAction(r)
	}
	out, next := page(out, p.Limit, func(a Action) string { return a.ID })
	return out, next, nil
}

// Action returns one action.
func (s *Store) Action(ctx context.Context, id string) (*Action, error) {
	res, err := s.db.Read(ctx, libsql.Query(sqlAction, id))
	if err != nil {
		return nil, fmt.Errorf("get action: %w", err)
	}
	if len(res[0].Rows) == 0 {
		return nil, fmt.Errorf("action %s: %w", id, ErrNotFound)
	}
	a := readAction(res[0].Rows[0])
	return &a, nil
}

func readAction(r libsql.Row) Action {
	a := Action{
		ID: r.Str(0), AccountID: r.Str(1), MessageID: r.Str(2), DecisionID: textPtr(r, 3), ActionType: r.Str(4),
		Parameters: r.Bytes(5), Status: action.Status(r.Str(6)), ErrorMessage: textPtr(r, 7), ExecutedAt: timePtr(r, 8),
		UndoHint: r.Bytes(9), TraceID: textPtr(r, 10), CreatedAt: job.Time(r.Int(11)), UpdatedAt: job.Time(r.Int(12)),
		NotBefore: timePtr(r, 13), ApprovalExpiresAt: timePtr(r, 14), ApprovedAt: timePtr(r, 15), UndoneBy: textPtr(r, 16),
	}
	switch a.Status {
	case action.Failed, action.Canceled, action.Rejected:
	default:
		a.Undoable = a.UndoneBy == nil && a.hasInverse()
	}
	return a
}

// hasInverse says whether the action, once completed, can be taken back.
func (a *Action) hasInverse() bool {
	typ, _ := action.Lookup(a.ActionType)
	return typ.Undoable && a.SnoozeID() == "" // a wake comes when its time has passed
}

// Folders that actions put messages into.
const (
	FolderArchive = "Archive"
	FolderTrash   = "Trash"
	FolderSnoozed = "Snoozed"
)

// ActionParameters are the parameters of any type of action.
type ActionParameters struct {
	Folder   string `json:"folder,omitempty"`
	Label    string `json:"label,omitempty"`
	Until    string `json:"until,omitempty"`     // of a snooze: RFC 3339
	For      string `json:"for,omitempty"`       // of a snooze: a duration
	ActionID string `json:"action_id,omitempty"` // of an undo: what it takes back
	SnoozeID string `json:"snooze_id,omitempty"` // of a wake: the snooze that ends
}

// Decode reads the action's parameters.
func (a *Action) Decode() (p ActionParameters, err error) {
	if err := json.Unmarshal(a.Parameters, &p); err != nil {
		return p, errors.New("the action's parameters do not decode")
	}
	return p, nil
}

// SnoozeID is the snooze that this action ends; "" for all but a wake.
func (a *Action) SnoozeID() string {
	p, _ := a.Decode() // what does not decode is no wake
	return p.SnoozeID
}

// UndoHint is what an action needs to be found again after a crash and to be
// taken back: how things were before, written before anything is touched.
type UndoHint struct {
	Folder string          `json:"folder"` // where the message lay
	Name   string          `json:"name"`   // its file's name
	Flags  string          `json:"flags"`
	New    bool            `json:"new"`    // it lay in new/
	Target string          `json:"target"` // where a move puts it
	Back   string          `json:"back"`   // where the inverse of a move puts it
	Labels json.RawMessage `json:"labels"`
	Wakes  *job.Time       `json:"wakes,omitempty"` // when it would have woken
}

// Hint reads the intent an action recorded; found is false when it had not
// begun.
func (a *Action) Hint() (h UndoHint, found bool, err error) {
	if string(a.UndoHint) == "{}" {
		return h, false, nil
	}
	if err := json.Unmarshal(a.UndoHint, &h); err != nil {
		return h, false, errors.New("the action's undo hint does not decode")
	}
	return h, true, nil
}

// actionRow is an action to be stored with the job that belongs to it.
type actionRow struct {
	account, message, decision string
	typ                        string
	parameters                 json.RawMessage
	asks                       bool // it waits for approval
	notBefore                  time.Time
	delay                      time.Duration // or a time from now
	queue                      string
}

func (s *Store) recordAction(ctx context.Context, b *queue.Batch, a actionRow) (id string) {
	id = s.q.NewID()
	var traceID any
	if sc := trace.SpanContextFromContext(ctx); sc.HasTraceID() {
		traceID = sc.TraceID().String()
	}
	status := action.Queued
	var at, delay, expiry any
	if !a.notBefore.IsZero() {
		at = a.notBefore.UnixMilli()
	}
	if a.delay > 0 {
		delay = a.delay.Milliseconds()
	}
	if a.asks {
		status, expiry = action.ApprovedPending, s.policy.ApprovalExpiry.Milliseconds()
	}
	b.Exec(sqlInsertAction, id, a.account, a.message, null(a.decision), a.typ, string(a.parameters), string(status), at, delay, expiry, traceID)
	if a.asks {
		b.Enqueue(job.New{
			Type: job.ActionExpire, Queue: a.queue, Key: id, LimitKey: a.account, Delay: s.policy.ApprovalExpiry,
			Payload: job.Payload(job.ActionPayload{ActionID: id}),
		})
		return id
	}
	n := executeJob(id, a.account, a.queue)
	n.NotBefore, n.Delay = a.notBefore, a.delay
	b.Enqueue(n)
	return id
}

func executeJob(actionID, accountID, queueName string) job.New {
	return job.New{
		Type: job.ActionExecute, Queue: queueName, Key: actionID, LimitKey: accountID,
		Payload: job.Payload(job.ActionPayload{ActionID: actionID}),
	}
}

// CreateAction stores an action that somebody asks for. Dangerous ones wait for
// approval as those of rules do.
func (s *Store) CreateAction(ctx context.Context, messageID, actionType string, parameters json.RawMessage) (*Action, error) {
	if len(parameters) == 0 {
		parameters = json.RawMessage("{}")
	}
	if actionType == "none" {
		return nil, invalid("action_type", "none is a decision of rules: there is nothing to do")
	}
	if err := at("parameters", rules.ValidateAction(actionType, parameters)); err != nil {
		return nil, err
	}
	res, err := s.db.Read(ctx, libsql.Query(sqlMessageAccount, messageID))
	if err != nil {
		return nil, fmt.Errorf("create action: %w", err)
	}
	if len(res[0].Rows) == 0 {
		return nil, fmt.Errorf("message %s: %w", messageID, ErrNotFound)
	}
	accountID := res[0].Rows[0].Str(0)
	var p ActionParameters
	if err := json.Unmarshal(parameters, &p); err != nil {
		return nil, fmt.Errorf("create action: %w", err)
	}
	if until, err := time.Parse(time.RFC3339, p.Until); err == nil && until.UnixMilli() <= res[0].Rows[0].Int(1) {
		return nil, invalid("parameters.until", "lies in the past")
	}
	queueName, err := s.queueOf(ctx, accountID)
	if err != nil {
		return nil, err
	}
	b := s.q.NewBatch(ctx)
	id := s.recordAction(ctx, b, actionRow{
		account: accountID, message: messageID, typ: actionType, parameters: parameters,
		asks: s.policy.Asks(actionType, certain, ""), queue: queueName,
	})
	if _, err := s.q.Write(ctx, b); err != nil {
		return nil, fmt.Errorf("create action: %w", err)
	}
	return s.Action(ctx, id)
}

// queueOf is the queue whose runners see the account's mail.
func (s *Store) queueOf(ctx context.Context, accountID string) (string, error) {
	acc, err := s.Account(ctx, accountID)
	if err != nil {
		return "", err
	}
	cfg, err := acc.Maildir()
	return cfg.Queue, err
}

// Approve lets an action pass that waits for a person. One that was approved
// before is returned as it is.
func (s *Store) Approve(ctx context.Context, id string) (*Action, error) {
	a, err := s.Action(ctx, id)
	if err != nil {
		return nil, err
	}
	queueName, err := s.queueOf(ctx, a.AccountID)
	if err != nil {
		return nil, err
	}
	b := s.q.NewBatch(ctx)
	b.Guard(sqlGuardPending, id)
	b.Exec(sqlApprove, id)
	b.Enqueue(executeJob(id, a.AccountID, queueName))
	_, err = s.q.Write(ctx, b)
	if err != nil && libsql.GuardIndex(err) != 0 {
		return nil, fmt.Errorf("approve action %s: %w", id, err)
	}
	after, readErr := s.Action(ctx, id)
	if readErr != nil {
		return nil, readErr
	}
	if err != nil && after.ApprovedAt == nil {
		return nil, fmt.Errorf("approve action %s, which is %s: %w", id, after.Status, ErrInvalidState)
	}
	return after, nil
}

// Reject says no to an action that waits for a person. One that was rejected
// before is returned as it is.
func (s *Store) Reject(ctx context.Context, id, reason string) (*Action, error) {
	if reason == "" {
		reason = "rejected"
	}
	return s.end(ctx, id, "reject", sqlReject, reason, action.Rejected)
}

// CancelAction calls an action off that has not begun. One that was canceled
// before is returned as it is.
func (s *Store) CancelAction(ctx context.Context, id string) (*Action, error) {
	return s.end(ctx, id, "cancel", sqlCallOff, "canceled", action.Canceled)
}

func (s *Store) end(ctx context.Context, id, what, sql, reason string, want action.Status) (*Action, error) {
	if err := job.CheckText("reason", reason, 1000); err != nil {
		return nil, err
	}
	var b libsql.Batch
	n := b.Query(sql, []byte(reason), id)
	res, err := s.db.Write(ctx, &b)
	if err != nil {
		return nil, fmt.Errorf("%s action %s: %w", what, id, err)
	}
	a, err := s.Action(ctx, id)
	if err == nil && len(res[n].Rows) == 0 && a.Status != want {
		err = fmt.Errorf("%s action %s, which is %s: %w", what, id, a.Status, ErrInvalidState)
	}
	if err != nil {
		return nil, err
	}
	return a, nil
}

// Undo stores the action that takes a completed one back. While that one is
// under way or done, it is returned again; when it failed, a new one is made.
func (s *Store) Undo(ctx context.Context, id string) (undo *Action, repeated bool, err error) {
	a, err := s.Action(ctx, id)
	switch {
	case err != nil:
		return nil, false, err
	case a.UndoneBy != nil:
		undo, err = s.Action(ctx, *a.UndoneBy)
		return undo, true, err
	case a.Status != action.Completed:
		return nil, false, fmt.Errorf("undo action %s, which is %s: %w", id, a.Status, ErrInvalidState)
	case !a.Undoable:
		return nil, false, fmt.Errorf("undo action %s (%s): %w", id, a.ActionType, ErrNotUndoable)
	}
	queueName, err := s.queueOf(ctx, a.AccountID)
	if err != nil {
		return nil, false, err
	}
	b := s.q.NewBatch(ctx)
	b.Guard(sqlGuardCompleted, id)
	b.Guard(sqlGuardNotUndone, id)
	undoID := s.recordAction(ctx, b, actionRow{
		account: a.AccountID, message: a.MessageID, typ: action.Undo,
		parameters: job.Payload(ActionParameters{ActionID: id}), queue: queueName,
	})
	b.Exec(sqlLinkActions, s.q.NewID(), id, undoID, "undo_of")
	_, err = s.q.Write(ctx, b)
	if libsql.GuardIndex(err) == 1 { // somebody else was faster
		return s.Undo(ctx, id)
	}
	if err != nil {
		return nil, false, fmt.Errorf("undo action %s: %w", id, err)
	}
	undo, err = s.Action(ctx, undoID)
	return undo, false, err
}

// RecordIntent marks an action as executing before anything is touched.
func (s *Store) RecordIntent(b *queue.Batch, actionID string, h UndoHint) {
	b.Exec(sqlActionExecuting, string(job.Payload(h)), actionID)
}

// Done is what an action has changed.
type Done struct {
	Place          *Place // where the message is now; nil when its file was not touched
	Label, Unlabel string // to add, to take away
	EndSnooze      bool   // the message sleeps no more
	Wake           *Wake  // or sleeps until then
}

// Wake is when a snoozed message comes back: an instant, or a time from now.
type Wake struct {
	Until time.Time
	For   time.Duration
}

// RecordDone marks an action as completed and stores what it changed. A snooze
// stores the action that wakes the message, and calls an earlier one off.
func (s *Store) RecordDone(ctx context.Context, b *queue.Batch, a *Action, d Done, queueName string) {
	if d.Place != nil {
		b.Exec(sqlMessagePlace, string(job.Payload(d.Place)), a.MessageID)
	}
	if d.Label != "" {
		b.Exec(sqlAddLabel, d.Label, a.MessageID)
	}
	if d.Unlabel != "" {
		b.Exec(sqlRemoveLabel, d.Unlabel, a.MessageID)
	}
	if d.EndSnooze || d.Wake != nil {
		b.Exec(sqlCancelWakes, []byte("the snooze was changed or called off"), a.MessageID, a.ID)
	}
	if d.Wake != nil {
		wake := s.recordAction(ctx, b, actionRow{
			account: a.AccountID, message: a.MessageID, typ: "restore",
			parameters: job.Payload(ActionParameters{SnoozeID: a.ID}),
			notBefore:  d.Wake.Until, delay: d.Wake.For, queue: queueName,
		})
		b.Exec(sqlLinkActions, s.q.NewID(), a.ID, wake, "spawned")
	}
	b.Exec(sqlActionCompleted, a.ID)
}

// RecordFailed marks an action as failed for good.
func (s *Store) RecordFailed(b *queue.Batch, actionID, reason string) {
	b.Exec(sqlActionFailed, []byte(reason), actionID)
}

// RecordCanceled marks an action as given up, with nothing left changed by it.
func (s *Store) RecordCanceled(b *queue.Batch, actionID, reason string) {
	b.Exec(sqlActionCanceled, []byte(reason), actionID)
}

// RecordWaits shows why an action that is to be tried again waits.
func (s *Store) RecordWaits(b *queue.Batch, actionID, reason string) {
	b.Exec(sqlActionWaits, []byte(reason), actionID)
}

// RecordExpired gives up an action that nobody approved in time.
func (s *Store) RecordExpired(b *queue.Batch, actionID string) {
	b.Exec(sqlExpire, []byte("the approval expired"), actionID)
}
