package sim

import (
	"slices"
	"strings"
	"time"
)

// What a runner owes to others while it is well: to take back the jobs of the
// dead, to heed a cancel, and to stop what it has no right to any more.

// leeway is for the steps that everything takes.
const leeway = 500 * time.Millisecond

// life is one life of a runner, with when it was in trouble. Times are those
// since the world began.
type life struct {
	proc    string
	from    time.Duration
	trouble []span
}

type span struct {
	from, to time.Duration
	text     string
}

func livesOf(w *world) []*life {
	var out []*life
	for _, e := range w.history {
		if e.kind == "runner starts" {
			out = append(out, &life{proc: e.proc, from: e.at})
		}
	}
	for _, e := range w.history {
		for _, l := range out {
			switch {
			case e.kind == "runner stopped" && e.proc == l.proc:
				l.trouble = append(l.trouble, span{e.at, e.at + forever, e.kind})
			case e.kind == "mishap" && (e.proc == l.proc || e.proc == "database"):
				l.trouble = append(l.trouble, span{e.at, e.at + e.span, e.text})
			}
		}
	}
	return out
}

// well says whether the runner was at work and in no trouble for that time.
func (l *life) well(from, to time.Duration) bool {
	return l.from <= from && !slices.ContainsFunc(l.trouble, func(s span) bool { return s.from <= to && s.to >= from })
}

func (c *checker) anyWell(from, to time.Duration) bool {
	return slices.ContainsFunc(c.lives, func(l *life) bool { return l.well(from, to) })
}

func (c *checker) life(proc string) *life {
	for _, l := range c.lives {
		if l.proc == proc {
			return l
		}
	}
	return &life{from: forever}
}

// now is the time of the event that is looked at, and start that of the world
// by the database's clock.
func (c *checker) now() time.Duration {
	return c.w.history[min(c.at, len(c.w.history)-1)].at
}

func (c *checker) start() int64 { return ms(c.w.began) }

// prompt: a lease that has run out is not left alone while somebody is there
// who has had contact for long enough to judge.
func (t *transition) prompt(j *jobState) {
	p := t.c.w.plan
	ended := time.Duration(j.num("lease_expires_at")-t.c.start()) * time.Millisecond
	bound := min(p.poll, p.heartbeat) + leeway
	if t.c.now() > ended+bound && t.c.anyWell(ended-2*p.lease, ended+bound) {
		t.violate("rescue comes in time", j.id, "its lease ended %s ago, and one was well for all that time", t.c.now()-ended)
	}
}

// running is a handler at work, with what it said last.
type running struct{ last entry }

// heeds says whether the handler looks at its context now.
func (r *running) heeds(typ string) bool {
	switch r.last.kind {
	case "handler starts":
		return typ == typeWait || typ == typeSlow || typ == typeChain
	case "body starts":
		return true
	}
	return false
}

// mustHaveEnded: a runner stops what its lease no longer covers by itself, so
// when another one takes a job back its handler has been told.
func (c *checker) mustHaveEnded(t *transition, j *jobState) {
	holder := c.life(j.str("claimed_by"))
	r := c.busy[holder.proc][runOf{j.id, j.num("claims")}]
	if r == nil || !r.heeds(j.str("type")) || t.call.ms-j.num("lease_expires_at") < leeway.Milliseconds()/2 {
		return
	}
	for _, s := range holder.trouble { // only what stops the process or its clock excuses it
		stops := s.to-s.from >= forever || strings.HasPrefix(s.text, "freezes")
		if stops && s.to >= r.last.at && s.from <= c.now() {
			return
		}
	}
	t.violate("a lost lease ends its handler", j.id, "%s runs it still, and its lease ended at %d", holder.proc, j.num("lease_expires_at"))
}

// canceled is the wish to cancel a run, until its handler has heard of it.
type canceled struct {
	runOf
	typ, proc string
	at        time.Duration
	heard     time.Duration // 0 for not yet
}

// heed notes what a handler heard of.
func (c *checker) heed(e entry) {
	for _, w := range c.cancels {
		if w.runOf == (runOf{e.job, e.run}) && w.proc == e.proc && w.heard == 0 && (e.kind == "context ended" || e.kind == "handler ends") {
			w.heard = e.at
		}
	}
}

// heeded: a handler hears of a cancel within a second or so.
func (c *checker) heeded() {
	for _, w := range c.cancels {
		switch w.typ {
		case typeWait, typeSlow, typeSteps, typeFlaky, typeChain, typeOnce:
		default:
			continue
		}
		bound := min(c.w.plan.poll, time.Second) + leeway
		if (w.heard == 0 || w.heard > w.at+bound) && c.life(w.proc).well(w.at-bound, w.at+bound) {
			c.violate("a cancel is heeded", w.job, "run %d was asked to stop at %s and heard of it at %s", w.run, w.at, w.heard)
		}
	}
}
