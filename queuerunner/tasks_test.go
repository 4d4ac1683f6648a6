package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/postroom/postroom/core/job"
	"github.com/postroom/postroom/core/libsql"
	"github.com/postroom/postroom/core/mail"
	"github.com/postroom/postroom/core/mail/maildir"
)

func TestAccountsArePausedResyncedAndRemoved(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	path := filepath.Join(t.TempDir(), "Maildir")
	if _, err := maildir.Create(path); err != nil {
		t.Fatal(err)
	}
	id := strings.TrimSpace(fine(t, db.path, "accounts", "add", "-email", "me@example.com", "-path", path))
	if out := fine(t, db.path, "accounts", "pause", id); !strings.Contains(out, "paused") {
		t.Error(out)
	}
	if a := decode[mail.Account](t, fine(t, db.path, "accounts", "show", id, "-json")); !a.Paused {
		t.Errorf("%+v", a)
	}
	if out := fine(t, db.path, "accounts", "resume", id); strings.Contains(out, "paused") || !strings.Contains(out, "never") {
		t.Error(out)
	}
	if out := fine(t, db.path, "accounts", "resync", id); !strings.Contains(out, id) {
		t.Error(out)
	}
	for _, state := range []struct{ json, want string }{
		{`{"last_error":"away"}`, "error: away"}, {`{"problems":3}`, "3 files or folders cannot be read"},
		{`{"taking_in":700}`, "taking mail in, 700 messages so far"}, {`{}`, "fine"},
	} {
		if got := stateText(mail.Account{State: []byte(state.json)}); got != state.want {
			t.Errorf("%s is shown as %q", state.json, got)
		}
	}
	var b libsql.Batch
	why := strings.Repeat("long ", 30) + "reason"
	b.Exec("UPDATE accounts SET state_json = json_object('last_error', ?, 'problems', 1, 'unreadable', json(?)) WHERE id = ?", why, `[{"name":"1.host","problem":"too large"}]`, id)
	if _, err := db.q.DB().Write(t.Context(), &b); err != nil {
		t.Fatal(err)
	}
	if out := fine(t, db.path, "accounts", "show", id); !strings.Contains(out, why) || !strings.Contains(out, "1.host: too large") {
		t.Error(out)
	}
	for _, args := range [][]string{{"pause"}, {"resume"}, {"resync"}, {"remove"}, {"show"}} {
		r := cli(t, db.path, append(append([]string{"accounts"}, args...), "0193f1a0-8c5e-7abc-8def-0123456789ac")...)
		if r.code != exitFailed || !strings.Contains(r.err, "not found") {
			t.Errorf("%v: %+v", args, r)
		}
	}
	startRunner(t, db.path)
	if out := fine(t, db.path, "accounts", "remove", id); !strings.Contains(out, "completed") {
		t.Error(out)
	}
	if r := cli(t, db.path, "accounts", "show", id); r.code != exitFailed {
		t.Errorf("%+v", r)
	}
	if info, err := os.Stat(filepath.Join(path, "cur")); err != nil || !info.IsDir() {
		t.Errorf("the Maildir is gone: %v", err)
	}
}

func TestImportShowsItsProgress(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	dir := t.TempDir()
	id := strings.TrimSpace(fine(t, db.path, "accounts", "add", "-email", "me@example.com", "-path", filepath.Join(dir, "Maildir")))
	var box strings.Builder
	const n = 3
	for i := range n {
		fmt.Fprintf(&box, "From x\nSubject: %d\n\nbody\n\n", i)
	}
	path := filepath.Join(dir, "box")
	if err := os.WriteFile(path, []byte(box.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{path}, exitWrong, "-account is required"},
		{[]string{"-account", id}, exitWrong, "PATH is missing"},
		{[]string{"-account", id, "-format", "pst", path}, exitWrong, "-format"},
		{[]string{"-account", "0193f1a0-8c5e-7abc-8def-0123456789ac", path}, exitFailed, "not found"},
	} {
		if r := cli(t, db.path, append([]string{"import"}, c.args...)...); r.code != c.code || !strings.Contains(r.err, c.want) {
			t.Errorf("%v: %+v", c.args, r)
		}
	}
	waiting := strings.TrimSpace(fine(t, db.path, "import", "-account", id, "-detach", path))
	if out := fine(t, db.path, "tasks", "show", waiting); !strings.Contains(out, "queued: 0 done") {
		t.Error(out)
	}
	if p := decode[struct{ Tasks []mail.Task }](t, fine(t, db.path, "tasks", "list", "-account", id, "-json")); len(p.Tasks) != 1 || p.Tasks[0].ID != waiting {
		t.Errorf("%+v", p)
	}
	startRunner(t, db.path)
	db.await(waiting, job.Completed)

	// On a terminal a bar is drawn over itself, and the last line stays.
	terminal, screen := openTerminal(t)
	var out bytes.Buffer
	lookup := func(name string) (string, bool) {
		if name == "PATHS_DATABASE" {
			return db.path, true
		}
		return "", false
	}
	if code := run(t.Context(), []string{"import", "-account", id, path}, lookup, strings.NewReader(""), &out, terminal); code != exitFine {
		t.Errorf("exit %d", code)
	}
	if err := terminal.Close(); err != nil {
		t.Fatal(err)
	}
	if got := <-screen; !strings.Contains(got, "\r[##############################] completed: 3 of 3 done, 0 changed\x1b[K") {
		t.Errorf("the screen got %q", got)
	}
	if got := out.String(); got != "[##############################] completed: 3 of 3 done, 0 changed\n" {
		t.Errorf("printed %q", got)
	}
	if out := fine(t, db.path, "tasks", "list"); !strings.Contains(out, waiting) || !strings.Contains(out, "3 of 3 done, 3 changed") {
		t.Error(out)
	}
}

func TestTaskLine(t *testing.T) {
	t.Parallel()
	queued, running, failed, completed, problem := "queued", "running", "failed", "completed", "no \x1b[31mcolour"
	total := int64(10)
	for want, task := range map[string]mail.Task{
		"forgotten: 7 done, 0 changed":                                                                               {Done: 7},
		"[###############...............] running: 5 of 10 done, 2 changed":                                          {State: &running, Total: &total, Done: 5, Changed: 2},
		"[##############################] running: 12 of 10 done, 0 changed":                                         {State: &running, Total: &total, Done: 12},
		`[..............................] running: 0 of 10 done, 0 changed, 1 problems, the last: no \x1b[31mcolour`: {State: &running, Total: &total, Problems: 1, LastProblem: &problem},
		`queued: 0 done, 0 changed; it waits: no \x1b[31mcolour`:                                                     {State: &queued, LastProblem: &problem},
		`completed: 0 done, 0 changed`:                                                                               {State: &completed, LastProblem: &problem, LastError: &problem},
		`queued: 0 done, 0 changed; the last try failed: no \x1b[31mcolour`:                                          {State: &queued, LastError: &problem},
		`failed: 0 done, 0 changed; the last try failed: no \x1b[31mcolour`:                                          {State: &failed, LastError: &problem},
	} {
		if got := taskLine(&task); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
