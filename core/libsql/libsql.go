// Package libsql is Postroom's storage face: everything that writes is a
// recorded [Batch], applied atomically by one grouping writer per process;
// readers have connections of their own. It is the only package that imports
// the libsql driver, because that driver has traps (it must never close a
// local connection, it guesses dates in TEXT, it ignores contexts, its errors
// quote values) that stop here.
//
// It may import the standard library, core/system, golang-migrate, fsnotify and
// x/sys; it knows nothing of jobs or mail.
package libsql

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/postroom/postroom/core/system"
)

// DB is the face that queue, steps and mail are written against: an embedded
// [File] or a database on a server, [Remote].
type DB interface {
	// Write applies the batch atomically and returns one Result per
	// statement, guards included. When it fails with a class other than
	// Unknown, nothing was applied.
	Write(ctx context.Context, b *Batch) ([]Result, error)
	// Merge applies op to items atomically, together with the items of other
	// callers in one set of statements, and returns one Row per item: the row
	// of op's last statement that names the item, or nil.
	Merge(ctx context.Context, op *Op, items ...[]byte) ([]Row, error)
	// Join waits for the next commit of this process that rouses, by a [Batch]
	// or an [Op] that says so, and applies with it, at its end, what fill
	// records: one commit does for both. If there was one since the call before
	// it does not wait. fill runs while the commit is put together and must not
	// block. When ctx ends first, the error's class is Canceled and nothing was
	// recorded.
	Join(ctx context.Context, fill func(*Batch)) ([]Result, error)
	// Read runs statements on one snapshot.
	Read(ctx context.Context, stmts ...Stmt) ([]Result, error)
	// Health reads the schema version. Concurrent calls share one probe.
	Health(ctx context.Context) (schema int64, err error)
	// ProbeWriter takes and gives back the write lock, and after a commit that
	// found no room it looks whether there is some again. Concurrent calls
	// share one probe; the duration says how long that one has been waiting.
	ProbeWriter(ctx context.Context) (waited time.Duration, err error)
	// Durability says what a commit survives, as far as is known: one of the
	// constants of that name.
	Durability() string
	// Watch returns a channel that receives after other processes may have
	// committed; nil when there is no such signal and the caller must poll.
	Watch(ctx context.Context) <-chan struct{}
	// Close finishes what is pending and releases the connections.
	Close(ctx context.Context) error
}

// Options say how a database is opened. Zero values take the defaults of the
// configuration's database section.
type Options struct {
	Path        string        // a plain file path, already expanded, or the http, https or libsql URL of a server
	Synchronous string        // "full" (default) or "normal"; of a server only with Admin
	Readers     int           // reading connections at most
	BusyTimeout time.Duration // longest wait for another process's write lock on a file
	CallTimeout time.Duration // longest a call may take, whatever its context says
	RetryTimes  int           // repeats of a call that was not applied
	RetryBase   time.Duration // first delay between repeats, doubling, with jitter
	RetryMax    time.Duration // longest delay between repeats
	Settle      bool          // give a restored file its new epoch at once, not only with the first write

	// Of a server.
	AuthToken  func() (string, error) // asked before each request; "" or nil sends none
	CA         string                 // file of PEM certificates that its own is checked against; "" takes the system's
	ServerName string                 // in its certificate; "" takes the URL's host
	Admin      string                 // URL of its admin API, which is told to sync commits if Synchronous is full; may be ""

	System   system.System
	OnCommit func(requests, statements int) // after each commit; must not block
	OnError  func(Class)                    // after each failed attempt; must not block
}

// Open opens an existing, migrated database. [Migrate] creates one.
func Open(ctx context.Context, opt Options) (DB, error) {
	opt, err := opt.withDefaults()
	switch {
	case err != nil:
		return nil, err
	case IsRemote(opt.Path):
		r, err := openRemote(ctx, opt)
		if err != nil {
			return nil, err
		}
		return r, nil
	}
	f, err := openFile(ctx, opt)
	if err != nil {
		return nil, err
	}
	return f, nil
}

func (o Options) withDefaults() (Options, error) {
	if o.Path == "" {
		return o, &Error{Class: Invalid, Op: "open", Detail: "the database path is empty"}
	}
	if !IsRemote(o.Path) {
		// Absolute, so that SQLite takes no name of its own (:memory:) or host
		// (//name/) for it, and the path means the same file for ever.
		path, err := filepath.Abs(o.Path)
		if err != nil {
			return o, &Error{Class: Unavailable, Op: "open", Detail: "the working directory is unknown", cause: err}
		}
		o.Path = path
	}
	switch strings.ToLower(o.Synchronous) {
	case "", "full":
		o.Synchronous = "FULL"
	case "normal":
		o.Synchronous = "NORMAL"
	default:
		return o, &Error{Class: Invalid, Op: "open", Detail: fmt.Sprintf("synchronous is %q, want full or normal", o.Synchronous)}
	}
	def := func(d *time.Duration, v time.Duration) {
		if *d <= 0 {
			*d = v
		}
	}
	def(&o.BusyTimeout, 5*time.Second)
	def(&o.CallTimeout, 10*time.Second)
	def(&o.RetryBase, 5*time.Millisecond)
	def(&o.RetryMax, time.Second)
	if o.Readers <= 0 {
		o.Readers = 4
	}
	if o.RetryTimes < 0 {
		o.RetryTimes = 0
	}
	if o.System == nil {
		o.System = system.Real{}
	}
	if o.OnCommit == nil {
		o.OnCommit = func(int, int) {}
	}
	if o.OnError == nil {
		o.OnError = func(Class) {}
	}
	return o, nil
}
