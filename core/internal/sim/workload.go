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

	queues []string // that it works; nil for all
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
	if w.plan.partial && slot > 0 { // the first one works everything
		r.queues = [][]string{nil, {job.DefaultQueue}, {otherQueue}}[w.rng.IntN(3)]
	}
	l.runners = append(l.runners, r)
	p.Go("runner", func() {
		w.record(entry{kind: "runner starts", proc: p.name})
		q := queue.New(&database{p}, p, l.types)
		work, err := worker.New(q, zerolog.Nop(), worker.Config{
			Runner:      queue.Runner{ID: p.name, Host: "sim", Version: "sim"},
			Concurrency: w.plan.concurrency, Lease: w.plan.lease, Heartbeat: w.plan.heartbeat,
			Poll: w.plan.poll, Eager: w.plan.eager, DrainTimeout: w.plan.drain, Queues: r.queues, Retention: w.plan.keepAll(),
		}, bindings(p)...)
		if err != nil {
			panic(err)
		}
		_ = work.Run(ctx) // never fails
		r.gone = true
		w.record(entry{kind: "runner stopped", proc: p.name})
	})
}

// die kills a runner, which comes back after a while.
func (l *workload) die(p *proc) {
	l.w.mishapped(p.name, "dies", forever)
	l.w.killProc(p)
	l.w.at(l.w.upTo(2*l.w.plan.lease), func() { l.startRunner(l.slotOf(p)) })
}

// worksOn returns what queues a runner works.
func (l *workload) worksOn(p *proc) func(queue string) bool {
	for _, r := range l.runners {
		if r.p == p && r.queues != nil {
			return func(queue string) bool { return slices.Contains(r.queues, queue) }
		}
	}
	return func(string) bool { return true }
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

// open is the last thing that an operator does: what was closed by hand is
// open again and schedules are gone, so that everything can come to its end.
func (l *workload) open() {
	w := l.w
	if !w.plan.limits && !w.plan.crons {
		return
	}
	c := &client{w: w, p: w.newProc("operator"), rng: rand.New(rand.NewPCG(w.seed, 99))}
	c.q = queue.New(&database{c.p}, c.p, l.types)
	l.clients = append(l.clients, c)
	c.p.Go("client", func() {
		ctx := context.Background()
		for slices.ContainsFunc(l.clients, func(o *client) bool { return o != c && !o.done && !o.p.dead }) {
			c.pause(time.Second)
		}
		c.request("resume", func() error { return c.q.Resume(ctx, otherQueue) })
		limits, err := c.q.Limits(ctx)
		if err != nil {
			w.violate("a request is answered", "", "list limits: %v", err)
		}
		for _, limit := range limits {
			if limit.MaxRunning != nil && *limit.MaxRunning == 0 {
				c.request("drop limit", func() error { return c.q.DropLimit(ctx, limit.Scope, limit.Name) })
			}
		}
		crons, _, err := c.q.Crons(ctx, "", 10)
		if err != nil {
			w.violate("a request is answered", "", "list schedules: %v", err)
		}
		for _, cron := range crons {
			c.request("delete "+cron.Name, func() error { return c.q.DeleteCron(ctx, cron.Name) })
		}
		c.done = true
	})
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
	plan := c.w.plan
	for range plan.actions {
		c.pause(time.Duration(c.rng.Int64N(int64(plan.window) / int64(plan.actions) * 2)))
		if plan.limits && c.rng.IntN(4) == 0 {
			c.limit(ctx)
		}
		if plan.crons && c.rng.IntN(4) == 0 {
			c.cron(ctx)
		}
		if plan.effects && len(c.ids) > 0 && c.rng.IntN(4) == 0 {
			c.ask("settle", func(id string) error {
				_, err := c.q.SettleStep(ctx, id, effectStep, queue.Settlement{Happened: c.w.effects[id] > 0})
				return err
			})
		}
		switch n := c.rng.IntN(100); {
		case n < 62 || len(c.ids) == 0:
			jobs := []job.New{c.wish()}
			for c.rng.IntN(4) == 0 {
				jobs = append(jobs, c.wish())
			}
			for i := range jobs {
				c.chain(jobs, i)
			}
			c.enqueue(ctx, jobs)
			if c.rng.IntN(8) == 0 {
				c.enqueue(ctx, jobs) // the same request again
			}
		case n < 77:
			c.ask("cancel", func(id string) error { _, err := c.q.Cancel(ctx, id); return err })
		case n < 92:
			c.ask("retry", func(id string) error { _, err := c.q.Retry(ctx, id); return err })
		default:
			typ, key := keyed[c.rng.IntN(len(keyed))], keys[c.rng.IntN(len(keys))]
			c.request("pull forward "+typ+" "+key, func() error { _, err := c.q.PullForward(ctx, typ, key); return err })
		}
	}
}

func (c *client) pause(d time.Duration) {
	c.p.sleep(nil, d)
	c.p.handOver("goes on")
}

// limit sets or drops a limit, or pauses or resumes a queue.
func (c *client) limit(ctx context.Context) {
	of := []queue.Limit{
		{Scope: queue.LimitQueue, Name: otherQueue}, {Scope: queue.LimitType, Name: typeSteps}, {Scope: queue.LimitType, Name: typeSpin},
		{Scope: queue.LimitKey, Name: limitKeys[0]}, {Scope: queue.LimitKey, Name: queue.EachKey},
	}[c.rng.IntN(5)]
	most := int64(c.rng.IntN(3))
	if of.Scope != queue.LimitKey || c.rng.IntN(2) == 0 {
		of.MaxRunning = &most
	}
	if of.Scope == queue.LimitKey && (of.MaxRunning == nil || c.rng.IntN(2) == 0) {
		of.Interval = time.Millisecond + time.Duration(c.rng.Int64N(int64(3*time.Second)))
	}
	switch c.rng.IntN(6) {
	case 0:
		c.request("drop limit of "+of.Scope+" "+of.Name, func() error { return c.q.DropLimit(ctx, of.Scope, of.Name) })
	case 1:
		c.request("pause", func() error { return c.q.Pause(ctx, otherQueue) })
	case 2:
		c.request("resume", func() error { return c.q.Resume(ctx, otherQueue) })
	default:
		c.request("limit "+of.Scope+" "+of.Name, func() error { return c.q.SetLimit(ctx, of) })
	}
}

// cron sets a schedule, or does one of the other things that are done to them.
func (c *client) cron(ctx context.Context) {
	name := "cron" + string(rune('1'+c.rng.IntN(2)))
	n := queue.NewCron{
		Name: name, Schedule: fmt.Sprintf("@every %ds", 2+c.rng.IntN(5)), Type: keyed[c.rng.IntN(len(keyed))],
		CatchUp: queue.CatchUps[c.rng.IntN(3)], Payload: job.Payload(payload{N: 1, MS: c.rng.Int64N(3000)}),
	}
	if n.CatchUp != queue.CatchUpAll {
		n.Overlap = queue.Overlaps[c.rng.IntN(2)]
	}
	switch c.rng.IntN(10) {
	case 0:
		c.request("delete "+name, func() error { return c.q.DeleteCron(ctx, name) })
	case 1:
		c.request("pause "+name, func() error { _, err := c.q.PauseCron(ctx, name); return err })
	case 2, 3:
		c.request("resume "+name, func() error { _, err := c.q.ResumeCron(ctx, name); return err })
	case 4:
		c.request("trigger "+name, func() error { _, err := c.q.TriggerCron(ctx, name); return err })
	default:
		c.request("set "+name+" "+n.Schedule, func() error { _, _, err := c.q.SetCron(ctx, n); return err })
	}
}

// chain lets a job come after others: some that are known, some of the same
// request.
func (c *client) chain(jobs []job.New, i int) {
	n := &jobs[i]
	if !c.w.plan.chains || c.rng.IntN(3) > 0 {
		return
	}
	for range 1 + c.rng.IntN(2) {
		switch {
		case i > 0 && c.rng.IntN(2) == 0:
			n.After = append(n.After, jobs[c.rng.IntN(i)].ID)
		case len(c.ids) > 0:
			n.After = append(n.After, c.ids[c.rng.IntN(len(c.ids))])
		}
	}
	if len(n.After) > 0 {
		n.AfterFailure = []job.AfterFailure{"", job.AfterCancel, job.AfterRun, job.AfterWait}[c.rng.IntN(4)]
		if n.AfterFailure == job.AfterWait && c.w.plan.retention == 0 {
			n.AfterFailure = job.AfterRun // it might wait for ever
		}
	}
}

// keyed job types and the keys they are enqueued with; the first letter of a
// key says its scope.
var (
	keyed = []string{typeEcho, typeSteps, typeFlaky}
	keys  = []string{"a1", "a2", "u1", "f1"}

	limitKeys = []string{"k1", "k2"}
)

const otherQueue = "other"

func (c *client) anyType() string {
	switch {
	case c.w.plan.killers && c.rng.IntN(8) == 0:
		return typeKiller
	case c.w.plan.effects && c.rng.IntN(4) == 0:
		return typeOnce
	}
	return allTypes[c.rng.IntN(len(allTypes))]
}

// wish makes up a job.
func (c *client) wish() job.New {
	r := c.rng
	n := job.New{
		ID: c.q.NewID(), Type: c.anyType(),
		Payload: job.Payload(payload{N: r.IntN(4), MS: r.Int64N(5000), Long: r.IntN(3) == 0, Again: r.IntN(2) == 0}),
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
	if c.w.plan.limits && r.IntN(2) == 0 {
		n.LimitKey = limitKeys[r.IntN(len(limitKeys))]
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
		var inv *job.Invalid
		if errors.As(err, &inv) && inv.Code == "unknown_job" && c.w.plan.retention > 0 {
			return // one of those it was to come after has been pruned
		}
		if !libsql.Transient(err) {
			c.w.violate("a request is answered", jobs[0].ID, "enqueue: %v", err)
			return
		}
		c.pause(time.Duration(c.rng.Int64N(int64(2 * time.Second))))
	}
}

// ask has something done to one of its jobs.
func (c *client) ask(what string, do func(id string) error) {
	id := c.ids[c.rng.IntN(len(c.ids))]
	c.request(what+" "+id, func() error { return do(id) })
}

// request asks until it gets an answer.
func (c *client) request(what string, do func() error) {
	for range 20 {
		err := do()
		c.w.record(entry{kind: "asked to " + what, proc: c.p.name, text: text(err)})
		if err != nil && libsql.Transient(err) {
			c.pause(time.Duration(c.rng.Int64N(int64(2 * time.Second))))
			continue
		}
		switch {
		case err == nil, errors.Is(err, queue.ErrInvalidState), errors.Is(err, queue.ErrKeyInUse), errors.Is(err, queue.ErrNoLimit),
			errors.Is(err, queue.ErrNoCron), errors.Is(err, queue.ErrStepNotFound), errors.Is(err, queue.ErrNotUncertain):
		case errors.Is(err, queue.ErrNotFound) && c.w.plan.retention > 0:
		default:
			c.w.violate("a request is answered", "", "%s: %v", what, err)
		}
		return
	}
}

func text(err error) string {
	if err == nil {
		return "ok"
	}
	return err.Error()
}
