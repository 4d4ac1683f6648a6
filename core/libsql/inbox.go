package libsql

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"unicode/utf8"
)

// Limits of one group: a commit that grows without bound would keep its first
// caller waiting and other processes out.
const (
	groupRequests = 1024
	groupBytes    = 8 << 20
)

// inbox is where the callers of this process leave their work for a writer,
// which takes as much of it at once as a commit may hold.
type inbox struct {
	opt Options

	mu       sync.Mutex
	pending  []*request
	standing []*request // wait for a group that rouses them
	roused   bool       // one came when none stood
	stopped  bool

	wake chan struct{}
}

func newInbox(opt Options) inbox { return inbox{opt: opt, wake: make(chan struct{}, 1)} }

// write hands a batch over and waits for its commit.
func (in *inbox) write(ctx context.Context, b *Batch) ([]Result, error) {
	if err := checkAll(b.stmts); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, in.opt.CallTimeout)
	defer cancel()
	return retry(ctx, in.opt, func() ([]Result, error) {
		r := &request{stmts: b.stmts, guards: b.guards, rouses: b.Rouses, done: make(chan struct{})}
		if err := in.submit(ctx, r); err != nil {
			return nil, err
		}
		return r.results, nil
	})
}

// merge hands items of an op over and waits for the commit that holds them.
func (in *inbox) merge(ctx context.Context, op *Op, items [][]byte) ([]Row, error) {
	for i, item := range items {
		if err := op.check(item); err != "" {
			return nil, &Error{Class: Invalid, Op: "bind", Detail: fmt.Sprintf("item %d is not %s", i+1, err)}
		}
	}
	ctx, cancel := context.WithTimeout(ctx, in.opt.CallTimeout)
	defer cancel()
	return retry(ctx, in.opt, func() ([]Row, error) {
		r := &request{op: op, items: items, rouses: op.Rouses, done: make(chan struct{})}
		if err := in.submit(ctx, r); err != nil {
			return nil, err
		}
		return r.rows, nil
	})
}

// join waits for a group that rouses, and for the commit of what fill records
// for it. What is under way when ctx ends is waited for all the same: whoever
// withdraws wants to know what became of it.
func (in *inbox) join(ctx context.Context, fill func(*Batch)) ([]Result, error) {
	withdrawn := func() error {
		return &Error{Class: Canceled, Op: "join", Detail: "nothing roused it", cause: ctx.Err()}
	}
	if ctx.Err() != nil {
		return nil, withdrawn()
	}
	r := &request{fill: fill, done: make(chan struct{})}
	in.mu.Lock()
	missed := in.roused
	switch {
	case in.stopped:
		in.mu.Unlock()
		return nil, &Error{Class: Closed, Op: "join"}
	case missed:
		in.roused = false
		r.at = in.opt.System.Now()
		in.pending = append(in.pending, r)
		in.signal()
	default:
		in.standing = append(in.standing, r)
	}
	in.mu.Unlock()
	select {
	case <-r.done:
		return r.results, r.err
	case <-ctx.Done():
	}
	if r.state.CompareAndSwap(queued, abandoned) {
		in.mu.Lock()
		in.standing = slices.DeleteFunc(in.standing, func(o *request) bool { return o == r })
		in.roused = in.roused || missed // the next call has missed it still
		in.mu.Unlock()
		return nil, withdrawn()
	}
	late := in.opt.System.NewTimer(in.opt.CallTimeout)
	defer late.Stop()
	select {
	case <-r.done:
		return r.results, r.err
	case <-late.C():
		return nil, &Error{Class: Unknown, Op: "join", Detail: "the write was under way", cause: ctx.Err()}
	}
}

// check says what an item ought to be and is not: one JSON value, or the places
// of the other callers' items in the array would shift, or packed text that the
// library can give back.
func (op *Op) check(item []byte) string {
	switch {
	case op.Packed && (!utf8.Valid(item) || bytes.IndexByte(item, 0) >= 0):
		return "valid UTF-8 without a NUL"
	case !op.Packed && (!utf8.Valid(item) || !json.Valid(item)):
		return "one JSON value in valid UTF-8"
	}
	return ""
}

// submit hands the request over and waits. Its answer may be read only when
// there was no error: otherwise the writer may still be at it.
func (in *inbox) submit(ctx context.Context, r *request) error {
	if err := ctx.Err(); err != nil {
		return &Error{Class: Canceled, Op: "write", Detail: "the write had not begun", cause: err}
	}
	r.at = in.opt.System.Now()
	in.mu.Lock()
	if in.stopped {
		in.mu.Unlock()
		return &Error{Class: Closed, Op: "write"}
	}
	in.pending = append(in.pending, r)
	in.mu.Unlock()
	in.signal()
	select {
	case <-r.done:
		return r.err
	case <-ctx.Done():
	}
	if r.state.CompareAndSwap(queued, abandoned) {
		return &Error{Class: Canceled, Op: "write", Detail: "the write had not begun", cause: ctx.Err()}
	}
	select {
	case <-r.done:
		return r.err
	default:
		return &Error{Class: Unknown, Op: "write", Detail: "the write was under way", cause: ctx.Err()}
	}
}

func (in *inbox) signal() {
	select {
	case in.wake <- struct{}{}:
	default:
	}
}

// refuse lets in nothing more, and nothing stands any longer.
func (in *inbox) refuse() {
	in.mu.Lock()
	in.stopped = true
	for _, r := range in.standing {
		if r.state.CompareAndSwap(queued, started) {
			answer([]*request{r}, &Error{Class: Closed, Op: "join"})
		}
	}
	in.standing = nil
	in.mu.Unlock()
	in.signal()
}

// finished says whether nothing is pending and nothing more can come.
func (in *inbox) finished() bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.stopped && len(in.pending) == 0
}

func (in *inbox) closed() bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.stopped
}

func (in *inbox) waiting() bool { return in.length() > 0 }

// length is how many requests are pending.
func (in *inbox) length() int {
	in.mu.Lock()
	defer in.mu.Unlock()
	return len(in.pending)
}

// take moves pending requests into a group, leaving out those whose callers
// are gone, and behind them those that it rouses. It returns the group with the
// bytes it holds.
func (in *inbox) take() (group []*request, size int) {
	group, size = in.gather()
	return slices.DeleteFunc(group, func(r *request) bool {
		err := r.record()
		if err != nil {
			answer([]*request{r}, err)
		}
		return err != nil
	}), size
}

// gather is take before what the roused requests are to do is recorded.
func (in *inbox) gather() (group []*request, size int) {
	in.mu.Lock()
	defer in.mu.Unlock()
	n := 0
	for _, r := range in.pending {
		if len(group) == groupRequests || (size > groupBytes && len(group) > 0) {
			break
		}
		n++
		if r.state.CompareAndSwap(queued, started) {
			group = append(group, r)
			size += r.size()
		}
	}
	rest := copy(in.pending, in.pending[n:])
	clear(in.pending[rest:])
	in.pending = in.pending[:rest]
	if slices.ContainsFunc(group, func(r *request) bool { return r.rouses }) {
		in.roused = true
		for _, r := range in.standing {
			if r.state.CompareAndSwap(queued, started) {
				group = append(group, r)
				in.roused = false
			}
		}
		in.standing = nil
	}
	return group, size
}

// expire answers the pending requests that have waited for the busy timeout,
// and drops those whose callers are gone.
func (in *inbox) expire(err error) {
	now := in.opt.System.Now()
	in.mu.Lock()
	defer in.mu.Unlock()
	in.pending = slices.DeleteFunc(in.pending, func(r *request) bool {
		if r.state.Load() == abandoned {
			return true
		}
		if now.Sub(r.at) < in.opt.BusyTimeout || !r.state.CompareAndSwap(queued, started) {
			return false
		}
		answer([]*request{r}, err)
		return true
	})
}
