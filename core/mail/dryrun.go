package mail

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/postroom/postroom/core/job"
	"github.com/postroom/postroom/core/libsql"
	"github.com/postroom/postroom/core/mail/action"
	"github.com/postroom/postroom/core/mail/maildir"
)

// Trial asks what rules would do, without doing it.
type Trial struct {
	Rules     []NewRule // in place of the stored ones; nil for those
	AccountID string    // only its messages; "" for all
	Messages  []string  // only these; nil for all
	PageOf
}

// Tried is what rules would do with one message.
type Tried struct {
	MessageID  string          `json:"message_id"`
	FromEmail  *string         `json:"from_email"`
	Subject    *string         `json:"subject"`
	ReceivedAt *job.Time       `json:"received_at"`
	RuleID     *string         `json:"rule_id"` // null when none matches, or for a rule that is not stored
	RuleName   *string         `json:"rule_name"`
	ActionType string          `json:"action_type"`
	Parameters json.RawMessage `json:"parameters"`
	// NeedsApproval and Undoable are of the action.
	NeedsApproval bool `json:"needs_approval"`
	Undoable      bool `json:"undoable"`
	// Changes tells what would change; empty when nothing would.
	Changes []Change `json:"changes" nullable:"false"`
}

// Change is one thing that would change about a message.
type Change struct {
	What   string `json:"what" enum:"folder,flags,labels,file"`
	Before string `json:"before"`
	After  string `json:"after"`
}

// DryRun tries rules on stored messages, newest first.
func (s *Store) DryRun(ctx context.Context, t Trial) ([]Tried, string, error) {
	below, err := t.below()
	if err != nil {
		return nil, "", err
	}
	book, err := s.trialBook(ctx, t.Rules)
	if err != nil {
		return nil, "", err
	}
	var only any
	if t.Messages != nil {
		only = string(job.Payload(t.Messages))
	}
	res, err := s.db.Read(ctx, libsql.Query(sqlDryRun, null(t.AccountID), only, below, t.Limit+1))
	if err != nil {
		return nil, "", fmt.Errorf("dry run: %w", err)
	}
	rows, next := page(res[0].Rows, t.Limit, func(r libsql.Row) string { return r.Str(0) })
	out := make([]Tried, 0, len(rows))
	for _, r := range rows {
		m, err := s.judged(ctx, r.Str(0))
		if errors.Is(err, ErrNotFound) {
			continue // deleted meanwhile
		}
		if err != nil {
			return nil, "", err
		}
		v := book.verdict(m.AccountID, &m.input)
		typ, _ := action.Lookup(v.ActionType)
		out = append(out, Tried{
			MessageID: m.ID, FromEmail: textPtr(r, 1), Subject: textPtr(r, 2), ReceivedAt: timePtr(r, 3),
			RuleID: optional(v.RuleID), RuleName: optional(v.RuleName), ActionType: v.ActionType, Parameters: v.Parameters,
			NeedsApproval: v.ActionType != "none" && s.policy.Asks(v.ActionType, certain, v.SafeMode),
			Undoable:      typ.Undoable, Changes: m.foresee(v),
		})
	}
	return out, next, nil
}

// trialBook compiles the rules given, or the stored ones.
func (s *Store) trialBook(ctx context.Context, list []NewRule) (*Book, error) {
	if list == nil {
		return s.Book(ctx)
	}
	version, err := s.RulesVersion(ctx)
	if err != nil {
		return nil, err
	}
	checked := make([]Rule, 0, len(list))
	for i := range list {
		n := &list[i]
		if err := inRule(n.check(), i, len(list)+1); err != nil { // always with its place: the field is a list
			return nil, err
		}
		if *n.Enabled {
			checked = append(checked, n.rule())
		}
	}
	// As they would be tried if they were stored in this order.
	slices.SortStableFunc(checked, func(a, b Rule) int { return int(a.Priority - b.Priority) })
	return CompileBook(version, checked), nil
}

// foresee tells what the verdict's action would change about the message.
func (m *Judged) foresee(v Verdict) []Change {
	changes := []Change{}
	add := func(what, before, after string) {
		if before != after {
			changes = append(changes, Change{What: what, Before: before, After: after})
		}
	}
	var p ActionParameters
	_ = json.Unmarshal(v.Parameters, &p) // checked when the rule was compiled
	folder := func(to string) { add("folder", folderName(m.Place.Folder), folderName(to)) }
	flag := func(letter string, set bool) {
		if strings.Contains(m.Place.Flags, letter) == set {
			return
		}
		flags := strings.Split(strings.ReplaceAll(m.Place.Flags, letter, ""), "")
		if set {
			flags = append(flags, letter)
		}
		slices.Sort(flags)
		add("flags", m.Place.Flags, strings.Join(flags, ""))
	}
	labels := func(change func([]string) []string) {
		after := change(slices.Clone(m.input.Labels))
		add("labels", strings.Join(m.input.Labels, ", "), strings.Join(after, ", "))
	}
	switch v.ActionType {
	case "archive":
		folder(FolderArchive)
	case "trash":
		folder(FolderTrash)
	case "snooze":
		folder(FolderSnoozed)
	case "move":
		to, _ := maildir.CleanFolder(p.Folder)
		folder(to)
	case "restore":
		if m.Place.Folder == FolderTrash || m.Place.Folder == FolderSnoozed {
			add("folder", m.Place.Folder, "the one before")
		}
	case "mark_read":
		flag("S", true)
	case "mark_unread":
		flag("S", false)
	case "star":
		flag("F", true)
	case "unstar":
		flag("F", false)
	case "apply_label":
		labels(func(l []string) []string {
			l = append(l, p.Label)
			slices.Sort(l)
			return slices.Compact(l)
		})
	case "remove_label":
		labels(func(l []string) []string {
			return slices.DeleteFunc(l, func(have string) bool { return have == p.Label })
		})
	case "delete":
		add("file", "there", "removed for good")
	}
	return changes
}

func folderName(folder string) string {
	if folder == "" {
		return "INBOX"
	}
	return folder
}

func optional(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}
