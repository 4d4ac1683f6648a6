package mail

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"

	"github.com/postroom/postroom/core/job"
	"github.com/postroom/postroom/core/mail/rules"
)

// Book is rules, compiled, in the order in which they are tried.
type Book struct {
	Version int64
	Broken  []BrokenRule // that do not compile, and are left out
	rules   []compiledRule
}

type compiledRule struct {
	Rule
	scope      rules.Scope
	conditions *rules.Compiled
}

// CompileBook compiles rules. One that was checked when it was saved and does
// not compile now is left out and reported: it stops nothing else.
func CompileBook(version int64, list []Rule) *Book {
	b := &Book{Version: version}
	for _, r := range list {
		c, err := compile(r)
		if err != nil {
			b.Broken = append(b.Broken, BrokenRule{ID: r.ID, Reason: err.Error()})
			continue
		}
		b.rules = append(b.rules, c)
	}
	return b
}

func compile(r Rule) (compiledRule, error) {
	ref := ""
	if r.ScopeRef != nil {
		ref = *r.ScopeRef
	}
	scope, err := rules.CompileScope(r.Scope, ref)
	if err != nil {
		return compiledRule{}, err
	}
	conditions, err := rules.Compile(r.Conditions)
	if err == nil {
		err = rules.ValidateAction(r.ActionType, r.ActionParameters)
	}
	return compiledRule{Rule: r, scope: scope, conditions: conditions}, err
}

// Match returns the first rule that matches; nil for none.
func (b *Book) Match(accountID string, in *rules.Input) *Rule {
	for i := range b.rules {
		r := &b.rules[i]
		if r.scope.Matches(accountID, in) && r.conditions.Match(in) {
			return &r.Rule
		}
	}
	return nil
}

// verdict is what the book says about a message.
func (b *Book) verdict(accountID string, in *rules.Input) Verdict {
	v := Verdict{RulesVersion: b.Version, ActionType: "none", Parameters: json.RawMessage("{}"), Broken: b.Broken}
	if r := b.Match(accountID, in); r != nil {
		v.RuleID, v.RuleName, v.ActionType, v.Parameters, v.SafeMode = r.ID, r.Name, r.ActionType, r.ActionParameters, r.SafeMode
	}
	return v
}

// Evaluate says what the enabled rules decide about a message.
func (s *Store) Evaluate(ctx context.Context, m *MessageDetail) (Verdict, error) {
	book, err := s.judge.current(ctx, s)
	if err != nil {
		return Verdict{}, err
	}
	in, err := m.input()
	if err != nil {
		return Verdict{}, err
	}
	return book.verdict(m.AccountID, in), nil
}

// judge keeps the enabled rules compiled, by their version.
type judge struct {
	mu   sync.Mutex
	book *Book
}

func (g *judge) current(ctx context.Context, s *Store) (*Book, error) {
	version, err := s.RulesVersion(ctx)
	if err != nil {
		return nil, err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.book != nil && g.book.Version == version {
		return g.book, nil
	}
	version, list, err := s.activeRules(ctx)
	if err != nil {
		return nil, err
	}
	g.book = CompileBook(version, list)
	return g.book, nil
}

// input is what rules see of a stored message.
func (m *MessageDetail) input() (*rules.Input, error) {
	var raw Raw
	in := &rules.Input{}
	for part, to := range map[string]struct {
		json json.RawMessage
		v    any
	}{"raw part": {m.Raw, &raw}, "headers": {m.Headers, &in.Headers}, "labels": {m.Labels, &in.Labels}} {
		if err := json.Unmarshal(to.json, to.v); err != nil {
			return nil, job.Fatal(fmt.Errorf("message %s: its %s does not decode", m.ID, part))
		}
	}
	in.ListID, in.HasAttachment = raw.ListID, raw.HasAttachment
	for dst, src := range map[*string]*string{&in.FromEmail: m.FromEmail, &in.Subject: m.Subject} {
		if src != nil {
			*dst = *src
		}
	}
	if m.BodyPlain != nil {
		in.BodyPlain = []byte(*m.BodyPlain)
	}
	if m.BodyHTML != nil {
		in.BodyHTML = []byte(*m.BodyHTML)
	}
	return in, nil
}
