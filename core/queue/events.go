package queue

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"sort"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/postroom/postroom/core/job"
	"github.com/postroom/postroom/core/libsql"
)

// Following the transition log. Any number of listeners of a process share one
// reader of the database, which works only while there are any, and what it
// has read last, which is kept once: a listener is but a place in that. One
// that comes back from a place before it reads by itself until it is there.
//
// The numbers of the log are given in the order of the commits, for there is
// one writer at a time: whoever has seen a number has seen all before it.

// sqlLogEnds says of which epoch the log is, the highest number that was taken
// out of it, and the highest that was ever given.
const sqlLogEnds = `SELECT CAST((SELECT value FROM meta WHERE key = 'epoch') AS BLOB),
   (SELECT CAST(value AS INTEGER) FROM meta WHERE key = 'log_pruned_to'),
   coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'job_log'), 0)`

// sqlLogPage reads the log behind a number. Arguments: the number, how many.
const sqlLogPage = `SELECT l.seq, l.run, l.created_at, CAST(l.state AS BLOB), CAST(j.id AS BLOB), CAST(j.type AS BLOB), CAST(j.queue AS BLOB)
 FROM job_log AS l CROSS JOIN jobs AS j ON j.seq = l.job WHERE l.seq > ? ORDER BY l.seq LIMIT ?`

const (
	// logPage is how many transitions are read, and handed on, at once.
	logPage = 500
	// mostKept is how many transitions are kept for listeners that have yet to
	// take them: as many as the largest batch of new jobs makes at once.
	mostKept = 10_000
	// logPoll is how long a commit that no signal announced may go unseen.
	logPoll = time.Second
)

// looksAfterCommit are the waits between a signal and the looks that follow:
// it comes while the commit is written, which the disk may take its time for.
var looksAfterCommit = []time.Duration{10 * time.Millisecond, 10 * time.Millisecond, 20 * time.Millisecond, 40 * time.Millisecond, 80 * time.Millisecond}

// Event is one change of a job's state as listeners get it.
type Event struct {
	Seq   int64     `json:"-"`
	JobID string    `json:"job_id"`
	Type  string    `json:"type"`
	Queue string    `json:"queue"`
	State job.State `json:"state" enum:"queued,running,completed,failed,canceled"`
	Run   int64     `json:"run"` // the run that began or ended with it, 0 before the first
	At    job.Time  `json:"at"`

	// JSON is the event encoded, once for all who listen.
	JSON string `json:"-"`
}

func (e *Event) encode() {
	var out strings.Builder
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(e); err != nil {
		panic("queue: encode an event: " + err.Error())
	}
	e.JSON = strings.TrimSuffix(out.String(), "\n")
}

// EventID is a place in the log: behind the transition Seq of an epoch. The
// zero value is a place that no log knows.
type EventID struct {
	Epoch string
	Seq   int64
}

// String is the form in which callers keep it.
func (id EventID) String() string { return id.Epoch + "-" + strconv.FormatInt(id.Seq, 10) }

// ParseEventID reads what String wrote. What it did not write is a place that
// no log knows.
func ParseEventID(s string) EventID {
	epoch, number, _ := strings.Cut(s, "-")
	seq, err := strconv.ParseInt(number, 10, 64)
	if err != nil {
		return EventID{}
	}
	return EventID{epoch, seq}
}

// EventFilter narrows what a listener gets; empty fields do not.
type EventFilter struct{ JobID, Type, Queue string }

func (f EventFilter) lets(e *Event) bool {
	return (f.JobID == "" || f.JobID == e.JobID) && (f.Type == "" || f.Type == e.Type) && (f.Queue == "" || f.Queue == e.Queue)
}

// EventPage is what comes next for a listener.
type EventPage struct {
	// Reset says that the log does not go on where the listener was: it is of
	// another epoch, or what came next was pruned. At is the present then.
	Reset  bool
	Events []*Event // in order, and shared
	At     EventID  // the place behind them
}

// Why a listener gets nothing more.
var (
	// ErrSlowListener: what comes next for it is no longer kept. It may come back and go on
	// from where it was.
	ErrSlowListener = errors.New("the listener takes too long")
	// ErrEventsClosed: the process is shutting down.
	ErrEventsClosed = errors.New("the service is shutting down")
)

// readLog reads a page of the log behind a place.
func (q *Queue) readLog(ctx context.Context, from EventID) (page EventPage, full bool, err error) {
	res, err := q.db.Read(ctx, libsql.Query(sqlLogEnds), libsql.Query(sqlLogPage, from.Seq, logPage))
	if err != nil {
		return EventPage{}, false, fmt.Errorf("read the log: %w", err)
	}
	ends, rows := res[0].Rows[0], res[1].Rows
	page.At = EventID{ends.Str(0), ends.Int(2)}
	if from.Epoch != page.At.Epoch || from.Seq < ends.Int(1) || from.Seq > page.At.Seq {
		page.Reset = true
		return page, false, nil
	}
	page.Events = make([]*Event, len(rows))
	for i, r := range rows {
		page.Events[i] = &Event{
			Seq: r.Int(0), Run: r.Int(1), At: job.Time(r.Int(2)), State: job.State(r.Str(3)),
			JobID: r.Str(4), Type: r.Str(5), Queue: r.Str(6),
		}
		page.Events[i].encode()
	}
	if full = len(rows) == logPage; full {
		page.At.Seq = rows[len(rows)-1].Int(0)
	}
	return page, full, nil
}

// Events hands the transitions of one database to any number of listeners.
type Events struct {
	q     *Queue
	note  func(error)
	hurry chan struct{} // makes the reader look at once

	mu        sync.Mutex
	kept      []*Event           // what the reader has read last, in order
	from, at  EventID            // the places before and behind that
	news      chan struct{}      // closed when there is some
	listeners map[*Listener]bool // those that follow it
	stop      context.CancelFunc // ends the reader; nil while nobody listens
	trouble   libsql.Class       // of the reader's last look
	closed    bool
}

// NewEvents returns an Events on q's database. note is called when the reader
// begins to fail, and with nil when it works again; it must not block.
func NewEvents(q *Queue, note func(error)) *Events {
	return &Events{q: q, note: note, hurry: make(chan struct{}, 1), news: make(chan struct{}), listeners: map[*Listener]bool{}}
}

// Close ends all listeners; what is kept for them they still get.
func (e *Events) Close() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.closed = true
	e.rest()
	e.tell()
}

// rest stops the reader. The caller holds e.mu.
func (e *Events) rest() {
	if e.stop != nil {
		e.stop()
		e.stop = nil
	}
}

// tell wakes the listeners that wait. The caller holds e.mu.
func (e *Events) tell() {
	close(e.news)
	e.news = make(chan struct{})
}

// Listener follows the log for one caller. Its methods are for one goroutine.
type Listener struct {
	e      *Events
	filter EventFilter
	at     EventID    // behind what Next has returned, and what the filter has kept back
	own    *EventPage // read by itself, and not returned yet
}

// Listen returns a listener for what happens behind a place, or from now on if
// from is nil. The caller closes it.
func (e *Events) Listen(ctx context.Context, from *EventID, filter EventFilter) (*Listener, error) {
	e.mu.Lock()
	closed := e.closed
	e.mu.Unlock()
	if closed {
		return nil, ErrEventsClosed
	}
	l := &Listener{e: e, filter: filter, at: EventID{Seq: math.MaxInt64}}
	if from != nil {
		l.at = *from
	}
	// Read at once, so that a database that does not answer is known now.
	page, _, err := e.q.readLog(ctx, l.at)
	if err != nil {
		return nil, err
	}
	if from == nil {
		l.at = page.At
	} else {
		l.own = &page
	}
	return l, nil
}

// At is the place behind what Next has returned, and behind what the filter
// has kept back.
func (l *Listener) At() EventID { return l.at }

// Next waits for what comes next. After an error that is not the context's
// nothing more comes.
func (l *Listener) Next(ctx context.Context) (EventPage, error) {
	for {
		page, news, err := l.take()
		switch {
		case page.Reset, len(page.Events) > 0, err != nil:
			return page, err
		case ctx.Err() != nil:
			return page, ctx.Err()
		case news != nil:
			select {
			case <-news:
			case <-ctx.Done():
			}
			continue
		}
		page, _, err = l.e.q.readLog(ctx, l.at)
		switch {
		case ctx.Err() != nil:
			continue // the page was not looked at, so it comes again
		case err != nil:
			return EventPage{At: l.at}, err
		case page.At == l.at: // the reader has yet to come this far
			l.e.pause(ctx, looksAfterCommit[0])
		}
		l.own = &page
	}
}

// take returns what comes next, if it is there. If not, news says when it may
// be, or is nil when the listener must read by itself.
func (l *Listener) take() (page EventPage, news <-chan struct{}, err error) {
	if l.own != nil {
		page, l.own = *l.own, nil
		page.Events, l.at = l.pass(page.Events), page.At
		return page, nil, nil
	}
	e := l.e
	e.mu.Lock()
	defer e.mu.Unlock()
	page.At = l.at
	if e.closed && !e.listeners[l] {
		return page, nil, ErrEventsClosed
	}
	if e.stop == nil && !e.closed {
		var ctx context.Context
		ctx, e.stop = context.WithCancel(context.Background())
		e.kept, e.from, e.at = nil, l.at, l.at
		e.q.sys.Go("events", func() { e.read(ctx) })
	}
	switch {
	case l.at.Epoch != e.at.Epoch: // one of the two has yet to see that the epoch changed
		select {
		case e.hurry <- struct{}{}:
		default:
		}
		return page, nil, nil
	case l.at.Seq >= e.from.Seq:
		e.listeners[l] = true
	case e.listeners[l]:
		return page, nil, ErrSlowListener
	default:
		return page, nil, nil
	}
	next := sort.Search(len(e.kept), func(i int) bool { return e.kept[i].Seq > l.at.Seq })
	page.Events = l.pass(e.kept[next:])
	page.At = l.at
	switch {
	case len(page.Events) > 0:
		return page, nil, nil
	case e.closed:
		return page, nil, ErrEventsClosed
	}
	return page, e.news, nil
}

// pass moves the listener over events, until it has a page of those that its
// filter lets through.
func (l *Listener) pass(events []*Event) (out []*Event) {
	for _, e := range events {
		if len(out) == logPage {
			break
		}
		l.at.Seq = e.Seq
		if l.filter.lets(e) {
			out = append(out, e)
		}
	}
	return out
}

// Close ends the listener.
func (l *Listener) Close() {
	e := l.e
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.listeners, l)
	if len(e.listeners) == 0 {
		e.rest()
		e.kept = nil
	}
}

// read follows the log until ctx ends.
func (e *Events) read(ctx context.Context) {
	signals := e.q.db.Watch(ctx) // nil, and so silent, where there is nothing to watch
	t := e.q.sys.NewTimer(0)
	defer t.Stop()
	for looks := len(looksAfterCommit); ; {
		select {
		case <-t.C():
		case <-e.hurry:
		case <-signals:
			e.pause(ctx, looksAfterCommit[0])
			looks = 1
		case <-ctx.Done():
			return
		}
		switch more := e.look(ctx); {
		case more:
			t.Reset(0)
		case looks < len(looksAfterCommit):
			t.Reset(looksAfterCommit[looks])
			looks++
		default:
			t.Reset(logPoll)
		}
	}
}

func (e *Events) pause(ctx context.Context, d time.Duration) {
	t := e.q.sys.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C():
	case <-ctx.Done():
	}
}

// look reads a page for all listeners and says whether there is more.
func (e *Events) look(ctx context.Context) (more bool) {
	e.mu.Lock()
	from := e.at
	e.mu.Unlock()
	page, full, err := e.q.readLog(ctx, from)
	e.mu.Lock()
	defer e.mu.Unlock()
	if ctx.Err() != nil {
		return false // another reader may be at work by now
	}
	e.report(err)
	if err != nil {
		return false
	}
	if page.Reset {
		clear(e.listeners) // each finds out by itself what that means for the place where it is
		e.kept, e.from = nil, page.At
	}
	e.at, e.kept = page.At, append(e.kept, page.Events...)
	if over := len(e.kept) - mostKept; over > 0 {
		e.from.Seq = e.kept[over-1].Seq
		e.kept = slices.Delete(e.kept, 0, over)
	}
	if page.Reset || len(page.Events) > 0 {
		e.tell()
	}
	return full
}

// report tells of the reader's trouble when it begins and when it ends.
func (e *Events) report(err error) {
	class := libsql.ClassOf(err)
	if err != nil && class == "" {
		class = "other"
	}
	if class != e.trouble {
		e.trouble = class
		e.note(err)
	}
}
