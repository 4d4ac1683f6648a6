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
	DisabledReason                     string // why, for one that is not enabled
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
		if err := inRule(n.check(), i, len(list)); err != nil {
			return nil, err
		}
		ids[i] = s.insertRule(&b, n)
	}
	b.Exec(sqlRaiseRulesVersion)
	if _, err := s.db.Write(ctx, &b); err != nil {
		return nil, fmt.Errorf("create rules: %w", err)
	}
	return s.rulesByID(ctx, ids)
}

func (s *Store) rulesByID(ctx context.Context, ids []string) ([]Rule, error) {
	list := make([]Rule, len(ids))
	for i, id := range ids {
		r, err := s.Rule(ctx, id)
		if err != nil {
			return nil, err
		}
		list[i] = *r
	}
	return list, nil
}

func (s *Store) insertRule(b *libsql.Batch, n *NewRule) string {
	id := s.q.NewID()
	b.Exec(sqlInsertRule, id, []byte(n.Name), blob(n.Description), n.Scope, null(n.ScopeRef), *n.Priority, *n.Enabled,
		string(n.Conditions), n.ActionType, string(n.ActionParameters), n.SafeMode, n.reason())
	return id
}

// reason is why the rule is disabled; NULL for one that is not.
func (n *NewRule) reason() any {
	if *n.Enabled {
		return nil
	}
	return blob(n.DisabledReason)
}

// inRule puts the place of a rule before the field of its mistake, where there
// are several.
func inRule(err error, i, n int) error {
	var inv *job.Invalid
	if n > 1 && errors.As(err, &inv) {
		return &job.Invalid{Field: fmt.Sprintf("rules[%d].%s", i, inv.Field), Code: inv.Code, Reason: inv.Reason}
	}
	return err
}

// rule is the rule as it would be stored, without an id.
func (n *NewRule) rule() Rule {
	return Rule{
		Name: n.Name, Description: optional(n.Description), Scope: n.Scope, ScopeRef: optional(n.ScopeRef), Priority: *n.Priority,
		Enabled: *n.Enabled, Conditions: n.Conditions, ActionType: n.ActionType, ActionParameters: n.ActionParameters, SafeMode: n.SafeMode,
	}
}

// RuleChange is what is to change about a rule; nil fields stay.
type RuleChange struct {
	Name, Description, Scope, ScopeRef *string
	Priority                           *int64
	Enabled                            *bool
	DisabledReason                     *string // goes with Enabled false; gone when the rule is enabled
	Conditions                         json.RawMessage
	ActionType                         *string
	ActionParameters                   json.RawMessage
	SafeMode                           *string
}

// UpdateRule checks and stores a change of a rule and raises the version of
// the rules.
func (s *Store) UpdateRule(ctx context.Context, id string, c RuleChange) (*Rule, error) {
	for {
		r, err := s.Rule(ctx, id)
		if err != nil {
			return nil, err
		}
		n := c.on(r)
		if err := n.check(); err != nil {
			return nil, err
		}
		var b libsql.Batch
		b.Guard(sqlGuardRule, id, int64(r.UpdatedAt))
		s.updateRule(&b, id, &n)
		b.Exec(sqlRaiseRulesVersion)
		_, err = s.db.Write(ctx, &b)
		if libsql.GuardIndex(err) == 0 {
			continue // somebody else changed it since: look again
		}
		if err != nil {
			return nil, fmt.Errorf("update rule %s: %w", id, err)
		}
		return s.Rule(ctx, id)
	}
}

func (s *Store) updateRule(b *libsql.Batch, id string, n *NewRule) {
	b.Exec(sqlUpdateRule, []byte(n.Name), blob(n.Description), n.Scope, null(n.ScopeRef), *n.Priority, *n.Enabled, n.reason(),
		string(n.Conditions), n.ActionType, string(n.ActionParameters), n.SafeMode, id)
}

// on is the rule after the change.
func (c RuleChange) on(r *Rule) NewRule {
	text := func(given, is *string) string {
		switch {
		case given != nil:
			return *given
		case is != nil:
			return *is
		}
		return ""
	}
	n := NewRule{
		Name: text(c.Name, &r.Name), Description: text(c.Description, r.Description), Scope: text(c.Scope, &r.Scope),
		ScopeRef: text(c.ScopeRef, r.ScopeRef), Priority: &r.Priority, Enabled: &r.Enabled,
		DisabledReason: text(c.DisabledReason, r.DisabledReason), Conditions: r.Conditions,
		ActionType: text(c.ActionType, &r.ActionType), ActionParameters: r.ActionParameters, SafeMode: text(c.SafeMode, &r.SafeMode),
	}
	if c.Priority != nil {
		n.Priority = c.Priority
	}
	if c.Enabled != nil {
		n.Enabled = c.Enabled
	}
	if c.Conditions != nil {
		n.Conditions = c.Conditions
	}
	if c.ActionParameters != nil {
		n.ActionParameters = c.ActionParameters
	}
	if c.Scope != nil && *c.Scope == "global" && c.ScopeRef == nil {
		n.ScopeRef = ""
	}
	if c.ActionType != nil && *c.ActionType != r.ActionType && c.ActionParameters == nil {
		n.ActionParameters = nil // those of another action
	}
	return n
}

// ReplaceRule stores a rule in the place of another and raises the version of
// the rules.
func (s *Store) ReplaceRule(ctx context.Context, id string, n NewRule) (*Rule, error) {
	if _, err := s.Rule(ctx, id); err != nil {
		return nil, err
	}
	if err := n.check(); err != nil {
		return nil, err
	}
	var b libsql.Batch
	s.updateRule(&b, id, &n)
	b.Exec(sqlRaiseRulesVersion)
	if _, err := s.db.Write(ctx, &b); err != nil {
		return nil, fmt.Errorf("replace rule %s: %w", id, err)
	}
	return s.Rule(ctx, id)
}

// ImportRules stores all rules or none: one whose name a stored rule has
// replaces that one, the others are added. Mistakes are named as by
// CreateRules.
func (s *Store) ImportRules(ctx context.Context, list []NewRule) (rules []Rule, replaced int, err error) {
	res, err := s.db.Read(ctx, libsql.Query(sqlRulesByName))
	if err != nil {
		return nil, 0, fmt.Errorf("import rules: %w", err)
	}
	stored, twice := map[string]string{}, map[string]bool{}
	for _, r := range res[0].Rows {
		twice[r.Str(0)] = stored[r.Str(0)] != ""
		stored[r.Str(0)] = r.Str(1)
	}
	var b libsql.Batch
	ids := make([]string, len(list))
	seen := map[string]bool{}
	for i := range list {
		n := &list[i]
		err := n.check()
		switch {
		case err == nil && seen[n.Name]:
			err = invalid("name", "is that of an earlier rule of the file")
		case err == nil && twice[n.Name]:
			err = invalid("name", "is that of several stored rules: rename or delete all but one")
		}
		if err := inRule(err, i, len(list)); err != nil {
			return nil, 0, err
		}
		seen[n.Name] = true
		if ids[i] = stored[n.Name]; ids[i] != "" {
			replaced++
			s.updateRule(&b, ids[i], n)
		} else {
			ids[i] = s.insertRule(&b, n)
		}
	}
	b.Exec(sqlRaiseRulesVersion)
	if _, err := s.db.Write(ctx, &b); err != nil {
		return nil, 0, fmt.Errorf("import rules: %w", err)
	}
	rules, err = s.rulesByID(ctx, ids)
	return rules, replaced, err
}

// AllRules reads every rule, in the order in which they are tried.
func (s *Store) AllRules(ctx context.Context) ([]Rule, error) {
	res, err := s.db.Read(ctx, libsql.Query(sqlAllRules))
	if err != nil {
		return nil, fmt.Errorf("read the rules: %w", err)
	}
	list := make([]Rule, len(res[0].Rows))
	for i, r := range res[0].Rows {
		list[i] = ruleRow(r)
	}
	return list, nil
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
	case len(n.DisabledReason) > 4000 || !utf8.ValidString(n.DisabledReason):
		return invalid("disabled_reason", "must be valid UTF-8 of at most 4000 bytes")
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
