package sim

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/postroom/postroom/core/libsql"
	"github.com/postroom/postroom/core/queue"
)

// plan is what a seed decides before anything happens: how large the world
// is, how it is set, and which kinds of mishap it knows at all. Most worlds
// know a few: one in which everything goes wrong all the time gets nowhere
// and finds little.
type plan struct {
	runners, clients, actions int
	concurrency               int
	lease, heartbeat, poll    time.Duration
	drain, window             time.Duration // window is how long there are mishaps
	signals                   bool          // runners notice each other's commits

	// What kinds of work there are; see workload.go.
	limits, chains, killers, partial, effects, crons, writes bool
	retention                                                time.Duration

	// Of a thousand calls.
	lost, unknown, busy, full, down, slow int
	// Of ten thousand hand-overs of a runner, and at most so many of each.
	kill, freeze   int
	kills, freezes int
	// In the whole window.
	outages, cutOffs, jumps, stops, clientDeaths int
	skewed                                       bool // clocks are off from the start

	onServer // what there is beside if the database is a server
}

func draw(r *rand.Rand) plan {
	between := func(lo, hi int) int { return lo + r.IntN(hi-lo+1) }
	duration := func(lo, hi time.Duration) time.Duration { return lo + time.Duration(r.Int64N(int64(hi-lo)+1)) }
	sometimes := func(of int, n int) int { // n once in a while, otherwise 0
		if r.IntN(of) == 0 {
			return n
		}
		return 0
	}
	p := plan{
		runners: between(2, 4), clients: between(1, 2), actions: between(6, 16), concurrency: between(1, 4),
		lease: duration(3*time.Second, 9*time.Second),
		drain: duration(time.Second, 6*time.Second), window: duration(8*time.Second, 30*time.Second),
		signals: r.IntN(6) == 0,
	}
	p.heartbeat = p.lease / time.Duration(between(3, 4))
	p.poll = p.lease / time.Duration(between(3, 6))
	p.lost = sometimes(2, between(3, 50))
	p.unknown = sometimes(3, between(3, 30))
	p.busy = sometimes(3, between(3, 30))
	p.full = sometimes(6, between(3, 30))
	p.down = sometimes(4, between(3, 30))
	p.slow = sometimes(2, between(3, 50))
	p.kill, p.kills = sometimes(2, between(10, 60)), between(1, 4)
	p.freeze, p.freezes = sometimes(2, between(20, 100)), between(1, 6)
	p.outages = sometimes(4, between(1, 2))
	p.cutOffs = sometimes(3, between(1, 3))
	p.jumps = sometimes(3, between(1, 3))
	p.stops = sometimes(3, between(1, 3))
	p.clientDeaths = sometimes(5, 1)
	p.skewed = r.IntN(3) == 0
	p.limits = r.IntN(2) == 0
	p.chains = r.IntN(2) == 0
	p.killers = r.IntN(4) == 0
	p.partial = r.IntN(3) == 0
	p.effects = r.IntN(2) == 0
	p.crons = r.IntN(4) == 0
	if r.IntN(3) == 0 {
		p.retention = duration(5*time.Second, 30*time.Second)
	}
	p.writes = r.IntN(2) == 0
	return p
}

// keep says how long jobs in a final state are kept, if they are ever pruned.
func (p plan) keep(state string) (time.Duration, bool) {
	if p.retention == 0 {
		return 0, false
	}
	if state == "failed" {
		return 2 * p.retention, true
	}
	return p.retention, true
}

// keepAll is the same for the worker.
func (p plan) keepAll() queue.Retention {
	done, _ := p.keep("completed")
	failed, _ := p.keep("failed")
	return queue.Retention{Completed: done, Canceled: done, Failed: failed}
}

// mishap draws what goes wrong with a call.
func (w *world) mishap(p *proc, kind string) fault {
	var f fault
	if w.healed {
		return f
	}
	n, limit := w.rng.IntN(1000), 0
	hit := func(permille int) bool {
		was := limit
		limit += permille
		return n >= was && n < limit
	}
	write := kind != "read"
	switch {
	case hit(w.plan.lost):
		f.lost = true
	case hit(w.plan.unknown) && write:
		f.refused = libsql.Unknown
	case hit(w.plan.busy):
		f.refused, f.before = libsql.Busy, w.upTo(time.Second)
	case hit(w.plan.full) && write:
		f.refused = libsql.Full
	case hit(w.plan.down):
		f.refused = libsql.Unavailable
	case hit(w.plan.slow):
		span := w.upTo(2 * time.Second)
		if w.rng.IntN(4) == 0 {
			span = w.upTo(2 * w.plan.lease)
		}
		if w.rng.IntN(2) == 0 {
			f.before = span
		} else {
			f.after = span
		}
	default:
		return f
	}
	w.mishapped(p.name, fmt.Sprintf("a call meets %+v", f), f.before+f.after)
	return f
}

// forever is how long a mishap lasts that does not end by itself.
const forever = 1000 * time.Hour

// mishapped notes that a process, or the database, is in trouble for a time.
func (w *world) mishapped(proc, text string, span time.Duration) {
	w.stats.Faults++
	w.record(entry{kind: "mishap", proc: proc, text: text, span: span})
}

// upTo draws a time.
func (w *world) upTo(d time.Duration) time.Duration {
	return time.Millisecond + time.Duration(w.rng.Int64N(int64(d)))
}

// strike may kill or freeze a runner as one of its tasks is let go on.
func (w *world) strike(h *waiter) {
	p := h.proc
	if w.healed || p.dead || !w.work.isRunner(p) {
		return
	}
	n := w.rng.IntN(10_000)
	if h.critical {
		n /= 10
	}
	switch {
	case n < w.plan.kill && w.plan.kills > 0:
		w.plan.kills--
		w.work.die(p)
	case n < w.plan.kill+w.plan.freeze && w.plan.freezes > 0:
		w.plan.freezes--
		span := w.plan.lease/2 + w.upTo(5*w.plan.lease/2)
		w.mishapped(p.name, "freezes for "+span.String(), span)
		p.frozen = true
		p.disturbed++
		w.at(span, func() { w.thaw(p) })
	}
}

func (w *world) thaw(p *proc) {
	if p.frozen {
		p.frozen = false
		w.record(entry{kind: "thaws", proc: p.name})
	}
}

func (w *world) killProc(p *proc) {
	p.dead = true
	p.kill()
}

func (w *world) killAll() {
	w.stopping = true
	for _, p := range w.procs {
		if !p.dead {
			w.killProc(p)
		}
	}
}

// schedule plans what happens at a time and not at a call.
func (w *world) schedule() {
	w.work.begin()
	within := func(n int, do func()) {
		for range n {
			w.at(w.upTo(w.plan.window), do)
		}
	}
	within(w.plan.outages, func() {
		span := w.upTo(3 * w.plan.lease)
		w.mishapped("database", "is away for "+span.String(), span)
		w.outage = true
		w.at(span, func() { w.outage = false })
	})
	within(w.plan.cutOffs, func() {
		if p := w.work.anyRunner(); p != nil {
			span := w.upTo(3 * w.plan.lease)
			w.mishapped(p.name, "is cut off for "+span.String(), span)
			p.cutOff = true
			w.at(span, func() { p.cutOff = false })
		}
	})
	within(w.plan.jumps, func() {
		if p := w.work.anyRunner(); p != nil {
			by := w.jump()
			w.mishapped(p.name, "its clock jumps by "+by.String(), forever)
			p.disturbed++
			p.skew += by
			p.latest = max(p.latest, p.skew)
		}
	})
	within(w.plan.stops, func() {
		if p := w.work.anyRunner(); p != nil {
			w.mishapped(p.name, "is told to stop", forever)
			w.work.stop(p)
			w.at(w.plan.drain+w.upTo(w.plan.lease), func() { w.work.startRunner(w.work.slotOf(p)) })
		}
	})
	within(w.plan.clientDeaths, func() {
		if p := w.work.anyClient(); p != nil {
			w.mishapped(p.name, "dies", forever)
			w.killProc(p)
		}
	})
	w.scheduleOnServer(within)
	w.at(w.plan.window, w.heal)
}

// jump is how far a clock is set forward or back.
func (w *world) jump() time.Duration {
	d := w.upTo(10 * time.Minute)
	if w.rng.IntN(3) == 0 {
		d = w.upTo(5 * time.Hour)
	}
	if w.rng.IntN(2) == 0 {
		d = -d
	}
	return d
}

// settleTime is how long the world may take to come to rest after its last
// mishap: delays double, up to minutes, with each crash.
const settleTime = 30 * time.Minute

// heal ends all mishaps, except that what is frozen stays so for its time:
// zombies come back to a world in order. Everything must come to its end now.
func (w *world) heal() {
	w.healed = true
	w.outage = false
	for _, p := range w.procs {
		p.cutOff = false
		// A clock that was set back catches up. Go's own clock would not have
		// shown the jump: a runner's durations come from its steady reading,
		// which the simulator sets back as well. That must not break a promise,
		// but such a runner may be slow for as long as it lasts.
		p.skew = p.latest
	}
	w.record(entry{kind: "heals", proc: "world"})
	w.work.open()
	within := settleTime
	if w.opt.Mutation != nil { // nobody waits for a world that is broken on purpose
		within = time.Minute
	}
	w.at(time.Second, func() { w.settle(time.Now().Add(within)) })
}

// settle stops the runners once there is nothing left to do.
func (w *world) settle(deadline time.Time) {
	if w.stopping {
		return
	}
	left, err := w.work.left()
	switch {
	case err != nil:
		panic(fmt.Sprintf("sim: seed %d: count what is left: %v", w.seed, err))
	case left == 0:
		w.stopping = true
		w.work.stopAll()
	case time.Now().After(deadline):
		w.violate("everything ends", "", "%d jobs or clients are not done long after the last mishap", left)
		w.killAll()
	default:
		w.at(2*time.Second, func() { w.settle(deadline) })
	}
}
