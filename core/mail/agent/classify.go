package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"

	"go.opentelemetry.io/otel/trace"

	"github.com/postroom/postroom/core/job"
	"github.com/postroom/postroom/core/mail"
	"github.com/postroom/postroom/core/mail/rules"
	"github.com/postroom/postroom/core/queue"
	"github.com/postroom/postroom/core/step"
	"github.com/postroom/postroom/core/telemetry"
	"github.com/postroom/postroom/core/worker"
)

// classify evaluates the rules on one message and stores the decision, the
// action and the job that carries it out, in one batch.
func (a *Agent) classify(ctx context.Context, j *worker.Job[job.ClassifyPayload]) (result any, err error) {
	ctx, span := telemetry.EmailClassify(ctx, j.Payload.MessageID)
	defer func() { telemetry.End(span, err) }()

	m, err := a.store.Message(ctx, j.Payload.MessageID)
	if errors.Is(err, mail.ErrNotFound) {
		return nil, job.Fatal(err)
	}
	if err != nil {
		return nil, err
	}
	acc, err := a.store.Account(ctx, m.AccountID)
	if err != nil {
		return nil, err
	}
	cfg, err := acc.Maildir()
	if err != nil {
		return nil, job.Fatal(err)
	}
	verdict, err := step.Run(ctx, "evaluate", func(ctx context.Context) (mail.Verdict, error) {
		return a.judge.evaluate(ctx, a.store, m)
	})
	if err != nil {
		return nil, err
	}
	decided, err := a.store.Decided(ctx, m.ID, verdict.RulesVersion)
	if err != nil || decided {
		return nil, err
	}
	for _, b := range verdict.Broken {
		a.log.Error().Ctx(ctx).Str("rule_id", b.ID).Str("reason", b.Reason).Msg("rule disabled: it does not compile any more")
	}
	traceID := trace.SpanContextFromContext(ctx).TraceID()
	return nil, j.Commit(ctx, map[string]any{"action_type": verdict.ActionType, "rule_id": verdict.RuleID}, func(b *queue.Batch) {
		a.store.RecordVerdict(b, m, verdict, cfg.Queue, traceID.String())
	})
}

// judge keeps the rules compiled, by their version.
type judge struct {
	mu      sync.Mutex
	version int64
	rules   []compiledRule
	broken  []mail.BrokenRule
}

type compiledRule struct {
	mail.Rule
	conditions *rules.Compiled
}

func (g *judge) evaluate(ctx context.Context, store *mail.Store, m *mail.MessageDetail) (mail.Verdict, error) {
	list, broken, version, err := g.current(ctx, store)
	if err != nil {
		return mail.Verdict{}, err
	}
	in, err := input(m)
	if err != nil {
		return mail.Verdict{}, err
	}
	v := mail.Verdict{RulesVersion: version, ActionType: "none", Parameters: json.RawMessage("{}"), Broken: broken}
	for _, r := range list {
		ref := ""
		if r.ScopeRef != nil {
			ref = *r.ScopeRef
		}
		if rules.ScopeMatches(r.Scope, ref, m.AccountID, in.FromEmail) && r.conditions.Match(in) {
			v.RuleID, v.RuleName, v.ActionType, v.Parameters = r.ID, r.Name, r.ActionType, r.ActionParameters
			break
		}
	}
	return v, nil
}

// current returns the compiled rules. A rule that was checked when it was
// saved and does not compile now is left out and reported: it stops nothing
// else.
func (g *judge) current(ctx context.Context, store *mail.Store) ([]compiledRule, []mail.BrokenRule, int64, error) {
	version, err := store.RulesVersion(ctx)
	if err != nil {
		return nil, nil, 0, err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if version == g.version {
		return g.rules, g.broken, g.version, nil
	}
	book, err := store.Rulebook(ctx)
	if err != nil {
		return nil, nil, 0, err
	}
	g.version, g.rules, g.broken = book.Version, nil, nil
	for _, r := range book.Rules {
		c, err := rules.Compile(r.Conditions)
		if err == nil {
			err = rules.ValidateAction(r.ActionType, r.ActionParameters)
		}
		if err != nil {
			g.broken = append(g.broken, mail.BrokenRule{ID: r.ID, Reason: err.Error()})
			continue
		}
		g.rules = append(g.rules, compiledRule{Rule: r, conditions: c})
	}
	return g.rules, g.broken, g.version, nil
}

func input(m *mail.MessageDetail) (*rules.Input, error) {
	var raw mail.Raw
	if err := json.Unmarshal(m.Raw, &raw); err != nil {
		return nil, job.Fatal(fmt.Errorf("message %s: its raw part does not decode", m.ID))
	}
	in := &rules.Input{ListID: raw.ListID, HasAttachment: raw.HasAttachment}
	if err := json.Unmarshal(m.Headers, &in.Headers); err != nil {
		return nil, job.Fatal(fmt.Errorf("message %s: its headers do not decode", m.ID))
	}
	if err := json.Unmarshal(m.Labels, &in.Labels); err != nil {
		return nil, job.Fatal(fmt.Errorf("message %s: its labels do not decode", m.ID))
	}
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
