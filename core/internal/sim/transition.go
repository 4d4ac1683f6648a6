package sim

import (
	"cmp"
	"slices"
	"strconv"
)

// transition judges the changes of one call, one after the other.
type transition struct {
	c       *checker
	call    *call
	before  map[string]row // jobs as they were before the call touched them
	claimed []string
	could   []string // what could be claimed as the first one was, in order
	touched []string // jobs that became final
	freed   []string // jobs whose active key was deleted
}

func (t *transition) violate(rule, job, format string, args ...any) {
	t.c.violate(rule, job, "%s of %s at %d: "+format, append([]any{t.call.op, t.call.proc.name, t.call.ms}, args...)...)
}

// holds says whether the call was made under the token that holds the job.
func (t *transition) holds(j *jobState) bool {
	return slices.Contains(t.call.held, held{j.id, j.str("lease_token")})
}

func (t *transition) job(ch change) {
	id := ch.row.str("id")
	j := t.c.jobs[id]
	switch ch.op {
	case "+":
		t.insert(id, ch.row)
		return
	case "-":
		t.violate("no acknowledged job is lost", id, "the row is gone")
		return
	}
	if j == nil {
		t.violate("the history is whole", id, "it changed before it was stored")
		return
	}
	if _, ok := t.before[id]; !ok {
		t.before[id] = j.row
	}
	old := j.row
	from, to := old.str("state"), ch.row.str("state")
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
		if t.call.op != "Cancel" {
			t.violate("only a cancel cancels", id, "%s", ch.row)
		}
	case (from == "failed" || from == "canceled") && to == "queued":
		t.retry(j, ch.row)
	default:
		t.violate("no other transition", id, "%s → %s", from, to)
	}
	t.counters(j, ch.row, from, to)
	j.row = ch.row
	if isFinal(to) && !isFinal(from) {
		t.touched = append(t.touched, id)
	}
}

func (t *transition) insert(id string, r row) {
	j := &jobState{row: r, id: id, inserted: t.c.at, endedRuns: map[string]string{}, steps: map[string]stepState{}}
	if r.str("state") != "queued" || r.num("attempts")+r.num("failures")+r.num("crashes")+r.num("claims") != 0 || r.has("lease_token") {
		t.violate("a new job is fresh", id, "%s", r)
	}
	if due := max(r.num("not_before"), r.num("created_at")); r.has("ready_key") != (due <= t.call.ms) || r.has("ready_key") && r.num("ready_key") != due-r.num("priority")*30_000 {
		t.violate("age and priority make the order", id, "%s", r)
	}
	if old := t.c.jobs[id]; old != nil {
		t.violate("an id is one job", id, "it was stored twice")
	}
	if key, ok := r.get("idempotency_key"); ok {
		k, held := t.c.keys[r.str("type")+"\x00"+key]
		if held && k.job != id {
			t.violate("a key stands for one job", id, "key %s was held by %s with scope %s", key, k.job, k.scope)
		}
		for _, other := range t.c.ids() {
			o := t.c.jobs[other]
			if o.str("type") == r.str("type") && o.str("idempotency_key") == key && !isFinal(o.str("state")) && held && k.scope == "active" {
				t.violate("a key stands for one job", id, "%s with key %s is %s", other, key, o.str("state"))
			}
		}
	}
	if parent := t.c.jobs[r.str("parent_id")]; parent != nil {
		parent.children++
	}
	t.c.jobs[id] = j
}

// claim: from the front of the line, of what is due by the database's clock,
// under a token that nobody had before.
func (t *transition) claim(j *jobState, r row) {
	token := r.str("lease_token")
	if t.claimed == nil {
		t.could = t.c.claimable()
	}
	t.claimed = append(t.claimed, j.id)
	if !j.has("ready_key") {
		t.violate("only what is ready is claimed", j.id, "%s", j.row)
	}
	if j.num("not_before") > t.call.ms {
		t.violate("nothing starts before its time", j.id, "not before %d", j.num("not_before"))
	}
	if j.has("cancel_requested_at") {
		t.violate("canceled means canceled", j.id, "it is claimed after its cancel")
	}
	if owner, used := t.c.token[token]; used && !(owner == t.call.proc.name && len(t.claimed) > 1) {
		t.violate("a token is one claim's", j.id, "token %s was %s's", token, owner)
	}
	t.c.token[token] = t.call.proc.name
	if lease := r.num("lease_expires_at") - t.call.ms; lease != t.c.w.plan.lease.Milliseconds() {
		t.violate("one clock", j.id, "the lease ends in %d ms by the database's clock", lease)
	}
	if r.str("claimed_by") != t.call.proc.name {
		t.violate("a claim is its runner's", j.id, "claimed by %s", r.str("claimed_by"))
	}
	j.holder, j.claimedAt, j.claimedMS = t.call.proc.name, t.c.at, t.call.ms
	t.c.w.stats.Runs++
}

// claimable lists what a runner may take, first in line first.
func (c *checker) claimable() []string {
	var out []string
	for id, j := range c.jobs {
		if j.str("state") == "queued" && j.has("ready_key") {
			out = append(out, id)
		}
	}
	slices.SortFunc(out, func(a, b string) int {
		x, y := c.jobs[a], c.jobs[b]
		return cmp.Or(cmp.Compare(x.num("ready_key"), y.num("ready_key")), cmp.Compare(x.num("seq"), y.num("seq")))
	})
	return out
}

// wait: a queued job becomes ready when it is due, or is pulled forward.
func (t *transition) wait(j *jobState, r row) {
	if j.has("ready_key") || !r.has("ready_key") {
		t.violate("no other transition", j.id, "queued → queued: %s → %s", j.row, r)
		return
	}
	if r.num("not_before") > t.call.ms {
		t.violate("nothing starts before its time", j.id, "ready, but not before %d", r.num("not_before"))
	}
	if want := max(r.num("not_before"), r.num("created_at")) - r.num("priority")*30_000; r.num("ready_key") != want {
		t.violate("age and priority make the order", j.id, "ready_key is %d, want %d", r.num("ready_key"), want)
	}
}

// hold: a heartbeat under the token, or a wish to cancel.
func (t *transition) hold(j *jobState, r row) {
	switch {
	case r.str("lease_token") != j.str("lease_token"):
		t.violate("one holder at a time", j.id, "token %s takes over from %s, whose lease ends at %d", r.str("lease_token"), j.str("lease_token"), j.num("lease_expires_at"))
	case r.num("lease_expires_at") != j.num("lease_expires_at"):
		if !t.holds(j) {
			t.violate("no write under an old token", j.id, "the lease was extended")
		}
		if lease := r.num("lease_expires_at") - t.call.ms; lease != t.c.w.plan.lease.Milliseconds() {
			t.violate("one clock", j.id, "the lease ends in %d ms by the database's clock", lease)
		}
	case r.has("cancel_requested_at") && !j.has("cancel_requested_at"):
		if t.call.op != "Cancel" {
			t.violate("only a cancel cancels", j.id, "%s", r)
		}
	}
	if j.has("cancel_requested_at") && r.str("cancel_requested_at") != j.str("cancel_requested_at") {
		t.violate("canceled means canceled", j.id, "the wish was made at %s and now at %s", j.str("cancel_requested_at"), r.str("cancel_requested_at"))
	}
}

// leave: a run ends by its holder's word, or by rescue after its lease.
func (t *transition) leave(j *jobState, r row) {
	to := r.str("state")
	rescue := r.num("crashes") > j.num("crashes")
	switch {
	case rescue && j.num("lease_expires_at") >= t.call.ms:
		t.violate("a rescue waits for the lease", j.id, "it ends at %d", j.num("lease_expires_at"))
	case rescue && r.has("lease_token"):
		t.violate("a rescue takes the token", j.id, "it is still %s", r.str("lease_token"))
	case rescue:
		t.c.w.stats.Rescues++
		j.rescued++
	case !t.holds(j):
		t.violate("no write under an old token", j.id, "running → %s without its token %s", to, j.str("lease_token"))
	case r.str("lease_token") != j.str("lease_token"):
		t.violate("a finished row keeps its token", j.id, "it is %s", r.str("lease_token"))
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
	outcome, ended := j.endedRuns[j.str("claims")]
	want := map[string]bool{
		"completed": outcome == "completed", "failed": outcome == "failed", "canceled": outcome == "canceled" || rescue && outcome == "rescued",
		"queued": outcome == "retried" || outcome == "snoozed" || outcome == "handed_back" || rescue && outcome == "rescued",
	}
	if !ended || !want[to] {
		t.violate("each end of a run is written down", j.id, "running → %s, and run %s is %q", to, j.str("claims"), outcome)
	}
}

// retry: by hand, with fresh budgets.
func (t *transition) retry(j *jobState, r row) {
	if t.call.op != "Retry" {
		t.violate("a final job stays", j.id, "%s → queued", j.str("state"))
	}
	if r.has("cancel_requested_at") || r.has("lease_token") || r.num("failures")+r.num("crashes") != 0 {
		t.violate("a retry starts afresh", j.id, "%s", r)
	}
	j.failed, j.rescued = 0, 0
}

// counters only move as the transition says.
func (t *transition) counters(j *jobState, r row, from, to string) {
	d := func(column string) int64 { return r.num(column) - j.num(column) }
	outcome := j.endedRuns[j.str("claims")]
	left := from == "running" && to != "running"
	var attempts, failures, crashes, claims int64
	switch {
	case from == "queued" && to == "running":
		attempts, claims = 1, 1
	case left && (outcome == "snoozed" || outcome == "handed_back"):
		attempts = -1
		j.returned++
	case left && (outcome == "retried" || outcome == "failed"):
		failures = 1
		j.failed++
	case left && outcome == "rescued":
		crashes = 1
	case (from == "failed" || from == "canceled") && to == "queued":
		failures, crashes = -j.num("failures"), -j.num("crashes")
	}
	if d("attempts") != attempts || d("failures") != failures || d("crashes") != crashes || d("claims") != claims {
		t.violate("budgets are monotone", j.id, "%s → %s (%s): attempts %+d, failures %+d, crashes %+d, claims %+d", from, to, outcome, d("attempts"), d("failures"), d("crashes"), d("claims"))
	}
	if left && to == "queued" && outcome == "retried" && r.num("failures") >= r.num("max_attempts") {
		t.violate("a budget ends", j.id, "%d failures of %d, and it is tried again", r.num("failures"), r.num("max_attempts"))
	}
	if left && outcome == "failed" && to == "failed" && r.num("failures") > r.num("max_attempts") {
		t.violate("a budget ends", j.id, "%d failures of %d", r.num("failures"), r.num("max_attempts"))
	}
	if r.num("attempts") != r.num("claims")-j.returned {
		t.violate("budgets are monotone", j.id, "%d attempts, %d claims, %d of them given back", r.num("attempts"), r.num("claims"), j.returned)
	}
}

func (t *transition) key(ch change) {
	id, job := ch.row.str("type")+"\x00"+ch.row.str("key"), ch.row.str("job_id")
	switch ch.op {
	case "+", "=":
		if k, held := t.c.keys[id]; held && k.job != job {
			// Only one that is free may be taken over.
			j := t.c.jobs[k.job]
			free := k.scope == "until" && k.expires <= t.call.ms || k.scope == "active" && (j == nil || isFinal(j.str("state")))
			if !free {
				t.violate("a key stands for one job", k.job, "its key %s goes to %s", ch.row.str("key"), job)
			}
		}
		t.c.keys[id] = keyState{job: job, scope: ch.row.str("scope"), expires: ch.row.num("expires_at")}
	case "-":
		delete(t.c.keys, id)
		k := keyState{job: job, scope: ch.row.str("scope"), expires: ch.row.num("expires_at")}
		switch {
		case k.scope == "until" && k.expires > t.call.ms:
			t.violate("a key holds for its time", job, "key %s is free at %d, %d ms early", ch.row.str("key"), t.call.ms, k.expires-t.call.ms)
		case k.scope == "forever":
			t.violate("a key holds for ever", job, "key %s is free", ch.row.str("key"))
		case k.scope == "active":
			t.freed = append(t.freed, job)
		}
	}
}

func (t *transition) run(ch change) {
	id := ch.row.str("job_id")
	j := t.c.jobs[id]
	if j == nil {
		t.violate("the history is whole", id, "a run of no job: %s", ch.row)
		return
	}
	n, outcome := ch.row.str("run"), ch.row.str("outcome")
	switch ch.op {
	case "+":
		if was, ended := j.endedRuns[n]; ended {
			t.violate("a run ends once", id, "run %s was %s and is %s", n, was, outcome)
		}
		if n != j.str("claims") || j.str("state") != "running" {
			t.violate("a run ends once", id, "run %s ends as %s, and the job is %s in run %s", n, outcome, j.str("state"), j.str("claims"))
		}
		j.endedRuns[n] = outcome
	case "-":
		if outcome != "snoozed" {
			t.violate("runs are kept", id, "run %s, %s, is gone", n, outcome)
		}
	case "=":
		t.violate("a run ends once", id, "run %s is changed to %s", n, outcome)
	}
}

func (t *transition) step(ch change) {
	id, name := ch.row.str("job_id"), ch.row.str("name")
	j := t.c.jobs[id]
	if j == nil {
		t.violate("the history is whole", id, "a step of no job: %s", ch.row)
		return
	}
	was, is := j.steps[name], stepState{outcome: ch.row.str("outcome"), run: ch.row.str("run"), result: ch.row.str("result_json"), doneAt: t.c.at}
	if was.outcome == "done" && ch.op != "-" && (was.run != is.run || was.result != is.result || is.outcome != "done") {
		t.violate("a finished step stays", id, "step %s was done in run %s with %s, and is %s in run %s with %s", name, was.run, was.result, is.outcome, is.run, is.result)
	}
	if n, _ := strconv.ParseInt(is.run, 10, 64); n != j.num("claims") || !t.holds(j) {
		t.violate("no write under an old token", id, "step %s of run %s is recorded, the job is in run %d", name, is.run, j.num("claims"))
	}
	j.steps[name] = is
}

// end judges the call as a whole.
func (t *transition) end() {
	if len(t.claimed) > 0 {
		first := slices.Clone(t.could[:min(len(t.claimed), len(t.could))])
		got := slices.Clone(t.claimed)
		slices.Sort(first)
		slices.Sort(got)
		if !slices.Equal(first, got) {
			t.violate("first in line is first", t.claimed[0], "claimed %v of %v", t.claimed, t.could)
		}
	} else if t.call.op == "Claim" && t.call.applied && len(t.c.claimable()) > 0 {
		t.violate("first in line is first", t.c.claimable()[0], "a claim found nothing of %v", t.c.claimable())
	}
	for _, id := range t.freed {
		if j := t.c.jobs[id]; j != nil && !isFinal(j.str("state")) {
			t.violate("a key stands for one job", id, "it is %s, and its key %s is free", j.str("state"), j.str("idempotency_key"))
		}
	}
	for _, id := range t.touched {
		// An active key ends with its job, in the same commit.
		j := t.c.jobs[id]
		k, held := t.c.keys[j.str("type")+"\x00"+j.str("idempotency_key")]
		if held && k.job == id && k.scope == "active" && isFinal(j.str("state")) {
			t.violate("a key must not block work", id, "it is %s and still holds key %s", j.str("state"), j.str("idempotency_key"))
		}
	}
}
