package libsql

import (
	"context"
	"errors"
	"sync/atomic"
	"time"
)

// When more than worthGivingBack has been written and then nothing for a
// while, the memory that took is given back to the system.
const (
	worthGivingBack = 1 << 20
	quietFor        = 10 * time.Second
	// A commit of so much touches more pages than the usual cache holds: they
	// would be written to the log, read again and written again before it ends.
	// It also fills the usual log, so that each would be followed by folding it
	// back, although the next one changes many of the same pages.
	worthMoreCache = 1 << 20
	// Small commits write some six pages each: so many fill a sixth of the log.
	foldEvery = 25
)

// The writer's cache and log, usually and for large commits.
var (
	usualRoom = []string{"PRAGMA cache_size=-8192", "PRAGMA wal_autocheckpoint=1000"}
	largeRoom = []string{"PRAGMA cache_size=-32768", "PRAGMA wal_autocheckpoint=8000"}
)

// writer groups the batches of all callers of this process into commits. One
// goroutine owns the writing connection; callers hand it recorded work and
// wait for the commit that holds it.
type writer struct {
	inbox

	f    *File
	done chan struct{}
	conn *conn

	written int         // bytes taken since memory was last given back
	commits int         // since the log was last folded back
	full    atomic.Bool // a commit found no room, and there is hardly any since
}

func (w *writer) start(f *File) {
	w.f = f
	w.inbox = newInbox(f.opt)
	w.done = make(chan struct{})
	f.opt.System.Go("writer", w.loop)
}

// stop lets the writer finish what is pending, then checkpoints.
func (w *writer) stop(ctx context.Context) error {
	w.refuse()
	select {
	case <-w.done:
		return nil
	case <-ctx.Done():
		return &Error{Class: Canceled, Op: "close", Detail: "the writer was still busy", cause: ctx.Err()}
	}
}

func (w *writer) loop() {
	defer close(w.done)
	quiet := w.f.opt.System.NewTimer(time.Hour)
	defer quiet.Stop()
	for {
		select {
		case <-w.wake:
		case <-quiet.C():
			if w.conn != nil {
				w.conn.rest()
			}
			giveMemoryBack()
			w.written = 0
			quiet.Reset(time.Hour)
			continue
		}
		for w.waiting() {
			w.commitGroup()
			if w.commits++; w.commits >= foldEvery && !w.waiting() {
				w.fold()
			}
		}
		if w.written > worthGivingBack {
			quiet.Reset(quietFor)
		}
		if w.finished() {
			w.release()
			return
		}
	}
}

// commitGroup takes the lock first and the requests second, so that whatever
// arrives while another process holds the lock joins this commit.
func (w *writer) commitGroup() {
	c, err := w.begin()
	if ClassOf(err) == Busy {
		return // whoever waited too long has been told
	}
	group, size := w.take()
	w.written += size
	if err != nil {
		answer(group, err)
		return
	}
	if len(group) == 0 {
		_, _ = c.exec("ROLLBACK") // nothing was done
		return
	}
	if size > worthMoreCache {
		c.room(true)
	}
	home, err := w.f.settle(c)
	statements := 0
	if err == nil {
		statements, err = w.apply(c, group)
	}
	if err == nil {
		err = w.commit(c)
	}
	if err != nil {
		_, _ = c.exec("ROLLBACK") // SQLite may have rolled back already
		if cls := ClassOf(err); cls == Corrupt || cls == Unknown || cls == Unavailable {
			w.release()
		}
		if ClassOf(err) == Full {
			w.full.Store(true)
		}
		answer(group, err)
		return
	}
	if statements > 0 && w.full.Load() && hasRoom(w.f.opt.Path) {
		w.full.Store(false)
	}
	w.f.settled(home)
	w.f.opt.OnCommit(len(group), statements)
	answer(group, nil)
}

// fold folds the log back while nobody waits, so that it rarely grows to where
// SQLite does it at the end of a commit, whose callers would wait for that.
func (w *writer) fold() {
	if w.conn != nil {
		_, _ = w.conn.query("PRAGMA wal_checkpoint(PASSIVE)") // a failure leaves it to later
	}
	w.commits = 0
}

// begin takes the write lock. Another process that holds it is waited for
// with short, jittered delays: they keep the worst wait far below that of
// SQLite's own busy handler. Each request has a busy timeout of its own; the
// error is Busy when the last of them has run out.
func (w *writer) begin() (*conn, error) {
	opt := w.f.opt
	for delay := 100 * time.Microsecond; ; delay = min(2*delay, 2*time.Millisecond) {
		c, err := w.ready()
		if err == nil {
			_, err = c.exec("BEGIN IMMEDIATE")
		}
		if err == nil {
			return c, nil
		}
		var e *Error
		if errors.As(err, &e) {
			e.Op = "begin"
		}
		if ClassOf(err) != Busy {
			if c != nil && ClassOf(err) == Invalid {
				_, _ = c.exec("ROLLBACK") // a transaction was open: begin anew next time
			}
			return nil, err
		}
		if w.expire(err); !w.waiting() {
			return nil, err
		}
		<-opt.System.NewTimer(delay/2 + jitter(opt, delay/2)).C()
	}
}

// ready returns the writing connection of the file that is at the path now.
func (w *writer) ready() (*conn, error) {
	id, err := w.f.checkIdentity()
	if err != nil {
		return nil, err
	}
	if w.conn != nil && w.conn.file == id {
		return w.conn, nil
	}
	w.release()
	w.conn, err = w.f.connectTo(id, writerRole)
	return w.conn, err
}

// release parks the writing connection.
func (w *writer) release() {
	if w.conn == nil {
		return
	}
	if id, err := statFile(w.f.opt.Path); err == nil && id == w.conn.file {
		// Best effort: a reader of another process may hold the log open, and
		// then it is folded back later.
		_, _ = w.conn.query("PRAGMA wal_checkpoint(TRUNCATE)")
	}
	w.conn.park(w.f.opt.Synchronous)
	w.conn = nil
}

// commit repeats a COMMIT that found the file busy; the transaction stays
// open until it succeeds.
func (w *writer) commit(c *conn) error {
	// Looked at once more with the lock held: a file moved away since begin
	// must not acknowledge anything.
	if id, err := w.f.checkIdentity(); err != nil {
		return err
	} else if id != c.file {
		return &Error{Class: Unavailable, Op: "commit", Detail: "the database file was replaced"}
	}
	opt := w.f.opt
	deadline := opt.System.Now().Add(opt.BusyTimeout)
	for {
		_, err := c.exec("COMMIT")
		if err == nil {
			return nil
		}
		var e *Error
		if errors.As(err, &e) {
			e.Op = "commit"
		}
		if ClassOf(err) == Busy && opt.System.Now().Before(deadline) {
			<-opt.System.NewTimer(jitter(opt, 2*time.Millisecond)).C()
			continue
		}
		if cls := ClassOf(err); cls != Busy && cls != Full {
			e.Class = Unknown // the disk failed while the commit was written
		}
		return err
	}
}

// apply runs the group inside the open transaction. Requests fail alone; the
// error returned is one that ended the transaction for all of them.
func (w *writer) apply(c *conn, group []*request) (statements int, err error) {
	alone := len(group) == 1
	merged := map[*Op][]*request{}
	for _, r := range group {
		if r.op != nil {
			merged[r.op] = append(merged[r.op], r)
		}
	}
	for _, r := range group {
		var n int
		switch {
		case r.op == nil:
			n, err = w.isolate(c, alone, []*request{r}, func() (int, error) { return r.runBatch(c) })
		case merged[r.op] != nil:
			rs := merged[r.op]
			merged[r.op] = nil
			n, err = w.applyMerged(c, alone, rs)
		}
		statements += n
		if err != nil {
			return statements, err
		}
	}
	return statements, nil
}

// applyMerged runs an op once for the items of all its requests; when that
// fails, once per request, so that a bad item fails alone.
func (w *writer) applyMerged(c *conn, alone bool, rs []*request) (int, error) {
	n, err := w.isolate(c, alone, rs, func() (int, error) { return runMerged(c, rs) })
	if err != nil || len(rs) == 1 || rs[0].err == nil {
		return n, err
	}
	for _, r := range rs {
		r.err = nil
		m, err := w.isolate(c, false, []*request{r}, func() (int, error) { return runMerged(c, []*request{r}) })
		n += m
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// isolate runs work in a savepoint of its own. An error of the work becomes
// that of its requests and the rest of the transaction goes on; an error that
// ended the transaction is returned. A request that has the transaction to
// itself needs no savepoint.
func (w *writer) isolate(c *conn, alone bool, rs []*request, work func() (int, error)) (int, error) {
	if alone {
		return work()
	}
	if _, err := c.exec("SAVEPOINT r"); err != nil {
		return 0, err
	}
	n, err := work()
	if err == nil {
		_, err = c.exec("RELEASE r")
		return n, err
	}
	if endsTransaction(ClassOf(err)) {
		return n, err
	}
	if _, rerr := c.exec("ROLLBACK TO r"); rerr != nil {
		return n, rerr
	}
	if _, rerr := c.exec("RELEASE r"); rerr != nil {
		return n, rerr
	}
	for _, r := range rs {
		r.err, r.results, r.rows = err, nil, nil
	}
	return n, nil
}
