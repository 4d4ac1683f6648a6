package main

import (
	"context"
	"errors"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/postroom/postroom/core/httpd"
	"github.com/postroom/postroom/core/token"
)

// How a browser gets in and out of the pages.
const (
	loginPath  = "/login"
	logoutPath = "/logout"
)

// maxLogin bounds the form of a login.
const maxLogin = 16 << 10

func (s service) loginRoutes(a *api) {
	register(a, route{id: "me", method: "GET", path: "/v1/me", summary: "Who the caller is"}, func(ctx context.Context, _ *struct{}) (*reply[token.Caller], error) {
		return &reply[token.Caller]{httpd.CallerOf(ctx)}, nil
	})
	a.redirect(route{id: "login", role: anyone, method: "POST", path: loginPath, summary: "Log a browser in"},
		"to the pages, with a cookie that holds the token for 12 hours; or back to the page of the login, with wrong=1 or, after too many wrong tokens, wait=1",
		&huma.Schema{Type: "object", Properties: map[string]*huma.Schema{"token": {Type: "string"}}, Required: []string{"token"}}, s.login)
	a.redirect(route{id: "logout", role: anyone, method: "POST", path: logoutPath, summary: "Log a browser out"}, "to the page of the login, without the cookie", nil, s.logout)
}

// redirect adds a route for the forms of pages, which always answers 303.
func (a *api) redirect(r route, whereTo string, form *huma.Schema, handler http.HandlerFunc) {
	pattern := r.method + " " + r.path
	a.add(r, pattern)
	a.mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		if !httpd.IsSameOrigin(r) { // another site must not choose who somebody is
			httpd.WriteProblem(w, r, httpd.NewProblem(http.StatusForbidden, "cross_site", "forms of another site are refused"))
			return
		}
		handler(w, r)
	})
	op := huma.Operation{
		OperationID: r.id, Method: r.method, Path: r.path, Summary: r.summary, Security: r.security(),
		Responses: map[string]*huma.Response{"303": {Description: whereTo}, "default": problemResponse(a.huma.OpenAPI().Components.Schemas)},
	}
	if form != nil {
		op.RequestBody = &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{"application/x-www-form-urlencoded": {Schema: form}}}
	}
	a.huma.OpenAPI().AddOperation(&op)
}

// login takes a token from a form and gives it back as a cookie.
func (s service) login(w http.ResponseWriter, r *http.Request) {
	if err := checkMediaType(r, "application/x-www-form-urlencoded"); err != nil {
		httpd.WriteProblem(w, r, httpd.ProblemOf(err))
		return
	}
	r.Body = http.MaxBytesReader(w, r.Body, maxLogin)
	var large *http.MaxBytesError
	switch err := r.ParseForm(); {
	case errors.As(err, &large):
		httpd.WriteProblem(w, r, httpd.ProblemOf(tooLarge(maxLogin)))
		return
	case err != nil:
		httpd.WriteProblem(w, r, httpd.NewProblem(http.StatusBadRequest, "invalid", "the form cannot be read"))
		return
	}
	to := uiPath
	if !s.tokens.IsEmpty() {
		secret := r.PostForm.Get("token")
		_, p := s.guard.Identify(r, secret)
		switch {
		case p == nil:
			httpd.SetCookie(w, r, secret)
		case p.Status == http.StatusTooManyRequests:
			to += "#/login?wait=1"
		default:
			to += "#/login?wrong=1"
		}
	}
	http.Redirect(w, r, to, http.StatusSeeOther)
}

func (s service) logout(w http.ResponseWriter, r *http.Request) {
	httpd.SetCookie(w, r, "")
	http.Redirect(w, r, uiPath+"#/login", http.StatusSeeOther)
}
