package main

import (
	"context"
	"net/http"

	"github.com/postroom/postroom/core/job"
	"github.com/postroom/postroom/core/mail"
)

type postMessageInput struct {
	rawBody
	Account string `query:"account" required:"true" doc:"The id of the account that receives it."`
}

type listMessagesInput struct {
	Paging
	Account string `query:"account" doc:"The id of an account."`
}

type messageList struct {
	Messages []mail.Message `json:"messages" nullable:"false"`
	Next     *string        `json:"next_cursor"`
}

func (s service) messageRoutes(a *api) {
	register(a, route{
		id: "post-message", method: "POST", path: "/v1/messages", summary: "Deliver a raw message into an account",
		status: http.StatusAccepted, also: map[int]string{http.StatusOK: "the same bytes were posted before: their job, with \"duplicate\": true"},
		takesRaw: "message/rfc822", max: min(s.maxMessage, mail.MaxMessage),
	}, s.postMessage)
	register(a, route{id: "list-messages", method: "GET", path: "/v1/messages", summary: "List messages, newest first"}, s.listMessages)
	register(a, route{id: "get-message", method: "GET", path: "/v1/messages/{id}", summary: "A message with its text, decisions and actions"}, s.getMessage)
}

func (s service) postMessage(ctx context.Context, in *postMessageInput) (*replyAs[anyJob], error) {
	stored, err := s.mail.PostMessage(ctx, in.Account, in.bytes)
	if err != nil {
		return nil, err
	}
	return s.answerStored(ctx, stored, job.MessageIngest, http.StatusAccepted)
}

func (s service) listMessages(ctx context.Context, in *listMessagesInput) (*reply[messageList], error) {
	messages, next, err := s.mail.Messages(ctx, in.Account, in.page())
	return &reply[messageList]{messageList{messages, optional(next)}}, err
}

func (s service) getMessage(ctx context.Context, in *idInput) (*reply[*mail.MessageDetail], error) {
	message, err := s.mail.Message(ctx, in.ID)
	return &reply[*mail.MessageDetail]{message}, err
}
