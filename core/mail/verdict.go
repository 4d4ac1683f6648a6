package mail

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

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

// MessageVerdict is what the rules say about one message.
type MessageVerdict struct {
	MessageID, AccountID, Queue string
	Verdict
}

// decision is what is stored of a verdict.
type decision struct {
	ActionType string          `json:"action_type"`
	Parameters json.RawMessage `json:"parameters"`
	RuleID     *string         `json:"rule_id"`
	RuleName   *string         `json:"rule_name"`
}

// RecordVerdicts stores decisions, the actions they ask for and the jobs that
// carry those out or give their approval up, and disables broken rules.
func (s *Store) RecordVerdicts(ctx context.Context, b *queue.Batch, list []MessageVerdict) (actions int64) {
	rows := make([][]any, len(list))
	var wanted []actionRow
	broken := map[string]string{}
	ids := s.q.NewIDs(len(list))
	for i, v := range list {
		said := decision{ActionType: v.ActionType, Parameters: v.Parameters}
		rationale := "no rule matched"
		if v.RuleID != "" {
			said.RuleID, said.RuleName = &v.RuleID, &v.RuleName
			rationale = "matched rule " + v.RuleName
		}
		asks := v.ActionType != "none" && s.policy.Asks(v.ActionType, certain, v.SafeMode)
		id := ids[i]
		rows[i] = []any{
			id, v.AccountID, v.MessageID, string(job.Payload(said)), v.ActionType, certain, asks, []byte(rationale), v.RulesVersion,
		}
		if v.ActionType != "none" {
			wanted = append(wanted, actionRow{
				account: v.AccountID, message: v.MessageID, decision: id, typ: v.ActionType, parameters: v.Parameters,
				asks: asks, queue: v.Queue,
			})
		}
		for _, rule := range v.Broken {
			broken[rule.ID] = rule.Reason
		}
	}
	insert(b, sqlInsertDecisions, rows)
	for _, a := range wanted {
		s.recordAction(ctx, b, a)
	}
	for _, id := range slices.Sorted(maps.Keys(broken)) {
		b.Exec(sqlDisableRule, []byte(broken[id]), id)
	}
	if len(broken) > 0 {
		b.Exec(sqlRaiseRulesVersion)
	}
	return int64(len(wanted))
}
