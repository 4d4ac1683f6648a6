package queue

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/postroom/postroom/core/job"
	"github.com/postroom/postroom/core/libsql"
)

// Bounds on one batch, so that a long backlog does not hold up claims.
const (
	ticksPerBatch = 100
	bytesPerBatch = 4 << 20
)

// triesPerTick is how often a schedule that others change is looked at again.
const triesPerTick = 3

// lateAfter is how late an instant may be dealt with that is not to be caught
// up.
const lateAfter = time.Minute

// Ticks is what a call of Tick did.
type Ticks struct {
	Done []Ticked
	// Broken are schedules that this program cannot read: they wait for one
	// that can.
	Broken map[string]error
	// Next is how long until there is more to do; nil for none.
	Next *time.Duration
}

// Ticked is an instant that was dealt with.
type Ticked struct {
	Name    string
	At      job.Time
	Since   job.Time // the oldest instant that it stands for; At if no other was missed
	Outcome TickOutcome
	JobID   string // if it was stored
}

// TickOutcome is what became of an instant.
type TickOutcome string

const (
	// TickStored is a job that was stored.
	TickStored TickOutcome = "stored"
	// TickSkipped is an instant at which the last job had not ended.
	TickSkipped TickOutcome = "skipped"
	// TickDropped is an instant that was missed and not to be caught up.
	TickDropped TickOutcome = "dropped"
)

// tickKey is the idempotency key of an instant's job. It is held while the job
// is active, and is how the job knows its instant; that there is one job per
// instant does not depend on it.
func tickKey(name string, at job.Time) string {
	return "cron:" + name + ":" + at.Time().Format(time.RFC3339)
}

// TickOf reads the instant out of the idempotency key of a schedule's job.
func TickOf(key string) (name string, at time.Time, ok bool) {
	rest, ok := strings.CutPrefix(key, "cron:")
	name, text, found := strings.Cut(rest, ":")
	at, err := time.Parse(time.RFC3339, text)
	return name, at, ok && found && err == nil
}

// Tick stores the jobs of the schedules that are due. Every runner may call it
// at any time: each instant is dealt with once, by a batch that moves the
// schedule past it on the condition that nobody has changed the row. One call
// applies one batch to each schedule. After an error some may be done; the next
// call goes on.
func (q *Queue) Tick(ctx context.Context) (Ticks, error) {
	out := Ticks{Broken: map[string]error{}}
	more := false             // left for the next call
	seen := map[string]bool{} // a schedule that is caught up comes again
	at, name := int64(math.MinInt64), ""
	for {
		res, err := q.db.Read(ctx, libsql.Query(sqlCronDue, at, name), libsql.Query(sqlCronNext))
		if err != nil {
			return out, fmt.Errorf("tick: %w", err)
		}
		if len(res[0].Rows) == 0 {
			out.Next = untilNext(more, res[1].Rows[0])
			return out, nil
		}
		for _, r := range res[0].Rows {
			at, name = r.Int(0), r.Str(1)
			if seen[name] {
				continue
			}
			seen[name] = true
			done, rest, err := q.tick(ctx, name)
			if libsql.ClassOf(err) != "" {
				return out, fmt.Errorf("tick: %w", err)
			}
			if err != nil {
				out.Broken[name] = err
			}
			out.Done = append(out.Done, done...)
			more = more || rest
		}
	}
}

func untilNext(more bool, row libsql.Row) *time.Duration {
	var d time.Duration
	switch ms := row.IntPtr(0); {
	case more:
	case ms == nil:
		return nil
	default:
		d = time.Duration(*ms) * time.Millisecond
	}
	return &d
}

// tick deals with instants of one schedule, in one batch. rest says that more
// are due.
func (q *Queue) tick(ctx context.Context, name string) (done []Ticked, rest bool, err error) {
	for range triesPerTick {
		r, err := q.readCron(ctx, name)
		if errors.Is(err, ErrNoCron) {
			return nil, false, nil
		}
		if err != nil || r.Paused || r.next > r.now {
			return nil, false, err
		}
		done, following, err := r.due()
		if err != nil {
			return nil, false, err
		}
		last := done[len(done)-1]
		b := q.NewBatch(ctx)
		b.Guard(sqlCronGuard, name, r.revision, int64(last.At))
		places := make([]int, len(done))
		var key any // of the last job
		for i, t := range done {
			if t.Outcome == TickStored {
				n := r.job()
				n.Key, n.KeyScope = tickKey(name, t.At), job.ScopeActive
				_, places[i] = b.EnqueueAsking(n)
				key = n.Key
			}
		}
		b.Exec(sqlCronTick, int64(last.At), int64(following), key, q.NewToken(), name)
		res, err := q.Write(ctx, b)
		if libsql.GuardIndex(err) == 0 {
			continue // another runner was first, or the schedule was changed
		}
		if err != nil {
			return nil, false, err
		}
		for i, t := range done {
			if t.Outcome == TickStored {
				done[i].JobID = Answer(res[places[i]]).ID
			}
		}
		return done, following <= r.now, nil
	}
	return nil, false, nil
}

// due decides what becomes of the instants that have come, and which one
// follows them.
func (r *storedCron) due() (done []Ticked, following job.Time, err error) {
	s, err := parseCron(r.Schedule, r.TZ)
	if err != nil {
		return nil, 0, err
	}
	first, now := r.next.Time(), r.now.Time()
	last := first
	if r.CatchUp == CatchUpAll {
		most := min(ticksPerBatch, max(1, bytesPerBatch/len(r.Payload)))
		for at := first; len(done) < most && !at.After(now); at = s.Next(at) {
			last = at
			done = append(done, Ticked{Name: r.Name, At: job.At(at), Since: job.At(at), Outcome: TickStored})
		}
	} else {
		last = s.Last(first, now)
		t := Ticked{Name: r.Name, At: job.At(last), Since: r.next, Outcome: TickStored}
		switch {
		case r.CatchUp == CatchUpNone && now.Sub(last) > lateAfter:
			t.Outcome = TickDropped
		case r.Overlap == OverlapSkip && r.active:
			t.Outcome = TickSkipped
		}
		done = []Ticked{t}
	}
	return done, job.At(s.Next(last)), nil
}
