package queue_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/postroom/postroom/core/cron"
	"github.com/postroom/postroom/core/internal/dbtest"
	"github.com/postroom/postroom/core/job"
	"github.com/postroom/postroom/core/libsql"
	"github.com/postroom/postroom/core/queue"
	"github.com/postroom/postroom/core/system"
)

// faulty is a database whose answers get lost, and in which others act between
// a read and what follows from it.
type faulty struct {
	libsql.DB
	before, after atomic.Int32 // writes that fail before or after they are applied
	between       func()       // once, after the next read of a schedule or of the clock
}

func (f *faulty) Write(ctx context.Context, b *libsql.Batch) ([]libsql.Result, error) {
	lost := &libsql.Error{Class: libsql.Unknown, Op: "commit"}
	if f.before.Add(-1) >= 0 {
		return nil, lost
	}
	res, err := f.DB.Write(ctx, b)
	if err == nil && f.after.Add(-1) >= 0 {
		return nil, lost
	}
	return res, err
}

func (f *faulty) Read(ctx context.Context, stmts ...libsql.Stmt) ([]libsql.Result, error) {
	res, err := f.DB.Read(ctx, stmts...)
	if act := f.between; act != nil && (strings.Contains(stmts[0].SQL, "FROM cron WHERE name = ?") || stmts[0].SQL == "SELECT ms FROM db_clock") {
		f.between = nil
		act()
	}
	return res, err
}

func withFaults(q *queue.Queue) (*queue.Queue, *faulty) {
	f := &faulty{DB: q.DB()}
	return queue.New(f, system.Real{}, job.Known()), f
}

// TestEveryInstantHasOneJob lets several runners tick at once while the clock
// jumps about and answers get lost, and compares with the calendar.
func TestEveryInstantHasOneJob(t *testing.T) {
	t.Parallel()
	path := dbtest.Path(t)
	type runner struct {
		q *queue.Queue
		*faulty
	}
	var runners []runner
	for range 3 {
		q, f := withFaults(queue.New(dbtest.OpenPath(t, path), system.Real{}, job.Known()))
		runners = append(runners, runner{q, f})
	}
	clock := &clock{t: t, db: dbtest.OpenPath(t, path)}
	q := queue.New(clock.db, system.Real{}, job.Known())
	round := 0
	rapid.Check(t, func(rt *rapid.T) {
		round++
		name := fmt.Sprintf("round-%d", round)
		n := queue.NewCron{
			Name: name, Type: job.DebugEcho, CatchUp: queue.CatchUpAll,
			Schedule: rapid.SampledFrom([]string{"*/20 * * * *", "0 * * * *", "15,45 1,2,3 * * *", "30 2 * * *", "30 0 * * SUN", "@every 25m", "@every 3h", "@daily", "7 */2 * * *"}).Draw(rt, "schedule"),
			TZ:       rapid.SampledFrom([]string{"UTC", "America/New_York", "Europe/Berlin", "Africa/Cairo", "Australia/Lord_Howe"}).Draw(rt, "zone"),
		}
		begin := rapid.SampledFrom([]string{"2026-03-07T20:00:00Z", "2026-03-28T18:00:00Z", "2026-10-24T12:00:00Z", "2026-10-31T22:00:00Z"}).Draw(rt, "begin")
		clock.set(instant(t, begin).Add(time.Duration(rapid.IntRange(0, 7200).Draw(rt, "s")) * time.Second).UnixMilli())
		from, latest := clock.ms, clock.ms
		setCron(t, q, n)
		for range rapid.IntRange(1, 6).Draw(rt, "moves") {
			clock.advance(time.Duration(rapid.IntRange(-60, 600).Draw(rt, "minutes")) * time.Minute)
			latest = max(latest, clock.ms)
			for _, r := range runners {
				r.before.Store(int32(rapid.IntRange(-1, 1).Draw(rt, "lost before")))
				r.after.Store(int32(rapid.IntRange(-1, 1).Draw(rt, "lost after")))
			}
			var wg sync.WaitGroup
			for _, r := range runners {
				wg.Go(func() {
					for range 20 {
						got, err := r.q.Tick(t.Context())
						exec(t, q, "DELETE FROM job_keys") // as if the jobs had ended: keys are not what keeps them apart
						if err == nil && (got.Next == nil || *got.Next > 0) {
							return
						}
						if err != nil && libsql.ClassOf(err) != libsql.Unknown {
							t.Error(err)
						}
					}
				})
			}
			wg.Wait()
			if rapid.Bool().Draw(rt, "set again") {
				setCron(t, q, n)
			}
		}
		zone, err := cron.Zone(n.TZ)
		if err != nil {
			t.Fatal(err)
		}
		s, err := cron.Parse(n.Schedule, zone)
		if err != nil {
			t.Fatal(err)
		}
		var want []time.Time
		for at := s.Next(time.UnixMilli(from)); !at.After(time.UnixMilli(latest)); at = s.Next(at) {
			want = append(want, at)
		}
		if got := stored(t, q, name); !slices.Equal(got, want) {
			rt.Fatalf("%+v from %s to %s:\n got %v\nwant %v", n, job.Time(from), job.Time(latest), got, want)
		}
		if err := q.DeleteCron(t.Context(), name); err != nil {
			t.Fatal(err)
		}
	})
}

func TestATickWhoseReplyIsLostIsNeitherDoubledNorSkipped(t *testing.T) {
	t.Parallel()
	for _, applied := range []bool{true, false} {
		t.Run(fmt.Sprintf("applied %t", applied), func(t *testing.T) {
			t.Parallel()
			sound, clock := setupCron(t, "2026-05-01T09:15:00Z")
			q, f := withFaults(sound)
			setCron(t, sound, queue.NewCron{Name: "c"})
			clock.advance(time.Hour)
			if applied {
				f.after.Store(1)
			} else {
				f.before.Store(1)
			}
			if _, err := q.Tick(t.Context()); libsql.ClassOf(err) != libsql.Unknown {
				t.Fatalf("the lost reply is %v", err)
			}
			tick(t, q)
			if got := stored(t, sound, "c"); len(got) != 1 {
				t.Errorf("stored %v", got)
			}
		})
	}
}

// Cron that doubled a tick when its keyed job had been pruned is a fault that
// other queues had.
func TestATickIsNotRepeatedWhenItsJobAndKeyArePruned(t *testing.T) {
	t.Parallel()
	q, clock := setupCron(t, "2026-05-01T09:15:00Z")
	setCron(t, q, queue.NewCron{Name: "c", CatchUp: queue.CatchUpAll})
	clock.advance(3 * time.Hour)
	if got := ticked(tick(t, q)); got != "stored 10:00, stored 11:00, stored 12:00" {
		t.Fatal(got)
	}
	exec(t, q, "DELETE FROM jobs")
	exec(t, q, "DELETE FROM job_keys")
	if got := tick(t, q); len(got.Done) != 0 {
		t.Errorf("repeated: %+v", got)
	}
	clock.advance(-2 * time.Hour)
	if got := tick(t, q); len(got.Done) != 0 {
		t.Errorf("repeated when the clock was put back: %+v", got)
	}
}

func TestARunnerThatReadAnOlderRowActsOnTheNewOne(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		between func(t *testing.T, other *queue.Queue, clock *clock)
		want    string // instants and payloads in the end
	}{
		"another ticked": {func(t *testing.T, other *queue.Queue, _ *clock) {
			tick(t, other)
			exec(t, other, "DELETE FROM job_keys")
		}, "10:00 1"},
		"it was changed": {func(t *testing.T, other *queue.Queue, _ *clock) {
			setCron(t, other, queue.NewCron{Name: "c", Payload: json.RawMessage("2")})
		}, "10:00 2"},
		"it was paused": {func(t *testing.T, other *queue.Queue, _ *clock) {
			if _, err := other.PauseCron(t.Context(), "c"); err != nil {
				t.Error(err)
			}
		}, ""},
		"it was deleted": {func(t *testing.T, other *queue.Queue, _ *clock) {
			if err := other.DeleteCron(t.Context(), "c"); err != nil {
				t.Error(err)
			}
		}, ""},
		"it was made anew and is due": {func(t *testing.T, other *queue.Queue, clock *clock) {
			if err := other.DeleteCron(t.Context(), "c"); err != nil {
				t.Error(err)
			}
			clock.set(instant(t, "2026-05-01T09:15:00Z").UnixMilli())
			setCron(t, other, queue.NewCron{Name: "c", Payload: json.RawMessage("3")})
			clock.advance(time.Hour)
		}, "10:00 3"},
		"the clock was put back": {func(_ *testing.T, _ *queue.Queue, clock *clock) { clock.advance(-time.Hour) }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			other, clock := setupCron(t, "2026-05-01T09:15:00Z")
			q, f := withFaults(other)
			setCron(t, other, queue.NewCron{Name: "c", Payload: json.RawMessage("1")})
			clock.advance(time.Hour)
			f.between = func() { c.between(t, other, clock) }
			tick(t, q)
			if f.between != nil {
				t.Fatal("nobody acted between the read and the write")
			}
			res, err := other.DB().Read(t.Context(), libsql.Query("SELECT CAST(idempotency_key AS BLOB), CAST(payload_json AS BLOB) FROM jobs ORDER BY seq"))
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, r := range res[0].Rows {
				_, at, _ := queue.TickOf(r.Str(0))
				got = append(got, at.Format("15:04 ")+r.Str(1))
			}
			if strings.Join(got, ", ") != c.want {
				t.Errorf("stored %v, want %s", got, c.want)
			}
		})
	}
}

func TestATriggerAndAPauseSurviveARace(t *testing.T) {
	t.Parallel()
	other, _ := setupCron(t, "2026-05-01T09:15:00Z")
	q, f := withFaults(other)
	setCron(t, other, queue.NewCron{Name: "c", Overlap: queue.OverlapSkip})
	var first queue.Enqueued
	f.between = func() {
		var err error
		if first, err = other.TriggerCron(t.Context(), "c"); err != nil {
			t.Error(err)
		}
	}
	if e, err := q.TriggerCron(t.Context(), "c"); err != nil || e.ID != first.ID || !e.Duplicate {
		t.Errorf("triggered twice at once: %+v and %+v, %v", first, e, err)
	}
	f.between = func() { setCron(t, other, queue.NewCron{Name: "c", Schedule: "@daily"}) }
	if c, err := q.PauseCron(t.Context(), "c"); err != nil || !c.Paused || c.Schedule != "@daily" {
		t.Errorf("%+v, %v", c, err)
	}
}

// The key of an instant is held while its job is active only, so that keys do
// not pile up.
func TestTheKeysOfTicksDoNotPileUp(t *testing.T) {
	t.Parallel()
	q, clock := setupCron(t, "2026-05-01T09:15:00Z")
	setCron(t, q, queue.NewCron{Name: "c", CatchUp: queue.CatchUpAll})
	clock.advance(20 * time.Hour)
	tick(t, q)
	for _, c := range claim(t, q, 100) {
		finish(t, q, c.Lease, queue.Outcome{Kind: queue.Completed})
	}
	res, err := q.DB().Read(t.Context(), libsql.Query("SELECT count(*) FROM job_keys"), libsql.Query("SELECT count(*) FROM jobs WHERE state = 'completed'"))
	if err != nil || res[0].Rows[0].Int(0) != 0 || res[1].Rows[0].Int(0) != 20 {
		t.Errorf("%d keys are left of %d jobs, %v", res[0].Rows[0].Int(0), res[1].Rows[0].Int(0), err)
	}
}

func TestSettingAScheduleWhoseReplyIsLostMayBeRepeated(t *testing.T) {
	t.Parallel()
	sound, _ := setupCron(t, "2026-05-01T09:15:00Z")
	q, f := withFaults(sound)
	n := queue.NewCron{Name: "c", Schedule: "@every 1h", Type: "x"}
	f.after.Store(1)
	if _, _, err := q.SetCron(t.Context(), n); libsql.ClassOf(err) != libsql.Unknown {
		t.Fatal(err)
	}
	before := getCron(t, sound, "c")
	after, created, err := q.SetCron(t.Context(), n)
	if err != nil || created || *after.NextAt != *before.NextAt {
		t.Errorf("%+v, created %v, %v; was %+v", after, created, err, before)
	}
}

// A client that was held up while it set a schedule must not bring back
// instants that have passed, and perhaps been dealt with, in the meantime.
func TestAScheduleThatIsSetSlowlyDoesNotGoBack(t *testing.T) {
	t.Parallel()
	sound, clock := setupCron(t, "2026-05-01T09:15:00Z")
	setCron(t, sound, queue.NewCron{Name: "c", Schedule: "*/2 * * * *", CatchUp: queue.CatchUpAll})
	q, f := withFaults(sound)
	f.between = func() {
		clock.advance(10 * time.Minute)
		if got := tick(t, sound); len(got.Done) != 5 {
			t.Errorf("%+v", got)
		}
	}
	c, _, err := q.SetCron(t.Context(), queue.NewCron{Name: "c", Schedule: "*/4 * * * *", Type: "x", CatchUp: queue.CatchUpAll})
	if err != nil || c.NextAt.Time() != instant(t, "2026-05-01T09:28:00Z") || c.NextAt.Time().Before(c.LastTick.Time()) {
		t.Fatalf("%+v, %v", c, err)
	}
	if got := tick(t, sound); len(got.Done) != 0 {
		t.Errorf("instants that had passed come again: %+v", got)
	}
}
