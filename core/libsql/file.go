package libsql

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/postroom/postroom/core/system"
)

// File is an embedded database: one writer, several readers.
type File struct {
	opt        Options
	databaseID string // meta.database_id: what makes a replaced file the same database

	life context.Context //nolint:containedctx // of the writes that nobody waits for
	die  context.CancelFunc

	mu       sync.Mutex
	id       fileID  // the file that was last found at the path and accepted
	homeless string  // its home, as long as the database in it has not noted that; else ""
	readers  []*conn // idle reading connections of that file
	closed   bool

	judging sync.Mutex
	judged  verdict // on the last other file that was found beside the known one's log

	slots  chan struct{} // one token per reading call in flight
	writer writer
	health probe
	lock   probe
}

func openFile(ctx context.Context, opt Options) (*File, error) {
	f := &File{opt: opt, slots: make(chan struct{}, opt.Readers)}
	f.life, f.die = context.WithCancel(context.WithoutCancel(ctx))
	var c *conn
	var stored string
	// Another process may be recovering the log or migrating at this moment.
	err := waitBusy(ctx, opt, opt.BusyTimeout, func() (err error) {
		if c, err = connect(opt.Path, "rw", readerRole, opt.Synchronous); err != nil {
			return err
		}
		if f.databaseID, stored, err = readIdentity(c); err != nil {
			c.park(opt.Synchronous)
		}
		return err
	})
	if err != nil {
		f.die()
		return nil, err
	}
	f.id = c.file
	f.noteHome(c, stored)
	f.readers = append(f.readers, c)
	f.writer.start(f)
	if _, err := f.Health(ctx); err != nil {
		_ = f.Close(ctx) // the first error is the one that matters
		return nil, err
	}
	f.settleSoon()
	return f, nil
}

var errNotPostroom = errors.New("it is not a migrated Postroom database")

const (
	sqlIdentity = `SELECT CAST(i.value AS BLOB), CAST((SELECT value FROM meta WHERE key = 'file') AS BLOB) FROM meta AS i WHERE i.key = 'database_id'`
	sqlTouch    = `UPDATE meta SET updated_at = updated_at WHERE key = 'database_id'`
)

// readIdentity returns the database's id, and its home as it was noted last,
// "" if never.
func readIdentity(c *conn) (id, home string, err error) {
	rows, err := c.query(sqlIdentity)
	switch {
	case ClassOf(err) == Invalid, err == nil && len(rows) != 1:
		return "", "", &Error{Class: Unavailable, Op: "open", cause: errNotPostroom}
	case err != nil:
		return "", "", err
	}
	return rows[0].Str(0), rows[0].Str(1), nil
}

// checkIdentity looks at the path and refuses a file that is missing, empty
// or another database. A file with another inode but the same database id (a
// restored backup) is accepted, and the connections of the old one parked.
func (f *File) checkIdentity() (fileID, error) {
	now, err := statFile(f.opt.Path)
	if err != nil {
		return fileID{}, err
	}
	f.mu.Lock()
	known := f.id
	f.mu.Unlock()
	if now == known {
		return now, nil
	}
	if now.sameFile(known) {
		// The process still has the old log mapped; a new connection would
		// mix the two.
		return fileID{}, &Error{Class: Unavailable, Op: "open", Detail: "the write-ahead log was removed or replaced under the running process"}
	}
	if now.sharesLog(known) {
		if err := f.recognise(known); err != nil {
			return fileID{}, err
		}
	}
	c, err := connect(f.opt.Path, "rw", readerRole, f.opt.Synchronous)
	var id, stored string
	if err == nil {
		if id, stored, err = readIdentity(c); err != nil || id != f.databaseID {
			c.park(f.opt.Synchronous)
		}
	}
	switch cls := ClassOf(err); {
	case err == nil && id != f.databaseID, cls == Corrupt, errors.Is(err, errNotPostroom):
		return fileID{}, &Error{Class: Unavailable, Op: "open", Detail: "the database file was replaced by another database"}
	case err != nil:
		return fileID{}, err
	}
	f.mu.Lock()
	old := f.readers
	f.readers = []*conn{c}
	f.id = c.file
	f.noteHome(c, stored)
	f.mu.Unlock()
	for _, r := range old {
		r.park(f.opt.Synchronous)
	}
	f.settleSoon()
	return c.file, nil
}

// Write implements [DB].
func (f *File) Write(ctx context.Context, b *Batch) ([]Result, error) {
	return f.writer.write(ctx, b)
}

// Merge implements [DB].
func (f *File) Merge(ctx context.Context, op *Op, items ...[]byte) ([]Row, error) {
	return f.writer.merge(ctx, op, items)
}

// Join implements [DB].
func (f *File) Join(ctx context.Context, fill func(*Batch)) ([]Result, error) {
	return f.writer.join(ctx, fill)
}

// Read implements [DB].
func (f *File) Read(ctx context.Context, stmts ...Stmt) ([]Result, error) {
	if err := checkAll(stmts); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, f.opt.CallTimeout)
	defer cancel()
	return retry(ctx, f.opt, func() ([]Result, error) { return f.readOnce(ctx, stmts) })
}

func (f *File) readOnce(ctx context.Context, stmts []Stmt) ([]Result, error) {
	select {
	case f.slots <- struct{}{}:
	case <-ctx.Done():
		return nil, &Error{Class: Canceled, Op: "read", Detail: "no reader was free", cause: ctx.Err()}
	}
	type answer struct {
		res []Result
		err error
	}
	done := make(chan answer, 1)
	// The driver is deaf to contexts, so the call runs aside and may outlive
	// its caller; its slot is held until it ends.
	f.opt.System.Go("read", func() {
		defer func() { <-f.slots }()
		var a answer
		a.err = waitBusy(ctx, f.opt, f.opt.BusyTimeout, func() (err error) {
			a.res, err = f.readNow(stmts)
			return err
		})
		done <- a
	})
	select {
	case a := <-done:
		return a.res, a.err
	case <-ctx.Done():
		return nil, &Error{Class: Canceled, Op: "read", cause: ctx.Err()}
	}
}

func (f *File) readNow(stmts []Stmt) ([]Result, error) {
	id, err := f.checkIdentity()
	if err != nil {
		return nil, err
	}
	c, err := f.takeReader(id)
	if err != nil {
		return nil, err
	}
	defer f.giveReader(c)
	if len(stmts) > 1 { // one snapshot for all of them
		if _, err := c.exec("BEGIN"); err != nil {
			return nil, err
		}
		defer func() { _, _ = c.exec("ROLLBACK") }() // nothing was written
	}
	out := make([]Result, len(stmts))
	for i, s := range stmts {
		s.rows = true
		if out[i], err = c.run(s); err != nil {
			var e *Error
			if errors.As(err, &e) {
				e.Op, e.Index = "read", i
			}
			return nil, err
		}
	}
	return out, nil
}

func (f *File) takeReader(id fileID) (*conn, error) {
	f.mu.Lock()
	if f.closed {
		f.mu.Unlock()
		return nil, &Error{Class: Closed, Op: "read"}
	}
	if n := len(f.readers); n > 0 && f.readers[n-1].file == id {
		c := f.readers[n-1]
		f.readers = f.readers[:n-1]
		f.mu.Unlock()
		return c, nil
	}
	f.mu.Unlock()
	return f.connectTo(id, readerRole)
}

// connectTo connects to the file that was accepted as id, and to no other
// that was put in its place since.
func (f *File) connectTo(id fileID, r role) (*conn, error) {
	c, err := connect(f.opt.Path, "rw", r, f.opt.Synchronous)
	if err == nil && c.file != id {
		c.park(f.opt.Synchronous)
		return nil, errReplaced()
	}
	return c, err
}

func (f *File) giveReader(c *conn) {
	f.mu.Lock()
	if !f.closed && c.file == f.id {
		f.readers = append(f.readers, c)
		f.mu.Unlock()
		return
	}
	f.mu.Unlock()
	c.park(f.opt.Synchronous)
}

// Health implements [DB].
func (f *File) Health(ctx context.Context) (int64, error) { return f.health.schema(ctx, f.opt, f) }

// ProbeWriter implements [DB].
func (f *File) ProbeWriter(ctx context.Context) (time.Duration, error) {
	_, waited, err := f.lock.do(ctx, f.opt, func(ctx context.Context) (int64, error) {
		var b Batch
		if f.writer.full.Load() {
			// A lock needs no room: only a write tells whether there is some again.
			b.Exec(sqlTouch)
		}
		_, err := f.Write(ctx, &b)
		if err == nil && f.writer.full.Load() {
			err = &Error{Class: Full, Op: "probe", Detail: "hardly any room is left on the disk"}
		}
		return 0, err
	})
	return waited, err
}

// Close implements [DB]. The file's log is folded back into it where no other
// process prevents that.
func (f *File) Close(ctx context.Context) error {
	f.die()
	err := f.writer.stop(ctx)
	f.mu.Lock()
	f.closed = true
	idle := f.readers
	f.readers = nil
	f.mu.Unlock()
	for _, c := range idle {
		c.park(f.opt.Synchronous)
	}
	return err
}

// probe lets concurrent callers share one call, so that a stuck database is
// asked once and not once per health check.
type probe struct {
	mu      sync.Mutex
	flight  chan struct{} // closed when the call under way ends; nil when none is
	started time.Time     // of the first call since the last that was not refused a lock
	val     int64
	err     error
}

func (p *probe) do(ctx context.Context, opt Options, call func(context.Context) (int64, error)) (int64, time.Duration, error) {
	p.mu.Lock()
	if p.flight == nil {
		flight := make(chan struct{})
		p.flight = flight
		if cls := ClassOf(p.err); cls != Busy && cls != Canceled {
			p.started = opt.System.Now()
		}
		opt.System.Go("probe", func() {
			bound, cancel := context.WithTimeout(context.WithoutCancel(ctx), opt.CallTimeout)
			defer cancel()
			val, err := call(bound)
			p.mu.Lock()
			p.val, p.err, p.flight = val, err, nil
			p.mu.Unlock()
			close(flight)
		})
	}
	flight, started := p.flight, p.started
	p.mu.Unlock()
	select {
	case <-flight:
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.val, opt.System.Now().Sub(started), p.err
	case <-ctx.Done():
		return 0, opt.System.Now().Sub(started), &Error{Class: Canceled, Op: "probe", cause: ctx.Err()}
	}
}

// schema asks db for the version of its schema.
func (p *probe) schema(ctx context.Context, opt Options, db DB) (int64, error) {
	v, _, err := p.do(ctx, opt, func(ctx context.Context) (int64, error) {
		res, err := db.Read(ctx, Query("SELECT max(version) FROM schema_migrations"))
		if err != nil {
			return 0, err
		}
		return res[0].Rows[0].Int(0), nil
	})
	return v, err
}

// retry repeats a call that was not applied, with doubling delays and full
// jitter, until it succeeds, the context ends or the repeats are used up.
func retry[T any](ctx context.Context, opt Options, call func() (T, error)) (T, error) {
	delay := opt.RetryBase
	for n := 0; ; n++ {
		v, err := call()
		if err == nil {
			return v, nil
		}
		opt.OnError(ClassOf(err))
		if n >= opt.RetryTimes || !notApplied(err) {
			return v, err
		}
		t := opt.System.NewTimer(jitter(opt, delay))
		select {
		case <-t.C():
		case <-ctx.Done():
			t.Stop()
			return v, err
		}
		delay = min(2*delay, opt.RetryMax)
	}
}

// Insist repeats a call for as long as its error is transient and the context
// lasts: what must be written is, however long the database is away.
func Insist(ctx context.Context, sys system.System, call func() error) error {
	for wait := 20 * time.Millisecond; ; wait = min(2*wait, time.Second) {
		err := call()
		if !Transient(err) || ctx.Err() != nil {
			return err
		}
		t := sys.NewTimer(wait)
		select {
		case <-t.C():
		case <-ctx.Done():
			t.Stop()
			return err
		}
	}
}

// jitter returns a random duration up to d.
func jitter(opt Options, d time.Duration) time.Duration {
	var seed [32]byte
	opt.System.Read(seed[:])
	return time.Duration(rand.New(rand.NewChaCha8(seed)).Int64N(int64(d) + 1))
}
