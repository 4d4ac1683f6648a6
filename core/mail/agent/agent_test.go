package agent_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
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
	testing.TB
	db      libsql.DB
	q       *queue.Queue
	store   *mail.Store
	account *mail.Account
	dir     *maildir.Dir
	crash   func(ctx context.Context, point, actionID string) error
	blind   bool // nothing tells of new files
}

func setup(t *testing.T) *rig {
	t.Helper()
	return setupFor(t)
}

func setupFor(t testing.TB) *rig {
	t.Helper()
	db := dbtest.Open(t)
	types := job.Known()
	for name, typ := range types { // tests need not wait for a retry
		typ.Backoff = job.Backoff{Base: 5 * time.Millisecond, Cap: 5 * time.Millisecond}
		types[name] = typ
	}
	q := queue.New(db, system.Real{}, types)
	r := &rig{TB: t, db: db, q: q, store: mail.NewStore(db, q, mail.Policy{
		ApprovalAlways: []string{"delete"}, Confidence: 0.7, ApprovalExpiry: time.Hour,
	})}
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

// syncer returns a function that looks at the account's Maildir once.
func (r *rig) syncer(tb testing.TB) func() {
	tb.Helper()
	a := agent.New(tb.Context(), r.store, r.q, zerolog.Nop(), agent.Config{SyncInterval: time.Hour})
	return func() {
		if err := a.ScanOnce(tb.Context(), r.account, r.dir); err != nil {
			tb.Fatal(err)
		}
	}
}

// run starts a worker with the mail path's handlers until stop is called or
// the test ends.
func (r *rig) run() (stop func()) {
	r.Helper()
	ctx, cancel := context.WithCancel(r.Context())
	a := agent.New(ctx, r.store, r.q, zerolog.New(zerolog.NewTestWriter(r)), agent.Config{SyncInterval: 200 * time.Millisecond})
	a.CrashAt(r.crash)
	if r.blind {
		a.Blind(r.account.ID)
	}
	w, err := worker.New(r.q, zerolog.New(zerolog.NewTestWriter(r)), worker.Config{
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
	var keeping sync.WaitGroup
	keeping.Go(func() { a.Keep(ctx) })
	stop = func() { cancel(); <-done; keeping.Wait() }
	r.Cleanup(stop)
	return stop
}

func (r *rig) rule(n mail.NewRule) *mail.Rule {
	r.Helper()
	made, err := r.store.CreateRule(r.Context(), n)
	if err != nil {
		r.Fatal(err)
	}
	return made
}

// until asks again and again until the condition holds.
func (r *rig) until(what string, holds func() bool) {
	r.Helper()
	limit := time.After(2 * time.Minute)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-tick.C:
		case <-limit:
			r.Fatalf("gave up waiting: %s", what)
		}
	}
}

// settled waits until n messages are stored, each decided and acted upon.
func (r *rig) settled(n int64) []mail.Message {
	r.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for range tick.C {
		res, err := r.db.Read(r.Context(), libsql.Query(`SELECT (SELECT count(*) FROM messages), (SELECT count(*) FROM decisions),
			(SELECT count(*) FROM actions WHERE status <> 'completed')`))
		if err != nil {
			r.Fatal(err)
		}
		if row := res[0].Rows[0]; row.Int(0) == n && row.Int(1) == n && row.Int(2) == 0 {
			break
		}
	}
	list, _, err := r.store.Messages(r.Context(), mail.MessageFilter{}, mail.PageOf{Limit: 2000})
	if err != nil {
		r.Fatal(err)
	}
	return list
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
	for _, m := range r.settled(int64(len(expected))) {
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

// corpus lists the real messages that lie beside the checkout, distinct by
// content.
func corpus(t *testing.T) [][]byte {
	t.Helper()
	root := filepath.Join("..", "..", "..", "..", "shared", "mail")
	if _, err := os.Stat(root); err != nil {
		t.Skipf("no real mail at %s: this test needs it", root)
	}
	seen := map[[32]byte]bool{}
	var out [][]byte
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		raw, err := os.ReadFile(path)
		if sum := sha256.Sum256(raw); err == nil && len(raw) > 0 && !seen[sum] {
			seen[sum] = true
			out = append(out, raw)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestRealMailIsTakenInOnceAndDecided(t *testing.T) {
	t.Parallel()
	mails := corpus(t)
	r := setup(t)
	r.rule(mail.NewRule{
		Name: "lists", Conditions: json.RawMessage(`{"op":"header_match","header":"List-Id","pattern":"."}`),
		ActionType: "move", ActionParameters: json.RawMessage(`{"folder":"Lists"}`),
	})
	r.rule(mail.NewRule{
		Name: "money", Conditions: json.RawMessage(`{"op":"subject_contains","value":"money"}`), ActionType: "trash",
	})
	r.run()
	post := func() (fresh int) {
		for _, raw := range mails {
			e, err := r.store.PostMessage(t.Context(), r.account.ID, raw)
			if err != nil {
				t.Fatal(err)
			}
			if !e.Duplicate {
				fresh++
			}
		}
		return fresh
	}
	if fresh := post(); fresh != len(mails) {
		t.Fatalf("%d of %d messages were new", fresh, len(mails))
	}
	stored := r.settled(int64(len(mails)))
	byHash := map[string]int{}
	for _, m := range stored {
		byHash[m.ContentSHA256]++
	}
	for i, raw := range mails {
		sum := sha256.Sum256(raw)
		if n := byHash[hex.EncodeToString(sum[:])]; n != 1 {
			t.Errorf("message %d is stored %d times", i, n)
		}
		onDisk, _, err := r.dir.Read(maildir.Entry{Unique: "sha256-" + hex.EncodeToString(sum[:])}, mail.MaxMessage)
		if err != nil || !bytes.Equal(onDisk, raw) {
			t.Errorf("message %d in the Maildir: %d bytes, %v; want the %d posted", i, len(onDisk), err, len(raw))
		}
	}
	if fresh := post(); fresh != 0 {
		t.Errorf("%d messages were taken for new when posted again", fresh)
	}
	if again := r.settled(int64(len(mails))); len(again) != len(stored) {
		t.Errorf("%d messages after posting again, %d before", len(again), len(stored))
	}
	res, err := r.db.Read(t.Context(), libsql.Query("SELECT count(*) FROM message_chunks"))
	if err != nil || res[0].Rows[0].Int(0) != 0 {
		t.Errorf("%d chunks are left behind, %v", res[0].Rows[0].Int(0), err)
	}
}

func TestNastyMessagesSurvive(t *testing.T) {
	t.Parallel()
	r := setup(t)
	r.run()
	big := "Subject: big\r\n\r\n" + strings.Repeat("0123456789abcde\n", 5<<20/16)
	tests := map[string]struct{ raw, subject, body string }{
		"a subject that is a date": {"Subject: 2024-01-02\n\nbody", "2024-01-02", "body"},
		"a NUL":                    {"Subject: x\n\na\x00b", "x", "a\x00b"},
		"bytes that are no UTF-8":  {"Subject: y\n\ncaf\xe9 \xff\xfe", "y", "caf\xe9 \xff\xfe"},
		"five megabytes":           {big, "big", big[len("Subject: big\r\n\r\n"):][:3<<20]}, // what is kept in the database
		"one byte":                 {"x", "", ""},
		"an mbox From line":        {"From me@example.com Thu Jan  1 00:00:00 2026\nSubject: z\n\nbody", "z", "body"},
	}
	for name, test := range tests {
		if _, err := r.store.PostMessage(t.Context(), r.account.ID, []byte(test.raw)); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	r.settled(int64(len(tests)))
	for name, test := range tests {
		sum := sha256.Sum256([]byte(test.raw))
		res, err := r.db.Read(t.Context(), libsql.Query("SELECT subject, body_plain FROM messages WHERE content_sha256 = ?", hex.EncodeToString(sum[:])))
		if err != nil || len(res[0].Rows) != 1 {
			t.Fatalf("%s: %d rows, %v", name, len(res[0].Rows), err)
		}
		row := res[0].Rows[0]
		if row.Str(0) != test.subject || test.body != "" && row.Str(1) != test.body {
			t.Errorf("%s: subject %q and a body of %d bytes, want %q and %d", name, row.Str(0), len(row.Bytes(1)), test.subject, len(test.body))
		}
	}
}

func TestADroppedFileIsNoticed(t *testing.T) {
	t.Parallel()
	r := setup(t)
	r.run()
	for _, unique := range []string{"1.a.host", "2.b.host"} {
		if _, _, err := r.dir.Deliver(unique, []byte("Subject: same bytes\n\ntwice")); err != nil {
			t.Fatal(err)
		}
	}
	r.settled(2) // identical bytes under two names are two messages
}

func TestAnUnreadableMaildirIsShownAndHeals(t *testing.T) {
	t.Parallel()
	r := setup(t)
	away := r.dir.Path() + ".away"
	stop := r.run()
	r.state(func(s string) bool {
		return strings.Contains(s, `"last_error":null`) || strings.Contains(s, "last_sync_at")
	})
	stop()
	if err := os.Rename(r.dir.Path(), away); err != nil {
		t.Fatal(err)
	}
	r.run()
	if _, err := r.store.PostMessage(t.Context(), r.account.ID, []byte("Subject: posted\n\nx")); err != nil {
		t.Fatal(err)
	}
	r.state(func(s string) bool { return strings.Contains(s, "not a Maildir") })
	r.until("the posted message waits", func() bool {
		return r.count("SELECT count(*) FROM jobs WHERE type = 'message.ingest' AND claims > 0 AND state = 'queued' AND failures = 0") == 1
	})
	if _, err := os.Stat(r.dir.Path()); err == nil {
		t.Error("a mailbox that was there before was made anew")
	}
	if err := os.Rename(away, r.dir.Path()); err != nil {
		t.Fatal(err)
	}
	if _, _, err := r.dir.Deliver("1.a.host", []byte("Subject: x\n\ny")); err != nil {
		t.Fatal(err)
	}
	r.settled(2)
}

// state waits until the account's state says what is wanted.
func (r *rig) state(want func(string) bool) {
	r.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for range tick.C {
		acc, err := r.store.Account(r.Context(), r.account.ID)
		if err != nil {
			r.Fatal(err)
		}
		if want(string(acc.State)) {
			return
		}
	}
}

func TestRulesAreCheckedWhenSaved(t *testing.T) {
	t.Parallel()
	r := setup(t)
	tests := map[string]struct {
		rule  mail.NewRule
		field string
	}{
		"a broken regex":    {mail.NewRule{Name: "x", ActionType: "archive", Conditions: json.RawMessage(`{"op":"and","children":[{"op":"subject_regex","value":"("}]}`)}, "conditions.children[0].value"},
		"no name":           {mail.NewRule{ActionType: "archive", Conditions: json.RawMessage(`{"op":"has_attachment"}`)}, "name"},
		"an unknown action": {mail.NewRule{Name: "x", ActionType: "explode", Conditions: json.RawMessage(`{"op":"has_attachment"}`)}, "action_type"},
		"a missing folder":  {mail.NewRule{Name: "x", ActionType: "move", Conditions: json.RawMessage(`{"op":"has_attachment"}`)}, "action_parameters.folder"},
		"an unknown scope":  {mail.NewRule{Name: "x", Scope: "galaxy", ActionType: "archive", Conditions: json.RawMessage(`{"op":"has_attachment"}`)}, "scope"},
	}
	for name, test := range tests {
		_, err := r.store.CreateRule(t.Context(), test.rule)
		var inv *job.Invalid
		if !errors.As(err, &inv) || inv.Field != test.field {
			t.Errorf("%s: %v, want a mistake in %s", name, err, test.field)
		}
	}
}

func TestARuleThatGoesBadIsDisabledAndStopsNothing(t *testing.T) {
	t.Parallel()
	r := setup(t)
	r.rule(mail.NewRule{Name: "bad", Conditions: json.RawMessage(`{"op":"subject_regex","value":"x"}`), ActionType: "trash"})
	r.rule(mail.NewRule{Name: "good", Conditions: json.RawMessage(`{"op":"subject_contains","value":"x"}`), ActionType: "star"})
	r.exec(`UPDATE deterministic_rules SET conditions_json = '{"op":"retired"}' WHERE name = ?`, []byte("bad"))
	if _, _, err := r.dir.Deliver("1.a.host", []byte("Subject: x\n\ny")); err != nil {
		t.Fatal(err)
	}
	r.run()
	if m := r.settled(1)[0]; *m.Decision.RuleName != "good" {
		t.Errorf("decided by %s", *m.Decision.RuleName)
	}
	list, _, err := r.store.Rules(t.Context(), mail.PageOf{Limit: 10})
	if err != nil {
		t.Fatal(err)
	}
	for _, rule := range list {
		if rule.Name == "bad" && (rule.Enabled || rule.DisabledReason == nil) {
			t.Errorf("the bad rule is %+v", rule)
		}
	}
}
