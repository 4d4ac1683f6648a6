package main

import (
	"context"
	"encoding/json"
	"net/http"

	"github.com/postroom/postroom/core/job"
	"github.com/postroom/postroom/core/mail"
	"github.com/postroom/postroom/core/token"
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
		id: "create-account", role: token.Admin, method: "POST", path: "/v1/accounts", summary: "Add an account",
		status: http.StatusCreated, takes: newAccount{}, max: s.maxBody,
	}, s.createAccount)
	register(a, route{id: "list-accounts", method: "GET", path: "/v1/accounts", summary: "List accounts, newest first"}, s.listAccounts)
	repeated := map[int]string{http.StatusOK: "it is under way already: that task"}
	register(a, route{
		id: "update-account", role: token.Admin, method: "PATCH", path: "/v1/accounts/{id}", summary: "Rename, pause or resume an account",
		takes: accountChange{}, max: s.maxBody,
	}, s.updateAccount)
	register(a, route{
		id: "remove-account", role: token.Admin, method: "DELETE", path: "/v1/accounts/{id}", status: http.StatusAccepted,
		summary: "Remove an account: a task deletes what is stored about it; nothing happens to its mail",
	}, s.removeAccount)
	register(a, route{
		id: "resync-account", role: token.Admin, method: "POST", path: "/v1/accounts/{id}/resync", summary: "Look at every file of an account again, now",
		status: http.StatusAccepted,
	}, s.resyncAccount)
	register(a, route{
		id: "import-mail", role: token.Admin, method: "POST", path: "/v1/accounts/{id}/import", summary: "Take in a Maildir, an mbox file or a folder of .eml files: a task",
		status: http.StatusAccepted, also: repeated, takes: newImport{}, max: s.maxBody,
	}, s.importMail)
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

// accountChange is what is to change about an account; what is left out stays.
type accountChange struct {
	DisplayName *string `json:"display_name,omitempty" doc:"Empty for none."`
	Paused      *bool   `json:"paused,omitempty" doc:"While it is, nothing is taken in and no action carried out."`
}

type accountChangeInput struct {
	jsonBody[accountChange]
	ID string `path:"id"`
}

// newImport is mail to be taken in.
type newImport struct {
	Path       string  `json:"path" doc:"An absolute path, as the account's runner sees it."`
	Format     *string `json:"format,omitempty" enum:"maildir,mbox,eml" doc:"Left out, the runner looks."`
	ApplyRules *bool   `json:"apply_rules,omitempty" default:"false" doc:"Whether rules judge what comes in."`
}

type importInput struct {
	jsonBody[newImport]
	ID string `path:"id"`
}

func (s service) updateAccount(ctx context.Context, in *accountChangeInput) (*reply[*mail.Account], error) {
	account, err := s.mail.UpdateAccount(ctx, in.ID, mail.AccountChange{DisplayName: in.value.DisplayName, Paused: in.value.Paused})
	return &reply[*mail.Account]{account}, err
}

func (s service) removeAccount(ctx context.Context, in *idInput) (*reply[*mail.Task], error) {
	task, err := s.mail.RemoveAccount(ctx, in.ID)
	return &reply[*mail.Task]{task}, err
}

func (s service) resyncAccount(ctx context.Context, in *idInput) (*reply[*mail.Account], error) {
	account, err := s.mail.Resync(ctx, in.ID)
	return &reply[*mail.Account]{account}, err
}

func (s service) importMail(ctx context.Context, in *importInput) (*replyAs[*mail.Task], error) {
	v := in.value
	task, repeated, err := s.mail.Import(ctx, job.ImportPayload{
		AccountID: in.ID, Path: v.Path, Format: text(v.Format), ApplyRules: v.ApplyRules != nil && *v.ApplyRules,
	})
	return answerTask(task, repeated), err
}

func (p Paging) page() mail.PageOf { return mail.PageOf{Limit: p.Limit, Cursor: p.Cursor} }

// optional is null for nothing.
func optional(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}
