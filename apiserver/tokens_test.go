package main

import (
	"context"
	"encoding/json"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/postroom/postroom/core/libsql"
	"github.com/postroom/postroom/core/token"
)

// withTokens gives a fixture a token of each role and returns them.
func withTokens(t *testing.T, s *service) map[token.Role]string {
	t.Helper()
	stored := token.Store{DB: s.queue.DB()}
	secrets := map[token.Role]string{}
	for _, role := range token.Roles {
		var err error
		if secrets[role], err = stored.Add(t.Context(), "the-"+string(role), role); err != nil {
			t.Fatal(err)
		}
	}
	s.tokens = token.NewKeyring("configured")
	if err := s.tokens.Refresh(t.Context(), stored); err != nil {
		t.Fatal(err)
	}
	return secrets
}

// Where more than operate is needed to change something, or less.
var (
	forAdmins = []string{"/v1/accounts", "/v1/rules", "/v1/limits", "PUT /v1/cron", "DELETE /v1/cron", "POST /v1/jobs:delete", "DELETE /v1/jobs"}
	forAnyone = []string{"POST /login", "POST /logout", "GET /healthz", "GET /livez", "GET /readyz"}
	forReader = []string{"POST /v1/rules:dryrun"}
)

// roleOf is the role that the test expects a route to need; "" for none.
func roleOf(route string) token.Role {
	method, path, _ := strings.Cut(route, " ")
	begins := func(list []string) bool {
		for _, l := range list {
			if strings.HasPrefix(route, l) || method != "GET" && strings.HasPrefix(path, l) {
				return true
			}
		}
		return false
	}
	switch {
	case route == "GET /" || begins(forAnyone):
		return ""
	case method == "GET" || begins(forReader):
		return token.Read
	case begins(forAdmins):
		return token.Admin
	}
	return token.Operate
}

func TestEveryRouteAsksForItsRole(t *testing.T) {
	t.Parallel()
	var secrets map[token.Role]string
	f := newFixture(t, func(s *service) { secrets = withTokens(t, s) })
	described := f.call("GET", "/openapi.json", "", "Authorization", "Bearer configured").is(200)["paths"].(map[string]any)
	for _, route := range everyRoute {
		method, path, _ := strings.Cut(route, " ")
		needed := roleOf(route)
		security, _ := described[path].(map[string]any)[strings.ToLower(method)].(map[string]any)["security"].([]any)
		if needed == "" {
			if len(security) > 0 {
				t.Errorf("%s is described with %v, but needs no token", route, security)
			}
		} else if role := security[0].(map[string]any)["token"].([]any)[0]; len(security) != 3 || role != string(needed) {
			t.Errorf("%s is described with %v, want the role %s", route, security, needed)
		}
		if path == eventsPath {
			method = "HEAD" // the answer to which ends
		}
		path = strings.NewReplacer("{id}", unknownID, "{name}", "none", "{scope}", "key").Replace(path)
		for _, role := range token.Roles {
			got := f.call(method, path, "", "Authorization", "Bearer "+secrets[role])
			if want := role.Includes(needed); want == (got.status == http.StatusForbidden) || got.status == http.StatusUnauthorized {
				t.Errorf("%s with the role %s: status %d", route, role, got.status)
			}
			if got.status == http.StatusForbidden {
				got.problem(403, "forbidden", "")
				if !strings.Contains(got.raw, "the role "+string(needed)) {
					t.Errorf("%s: it is not said that %s is needed: %s", route, needed, got.raw)
				}
			}
		}
	}
}

func TestMe(t *testing.T) {
	t.Parallel()
	var secrets map[token.Role]string
	f := newFixture(t, func(s *service) { secrets = withTokens(t, s) })
	for secret, want := range map[string]string{
		secrets[token.Read]: `{"name":"the-read","role":"read"}`, secrets[token.Admin]: `{"name":"the-admin","role":"admin"}`, "configured": `{"name":"config","role":"admin"}`,
	} {
		if got := f.call("GET", "/v1/me", "", "Authorization", "Bearer "+secret); got.status != 200 || strings.TrimSpace(got.raw) != want {
			t.Errorf("%d %s, want %s", got.status, got.raw, want)
		}
	}
	if got := newFixture(t).get("/v1/me"); strings.TrimSpace(got.raw) != `{"name":"loopback","role":"admin"}` {
		t.Errorf("without tokens: %s", got.raw)
	}
}

// changes are the lines of the log about changes.
func (f *fixture) changes() (lines []map[string]any) {
	f.t.Helper()
	for text := range strings.Lines(f.log.String()) {
		var line map[string]any
		if err := json.Unmarshal([]byte(text), &line); err != nil {
			f.t.Fatal(err)
		}
		if line["message"] == "change made by hand" {
			lines = append(lines, line)
		}
	}
	return lines
}

func TestChangesAreLoggedWithWhoMadeThem(t *testing.T) {
	t.Parallel()
	var secrets map[token.Role]string
	f := newFixture(t, func(s *service) { secrets = withTokens(t, s) })
	call := func(method, path, body, id string) answer {
		return f.call(method, path, body, "Authorization", "Bearer "+secrets[token.Operate], "Content-Type", "application/json", "X-Request-Id", id)
	}
	call("GET", "/v1/queues", "", "read").is(200)
	call("POST", "/v1/jobs", `{"type":""}`, "refused").is(400)
	call("PUT", "/v1/limits/key/k", `{"max_running":1}`, "forbidden").is(403)
	call("POST", "/v1/rules:dryrun", `{}`, "dry")
	call("POST", "/v1/queues/mail/pause?", "", "paused").is(200)
	lines := f.changes()
	if len(lines) != 1 {
		t.Fatalf("%d lines: %v", len(lines), lines)
	}
	for name, want := range map[string]string{
		"level": "info", "caller": "the-operate", "operation": "pause-queue", "path": "/v1/queues/mail/pause", "request_id": "paused",
	} {
		if lines[0][name] != want {
			t.Errorf("%s is %v, want %s", name, lines[0][name], want)
		}
	}

	open := newFixture(t)
	open.post("/v1/jobs", `{"type":"x"}`).is(201)
	if lines := open.changes(); len(lines) != 1 || lines[0]["caller"] != "loopback" {
		t.Errorf("without a token: %v", lines)
	}
}

const inForm = "application/x-www-form-urlencoded"

func TestABrowserLogsInAndOut(t *testing.T) {
	t.Parallel()
	var secrets map[token.Role]string
	f := newFixture(t, func(s *service) { secrets = withTokens(t, s) })
	cookie := func(a answer) *http.Cookie {
		t.Helper()
		list := (&http.Response{Header: a.header}).Cookies()
		if len(list) != 1 {
			t.Fatalf("cookies: %v", list)
		}
		return list[0]
	}
	got := f.call("POST", "/login", "token="+secrets[token.Read], "Content-Type", inForm, "Sec-Fetch-Site", "same-origin")
	if got.status != 303 || got.header.Get("Location") != "/ui/" {
		t.Fatalf("%d to %s", got.status, got.header.Get("Location"))
	}
	c := cookie(got)
	if c.Name != "postroom_token" || c.Value != secrets[token.Read] || !c.HttpOnly || c.SameSite != http.SameSiteStrictMode || c.Path != "/" || c.Secure || c.MaxAge != 12*60*60 {
		t.Errorf("the cookie is %+v", c)
	}
	if !cookie(f.call("POST", "/login", "token=configured", "Content-Type", inForm, "X-Forwarded-Proto", "https")).Secure {
		t.Error("behind a proxy that says https the cookie may go over http")
	}
	in := []string{"Cookie", c.Name + "=" + c.Value}
	if got := f.call("GET", "/v1/me", "", in...).is(200); got["name"] != "the-read" {
		t.Errorf("logged in as %v", got)
	}
	f.call("POST", "/v1/queues/mail/pause", "", append(in, "Sec-Fetch-Site", "cross-site")...).problem(403, "cross_site", "")
	f.call("POST", "/v1/queues/mail/pause", "", append(in, "Sec-Fetch-Site", "same-origin")...).problem(403, "forbidden", "")

	out := f.call("POST", "/logout", "", append(in, "Sec-Fetch-Site", "same-origin")...)
	if c := cookie(out); out.status != 303 || out.header.Get("Location") != "/ui/#/login" || c.Value != "" || c.MaxAge >= 0 {
		t.Errorf("%d to %s with %+v", out.status, out.header.Get("Location"), c)
	}
	if strings.Contains(f.log.String(), secrets[token.Read]) {
		t.Error("the token is in the log")
	}
	if lines := f.changes(); len(lines) > 0 {
		t.Errorf("changes: %v", lines)
	}
}

func TestALoginThatIsRefused(t *testing.T) {
	t.Parallel()
	f := newFixture(t, func(s *service) { s.tokens = token.NewKeyring("configured") })
	f.call("POST", "/login", "token=configured", "Content-Type", inForm, "Sec-Fetch-Site", "cross-site").problem(403, "cross_site", "")
	f.call("POST", "/login", "token=configured", "Content-Type", inForm, "Origin", "https://evil.example").problem(403, "cross_site", "")
	f.call("POST", "/logout", "", "Sec-Fetch-Site", "cross-site").problem(403, "cross_site", "")
	f.post("/login", `{"token":"configured"}`).problem(415, "unsupported_media_type", "")
	f.call("POST", "/login", "token=%", "Content-Type", inForm).problem(400, "invalid", "")
	f.call("POST", "/login", "token="+strings.Repeat("x", maxLogin), "Content-Type", inForm).problem(413, "too_large", "")
	f.get("/login").problem(401, "unauthorized", "")
	for range 10 {
		got := f.call("POST", "/login?token=configured", "token=wrong", "Content-Type", inForm)
		if got.status != 303 || got.header.Get("Location") != "/ui/#/login?wrong=1" || got.header.Get("Set-Cookie") != "" {
			t.Errorf("%d to %s", got.status, got.header.Get("Location"))
		}
	}
	got := f.call("POST", "/login", "token=configured", "Content-Type", inForm)
	if got.status != 303 || got.header.Get("Location") != "/ui/#/login?wait=1" || got.header.Get("Set-Cookie") != "" {
		t.Errorf("after too many: %d to %s", got.status, got.header.Get("Location"))
	}
	f.call("GET", "/v1/jobs", "", "Authorization", "Bearer wrong").problem(429, "too_many_failures", "")

	none := newFixture(t).call("POST", "/login", "token=any", "Content-Type", inForm)
	if none.status != 303 || none.header.Get("Location") != "/ui/" || none.header.Get("Set-Cookie") != "" {
		t.Errorf("where there are no tokens: %d to %s", none.status, none.header.Get("Location"))
	}
}

func TestAProcessLearnsOfTokensWithoutARestart(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "p.db")
	p := startProcess(t, "paths.database="+path)
	p.get("/v1/me").is(200) // no token yet: this machine is let in
	db, err := libsql.Open(t.Context(), libsql.Options{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		_ = db.Close(ctx)
	})
	stored := token.Store{DB: db}
	secret, err := stored.Add(t.Context(), "new", token.Operate)
	if err != nil {
		t.Fatal(err)
	}
	me := func() answer { return send(t, "GET", p.url+"/v1/me", nil, "Authorization", "Bearer "+secret) }
	p.until("the new token is asked for", func() bool { return p.get("/v1/me").status == 401 })
	if got := me().is(200); got["name"] != "new" {
		t.Errorf("got %v", got)
	}
	if _, err := stored.Add(t.Context(), "other", token.Read); err != nil {
		t.Fatal(err)
	}
	if err := stored.Remove(t.Context(), "new"); err != nil {
		t.Fatal(err)
	}
	p.until("the removed token is refused", func() bool { return me().status != 200 })
}
