package sim

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// checker follows the history event by event and holds each change of a row
// against what docs/lifecycle.md allows at that moment. It knows the rows
// only from the change log, so it does not depend on the text of any
// statement: a change is judged by what it does, by the lease that its call
// was made under, and by the database's clock.
type checker struct {
	w     *world
	jobs  map[string]*jobState
	keys  map[string]keyState // by type and key
	token map[string]string   // every token that ever claimed, to the process
	at    int                 // the event that is looked at
	out   []Violation
}

// jobState is a job as the history has left it.
type jobState struct {
	row
	id     string
	holder string // the process that claimed it last
	inserted,
	claimedAt int // the events
	claimedMS int64 // by the database's clock
	// Since it was stored or last retried by hand.
	failed, rescued int64
	returned        int64 // snoozed or handed back, ever
	completions     int
	children        int
	endedRuns       map[string]string    // run to outcome
	steps           map[string]stepState // by name
	acknowledged    bool
}

type stepState struct {
	outcome, run, result string
	doneAt               int
}

type keyState struct {
	job, scope string
	expires    int64
}

func check(w *world, s *Store, changes []change, final []row) []Violation {
	c := &checker{w: w, jobs: map[string]*jobState{}, keys: map[string]keyState{}, token: map[string]string{}}
	for i, e := range w.history {
		c.at = i
		switch {
		case e.kind == "call" && e.call.n > 0:
			n := 0
			for n < len(changes) && changes[n].call == e.call.n {
				n++
			}
			c.call(e.call, changes[:n])
			changes = changes[n:]
		case e.call == nil:
			c.event(e)
		}
	}
	if len(changes) > 0 {
		c.violate("the history is whole", "", "%d changes belong to no call, the first to call %d: %s", len(changes), changes[0].call, changes[0].row)
	}
	c.end(final)
	w.stats.Jobs = len(c.jobs)
	return c.out
}

func (c *checker) violate(rule, job, format string, args ...any) {
	c.out = append(c.out, Violation{Rule: rule, Job: job, At: c.at, Text: fmt.Sprintf(format, args...)})
}

// call judges what one call changed.
func (c *checker) call(k *call, changes []change) {
	if len(changes) > 0 && !k.applied {
		c.violate("a failed call changes nothing", "", "%s failed with %v and changed %s", k.op, k.err, changes[0].row)
	}
	if len(changes) > 0 && k.kind == "read" {
		c.violate("a read changes nothing", "", "%s changed %s", k.op, changes[0].row)
	}
	c.fence(k, changes)
	t := &transition{c: c, call: k, before: map[string]row{}}
	for _, ch := range changes {
		switch ch.table {
		case "jobs":
			t.job(ch)
		case "job_keys":
			t.key(ch)
		case "job_runs":
			t.run(ch)
		case "job_steps":
			t.step(ch)
		}
	}
	t.end()
}

// fence: whatever is written for a holder is written under the token that
// holds the job at that moment. A batch made under a lease that is lost
// changes nothing at all; of merged items each stands for itself.
func (c *checker) fence(k *call, changes []change) {
	lost := map[string]string{}
	for _, h := range k.held {
		j := c.jobs[h.job]
		if j == nil || j.str("state") != "running" || j.str("lease_token") != h.token {
			lost[h.job] = h.token
		}
	}
	for _, h := range k.held { // a runner may hold a job and still run a handler that lost it
		if j := c.jobs[h.job]; j != nil && j.str("state") == "running" && j.str("lease_token") == h.token {
			delete(lost, h.job)
		}
	}
	if len(lost) == 0 {
		return
	}
	for _, ch := range changes {
		job := ch.row.str("job_id")
		if ch.table == "jobs" {
			job = ch.row.str("id")
		}
		if token, ok := lost[job]; ok {
			c.violate("no write under an old token", job, "%s of %s under token %s changed %s: %s", k.op, k.proc.name, token, ch.table, ch.row)
		} else if k.kind == "write" {
			for job, token := range lost {
				c.violate("a lost lease lets nothing through", job, "%s of %s under token %s changed %s: %s", k.op, k.proc.name, token, ch.table, ch.row)
			}
		}
	}
}

// event judges what handlers and clients say.
func (c *checker) event(e entry) {
	switch e.kind {
	case "enqueued":
		j := c.jobs[e.name]
		switch {
		case j == nil && !strings.Contains(e.text, "pruned=true"):
			c.violate("no acknowledged job is lost", e.name, "%s was told that it is stored", e.proc)
		case j != nil && strings.Contains(e.text, "duplicate=false"):
			j.acknowledged = true
		}
	case "body starts":
		if j := c.jobs[e.job]; j != nil {
			if s, done := j.steps[e.name]; done && s.outcome == "done" && strconv.FormatInt(e.run, 10) != s.run && c.startOf(e) > s.doneAt {
				c.violate("a finished step is not run again", e.job, "step %s was done in run %s, and run %d runs it again", e.name, s.run, e.run)
			}
		}
	case "step done":
		if j := c.jobs[e.job]; j != nil {
			if s := j.steps[e.name]; s.outcome != "done" || s.result != e.text {
				c.violate("a step's result is the stored one", e.job, "step %s gave %s to run %d, stored is %+v", e.name, e.text, e.run, s)
			}
		}
	}
}

// startOf is the event at which the run of e began.
func (c *checker) startOf(e entry) int {
	for i := c.at - 1; i >= 0; i-- {
		if h := c.w.history[i]; h.kind == "handler starts" && h.job == e.job && h.run == e.run {
			return i
		}
	}
	return c.at
}

// end judges where everything came to.
func (c *checker) end(final []row) {
	c.at = len(c.w.history)
	for _, r := range final {
		j := c.jobs[r.str("id")]
		if j == nil || !slices.Equal(j.values, r.values) {
			c.violate("the history is whole", r.str("id"), "the row is %s, the change log says otherwise", r)
		}
	}
	seen := 0
	for _, id := range c.ids() {
		j := c.jobs[id]
		seen++
		state := j.str("state")
		if !isFinal(state) {
			c.violate("everything ends", id, "it is %s at the end: %s", state, j.row)
		}
		if j.str("type") == typeChain {
			want := 0
			if state == "completed" {
				want = j.payload().N
			}
			if j.children != want {
				c.violate("a hand-over is whole or not at all", id, "it is %s and has %d follow-up jobs, want %d", state, j.children, want)
			}
		}
	}
	if seen != len(final) {
		c.violate("no acknowledged job is lost", "", "%d jobs were stored, %d are there at the end", seen, len(final))
	}
}

func (j *jobState) payload() (p payload) {
	_ = json.Unmarshal([]byte(j.str("payload_json")), &p) // the simulator made it
	return p
}

// ids lists the jobs in the order they were stored.
func (c *checker) ids() []string {
	out := make([]string, 0, len(c.jobs))
	for id := range c.jobs {
		out = append(out, id)
	}
	slices.SortFunc(out, func(a, b string) int { return cmp.Compare(c.jobs[a].num("seq"), c.jobs[b].num("seq")) })
	return out
}

func isFinal(state string) bool {
	return state == "completed" || state == "failed" || state == "canceled"
}
