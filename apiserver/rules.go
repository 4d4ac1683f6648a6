package main

import (
	"context"
	"encoding/json"
	"net/http"

	"github.com/postroom/postroom/core/job"
	"github.com/postroom/postroom/core/mail"
	"github.com/postroom/postroom/core/token"
)

// newRule is a rule as a client asks for it.
type newRule struct {
	Name             string          `json:"name"`
	Description      *string         `json:"description,omitempty"`
	Scope            string          `json:"scope" enum:"global,account,sender,domain"`
	ScopeRef         *string         `json:"scope_ref,omitempty" doc:"The account's id, the address or the domain; nothing for global."`
	Priority         *int64          `json:"priority,omitempty" default:"100" doc:"Lower is tried first."`
	Enabled          *bool           `json:"enabled,omitempty" default:"true"`
	Conditions       json.RawMessage `json:"conditions" doc:"A condition, such as {\"op\": \"sender_email\", \"value\": \"*@example.com\"}."`
	ActionType       string          `json:"action_type"`
	ActionParameters json.RawMessage `json:"action_parameters,omitempty"`
	SafeMode         *string         `json:"safe_mode,omitempty" enum:"default,always_safe,dangerous_override"`
	DisabledReason   *string         `json:"disabled_reason,omitempty" doc:"Why, for one that is not enabled."`
}

func (n newRule) rule() mail.NewRule {
	return mail.NewRule{
		Name: n.Name, Description: text(n.Description), Scope: n.Scope, ScopeRef: text(n.ScopeRef),
		Priority: n.Priority, Enabled: n.Enabled, DisabledReason: text(n.DisabledReason), Conditions: n.Conditions,
		ActionType: n.ActionType, ActionParameters: n.ActionParameters, SafeMode: text(n.SafeMode),
	}
}

// ruleChange is what is to change about a rule; what is left out stays.
type ruleChange struct {
	Name             *string         `json:"name,omitempty"`
	Description      *string         `json:"description,omitempty" doc:"Empty for none."`
	Scope            *string         `json:"scope,omitempty" enum:"global,account,sender,domain"`
	ScopeRef         *string         `json:"scope_ref,omitempty"`
	Priority         *int64          `json:"priority,omitempty"`
	Enabled          *bool           `json:"enabled,omitempty"`
	Conditions       json.RawMessage `json:"conditions,omitempty"`
	ActionType       *string         `json:"action_type,omitempty"`
	ActionParameters json.RawMessage `json:"action_parameters,omitempty"`
	SafeMode         *string         `json:"safe_mode,omitempty" enum:"default,always_safe,dangerous_override"`
	DisabledReason   *string         `json:"disabled_reason,omitempty" doc:"Why it is not enabled; gone once it is."`
}

type ruleChangeInput struct {
	jsonBody[ruleChange]
	ID string `path:"id"`
}

type replaceRuleInput struct {
	jsonBody[newRule]
	ID string `path:"id"`
}

// trial asks what rules would do.
type trial struct {
	Rules    []newRule `json:"rules,omitempty" doc:"To be tried in place of the stored ones; left out, those are."`
	Account  *string   `json:"account,omitempty" doc:"Only messages of the account with this id."`
	Messages *[]string `json:"messages,omitempty" doc:"Only the messages with these ids, up to 200."`
	Limit    *int64    `json:"limit,omitempty" minimum:"1" maximum:"200" default:"50"`
	Cursor   *string   `json:"cursor,omitempty" doc:"The next_cursor of the page before."`
}

type trialInput struct{ jsonBody[trial] }

type triedList struct {
	Messages []mail.Tried `json:"messages" nullable:"false"`
	Next     *string      `json:"next_cursor"`
}

// applyRules says to which mail rules are applied.
type applyRules struct {
	Account *string `json:"account,omitempty" doc:"The id of an account; left out, all mail."`
}

type applyRulesInput struct{ jsonBody[applyRules] }

type newRuleInput struct{ jsonBody[newRule] }

type ruleList struct {
	Rules []mail.Rule `json:"rules" nullable:"false"`
	Next  *string     `json:"next_cursor"`
}

func (s service) ruleRoutes(a *api) {
	repeated := map[int]string{http.StatusOK: "it is under way already: that task"}
	register(a, route{
		id: "create-rule", role: token.Admin, method: "POST", path: "/v1/rules", summary: "Add a rule",
		status: http.StatusCreated, takes: newRule{}, max: s.maxBody,
	}, s.createRule)
	register(a, route{id: "list-rules", method: "GET", path: "/v1/rules", summary: "List rules, newest first"}, s.listRules)
	register(a, route{id: "get-rule", method: "GET", path: "/v1/rules/{id}", summary: "A rule"}, s.getRule)
	register(a, route{
		id: "replace-rule", role: token.Admin, method: "PUT", path: "/v1/rules/{id}", summary: "Put a rule in the place of another", takes: newRule{}, max: s.maxBody,
	}, s.replaceRule)
	register(a, route{
		id: "update-rule", role: token.Admin, method: "PATCH", path: "/v1/rules/{id}", summary: "Change, enable or disable a rule", takes: ruleChange{}, max: s.maxBody,
	}, s.updateRule)
	register(a, route{
		id: "delete-rule", role: token.Admin, method: "DELETE", path: "/v1/rules/{id}", summary: "Delete a rule", status: http.StatusNoContent,
	}, s.deleteRule)
	register(a, route{
		id: "try-rules", role: token.Read, method: "POST", path: "/v1/rules:dryrun", summary: "What rules would do with stored mail, newest first; nothing is changed",
		takes: trial{}, max: s.maxBody,
	}, s.tryRules)
	register(a, route{
		id: "apply-rules", role: token.Admin, method: "POST", path: "/v1/rules:apply", summary: "Apply the rules to the mail that is there: a task",
		status: http.StatusAccepted, also: repeated, takes: applyRules{}, max: s.maxBody,
	}, s.applyRules)
	register(a, route{id: "list-tasks", method: "GET", path: "/v1/tasks", summary: "Long work on the mail side, newest first"}, s.listTasks)
	register(a, route{id: "get-task", method: "GET", path: "/v1/tasks/{id}", summary: "How far a task is; it is canceled and retried as the job with its id"}, s.getTask)
}

func (s service) createRule(ctx context.Context, in *newRuleInput) (*reply[*mail.Rule], error) {
	rule, err := s.mail.CreateRule(ctx, in.value.rule())
	return &reply[*mail.Rule]{rule}, err
}

func (s service) listRules(ctx context.Context, in *Paging) (*reply[ruleList], error) {
	rules, next, err := s.mail.Rules(ctx, in.page())
	return &reply[ruleList]{ruleList{rules, optional(next)}}, err
}

func (s service) getRule(ctx context.Context, in *idInput) (*reply[*mail.Rule], error) {
	rule, err := s.mail.Rule(ctx, in.ID)
	return &reply[*mail.Rule]{rule}, err
}

func (s service) replaceRule(ctx context.Context, in *replaceRuleInput) (*reply[*mail.Rule], error) {
	rule, err := s.mail.ReplaceRule(ctx, in.ID, in.value.rule())
	return &reply[*mail.Rule]{rule}, err
}

func (s service) updateRule(ctx context.Context, in *ruleChangeInput) (*reply[*mail.Rule], error) {
	c := in.value
	rule, err := s.mail.UpdateRule(ctx, in.ID, mail.RuleChange{
		Name: c.Name, Description: c.Description, Scope: c.Scope, ScopeRef: c.ScopeRef, Priority: c.Priority, Enabled: c.Enabled,
		DisabledReason: c.DisabledReason, Conditions: c.Conditions, ActionType: c.ActionType, ActionParameters: c.ActionParameters,
		SafeMode: c.SafeMode,
	})
	return &reply[*mail.Rule]{rule}, err
}

func (s service) deleteRule(ctx context.Context, in *idInput) (*struct{}, error) {
	return &struct{}{}, s.mail.DeleteRule(ctx, in.ID)
}

func (s service) tryRules(ctx context.Context, in *trialInput) (*reply[triedList], error) {
	v := in.value
	limit, err := within(v.Limit, "limit", 1, 200)
	if err != nil {
		return nil, err
	}
	if limit == 0 {
		limit = 50
	}
	if err := checkTexts("account", text(v.Account)); err != nil {
		return nil, err
	}
	if err := checkTexts("cursor", text(v.Cursor)); err != nil {
		return nil, err
	}
	t := mail.Trial{AccountID: text(v.Account), PageOf: mail.PageOf{Limit: limit, Cursor: text(v.Cursor)}}
	if v.Messages != nil {
		if t.Messages = *v.Messages; len(t.Messages) > 200 {
			return nil, invalid("messages", "are more than 200")
		}
		if err := checkTexts("messages", t.Messages...); err != nil {
			return nil, err
		}
	}
	if v.Rules != nil {
		t.Rules = make([]mail.NewRule, len(v.Rules))
		for i, n := range v.Rules {
			t.Rules[i] = n.rule()
		}
	}
	tried, next, err := s.mail.DryRun(ctx, t)
	return &reply[triedList]{triedList{tried, optional(next)}}, err
}

func (s service) applyRules(ctx context.Context, in *applyRulesInput) (*replyAs[*mail.Task], error) {
	if err := checkTexts("account", text(in.value.Account)); err != nil {
		return nil, err
	}
	task, repeated, err := s.mail.ApplyRules(ctx, text(in.value.Account))
	return answerTask(task, repeated), err
}

// checkTexts refuses what no id can be: the database takes no NUL.
func checkTexts(field string, texts ...string) error {
	for _, t := range texts {
		if err := job.CheckText(field, t, job.MaxKey); err != nil {
			return err
		}
	}
	return nil
}

func answerTask(task *mail.Task, repeated bool) *replyAs[*mail.Task] {
	if repeated {
		return &replyAs[*mail.Task]{http.StatusOK, task}
	}
	return &replyAs[*mail.Task]{http.StatusAccepted, task}
}

type listTasksInput struct {
	Paging
	Account string `query:"account" doc:"The id of an account."`
}

type taskList struct {
	Tasks []mail.Task `json:"tasks" nullable:"false"`
	Next  *string     `json:"next_cursor"`
}

func (s service) listTasks(ctx context.Context, in *listTasksInput) (*reply[taskList], error) {
	tasks, next, err := s.mail.Tasks(ctx, in.Account, in.page())
	return &reply[taskList]{taskList{tasks, optional(next)}}, err
}

func (s service) getTask(ctx context.Context, in *idInput) (*reply[*mail.Task], error) {
	task, err := s.mail.Task(ctx, in.ID)
	return &reply[*mail.Task]{task}, err
}
