package main

import (
	"net/http"
	"strings"
	"testing"

	"github.com/postroom/postroom/core/libsql"
)

// message stores a message as the runner would have.
func (f *fixture) message(account, id string) {
	f.t.Helper()
	var b libsql.Batch
	b.Exec("INSERT INTO threads(id, account_id, provider_thread_id, created_at, updated_at) VALUES (?, ?, ?, 0, 0)", id, account, id)
	b.Exec(`INSERT INTO messages(id, account_id, thread_id, provider_message_id, size_bytes, content_sha256, subject, from_email, created_at, updated_at)
		VALUES (?1, ?2, ?1, ?1, 1, 'x', ?3, 'ann@example.com', 0, 0)`, id, account, []byte("hello"))
	if _, err := f.queue.DB().Write(f.t.Context(), &b); err != nil {
		f.t.Fatal(err)
	}
}

func (f *fixture) exec(sql string, args ...any) {
	f.t.Helper()
	var b libsql.Batch
	b.Exec(sql, args...)
	if _, err := f.queue.DB().Write(f.t.Context(), &b); err != nil {
		f.t.Fatal(err)
	}
}

const aMessage = "0193f1a0-8c5e-7abc-8def-0123456789ac"

func TestActions(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.message(f.account("me@example.com"), aMessage)
	path := "/v1/messages/" + aMessage + "/actions"

	f.post(path, `{"action_type":"explode"}`).problem(400, "invalid", "action_type")
	f.post(path, `{"action_type":"none"}`).problem(400, "invalid", "action_type")
	f.post(path, `{"action_type":"forward"}`).problem(400, "invalid", "action_type")
	f.post(path, `{"action_type":"move"}`).problem(400, "invalid", "parameters.folder")
	f.post(path, `{"action_type":"move","parameters":{"folder":"../x"}}`).problem(400, "invalid", "parameters.folder")
	f.post(path, `{"action_type":"snooze","parameters":{"for":"1h","until":"2030-01-01T00:00:00Z"}}`).problem(400, "invalid", "parameters.until")
	f.post(path, `{"action_type":"snooze","parameters":{"until":"2020-01-01T00:00:00Z"}}`).problem(400, "invalid", "parameters.until")
	f.post(path, `{"action_type":"snooze","parameters":{"until":"soon"}}`).problem(400, "invalid", "parameters.until")
	f.post(path, `{"action_type":"apply_label","parameters":{"label":7}}`).problem(400, "invalid", "parameters.label")
	f.post("/v1/messages/"+unknownID+"/actions", `{"action_type":"star"}`).problem(404, "not_found", "")

	star := f.post(path, `{"action_type":"star"}`).is(202)
	if star["status"] != "queued" || star["undoable"] != true || star["undone_by"] != nil || star["approval_expires_at"] != nil {
		t.Errorf("got %v", star)
	}
	one := "/v1/actions/" + star["id"].(string)
	if got := f.get(one).is(200); got["id"] != star["id"] {
		t.Errorf("got %v", got)
	}
	f.post(one+"/approve", "").problem(409, "invalid_state", "")
	f.post(one+"/reject", "").problem(409, "invalid_state", "")
	f.post(one+"/undo", "").problem(409, "invalid_state", "")
	if got := f.post(one+"/cancel", "").is(200); got["status"] != "canceled" || got["undoable"] != false {
		t.Errorf("got %v", got)
	}
	f.post(one+"/cancel", "").is(200) // the same again
	for _, verb := range []string{"", "/approve", "/reject", "/undo", "/cancel"} {
		method := "POST"
		if verb == "" {
			method = "GET"
		}
		f.call(method, "/v1/actions/"+unknownID+verb, "").problem(404, "not_found", "")
	}

	remove := f.post(path, `{"action_type":"delete"}`).is(202)
	if remove["status"] != "approved_pending" || remove["undoable"] != false || remove["approval_expires_at"] == nil {
		t.Errorf("got %v", remove)
	}
	two := "/v1/actions/" + remove["id"].(string)
	if list := f.get("/v1/actions?status=approved_pending").is(200)["actions"].([]any); len(list) != 1 {
		t.Errorf("got %v", list)
	}
	if got := f.post(two+"/approve", "").is(200); got["status"] != "queued" || got["approved_at"] == nil {
		t.Errorf("got %v", got)
	}
	f.exec("UPDATE actions SET status = 'executing' WHERE id = ?", remove["id"])
	f.exec("UPDATE actions SET status = 'completed' WHERE id = ?", remove["id"])
	f.post(two+"/undo", "").problem(409, "not_undoable", "")

	archive := f.post(path, `{"action_type":"archive"}`).is(202)
	f.exec("UPDATE actions SET status = 'executing' WHERE id = ?", archive["id"])
	f.exec("UPDATE actions SET status = 'completed' WHERE id = ?", archive["id"])
	three := "/v1/actions/" + archive["id"].(string)
	undo := f.post(three+"/undo", "").is(202)
	if undo["action_type"] != "undo" || undo["undoable"] != false {
		t.Errorf("got %v", undo)
	}
	if again := f.post(three+"/undo", "").is(200); again["id"] != undo["id"] {
		t.Errorf("got %v", again)
	}
	if got := f.get(three).is(200); got["undone_by"] != undo["id"] || got["undoable"] != false {
		t.Errorf("got %v", got)
	}
	if got := f.get("/v1/actions?account=" + unknownID); got.status != http.StatusOK || strings.TrimSpace(got.raw) != `{"actions":[],"next_cursor":null}` {
		t.Errorf("got %s", got.raw)
	}
	first := f.get("/v1/actions?limit=1").is(200)
	second := f.get("/v1/actions?limit=200&cursor=" + first["next_cursor"].(string)).is(200)
	if n := len(second["actions"].([]any)); n != 3 || second["next_cursor"] != nil {
		t.Errorf("%d more: %v", n, second)
	}
}
