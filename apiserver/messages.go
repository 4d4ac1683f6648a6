package main

import (
	"context"
	"net/http"
	"time"

	"github.com/postroom/postroom/core/job"
	"github.com/postroom/postroom/core/mail"
)

type postMessageInput struct {
	rawBody
	Account string `query:"account" required:"true" doc:"The id of the account that receives it."`
}

type listMessagesInput struct {
	Paging
	Account string    `query:"account" doc:"The id of an account."`
	Thread  string    `query:"thread" doc:"The id of a thread."`
	Label   string    `query:"label" doc:"A label that they carry."`
	Query   string    `query:"q" doc:"Words that all occur in sender, subject or text; \"a phrase\", begin*."`
	From    string    `query:"from" doc:"Words of the sender's name and address."`
	Subject string    `query:"subject" doc:"Words of the subject."`
	Text    string    `query:"text" doc:"Words of the text."`
	After   time.Time `query:"after" doc:"Received at or after this time."`
	Before  time.Time `query:"before" doc:"Received before this time."`
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
	register(a, route{id: "list-messages", method: "GET", path: "/v1/messages", summary: "List and search messages, newest first"}, s.listMessages)
	register(a, route{id: "list-threads", method: "GET", path: "/v1/threads", summary: "List an account's threads, the one with the newest message first"}, s.listThreads)
	register(a, route{id: "get-thread", method: "GET", path: "/v1/threads/{id}", summary: "A thread; its messages are /v1/messages?thread=ID"}, s.getThread)
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
	messages, next, err := s.mail.Messages(ctx, mail.MessageFilter{
		Account: in.Account, Thread: in.Thread, Label: in.Label, Query: in.Query, From: in.From, Subject: in.Subject, Text: in.Text,
		After: in.After, Before: in.Before,
	}, in.page())
	return &reply[messageList]{messageList{messages, optional(next)}}, err
}

func (s service) getMessage(ctx context.Context, in *idInput) (*reply[*mail.MessageDetail], error) {
	message, err := s.mail.Message(ctx, in.ID)
	return &reply[*mail.MessageDetail]{message}, err
}

type listThreadsInput struct {
	Paging
	Account string `query:"account" required:"true" doc:"The id of an account."`
}

type threadList struct {
	Threads []mail.Thread `json:"threads" nullable:"false"`
	Next    *string       `json:"next_cursor"`
}

func (s service) listThreads(ctx context.Context, in *listThreadsInput) (*reply[threadList], error) {
	threads, next, err := s.mail.Threads(ctx, in.Account, in.page())
	return &reply[threadList]{threadList{threads, optional(next)}}, err
}

func (s service) getThread(ctx context.Context, in *idInput) (*reply[*mail.Thread], error) {
	thread, err := s.mail.Thread(ctx, in.ID)
	return &reply[*mail.Thread]{thread}, err
}
