package main

import (
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/postroom/postroom/core/job"
	"github.com/postroom/postroom/core/queue"
)

func TestJobsTail(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	first, second := db.enqueue(job.DebugEcho, `1`), db.enqueue(job.DebugSleep, `{}`)
	fine(t, db.path, "jobs", "cancel", first)
	if out := fine(t, db.path, "jobs", "tail"); strings.Count(out, "\n") != 3 || !strings.Contains(out, first+"  canceled") || !strings.Contains(out, second+"  queued") {
		t.Errorf("%s", out)
	}
	if out := fine(t, db.path, "jobs", "tail", "-n", "1"); strings.Count(out, "\n") != 1 || !strings.Contains(out, "canceled") {
		t.Errorf("%s", out)
	}
	if out := fine(t, db.path, "jobs", "tail", "-type", job.DebugSleep, "-json"); strings.Count(out, "\n") != 1 || !strings.Contains(out, `"state":"queued"`) {
		t.Errorf("%s", out)
	}
	if out := fine(t, db.path, "jobs", "tail", "-type", "nobody.knows"); out != "" {
		t.Errorf("%s", out)
	}
	if r := cli(t, db.path, "jobs", "tail", "-n", "-1"); r.code != exitWrong {
		t.Errorf("exit %d", r.code)
	}
	p := startCommand(t, db.path, "jobs", "tail", "-f")
	await(t, "what was", func() bool { return strings.Count(p.out.String(), "\n") == 3 })
	fine(t, db.path, "jobs", "cancel", second)
	await(t, "what comes", func() bool { return strings.Contains(p.out.String(), second+"  canceled") })
	p.signal(syscall.SIGINT)
	if code := p.exit(); code != exitFine {
		t.Errorf("exit %d", code)
	}
}

func TestJobsEnqueue(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)

	t.Run("stores all that the flags say", func(t *testing.T) {
		t.Parallel()
		out := fine(t, db.path, "jobs", "enqueue", "a.type", "-payload", `{"x":1}`, "-queue", "q", "-priority", "7",
			"-max-attempts", "3", "-not-before", "2100-01-02T03:04:05Z", "-key", "k", "-key-scope", "forever",
			"-limit-key", "l", "-id", "0193f1a0-8c5e-7abc-8def-0123456789ab")
		if out != "0193f1a0-8c5e-7abc-8def-0123456789ab\n" {
			t.Errorf("%q", out)
		}
		j := db.job(strings.TrimSpace(out))
		if string(j.Payload) != `{"x":1}` || j.Type != "a.type" || j.Queue != "q" || j.Priority != 7 || j.MaxAttempts != 3 ||
			j.NotBefore.String() != "2100-01-02T03:04:05.000Z" || *j.IdempotencyKey != "k" || *j.LimitKey != "l" {
			t.Errorf("%+v", j)
		}
	})

	t.Run("takes the payload from stdin and a delay", func(t *testing.T) {
		t.Parallel()
		r := cliWith(t, db.path, "[1,2]\n", "jobs", "enqueue", "-payload", "-", "-delay", "1h", "b.type")
		j := db.job(strings.TrimSpace(r.out))
		if string(j.Payload) != "[1,2]" || j.NotBefore.Time().Sub(j.CreatedAt.Time()) != time.Hour {
			t.Errorf("%+v %+v", r, j)
		}
	})

	t.Run("refuses a payload that is too large, from stdin too", func(t *testing.T) {
		t.Parallel()
		r := cliWith(t, db.path, strings.Repeat(" ", job.MaxPayload+1), "jobs", "enqueue", "b.type", "-payload", "-")
		if r.code != exitWrong || !strings.Contains(r.err, "stdin holds more than") {
			t.Errorf("%+v", r)
		}
	})

	t.Run("names the job that holds the key", func(t *testing.T) {
		t.Parallel()
		first := fine(t, db.path, "jobs", "enqueue", "c.type", "-key", "once")
		r := cli(t, db.path, "jobs", "enqueue", "c.type", "-key", "once")
		if r.code != exitFine || r.out != first || !strings.Contains(r.err, "nothing was stored") {
			t.Errorf("%+v, want %q", r, first)
		}
		e := decode[queue.Enqueued](t, fine(t, db.path, "jobs", "enqueue", "c.type", "-key", "once", "-json"))
		if e.ID+"\n" != first || !e.Duplicate {
			t.Errorf("%+v", e)
		}
	})

	t.Run("refuses an id of another type's job", func(t *testing.T) {
		t.Parallel()
		id := strings.TrimSpace(fine(t, db.path, "jobs", "enqueue", "d.type"))
		if again := fine(t, db.path, "jobs", "enqueue", "d.type", "-id", id); again != id+"\n" {
			t.Errorf("%q", again)
		}
		if r := cli(t, db.path, "jobs", "enqueue", "e.type", "-id", id); r.code != exitFailed {
			t.Errorf("%+v", r)
		}
	})

	t.Run("takes what follows -- as it is", func(t *testing.T) {
		t.Parallel()
		id := strings.TrimSpace(fine(t, db.path, "jobs", "enqueue", "--", "-odd"))
		if j := db.job(id); j.Type != "-odd" {
			t.Errorf("%+v", j)
		}
	})
}

func TestJobsComeAfterOthers(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	first, second := db.enqueue("a.type", `1`), db.enqueue("a.type", `1`)
	id := strings.TrimSpace(fine(t, db.path, "jobs", "enqueue", "b.type", "-after", first+","+second, "-after-failure", "run"))
	if d := db.job(id); len(d.After) != 2 {
		t.Errorf("%+v", d)
	}
	fine(t, db.path, "jobs", "cancel", first)
	if out := fine(t, db.path, "jobs", "show", id); !strings.Contains(out, first+" (canceled), "+second+"\n") {
		t.Error(out)
	}
	const nobody = "0193f1a0-8c5e-7abc-8def-0123456789ab"
	r := cli(t, db.path, "jobs", "enqueue", "b.type", "-after", first+","+nobody)
	if r.code != exitWrong || r.out != "" || !strings.Contains(r.err, "-after[1]: is no job that is stored") {
		t.Errorf("%+v", r)
	}
}

func TestJobsWhy(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	first := db.enqueue("a.type", `1`)
	id := strings.TrimSpace(fine(t, db.path, "jobs", "enqueue", "a.type", "-after", first, "-not-before", "2100-01-02T03:04:05Z"))
	want := id + ` is queued:
  it comes after jobs that have not completed: ` + first + `
  its time has not come, until 2100-01-02T03:04:05.000Z
  no runner is alive
`
	if out := fine(t, db.path, "jobs", "why", id); out != want {
		t.Errorf("%s, want\n%s", out, want)
	}
	if w := decode[queue.Why](t, fine(t, db.path, "jobs", "why", id, "-json")); w.ID != id || len(w.Reasons) != 3 || w.Reasons[1].Code != "not_due" {
		t.Errorf("%+v", w)
	}
	fine(t, db.path, "queues", "pause", job.DefaultQueue)
	if out := fine(t, db.path, "jobs", "why", db.enqueue("a.type", `1`)); !strings.Contains(out, "the queue default is paused") || !strings.Contains(out, "  1 jobs stand before it in line\n") {
		t.Error(out)
	}
	if r := cli(t, db.path, "jobs", "why", "nobody"); r.code != exitFailed || !strings.Contains(r.err, "no such job") {
		t.Errorf("%+v", r)
	}

	t.Run("says it for a job that is in line, runs or has ended", func(t *testing.T) {
		t.Parallel()
		db := newDatabase(t)
		long := db.enqueue(job.DebugSleep, `{"ms":600000}`)
		startRunner(t, db.path, "queue.concurrency=1")
		db.await(long, job.Running)
		next := db.enqueue(job.DebugEcho, `1`)
		for id, want := range map[string]string{
			long: "it is running: runner ", next: "it is in line: 0 jobs of its queue stand before it; 1 runners with 1 slots work there\n",
		} {
			if out := fine(t, db.path, "jobs", "why", id); !strings.Contains(out, want) || strings.Count(out, "\n") != 2 {
				t.Errorf("%s, want %s", out, want)
			}
		}
		fine(t, db.path, "jobs", "cancel", next)
		if out := fine(t, db.path, "jobs", "why", next); !strings.Contains(out, "it has ended as canceled at ") {
			t.Error(out)
		}
	})
}

func TestJobsList(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	var ids []string
	for range 3 {
		ids = append(ids, db.enqueue("a.type", `1`))
	}
	other := db.enqueue("b.type", `1`)

	if out := fine(t, db.path, "jobs", "list"); strings.Count(out, "\n") != 5 ||
		!strings.HasPrefix(out, "ID ") || !strings.Contains(strings.Split(out, "\n")[1], other) {
		t.Error(out)
	}
	p := decode[jobPage](t, fine(t, db.path, "jobs", "list", "-json", "-type", "a.type", "-state", "queued", "-limit", "2"))
	if len(p.Jobs) != 2 || p.Jobs[0].ID != ids[2] || p.Next == nil {
		t.Fatalf("%+v", p)
	}
	p = decode[jobPage](t, fine(t, db.path, "jobs", "list", "-json", "-type", "a.type", "-cursor", *p.Next))
	if len(p.Jobs) != 1 || p.Jobs[0].ID != ids[0] || p.Next != nil {
		t.Errorf("%+v", p)
	}
	if out := fine(t, db.path, "jobs", "list", "-state", "failed", "-json"); out != `{"jobs":[],"next_cursor":null}`+"\n" {
		t.Errorf("%q", out)
	}
}

func TestJobsShow(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	id := db.enqueue(job.DebugSteps, `{"n":2,"fail_after":1}`)
	panics, err := db.q.Enqueue(t.Context(), job.New{Type: job.DebugPanic, MaxAttempts: 1})
	if err != nil {
		t.Fatal(err)
	}
	startRunner(t, db.path)
	db.await(id, job.Completed)
	db.await(panics.ID, job.Failed)

	out := fine(t, db.path, "jobs", "show", id)
	for _, want := range []string{"state             completed", `result            {"steps":[1,2]}`, "step_2", "retried", "debug.steps: failed after step 1", "AT                        STATE      RUN\n", "Z  running    2\n"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	if d := decode[queue.Detail](t, fine(t, db.path, "jobs", "show", "-json", id)); d.ID != id || len(d.Steps) != 2 || len(d.Runs) != 2 {
		t.Errorf("%+v", d)
	}
	if out := fine(t, db.path, "jobs", "show", panics.ID); !strings.Contains(out, "stack of run 1:\n  goroutine ") {
		t.Error(out)
	}
	if r := cli(t, db.path, "jobs", "show", "nobody"); r.code != exitFailed || !strings.Contains(r.err, "no such job") {
		t.Errorf("%+v", r)
	}
}

func TestJobsSettle(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	// What a runner leaves of a job that failed as step_uncertain.
	uncertain := func(step string) string {
		id := db.enqueue("a.type", `1`)
		b := db.q.NewBatch(t.Context())
		b.Exec("UPDATE jobs SET state = 'failed', ready_key = NULL, finished_at = 1 WHERE id = ?", id)
		b.Exec("INSERT INTO job_steps(job_id, name, run, outcome, started_at, created_at, updated_at, error) VALUES (?, ?, 1, 'uncertain', 1, 1, 1, ?)",
			id, step, []byte("the line went dead"))
		if _, err := db.q.Write(t.Context(), b); err != nil {
			t.Fatal(err)
		}
		return id
	}
	first, second, third := uncertain("send"), uncertain("send mail 'x'"), uncertain("send")

	if out := fine(t, db.path, "jobs", "show", first); !strings.Contains(out, "queuerunner jobs settle "+first+" STEP -happened|-not-happened") ||
		!strings.Contains(out, "the line went dead") {
		t.Error(out)
	}
	r := cli(t, db.path, "jobs", "settle", first, "send", "-happened", "-result", `{"id":"<x@example.org>"}`)
	if r.code != exitFine || r.out != "step send is done\n" || r.err != "the job stays failed; queuerunner jobs retry "+first+" runs it again and replays the step\n" {
		t.Errorf("%+v", r)
	}
	if s := db.job(first).Steps[0]; s.Outcome != job.StepDone || string(s.Result) != `{"id":"<x@example.org>"}` {
		t.Errorf("%+v", s)
	}
	if out := fine(t, db.path, "jobs", "show", first); strings.Contains(out, "jobs settle") {
		t.Error(out)
	}
	if out := fine(t, db.path, "jobs", "settle", "-not-happened", second, "send mail 'x'"); out != "step send mail 'x' is failed\n" {
		t.Error(out)
	}
	r = cliWith(t, db.path, "[1]\n", "jobs", "settle", third, "send", "-happened", "-result", "-", "-json")
	if s := decode[queue.Settled](t, r.out); s.JobID != third || s.JobState != job.Failed || string(s.Result) != "[1]" || r.err != "" {
		t.Errorf("%+v", r)
	}
	for _, c := range []struct{ id, step, want string }{
		{first, "send", "the step is not uncertain"},
		{first, "receive", "the job has no such step"},
		{db.enqueue("a.type", `1`), "send", "the job has no such step"},
		{"nobody", "send", "no such job"},
	} {
		if r := cli(t, db.path, "jobs", "settle", c.id, c.step, "-happened"); r.code != exitFailed || !strings.Contains(r.err, c.want) {
			t.Errorf("%v: %+v", c, r)
		}
	}
}

func TestJobsCancelAndRetry(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	id := db.enqueue("a.type", `1`)
	for _, s := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"retry", id}, exitFailed, "state does not allow this"},
		{[]string{"cancel", id}, exitFine, id + " is canceled\n"},
		{[]string{"cancel", id, "-json"}, exitFine, `"state":"canceled"`},
		{[]string{"retry", id}, exitFine, id + " is queued\n"},
		{[]string{"cancel", "nobody"}, exitFailed, "no such job"},
		{[]string{"retry", "nobody"}, exitFailed, "no such job"},
	} {
		r := cli(t, db.path, append([]string{"jobs"}, s.args...)...)
		if r.code != s.code || !strings.Contains(r.out+r.err, s.want) {
			t.Errorf("%v: %+v", s.args, r)
		}
	}

	t.Run("a running job is asked to stop", func(t *testing.T) {
		t.Parallel()
		id := db.enqueue(job.DebugSleep, `{"ms":600000}`)
		startRunner(t, db.path)
		db.await(id, job.Running)
		if out := fine(t, db.path, "jobs", "cancel", id); !strings.HasPrefix(out, id+" is ") {
			t.Error(out)
		}
		db.await(id, job.Canceled)
	})
}

func TestJobsAreChangedByFilter(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	for range 2 {
		db.enqueue("a.type", `{"user":{"id":7}}`)
	}
	id := db.enqueue("b.type", `1`)
	e, err := db.q.Enqueue(t.Context(), job.New{Type: "c.type", Delay: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ args, want string }{
		{"cancel -payload user.id=7 -dry-run", "2 jobs would be canceled or asked to stop\n"},
		{"cancel -payload user.id=7", "2 jobs were canceled or asked to stop\n"},
		{"retry -type a.type -json", `{"dry_run":false,"matched":2,"changed":2,"skipped":{"key_in_use":0,"invalid_state":0}}` + "\n"},
		{"cancel -state queued -created-before 2020-01-01T00:00:00Z", "0 jobs were canceled or asked to stop\n"},
		{"run-now " + e.ID, e.ID + " is queued\n"},
		{"cancel -created-from 2020-01-01T00:00:00Z", "4 jobs were canceled or asked to stop\n"},
		{"delete " + id, id + " is deleted\n"},
		{"delete -state canceled -type c.type", "1 jobs were deleted\n"},
	} {
		if out := fine(t, db.path, append([]string{"jobs"}, strings.Fields(c.args)...)...); out != c.want {
			t.Errorf("%s: %q, want %q", c.args, out, c.want)
		}
	}
	for args, want := range map[string]string{
		"cancel": "which ones?", "delete -dry-run": "which ones?", "retry x -state failed": "stands alone", "cancel -state": "", "retry -state queued": "-state: queued jobs are none to retry",
		"cancel -payload x": "-payload: must be FIELD=VALUE", "cancel -created-from now": "must be a time", "cancel -type=": "must not be empty",
	} {
		if r := cli(t, db.path, append([]string{"jobs"}, strings.Fields(args)...)...); r.code != exitWrong || !strings.Contains(r.err, want) {
			t.Errorf("%s: %+v", args, r)
		}
	}
	fine(t, db.path, "verify")
}
