package sim

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/rs/zerolog"

	"github.com/postroom/postroom/core/job"
	"github.com/postroom/postroom/core/libsql"
	"github.com/postroom/postroom/core/queue"
	"github.com/postroom/postroom/core/worker"
)

// workload is who works and what on: the runners with their handlers and the
// clients with their wishes.
type workload struct {
	w       *world
	types   job.Types
	runners []*runner
	clients []*client
}

// runner is one life of a runner.
type runner struct {
	p    *proc
	slot int
	stop context.CancelFunc
	gone bool // stopped by itself
}

func newWorkload(w *world) *workload { return &workload{w: w, types: jobTypes()} }

func (l *workload) begin() {
	for slot := range l.w.plan.runners {
		l.startRunner(slot)
	}
	for i := range l.w.plan.clients {
		l.startClient(i)
	}
}

// startRunner begins a new life of the runner in the slot.
func (l *workload) startRunner(slot int) {
	if l.w.stopping {
		return
	}
	w := l.w
	lives := 1
	for _, r := range l.runners {
		if r.slot == slot {
			lives++
		}
	}
	p := w.newProc(fmt.Sprintf("r%d.%d", slot, lives))
	if w.plan.skewed {
		p.skew = w.jump()
		p.latest = p.skew
	}
	if w.plan.signals {
		p.signal = make(chan struct{}, 1)
	}
	ctx, stop := context.WithCancel(context.Background())
	p.kill = stop
	r := &runner{p: p, slot: slot, stop: stop}
	l.runners = append(l.runners, r)
	p.Go("runner", func() {
		w.record(entry{kind: "runner starts", proc: p.name})
		q := queue.New(&database{p}, p, l.types)
		work, err := worker.New(q, p, l.types, zerolog.Nop(), worker.Config{
			Runner:      queue.Runner{ID: p.name, Host: "sim", Version: "sim"},
			Concurrency: w.plan.concurrency, Lease: w.plan.lease, Heartbeat: w.plan.heartbeat,
			Poll: w.plan.poll, DrainTimeout: w.plan.drain,
		}, bindings(p)...)
		if err != nil {
			panic(err)
		}
		_ = work.Run(ctx) // never fails
		r.gone = true
		w.record(entry{kind: "runner stopped", proc: p.name})
	})
}

func (l *workload) slotOf(p *proc) int {
	for _, r := range l.runners {
		if r.p == p {
			return r.slot
		}
	}
	return -1
}

func (l *workload) isRunner(p *proc) bool { return l.slotOf(p) >= 0 }

// anyRunner draws one that is at work.
func (l *workload) anyRunner() *proc {
	var at []*proc
	for _, r := range l.runners {
		if !r.p.dead && !r.gone {
			at = append(at, r.p)
		}
	}
	if len(at) == 0 {
		return nil
	}
	return at[l.w.rng.IntN(len(at))]
}

func (l *workload) anyClient() *proc {
	c := l.clients[l.w.rng.IntN(len(l.clients))]
	if c.p.dead || c.done {
		return nil
	}
	return c.p
}

// stop tells a runner to stop in order.
func (l *workload) stop(p *proc) {
	for _, r := range l.runners {
		if r.p == p {
			r.stop()
		}
	}
}

func (l *workload) stopAll() {
	for _, r := range l.runners {
		r.stop()
	}
}

// left counts the jobs that are not final and the clients that are not done.
func (l *workload) left() (int64, error) {
	n, err := unfinished(context.Background(), l.w.file)
	for _, c := range l.clients {
		if !c.done && !c.p.dead {
			n++
		}
	}
	return n, err
}

// client enqueues, cancels and retries jobs.
type client struct {
	w    *world
	p    *proc
	q    *queue.Queue
	rng  *rand.Rand
	ids  []string // of the jobs it knows
	done bool
}

func (l *workload) startClient(n int) {
	w := l.w
	p := w.newProc(fmt.Sprintf("c%d", n))
	if w.plan.skewed {
		p.skew = w.jump()
		p.latest = p.skew
	}
	ctx, cancel := context.WithCancel(context.Background())
	p.kill = cancel
	c := &client{w: w, p: p, q: queue.New(&database{p}, p, l.types), rng: rand.New(rand.NewPCG(w.seed, uint64(100+n)))} //nolint:gosec // small
	l.clients = append(l.clients, c)
	p.Go("client", func() {
		c.run(ctx)
		c.done = true
	})
}

func (c *client) run(ctx context.Context) {
	for range c.w.plan.actions {
		c.p.sleep(nil, time.Duration(c.rng.Int64N(int64(c.w.plan.window)/int64(c.w.plan.actions)*2)), "goes on")
		switch n := c.rng.IntN(100); {
		case n < 62 || len(c.ids) == 0:
			jobs := []job.New{c.wish()}
			for c.rng.IntN(4) == 0 {
				jobs = append(jobs, c.wish())
			}
			c.enqueue(ctx, jobs)
			if c.rng.IntN(8) == 0 {
				c.enqueue(ctx, jobs) // the same request again
			}
		case n < 77:
			c.ask(ctx, "cancel", func(id string) error { _, err := c.q.Cancel(ctx, id); return err })
		case n < 92:
			c.ask(ctx, "retry", func(id string) error { _, err := c.q.Retry(ctx, id); return err })
		default:
			typ, key := keyed[c.rng.IntN(len(keyed))], keys[c.rng.IntN(len(keys))]
			_, err := c.q.PullForward(ctx, typ, key)
			c.p.w.record(entry{kind: "asked pull forward", proc: c.p.name, name: typ + " " + key, text: text(err)})
		}
	}
}

// keyed job types and the keys they are enqueued with; the first letter of a
// key says its scope.
var (
	keyed = []string{typeEcho, typeSteps, typeFlaky}
	keys  = []string{"a1", "a2", "u1", "f1"}
)

// wish makes up a job.
func (c *client) wish() job.New {
	r := c.rng
	n := job.New{
		ID: c.q.NewID(), Type: allTypes[r.IntN(len(allTypes))],
		Payload: job.Payload(payload{N: r.IntN(4), MS: r.Int64N(3000), Long: r.IntN(4) == 0, Again: r.IntN(2) == 0}),
	}
	if r.IntN(3) == 0 {
		n.Priority = r.IntN(21) - 10
	}
	switch r.IntN(6) {
	case 0:
		n.Delay = time.Duration(r.Int64N(int64(8 * time.Second)))
	case 1:
		// An instant by this client's clock, which may be wrong: it is kept
		// as given. Within reason, or the world would wait for hours.
		n.NotBefore = time.Now().Add(time.Duration(r.Int64N(int64(8*time.Second))) - 2*time.Second)
	}
	if r.IntN(5) == 0 {
		n.MaxAttempts = 1 + r.IntN(3)
	}
	if slices.Contains(keyed, n.Type) && r.IntN(2) == 0 {
		n.Key = keys[r.IntN(len(keys))]
		switch n.Key[0] {
		case 'a':
			n.KeyScope = job.ScopeActive
		case 'u':
			n.KeyScope, n.KeyTTL = job.ScopeUntil, time.Second+time.Duration(r.Int64N(int64(10*time.Second)))
		case 'f':
			n.KeyScope = job.ScopeForever
		}
	}
	return n
}

// enqueue asks until it gets an answer.
func (c *client) enqueue(ctx context.Context, jobs []job.New) {
	for range 20 {
		out, err := c.q.EnqueueMany(ctx, slices.Clone(jobs))
		if err == nil {
			for i, e := range out {
				c.w.record(entry{kind: "enqueued", proc: c.p.name, job: jobs[i].ID, name: e.ID, text: fmt.Sprintf("duplicate=%v pruned=%v", e.Duplicate, e.Pruned)})
				if !slices.Contains(c.ids, e.ID) {
					c.ids = append(c.ids, e.ID)
				}
			}
			return
		}
		if !libsql.Transient(err) {
			c.w.violate("enqueue is accepted", jobs[0].ID, "%v", err)
			return
		}
		c.p.sleep(ctx.Done(), time.Duration(c.rng.Int64N(int64(2*time.Second))), "tries again")
	}
}

// ask has something done to one of its jobs, until it gets an answer.
func (c *client) ask(ctx context.Context, what string, do func(id string) error) {
	id := c.ids[c.rng.IntN(len(c.ids))]
	for range 20 {
		err := do(id)
		c.w.record(entry{kind: "asked " + what, proc: c.p.name, job: id, text: text(err)})
		if err == nil || !libsql.Transient(err) {
			if err != nil && !errors.Is(err, queue.ErrInvalidState) && !errors.Is(err, queue.ErrKeyInUse) {
				c.w.violate("a request is answered", id, "%s: %v", what, err)
			}
			return
		}
		c.p.sleep(ctx.Done(), time.Duration(c.rng.Int64N(int64(2*time.Second))), "tries again")
	}
}

func text(err error) string {
	if err == nil {
		return "ok"
	}
	return err.Error()
}
