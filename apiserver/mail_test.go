package main

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
)

// mailRoutes are the routes of the mail side.
var mailRoutes = []string{
	"DELETE /v1/accounts/{id}", "PATCH /v1/accounts/{id}", "POST /v1/accounts/{id}/import", "POST /v1/accounts/{id}/resync",
	"DELETE /v1/rules/{id}", "GET /v1/accounts", "GET /v1/accounts/{id}", "GET /v1/actions", "GET /v1/actions/{id}",
	"GET /v1/messages", "GET /v1/messages/{id}", "GET /v1/rules", "GET /v1/rules/{id}", "GET /v1/tasks", "GET /v1/tasks/{id}",
	"GET /v1/threads", "GET /v1/threads/{id}",
	"PATCH /v1/rules/{id}", "POST /v1/accounts",
	"POST /v1/actions/{id}/approve", "POST /v1/actions/{id}/cancel", "POST /v1/actions/{id}/reject", "POST /v1/actions/{id}/undo",
	"POST /v1/messages", "POST /v1/messages/{id}/actions", "POST /v1/rules",
	"POST /v1/rules:apply", "POST /v1/rules:dryrun", "PUT /v1/rules/{id}",
}

const aRule = `{"name":"r","scope":"global","conditions":{"op":"sender_email","value":"*@example.com"},"action_type":"archive"}`

func (f *fixture) account(email string) string {
	f.t.Helper()
	body := fmt.Sprintf(`{"provider":"maildir","email":%q,"config":{"path":"/var/mail/me"}}`, email)
	return f.post("/v1/accounts", body).is(201)["id"].(string)
}

func (f *fixture) deliver(account, message string) answer {
	f.t.Helper()
	return f.call("POST", "/v1/messages?account="+account, message, "Content-Type", "message/rfc822")
}

func TestAccounts(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	if got := strings.TrimSpace(f.get("/v1/accounts").raw); got != `{"accounts":[],"next_cursor":null}` {
		t.Errorf("an empty list is %s", got)
	}
	id := f.account("me@example.com")
	got := f.get("/v1/accounts/" + id).is(200)
	want := []string{"config", "created_at", "display_name", "email", "id", "paused", "provider", "state", "updated_at"}
	if keys := slices.Sorted(maps.Keys(got)); !slices.Equal(keys, want) || got["display_name"] != nil || !stamp.MatchString(got["created_at"].(string)) {
		t.Errorf("got %v", got)
	}
	f.account("you@example.com")
	first := f.get("/v1/accounts?limit=1").is(200)
	second := f.get("/v1/accounts?limit=1&cursor=" + first["next_cursor"].(string)).is(200)
	if second["accounts"].([]any)[0].(map[string]any)["id"] != id || second["next_cursor"] != nil {
		t.Errorf("the second page is %v", second)
	}
	f.post("/v1/accounts", `{"provider":"maildir","email":"me@example.com","config":{"path":"/x"}}`).problem(409, "email_in_use", "")
	f.post("/v1/accounts", `{"provider":"pop3","email":"a@example.com","config":{"path":"/x"}}`).problem(400, "invalid", "provider")
	f.post("/v1/accounts", `{"provider":"maildir","email":"a@example.com","config":{"path":"x"}}`).problem(400, "invalid", "config.path")
	f.post("/v1/accounts", `{"provider":"maildir","email":"a@example.com"}`).problem(400, "invalid", "config")
	f.post("/v1/accounts", `{"provider":"maildir","email":"a@example.com","config":null}`).problem(400, "invalid", "config")
	f.get("/v1/accounts/"+unknownID).problem(404, "not_found", "")
	f.get("/v1/accounts?cursor=x").problem(400, "invalid", "cursor")
}

func TestAccountsAreRenamedPausedResyncedAndRemoved(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	id := f.account("me@example.com")
	path := "/v1/accounts/" + id
	patch := func(body string) answer {
		t.Helper()
		return f.call("PATCH", path, body, "Content-Type", "application/json")
	}
	if got := patch(`{"display_name":"Me"}`).is(200); got["display_name"] != "Me" || got["paused"] != false {
		t.Errorf("got %v", got)
	}
	if got := patch(`{"paused":true}`).is(200); got["display_name"] != "Me" || got["paused"] != true {
		t.Errorf("got %v", got)
	}
	if got := patch(`{"paused":false,"display_name":""}`).is(200); got["display_name"] != nil || got["paused"] != false {
		t.Errorf("got %v", got)
	}
	if got := patch(`{}`).is(200); got["paused"] != false {
		t.Errorf("got %v", got)
	}
	patch(`{"email":"you@example.com"}`).problem(400, "invalid", "email")
	patch(`{"paused":"yes"}`).problem(400, "invalid", "paused")
	f.call("PATCH", "/v1/accounts/"+unknownID, `{"paused":true}`, "Content-Type", "application/json").problem(404, "not_found", "")

	if got := f.post(path+"/resync", "").is(202); got["id"] != id {
		t.Errorf("got %v", got)
	}
	f.post("/v1/accounts/"+unknownID+"/resync", "").problem(404, "not_found", "")

	task := f.call("DELETE", path, "").is(202)
	if task["kind"] != "account.remove" || task["account_id"] != id || task["state"] != "queued" {
		t.Errorf("got %v", task)
	}
	if got := f.get("/v1/tasks/" + task["id"].(string)).is(200); got["id"] != task["id"] {
		t.Errorf("got %v", got)
	}
	f.get(path).problem(404, "not_found", "")
	f.call("DELETE", path, "").problem(404, "not_found", "")
	patch(`{"paused":true}`).problem(404, "not_found", "")
	f.post(path+"/resync", "").problem(404, "not_found", "")
	f.deliver(id, "Subject: x\n\ny").problem(404, "not_found", "")
	if got := f.get("/v1/accounts").is(200)["accounts"].([]any); len(got) != 0 {
		t.Errorf("a removed account is listed: %v", got)
	}
	if again := f.account("me@example.com"); again == id {
		t.Error("the address did not become free")
	}
}

func TestMailIsImportedByATask(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	id := f.account("me@example.com")
	path := "/v1/accounts/" + id + "/import"
	task := f.post(path, `{"path":"/var/mail/old/","format":"mbox","apply_rules":true}`).is(202)
	if task["kind"] != "mail.import" || task["account_id"] != id || task["total"] != nil || task["done"] != 0.0 {
		t.Errorf("got %v", task)
	}
	if again := f.post(path, `{"path":"/var/mail/old"}`).is(200); again["id"] != task["id"] {
		t.Errorf("the same path again: %v", again)
	}
	if other := f.post(path, `{"path":"/var/mail/older"}`).is(202); other["id"] == task["id"] {
		t.Errorf("another path: %v", other)
	}
	job := f.get("/v1/jobs/" + task["id"].(string)).is(200)
	if got := job["payload"].(map[string]any); got["path"] != "/var/mail/old" || got["format"] != "mbox" || got["apply_rules"] != true {
		t.Errorf("the payload is %v", got)
	}
	if list := f.get("/v1/tasks?account=" + id).is(200)["tasks"].([]any); len(list) != 2 {
		t.Errorf("got %v", list)
	}
	f.post(path, `{"path":"old"}`).problem(400, "invalid", "path")
	f.post(path, `{}`).problem(400, "invalid", "path")
	f.post(path, `{"path":"/x","format":"pst"}`).problem(400, "invalid", "format")
	f.post(path, `{"path":"/a\nb"}`).problem(400, "invalid", "path")
	f.post("/v1/accounts/"+unknownID+"/import", `{"path":"/x"}`).problem(404, "not_found", "")
	f.get("/v1/tasks/"+unknownID).problem(404, "not_found", "")
	f.get("/v1/tasks?cursor=x").problem(400, "invalid", "cursor")
}

func TestMessagesAreTakenIn(t *testing.T) {
	t.Parallel()
	f := newFixture(t, func(s *service) { s.maxMessage = 1 << 20 })
	id := f.account("me@example.com")
	const message = "From: you@example.com\r\nSubject: \xe9t\xe9\r\n\r\nhello\r\n"
	first := f.deliver(id, message).is(202)
	if first["type"] != "message.ingest" || first["state"] != "queued" || first["duplicate"] != nil {
		t.Errorf("got %v", first)
	}
	if again := f.deliver(id, message).is(200); again["id"] != first["id"] || again["duplicate"] != true {
		t.Errorf("got %v", again)
	}
	f.deliver(id, strings.Repeat("x", 1<<20)).is(202)
	f.deliver(id, strings.Repeat("x", 1<<20+1)).problem(413, "too_large", "")
	f.deliver(id, "").problem(400, "invalid", "body")
	f.deliver(unknownID, message).problem(404, "not_found", "")
	f.call("POST", "/v1/messages", message, "Content-Type", "message/rfc822").problem(400, "invalid", "account")
	f.call("POST", "/v1/messages?account="+id, message, "Content-Type", "text/plain").problem(415, "unsupported_media_type", "")

	t.Run("a body without a length is bounded too", func(t *testing.T) {
		t.Parallel()
		body := struct{ *strings.Reader }{strings.NewReader(strings.Repeat("x", 3<<20))} // its type hides the length
		send(t, "POST", f.url+"/v1/messages?account="+id, body, "Content-Type", "message/rfc822").problem(413, "too_large", "")
	})
	t.Run("messages and actions are lists", func(t *testing.T) {
		t.Parallel()
		for path, want := range map[string]string{
			"/v1/messages?account=" + id: `{"messages":[],"next_cursor":null}`, "/v1/actions?status=failed&message=" + unknownID: `{"actions":[],"next_cursor":null}`,
		} {
			if got := f.get(path); got.status != http.StatusOK || strings.TrimSpace(got.raw) != want {
				t.Errorf("%s: %d %s", path, got.status, got.raw)
			}
		}
		f.get("/v1/messages/"+unknownID).problem(404, "not_found", "")
		f.get("/v1/actions?status=done").problem(400, "invalid", "status")
	})
}

func TestRules(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	rule := f.post("/v1/rules", aRule).is(201)
	want := []string{
		"action_parameters", "action_type", "conditions", "created_at", "description", "disabled_reason", "enabled", "id",
		"name", "priority", "safe_mode", "scope", "scope_ref", "updated_at",
	}
	if keys := slices.Sorted(maps.Keys(rule)); !slices.Equal(keys, want) || rule["enabled"] != true || rule["priority"] != 100.0 || rule["description"] != nil {
		t.Errorf("got %v", rule)
	}
	path := "/v1/rules/" + rule["id"].(string)
	if got := f.get(path).is(200); got["name"] != "r" {
		t.Errorf("got %v", got)
	}
	if list := f.get("/v1/rules").is(200)["rules"].([]any); len(list) != 1 {
		t.Errorf("got %v", list)
	}
	bad := strings.Replace(aRule, `{"op":"sender_email","value":"*@example.com"}`, `{"op":"and","children":[{"op":"has_attachment"},{"op":"subject_regex","value":"("}]}`, 1)
	f.post("/v1/rules", bad).problem(400, "invalid", "conditions.children[1].value")
	f.post("/v1/rules", strings.Replace(aRule, `"name"`, `"nam"`, 1)).problem(400, "invalid", "nam")
	f.post("/v1/rules", strings.Replace(aRule, "archive", "explode", 1)).problem(400, "invalid", "action_type")
	if got := f.call("DELETE", path, ""); got.status != http.StatusNoContent || got.raw != "" {
		t.Errorf("got %d %s", got.status, got.raw)
	}
	f.call("DELETE", path, "").problem(404, "not_found", "")
	f.get(path).problem(404, "not_found", "")
}
