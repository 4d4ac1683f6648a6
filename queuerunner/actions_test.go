package main

import (
	"strings"
	"testing"

	"github.com/postroom/postroom/core/libsql"
	"github.com/postroom/postroom/core/mail"
)

const aMessage = "0193f1a0-8c5e-7abc-8def-0123456789ac"

// message stores a message as the runner would have.
func (d *database) message() {
	d.t.Helper()
	a, err := d.mail.CreateAccount(d.t.Context(), mail.NewAccount{Provider: "maildir", Email: "me@example.com", Config: []byte(`{"path":"/m"}`)})
	if err != nil {
		d.t.Fatal(err)
	}
	var b libsql.Batch
	b.Exec("INSERT INTO threads(id, account_id, provider_thread_id, created_at, updated_at) VALUES ('t', ?, 't', 0, 0)", a.ID)
	b.Exec(`INSERT INTO messages(id, account_id, thread_id, provider_message_id, size_bytes, content_sha256, created_at, updated_at)
		VALUES (?, ?, 't', 'm', 1, 'x', 0, 0)`, aMessage, a.ID)
	if _, err := d.q.DB().Write(d.t.Context(), &b); err != nil {
		d.t.Fatal(err)
	}
}

func TestActions(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	db.message()
	star := decode[mail.Action](t, fine(t, db.path, "actions", "add", aMessage, "star", "-json"))
	if star.Status != "queued" || !star.Undoable {
		t.Errorf("%+v", star)
	}
	if out := fine(t, db.path, "actions", "cancel", star.ID); !strings.Contains(out, "canceled") || !strings.Contains(out, "impossible") {
		t.Error(out)
	}
	remove := decode[mail.Action](t, fine(t, db.path, "actions", "add", aMessage, "delete", "-json"))
	if out := fine(t, db.path, "actions", "list", "-status", "approved_pending"); !strings.Contains(out, remove.ID) || strings.Contains(out, star.ID) {
		t.Error(out)
	}
	if a := decode[mail.Action](t, fine(t, db.path, "actions", "reject", remove.ID, "-reason", "no", "-json")); a.Status != "rejected" || *a.ErrorMessage != "no" {
		t.Errorf("%+v", a)
	}
	snooze := decode[mail.Action](t, fine(t, db.path, "actions", "add", aMessage, "snooze", "-for", "36h", "-json"))
	if string(snooze.Parameters) != `{"for":"36h"}` {
		t.Errorf("%+v", snooze)
	}
	if out := fine(t, db.path, "actions", "show", snooze.ID); !strings.Contains(out, "snooze") || !strings.Contains(out, "possible") {
		t.Error(out)
	}
	second := decode[mail.Action](t, fine(t, db.path, "actions", "add", aMessage, "delete", "-json"))
	if a := decode[mail.Action](t, fine(t, db.path, "actions", "approve", second.ID, "-json")); a.Status != "queued" || a.ApprovedAt == nil {
		t.Errorf("%+v", a)
	}
	for _, c := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"add", aMessage, "explode"}, exitWrong, "TYPE: unknown"},
		{[]string{"add", aMessage, "move"}, exitWrong, "-folder: missing"},
		{[]string{"add", aMessage, "archive", "-folder", "x"}, exitWrong, "archive has no parameters"},
		{[]string{"add", aMessage, "snooze", "-until", "2020-01-01T00:00:00Z"}, exitWrong, "-until: lies in the past"},
		{[]string{"add", aMessage, "snooze", "-until", "soon"}, exitWrong, "-until: a time such as"},
		{[]string{"add", "x", "archive"}, exitFailed, "not found"},
		{[]string{"add", aMessage}, exitWrong, "TYPE is missing"},
		{[]string{"approve", snooze.ID}, exitFailed, "the action's status does not allow this"},
		{[]string{"undo", snooze.ID}, exitFailed, "the action's status does not allow this"},
		{[]string{"list", "-status", "done"}, exitWrong, "-status must be"},
		{[]string{"show", "x"}, exitFailed, "not found"},
	} {
		if r := cli(t, db.path, append([]string{"actions"}, c.args...)...); r.code != c.code || !strings.Contains(r.err, c.want) {
			t.Errorf("%v: %+v", c.args, r)
		}
	}
}
