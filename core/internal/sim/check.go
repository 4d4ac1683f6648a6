package sim

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
)

// checker follows the history event by event and holds each change of a row
// against what docs/lifecycle.md allows at that moment. It knows the rows
// only from the change log, so it does not depend on the text of any
// statement: a change is judged by what it does, by the lease that its call
// was made under, and by the database's clock.
type checker struct {
	w         *world
	jobs      map[string]*jobState
	places    map[string]string // the job at each place
	pruned    map[string]bool
	keys      map[string]keyState // by type and key
	limits    map[string]*limitState
	nextStart map[string]int64              // of a limited key, by the database's clock
	paused    map[string]bool               // queues
	token     map[string]string             // every token that ever claimed, to the process
	busy      map[string]map[runOf]*running // by process the runs whose handlers are at work

	crons   map[string]row
	ticked  map[string]bool // instants that have a job
	tickAt  map[string]int  // by process the event at which it last read a schedule
	lives   []*life
	cancels []*canceled

	depsChanged map[string]bool
	logSeq      int64
	at          int // the event that is looked at
	out         []Violation
}

// jobState is a job as the history has left it.
type jobState struct {
	row
	id          string
	scope       string // of its key
	returned    int64  // runs snoozed or handed back
	completions int
	children    int
	effects     int                  // on the world, zombies' not counted
	activeSince int                  // the event
	endedAt     int                  // the event, 0 while it is active
	endedRuns   map[int64]string     // run to outcome
	steps       map[string]stepState // by name
	after       map[string]string    // what it comes after, to how that ended
	free        bool                 // under no limit, as the claim is looked at
}

func newJobState(id string, r row) *jobState {
	return &jobState{
		row: r, id: id, endedRuns: map[int64]string{}, steps: map[string]stepState{}, after: map[string]string{},
	}
}

type runOf struct {
	job string
	run int64
}

type stepState struct {
	outcome string
	run     int64
	result  string
}

type keyState struct {
	job, scope string
	expires    int64
}

func check(w *world, changes []change, final []row) []Violation {
	c := &checker{
		w: w, jobs: map[string]*jobState{}, places: map[string]string{}, pruned: map[string]bool{}, keys: map[string]keyState{}, limits: map[string]*limitState{},
		nextStart: map[string]int64{}, paused: map[string]bool{}, token: map[string]string{}, busy: map[string]map[runOf]*running{},
		depsChanged: map[string]bool{}, crons: map[string]row{}, ticked: map[string]bool{}, tickAt: map[string]int{}, lives: livesOf(w),
	}
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
	c.heeded()
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
	if k.op == "Tick" && k.kind == "read" {
		c.tickAt[k.proc.name] = c.at
	}
	c.fence(k, changes)
	t := &transition{c: c, call: k}
	// What ended a run is told by its row, whichever was written first.
	for _, runs := range []bool{true, false} {
		for _, ch := range changes {
			if (ch.table == "job_run_rows") == runs {
				t.change(ch)
			}
		}
	}
	t.end()
	c.deps(t)
}

// fence: whatever is written for a holder is written under the token that
// holds the job at that moment. A batch made under a lease that is lost
// changes nothing at all; of merged items each stands for itself.
func (c *checker) fence(k *call, changes []change) {
	lost := map[string]string{}
	for i, h := range k.held {
		if id, ok := c.places[h.job]; ok {
			h.job = id
			k.held[i] = h
		}
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
		} else if k.kind == "write" || k.op == "Commit" {
			for job, token := range lost {
				c.violate("a lost lease lets nothing through", job, "%s of %s under token %s changed %s: %s", k.op, k.proc.name, token, ch.table, ch.row)
			}
		}
	}
}

// event judges what handlers and clients say.
func (c *checker) event(e entry) {
	j := c.jobs[e.job]
	if r := c.busy[e.proc][runOf{e.job, e.run}]; r != nil {
		r.last = e
	}
	c.heed(e)
	switch e.kind {
	case "enqueued":
		if c.jobs[e.name] == nil && !c.pruned[e.name] {
			c.violate("no acknowledged job is lost", e.name, "%s was told that it is stored", e.proc)
		}
	case "handler starts":
		if c.busy[e.proc] == nil {
			c.busy[e.proc] = map[runOf]*running{}
		}
		for other := range c.busy[e.proc] {
			if o := c.jobs[other.job]; o != nil && o.num("solo") == 2 && o.str("claimed_by") == e.proc {
				c.violate("alone is alone", other.job, "%s begins beside it", e.job)
			}
		}
		c.busy[e.proc][runOf{e.job, e.run}] = &running{last: e}
	case "handler ends":
		delete(c.busy[e.proc], runOf{e.job, e.run})
	case "effect":
		if j != nil {
			if j.effects++; j.effects > 1 {
				c.violate("an effect is not repeated", e.job, "run %d of %s has it for the %dth time", e.run, e.proc, j.effects)
			}
		}
	case "body starts":
		if j != nil {
			// A zombie of an earlier run may do so: nobody can tell it in time,
			// and nothing of it will be stored.
			if s := j.steps[e.name]; s.outcome == "done" && e.run > s.run {
				c.violate("a finished step is not run again", e.job, "step %s was done in run %d, and run %d runs it again", e.name, s.run, e.run)
			}
		}
	case "step done":
		if j != nil {
			s := j.steps[e.name]
			if settled := s.result == "null" && e.text == "0"; s.outcome != "done" || s.result != e.text && !settled { // by hand, with no result
				c.violate("a step's result is the stored one", e.job, "step %s gave %s to run %d, stored is %+v", e.name, e.text, e.run, s)
			}
		}
	}
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
	if len(c.jobs) != len(final) {
		c.violate("no acknowledged job is lost", "", "%d jobs should be there at the end, %d are", len(c.jobs), len(final))
	}
	for _, id := range c.ids() {
		j := c.jobs[id]
		if !isFinal(j.str("state")) {
			c.violate("everything ends", id, "it is %s at the end: %s", j.str("state"), j.row)
		}
		c.finalCheck(j)
	}
}

// finalCheck judges a job that has come to its end.
func (c *checker) finalCheck(j *jobState) {
	if j.str("type") == typeOnce && j.str("state") == "completed" && c.w.effects[j.id] == 0 {
		c.violate("an effect that is done was done", j.id, "it is completed, and nothing has happened")
	}
	if j.str("type") == typeChain {
		want := 0
		if j.str("state") == "completed" {
			want = j.payload().N
		}
		if j.children != want {
			c.violate("a hand-over is whole or not at all", j.id, "it is %s and has %d follow-up jobs, want %d", j.str("state"), j.children, want)
		}
	}
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

func (j *jobState) payload() (p payload) {
	_ = json.Unmarshal([]byte(j.str("payload_json")), &p) // the simulator made it
	return p
}

func isFinal(state string) bool {
	return state == "completed" || state == "failed" || state == "canceled"
}
