package sim

import (
	"maps"
	"regexp"
	"slices"
	"strings"
)

// What belongs to a job: keys, runs, steps, and what it comes after.

func (t *transition) key(ch change) {
	id, job := ch.row.str("type")+"\x00"+ch.row.str("key"), ch.row.str("job_id")
	k := keyState{job: job, scope: ch.row.str("scope"), expires: ch.row.num("expires_at")}
	if ch.op == "-" {
		delete(t.c.keys, id)
		switch {
		case k.scope == "until" && k.expires > t.call.ms:
			t.violate("a key holds for its time", job, "key %s is free at %d, %d ms early", ch.row.str("key"), t.call.ms, k.expires-t.call.ms)
		case k.scope == "forever":
			t.violate("a key holds for ever", job, "key %s is free", ch.row.str("key"))
		case k.scope == "active":
			t.freed = append(t.freed, job)
		}
		return
	}
	if was, held := t.c.keys[id]; held && was.job != job {
		// Only one that is free may be taken over.
		j := t.c.jobs[was.job]
		free := was.scope == "until" && was.expires <= t.call.ms || was.scope == "active" && (j == nil || isFinal(j.str("state")))
		if !free {
			t.violate("a key stands for one job", was.job, "its key %s goes to %s", ch.row.str("key"), job)
		}
	}
	t.c.keys[id] = k
	if j := t.c.jobs[job]; j != nil {
		j.scope = k.scope
	}
}

// ofOutage is the error of a run that the database did not let go on.
var ofOutage = regexp.MustCompile(`database: [a-z]+: (busy|unavailable|full|unknown)`)

func (t *transition) run(ch change) {
	id, n, outcome := ch.row.str("job_id"), ch.row.num("run"), ch.row.str("outcome")
	j := t.c.jobs[id]
	switch {
	case ch.op == "-" && t.call.op == "Prune":
	case j == nil:
		t.violate("the history is whole", id, "a run of no job: %s", ch.row)
	case ch.op == "+":
		t.endRun(j, n, outcome)
		if text := ch.row.str("error"); (outcome == "retried" || outcome == "failed") && ofOutage.MatchString(text) && !strings.Contains(text, "context ") {
			t.violate("an outage spends no attempt", id, "run %d ends as %s: %s", n, outcome, text)
		}
	case ch.op == "-" && outcome != "snoozed":
		t.violate("runs are kept", id, "run %d, %s, is gone", n, outcome)
	case ch.op == "=":
		t.violate("a run ends once", id, "run %d is changed to %s", n, outcome)
	}
}

// endRun notes that a run has ended: by a row of its own or, where it completed
// its job, by the job's.
func (t *transition) endRun(j *jobState, n int64, outcome string) {
	if was, ended := j.endedRuns[n]; ended {
		t.violate("a run ends once", j.id, "run %d was %s and is %s", n, was, outcome)
	}
	if n != j.num("claims") || j.str("state") != "running" {
		t.violate("a run ends once", j.id, "run %d ends as %s, and the job is %s in run %d", n, outcome, j.str("state"), j.num("claims"))
	}
	j.endedRuns[n] = outcome
}

func (t *transition) step(ch change) {
	id, name := ch.row.str("job_id"), ch.row.str("name")
	j := t.c.jobs[id]
	if ch.op == "-" && t.call.op == "Prune" {
		return
	}
	if j == nil {
		t.violate("the history is whole", id, "a step of no job: %s", ch.row)
		return
	}
	was, is := j.steps[name], stepState{outcome: ch.row.str("outcome"), run: ch.row.num("run"), result: ch.row.str("result_json")}
	if was.outcome == "done" && (was.run != is.run || was.result != is.result || is.outcome != "done") || ch.op == "-" {
		t.violate("a finished step stays", id, "step %s was done in run %d with %s, and is %s in run %d with %s", name, was.run, was.result, is.outcome, is.run, is.result)
	}
	if t.call.op == "SettleStep" {
		if was.outcome != "uncertain" || !isFinal(j.str("state")) || was.run != is.run {
			t.violate("only what is uncertain is settled", id, "step %s was %s and is %s, the job is %s", name, was.outcome, is.outcome, j.str("state"))
		}
	} else if is.run != j.num("claims") && is.run != was.run || !t.holds(j) { // what is found out later keeps its run
		t.violate("no write under an old token", id, "step %s of run %d is recorded, the job is in run %d", name, is.run, j.num("claims"))
	}
	j.steps[name] = is
}

// dep: what a job comes after is marked with how it ended, and that is true.
func (t *transition) dep(ch change) {
	id, other, outcome := ch.row.str("job_id"), ch.row.str("after_id"), ch.row.str("outcome")
	j := t.c.jobs[id]
	if ch.op == "-" && t.call.op == "Prune" {
		return
	}
	if j == nil {
		t.violate("the history is whole", id, "it comes after %s and is not there", other)
		return
	}
	j.after[other] = outcome
	t.c.depsChanged[id] = true
}

// deps: after each call every waiting job knows how those ended that it comes
// after.
func (c *checker) deps(t *transition) {
	for _, id := range slices.Sorted(maps.Keys(c.depsChanged)) {
		j := c.jobs[id]
		if j == nil {
			continue
		}
		for other, outcome := range j.after {
			o := c.jobs[other]
			want := ""
			switch {
			case o != nil && isFinal(o.str("state")):
				want = o.str("state")
			case o == nil && outcome == "completed":
				want = "completed" // and pruned since
			case o == nil:
				want = "pruned"
			}
			if outcome != want {
				t.violate("a chain keeps its order", id, "%s ended as %q and is noted as %q", other, want, outcome)
			}
		}
	}
	clear(c.depsChanged)
}
