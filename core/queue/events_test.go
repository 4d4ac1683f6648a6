package queue_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/postroom/postroom/core/internal/dbtest"
	"github.com/postroom/postroom/core/job"
	"github.com/postroom/postroom/core/libsql"
	"github.com/postroom/postroom/core/queue"
	"github.com/postroom/postroom/core/system"
)

func quiet(error) {}

// patient ends what a test waits for in vain.
func patient(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func listen(t *testing.T, e *queue.Events, from *queue.EventID, f queue.EventFilter) *queue.Listener {
	t.Helper()
	l, err := e.Listen(t.Context(), from, f)
	if err != nil {
		t.Fatalf("listen: %v", err)
	}
	t.Cleanup(l.Close)
	return l
}

func next(t *testing.T, l *queue.Listener) queue.EventPage {
	t.Helper()
	page, err := l.Next(patient(t))
	if err != nil {
		t.Fatalf("next: %v", err)
	}
	return page
}

// states reads n transitions.
func states(t *testing.T, l *queue.Listener, n int) string {
	t.Helper()
	var out []string
	for len(out) < n {
		for _, e := range next(t, l).Events {
			out = append(out, string(e.State))
		}
	}
	return strings.Join(out, " ")
}

// join waits until the listener shares the reader: a Next that finds nothing.
func join(t *testing.T, l *queue.Listener) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if page, err := l.Next(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("got %+v, %v", page, err)
	}
}

func TestAListenerSeesWhatHappensFromNowOn(t *testing.T) {
	t.Parallel()
	q, _ := setup(t)
	events := queue.NewEvents(q, quiet)
	before := enqueue(t, q, job.New{Type: "before"})
	l := listen(t, events, nil, queue.EventFilter{})
	e := enqueue(t, q, job.New{Queue: "mail"})
	c := claimOne(t, q)
	for c.JobID != e.ID {
		c = claimOne(t, q)
	}
	finish(t, q, c.Lease, queue.Outcome{Kind: queue.Completed})
	if got := states(t, l, 3); got != "queued running completed" {
		t.Errorf("got %s", got)
	}
	at := l.At()

	t.Run("and goes on from where it was", func(t *testing.T) {
		t.Parallel()
		for back := range int64(4) {
			from := queue.ParseEventID(queue.EventID{Epoch: at.Epoch, Seq: at.Seq - back}.String())
			again := listen(t, events, &from, queue.EventFilter{})
			want := strings.Join([]string{"queued", "running", "completed"}[3-back:], " ")
			if got := states(t, again, int(back)); got != want {
				t.Errorf("%d back: %s, want %s", back, got, want)
			}
		}
	})
	t.Run("with all that an event tells", func(t *testing.T) {
		t.Parallel()
		from := queue.EventID{Epoch: at.Epoch, Seq: at.Seq - 3}
		page := next(t, listen(t, events, &from, queue.EventFilter{}))
		history := get(t, q, e.ID).History
		for i, ev := range page.Events {
			h := history[i]
			want := queue.Event{Seq: h.Seq, JobID: e.ID, Type: job.DebugEcho, Queue: "mail", State: h.State, Run: h.Run, At: h.At}
			text, err := json.Marshal(want)
			if err != nil || ev.JSON != string(text) {
				t.Errorf("got %s, want %s, %v", ev.JSON, text, err)
			}
			if want.JSON = ev.JSON; *ev != want {
				t.Errorf("got %+v, want %+v", *ev, want)
			}
		}
	})
	t.Run("of the jobs it wants", func(t *testing.T) {
		t.Parallel()
		from := queue.EventID{Epoch: at.Epoch}
		for f, want := range map[queue.EventFilter]string{
			{JobID: before.ID}:                    "queued",
			{Type: "before"}:                      "queued",
			{Queue: "mail"}:                       "queued running completed",
			{JobID: e.ID, Queue: "mail"}:          "queued running completed",
			{Type: job.DebugEcho, Queue: "other"}: "",
		} {
			l := listen(t, events, &from, f)
			if n := len(strings.Fields(want)); n > 0 {
				if got := states(t, l, n); got != want {
					t.Errorf("%+v: %s, want %s", f, got, want)
				}
			}
			join(t, l)
			if l.At() != at { // passed over, so not looked at again after a break
				t.Errorf("%+v: at %v, want %v", f, l.At(), at)
			}
		}
	})
}

// follower is a caller that comes and goes.
type follower struct {
	began, last queue.EventID // where it first listened, and the last it has seen
	seen        []*queue.Event
	err         error
	moved       chan struct{}
	drop        func() // nil while it is away
}

func (f *follower) follow(ctx context.Context, l *queue.Listener, mu *sync.Mutex) {
	for {
		page, err := l.Next(ctx)
		mu.Lock()
		switch {
		case ctx.Err() != nil: // a page that came at the same time is lost, as on a broken line
		case err != nil:
			f.err = err
		case page.Reset:
			f.err = errors.New("it was reset")
		}
		if ctx.Err() != nil || f.err != nil {
			mu.Unlock()
			return
		}
		for _, e := range page.Events {
			f.seen, f.last = append(f.seen, e), queue.EventID{Epoch: page.At.Epoch, Seq: e.Seq}
		}
		mu.Unlock()
		select {
		case f.moved <- struct{}{}:
		default:
		}
	}
}

func TestEveryListenerSeesEveryTransitionOnceAndInOrder(t *testing.T) {
	t.Parallel()
	path := dbtest.Path(t)
	var writers []*queue.Queue // as of several processes
	for range 2 {
		writers = append(writers, queue.New(dbtest.OpenPath(t, path), system.Real{}, job.Known()))
	}
	events := queue.NewEvents(queue.New(dbtest.OpenPath(t, path), system.Real{}, job.Known()), quiet)
	rapid.Check(t, func(rt *rapid.T) {
		var mu sync.Mutex
		var followers []*follower
		var ids []string
		must := func(err error) {
			if err != nil {
				rt.Fatal(err)
			}
		}
		resume := func(f *follower, from *queue.EventID) {
			l, err := events.Listen(t.Context(), from, queue.EventFilter{})
			must(err)
			if from == nil {
				f.began, f.last = l.At(), l.At()
			}
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan struct{})
			go func() {
				defer close(done)
				f.follow(ctx, l, &mu)
			}()
			f.drop = func() {
				cancel()
				<-done
				l.Close()
				f.drop = nil
			}
		}
		defer func() {
			for _, f := range followers {
				if f.drop != nil {
					f.drop()
				}
			}
		}()
		for range rapid.IntRange(5, 25).Draw(rt, "steps") {
			q := rapid.SampledFrom(writers).Draw(rt, "writer")
			switch rapid.SampledFrom([]string{"enqueue", "enqueue", "run", "run", "cancel", "retry", "connect", "drop", "resume"}).Draw(rt, "do") {
			case "enqueue":
				jobs := make([]job.New, rapid.IntRange(1, 8).Draw(rt, "jobs"))
				for i := range jobs {
					jobs[i] = job.New{Type: job.DebugEcho}
				}
				stored, err := q.EnqueueMany(t.Context(), jobs)
				must(err)
				for _, e := range stored {
					ids = append(ids, e.ID)
				}
			case "run":
				kinds := rapid.SliceOfN(rapid.SampledFrom([]queue.Kind{queue.Completed, queue.Failed, queue.Fatal, queue.Snoozed, queue.HandedBack}), 1, 5).Draw(rt, "outcomes")
				got, err := q.Claim(t.Context(), queue.ClaimRequest{Runner: "r", Token: q.NewToken(), Types: job.Known().Names(), Limit: len(kinds), Lease: lease})
				must(err)
				for i, c := range got.Jobs {
					_, err := q.Finish(t.Context(), c.Lease, queue.Outcome{Kind: kinds[i]})
					must(err)
				}
			case "cancel", "retry":
				if len(ids) == 0 {
					continue
				}
				id := rapid.SampledFrom(ids).Draw(rt, "job")
				change := q.Cancel
				if rapid.Bool().Draw(rt, "retry it") {
					change = q.Retry
				}
				if _, err := change(t.Context(), id); !errors.Is(err, queue.ErrInvalidState) {
					must(err)
				}
			case "connect":
				f := &follower{moved: make(chan struct{}, 1)}
				resume(f, nil)
				followers = append(followers, f)
			case "drop":
				if len(followers) > 0 {
					if f := rapid.SampledFrom(followers).Draw(rt, "follower"); f.drop != nil {
						f.drop()
					}
				}
			case "resume":
				if len(followers) > 0 {
					if f := rapid.SampledFrom(followers).Draw(rt, "follower"); f.drop == nil {
						resume(f, &f.last)
					}
				}
			}
		}
		log := wholeLog(rt, writers[0])
		for i, f := range followers {
			if f.drop == nil {
				resume(f, &f.last)
			}
			var want []int64
			for _, seq := range log {
				if seq > f.began.Seq {
					want = append(want, seq)
				}
			}
			await(patient(t), f.moved, func() bool {
				mu.Lock()
				defer mu.Unlock()
				return f.err != nil || len(f.seen) >= len(want)
			})
			f.drop()
			var got []int64
			for _, e := range f.seen {
				got = append(got, e.Seq)
			}
			if f.err != nil || !slices.Equal(got, want) {
				rt.Fatalf("follower %d (%v): saw %v, want %v", i, f.err, got, want)
			}
		}
	})
}

// await waits for what a signal may have brought about.
func await(ctx context.Context, signal <-chan struct{}, is func() bool) {
	for !is() && ctx.Err() == nil {
		select {
		case <-signal:
		case <-ctx.Done():
		}
	}
}

func wholeLog(rt *rapid.T, q *queue.Queue) (seqs []int64) {
	res, err := q.DB().Read(context.Background(), libsql.Query("SELECT seq FROM job_log ORDER BY seq"))
	if err != nil {
		rt.Fatal(err)
	}
	for _, r := range res[0].Rows {
		seqs = append(seqs, r.Int(0))
	}
	return seqs
}

func TestAPlaceThatTheLogDoesNotKnowIsReset(t *testing.T) {
	t.Parallel()
	q, clock := setup(t)
	events := queue.NewEvents(q, quiet)
	start := listen(t, events, nil, queue.EventFilter{}).At()
	for range 3 {
		enqueue(t, q, job.New{})
		finish(t, q, claimOne(t, q).Lease, queue.Outcome{Kind: queue.Completed})
		clock.advance(time.Minute)
	}
	middle := queue.EventID{Epoch: start.Epoch, Seq: start.Seq + 3} // behind the first job's
	if n, err := q.Prune(t.Context(), queue.Retention{Completed: 150 * time.Second}, 100); err != nil || n != 1 {
		t.Fatalf("pruned %d, %v", n, err)
	}
	present := listen(t, events, nil, queue.EventFilter{}).At()

	for name, from := range map[string]queue.EventID{
		"pruned":             {Epoch: start.Epoch, Seq: middle.Seq - 1},
		"of another epoch":   {Epoch: "0123456789abcdef", Seq: present.Seq},
		"beyond the present": {Epoch: start.Epoch, Seq: present.Seq + 1},
		"before the first":   {Epoch: start.Epoch, Seq: -1},
		"no id":              queue.ParseEventID("no id"),
		"without an epoch":   queue.ParseEventID("-3"),
		"without a number":   queue.ParseEventID(start.Epoch),
		"nothing":            queue.ParseEventID(""),
	} {
		if page := next(t, listen(t, events, &from, queue.EventFilter{})); !page.Reset || page.At != present || len(page.Events) != 0 {
			t.Errorf("%s: %+v", name, page)
		}
	}
	if got := states(t, listen(t, events, &middle, queue.EventFilter{}), 6); got != "queued running completed queued running completed" {
		t.Errorf("from the last pruned one on: %s", got)
	}
}

func TestAnotherEpochResetsTheListenersThatAreThere(t *testing.T) {
	t.Parallel()
	q, _ := setup(t)
	events := queue.NewEvents(q, quiet)
	old := listen(t, events, nil, queue.EventFilter{})
	join(t, old)
	enqueue(t, q, job.New{})
	exec(t, q, "UPDATE meta SET value = 'fedcba9876543210' WHERE key = 'epoch'")
	fresh := listen(t, events, nil, queue.EventFilter{}) // knows it before the reader may
	join(t, fresh)
	enqueue(t, q, job.New{})
	page := next(t, old)
	if !page.Reset { // it may have seen the job before the epoch changed
		page = next(t, old)
	}
	if !page.Reset || page.At.Epoch != "fedcba9876543210" {
		t.Errorf("got %+v", page)
	}
	if got := next(t, fresh); got.Reset || len(got.Events) != 1 || got.At.Epoch != "fedcba9876543210" {
		t.Errorf("the one of the new epoch got %+v", got)
	}
	for page.At.Seq < fresh.At().Seq {
		page = next(t, old)
	}
	enqueue(t, q, job.New{})
	for _, l := range []*queue.Listener{old, fresh} {
		if got := next(t, l); got.Reset || len(got.Events) != 1 {
			t.Errorf("then got %+v", got)
		}
	}
}

// counted counts the readings of the log and says when nobody watches any more.
type counted struct {
	libsql.DB
	reads   atomic.Int64
	watched chan context.Context
	broken  atomic.Bool
}

func (c *counted) Read(ctx context.Context, stmts ...libsql.Stmt) ([]libsql.Result, error) {
	res, err := c.DB.Read(ctx, stmts...)
	if strings.Contains(stmts[len(stmts)-1].SQL, "FROM job_log") {
		c.reads.Add(1)
		if c.broken.Load() { // also one that was under way: it may have seen what came after
			return nil, &libsql.Error{Class: libsql.Unavailable}
		}
	}
	return res, err
}

func (c *counted) Watch(ctx context.Context) <-chan struct{} {
	c.watched <- ctx
	return nil // so that it reads by its timer alone
}

func withCount(t *testing.T) (*queue.Queue, *counted) {
	t.Helper()
	db := &counted{DB: dbtest.Open(t), watched: make(chan context.Context, 10)}
	return queue.New(db, system.Real{}, job.Known()), db
}

func TestAnyNumberOfListenersShareOneReader(t *testing.T) {
	t.Parallel()
	q, db := withCount(t)
	events := queue.NewEvents(q, quiet)
	var list []*queue.Listener
	for range 50 {
		l := listen(t, events, nil, queue.EventFilter{})
		join(t, l)
		list = append(list, l)
	}
	reader := <-db.watched
	before := db.reads.Load()
	const jobs = 3
	for range jobs {
		e := enqueue(t, q, job.New{})
		var first *queue.Event
		for _, l := range list {
			page := next(t, l)
			if len(page.Events) != 1 || page.Events[0].JobID != e.ID {
				t.Fatalf("got %+v", page)
			}
			if first == nil {
				first = page.Events[0]
			}
			if page.Events[0] != first {
				t.Fatal("an event is kept for each listener")
			}
		}
	}
	// One look finds each job; a look may have come in between.
	if n := db.reads.Load() - before; n > 2*jobs+2 {
		t.Errorf("%d reads for %d jobs and %d listeners", n, jobs, len(list))
	}
	if len(db.watched) != 0 {
		t.Error("there was more than one reader")
	}
	for _, l := range list {
		if reader.Err() != nil {
			t.Fatal("the reader ended before the last listener left")
		}
		l.Close()
	}
	<-reader.Done()
	again := listen(t, events, nil, queue.EventFilter{})
	enqueue(t, q, job.New{})
	if got := states(t, again, 1); got != "queued" {
		t.Errorf("a later listener got %s", got)
	}
}

func TestASlowListenerIsEnded(t *testing.T) {
	t.Parallel()
	q, _ := setup(t)
	events := queue.NewEvents(q, quiet)
	slow, late, quick := listen(t, events, nil, queue.EventFilter{}), listen(t, events, nil, queue.EventFilter{}), listen(t, events, nil, queue.EventFilter{})
	last := slow.At().Seq
	follows := func(page queue.EventPage) {
		t.Helper()
		for _, e := range page.Events {
			if last++; e.Seq != last {
				t.Fatalf("transition %d is %d", last, e.Seq)
			}
		}
		if len(page.Events) == 0 || page.At.Seq != last {
			t.Fatalf("at %v after %d transitions that end with %d", page.At, len(page.Events), last)
		}
	}
	for _, l := range []*queue.Listener{slow, late, quick} {
		join(t, l)
	}
	const batches, each = 3, 5_000 // more than is kept
	for i := range batches {
		if _, err := q.EnqueueMany(t.Context(), slices.Repeat([]job.New{{Type: "x"}}, each)); err != nil {
			t.Fatal(err)
		}
		seen := 0
		for seen < each {
			seen += len(next(t, quick).Events)
		}
		if seen > each {
			t.Fatalf("%d transitions after batch %d", seen, i)
		}
		switch i {
		case 0:
			follows(next(t, slow))
		case 1: // all of it is kept
			n := 0
			for n < 2*each {
				n += len(next(t, late).Events)
			}
			join(t, late)
		}
	}
	at := slow.At()
	page, err := slow.Next(patient(t))
	if !errors.Is(err, queue.ErrSlowListener) || len(page.Events) > 0 || slow.At() != at {
		t.Errorf("got %v and %d transitions, at %v, left at %v", err, len(page.Events), slow.At(), at)
	}
	rest := listen(t, events, &at, queue.EventFilter{})
	for last < quick.At().Seq {
		follows(next(t, rest))
	}
	join(t, rest) // there is not one more
}

func TestClosedEventsEndTheirListeners(t *testing.T) {
	t.Parallel()
	q, _ := setup(t)
	events := queue.NewEvents(q, quiet)
	waits, stored := listen(t, events, nil, queue.EventFilter{}), listen(t, events, nil, queue.EventFilter{})
	join(t, waits)
	ended := make(chan error)
	go func() {
		_, err := waits.Next(patient(t))
		ended <- err
	}()
	events.Close()
	if err := <-ended; !errors.Is(err, queue.ErrEventsClosed) {
		t.Errorf("a listener that waits: %v", err)
	}
	if _, err := stored.Next(patient(t)); !errors.Is(err, queue.ErrEventsClosed) {
		t.Errorf("a listener that has not joined: %v", err)
	}
	if _, err := events.Listen(t.Context(), nil, queue.EventFilter{}); !errors.Is(err, queue.ErrEventsClosed) {
		t.Errorf("a new listener: %v", err)
	}
}

func TestWhatIsPrunedBeforeTheReaderSeesItResetsTheListeners(t *testing.T) {
	t.Parallel()
	q, db := withCount(t)
	failing := make(chan error, 10)
	events := queue.NewEvents(q, func(err error) { failing <- err })
	l := listen(t, events, nil, queue.EventFilter{})
	join(t, l)
	db.broken.Store(true)
	<-failing
	e := enqueue(t, q, job.New{})
	if _, err := q.Cancel(t.Context(), e.ID); err != nil {
		t.Fatal(err)
	}
	if err := q.Delete(t.Context(), e.ID); err != nil {
		t.Fatal(err)
	}
	db.broken.Store(false)
	if page := next(t, l); !page.Reset || page.At.Seq < 2 {
		t.Errorf("got %+v", page)
	}
	id := enqueue(t, q, job.New{}).ID
	if page := next(t, l); page.Reset || len(page.Events) != 1 || page.Events[0].JobID != id {
		t.Errorf("then got %+v", page)
	}
}

func TestTheReadersTroubleIsToldOnce(t *testing.T) {
	t.Parallel()
	q, db := withCount(t)
	told := make(chan error, 100)
	events := queue.NewEvents(q, func(err error) { told <- err })
	l := listen(t, events, nil, queue.EventFilter{})
	join(t, l)
	db.broken.Store(true)
	enqueue(t, q, job.New{})
	if err := <-told; libsql.ClassOf(err) != libsql.Unavailable {
		t.Errorf("told %v", err)
	}
	if _, err := events.Listen(t.Context(), nil, queue.EventFilter{}); libsql.ClassOf(err) != libsql.Unavailable {
		t.Errorf("a new listener: %v", err)
	}
	for n := db.reads.Load(); db.reads.Load() < n+2; { // it goes on trying, and keeps quiet
		join(t, l)
	}
	db.broken.Store(false)
	if got := states(t, l, 1); got != "queued" {
		t.Errorf("then got %s", got)
	}
	if err := <-told; err != nil || len(told) != 0 {
		t.Errorf("told %v and %d more", err, len(told))
	}
}

func TestEventIDs(t *testing.T) {
	t.Parallel()
	id := queue.EventID{Epoch: "0011223344556677", Seq: 42}
	if s := fmt.Sprint(id); s != "0011223344556677-42" || queue.ParseEventID(s) != id {
		t.Errorf("%s is read as %v", s, queue.ParseEventID(s))
	}
}
