package agent_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/postroom/postroom/core/job"
	"github.com/postroom/postroom/core/libsql"
	"github.com/postroom/postroom/core/mail"
	"github.com/postroom/postroom/core/mail/action"
	"github.com/postroom/postroom/core/mail/maildir"
)

// place is where the database says that a message lies.
func (r *rig) place(id string) mail.Place {
	r.Helper()
	m, err := r.store.Message(r.Context(), id)
	if err != nil {
		r.Fatal(err)
	}
	var p mail.Place
	if err := json.Unmarshal(m.Raw, &p); err != nil {
		r.Fatal(err)
	}
	return p
}

func TestWhatOtherProgramsDoIsSeen(t *testing.T) {
	t.Parallel()
	r := setup(t)
	stop := r.run()
	ids := r.put("cur/m0:2,S", "new/m1", ".Lists.go/cur/m2:2,F", "cur/m3:2,", "cur/m4:2,")
	at := func(unique string, want mail.Place) {
		t.Helper()
		r.until(fmt.Sprintf("%s is seen at %+v", unique, want), func() bool { return r.place(ids[unique]) == want })
	}
	at("m0", mail.Place{Flags: "S"})
	at("m2", mail.Place{Folder: "Lists.go", Flags: "F"})
	root := r.dir.Path()
	rename := func(from, to string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(filepath.Join(root, to)), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(filepath.Join(root, from), filepath.Join(root, to)); err != nil {
			t.Fatal(err)
		}
	}
	rename("cur/m0:2,S", "cur/m0:2,FS")
	rename("new/m1", ".New folder/cur/m1:2,R")
	at("m0", mail.Place{Flags: "FS"})
	at("m1", mail.Place{Folder: "New folder", Flags: "R"})

	// A file that is deleted is gone, once it is certain that it did not move.
	if err := os.Remove(filepath.Join(root, "cur/m3:2,")); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(root, ".Lists.go")); err != nil {
		t.Fatal(err)
	}
	r.until("the deleted are gone", func() bool { return r.place(ids["m3"]).Gone && r.place(ids["m2"]).Gone })
	if p := r.place(ids["m4"]); p.Gone {
		t.Error("a message that is there is taken for gone")
	}

	// What happens while nobody runs is seen by the next runner.
	stop()
	rename("cur/m4:2,", ".New folder/cur/m4:2,T")
	if err := os.Remove(filepath.Join(root, ".New folder/cur/m1:2,R")); err != nil {
		t.Fatal(err)
	}
	r.run()
	at("m4", mail.Place{Folder: "New folder", Flags: "T"})
	r.until("what was deleted meanwhile is gone", func() bool { return r.place(ids["m1"]).Gone })
	rename(".New folder/cur/m4:2,T", "cur/m4:2,T")
	at("m4", mail.Place{Flags: "T"})
	if n := r.count("SELECT count(*) FROM messages"); n != 5 {
		t.Errorf("%d messages", n)
	}
}

// On a file system that tells of nothing (a network's), the sync interval finds
// everything: new mail, moves, flags and deletions.
func TestEverythingIsFoundWhereNothingIsTold(t *testing.T) {
	t.Parallel()
	r := setup(t)
	r.blind = true
	r.run()
	ids := r.put("new/m0", "cur/m1:2,S")
	root := r.dir.Path()
	if err := os.MkdirAll(filepath.Join(root, ".Else", "cur"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(root, "new/m0"), filepath.Join(root, ".Else/cur/m0:2,RS")); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(root, "cur/m1:2,S")); err != nil {
		t.Fatal(err)
	}
	r.until("both changes are seen", func() bool {
		return r.place(ids["m0"]) == mail.Place{Folder: "Else", Flags: "RS"} && r.place(ids["m1"]).Gone
	})
	if _, _, err := r.dir.Deliver("m2", []byte("Subject: later\n\nx")); err != nil {
		t.Fatal(err)
	}
	r.settled(3)
}

// A sync that has failed for good, because its runner was killed once too often,
// does not leave its account alone for ever.
func TestAnAccountWhoseSyncHasFailedIsSyncedAgain(t *testing.T) {
	t.Parallel()
	r := setup(t)
	r.run()
	r.until("it was in sync", func() bool {
		return r.count("SELECT count(*) FROM jobs WHERE type = 'account.sync' AND claims > 0") == 1
	})
	res, err := r.db.Read(t.Context(), libsql.Query("SELECT CAST(id AS BLOB) FROM jobs WHERE type = 'account.sync'"))
	if err != nil {
		t.Fatal(err)
	}
	id := res[0].Rows[0].Str(0)
	if _, err := r.q.Cancel(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	r.until("it has ended", func() bool {
		return r.count("SELECT count(*) FROM jobs WHERE id = ? AND finished_at IS NOT NULL", id) == 1
	})
	if _, _, err := r.dir.Deliver("m0", []byte("Subject: x\n\ny")); err != nil {
		t.Fatal(err)
	}
	r.settled(1)
}

// problems is what an account shows of them: how many, and the files that
// cannot be taken in.
func (r *rig) problems() string {
	r.Helper()
	acc, err := r.store.Account(r.Context(), r.account.ID)
	if err != nil {
		r.Fatal(err)
	}
	var state struct {
		Problems   int
		Unreadable []struct{ Name, Problem string }
	}
	if err := json.Unmarshal(acc.State, &state); err != nil {
		r.Fatal(err)
	}
	out := fmt.Sprint(state.Problems)
	for _, u := range state.Unreadable {
		out += " " + u.Name + ": " + u.Problem[strings.LastIndex(u.Problem, ":")+2:]
	}
	return out
}

// A message that is too large is shown with its account until its job is
// pruned, or retried with success.
func TestAFileThatCannotBeTakenInIsShown(t *testing.T) {
	t.Parallel()
	r := setup(t)
	path := filepath.Join(r.dir.Path(), "cur", "m0:2,S")
	if err := os.WriteFile(path, []byte("Subject: large\n\nx"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, mail.MaxMessage+1); err != nil {
		t.Fatal(err)
	}
	r.run()
	r.until("it was tried", func() bool {
		return r.count("SELECT count(*) FROM jobs WHERE type = 'message.ingest' AND state = 'failed'") == 1
	})
	if got, want := r.problems(), fmt.Sprintf("1 m0: %d bytes, at most %d", mail.MaxMessage+1, mail.MaxMessage); got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if err := os.Truncate(path, 20); err != nil {
		t.Fatal(err)
	}
	res, err := r.db.Read(t.Context(), libsql.Query("SELECT CAST(id AS BLOB) FROM jobs WHERE type = 'message.ingest'"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.q.Retry(t.Context(), res[0].Rows[0].Str(0)); err != nil {
		t.Fatal(err)
	}
	r.settled(1)
	if got := r.problems(); got != "0" {
		t.Errorf("%q once it is in", got)
	}
}

// What a directory has that cannot be used is still shown when only another one
// was looked at again.
func TestProblemsOfDirectoriesThatRestAreShown(t *testing.T) {
	t.Parallel()
	r := setup(t)
	for _, name := range []string{"a", "b"} {
		if err := os.Symlink("/dev/null", filepath.Join(r.dir.Path(), "cur", name)); err != nil {
			t.Fatal(err)
		}
	}
	r.rest()
	r.run()
	r.until("both are shown", func() bool { return r.problems() == "2" })
	if _, _, err := r.dir.Deliver("m0", []byte("Subject: x\n\ny")); err != nil {
		t.Fatal(err)
	}
	r.settled(1)
	before := r.count("SELECT claims FROM jobs WHERE type = 'account.sync'")
	r.until("another look is over", func() bool { return r.count("SELECT claims FROM jobs WHERE type = 'account.sync'") > before+1 })
	if got := r.problems(); got != "2" {
		t.Errorf("%q problems", got)
	}
}

// A file that may not be read holds nothing up, and comes in when it may.
func TestAFileThatMayNotBeReadIsWaitedFor(t *testing.T) {
	t.Parallel()
	if os.Geteuid() == 0 {
		t.Skip("root may read everything")
	}
	r := setup(t)
	path := filepath.Join(r.dir.Path(), "new", "m0")
	if err := os.WriteFile(path, []byte("Subject: secret\n\nx"), 0); err != nil {
		t.Fatal(err)
	}
	if _, _, err := r.dir.Deliver("m1", []byte("Subject: open\n\nx")); err != nil {
		t.Fatal(err)
	}
	r.run()
	r.until("the other is in, and the file was tried again and again", func() bool {
		return r.count("SELECT count(*) FROM messages") == 1 && r.count("SELECT count(*) FROM jobs WHERE type = 'message.ingest' AND claims > 2 AND failures = 0") == 1
	})
	if got := r.problems(); got != "1 m0: permission denied" {
		t.Errorf("%q", got)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
	r.settled(2)
	if got := r.problems(); got != "0" {
		t.Errorf("%q once it is in", got)
	}
}

// An action moves a message, and another program moves it back under the very
// name it had before any sync has looked: the names are as they were, and yet
// the place that the action stored is none.
func TestWhatIsMovedBackBehindAnActionIsSeen(t *testing.T) {
	t.Parallel()
	r := setup(t)
	stop := r.run()
	ids := r.put("cur/m0:2,S", "cur/m1:2,S")
	r.until("both places are seen", func() bool { return r.place(ids["m0"]).Flags == "S" && r.place(ids["m1"]).Flags == "S" })
	stop()
	look := r.syncer(r)
	r.rest()
	look()
	for i, unique := range []string{"m0", "m1"} {
		a := r.act(ids[unique], "archive", mail.ActionParameters{})
		b := r.q.NewBatch(t.Context())
		r.store.RecordIntent(b, a.ID, mail.UndoHint{})
		r.store.RecordDone(t.Context(), b, a, mail.Done{Place: &mail.Place{Folder: "Archive", Flags: "S"}}, "default")
		if _, err := r.q.Write(t.Context(), b); err != nil {
			t.Fatal(err)
		}
		if i == 1 { // and deletes the other
			if err := os.Remove(filepath.Join(r.dir.Path(), "cur", "m1:2,S")); err != nil {
				t.Fatal(err)
			}
		}
	}
	r.rest()
	look()
	if p := r.place(ids["m0"]); p != (mail.Place{Flags: "S"}) {
		t.Errorf("it is said to be at %+v", p)
	}
	if p := r.place(ids["m1"]); !p.Gone {
		t.Errorf("it is said to be at %+v", p)
	}
}

func TestAnAccountIsPausedResyncedAndRemoved(t *testing.T) {
	t.Parallel()
	r := setup(t)
	r.run()
	ids := r.put("cur/m0:2,S", "cur/m1:2,")
	yes, no := true, false
	if a, err := r.store.UpdateAccount(t.Context(), r.account.ID, mail.AccountChange{Paused: &yes}); err != nil || !a.Paused {
		t.Fatalf("%+v, %v", a, err)
	}
	if _, _, err := r.dir.Deliver("m2", []byte("Subject: later\n\nx")); err != nil {
		t.Fatal(err)
	}
	act := r.act(ids["m0"], "archive", mail.ActionParameters{})
	// It has been looked at, and put back, more than once.
	r.until("the action is put back", func() bool {
		return r.count("SELECT count(*) FROM jobs WHERE type = 'action.execute' AND claims > 2") == 1
	})
	if got := list(r.files()); got != "cur/m0:2,S\ncur/m1:2,\nnew/m2" || r.count("SELECT count(*) FROM messages") != 2 {
		t.Errorf("a paused account was worked on: %s", got)
	}
	if _, err := r.store.UpdateAccount(t.Context(), r.account.ID, mail.AccountChange{Paused: &no}); err != nil {
		t.Fatal(err)
	}
	r.completed(act.ID)
	r.settled(3)
	if _, err := r.store.Resync(t.Context(), r.account.ID); err != nil {
		t.Fatal(err)
	}

	before := r.files()
	task, err := r.store.RemoveAccount(t.Context(), r.account.ID)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.store.Account(t.Context(), r.account.ID); err == nil {
		t.Error("a removed account is still seen")
	}
	r.ends(task.ID)
	for _, table := range []string{"messages", "threads", "thread_ids", "decisions", "actions", "message_docs", "message_labels", "maildir_folders", "accounts"} {
		if n := r.count("SELECT count(*) FROM " + table); n != 0 {
			t.Errorf("%d rows are left in %s", n, table)
		}
	}
	if n := r.count("SELECT count(*) FROM job_keys WHERE type = 'message.ingest'"); n != 0 {
		t.Errorf("%d names are still held", n)
	}
	if after := r.files(); list(after) != list(before) || len(after) != 3 {
		t.Errorf("the mail is now %s", list(after))
	}
	if _, err := r.store.CreateAccount(t.Context(), mail.NewAccount{Provider: "maildir", Email: r.account.Email, Config: r.account.Config}); err != nil {
		t.Fatal(err)
	}
	r.settled(2) // those in the INBOX come in again
}

// ends waits until a task's job is final.
func (r *rig) ends(id string) *mail.Task {
	r.Helper()
	var task *mail.Task
	r.until("the task ends", func() bool {
		var err error
		if task, err = r.store.Task(r.Context(), id); err != nil {
			r.Fatal(err)
		}
		return task.State != nil && job.State(*task.State).Final()
	})
	if *task.State != string(job.Completed) {
		r.Errorf("the task is %s: %v", *task.State, task.LastError)
	}
	return task
}

func (r *rig) importAll(path string) *mail.Task {
	r.Helper()
	task, _, err := r.store.Import(r.Context(), job.ImportPayload{AccountID: r.account.ID, Path: path})
	if err != nil {
		r.Fatal(err)
	}
	return r.ends(task.ID)
}

func TestMailIsImportedOnceFromEachKindOfSource(t *testing.T) {
	t.Parallel()
	r := setup(t)
	r.run()
	other := filepath.Join(t.TempDir(), "other")
	src, err := maildir.Create(other)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range []maildir.Entry{{Unique: "a1", New: true}, {Unique: "a2", Flags: "RS"}, {Unique: "a3", Folder: "Old.2001", Flags: "F"}} {
		if _, _, err := src.DeliverTo(e, []byte("Subject: "+e.Unique+"\n\nbody")); err != nil {
			t.Fatal(err)
		}
	}
	task := r.importAll(other)
	if task.Done != 3 || task.Changed != 3 || *task.Total != 3 || task.Problems != 0 {
		t.Errorf("%+v", task)
	}
	if got := list(r.files()); got != ".Old.2001/cur/a3:2,F\ncur/a2:2,RS\nnew/a1" {
		t.Errorf("the files are %s", got)
	}

	box := filepath.Join(t.TempDir(), "box")
	first, second := "Subject: one\nStatus: RO\nX-Status: F\n\nFrom the start\n>> quoted\n", "Subject: two\n\nlast line without an end"
	text := "From ann@example.org Thu Jan  1 00:00:00 2026\n" + strings.Replace(first, "\nFrom the", "\n>From the", 1) + "\nFrom bob@example.org Thu Jan  1 00:00:00 2026\r\n" + second
	if err := os.WriteFile(box, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if task := r.importAll(box); task.Done != 2 || task.Changed != 2 || *task.Total != 2 {
		t.Errorf("%+v", task)
	}

	folder := t.TempDir()
	for name, raw := range map[string]string{"b/1.eml": first, "b.eml": "Subject: three\n\nx", "b/c/2.EML": "Subject: four\n\nx", "note.txt": "no mail", "empty.eml": ""} {
		path := filepath.Join(folder, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(raw), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if task := r.importAll(folder); task.Done != 4 || task.Changed != 2 || task.Problems != 1 || *task.Total != 4 {
		t.Errorf("%+v", task)
	}
	files := r.files()
	if len(files) != 7 {
		t.Errorf("the files are %s", list(files))
	}
	want := map[string]string{}
	for path, raw := range files {
		want[raw] = path
	}
	if path := want[first]; !strings.HasSuffix(path, ":2,FS") || want[second] == "" {
		t.Errorf("the mbox's messages are not as they were: %s", list(files))
	}
	for _, path := range []string{other, box, folder} {
		if again := r.importAll(path); again.Changed != 0 {
			t.Errorf("%s a second time: %+v", path, again)
		}
	}
	r.until("nothing waits", func() bool {
		return r.count("SELECT count(*) FROM jobs WHERE finished_at IS NULL AND type <> 'account.sync'") == 0
	})
	if n, d := r.count("SELECT count(*) FROM messages"), r.count("SELECT count(*) FROM decisions"); n != 7 || d != 0 {
		t.Errorf("%d messages, %d decisions: an import without rules judges nothing", n, d)
	}
	if after := r.files(); list(after) != list(files) {
		t.Errorf("importing again changed files: %s", list(after))
	}
}

func TestAnImportGoesOnWhereItWasCutOff(t *testing.T) {
	t.Parallel()
	r := setup(t)
	const n, batch = 1100, 1000
	var box bytes.Buffer
	for i := range n {
		fmt.Fprintf(&box, "From x@example.org Thu Jan  1 00:00:00 2026\nSubject: %d\n\nbody of %d\n\n", i, i)
	}
	path := filepath.Join(t.TempDir(), "box")
	if err := os.WriteFile(path, box.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	// The account is paused in the commit that stores the first batch.
	r.exec("CREATE TRIGGER pausing AFTER INSERT ON messages WHEN (SELECT count(*) FROM messages) = " + fmt.Sprint(batch) + " BEGIN UPDATE accounts SET paused = 1; END")
	task, _, err := r.store.Import(t.Context(), job.ImportPayload{AccountID: r.account.ID, Path: path, ApplyRules: true})
	if err != nil {
		t.Fatal(err)
	}
	r.run()
	r.until("the import has stopped", func() bool {
		return r.count("SELECT count(*) FROM jobs WHERE type = 'mail.import' AND state = 'queued' AND claims > 0") == 1
	})
	if got, err := r.store.Task(t.Context(), task.ID); err != nil || got.Done != batch || len(r.files()) != batch {
		t.Errorf("%+v, %v; %d files", got, err, len(r.files()))
	}
	off := false
	if _, err := r.store.UpdateAccount(t.Context(), r.account.ID, mail.AccountChange{Paused: &off}); err != nil {
		t.Fatal(err)
	}
	done := r.ends(task.ID)
	if done.Changed != n || done.Done != n {
		t.Errorf("%+v", done)
	}
	r.settled(n)
	if got := len(r.files()); got != n {
		t.Errorf("%d files", got)
	}
}

// What is not there, is no mail or may not be read fails an import at once and
// says why; a mailbox that is away is waited for.
func TestAnImportSaysWhyItCannotGoOn(t *testing.T) {
	t.Parallel()
	r := setup(t)
	r.run()
	dir := t.TempDir()
	text := filepath.Join(dir, "text")
	if err := os.WriteFile(text, []byte("no mail"), 0o600); err != nil {
		t.Fatal(err)
	}
	closed := filepath.Join(dir, "closed")
	if err := os.WriteFile(closed, nil, 0); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{filepath.Join(dir, "none"): "no such file", text: "neither a Maildir", dir: "neither a Maildir", closed: "permission denied"} {
		if _, err := os.ReadFile(closed); err == nil && path == closed {
			continue // who runs this may read every file
		}
		task, _, err := r.store.Import(t.Context(), job.ImportPayload{AccountID: r.account.ID, Path: path})
		if err != nil {
			t.Fatal(err)
		}
		r.until("the import of "+path+" has failed", func() bool {
			task, err = r.store.Task(t.Context(), task.ID)
			return err != nil || *task.State == string(job.Failed)
		})
		if err != nil || !strings.Contains(*task.LastError, want) {
			t.Errorf("%s: %+v, %v", path, task, err)
		}
	}
	if n := r.count("SELECT coalesce(max(claims), 0) FROM jobs WHERE type = 'mail.import'"); n != 1 {
		t.Errorf("an import was tried %d times", n)
	}

	away := r.dir.Path() + ".away"
	r.until("the first sync is over", func() bool {
		return r.count("SELECT count(*) FROM accounts WHERE state_json->>'last_sync_at' IS NOT NULL") == 1
	})
	if err := os.Rename(r.dir.Path(), away); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(text, []byte("From x\nSubject: a\n\nx\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	task, _, err := r.store.Import(t.Context(), job.ImportPayload{AccountID: r.account.ID, Path: text})
	if err != nil {
		t.Fatal(err)
	}
	r.until("the import says why it waits", func() bool {
		task, err = r.store.Task(t.Context(), task.ID)
		return err != nil || task.LastProblem != nil && *task.State == string(job.Queued)
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(away, r.dir.Path()); err != nil {
		t.Fatal(err)
	}
	if task = r.ends(task.ID); task.Changed != 1 || task.LastProblem != nil {
		t.Errorf("%+v", task)
	}
}

func TestTheAccountsOwnFoldersAreTakenInWhereTheyLie(t *testing.T) {
	t.Parallel()
	r := setup(t)
	r.run()
	for _, e := range []maildir.Entry{{Unique: "a1", Folder: "Old", Flags: "S"}, {Unique: "a2", Folder: "Old.Older", New: true}} {
		if _, _, err := r.dir.DeliverTo(e, []byte("Subject: "+e.Unique+"\n\nbody")); err != nil {
			t.Fatal(err)
		}
	}
	before := list(r.files())
	if task := r.importAll(r.dir.Path()); task.Changed != 2 {
		t.Errorf("%+v", task)
	}
	if after := list(r.files()); after != before {
		t.Errorf("the files are %s", after)
	}
	found, _, err := r.store.Messages(t.Context(), mail.MessageFilter{Query: "a1"}, mail.PageOf{Limit: 10})
	if err != nil || len(found) != 1 || r.place(found[0].ID) != (mail.Place{Folder: "Old", Flags: "S"}) {
		t.Errorf("%+v, %v", found, err)
	}
}

// Names and folders that are meant to lead elsewhere touch nothing outside.
func TestNothingOutsideTheMaildirIsTouched(t *testing.T) {
	t.Parallel()
	r := setup(t)
	root := r.dir.Path()
	outside := t.TempDir()
	write := func(path, text string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	link := func(to, at string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(at), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(to, at); err != nil {
			t.Fatal(err)
		}
	}
	write(filepath.Join(outside, "cur", "secret"), "Subject: secret\n\nx")
	write(filepath.Join(outside, "new", "secret2"), "Subject: secret\n\nx")
	link(filepath.Join(outside, "cur", "secret"), filepath.Join(root, "new", "linked"))
	link(outside, filepath.Join(root, ".Linked"))
	link(filepath.Join(outside, "cur"), filepath.Join(root, ".Archive", "cur"))
	link(filepath.Join(outside, "new"), filepath.Join(root, ".Archive", "new"))
	link(outside, filepath.Join(root, ".Trash"))
	odd := []string{"..", "a\nb", strings.Repeat("x", 255), "sp ace", "co:lon:2,S", "é\u202e", ".hidden", "-rf", "%2e%2e"}
	for _, name := range odd[1:] {
		write(filepath.Join(root, "new", name), "Subject: odd\n\n"+name)
	}
	r.run()
	r.until("the sync has been over all", func() bool {
		return r.count("SELECT count(*) FROM jobs WHERE type = 'message.ingest'") > 0 && r.count("SELECT count(*) FROM jobs WHERE type = 'message.ingest' AND finished_at IS NULL") == 0
	})
	list, _, err := r.store.Messages(t.Context(), mail.MessageFilter{}, mail.PageOf{Limit: 100})
	if err != nil || len(list) < 4 {
		t.Fatalf("%d messages, %v", len(list), err)
	}
	for _, m := range list {
		for _, typ := range []string{"archive", "trash", "mark_read", "restore"} {
			a := r.act(m.ID, typ, mail.ActionParameters{})
			if typ == "mark_read" {
				r.ended(a.ID)
				continue
			}
			// A folder that leads elsewhere takes nothing; the action waits or fails.
			r.until("it was tried", func() bool {
				now, err := r.store.Action(t.Context(), a.ID)
				return err == nil && (now.Status.Final() || now.Status == action.Executing)
			})
		}
	}
	var names []string
	err = filepath.WalkDir(outside, func(path string, _ os.DirEntry, err error) error {
		rel, relErr := filepath.Rel(outside, path)
		names = append(names, rel)
		if err == nil {
			err = relErr
		}
		return err
	})
	if got := strings.Join(names, " "); err != nil || got != ". cur cur/secret new new/secret2" {
		t.Errorf("outside there is now %q, %v", got, err)
	}
	for _, m := range list {
		if m.Subject != nil && *m.Subject == "secret" {
			t.Error("a file outside was taken in")
		}
	}
}

// A sync of ten new messages beside many that lie there already: how long it
// takes, and the work of it, which does not depend on what else is running.
func BenchmarkSyncOfTenNew(b *testing.B) {
	for _, n := range []int{10_000, 100_000, 1_000_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) { benchmarkSync(b, n) })
	}
}

// cpuTime is what the process has used.
func cpuTime(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func benchmarkSync(b *testing.B, n int) {
	b.Helper()
	r := setupFor(b)
	for i := range n {
		name := fmt.Sprintf("%d.m.host:2,S", i)
		if err := os.WriteFile(filepath.Join(r.dir.Path(), "cur", name), nil, 0o600); err != nil {
			b.Fatal(err)
		}
	}
	old := time.Now().Add(-time.Hour)
	if err := os.Chtimes(filepath.Join(r.dir.Path(), "cur"), old, old); err != nil {
		b.Fatal(err)
	}
	r.exec("INSERT INTO threads(id, account_id, provider_thread_id, created_at, updated_at) VALUES ('t', ?, 't', 0, 0)", r.account.ID)
	for from := 0; from < n; from += 5000 {
		var rows []map[string]any
		for i := from; i < min(n, from+5000); i++ {
			name := fmt.Sprintf("%d.m.host:2,S", i)
			rows = append(rows, map[string]any{"u": fmt.Sprintf("%d.m.host", i), "h": mail.NameHash(name)})
		}
		var batch libsql.Batch
		batch.Exec(`INSERT INTO messages(id, account_id, thread_id, provider_message_id, size_bytes, content_sha256, file_dir, file_name, created_at, updated_at)
			SELECT e.value->>'u', ?1, 't', e.value->>'u', 1, 'x', ?2, e.value->>'h', 0, 0 FROM json_each(?3) AS e`,
			r.account.ID, mail.FolderHash("", false), string(job.Payload(rows)))
		if _, err := r.db.Write(b.Context(), &batch); err != nil {
			b.Fatal(err)
		}
	}
	sync := r.syncer(b)
	start := time.Now()
	sync()
	b.ReportMetric(float64(time.Since(start).Milliseconds()), "first-ms")
	b.ResetTimer()
	work := time.Duration(0)
	for range b.N {
		b.StopTimer()
		for range 10 {
			if _, _, err := r.dir.DeliverFresh("new"+r.q.NewID(), []byte("Subject: x\n\ny")); err != nil {
				b.Fatal(err)
			}
		}
		before := cpuTime(b)
		b.StartTimer()
		sync()
		work += cpuTime(b) - before
	}
	b.StopTimer()
	b.ReportMetric(float64(work.Milliseconds())/float64(b.N), "work-ms")
	// The same when a flag changed among the many, so that they are listed.
	name := filepath.Join(r.dir.Path(), "cur", "0.m.host:2,S")
	if err := os.Rename(name, name+"T"); err != nil {
		b.Fatal(err)
	}
	start = time.Now()
	sync()
	b.ReportMetric(float64(time.Since(start).Milliseconds()), "listed-ms")
}
