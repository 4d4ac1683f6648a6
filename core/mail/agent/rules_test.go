package agent_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"strings"
	"testing"

	"github.com/postroom/postroom/core/job"
	"github.com/postroom/postroom/core/mail"
	"github.com/postroom/postroom/core/mail/action"
)

// apply runs the rules over the mail that is there and waits for the end.
func (r *rig) apply() *mail.Task {
	r.Helper()
	task, _, err := r.store.ApplyRules(r.Context(), "")
	if err != nil {
		r.Fatal(err)
	}
	r.until("the rules are applied", func() bool {
		if task, err = r.store.Task(r.Context(), task.ID); err != nil {
			r.Fatal(err)
		}
		return task.State != nil && job.State(*task.State).Final()
	})
	return task
}

func TestRulesAreAppliedToTheMailThatIsThereOncePerVersion(t *testing.T) {
	t.Parallel()
	r := setup(t)
	r.run()
	const n = 250
	at := make([]string, n)
	for i := range at {
		at[i] = fmt.Sprintf("cur/m%d:2,", i)
	}
	ids := r.put(at...)
	r.rule(mail.NewRule{Name: "fives", ActionType: "star", Conditions: json.RawMessage(`{"op":"subject_regex","value":"5$"}`)})
	task := r.apply()
	if *task.State != "completed" || *task.Total != n || task.Done != n || task.Changed != 25 {
		t.Errorf("%+v", task)
	}
	if again := r.apply(); *again.State != "completed" || again.Changed != 0 {
		t.Errorf("a second time: %+v", again)
	}
	if got := r.count("SELECT count(*) FROM decisions"); got != 2*n {
		t.Errorf("%d decisions for %d messages and two versions", got, n)
	}
	r.until("all stars are set", func() bool { return r.count("SELECT count(*) FROM actions WHERE status = 'completed'") == 25 })
	for path := range r.files() {
		number, _, _ := strings.Cut(path[len("cur/m"):], ":")
		if starred := strings.HasSuffix(path, "F"); starred != strings.HasSuffix(number, "5") {
			t.Errorf("%s", path)
		}
	}
	if len(ids) != n {
		t.Errorf("%d messages", len(ids))
	}
}

// A task that is stopped between two batches goes on where it was.
func TestApplyingRulesGoesOnAfterACancel(t *testing.T) {
	t.Parallel()
	r := setup(t)
	stop := r.run()
	const n = 120
	at := make([]string, n)
	for i := range at {
		at[i] = fmt.Sprintf("cur/m%d:2,", i)
	}
	r.put(at...)
	stop()
	r.rule(mail.NewRule{Name: "all", ActionType: "star", Conditions: json.RawMessage(`{"op":"subject_contains","value":"message"}`)})
	task, _, err := r.store.ApplyRules(t.Context(), r.account.ID)
	if err != nil {
		t.Fatal(err)
	}
	// As a run that was cut off after its first batch left it.
	last, total, err := r.store.ApplyEnd(t.Context(), r.account.ID)
	if err != nil {
		t.Fatal(err)
	}
	batch, err := r.store.ApplyNext(t.Context(), r.account.ID, "", last)
	if err != nil || batch.Finished || batch.Looked != mail.ApplyBatch {
		t.Fatalf("%+v, %v", batch, err)
	}
	b := r.q.NewBatch(t.Context())
	task.Total, task.Done = &total, batch.Looked
	task.Changed = r.store.RecordApplied(t.Context(), b, batch)
	r.store.RecordProgress(b, task, []byte(batch.Last+" "+last))
	if _, err := r.q.Write(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	if _, err := r.q.Cancel(t.Context(), task.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := r.q.Retry(t.Context(), task.ID); err != nil {
		t.Fatal(err)
	}
	r.run()
	r.until("the task ends", func() bool {
		if task, err = r.store.Task(t.Context(), task.ID); err != nil {
			t.Fatal(err)
		}
		return *task.State == "completed"
	})
	if task.Done != n || task.Changed != n {
		t.Errorf("%+v", task)
	}
}

// What a dry run foresees is what the action then does.
func TestADryRunForeseesWhatHappens(t *testing.T) {
	t.Parallel()
	r := setup(t)
	r.run()
	var at []string
	for i, typ := range action.Types {
		if typ.CarriedOut && typ.Name != "none" {
			at = append(at, fmt.Sprintf([]string{"new/m%d", "cur/m%d:2,S", "cur/m%d:2,FR"}[i%3], len(at)))
		}
	}
	ids := r.put(at...)
	// Where another program has put them since they were stored.
	for i, place := range at {
		p := mail.Place{New: strings.HasPrefix(place, "new/")}
		_, p.Flags, _ = strings.Cut(place, ":2,")
		r.exec("UPDATE messages SET raw_json = json_patch(raw_json, ?) WHERE id = ?", string(job.Payload(p)), ids[fmt.Sprintf("m%d", i)])
	}
	n := 0
	for _, typ := range action.Types {
		if !typ.CarriedOut || typ.Name == "none" {
			continue
		}
		unique := fmt.Sprintf("m%d", n)
		rule := mail.NewRule{
			Name: typ.Name, ActionType: typ.Name, ActionParameters: job.Payload(changes[typ.Name].parameters), SafeMode: "dangerous_override",
			Conditions: job.Payload(map[string]string{"op": "subject_regex", "value": fmt.Sprintf("message %d$", n)}),
		}
		n++
		tried, _, err := r.store.DryRun(t.Context(), mail.Trial{Rules: []mail.NewRule{rule}, Messages: []string{ids[unique]}, PageOf: mail.PageOf{Limit: 10}})
		if err != nil || len(tried) != 1 || tried[0].ActionType != typ.Name || tried[0].Undoable != typ.Undoable || tried[0].NeedsApproval {
			t.Fatalf("%s: %+v, %v", typ.Name, tried, err)
		}
		before, err := r.store.Message(t.Context(), ids[unique])
		if err != nil {
			t.Fatal(err)
		}
		act := r.act(ids[unique], typ.Name, changes[typ.Name].parameters)
		if act.Status == action.ApprovedPending {
			if _, err := r.store.Approve(t.Context(), act.ID); err != nil {
				t.Fatal(err)
			}
		}
		r.completed(act.ID)
		after, err := r.store.Message(t.Context(), ids[unique])
		if err != nil {
			t.Fatal(err)
		}
		if got, want := tried[0].Changes, differences(t, before, after); !maps.Equal(byWhat(got), byWhat(want)) {
			t.Errorf("%s: foreseen %v, happened %v", typ.Name, got, want)
		}
	}
}

func byWhat(list []mail.Change) map[string]string {
	m := map[string]string{}
	for _, c := range list {
		m[c.What] = c.Before + " → " + c.After
	}
	return m
}

// differences compares two states of a message.
func differences(t *testing.T, a, b *mail.MessageDetail) (out []mail.Change) {
	t.Helper()
	read := func(m *mail.MessageDetail) map[string]string {
		var p mail.Place
		var labels []string
		if err := json.Unmarshal(m.Raw, &p); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(m.Labels, &labels); err != nil {
			t.Fatal(err)
		}
		state := map[string]string{"folder": p.Folder, "flags": p.Flags, "labels": strings.Join(labels, ", "), "file": "there"}
		if p.Folder == "" {
			state["folder"] = "INBOX"
		}
		if p.Gone {
			state["file"] = "removed for good"
		}
		return state
	}
	before, after := read(a), read(b)
	if after["file"] != "there" {
		return []mail.Change{{What: "file", Before: "there", After: after["file"]}}
	}
	for what := range before {
		if before[what] != after[what] {
			out = append(out, mail.Change{What: what, Before: before[what], After: after[what]})
		}
	}
	return out
}
