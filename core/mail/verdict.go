package mail

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/postroom/postroom/core/job"
	"github.com/postroom/postroom/core/libsql"
	"github.com/postroom/postroom/core/queue"
)

// certain is the confidence of a deterministic match.
const certain = 1.0

// Verdict is what the rules say about a message.
type Verdict struct {
	RulesVersion int64           `json:"rules_version"`
	RuleID       string          `json:"rule_id"`   // "" when no rule matched
	RuleName     string          `json:"rule_name"` //
	ActionType   string          `json:"action_type"`
	Parameters   json.RawMessage `json:"parameters"`
	SafeMode     string          `json:"safe_mode,omitempty"`
	Broken       []BrokenRule    `json:"broken,omitempty"` // rules that no longer compile
}

// BrokenRule is a rule to be disabled, and why.
type BrokenRule struct {
	ID     string `json:"id"`
	Reason string `json:"reason"`
}

// Decided says whether the message was decided under that version of the
// rules.
func (s *Store) Decided(ctx context.Context, messageID string, rulesVersion int64) (bool, error) {
	res, err := s.db.Read(ctx, libsql.Query(sqlDecided, messageID, rulesVersion))
	if err != nil {
		return false, fmt.Errorf("read decisions: %w", err)
	}
	return len(res[0].Rows) > 0, nil
}

// GuardUndecided records the check that makes a batch fail when the message was
// decided under that version of the rules. It must come before the batch's
// other statements.
func (s *Store) GuardUndecided(b *queue.Batch, messageID string, rulesVersion int64) {
	b.Guard(sqlGuardUndecided, messageID, rulesVersion)
}

// RecordVerdict stores the decision, the action it asks for and the job that
// carries it out or gives its approval up, and disables broken rules.
func (s *Store) RecordVerdict(ctx context.Context, b *queue.Batch, messageID, accountID string, v Verdict, queueName string) {
	decision := map[string]any{"rule_id": nil, "rule_name": nil, "action_type": v.ActionType, "parameters": v.Parameters}
	rationale := "no rule matched"
	if v.RuleID != "" {
		decision["rule_id"], decision["rule_name"] = v.RuleID, v.RuleName
		rationale = "matched rule " + v.RuleName
	}
	asks := v.ActionType != "none" && s.policy.Asks(v.ActionType, certain, v.SafeMode)
	decisionID := s.q.NewID()
	b.Exec(sqlInsertDecision, decisionID, accountID, messageID, string(job.Payload(decision)), v.ActionType, certain, asks,
		[]byte(rationale), v.RulesVersion)
	if v.ActionType != "none" {
		s.recordAction(ctx, b, actionRow{
			account: accountID, message: messageID, decision: decisionID, typ: v.ActionType, parameters: v.Parameters,
			asks: asks, queue: queueName,
		})
	}
	for _, broken := range v.Broken {
		b.Exec(sqlDisableRule, []byte(broken.Reason), broken.ID)
	}
	if len(v.Broken) > 0 {
		b.Exec(sqlRaiseRulesVersion)
	}
}
