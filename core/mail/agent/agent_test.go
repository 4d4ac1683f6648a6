package agent_test

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/postroom/postroom/core/internal/dbtest"
	"github.com/postroom/postroom/core/job"
	"github.com/postroom/postroom/core/libsql"
	"github.com/postroom/postroom/core/mail"
	"github.com/postroom/postroom/core/mail/agent"
	"github.com/postroom/postroom/core/mail/maildir"
	"github.com/postroom/postroom/core/queue"
	"github.com/postroom/postroom/core/system"
	"github.com/postroom/postroom/core/worker"
)

// rig is a running mail path over a fresh database and an empty Maildir.
type rig struct {
	*testing.T
	db      libsql.DB
	q       *queue.Queue
	store   *mail.Store
	account *mail.Account
	dir     *maildir.Dir
}

func setup(t *testing.T) *rig {
	t.Helper()
	db := dbtest.Open(t)
	q := queue.New(db, system.Real{}, job.Known())
	r := &rig{T: t, db: db, q: q, store: mail.NewStore(db, q)}
	path := filepath.Join(t.TempDir(), "Maildir")
	var err error
	if r.dir, err = maildir.Create(path); err != nil {
		t.Fatal(err)
	}
	r.account, err = r.store.CreateAccount(t.Context(), mail.NewAccount{
		Provider: "maildir", Email: "me@example.org", Config: job.Payload(mail.MaildirConfig{Path: path}),
	})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// run starts a worker with the mail path's handlers until stop is called or
// the test ends.
func (r *rig) run() (stop func()) {
	r.Helper()
	ctx, cancel := context.WithCancel(r.Context())
	a := agent.New(ctx, r.store, r.q, zerolog.New(zerolog.NewTestWriter(r)), agent.Config{SyncInterval: 200 * time.Millisecond})
	w, err := worker.New(r.q, system.Real{}, job.Known(), zerolog.New(zerolog.NewTestWriter(r)), worker.Config{
		Runner: queue.Runner{ID: "runner", Host: "test", Version: "test"}, Concurrency: 4, Lease: 5 * time.Second,
		Heartbeat: time.Second, Poll: 50 * time.Millisecond, DrainTimeout: 5 * time.Second,
	}, a.Bindings()...)
	if err != nil {
		r.Fatal(err)
	}
	if err := a.Ensure(r.Context()); err != nil {
		r.Fatal(err)
	}
	done := make(chan struct{})
	go func() { defer close(done); _ = w.Run(ctx) }()
	stop = func() { cancel(); <-done }
	r.Cleanup(stop)
	return stop
}

func (r *rig) rule(n mail.NewRule) {
	r.Helper()
	if _, err := r.store.CreateRule(r.Context(), n); err != nil {
		r.Fatal(err)
	}
}

// settled waits until n messages are stored, each decided and acted upon.
func (r *rig) settled(n int) []mail.Message {
	r.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for range tick.C {
		list, _, err := r.store.Messages(r.Context(), "", mail.PageOf{Limit: 2000})
		if err != nil {
			r.Fatal(err)
		}
		open := 0
		for _, m := range list {
			if m.Decision == nil || m.Decision.ActionType != "none" && *m.Decision.ActionStatus != "completed" {
				open++
			}
		}
		if len(list) == n && open == 0 {
			return list
		}
	}
	return nil
}

func TestDemoMailMeetsItsExpectations(t *testing.T) {
	t.Parallel()
	demo := filepath.Join("..", "..", "..", "deploy", "demo")
	var rulesFile []struct {
		Name, Description, Scope string
		Priority                 int64
		Conditions               json.RawMessage
		ActionType               string          `json:"action_type"`
		ActionParameters         json.RawMessage `json:"action_parameters"`
	}
	decode(t, filepath.Join(demo, "rules.json"), &rulesFile)
	var expected []struct{ File, Rule, Action string }
	decode(t, filepath.Join(demo, "expected.json"), &expected)

	r := setup(t)
	for _, n := range rulesFile {
		r.rule(mail.NewRule{Name: n.Name, Scope: n.Scope, Priority: &n.Priority, Conditions: n.Conditions, ActionType: n.ActionType, ActionParameters: n.ActionParameters})
	}
	for _, e := range expected {
		raw, err := os.ReadFile(filepath.Join(demo, "mail", e.File))
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := r.dir.Deliver(e.File, raw); err != nil {
			t.Fatal(err)
		}
	}
	r.run()
	got := map[string]mail.Message{}
	for _, m := range r.settled(len(expected)) {
		got[m.ProviderMessageID] = m
	}
	folders := map[string]string{"archive": "Archive", "trash": "Trash", "move": "Newsletters"}
	flags := map[string]string{"mark_read": "S", "star": "F"}
	for _, e := range expected {
		m := got[e.File]
		rule := ""
		if m.Decision.RuleName != nil {
			rule = *m.Decision.RuleName
		}
		if m.Decision.ActionType != e.Action || rule != e.Rule {
			t.Errorf("%s: %s by rule %q, want %s by %q", e.File, m.Decision.ActionType, rule, e.Action, e.Rule)
		}
		at, err := r.dir.Find(e.File)
		if err != nil {
			t.Errorf("%s: %v", e.File, err)
			continue
		}
		if at.Folder != folders[e.Action] || !strings.Contains(at.Flags, flags[e.Action]) {
			t.Errorf("%s after %s: in folder %q with flags %q", e.File, e.Action, at.Folder, at.Flags)
		}
	}
}

func decode(t *testing.T, path string, v any) {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(raw, v); err != nil {
		t.Fatal(err)
	}
}
