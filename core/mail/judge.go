package mail

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"

	"github.com/postroom/postroom/core/job"
	"github.com/postroom/postroom/core/libsql"
	"github.com/postroom/postroom/core/mail/message"
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

// Book returns the enabled rules.
func (s *Store) Book(ctx context.Context) (*Book, error) { return s.judge.current(ctx, s) }

// Judge says what the book says about a message that was read just now.
func (b *Book) Judge(accountID string, m *message.Message) Verdict {
	return b.verdict(accountID, &rules.Input{
		FromEmail: m.FromEmail, Subject: m.Subject, Headers: m.Headers, ListID: m.ListID, HasAttachment: m.HasAttachment,
		BodyPlain: m.BodyPlain[:min(len(m.BodyPlain), rules.MaxBodyBytes)], BodyHTML: m.BodyHTML[:min(len(m.BodyHTML), rules.MaxBodyBytes)],
	})
}

// Evaluate says what the enabled rules decide about a message.
func (s *Store) Evaluate(ctx context.Context, messageID string) (*Judged, Verdict, error) {
	book, err := s.Book(ctx)
	if err != nil {
		return nil, Verdict{}, err
	}
	m, err := s.judged(ctx, messageID)
	if err != nil {
		return nil, Verdict{}, err
	}
	return m, book.verdict(m.AccountID, &m.input), nil
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

// Judged is a stored message as rules see it.
type Judged struct {
	ID, AccountID string
	Place         Place
	input         rules.Input
}

// judged reads a message. Of its bodies no more is read than rules look at.
func (s *Store) judged(ctx context.Context, id string) (*Judged, error) {
	res, err := s.db.Read(ctx, libsql.Query(sqlJudged, rules.MaxBodyBytes, id))
	if err != nil {
		return nil, fmt.Errorf("read message: %w", err)
	}
	if len(res[0].Rows) == 0 {
		return nil, fmt.Errorf("message %s: %w", id, ErrNotFound)
	}
	r := res[0].Rows[0]
	var raw Raw
	m := &Judged{ID: id, AccountID: r.Str(0), input: rules.Input{
		FromEmail: r.Str(1), Subject: r.Str(2), BodyPlain: r.Bytes(6), BodyHTML: r.Bytes(7),
	}}
	for _, part := range []struct {
		name string
		json []byte
		v    any
	}{{"raw part", r.Bytes(3), &raw}, {"headers", r.Bytes(4), &m.input.Headers}, {"labels", r.Bytes(5), &m.input.Labels}} {
		if err := json.Unmarshal(part.json, part.v); err != nil {
			return nil, job.Fatal(fmt.Errorf("message %s: its %s does not decode", id, part.name))
		}
	}
	m.Place, m.input.ListID, m.input.HasAttachment = raw.Place, raw.ListID, raw.HasAttachment
	return m, nil
}
