package agent

import (
	"context"
	"errors"

	"github.com/postroom/postroom/core/job"
	"github.com/postroom/postroom/core/libsql"
	"github.com/postroom/postroom/core/mail"
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

	type judged struct {
		AccountID string       `json:"account_id"`
		Verdict   mail.Verdict `json:"verdict"`
	}
	v, err := step.Run(ctx, "evaluate", func(ctx context.Context) (judged, error) {
		m, verdict, err := a.store.Evaluate(ctx, j.Payload.MessageID)
		if errors.Is(err, mail.ErrNotFound) {
			err = job.Fatal(err)
		}
		if err != nil {
			return judged{}, err
		}
		return judged{m.AccountID, verdict}, nil
	})
	if err != nil {
		return nil, err
	}
	verdict := v.Verdict
	acc, err := a.store.Account(ctx, v.AccountID)
	if err != nil {
		return nil, err
	}
	cfg, err := acc.Maildir()
	if err != nil {
		return nil, job.Fatal(err)
	}
	for _, b := range verdict.Broken {
		a.log.Error().Ctx(ctx).Str("rule_id", b.ID).Str("reason", b.Reason).Msg("rule disabled: it does not compile any more")
	}
	err = j.Commit(ctx, map[string]any{"action_type": verdict.ActionType, "rule_id": verdict.RuleID}, func(b *queue.Batch) {
		a.store.GuardUndecided(b, j.Payload.MessageID, verdict.RulesVersion)
		a.store.RecordVerdicts(ctx, b, []mail.MessageVerdict{{
			MessageID: j.Payload.MessageID, AccountID: v.AccountID, Queue: cfg.Queue, Verdict: verdict,
		}})
	})
	if libsql.GuardIndex(err) == 1 { // the lease's guard is the first
		return map[string]any{"note": "decided before"}, nil
	}
	return nil, err
}
