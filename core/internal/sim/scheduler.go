package sim

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"testing/synctest"
	"time"

	"github.com/postroom/postroom/core/libsql"
	"github.com/postroom/postroom/core/system"
)

// world is everything there is. Its tasks (the goroutines of the simulated
// processes) run one at a time: each stops at its next hand-over point and
// waits there until the scheduler, which draws from the seed, lets it go on.
// Between two hand-over points a task is never interrupted, and time stands
// still.
type world struct {
	seed uint64
	opt  Options
	plan plan
	file libsql.DB

	rng   *rand.Rand // the scheduler's own draws
	began time.Time
	kick  chan struct{} // a task came to a hand-over point

	mu     sync.Mutex // guards what tasks touch on their way to a hand-over point
	parked []*waiter
	timers []*timer
	events []*event // what the world itself does at a given time
	order  int      // of timers as they are made, and of events
	tasks  int      // goroutines alive

	step       int
	stopping   bool // the end: whatever is asked for now is the last
	procs      []*proc
	history    []entry
	calls      int
	outage     bool
	restarts   int            // of the server, so far
	healed     bool           // no more faults
	effects    map[string]int // on the world, by job
	violations []Violation
	stats      Stats
	work       *workload
}

// waiter is a task at a hand-over point.
type waiter struct {
	proc     *proc
	name     string
	step     int
	on       chan struct{}
	critical bool // a mishap here is worth more than elsewhere
}

// event is something the world does by itself.
type event struct {
	at    time.Time
	order int
	do    func()
}

func newWorld(seed uint64, opt Options) *world {
	w := &world{
		seed: seed, opt: opt, rng: rand.New(rand.NewPCG(seed, 0)),
		began: time.Now(), kick: make(chan struct{}, 1), effects: map[string]int{},
	}
	w.plan = draw(rand.New(rand.NewPCG(seed, 1)))
	if opt.Server {
		w.plan.draw(rand.New(rand.NewPCG(seed, 2)))
	}
	w.work = newWorkload(w)
	return w
}

// stepLimit is far above what any world needs: one that reaches it goes round
// in circles.
const stepLimit = 100_000

// live lets everything happen until all tasks have ended.
func (w *world) live() {
	w.schedule()
	for {
		synctest.Wait()
		w.due()
		if w.aliveTasks() == 0 && w.stopping {
			return
		}
		if w.step++; w.step == stepLimit {
			w.violate("live-lock", "", "%d steps without an end", stepLimit)
			w.killAll()
		}
		if w.step > 2*stepLimit {
			panic(fmt.Sprintf("sim: seed %d: tasks do not end even when killed: %v", w.seed, w.names()))
		}
		ready := w.ready()
		if len(ready) == 0 {
			w.idle()
			continue
		}
		ready[w.rng.IntN(len(ready))].release(w)
		synctest.Wait()
		// A step takes a moment, so that no two timers, the contexts' own
		// included, ever end at the same one.
		time.Sleep(time.Duration(1 + w.rng.IntN(200_000))) //nolint:forbidigo // the bubble's clock
	}
}

func (w *world) aliveTasks() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.tasks
}

// releasable is what the scheduler chooses from: a task at a hand-over point,
// or a timer whose time has come.
type releasable interface {
	key() key
	release(w *world)
}

type key struct {
	step  int       // when it came to its hand-over point; timers come first
	armed int       // of timers: the step
	due   time.Time // of timers
	born  int       // of timers
	proc  string
	name  string
}

func (k key) compare(o key) int {
	return cmp.Or(cmp.Compare(k.step, o.step), cmp.Compare(k.armed, o.armed), k.due.Compare(o.due), cmp.Compare(k.born, o.born),
		cmp.Compare(k.proc, o.proc), cmp.Compare(k.name, o.name))
}

func (h *waiter) key() key { return key{step: h.step, proc: h.proc.name, name: h.name} }

func (h *waiter) release(w *world) {
	w.mu.Lock()
	w.parked = slices.DeleteFunc(w.parked, func(o *waiter) bool { return o == h })
	w.mu.Unlock()
	w.strike(h)
	if h.proc.frozen && !h.proc.dead { // struck just here: it stays where it is
		w.mu.Lock()
		w.parked = append(w.parked, h)
		w.mu.Unlock()
		return
	}
	close(h.on)
}

// ready lists what may go on now, in an order that does not depend on chance.
func (w *world) ready() []releasable {
	now := time.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []releasable
	for _, h := range w.parked {
		if h.proc.dead || !h.proc.frozen {
			out = append(out, h)
		}
	}
	for _, t := range w.timers {
		if t.proc.dead || !t.proc.frozen && !t.due.After(now) {
			out = append(out, t)
		}
	}
	slices.SortFunc(out, func(a, b releasable) int {
		k := a.key()
		c := k.compare(b.key())
		if c == 0 && a != b {
			panic(fmt.Sprintf("sim: seed %d: two tasks are called %s %q in step %d: the seed would not decide between them", w.seed, k.proc, k.name, k.step))
		}
		return c
	})
	return out
}

// due does what the world itself does by now.
func (w *world) due() {
	for len(w.events) > 0 && !w.events[0].at.After(time.Now()) {
		e := w.events[0]
		w.events = w.events[1:]
		e.do()
		synctest.Wait()
	}
}

// at makes the world do something after d.
func (w *world) at(d time.Duration, do func()) {
	w.order++
	w.events = append(w.events, &event{at: time.Now().Add(d), order: w.order, do: do})
	slices.SortFunc(w.events, func(a, b *event) int {
		return cmp.Or(a.at.Compare(b.at), cmp.Compare(a.order, b.order))
	})
}

// idle sleeps until something may happen. A context that ends by itself, the
// only thing that is not the scheduler's, kicks it awake.
func (w *world) idle() {
	select {
	case <-w.kick: // from a step that is over
	default:
	}
	next := time.Now().Add(time.Hour)
	w.mu.Lock()
	for _, t := range w.timers {
		if !t.proc.frozen && t.due.Before(next) {
			next = t.due
		}
	}
	w.mu.Unlock()
	if len(w.events) > 0 && w.events[0].at.Before(next) {
		next = w.events[0].at
	}
	t := time.NewTimer(time.Until(next))
	defer t.Stop()
	select {
	case <-t.C:
	case <-w.kick:
	}
}

func (w *world) names() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []string
	for _, h := range w.parked {
		out = append(out, h.proc.name+" "+h.name)
	}
	return out
}

// proc is a simulated process: a runner or a client. It is the system.System
// of the code that runs in it.
type proc struct {
	w         *world
	name      string
	rng       *rand.Rand
	dead      bool          // killed: its tasks leave at their next hand-over point
	frozen    bool          // stopped: its tasks stay where they are
	cutOff    bool          // it does not reach the database
	skew      time.Duration // how far its clock is off
	latest    time.Duration // the furthest it was ahead
	kill      func()        // ends its context
	calls     int           // it has made of its database
	disturbed int           // how often it was frozen or its clock jumped
	signal    chan struct{} // another process has committed; nil for none
	roused    bool          // it stored jobs that its claims have not looked for yet
	rouse     chan struct{}
}

func (w *world) newProc(name string) *proc {
	var h uint64 = 14695981039346656037 // FNV-1a
	for _, c := range []byte(name) {
		h = (h ^ uint64(c)) * 1099511628211
	}
	p := &proc{w: w, name: name, rng: rand.New(rand.NewPCG(w.seed, h)), kill: func() {}, rouse: make(chan struct{}, 1)}
	w.procs = append(w.procs, p)
	return p
}

// handOver waits until the scheduler lets the task go on. The task of a dead
// process ends here.
func (p *proc) handOver(name string) { p.pass(&waiter{proc: p, name: name}) }

// handOverAt is the hand-over point of somebody who holds a job.
func (p *proc) handOverAt(name string) { p.pass(&waiter{proc: p, name: name, critical: true}) }

func (p *proc) pass(h *waiter) {
	p.wait(h)
	if p.dead {
		runtime.Goexit()
	}
}

func (p *proc) wait(h *waiter) {
	h.on = make(chan struct{})
	p.w.mu.Lock()
	h.step = p.w.step
	p.w.parked = append(p.w.parked, h)
	p.w.mu.Unlock()
	select {
	case p.w.kick <- struct{}{}:
	default:
	}
	<-h.on
}

// Now implements system.System.
func (p *proc) Now() time.Time { return time.Now().Add(p.skew) }

// Read implements system.System.
func (p *proc) Read(b []byte) {
	// A claim's token and a backoff may be drawn in one step.
	p.handOver("draw " + strconv.Itoa(len(b)))
	for i := range b {
		b[i] = byte(p.rng.Uint32())
	}
}

// Go implements system.System.
func (p *proc) Go(name string, fn func()) {
	p.w.mu.Lock()
	p.w.tasks++
	p.w.mu.Unlock()
	go func() {
		defer func() {
			p.w.mu.Lock()
			p.w.tasks--
			p.w.mu.Unlock()
			select {
			case p.w.kick <- struct{}{}:
			default:
			}
		}()
		// Not the end even if the process is dead: another of its tasks may
		// wait for what fn does when it ends.
		p.wait(&waiter{proc: p, name: "start " + name})
		fn()
	}()
}

// NewTimer implements system.System.
func (p *proc) NewTimer(d time.Duration) system.Timer {
	p.handOver("timer " + d.String())
	return p.timer(d)
}

func (p *proc) timer(d time.Duration) *timer {
	t := &timer{proc: p, c: make(chan time.Time, 1)}
	p.w.mu.Lock()
	p.w.order++
	t.born = p.w.order
	p.w.mu.Unlock()
	t.Reset(d)
	return t
}

// timer fires when the scheduler says so, at its time or later. Two tasks may
// arm one each in the same step, and which is first is chance: their place is
// that of the one that is due first.
type timer struct {
	proc  *proc
	c     chan time.Time
	armed int
	due   time.Time
	born  int
}

func (t *timer) C() <-chan time.Time { return t.c }

func (t *timer) Reset(d time.Duration) {
	t.Stop()
	w := t.proc.w
	w.mu.Lock()
	defer w.mu.Unlock()
	t.armed, t.due = w.step, time.Now().Add(max(d, 0))
	w.timers = append(w.timers, t)
}

func (t *timer) Stop() {
	t.disarm()
	select {
	case <-t.c:
	default:
	}
}

func (t *timer) disarm() {
	w := t.proc.w
	w.mu.Lock()
	defer w.mu.Unlock()
	w.timers = slices.DeleteFunc(w.timers, func(o *timer) bool { return o == t })
}

func (t *timer) key() key { return key{step: -1, armed: t.armed, due: t.due, born: t.born} }

func (t *timer) release(*world) {
	t.disarm()
	t.c <- time.Now()
}

// sleep lets d pass for the task and says whether ctx outlasted it. The next
// thing to do is to hand over.
func (p *proc) sleep(ctxDone <-chan struct{}, d time.Duration) bool {
	t := p.timer(d)
	defer t.Stop()
	select {
	case <-t.C():
		return true
	case <-ctxDone:
		return false
	}
}

// ofFile is the system of the database file, which belongs to no process. Its
// long timer gives memory back after a quiet while, of which there are many
// here.
type ofFile struct{ system.Real }

func (f ofFile) NewTimer(d time.Duration) system.Timer {
	if d < time.Minute {
		return f.Real.NewTimer(d)
	}
	return never{}
}

type never struct{}

func (never) C() <-chan time.Time { return nil }
func (never) Reset(time.Duration) {}
func (never) Stop()               {}
