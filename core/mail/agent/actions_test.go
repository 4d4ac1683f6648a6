package agent_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/postroom/postroom/core/job"
	"github.com/postroom/postroom/core/libsql"
	"github.com/postroom/postroom/core/mail"
	"github.com/postroom/postroom/core/mail/action"
)

// files is what lies in the Maildir, by the path of each message. It is the
// tests' own walk, so that it does not see with the product's eyes. What moves
// during it makes it begin again.
func (r *rig) files() map[string]string {
	r.Helper()
	out := map[string]string{}
	err := fs.ErrNotExist
	for errors.Is(err, fs.ErrNotExist) {
		clear(out)
		err = r.walk(out)
	}
	if err != nil {
		r.Fatal(err)
	}
	return out
}

func (r *rig) walk(out map[string]string) error {
	return filepath.WalkDir(r.dir.Path(), func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || d.Name() == "maildirfolder" {
			return err
		}
		raw, err := os.ReadFile(path)
		rel, relErr := filepath.Rel(r.dir.Path(), path)
		out[rel] = string(raw)
		return errors.Join(err, relErr)
	})
}

// put stores a message through the INBOX and then lays its file where the test
// wants it, as another program would.
func (r *rig) put(places ...string) map[string]string {
	r.Helper()
	for i := range places {
		if _, _, err := r.dir.Deliver(fmt.Sprintf("m%d", i), fmt.Appendf(nil, "Subject: message %d\n\nbody %d", i, i)); err != nil {
			r.Fatal(err)
		}
	}
	ids := map[string]string{}
	for _, m := range r.settled(int64(len(places))) {
		ids[m.ProviderMessageID] = m.ID
	}
	for i, place := range places {
		to := filepath.Join(r.dir.Path(), place)
		if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
			r.Fatal(err)
		}
		if err := os.Rename(filepath.Join(r.dir.Path(), "new", fmt.Sprintf("m%d", i)), to); err != nil {
			r.Fatal(err)
		}
	}
	return ids
}

// act asks for an action on a message.
func (r *rig) act(messageID, actionType string, p mail.ActionParameters) *mail.Action {
	r.Helper()
	a, err := r.store.CreateAction(r.Context(), messageID, actionType, job.Payload(p))
	if err != nil {
		r.Fatal(err)
	}
	return a
}

// ended waits until an action is final and returns it.
func (r *rig) ended(id string) *mail.Action {
	r.Helper()
	var a *mail.Action
	r.until("action "+id+" ends", func() bool {
		var err error
		if a, err = r.store.Action(r.Context(), id); err != nil {
			r.Fatal(err)
		}
		return a.Status.Final()
	})
	return a
}

func (r *rig) completed(id string) *mail.Action {
	r.Helper()
	a := r.ended(id)
	if a.Status != action.Completed {
		reason := ""
		if a.ErrorMessage != nil {
			reason = *a.ErrorMessage
		}
		r.Fatalf("%s is %s: %s", a.ActionType, a.Status, reason)
	}
	return a
}

func (r *rig) undo(id string) *mail.Action {
	r.Helper()
	u, _, err := r.store.Undo(r.Context(), id)
	if err != nil {
		r.Fatal(err)
	}
	return r.completed(u.ID)
}

func (r *rig) labels(messageID string) string {
	r.Helper()
	m, err := r.store.Message(r.Context(), messageID)
	if err != nil {
		r.Fatal(err)
	}
	return string(m.Labels)
}

// places are how a message may lie in a Maildir before an action: in new/ and
// cur/, with and without an ending, with flags out of order and unknown ones.
// %d is the message's number.
var places = []string{
	"new/m%d", "cur/m%d", "cur/m%d:2,", "cur/m%d:2,S", "cur/m%d:2,F", "cur/m%d:2,SRaF", "cur/m%d:2,FRS,extra=1",
	".Lists.go/new/m%d", ".Lists.go/cur/m%d:2,RS", ".Archive/cur/m%d:2,S", ".Trash/cur/m%d:2,FS",
}

// moved lays the file into another folder under its own name.
func moved(folder string) func(string) string {
	return func(place string) string {
		name := place[strings.LastIndexByte(place, '/')+1:]
		sub := "cur"
		if strings.Contains("/"+place, "/new/") {
			sub = "new"
		}
		return filepath.Join(folder, sub, name)
	}
}

func flagged(add, remove string) func(string) string {
	return func(place string) string {
		dir, name := filepath.Split(place)
		name, tail, _ := strings.Cut(name, ":2,")
		have, rest, hasRest := strings.Cut(tail, ",")
		set := map[rune]bool{}
		for _, f := range have {
			set[f] = true
		}
		before := len(set)
		changed := false
		for _, f := range add {
			changed = changed || !set[f]
			set[f] = true
		}
		for _, f := range remove {
			changed = changed || set[f]
			delete(set, f)
		}
		_ = before
		if !changed {
			return place
		}
		flags := slices.Sorted(maps.Keys(set))
		if hasRest {
			rest = "," + rest
		}
		return strings.Replace(dir, "new/", "cur/", 1) + name + ":2," + string(flags) + rest
	}
}

// changes is what each action does to a file, in the tests' own words.
var changes = map[string]struct {
	parameters mail.ActionParameters
	file       func(place string) string
	labels     string
}{
	"archive":      {file: moved(".Archive")},
	"move":         {parameters: mail.ActionParameters{Folder: "Lists/New"}, file: moved(".Lists.New")},
	"trash":        {file: moved(".Trash")},
	"restore":      {file: func(place string) string { return strings.TrimPrefix(place, ".Trash/") }},
	"snooze":       {parameters: mail.ActionParameters{For: "24h"}, file: moved(".Snoozed")},
	"mark_read":    {file: flagged("S", "")},
	"mark_unread":  {file: flagged("", "S")},
	"star":         {file: flagged("F", "")},
	"unstar":       {file: flagged("", "F")},
	"apply_label":  {parameters: mail.ActionParameters{Label: "work"}, labels: `["home","work"]`},
	"remove_label": {parameters: mail.ActionParameters{Label: "home"}, labels: `[]`},
}

// Every action, on every way a message may lie in the Maildir, stopped once at
// every point of its way, changes what docs/mail.md says, once; and its undo,
// stopped in the same way, puts the file back byte for byte and flag for flag.
func TestEveryActionIsMadeOnceAndTakenBackWhateverStopsIt(t *testing.T) {
	t.Parallel()
	for _, typ := range action.Types {
		if !typ.CarriedOut || !typ.Undoable || typ.Name == "none" {
			continue
		}
		change, known := changes[typ.Name]
		if !known {
			t.Errorf("the test does not know what %s changes", typ.Name)
			continue
		}
		t.Run(typ.Name, func(t *testing.T) {
			t.Parallel()
			r := setup(t)
			var mu sync.Mutex
			reached := map[string]bool{}
			r.crash = func(_ context.Context, point, id string) error {
				mu.Lock()
				defer mu.Unlock()
				if key := point + id; !reached[key] {
					reached[key] = true
					return errors.New("stopped " + point)
				}
				return nil
			}
			r.run()
			at := make([]string, len(places))
			for i, place := range places {
				at[i] = fmt.Sprintf(place, i)
			}
			ids := r.put(at...)
			for i := range at {
				r.completed(r.act(ids[fmt.Sprintf("m%d", i)], "apply_label", mail.ActionParameters{Label: "home"}).ID)
			}
			before := r.files()
			if len(before) != len(places) {
				t.Fatalf("%d files", len(before))
			}
			want := map[string]string{}
			var asked []string
			for i, place := range at {
				id := ids[fmt.Sprintf("m%d", i)]
				a := r.act(id, typ.Name, change.parameters)
				if !a.Undoable {
					t.Errorf("%s does not say beforehand that it can be undone", typ.Name)
				}
				asked = append(asked, a.ID)
				if change.file != nil {
					place = change.file(place)
				}
				want[place] = fmt.Sprintf("Subject: message %d\n\nbody %d", i, i)
			}
			for i, id := range asked {
				r.completed(id)
				wantLabels := `["home"]`
				if change.labels != "" {
					wantLabels = change.labels
				}
				if got := r.labels(ids[fmt.Sprintf("m%d", i)]); got != wantLabels {
					t.Errorf("the labels are %s, want %s", got, wantLabels)
				}
			}
			if got := r.files(); !maps.Equal(got, want) {
				t.Errorf("after %s the files are\n%s\nwant\n%s", typ.Name, list(got), list(want))
			}
			for _, id := range asked {
				r.undo(id)
			}
			if got := r.files(); !maps.Equal(got, before) {
				t.Errorf("after the undo of %s the files are\n%s\nwant\n%s", typ.Name, list(got), list(before))
			}
			for i := range at {
				if got := r.labels(ids[fmt.Sprintf("m%d", i)]); got != `["home"]` {
					t.Errorf("after the undo the labels are %s", got)
				}
			}
			mu.Lock()
			defer mu.Unlock()
			if len(reached) < 4*len(at) {
				t.Errorf("only %d of at least %d points were reached", len(reached), 4*len(at))
			}
			if n := r.count("SELECT count(*) FROM actions WHERE status NOT IN ('completed', 'canceled') AND not_before IS NULL"); n != 0 {
				t.Errorf("%d actions are neither done nor called off", n)
			}
		})
	}
}

func list(files map[string]string) string {
	return strings.Join(slices.Sorted(maps.Keys(files)), "\n")
}

// exec changes the database behind everybody's back.
func (r *rig) exec(sql string, args ...any) {
	r.Helper()
	var b libsql.Batch
	b.Exec(sql, args...)
	if _, err := r.db.Write(r.Context(), &b); err != nil {
		r.Fatal(err)
	}
}

func (r *rig) count(sql string, args ...any) int64 {
	r.Helper()
	res, err := r.db.Read(r.Context(), libsql.Query(sql, args...))
	if err != nil {
		r.Fatal(err)
	}
	return res[0].Rows[0].Int(0)
}

func TestADeletionWaitsForApprovalAndSaysThatItIsForGood(t *testing.T) {
	t.Parallel()
	r := setup(t)
	stopped := map[string]bool{}
	var mu sync.Mutex
	r.crash = func(_ context.Context, point, id string) error {
		mu.Lock()
		defer mu.Unlock()
		if !stopped[point+id] {
			stopped[point+id] = true
			return errors.New("stopped")
		}
		return nil
	}
	r.run()
	ids := r.put("cur/m0:2,S", "new/m1")
	gone := r.act(ids["m0"], "delete", mail.ActionParameters{})
	kept := r.act(ids["m1"], "delete", mail.ActionParameters{})
	if gone.Status != action.ApprovedPending || gone.Undoable || gone.ApprovalExpiresAt == nil {
		t.Fatalf("%+v", gone)
	}
	if _, err := r.store.Approve(t.Context(), gone.ID); err != nil {
		t.Fatal(err)
	}
	if again, err := r.store.Approve(t.Context(), gone.ID); err != nil || again.ApprovedAt == nil {
		t.Errorf("approved again: %+v, %v", again, err)
	}
	if a, err := r.store.Reject(t.Context(), kept.ID, "not this one"); err != nil || a.Status != action.Rejected {
		t.Errorf("%+v, %v", a, err)
	}
	if _, err := r.store.Approve(t.Context(), kept.ID); !errors.Is(err, mail.ErrInvalidState) {
		t.Errorf("approve what was rejected: %v", err)
	}
	if _, err := r.store.Reject(t.Context(), gone.ID, ""); !errors.Is(err, mail.ErrInvalidState) {
		t.Errorf("reject what was approved: %v", err)
	}
	r.completed(gone.ID)
	if got := list(r.files()); got != "new/m1" {
		t.Errorf("the files are %s", got)
	}
	if _, _, err := r.store.Undo(t.Context(), gone.ID); !errors.Is(err, mail.ErrNotUndoable) {
		t.Errorf("undo of a deletion: %v", err)
	}
	late := r.act(ids["m0"], "archive", mail.ActionParameters{})
	if a := r.ended(late.ID); a.Status != action.Failed || *a.ErrorMessage != "message_gone" {
		t.Errorf("an action on what is deleted: %+v", a)
	}
}

func TestAnApprovalThatNobodyGivesExpires(t *testing.T) {
	t.Parallel()
	r := setup(t)
	r.store = mail.NewStore(r.db, r.q, mail.Policy{ApprovalAlways: []string{"star"}, ApprovalExpiry: 50 * time.Millisecond})
	r.run()
	ids := r.put("cur/m0:2,S")
	a := r.act(ids["m0"], "star", mail.ActionParameters{})
	if a = r.ended(a.ID); a.Status != action.Canceled || *a.ErrorMessage != "the approval expired" {
		t.Errorf("%+v", a)
	}
	if _, err := r.store.Approve(t.Context(), a.ID); !errors.Is(err, mail.ErrInvalidState) {
		t.Errorf("approve what has expired: %v", err)
	}
	if got := list(r.files()); got != "cur/m0:2,S" {
		t.Errorf("the files are %s", got)
	}
}

func TestARulesDangerousActionWaitsUnlessItsSafeModeSaysOtherwise(t *testing.T) {
	t.Parallel()
	r := setup(t)
	for mode, subject := range map[string]string{"default": "message 0", "dangerous_override": "message 1", "always_safe": "message 2"} {
		r.rule(mail.NewRule{
			Name: mode, SafeMode: mode, ActionType: "delete",
			Conditions: job.Payload(map[string]string{"op": "subject_contains", "value": subject}),
		})
	}
	r.run()
	for i := range 3 {
		if _, _, err := r.dir.Deliver(fmt.Sprintf("m%d", i), fmt.Appendf(nil, "Subject: message %d\n\nx", i)); err != nil {
			t.Fatal(err)
		}
	}
	r.until("two are deleted, one waits", func() bool {
		return r.count("SELECT count(*) FROM actions WHERE status = 'completed'") == 2 && r.count("SELECT count(*) FROM actions WHERE status = 'approved_pending'") == 1
	})
	if got := list(r.files()); got != "new/m0" {
		t.Errorf("the files are %s", got)
	}
	if n := r.count("SELECT count(*) FROM decisions WHERE needs_approval = 1"); n != 1 {
		t.Errorf("%d decisions need approval", n)
	}
}

func TestAnUndoFindsAMessageThatAnotherProgramMovedAndLeavesItsOtherFlags(t *testing.T) {
	t.Parallel()
	r := setup(t)
	r.run()
	ids := r.put("new/m0", "cur/m1:2,R")
	archived := r.completed(r.act(ids["m0"], "archive", mail.ActionParameters{}).ID)
	starred := r.completed(r.act(ids["m1"], "star", mail.ActionParameters{}).ID)
	root := r.dir.Path()
	if err := os.MkdirAll(filepath.Join(root, ".Elsewhere", "cur"), 0o700); err != nil {
		t.Fatal(err)
	}
	for from, to := range map[string]string{".Archive/new/m0": ".Elsewhere/cur/m0:2,S", "cur/m1:2,FR": ".Elsewhere/cur/m1:2,FRS"} {
		if err := os.Rename(filepath.Join(root, from), filepath.Join(root, to)); err != nil {
			t.Fatal(err)
		}
	}
	first := r.undo(archived.ID)
	r.undo(starred.ID)
	if got := list(r.files()); got != ".Elsewhere/cur/m1:2,RS\ncur/m0:2,S" {
		t.Errorf("the files are %s", got)
	}
	again, repeated, err := r.store.Undo(t.Context(), archived.ID)
	if err != nil || !repeated || again.ID != first.ID {
		t.Errorf("undo a second time: %+v, %v, %v", again, repeated, err)
	}
	if a, err := r.store.Action(t.Context(), archived.ID); err != nil || a.Undoable || a.UndoneBy == nil || *a.UndoneBy != first.ID {
		t.Errorf("%+v, %v", a, err)
	}
}

func TestAnUndoCanBeRepeatedUntilItWorks(t *testing.T) {
	t.Parallel()
	r := setup(t)
	r.run()
	ids := r.put("cur/m0:2,S")
	archived := r.completed(r.act(ids["m0"], "archive", mail.ActionParameters{}).ID)
	at, away := filepath.Join(r.dir.Path(), ".Archive/cur/m0:2,S"), filepath.Join(t.TempDir(), "m0")
	if err := os.Rename(at, away); err != nil {
		t.Fatal(err)
	}
	u, _, err := r.store.Undo(t.Context(), archived.ID)
	if err != nil {
		t.Fatal(err)
	}
	if u = r.ended(u.ID); u.Status != action.Failed || *u.ErrorMessage != "message_gone" {
		t.Fatalf("%+v", u)
	}
	if err := os.Rename(away, at); err != nil {
		t.Fatal(err)
	}
	if second := r.undo(archived.ID); second.ID == u.ID {
		t.Error("the failed undo came back")
	}
	if got := list(r.files()); got != "cur/m0:2,S" {
		t.Errorf("the files are %s", got)
	}
}

func TestUndoRefusesWhatIsNotDone(t *testing.T) {
	t.Parallel()
	r := setup(t) // no worker: nothing is carried out
	r.run()
	ids := r.put("cur/m0:2,S")
	sleeping := r.completed(r.act(ids["m0"], "snooze", mail.ActionParameters{For: "24h"}).ID)
	wake := r.wake(ids["m0"])
	if wake.Undoable {
		t.Error("a wake says that it can be undone")
	}
	if _, _, err := r.store.Undo(t.Context(), wake.ID); !errors.Is(err, mail.ErrInvalidState) {
		t.Errorf("undo of what waits: %v", err)
	}
	if a, err := r.store.CancelAction(t.Context(), wake.ID); err != nil || a.Status != action.Canceled {
		t.Errorf("%+v, %v", a, err)
	}
	if _, err := r.store.CancelAction(t.Context(), sleeping.ID); !errors.Is(err, mail.ErrInvalidState) {
		t.Errorf("cancel of what is done: %v", err)
	}
	u := r.undo(sleeping.ID)
	if _, _, err := r.store.Undo(t.Context(), u.ID); !errors.Is(err, mail.ErrNotUndoable) {
		t.Errorf("undo of an undo: %v", err)
	}
}

// wake is the action that waits to wake a message.
func (r *rig) wake(messageID string) *mail.Action {
	r.Helper()
	m, err := r.store.Message(r.Context(), messageID)
	if err != nil {
		r.Fatal(err)
	}
	for _, a := range m.Actions {
		if a.SnoozeID() != "" && a.Status == action.Queued {
			return &a
		}
	}
	r.Fatal("nothing waits to wake the message")
	return nil
}

func TestASnoozedMessageWakesByItself(t *testing.T) {
	t.Parallel()
	r := setup(t)
	r.run()
	ids := r.put("new/m0", ".Lists.go/cur/m1:2,S")
	r.completed(r.act(ids["m0"], "snooze", mail.ActionParameters{For: "1s"}).ID)
	r.completed(r.act(ids["m1"], "snooze", mail.ActionParameters{Until: time.Now().Add(1200 * time.Millisecond).Format(time.RFC3339Nano)}).ID)
	r.until("both are awake", func() bool { return list(r.files()) == ".Lists.go/cur/m1:2,S\nnew/m0" })
}

func TestASnoozeIsChangedAndCalledOff(t *testing.T) {
	t.Parallel()
	r := setup(t)
	r.run()
	ids := r.put("cur/m0:2,F", "cur/m1:2,F", "cur/m2:2,F")
	for _, id := range ids {
		r.completed(r.act(id, "snooze", mail.ActionParameters{For: "24h"}).ID)
	}
	first := r.wake(ids["m0"])
	changed := r.completed(r.act(ids["m0"], "snooze", mail.ActionParameters{For: "48h"}).ID)
	if a := r.ended(first.ID); a.Status != action.Canceled {
		t.Errorf("the first wake is %s", a.Status)
	}
	second := r.wake(ids["m0"])
	if second.NotBefore == nil || first.NotBefore == nil || int64(*second.NotBefore-*first.NotBefore) < (23*time.Hour).Milliseconds() {
		t.Errorf("it wakes at %v, before at %v", second.NotBefore, first.NotBefore)
	}
	r.undo(changed.ID)
	if a := r.ended(second.ID); a.Status != action.Canceled {
		t.Errorf("after the undo the wake is %s", a.Status)
	}
	wake := r.wake(ids["m1"])
	r.completed(r.act(ids["m1"], "restore", mail.ActionParameters{}).ID)
	if a := r.ended(wake.ID); a.Status != action.Canceled {
		t.Errorf("after the restore the wake is %s", a.Status)
	}
	// Somebody takes the third out of the folder: its wake leaves it alone.
	if err := os.Rename(filepath.Join(r.dir.Path(), ".Snoozed/cur/m2:2,F"), filepath.Join(r.dir.Path(), "cur/m2:2,FS")); err != nil {
		t.Fatal(err)
	}
	third := r.wake(ids["m2"])
	r.exec("UPDATE jobs SET not_before = 0 WHERE idempotency_key = ?", third.ID)
	if a := r.ended(third.ID); a.Status != action.Canceled {
		t.Errorf("the third wake is %s", a.Status)
	}
	if got := list(r.files()); got != "cur/m0:2,F\ncur/m1:2,F\ncur/m2:2,FS" {
		t.Errorf("the files are %s", got)
	}
}

// A message that was restored before its time goes back to sleep, and wakes
// when it would have.
func TestARestoreOfASnoozedMessageIsTakenBack(t *testing.T) {
	t.Parallel()
	r := setup(t)
	r.run()
	ids := r.put(".Lists.go/cur/m0:2,F", ".Snoozed/cur/m1:2,")
	r.completed(r.act(ids["m0"], "snooze", mail.ActionParameters{For: "24h"}).ID)
	first := r.wake(ids["m0"])
	restored := r.completed(r.act(ids["m0"], "restore", mail.ActionParameters{}).ID)
	if !restored.Undoable || first.Undoable {
		t.Errorf("the restore can be undone: %t, the wake: %t", restored.Undoable, first.Undoable)
	}
	undone := r.undo(restored.ID)
	if got := list(r.files()); got != ".Snoozed/cur/m0:2,F\n.Snoozed/cur/m1:2," {
		t.Errorf("the files are %s", got)
	}
	second := r.wake(ids["m0"])
	if second.ID == first.ID || *second.NotBefore != *first.NotBefore || second.SnoozeID() != undone.ID {
		t.Errorf("it wakes at %v by %s, before at %v", second.NotBefore, second.SnoozeID(), first.NotBefore)
	}
	if place := r.place(ids["m0"]); place.Folder != mail.FolderSnoozed {
		t.Errorf("%+v", place)
	}
	// Its time comes.
	r.exec("UPDATE jobs SET not_before = 0 WHERE idempotency_key = ?", second.ID)
	r.completed(second.ID)
	// One that another program had put there slept for ever before, too.
	r.undo(r.completed(r.act(ids["m1"], "restore", mail.ActionParameters{}).ID).ID)
	if got := list(r.files()); got != ".Lists.go/cur/m0:2,F\n.Snoozed/cur/m1:2," {
		t.Errorf("the files are %s", got)
	}
	if n := r.count("SELECT count(*) FROM actions WHERE status = 'queued'"); n != 0 {
		t.Errorf("%d actions wait", n)
	}
}

// An action ends with its job, whoever ends that, and says why.
func TestAnActionEndsWithItsJob(t *testing.T) {
	t.Parallel()
	r := setup(t)
	stop := r.run()
	ids := r.put("cur/m0:2,S")
	stop()
	const failed, canceled = "last_error = CAST('poisoned' AS BLOB), state = 'failed'", "state = 'canceled'"
	for _, test := range []struct {
		status       action.Status
		ended, typ   string
		want         action.Status
		errorMessage string
	}{
		{action.Queued, canceled, "star", action.Canceled, "its job was canceled"},
		{action.Queued, failed, "star", action.Failed, "its job failed: poisoned"},
		{action.Executing, canceled, "star", action.Failed, "its job was canceled; the change may have been made"},
		{action.Executing, failed, "star", action.Failed, "its job failed: poisoned; the change may have been made"},
		{action.ApprovedPending, canceled, "delete", action.Canceled, "nothing waited for its approval any more"},
		{action.ApprovedPending, failed, "delete", action.Canceled, "nothing waited for its approval any more"},
	} {
		a := r.act(ids["m0"], test.typ, mail.ActionParameters{})
		var b libsql.Batch
		if test.status == action.Executing {
			b.Exec("UPDATE actions SET status = 'executing' WHERE id = ?", a.ID)
		}
		b.Exec("UPDATE jobs SET ready_key = NULL, wait_key = NULL, finished_at = 1, "+test.ended+" WHERE idempotency_key = ?", a.ID)
		if _, err := r.db.Write(t.Context(), &b); err != nil {
			t.Fatal(err)
		}
		now, err := r.store.Action(t.Context(), a.ID)
		if err != nil || now.Status != test.want || now.ErrorMessage == nil || *now.ErrorMessage != test.errorMessage {
			t.Errorf("%s, %s: %+v, %v", test.status, test.ended, now, err)
		}
	}
}

// A cancel that comes before the intent leaves everything as it was; one that
// comes later is too late, and what was begun is done and recorded.
func TestACancelLeavesNoChangeThatIsNotRecorded(t *testing.T) {
	t.Parallel()
	for point, want := range map[string]struct {
		status action.Status
		file   string
	}{
		"before the intent": {action.Canceled, "cur/m0:2,S"},
		"after the intent":  {action.Completed, ".Archive/cur/m0:2,S"},
		"after the change":  {action.Completed, ".Archive/cur/m0:2,S"},
		"before the record": {action.Completed, ".Archive/cur/m0:2,S"},
	} {
		t.Run(point, func(t *testing.T) {
			t.Parallel()
			r := setup(t)
			r.crash = func(ctx context.Context, at, id string) error {
				if at != point {
					return nil
				}
				res, err := r.db.Read(t.Context(), libsql.Query("SELECT CAST(id AS BLOB) FROM jobs WHERE idempotency_key = ?", id))
				if err != nil {
					return err
				}
				if _, err := r.q.Cancel(t.Context(), res[0].Rows[0].Str(0)); err != nil {
					return err
				}
				<-ctx.Done() // the worker has been told
				return nil
			}
			r.run()
			ids := r.put("cur/m0:2,S")
			a := r.ended(r.act(ids["m0"], "archive", mail.ActionParameters{}).ID)
			if a.Status != want.status || (a.ErrorMessage == nil) != (want.status == action.Completed) {
				t.Errorf("%+v", a)
			}
			if got := list(r.files()); got != want.file {
				t.Errorf("the files are %s", got)
			}
		})
	}
}

// A crash leaves it open whether the change was made. If the message is at
// neither place afterwards, somebody moved it since, and that stands.
func TestAfterACrashAnotherProgramsMoveStands(t *testing.T) {
	t.Parallel()
	r := setup(t)
	once := sync.Once{}
	r.crash = func(_ context.Context, point, _ string) (err error) {
		if point != "after the intent" {
			return nil
		}
		once.Do(func() {
			root := r.dir.Path()
			if mkErr := os.MkdirAll(filepath.Join(root, ".Mine", "cur"), 0o700); mkErr != nil {
				r.Error(mkErr)
			}
			if mvErr := os.Rename(filepath.Join(root, "cur/m0:2,S"), filepath.Join(root, ".Mine/cur/m0:2,S")); mvErr != nil {
				r.Error(mvErr)
			}
			err = errors.New("stopped")
		})
		return err
	}
	r.run()
	ids := r.put("cur/m0:2,S")
	if a := r.ended(r.act(ids["m0"], "archive", mail.ActionParameters{}).ID); a.Status != action.Canceled {
		t.Errorf("%+v", a)
	}
	if got := list(r.files()); got != ".Mine/cur/m0:2,S" {
		t.Errorf("the files are %s", got)
	}
}

// A mailbox that cannot be written fails nothing: the action waits, says why,
// and is carried out when the mailbox can.
func TestAnActionWaitsForAMailboxThatIsAway(t *testing.T) {
	t.Parallel()
	r := setup(t)
	r.run()
	ids := r.put("cur/m0:2,S")
	away := r.dir.Path() + ".away"
	if err := os.Rename(r.dir.Path(), away); err != nil {
		t.Fatal(err)
	}
	a := r.act(ids["m0"], "archive", mail.ActionParameters{})
	r.until("the action says why it waits", func() bool {
		now, err := r.store.Action(t.Context(), a.ID)
		if err != nil {
			t.Fatal(err)
		}
		return now.ErrorMessage != nil && strings.Contains(*now.ErrorMessage, "not a Maildir")
	})
	if err := os.Rename(away, r.dir.Path()); err != nil {
		t.Fatal(err)
	}
	if done := r.completed(a.ID); done.ErrorMessage != nil {
		t.Errorf("%+v", done)
	}
}

// A database that is full, or away, at any point of an action's way fails
// nothing either, however often.
func TestAnActionOutlastsADatabaseThatTakesNothing(t *testing.T) {
	t.Parallel()
	r := setup(t)
	var mu sync.Mutex
	tries := map[string]int{}
	r.crash = func(_ context.Context, point, _ string) error {
		mu.Lock()
		defer mu.Unlock()
		if tries[point]++; tries[point] <= 3 {
			return &libsql.Error{Class: libsql.Full, Op: "commit"}
		}
		return nil
	}
	stop := r.run()
	ids := r.put("cur/m0:2,S")
	stop()
	a := r.act(ids["m0"], "archive", mail.ActionParameters{})
	r.exec("UPDATE jobs SET max_attempts = 1 WHERE idempotency_key = ?", a.ID)
	r.run()
	a = r.completed(a.ID)
	if n := r.count("SELECT failures FROM jobs WHERE idempotency_key = ?", a.ID); a.ErrorMessage != nil || n != 0 || len(tries) != 4 {
		t.Errorf("%d failures, points %v, %+v", n, tries, a)
	}
	if got := list(r.files()); got != ".Archive/cur/m0:2,S" {
		t.Errorf("the files are %s", got)
	}
}

func TestTheStatusMachineIsEnforced(t *testing.T) {
	t.Parallel()
	r := setup(t)
	stop := r.run()
	ids := r.put("cur/m0:2,S")
	stop()
	for _, from := range action.Statuses {
		for _, to := range action.Statuses {
			r.exec(`INSERT INTO actions(id, account_id, message_id, action_type, parameters_json, status, created_at, updated_at)
				VALUES (?, ?, ?, 'star', '{}', ?, 0, 0)`, string(from+">"+to), r.account.ID, ids["m0"], string(from))
			var change libsql.Batch
			change.Exec("UPDATE actions SET status = ? WHERE id = ?", string(to), string(from+">"+to))
			_, err := r.db.Write(t.Context(), &change)
			if want := from == to || from.MayFollow(to); (err == nil) != want {
				t.Errorf("%s to %s: %v, allowed %t", from, to, err, want)
			}
		}
	}
}
