package sim

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/postroom/postroom/core/libsql"
)

// onServer is the part of a plan that only a database on a server has. It is
// drawn apart, so that the worlds on a file stay as they are.
type onServer struct {
	link     time.Duration // how long a request is under way, and so its answer
	eager    time.Duration // how soon runners look again after they had work
	late     int           // of a thousand writes: given up before they land
	stolen   int           // of a thousand writes: rolled back by the server after five seconds
	tooMany  int           // of a thousand calls: refused because there are too many
	restarts int           // in the whole window
}

func (p *plan) draw(r *rand.Rand) {
	sometimes := func(of, lo, hi int) int {
		if r.IntN(of) > 0 {
			return 0
		}
		return lo + r.IntN(hi-lo+1)
	}
	p.signals = false // a server gives none
	p.eager = 20 * time.Millisecond
	p.link = time.Duration(sometimes(2, 1, 25)) * time.Millisecond
	p.late = sometimes(2, 3, 40)
	p.stolen = sometimes(4, 3, 20)
	p.tooMany = sometimes(3, 3, 50)
	p.restarts = sometimes(2, 1, 4)
}

// theft is how long a server leaves a transaction alone that others wait for.
const theft = 5 * time.Second

// mishapOnServer adds to what goes wrong with a call.
func (w *world) mishapOnServer(p *proc, kind string, f *fault) {
	if !w.opt.Server {
		return
	}
	if was := *f; !w.healed && was == (fault{}) {
		n := w.rng.IntN(1000)
		hit := func(permille int) bool { n -= permille; return n < 0 }
		switch write := kind != "read"; {
		case hit(w.plan.late) && write:
			f.late = w.upTo(2 * w.plan.lease)
		case hit(w.plan.stolen) && write:
			f.refused, f.before = libsql.Busy, theft
		case hit(w.plan.tooMany):
			f.refused, f.before = libsql.Busy, w.upTo(time.Second)
		}
		if *f != was {
			w.mishapped(p.name, fmt.Sprintf("a call meets %+v", *f), f.before+f.late)
		}
	}
	if f.refused == "" {
		f.before += w.plan.link
		f.after += w.plan.link
	}
}

func (w *world) scheduleOnServer(within func(int, func())) {
	within(w.plan.restarts, func() {
		span := w.upTo(2 * time.Second)
		w.mishapped("database", "restarts, for "+span.String(), span)
		w.restarts++ // which loses the replies that are under way
		w.outage = true
		w.at(span, func() { w.outage = false })
	})
}

// landLate does what a call asks for after its caller has given it up.
func (d *database) landLate(c *call, after time.Duration, apply func(*call) error) {
	w := d.p.w
	w.at(after, func() {
		if w.outage {
			return // it was lost with the server
		}
		late := *c
		w.calls++
		late.n, late.ms, late.told = w.calls, ms(time.Now()), libsql.Unknown
		late.err = apply(&late)
		late.applied = late.err == nil
		w.stats.Calls++
		w.expect(&late)
		w.record(entry{kind: "call", proc: "server", call: &late}) // its process may be dead
	})
}
