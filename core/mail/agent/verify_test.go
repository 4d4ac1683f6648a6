package agent_test

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/postroom/postroom/core/libsql"
	"github.com/postroom/postroom/core/mail"
	"github.com/postroom/postroom/core/mail/agent"
	"github.com/postroom/postroom/core/queue"
)

// verify compares everything there is.
func (r *rig) verify() *mail.Report {
	r.Helper()
	rep, err := r.store.Verify(r.Context())
	if err != nil {
		r.Fatal(err)
	}
	if err := agent.VerifyFiles(r.Context(), r.store, rep); err != nil {
		r.Fatal(err)
	}
	return rep
}

// look makes the Maildir one that has rested for long and lets a sync see it.
func (r *rig) look() {
	r.Helper()
	r.rest()
	r.syncer(r)()
}

// rest makes the times of all directories old, and always the same.
func (r *rig) rest() {
	r.Helper()
	old := time.Unix(1_700_000_000, 0)
	for _, pattern := range []string{"new", "cur", ".*/new", ".*/cur"} {
		dirs, err := filepath.Glob(filepath.Join(r.dir.Path(), pattern))
		if err != nil {
			r.Fatal(err)
		}
		for _, dir := range dirs {
			if err := os.Chtimes(dir, old, old); err != nil {
				r.Fatal(err)
			}
		}
	}
}

// lived returns a mail path with one of everything, at rest.
func lived(t *testing.T) (r *rig, ids map[string]string, acts map[string]string) {
	t.Helper()
	r = setup(t)
	r.rule(mail.NewRule{Name: "three", ActionType: "apply_label", ActionParameters: []byte(`{"label":"three"}`), Conditions: []byte(`{"op":"subject_contains","value":"message 3"}`)})
	stop := r.run()
	ids = r.put("cur/m0:2,S", "cur/m1:2,", "new/m2", ".Lists.go/cur/m3:2,F")
	acts = map[string]string{}
	for name, a := range map[string]*mail.Action{
		"archived": r.act(ids["m0"], "archive", mail.ActionParameters{}),
		"labeled":  r.act(ids["m1"], "apply_label", mail.ActionParameters{Label: "work"}),
		"snoozed":  r.act(ids["m2"], "snooze", mail.ActionParameters{For: "24h"}),
	} {
		acts[name] = r.completed(a.ID).ID
	}
	acts["undo"] = r.undo(r.completed(r.act(ids["m3"], "trash", mail.ActionParameters{}).ID).ID).ID
	acts["wake"] = r.wake(ids["m2"]).ID
	acts["pending"] = r.act(ids["m1"], "delete", mail.ActionParameters{}).ID
	stop()
	r.look()
	return r, ids, acts
}

func TestVerifyFindsNothingWhereMailIsAsItShouldBe(t *testing.T) {
	t.Parallel()
	r, _, _ := lived(t)
	rep := r.verify()
	if len(rep.Violations) != 0 || len(rep.Skipped) != 0 || rep.Messages != 4 || rep.Files != 4 {
		t.Errorf("%+v", rep)
	}
	// What other programs do is the next sync's work.
	if err := os.Rename(filepath.Join(r.dir.Path(), "cur/m1:2,"), filepath.Join(r.dir.Path(), "cur/m1:2,FS")); err != nil {
		t.Fatal(err)
	}
	if rep := r.verify(); len(rep.Violations) != 0 || len(rep.Skipped) != 1 {
		t.Errorf("%+v", rep)
	}
	// A Maildir that is not there cannot be compared.
	if err := os.RemoveAll(r.dir.Path()); err != nil {
		t.Fatal(err)
	}
	if rep := r.verify(); len(rep.Violations) != 0 || len(rep.Skipped) != 1 || rep.Files != 0 {
		t.Errorf("%+v", rep)
	}
}

// Each rule is broken once by hand and must be named.
func TestVerifyNamesWhatIsWrongWithMail(t *testing.T) {
	t.Parallel()
	covered := map[string]bool{}
	for _, test := range []struct {
		rule, sql, arg string
		disk           func(root string) error
	}{
		{rule: "an action that is wanted or under way has a job", sql: "DELETE FROM job_keys WHERE key = ?", arg: "wake"},
		{rule: "an action that waits for approval has a job that gives it up", sql: "DELETE FROM job_keys WHERE key = ?", arg: "pending"},
		{rule: "an action has begun when, and only when, its intent is stored", sql: "UPDATE actions SET undo_hint_json = '{}' WHERE id = ?", arg: "archived"},
		{rule: "a completed action, and no other, has the time of its completion", sql: "UPDATE actions SET executed_at = NULL WHERE id = ?", arg: "archived"},
		{rule: "an action is taken back once, after it was completed", sql: "UPDATE action_links SET cause_action_id = (SELECT id FROM actions WHERE status = 'approved_pending') WHERE effect_action_id = ?", arg: "undo"},
		{rule: "an undo takes back one action", sql: "DELETE FROM action_links WHERE effect_action_id = ?", arg: "undo"},
		{rule: "a message wakes once", sql: `INSERT INTO actions(id, account_id, message_id, action_type, parameters_json, status, created_at, updated_at)
			SELECT 'second', account_id, message_id, action_type, parameters_json, status, 0, 0 FROM actions WHERE id = ?`, arg: "wake"},
		{rule: "a decision has the action it asks for, and no other", sql: "UPDATE decisions SET action_type = 'star' WHERE message_id = ?", arg: "m0"},
		{rule: "a message that nobody touched since its last action is as that left it", sql: `UPDATE messages SET raw_json = json_patch(raw_json, '{"folder":"Elsewhere"}'),
			updated_at = (SELECT executed_at FROM actions AS a WHERE a.message_id = messages.id AND a.action_type = 'archive') WHERE id = ?`, arg: "m0"},
		{rule: "a message is gone, or it has a place", sql: "UPDATE messages SET file_dir = NULL WHERE id = ?", arg: "m0"},
		{rule: "a message is in the thread of its own id", sql: "DELETE FROM thread_ids WHERE thread_id = (SELECT thread_id FROM messages WHERE id = ?)", arg: "m0"},
		{rule: "a thread has messages, of its account", sql: "UPDATE messages SET thread_id = (SELECT thread_id FROM messages WHERE provider_message_id = 'm3') WHERE id = ?", arg: "m0"},
		{rule: "a message can be searched for", sql: "DELETE FROM message_search WHERE rowid = (SELECT doc FROM message_docs WHERE message_id = ?)", arg: "m0"},
		{rule: "what can be searched for is a message", sql: "UPDATE message_docs SET message_id = 'none' WHERE message_id = ?", arg: "m0"},
		{rule: "labels are listed by label, too", sql: "DELETE FROM message_labels WHERE message_id = ?", arg: "m1"},
		{rule: "the bytes of a posted message wait for a job that has not taken them in", sql: "INSERT INTO message_chunks(job_id, n, data, created_at) SELECT id, 0, x'00', 0 FROM jobs WHERE type = 'message.classify' AND ? IS NOT NULL", arg: "m0"},

		{rule: agent.FileRules[0], sql: "UPDATE messages SET file_name = 7 WHERE id = ?", arg: "m0"},
		{rule: agent.FileRules[1], disk: func(root string) error {
			return os.WriteFile(filepath.Join(root, "cur", "m0:2,F"), []byte("Subject: message 0\n\nbody 0"), 0o600)
		}},
		{rule: agent.FileRules[2], disk: func(root string) error { return os.WriteFile(filepath.Join(root, "new", "never"), []byte("x"), 0o600) }},
		{rule: agent.FileRules[3], sql: `UPDATE messages SET raw_json = json_patch(raw_json, '{"flags":"FS"}') WHERE id = ?`, arg: "m0"},
		{rule: agent.FileRules[4], disk: func(root string) error {
			return os.WriteFile(filepath.Join(root, ".Archive", "cur", "m0:2,S"), []byte("Subject: message 0\n\nbody 1"), 0o600)
		}},
	} {
		covered[test.rule] = true
		t.Run(test.rule, func(t *testing.T) {
			t.Parallel()
			r, ids, acts := lived(t)
			if test.sql != "" {
				arg := ids[test.arg]
				if arg == "" {
					arg = acts[test.arg]
				}
				r.exec(test.sql, arg)
			}
			if test.disk != nil {
				if err := test.disk(r.dir.Path()); err != nil {
					t.Fatal(err)
				}
				r.rest()
			}
			rep := r.verify()
			if !slices.ContainsFunc(rep.Violations, func(v queue.Violation) bool { return v.Rule == test.rule }) {
				t.Errorf("not found; %+v", rep)
			}
		})
	}
	r := setup(t)
	own, err := r.q.Verify(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if rep := r.verify(); rep.Rules-own.Rules != len(covered) {
		t.Errorf("%d rules of mail, of which %d are broken here", rep.Rules-own.Rules, len(covered))
	}
}

// Where a sync finds a message is newer than what was done with it before,
// within the same millisecond too: an action that another program undoes at once
// would otherwise look as if nobody had touched its message since.
func TestWhereASyncFindsAMessageIsNewerThanItsActions(t *testing.T) {
	t.Parallel()
	r, ids, acts := lived(t)
	ahead := time.Now().Add(time.Hour).UnixMilli() // no clock gets there
	r.exec("UPDATE messages SET updated_at = ? WHERE id = ?", ahead, ids["m0"])
	r.exec("UPDATE actions SET executed_at = ? WHERE id = ?", ahead, acts["archived"])
	dir := r.dir.Path()
	if err := os.Rename(filepath.Join(dir, ".Archive", "cur", "m0:2,S"), filepath.Join(dir, "cur", "m0:2,S")); err != nil {
		t.Fatal(err)
	}
	r.syncer(r)()
	res, err := r.q.DB().Read(t.Context(), libsql.Query("SELECT updated_at FROM messages WHERE id = ?", ids["m0"]))
	if err != nil || res[0].Rows[0].Int(0) != ahead+1 {
		t.Errorf("%v, %v", res, err)
	}
	if rep := r.verify(); len(rep.Violations) > 0 {
		t.Errorf("%+v", rep.Violations)
	}
}
