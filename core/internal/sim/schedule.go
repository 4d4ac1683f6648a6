package sim

import (
	"slices"
	"strings"
	"time"

	"github.com/postroom/postroom/core/queue"
)

// Schedules: each instant is dealt with once, at its time by the database's
// clock, as its schedule says. The simulated ones are all "@every n seconds".

// tick notes a job that was stored for an instant.
func (t *transition) tick(r row) {
	name, at, ok := queue.TickOf(r.str("idempotency_key"))
	if !ok {
		return
	}
	if t.c.ticked[r.str("idempotency_key")] {
		t.violate("an instant is dealt with once", r.str("id"), "%s has a job already", r.str("idempotency_key"))
	}
	t.c.ticked[r.str("idempotency_key")] = true
	if t.ticks == nil {
		t.ticks = map[string][]int64{}
	}
	t.ticks[name] = append(t.ticks[name], at.UnixMilli())
}

// cron judges a change of a schedule's row.
func (t *transition) cron(ch change) {
	name := ch.row.str("name")
	was, had := t.c.crons[name]
	if ch.op == "-" {
		t.overdue(was)
		delete(t.c.crons, name)
		return
	}
	t.c.crons[name] = ch.row
	if !had || t.call.op == "SetCron" {
		return
	}
	switch t.call.op {
	case "Tick":
		t.moved(name, was, ch.row)
		delete(t.ticks, name)
	case "ResumeCron":
		if ch.row.num("next_at") < was.num("next_at") {
			t.violate("an instant is dealt with once", "", "%s goes back from %d to %d", name, was.num("next_at"), ch.row.num("next_at"))
		}
	default:
		if ch.row.num("next_at") != was.num("next_at") {
			t.violate("an instant is dealt with once", "", "%s is moved by %s", name, t.call.op)
		}
	}
}

// moved judges what a tick of one schedule stored.
func (t *transition) moved(name string, was, is row) {
	every, err := time.ParseDuration(strings.TrimPrefix(was.str("schedule"), "@every "))
	step := every.Milliseconds()
	first, last, next := was.num("next_at"), is.num("last_tick"), is.num("next_at")
	if err != nil || last < first || (last-first)%step != 0 || next != last+step {
		t.violate("an instant is dealt with once", "", "%s: from %d to %d, the last tick at %d, every %d ms", name, first, next, last, step)
		return
	}
	if last > t.call.ms {
		t.violate("nothing starts before its time", "", "%s ticks at %d", name, last)
	}
	if was.num("paused") == 1 {
		t.violate("a paused schedule rests", "", "%s ticks", name)
	}
	var want []int64
	read := t.c.tickAt[t.call.proc.name]
	lastJob := t.c.jobs[was.str("last_job_id")]
	active := lastJob != nil && lastJob.activeSince < read && (lastJob.endedAt == 0 || lastJob.endedAt > read)
	switch {
	case was.str("catch_up") == "all":
		for at := first; at <= last; at += step {
			want = append(want, at)
		}
	case was.str("overlap") == "skip" && active:
	case was.str("catch_up") == "none" && t.call.ms-last > 59_000:
		return // around a minute it depends on when the row was read
	default:
		want = []int64{last}
	}
	if got := t.ticks[name]; !slices.Equal(got, want) {
		t.violate("a schedule does as it says", "", "%s (%s, %s, last job active %v) from %d to %d stored jobs for %v, want %v",
			name, was.str("catch_up"), was.str("overlap"), active, first, last, got, want)
	}
	t.c.w.stats.Ticks += len(t.ticks[name])
}

// overdue: an instant is not left alone while there is somebody to deal with it.
func (t *transition) overdue(r row) {
	due := time.Duration(r.num("next_at")-t.c.start()) * time.Millisecond
	bound := t.c.w.plan.poll + leeway
	if r.num("paused") == 0 && due+bound < t.c.now() && t.c.anyWell(due-t.c.w.plan.lease, due+bound) {
		t.violate("an instant comes in time", "", "%s was due at %d", r.str("name"), r.num("next_at"))
	}
}
