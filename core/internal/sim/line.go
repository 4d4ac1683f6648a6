package sim

import (
	"cmp"
	"slices"
)

// The line: who is next, and what limits hold.

// limitState is a limit as the history has left it.
type limitState struct {
	max      int64 // -1 for any number
	interval int64 // ms, 0 for none
}

func (c *checker) limit(ch change) {
	scope, name := ch.row.str("scope"), ch.row.str("name")
	was := c.limits[scope+"\x00"+name]
	if ch.op == "-" {
		delete(c.limits, scope+"\x00"+name)
	} else {
		l := &limitState{max: -1, interval: ch.row.num("interval_ms")}
		if ch.row.has("max_running") {
			l.max = ch.row.num("max_running")
		}
		c.limits[scope+"\x00"+name] = l
	}
	if scope == "key" && (was == nil || was.interval == 0 || ch.op == "-") {
		// Starts from before the limit do not count.
		for key := range c.nextStart {
			if name == "*" || name == key {
				delete(c.nextStart, key)
			}
		}
	}
}

// limitOf returns what limits a queue, a type or a key.
func (c *checker) limitOf(scope, name string) *limitState {
	if name == "" {
		return nil
	}
	if l := c.limits[scope+"\x00"+name]; l != nil || scope != "key" {
		return l
	}
	return c.limits["key\x00*"]
}

// limitsOf lists the limits that a job is under, with how many run under each.
func (c *checker) limitsOf(j *jobState) []usedLimit {
	var out []usedLimit
	for _, of := range []struct{ scope, column string }{{"queue", "queue"}, {"type", "type"}, {"key", "limit_key"}} {
		l := c.limitOf(of.scope, j.str(of.column))
		if l == nil {
			continue
		}
		u := usedLimit{limitState: *l, what: of.scope + " " + j.str(of.column)}
		for _, o := range c.jobs {
			if o.str("state") == "running" && o.str(of.column) == j.str(of.column) {
				u.running++
			}
		}
		out = append(out, u)
	}
	return out
}

type usedLimit struct {
	limitState
	what    string
	running int64
}

// claim: in line, due by the database's clock, within the limits, under a
// token that nobody had before.
func (t *transition) claim(j *jobState, r row) {
	token := r.str("lease_token")
	if t.claimed == nil {
		t.line = t.c.inLine()
	}
	t.claimed = append(t.claimed, j.id)
	if solo := j.num("solo") == 1; solo && t.call.op != "ClaimSolo" || !solo && !j.has("ready_key") {
		t.violate("only what is in line is claimed", j.id, "%s", j.row)
	}
	if j.num("not_before") > t.call.ms {
		t.violate("nothing starts before its time", j.id, "not before %d", j.num("not_before"))
	}
	if j.has("cancel_requested_at") {
		t.violate("canceled means canceled", j.id, "it is claimed after its cancel")
	}
	if t.c.paused[j.str("queue")] {
		t.violate("a paused queue rests", j.id, "queue %s", j.str("queue"))
	}
	if owner, used := t.c.token[token]; used && (owner != t.call.proc.name || len(t.claimed) == 1) {
		t.violate("a token is one claim's", j.id, "token %s was %s's", token, owner)
	}
	t.c.token[token] = t.call.proc.name
	t.lease(j.id, r)
	if r.str("claimed_by") != t.call.proc.name {
		t.violate("a claim is its runner's", j.id, "claimed by %s", r.str("claimed_by"))
	}
	for _, u := range t.c.limitsOf(j) {
		if u.max >= 0 && u.running+1 > u.max {
			t.violate("limits are never exceeded", j.id, "%d run already of %s, which is limited to %d", u.running, u.what, u.max)
		}
	}
	key := j.str("limit_key")
	if l := t.c.limitOf("key", key); l != nil && l.interval > 0 {
		if next := t.c.nextStart[key]; t.call.ms < next {
			t.violate("limits are never exceeded", j.id, "key %s starts %d ms too early", key, next-t.call.ms)
		}
		t.c.nextStart[key] = t.call.ms + l.interval
	}
	t.c.w.stats.Runs++
}

// inLine lists the jobs that stand in line, the first one first.
func (c *checker) inLine() []string {
	var out []string
	for id, j := range c.jobs {
		if j.has("ready_key") {
			out = append(out, id)
		}
	}
	slices.SortFunc(out, func(a, b string) int {
		x, y := c.jobs[a], c.jobs[b]
		return cmp.Or(cmp.Compare(x.num("ready_key"), y.num("ready_key")), cmp.Compare(x.num("seq"), y.num("seq")))
	})
	return out
}

// order: a claim takes the first in line of those that it may take. That is
// certain for a job without any limit; among jobs under the same limits (of
// one queue, type and key) it holds as well.
func (t *transition) order() {
	if t.call.op != "Claim" || t.call.kind != "write" || !t.call.applied {
		return
	}
	if t.claimed == nil {
		t.line = t.c.inLine()
	}
	works := t.c.w.work.worksOn(t.call.proc)
	var passed []*jobState // stood further ahead and was not taken
	taken := 0
	for _, id := range t.line {
		j := t.c.jobs[id]
		if slices.Contains(t.claimed, id) {
			taken++
			for _, p := range passed {
				if p.free || p.str("queue") == j.str("queue") && p.str("type") == j.str("type") && p.str("limit_key") == j.str("limit_key") {
					t.violate("first in line is first", p.id, "%s was claimed before it; the line was %s, claimed %s", j.id, short(t.line), short(t.claimed))
				}
			}
			continue
		}
		if !works(j.str("queue")) || t.c.paused[j.str("queue")] {
			continue
		}
		j.free = len(t.c.limitsOf(j)) == 0
		passed = append(passed, j)
	}
	if taken == 0 {
		for _, p := range passed {
			if p.free {
				t.violate("first in line is first", p.id, "a claim passed it by and took nothing; the line was %s", short(t.line))
				return
			}
		}
	}
}
