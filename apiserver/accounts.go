package main

import (
	"context"
	"encoding/json"
	"net/http"

	"github.com/postroom/postroom/core/mail"
)

// newAccount is an account as a client asks for it.
type newAccount struct {
	Provider    string          `json:"provider" enum:"maildir"`
	Email       string          `json:"email"`
	DisplayName *string         `json:"display_name,omitempty"`
	Config      json.RawMessage `json:"config" doc:"For a maildir {\"path\": \"/var/mail/me\"}, and \"queue\" where other runners than those of the default queue see the path."`
}

type newAccountInput struct{ jsonBody[newAccount] }

type accountList struct {
	Accounts []mail.Account `json:"accounts" nullable:"false"`
	Next     *string        `json:"next_cursor"`
}

func (s service) accountRoutes(a *api) {
	register(a, route{
		id: "create-account", method: "POST", path: "/v1/accounts", summary: "Add an account",
		status: http.StatusCreated, takes: newAccount{}, max: s.maxBody,
	}, s.createAccount)
	register(a, route{id: "list-accounts", method: "GET", path: "/v1/accounts", summary: "List accounts, newest first"}, s.listAccounts)
	register(a, route{id: "get-account", method: "GET", path: "/v1/accounts/{id}", summary: "An account"}, s.getAccount)
}

func (s service) createAccount(ctx context.Context, in *newAccountInput) (*reply[*mail.Account], error) {
	n := in.value
	account, err := s.mail.CreateAccount(ctx, mail.NewAccount{
		Provider: n.Provider, Email: n.Email, DisplayName: text(n.DisplayName), Config: n.Config,
	})
	return &reply[*mail.Account]{account}, err
}

func (s service) listAccounts(ctx context.Context, in *Paging) (*reply[accountList], error) {
	accounts, next, err := s.mail.Accounts(ctx, in.page())
	return &reply[accountList]{accountList{accounts, optional(next)}}, err
}

func (s service) getAccount(ctx context.Context, in *idInput) (*reply[*mail.Account], error) {
	account, err := s.mail.Account(ctx, in.ID)
	return &reply[*mail.Account]{account}, err
}

func (p Paging) page() mail.PageOf { return mail.PageOf{Limit: p.Limit, Cursor: p.Cursor} }

// optional is null for nothing.
func optional(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}
