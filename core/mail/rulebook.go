package mail

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/postroom/postroom/core/job"
	"github.com/postroom/postroom/core/libsql"
	"github.com/postroom/postroom/core/mail/rules"
)

// NewRule is a rule to be made. Nil and empty fields take the defaults:
// priority 100, enabled, safe mode "default".
type NewRule struct {
	Name, Description, Scope, ScopeRef string
	Priority                           *int64
	Enabled                            *bool
	Conditions                         json.RawMessage
	ActionType                         string
	ActionParameters                   json.RawMessage
	SafeMode                           string
}

// CreateRule checks and stores a rule and raises the version of the rules.
func (s *Store) CreateRule(ctx context.Context, n NewRule) (*Rule, error) {
	made, err := s.CreateRules(ctx, []NewRule{n})
	if err != nil {
		return nil, err
	}
	return &made[0], nil
}

// CreateRules checks and stores all rules or none. Of several, the field of a
// mistake begins with its rule's place: rules[1].name.
func (s *Store) CreateRules(ctx context.Context, list []NewRule) ([]Rule, error) {
	var b libsql.Batch
	ids := make([]string, len(list))
	for i := range list {
		n := &list[i]
		if err := n.check(); err != nil {
			var inv *job.Invalid
			if len(list) > 1 && errors.As(err, &inv) {
				err = &job.Invalid{Field: fmt.Sprintf("rules[%d].%s", i, inv.Field), Code: inv.Code, Reason: inv.Reason}
			}
			return nil, err
		}
		ids[i] = s.q.NewID()
		b.Exec(sqlInsertRule, ids[i], []byte(n.Name), blob(n.Description), n.Scope, null(n.ScopeRef), *n.Priority, *n.Enabled,
			string(n.Conditions), n.ActionType, string(n.ActionParameters), n.SafeMode)
	}
	b.Exec(sqlRaiseRulesVersion)
	if _, err := s.db.Write(ctx, &b); err != nil {
		return nil, fmt.Errorf("create rules: %w", err)
	}
	made := make([]Rule, len(ids))
	for i, id := range ids {
		r, err := s.Rule(ctx, id)
		if err != nil {
			return nil, err
		}
		made[i] = *r
	}
	return made, nil
}

func (n *NewRule) check() error {
	if n.Priority == nil {
		p := int64(100)
		n.Priority = &p
	}
	if n.Enabled == nil {
		on := true
		n.Enabled = &on
	}
	if n.SafeMode == "" {
		n.SafeMode = "default"
	}
	if n.Scope == "" {
		n.Scope = "global"
	}
	if len(n.ActionParameters) == 0 || string(n.ActionParameters) == "null" {
		n.ActionParameters = json.RawMessage("{}")
	}
	switch {
	case strings.TrimSpace(n.Name) == "":
		return invalid("name", "is required")
	case len(n.Name) > 200 || !utf8.ValidString(n.Name):
		return invalid("name", "must be valid UTF-8 of at most 200 bytes")
	case len(n.Description) > 4000 || !utf8.ValidString(n.Description):
		return invalid("description", "must be valid UTF-8 of at most 4000 bytes")
	case n.SafeMode != "default" && n.SafeMode != "always_safe" && n.SafeMode != "dangerous_override":
		return invalid("safe_mode", `must be "default", "always_safe" or "dangerous_override"`)
	case len(n.Conditions) == 0:
		return invalid("conditions", `is required: {"op": "sender_email", "value": "*@example.com"}`)
	}
	if err := job.CheckText("scope_ref", n.ScopeRef, 320); err != nil {
		return err
	}
	if err := at("", rules.ValidateScope(n.Scope, n.ScopeRef)); err != nil {
		return err
	}
	if _, err := rules.Compile(n.Conditions); err != nil {
		return at("conditions", err)
	}
	if err := job.CheckJSON("conditions", n.Conditions); err != nil {
		return err
	}
	return at("action_parameters", rules.ValidateAction(n.ActionType, n.ActionParameters))
}

// at turns a position inside a rule's part into the field of the whole.
func at(part string, err error) error {
	var wrong *rules.Error
	if !errors.As(err, &wrong) {
		return err
	}
	field := wrong.Path
	if rest, inside := strings.CutPrefix(field, "$"); inside {
		field = part + rest
	}
	return invalid(field, wrong.Reason)
}

// Rule returns one rule.
func (s *Store) Rule(ctx context.Context, id string) (*Rule, error) {
	res, err := s.db.Read(ctx, libsql.Query(sqlRule, id))
	if err != nil {
		return nil, fmt.Errorf("get rule: %w", err)
	}
	if len(res[0].Rows) == 0 {
		return nil, fmt.Errorf("rule %s: %w", id, ErrNotFound)
	}
	r := ruleRow(res[0].Rows[0])
	return &r, nil
}

// Rules lists rules, newest first.
func (s *Store) Rules(ctx context.Context, p PageOf) ([]Rule, string, error) {
	below, err := p.below()
	if err != nil {
		return nil, "", err
	}
	res, err := s.db.Read(ctx, libsql.Query(sqlRules, below, p.Limit+1))
	if err != nil {
		return nil, "", fmt.Errorf("list rules: %w", err)
	}
	out := make([]Rule, len(res[0].Rows))
	for i, r := range res[0].Rows {
		out[i] = ruleRow(r)
	}
	out, next := page(out, p.Limit, func(r Rule) string { return r.ID })
	return out, next, nil
}

// DeleteRule deletes a rule and raises the version of the rules.
func (s *Store) DeleteRule(ctx context.Context, id string) error {
	if _, err := s.Rule(ctx, id); err != nil {
		return err
	}
	var b libsql.Batch
	n := b.Query(sqlDeleteRule, id)
	b.Exec(sqlRaiseRulesVersion)
	res, err := s.db.Write(ctx, &b)
	if err != nil {
		return fmt.Errorf("delete rule: %w", err)
	}
	if len(res[n].Rows) == 0 {
		return fmt.Errorf("rule %s: %w", id, ErrNotFound)
	}
	return nil
}

func ruleRow(r libsql.Row) Rule {
	rule := Rule{
		ID: r.Str(0), Scope: r.Str(3), Priority: r.Int(5), Enabled: r.Bool(6), Conditions: r.Bytes(8),
		ActionType: r.Str(9), ActionParameters: r.Bytes(10), SafeMode: r.Str(11),
		Description: textPtr(r, 2), ScopeRef: textPtr(r, 4), DisabledReason: textPtr(r, 7),
		CreatedAt: job.Time(r.Int(12)), UpdatedAt: job.Time(r.Int(13)),
	}
	if name := textPtr(r, 1); name != nil {
		rule.Name = *name
	}
	return rule
}

// activeRules reads the enabled rules, in the order they are tried, and their
// version on one snapshot.
func (s *Store) activeRules(ctx context.Context) (int64, []Rule, error) {
	res, err := s.db.Read(ctx, libsql.Query(sqlRulesVersion), libsql.Query(sqlActiveRules))
	if err != nil {
		return 0, nil, fmt.Errorf("read the rules: %w", err)
	}
	list := make([]Rule, len(res[1].Rows))
	for i, r := range res[1].Rows {
		list[i] = ruleRow(r)
	}
	return res[0].Rows[0].Int(0), list, nil
}

// RulesVersion is the version of the rules now.
func (s *Store) RulesVersion(ctx context.Context) (int64, error) {
	res, err := s.db.Read(ctx, libsql.Query(sqlRulesVersion))
	if err != nil {
		return 0, fmt.Errorf("read the rules: %w", err)
	}
	return res[0].Rows[0].Int(0), nil
}
