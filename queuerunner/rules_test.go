package main

import (
	"os"
	"strings"
	"testing"

	"github.com/postroom/postroom/core/mail"
)

func TestRulesAreExportedAndImported(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	fine(t, db.path, "rules", "add", "-file", write(t, "rules.json", "["+oneRule+","+wideRule+"]"))
	text := fine(t, db.path, "rules", "export")
	file := write(t, "rules.toml", text)
	if out := fine(t, db.path, "rules", "import", file); out != "0 added, 2 replaced\n" {
		t.Error(out)
	}
	if again := fine(t, db.path, "rules", "export"); again != text {
		t.Errorf("after the import the rules are\n%s\nand were\n%s", again, text)
	}
	other := newDatabase(t)
	if out := fine(t, other.path, "rules", "import", file); out != "2 added, 0 replaced\n" {
		t.Error(out)
	}
	if there := fine(t, other.path, "rules", "export"); there != text {
		t.Errorf("elsewhere the rules are\n%s\nand were\n%s", there, text)
	}
	bad := write(t, "bad.toml", strings.Replace(text, `op = 'has_attachment'`, `op = 'subject_regex', value = '('`, 1))
	if r := cli(t, db.path, "rules", "import", bad); r.code != exitWrong || !strings.Contains(r.err, "conditions.value: ") {
		raw, _ := os.ReadFile(bad)
		t.Errorf("%+v\n%s", r, raw)
	}
	if r := cli(t, db.path, "rules", "import", write(t, "x.toml", "[[rules]]\nnme = 1")); r.code != exitWrong || !strings.Contains(r.err, "line 2, column 1") {
		t.Errorf("%+v", r)
	}
}

func TestRulesAreTriedEnabledAndDeleted(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	db.message()
	any := `{"name":"Any","conditions":{"op":"subject_regex","value":".*"},"action_type":"star"}`
	id := strings.TrimSpace(fine(t, db.path, "rules", "add", "-file", write(t, "one.json", any)))
	if out := fine(t, db.path, "rules", "test"); !strings.Contains(out, "Any") || !strings.Contains(out, `flags: "" → "F"`) {
		t.Error(out)
	}
	if out := fine(t, db.path, "rules", "disable", id, "-reason", "too eager"); out != id+" is disabled\n" {
		t.Error(out)
	}
	if out := fine(t, db.path, "rules", "list"); !strings.Contains(out, "disabled: too eager") {
		t.Error(out)
	}
	if out := fine(t, db.path, "rules", "test"); strings.Contains(out, "Any") {
		t.Error(out)
	}
	if out := fine(t, db.path, "rules", "test", "-file", write(t, "try.json", any), "-message", aMessage); !strings.Contains(out, "star") {
		t.Error(out)
	}
	if r := decode[mail.Rule](t, fine(t, db.path, "rules", "enable", id, "-json")); !r.Enabled || r.DisabledReason != nil {
		t.Errorf("%+v", r)
	}
	task := strings.TrimSpace(fine(t, db.path, "rules", "apply", "-detach"))
	if out := fine(t, db.path, "tasks", "list"); !strings.Contains(out, task) || !strings.Contains(out, "queued: 0 done") {
		t.Error(out)
	}
	if out := fine(t, db.path, "tasks", "show", task); !strings.Contains(out, "queued") {
		t.Error(out)
	}
	if out := fine(t, db.path, "rules", "delete", id); out != id+" is deleted\n" {
		t.Error(out)
	}
	if r := cli(t, db.path, "rules", "delete", id); r.code != exitFailed || !strings.Contains(r.err, "not found") {
		t.Errorf("%+v", r)
	}
}

func TestMessagesAreListedAndSearched(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	db.message()
	if out := fine(t, db.path, "messages", "list"); !strings.Contains(out, aMessage) {
		t.Error(out)
	}
	if out := fine(t, db.path, "messages", "list", "-q", "nothing here", "-before", "2026-01-31", "-json"); !strings.Contains(out, `{"messages":[],"next_cursor":null}`) {
		t.Error(out)
	}
	for _, c := range []struct{ flag, value, want string }{
		{"-q", `""`, "-q: holds no word"}, {"-after", "soon", "a time such as"}, {"-label", "\xff", "not valid UTF-8"},
	} {
		if r := cli(t, db.path, "messages", "list", c.flag, c.value); r.code != exitWrong || !strings.Contains(r.err, c.want) {
			t.Errorf("%s: %+v", c.flag, r)
		}
	}
}
