package sim

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// transition judges the changes of one call, one after the other.
type transition struct {
	c       *checker
	call    *call
	claimed []string
	line    []string           // who stood in line as the first one was taken
	ended   []string           // jobs that became final
	freed   []string           // jobs whose active key was deleted
	ticks   map[string][]int64 // instants of schedules that got a job, by name
	states  []string           // each new state of a job, as the log must have it
	logged  []string           // each state in the log
}

func (t *transition) violate(rule, job, format string, args ...any) {
	t.c.violate(rule, job, "%s of %s at %d: "+format, append([]any{t.call.op, t.call.proc.name, t.call.ms}, args...)...)
}

// holds says whether the call was made under the token that holds the job.
func (t *transition) holds(j *jobState) bool {
	return slices.Contains(t.call.held, held{j.id, j.str("lease_token")})
}

func (t *transition) change(ch change) {
	switch ch.table {
	case "jobs":
		t.job(ch)
	case "job_keys":
		t.key(ch)
	case "job_run_rows":
		t.run(ch)
	case "job_steps":
		t.step(ch)
	case "job_deps":
		t.dep(ch)
	case "job_log":
		t.log(ch)
	case "limits":
		t.c.limit(ch)
	case "cron":
		t.cron(ch)
	case "queues":
		t.c.paused[ch.row.str("name")] = ch.op != "-" && ch.row.num("paused") == 1
	}
}

func (t *transition) job(ch change) {
	id := ch.row.str("id")
	j := t.c.jobs[id]
	switch {
	case ch.op == "+":
		t.insert(id, ch.row)
		return
	case j == nil:
		t.violate("the history is whole", id, "it changed before it was stored")
		return
	case ch.op == "-":
		t.prune(j)
		return
	}
	from, to := j.str("state"), ch.row.str("state")
	if by := ch.row.str("completed_by"); by != j.str("completed_by") {
		if to != "completed" || by != j.str("claimed_by") {
			t.violate("each end of a run is written down", id, "%s → %s completed by %q, held by %q", from, to, by, j.str("claimed_by"))
		}
		t.endRun(j, j.num("claims"), "completed")
	}
	switch {
	case from == "queued" && to == "running":
		t.claim(j, ch.row)
	case from == "queued" && to == "queued":
		t.wait(j, ch.row)
	case from == "running" && to == "running":
		t.hold(j, ch.row)
	case from == "running":
		t.leave(j, ch.row)
	case from == "queued" && to == "canceled":
		t.cancel(j, ch.row)
	case (from == "failed" || from == "canceled") && to == "queued":
		t.retry(j, ch.row)
	default:
		t.violate("no other transition", id, "%s → %s", from, to)
	}
	t.counters(j, ch.row, from, to)
	t.place(j, ch.row)
	j.row = ch.row
	if from != to {
		t.states = append(t.states, fmt.Sprintf("%d %s %d", j.num("seq"), to, j.num("claims")))
	}
	if isFinal(from) && !isFinal(to) {
		j.activeSince, j.endedAt = t.c.at, 0
	}
	if isFinal(to) && !isFinal(from) {
		j.endedAt = t.c.at
		t.ended = append(t.ended, id)
	}
}

func (t *transition) insert(id string, r row) {
	if old := t.c.jobs[id]; old != nil {
		t.violate("an id is one job", id, "it was stored twice")
	}
	t.c.places[strconv.FormatInt(r.num("seq"), 10)] = id
	j := newJobState(id, r)
	if r.str("state") != "queued" || r.num("attempts")+r.num("failures")+r.num("crashes")+r.num("claims")+r.num("solo") != 0 || r.has("lease_token") {
		t.violate("a new job is fresh", id, "%s", r)
	}
	due := r.num("waits") == 0 && max(r.num("not_before"), r.num("created_at")) <= t.call.ms
	limited := t.c.limitOf("key", r.str("limit_key")) != nil
	if r.has("ready_key") != (due && !limited) || r.has("wait_key") != (due && limited) {
		t.violate("nothing starts before its time", id, "due %v, limited %v: %s", due, limited, r)
	}
	t.place(&jobState{row: row{}}, r)
	if key, ok := r.get("idempotency_key"); ok {
		if k, held := t.c.keys[r.str("type")+"\x00"+key]; held && k.job != id {
			t.violate("a key stands for one job", id, "key %s was held by %s with scope %s", key, k.job, k.scope)
		}
		for _, other := range t.c.ids() {
			if o := t.c.jobs[other]; o.str("type") == r.str("type") && o.scope == "active" && o.str("idempotency_key") == key && !isFinal(o.str("state")) {
				t.violate("a key stands for one job", id, "%s with key %s is %s", other, key, o.str("state"))
			}
		}
		j.scope = t.c.keys[r.str("type")+"\x00"+key].scope
	}
	if parent := t.c.jobs[r.str("parent_id")]; parent != nil {
		parent.children++
	}
	t.c.jobs[id] = j
	j.activeSince = t.c.at
	t.tick(r)
	t.c.w.stats.Jobs++
	t.states = append(t.states, fmt.Sprintf("%d queued 0", r.num("seq")))
}

// place: age and priority make the order. A limited key's jobs take their
// place when the key has room for them.
func (t *transition) place(was *jobState, r row) {
	want := max(r.num("not_before"), r.num("created_at")) - r.num("priority")*30_000
	arrived := t.call.ms - max(r.num("priority"), 0)*30_000 // what a negative one costs is waited already
	ready, inLine := r.get("ready_key")
	if inLine && ready != was.str("ready_key") {
		if n := r.num("ready_key"); n != want && (!r.has("limit_key") || n != max(want, arrived)) {
			t.violate("age and priority make the order", r.str("id"), "ready_key %d, want %d", n, want)
		}
	}
	if wait, waits := r.get("wait_key"); waits && wait != was.str("wait_key") && r.num("wait_key") != want {
		t.violate("age and priority make the order", r.str("id"), "wait_key %s, want %d", wait, want)
	}
	if (inLine || r.has("wait_key")) && !was.has("ready_key") && !was.has("wait_key") && r.num("not_before") > t.call.ms {
		t.violate("nothing starts before its time", r.str("id"), "it is lined up, but not before %d", r.num("not_before"))
	}
}

// wait: a queued job is lined up, waits for room, or is pulled forward.
func (t *transition) wait(j *jobState, r row) {
	if r.str("not_before") != j.str("not_before") && (t.call.op != "PullForward" || r.num("not_before") != t.call.ms) {
		t.violate("no other transition", j.id, "not_before %s → %s", j.str("not_before"), r.str("not_before"))
	}
	if r.num("solo") != j.num("solo") {
		t.violate("no other transition", j.id, "solo %d → %d", j.num("solo"), r.num("solo"))
	}
	if (j.has("ready_key") || j.has("wait_key")) && !r.has("ready_key") && !r.has("wait_key") {
		t.violate("no other transition", j.id, "it stood in line and stands nowhere: %s", r)
	}
	if j.num("waits") == 1 && r.num("waits") == 0 {
		for other, outcome := range j.after {
			if outcome == "" || outcome != "completed" && j.str("after_failure") != "run" {
				t.violate("a chain keeps its order", j.id, "it is released after %s, which is %q", other, outcome)
			}
		}
	}
}

// cancel of a queued job: asked for, or because of what it came after.
func (t *transition) cancel(j *jobState, r row) {
	if t.call.op == "Cancel" {
		return
	}
	for _, outcome := range j.after {
		if outcome == "pruned" || outcome != "" && outcome != "completed" && j.str("after_failure") == "cancel" {
			if j.num("waits") == 1 && j.str("after_failure") != "run" {
				return
			}
		}
	}
	t.violate("only a cancel cancels", j.id, "%s, after %v", r, j.after)
}

// hold: a heartbeat under the token, a wish to cancel, or the begin of a run
// alone.
func (t *transition) hold(j *jobState, r row) {
	if r.str("lease_token") != j.str("lease_token") {
		t.violate("one holder at a time", j.id, "token %s takes over from %s, whose lease ends at %d", r.str("lease_token"), j.str("lease_token"), j.num("lease_expires_at"))
	}
	if r.num("lease_expires_at") != j.num("lease_expires_at") {
		if !t.holds(j) {
			t.violate("no write under an old token", j.id, "the lease was extended")
		}
		t.lease(j.id, r)
		t.prompt(j)
	}
	if r.has("cancel_requested_at") && !j.has("cancel_requested_at") {
		if t.call.op != "Cancel" {
			t.violate("only a cancel cancels", j.id, "%s", r)
		}
		t.c.cancels = append(t.c.cancels, &canceled{runOf: runOf{j.id, j.num("claims")}, typ: j.str("type"), proc: j.str("claimed_by"), at: t.c.now()})
	}
	if j.has("cancel_requested_at") && r.str("cancel_requested_at") != j.str("cancel_requested_at") {
		t.violate("canceled means canceled", j.id, "the wish was made at %s and now at %s", j.str("cancel_requested_at"), r.str("cancel_requested_at"))
	}
	if r.num("solo") != j.num("solo") {
		if r.num("solo") != 2 || j.num("solo") != 1 || !t.holds(j) {
			t.violate("no other transition", j.id, "solo %d → %d", j.num("solo"), r.num("solo"))
		}
		for other := range t.c.busy[t.call.proc.name] {
			t.violate("alone is alone", j.id, "it begins to run alone while %s run %d is at work", other.job, other.run)
		}
	}
}

// lease: it is counted from now by the database's clock.
func (t *transition) lease(id string, r row) {
	if lease := r.num("lease_expires_at") - t.call.ms; lease != t.c.w.plan.lease.Milliseconds() {
		t.violate("one clock", id, "the lease ends in %d ms by the database's clock", lease)
	}
}

// leave: a run ends by its holder's word, or by rescue after its lease.
func (t *transition) leave(j *jobState, r row) {
	to, outcome := r.str("state"), j.endedRuns[j.num("claims")]
	t.prompt(j)
	if r.has("lease_token") {
		switch {
		case !t.holds(j):
			t.violate("no write under an old token", j.id, "running → %s without its token %s", to, j.str("lease_token"))
		case r.str("lease_token") != j.str("lease_token"):
			t.violate("a finished row keeps its token", j.id, "it is %s", r.str("lease_token"))
		}
	} else {
		t.rescue(j, r, to, outcome)
	}
	if j.has("cancel_requested_at") && to != "canceled" && to != "completed" {
		t.violate("canceled means canceled", j.id, "running → %s after its cancel", to)
	}
	if to == "canceled" && !j.has("cancel_requested_at") {
		t.violate("only a cancel cancels", j.id, "running → canceled")
	}
	if to == "completed" {
		if j.completions++; j.completions > 1 {
			t.violate("at most one completion", j.id, "completed %d times", j.completions)
		}
	}
	var want []string
	switch to {
	case "completed":
		want = []string{"completed"}
	case "failed":
		want = []string{"failed", "poisoned"}
	case "canceled":
		want = []string{"canceled", "rescued", "poisoned", "handed_back"}
	case "queued":
		want = []string{"retried", "snoozed", "handed_back", "rescued"}
	}
	if !slices.Contains(want, outcome) {
		t.violate("each end of a run is written down", j.id, "running → %s, and run %d is %q", to, j.num("claims"), outcome)
	}
}

// rescue: only after the lease. The third crash makes the next run one alone;
// only a crash in such a run poisons.
func (t *transition) rescue(j *jobState, r row, to, outcome string) {
	t.c.w.stats.Rescues++
	t.c.mustHaveEnded(t, j)
	if j.num("lease_expires_at") >= t.call.ms {
		t.violate("a rescue waits for the lease", j.id, "it ends at %d", j.num("lease_expires_at"))
	}
	if want := map[int64]string{0: "rescued", 1: "handed_back", 2: "poisoned"}[j.num("solo")]; outcome != want {
		t.violate("each end of a run is written down", j.id, "a rescue of solo %d is %q, want %s", j.num("solo"), outcome, want)
	}
	if to == "failed" && (j.num("solo") != 2 || j.num("crashes") < crashBudget) {
		t.violate("poison only after the budget", j.id, "solo %d after %d crashes", j.num("solo"), j.num("crashes"))
	}
	alone := j.num("solo") == 1 || j.num("solo") == 0 && j.num("crashes")+1 >= crashBudget
	if to == "queued" && (r.num("solo") == 1) != alone {
		t.violate("poison only after the budget", j.id, "solo is %d after %d crashes", r.num("solo"), j.num("crashes")+1)
	}
	if to == "failed" {
		t.c.w.stats.Poisoned++
	}
}

const crashBudget = 3

// retry: by hand, with fresh budgets.
func (t *transition) retry(j *jobState, r row) {
	if t.call.op != "Retry" {
		t.violate("a final job stays", j.id, "%s → queued", j.str("state"))
	}
	if r.has("cancel_requested_at") || r.has("lease_token") || r.num("failures")+r.num("crashes")+r.num("solo") != 0 {
		t.violate("a retry starts afresh", j.id, "%s", r)
	}
}

// counters only move as the transition says.
func (t *transition) counters(j *jobState, r row, from, to string) {
	d := func(column string) int64 { return r.num(column) - j.num(column) }
	outcome := ""
	if from == "running" && to != "running" {
		outcome = j.endedRuns[j.num("claims")]
	}
	var attempts, failures, crashes, claims int64
	switch {
	case from == "queued" && to == "running":
		attempts, claims = 1, 1
	case outcome == "snoozed" || outcome == "handed_back":
		attempts = -1
		j.returned++
		if outcome == "snoozed" {
			crashes = -j.num("crashes")
		}
	case outcome == "retried" || outcome == "failed":
		failures = 1
	case outcome == "rescued" || outcome == "poisoned":
		crashes = 1
	case isFinal(from) && to == "queued":
		failures, crashes = -j.num("failures"), -j.num("crashes")
	}
	if d("attempts") != attempts || d("failures") != failures || d("crashes") != crashes || d("claims") != claims {
		t.violate("budgets are monotone", j.id, "%s → %s (%s): attempts %+d, failures %+d, crashes %+d, claims %+d", from, to, outcome, d("attempts"), d("failures"), d("crashes"), d("claims"))
	}
	if outcome == "retried" && r.num("failures") >= r.num("max_attempts") || outcome == "failed" && r.num("failures") > r.num("max_attempts") {
		t.violate("a budget ends", j.id, "%d failures of %d, and it is %s", r.num("failures"), r.num("max_attempts"), to)
	}
	if r.num("attempts") != r.num("claims")-j.returned {
		t.violate("budgets are monotone", j.id, "%d attempts, %d claims, %d of them given back", r.num("attempts"), r.num("claims"), j.returned)
	}
}

// prune: only what is final and old enough goes.
func (t *transition) prune(j *jobState) {
	t.c.finalCheck(j)
	keep, pruned := t.c.w.plan.keep(j.str("state"))
	if age := t.call.ms - j.num("finished_at"); !isFinal(j.str("state")) || !pruned || age < keep.Milliseconds() {
		t.violate("no live job is pruned", j.id, "it is %s, %d ms old", j.str("state"), age)
	}
	delete(t.c.jobs, j.id)
	t.c.pruned[j.id] = true
	t.c.w.stats.Pruned++
}

func (t *transition) log(ch change) {
	if ch.op == "+" {
		if seq := ch.row.num("seq"); seq <= t.c.logSeq {
			t.violate("the log is in order", "", "number %d after %d", seq, t.c.logSeq)
		} else {
			t.c.logSeq = seq
		}
		t.logged = append(t.logged, fmt.Sprintf("%d %s %d", ch.row.num("job"), ch.row.str("state"), ch.row.num("run")))
	} else if ch.op == "=" || t.call.op != "Prune" {
		t.violate("the log is kept", "", "%s%s", ch.op, ch.row)
	}
}

// end judges the call as a whole.
func (t *transition) end() {
	t.order()
	for name, instants := range t.ticks {
		t.violate("an instant is dealt with once", "", "%s: jobs for %v, and its row is not moved", name, instants)
	}
	slices.Sort(t.states)
	slices.Sort(t.logged)
	if !slices.Equal(t.states, t.logged) {
		t.violate("each change of a state is in the log", "", "states %v, log %v", t.states, t.logged)
	}
	for _, id := range t.freed {
		if j := t.c.jobs[id]; j != nil && !isFinal(j.str("state")) {
			t.violate("a key stands for one job", id, "it is %s, and its key %s is free", j.str("state"), j.str("idempotency_key"))
		}
	}
	for _, id := range t.ended {
		// An active key ends with its job, in the same commit.
		j := t.c.jobs[id]
		if j == nil {
			continue
		}
		k, held := t.c.keys[j.str("type")+"\x00"+j.str("idempotency_key")]
		if held && k.job == id && k.scope == "active" && isFinal(j.str("state")) {
			t.violate("a key must not block work", id, "it is %s and still holds key %s", j.str("state"), j.str("idempotency_key"))
		}
	}
}

// short shows ids by their ends, which differ.
func short(ids []string) string {
	out := make([]string, len(ids))
	for i, id := range ids {
		out[i] = id[max(0, len(id)-4):]
	}
	return strings.Join(out, " ")
}
