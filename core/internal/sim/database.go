package sim

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/postroom/postroom/core/job"
	"github.com/postroom/postroom/core/libsql"
)

// database is the libsql.DB of one process. All of them stand before the same
// File: calls are made one at a time anyway, and what files do to each other
// is tested where the storage face is. Each call is a hand-over point before
// it is made, where its process may die or freeze with nothing done, and
// another one after it, where everything is done and the caller does not know.
type database struct{ p *proc }

// call is one call of a process to its database.
type call struct {
	n       int   // its place among the calls that reached the database; 0 for none
	ms      int64 // the database's clock
	proc    *proc
	op      string // the function of queue or step that made it
	kind    string // write, merge, read
	held    []held // the leases it is made under
	stmts   []libsql.Stmt
	results []libsql.Result
	rows    []libsql.Row
	err     error        // what the database said
	applied bool         // it reached the database, and the database said yes
	rouses  bool         // once it is applied, its process's claims look for more
	told    libsql.Class // what its caller was told in the end; "" for success
}

// held is a lease that a call claims to hold.
type held struct{ job, token string }

func (d *database) log(c *call) { d.p.w.record(entry{kind: "call", proc: d.p.name, call: c}) }

// fault is what goes wrong with one call.
type fault struct {
	before, after time.Duration // time that passes before and after it is done
	refused       libsql.Class  // it is not done
	lost          bool          // it is done, and the reply is lost
	late          time.Duration // it is done so long after its caller has given it up
}

// do makes a call with whatever goes wrong. It returns what the caller sees.
func (d *database) do(ctx context.Context, c *call, apply func(*call) error) error {
	p, w := d.p, d.p.w
	c.proc = p
	what := c.op + " " + c.kind
	if len(c.held) > 0 {
		what += " " + c.held[0].job + " " + c.held[0].token
	}
	handOver := p.handOver
	if len(c.held) > 0 {
		handOver = p.handOverAt
	}
	handOver(what)
	// From here on the call has a number: several of one kind may end their
	// wait at once, when their context does.
	p.calls++
	what += fmt.Sprintf(" %d", p.calls)
	f := w.mishap(p, c.kind)
	w.mishapOnServer(p, c.kind, &f)
	restarts := w.restarts
	tell := func(class libsql.Class, cause error) error {
		c.told = class
		d.log(c)
		return errors.Join(&libsql.Error{Class: class, Op: c.kind, Detail: "simulated"}, cause)
	}
	if f.before > 0 {
		p.sleep(ctx.Done(), f.before)
		handOver(what + " begins")
	}
	if ctx.Err() != nil {
		return tell(libsql.Canceled, ctx.Err())
	}
	if w.outage || p.cutOff {
		return tell(libsql.Unavailable, nil)
	}
	if f.refused != "" {
		return tell(f.refused, nil)
	}
	if f.late > 0 {
		d.landLate(c, f.late, apply)
		return tell(libsql.Unknown, nil)
	}
	w.calls++
	c.n, c.ms = w.calls, ms(time.Now())
	c.err = apply(c)
	c.applied = c.err == nil
	w.stats.Calls++
	w.expect(c)
	if c.applied && c.kind != "read" {
		w.committed(p)
	}
	if c.applied && c.rouses {
		p.stored()
	}
	d.log(c)
	replied := true
	handOver(what + " replies")
	if f.after > 0 {
		replied = p.sleep(ctx.Done(), f.after)
		handOver(what + " ends")
	}
	switch {
	case replied && !f.lost && w.restarts == restarts:
		c.told = libsql.ClassOf(c.err)
	case c.kind == "read":
		c.told = libsql.Canceled
	default:
		c.told = libsql.Unknown
	}
	w.record(entry{kind: "reply", proc: p.name, call: c})
	if c.told == libsql.ClassOf(c.err) {
		return c.err
	}
	return errors.Join(&libsql.Error{Class: c.told, Op: c.kind, Detail: "simulated"}, ctx.Err())
}

// Write implements libsql.DB.
func (d *database) Write(ctx context.Context, b *libsql.Batch) ([]libsql.Result, error) {
	stmts, guards := b.Recorded()
	c := &call{op: caller(), kind: "write", stmts: stmts, held: heldByGuards(stmts[:guards]), rouses: b.Rouses}
	if m := d.p.w.opt.Mutation; m != nil && m.Write != nil {
		if res, mine, err := m.Write(ctx, d, c); mine {
			return res, err
		}
	}
	err := d.do(ctx, c, func(c *call) error { return d.write(ctx, c, guards) })
	if err != nil {
		return nil, err
	}
	return c.results, nil
}

// Join implements libsql.DB. Here it is a commit of its own that follows soon
// after one that rouses it, with everything that can befall a call: that both
// are one commit is no guarantee that anything depends on.
func (d *database) Join(ctx context.Context, fill func(*libsql.Batch)) ([]libsql.Result, error) {
	p := d.p
	for !p.roused && ctx.Err() == nil {
		select {
		case <-p.rouse:
		case <-ctx.Done():
		}
	}
	p.handOver("join")
	if ctx.Err() != nil {
		return nil, errors.Join(&libsql.Error{Class: libsql.Canceled, Op: "join", Detail: "simulated"}, ctx.Err())
	}
	p.roused = false
	var b libsql.Batch
	fill(&b)
	return d.Write(context.WithoutCancel(ctx), &b)
}

// stored lets the process's own claims know of a commit that rouses them.
func (p *proc) stored() {
	p.roused = true
	select {
	case p.rouse <- struct{}{}:
	default:
	}
}

// write applies a call's statements, the clock set first.
func (d *database) write(ctx context.Context, c *call, guards int) error {
	stmts := d.mutate(c, c.stmts)
	var b libsql.Batch
	b.Guard(clockSQL(c.ms, c.n))
	for i, s := range stmts {
		if i < guards {
			b.Guard(s.SQL, s.Args...)
		} else {
			b.Add(s)
		}
	}
	res, err := d.p.w.file.Write(context.WithoutCancel(ctx), &b)
	if err != nil {
		return shifted(err)
	}
	c.results = res[1:]
	return nil
}

// Merge implements libsql.DB.
func (d *database) Merge(ctx context.Context, op *libsql.Op, items ...[]byte) ([]libsql.Row, error) {
	c := &call{op: caller(), kind: "merge", held: heldByItems(items), rouses: op.Rouses}
	arg := "[" + string(joinItems(items)) + "]"
	for _, sql := range op.Stmts {
		c.stmts = append(c.stmts, libsql.Exec(sql, arg))
	}
	err := d.do(ctx, c, func(c *call) (err error) {
		mutated := &libsql.Op{Name: op.Name, Packed: op.Packed, Stmts: []string{clockSQL(c.ms, c.n) + " AND ? IS NOT NULL"}}
		for _, s := range d.mutate(c, c.stmts) {
			mutated.Stmts = append(mutated.Stmts, s.SQL)
		}
		c.rows, err = d.p.w.file.Merge(context.WithoutCancel(ctx), mutated, items...)
		return shifted(err)
	})
	if err != nil {
		return nil, err
	}
	return c.rows, nil
}

// Read implements libsql.DB.
func (d *database) Read(ctx context.Context, stmts ...libsql.Stmt) ([]libsql.Result, error) {
	c := &call{op: caller(), kind: "read", stmts: stmts}
	err := d.do(ctx, c, func(c *call) (err error) {
		// A write for every read, only to set the clock, would cost more than
		// all reads: they get it in place of the view.
		now := fmt.Sprintf("(SELECT %d AS ms)", c.ms)
		timed := slices.Clone(d.mutate(c, stmts))
		for i := range timed {
			timed[i].SQL = strings.ReplaceAll(timed[i].SQL, "db_clock", now)
		}
		c.results, err = d.p.w.file.Read(context.WithoutCancel(ctx), timed...)
		return err
	})
	if err != nil {
		return nil, err
	}
	return c.results, nil
}

// Watch implements libsql.DB: the signal that another process committed is
// the simulator's own.
func (d *database) Watch(context.Context) <-chan struct{} { return d.p.signal }

// Health implements libsql.DB.
func (d *database) Health(ctx context.Context) (int64, error) { return d.p.w.file.Health(ctx) }

// Durability implements libsql.DB.
func (d *database) Durability() string { return d.p.w.file.Durability() }

// ProbeWriter implements libsql.DB.
func (d *database) ProbeWriter(ctx context.Context) (time.Duration, error) {
	return d.p.w.file.ProbeWriter(ctx)
}

// Close implements libsql.DB. The file is the world's.
func (d *database) Close(context.Context) error { return nil }

// committed signals the other processes, though not always: signals of the
// operating system come together, and looking costs the simulator most.
func (w *world) committed(by *proc) {
	for _, p := range w.procs {
		if p != by && p.signal != nil && !p.dead && w.rng.IntN(3) == 0 {
			select {
			case p.signal <- struct{}{}:
			default:
			}
		}
	}
}

// expect notes what the database should never say here.
func (w *world) expect(c *call) {
	switch class := libsql.ClassOf(c.err); class {
	case "", libsql.Guard:
	default:
		w.violate("statements are sound", "", "%s %s of %s: %v", c.op, c.kind, c.proc.name, c.err)
	}
}

// mutate lets the run's mutation, if there is one, change the statements.
func (d *database) mutate(c *call, stmts []libsql.Stmt) []libsql.Stmt {
	m := d.p.w.opt.Mutation
	if m == nil || m.SQL == nil {
		return stmts
	}
	out := make([]libsql.Stmt, len(stmts))
	for i, s := range stmts {
		sql := m.SQL(d.p, c, i, s.SQL)
		if sql != s.SQL {
			m.hits.Add(1)
		}
		s.SQL = sql
		out[i] = s
	}
	return out
}

// shifted gives an error the place that its caller knows: the clock stood
// before it.
func shifted(err error) error {
	var e *libsql.Error
	if errors.As(err, &e) && e.Index > 0 {
		e.Index--
	}
	return err
}

// heldByGuards finds the leases in a batch's guards: a job's id and a token.
func heldByGuards(guards []libsql.Stmt) []held {
	var out []held
	for _, g := range guards {
		if len(g.Args) < 2 {
			continue
		}
		id, _ := g.Args[0].(string)
		token, _ := g.Args[1].(string)
		if job.IsUUID(id) && isToken(token) {
			out = append(out, held{id, token})
		}
	}
	return out
}

var (
	itemID    = regexp.MustCompile(`"id":"([^"]+)"`)
	itemToken = regexp.MustCompile(`"t":"([0-9a-f]{32})"`)
	itemLease = regexp.MustCompile(`^([0-9]+) *([0-9a-f]{32})`)
)

// heldByItems finds the leases in the items of an op: their "id" and "t", or
// the beginning of a packed one, which has the job's place in place of its id.
func heldByItems(items [][]byte) []held {
	var out []held
	for _, it := range items {
		if m := itemLease.FindSubmatch(it); m != nil {
			out = append(out, held{string(m[1]), string(m[2])})
		}
		id, token := itemID.FindSubmatch(it), itemToken.FindSubmatch(it)
		if id != nil && token != nil {
			out = append(out, held{string(id[1]), string(token[1])})
		}
	}
	return out
}

func isToken(s string) bool {
	return len(s) == 32 && strings.Trim(s, "0123456789abcdef") == ""
}

func joinItems(items [][]byte) []byte {
	var out []byte
	for i, it := range items {
		if i > 0 {
			out = append(out, ',')
		}
		out = append(out, it...)
	}
	return out
}

// caller names the function of queue or step that the call belongs to: the
// outermost one, for the call may be made deep inside, and again and again by
// libsql.Insist.
func caller() string {
	var pcs [24]uintptr
	frames := runtime.CallersFrames(pcs[:runtime.Callers(3, pcs[:])])
	name, inside := "", false
	for {
		f, more := frames.Next()
		of := strings.Contains(f.Function, "/core/queue.") || strings.Contains(f.Function, "/core/step.")
		if inside && !of && !strings.HasSuffix(f.Function, "/core/libsql.Insist") {
			return name
		}
		if of {
			inside = true
			name = f.Function[strings.LastIndexByte(f.Function, '/')+1:]
			name = strings.NewReplacer("(*Queue).", "", "queue.", "", "[...]", "", "ClaimStored", "Claim").Replace(name)
		}
		if !more {
			return name
		}
	}
}
