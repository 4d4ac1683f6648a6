package main

import (
	"context"
	"encoding/json"
	"net/http"

	"github.com/postroom/postroom/core/mail"
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
}

type newRuleInput struct{ jsonBody[newRule] }

type ruleList struct {
	Rules []mail.Rule `json:"rules" nullable:"false"`
	Next  *string     `json:"next_cursor"`
}

func (s service) ruleRoutes(a *api) {
	register(a, route{
		id: "create-rule", method: "POST", path: "/v1/rules", summary: "Add a rule",
		status: http.StatusCreated, takes: newRule{}, max: s.maxBody,
	}, s.createRule)
	register(a, route{id: "list-rules", method: "GET", path: "/v1/rules", summary: "List rules, newest first"}, s.listRules)
	register(a, route{id: "get-rule", method: "GET", path: "/v1/rules/{id}", summary: "A rule"}, s.getRule)
	register(a, route{
		id: "delete-rule", method: "DELETE", path: "/v1/rules/{id}", summary: "Delete a rule", status: http.StatusNoContent,
	}, s.deleteRule)
}

func (s service) createRule(ctx context.Context, in *newRuleInput) (*reply[*mail.Rule], error) {
	n := in.value
	rule, err := s.mail.CreateRule(ctx, mail.NewRule{
		Name: n.Name, Description: text(n.Description), Scope: n.Scope, ScopeRef: text(n.ScopeRef),
		Priority: n.Priority, Enabled: n.Enabled, Conditions: n.Conditions,
		ActionType: n.ActionType, ActionParameters: n.ActionParameters, SafeMode: text(n.SafeMode),
	})
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

func (s service) deleteRule(ctx context.Context, in *idInput) (*struct{}, error) {
	return &struct{}{}, s.mail.DeleteRule(ctx, in.ID)
}
