package main

import (
	"context"
	"encoding/json"
	"net/http"

	"github.com/postroom/postroom/core/mail"
)

// newAction is a change to a message as a client asks for it.
type newAction struct {
	ActionType string          `json:"action_type" enum:"archive,move,apply_label,remove_label,mark_read,mark_unread,star,unstar,trash,restore,snooze,delete"`
	Parameters json.RawMessage `json:"parameters,omitempty" doc:"{\"folder\"} for move, {\"label\"} for apply_label and remove_label, {\"until\"} (RFC 3339) or {\"for\"} (36h) for snooze; nothing for the others."`
}

type newActionInput struct {
	jsonBody[newAction]
	ID string `path:"id"`
}

type listActionsInput struct {
	Paging
	Account string `query:"account" doc:"The id of an account."`
	Message string `query:"message" doc:"The id of a message."`
	Status  string `query:"status" enum:"queued,executing,completed,failed,canceled,rejected,approved_pending"`
}

type actionList struct {
	Actions []mail.Action `json:"actions" nullable:"false"`
	Next    *string       `json:"next_cursor"`
}

func (s service) actionRoutes(a *api) {
	repeated := map[int]string{http.StatusOK: "it is being taken back, or was: the action that does it"}
	register(a, route{
		id: "create-action", method: "POST", path: "/v1/messages/{id}/actions", summary: "Change a message",
		status: http.StatusAccepted, takes: newAction{}, max: s.maxBody,
	}, s.createAction)
	register(a, route{id: "list-actions", method: "GET", path: "/v1/actions", summary: "List actions, newest first"}, s.listActions)
	register(a, route{id: "get-action", method: "GET", path: "/v1/actions/{id}", summary: "An action"}, s.getAction)
	register(a, route{id: "approve-action", method: "POST", path: "/v1/actions/{id}/approve", summary: "Let an action pass that waits for approval"}, s.approveAction)
	register(a, route{id: "reject-action", method: "POST", path: "/v1/actions/{id}/reject", summary: "Refuse an action that waits for approval"}, s.rejectAction)
	register(a, route{id: "cancel-action", method: "POST", path: "/v1/actions/{id}/cancel", summary: "Call off an action that has not begun"}, s.cancelAction)
	register(a, route{
		id: "undo-action", method: "POST", path: "/v1/actions/{id}/undo", summary: "Take a completed action back",
		status: http.StatusAccepted, also: repeated,
	}, s.undoAction)
}

func (s service) createAction(ctx context.Context, in *newActionInput) (*reply[*mail.Action], error) {
	action, err := s.mail.CreateAction(ctx, in.ID, in.value.ActionType, in.value.Parameters)
	return &reply[*mail.Action]{action}, err
}

func (s service) listActions(ctx context.Context, in *listActionsInput) (*reply[actionList], error) {
	actions, next, err := s.mail.Actions(ctx, mail.ActionFilter{Message: in.Message, Status: in.Status, Account: in.Account}, in.page())
	return &reply[actionList]{actionList{actions, optional(next)}}, err
}

func (s service) getAction(ctx context.Context, in *idInput) (*reply[*mail.Action], error) {
	action, err := s.mail.Action(ctx, in.ID)
	return &reply[*mail.Action]{action}, err
}

func (s service) approveAction(ctx context.Context, in *idInput) (*reply[*mail.Action], error) {
	action, err := s.mail.Approve(ctx, in.ID)
	return &reply[*mail.Action]{action}, err
}

func (s service) rejectAction(ctx context.Context, in *idInput) (*reply[*mail.Action], error) {
	action, err := s.mail.Reject(ctx, in.ID, "")
	return &reply[*mail.Action]{action}, err
}

func (s service) cancelAction(ctx context.Context, in *idInput) (*reply[*mail.Action], error) {
	action, err := s.mail.CancelAction(ctx, in.ID)
	return &reply[*mail.Action]{action}, err
}

func (s service) undoAction(ctx context.Context, in *idInput) (*replyAs[*mail.Action], error) {
	undo, repeated, err := s.mail.Undo(ctx, in.ID)
	status := http.StatusAccepted
	if repeated {
		status = http.StatusOK
	}
	return &replyAs[*mail.Action]{status, undo}, err
}
