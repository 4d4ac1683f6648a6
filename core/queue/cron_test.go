package queue_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/postroom/postroom/core/job"
	"github.com/postroom/postroom/core/libsql"
	"github.com/postroom/postroom/core/queue"
)

// setupCron is setup with the clock at an instant.
func setupCron(t *testing.T, now string) (*queue.Queue, *clock) {
	t.Helper()
	q, c := setup(t)
	c.set(instant(t, now).UnixMilli())
	return q, c
}

func instant(t *testing.T, text string) time.Time {
	t.Helper()
	v, err := time.Parse(time.RFC3339, text)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// setCron stores a schedule that has a type and, unless it says otherwise,
// comes every hour.
func setCron(t *testing.T, q *queue.Queue, n queue.NewCron) *queue.Cron {
	t.Helper()
	if n.Type == "" {
		n.Type = job.DebugEcho
	}
	if n.Schedule == "" {
		n.Schedule = "0 * * * *"
	}
	c, _, err := q.SetCron(t.Context(), n)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func getCron(t *testing.T, q *queue.Queue, name string) *queue.Cron {
	t.Helper()
	c, err := q.Cron(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func tick(t *testing.T, q *queue.Queue) queue.Ticks {
	t.Helper()
	got, err := q.Tick(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// ticked shows what was done, such as "stored 10:00, skipped 11:00".
func ticked(got queue.Ticks) string {
	var out []string
	for _, d := range got.Done {
		text := string(d.Outcome) + " " + d.At.Time().Format("15:04")
		if d.Since != d.At {
			text += " since " + d.Since.Time().Format("15:04")
		}
		out = append(out, text)
	}
	return strings.Join(out, ", ")
}

// stored lists the instants of the schedule's jobs in the order in which they
// were stored.
func stored(t *testing.T, q *queue.Queue, name string) []time.Time {
	t.Helper()
	res, err := q.DB().Read(t.Context(), libsql.Query("SELECT CAST(idempotency_key AS BLOB) FROM jobs WHERE idempotency_key GLOB 'cron:'||?||':*' ORDER BY seq", name))
	if err != nil {
		t.Fatal(err)
	}
	var out []time.Time
	for _, r := range res[0].Rows {
		of, at, ok := queue.TickOf(r.Str(0))
		if !ok || of != name {
			t.Fatalf("the key %q is no tick's", r.Str(0))
		}
		out = append(out, at)
	}
	return out
}

func exec(t *testing.T, q *queue.Queue, sql string, args ...any) {
	t.Helper()
	var b libsql.Batch
	b.Exec(sql, args...)
	if _, err := q.DB().Write(t.Context(), &b); err != nil {
		t.Fatal(err)
	}
}

func TestAScheduleStoresItsJobWhenItsTimeComes(t *testing.T) {
	t.Parallel()
	q, clock := setupCron(t, "2026-05-01T10:15:00Z")
	c := setCron(t, q, queue.NewCron{
		Name: "report", Schedule: "30  2 * * *", TZ: "Europe/Berlin", Type: "nobody.knows", Queue: "q", Priority: 7,
		Payload: json.RawMessage(`{"a":[1]}`),
	})
	if c.Schedule != "30 2 * * *" || c.CatchUp != queue.CatchUpOne || c.Overlap != queue.OverlapAllow || c.Paused || c.LastTick != nil ||
		c.LastJobID != nil || c.NextAt.String() != "2026-05-02T00:30:00.000Z" || string(c.Payload) != `{"a":[1]}` {
		t.Fatalf("stored as %+v", c)
	}
	if got := tick(t, q); len(got.Done) != 0 || got.Next == nil || *got.Next != 14*time.Hour+15*time.Minute {
		t.Fatalf("before its time: %+v", got)
	}
	clock.set(instant(t, "2026-05-02T00:29:59Z").UnixMilli())
	if got := tick(t, q); len(got.Done) != 0 {
		t.Fatalf("a second before its time: %+v", got)
	}
	clock.advance(time.Second)
	got := tick(t, q)
	if ticked(got) != "stored 00:30" || *got.Next != 24*time.Hour {
		t.Fatalf("at its time: %+v", got)
	}
	j := get(t, q, got.Done[0].JobID)
	if j.Type != "nobody.knows" || j.Queue != "q" || j.Priority != 7 || string(j.Payload) != `{"a":[1]}` ||
		*j.IdempotencyKey != "cron:report:2026-05-02T00:30:00Z" || j.ParentID != nil || j.State != job.Queued {
		t.Errorf("its job is %+v", j)
	}
	if again := tick(t, q); len(again.Done) != 0 {
		t.Errorf("ticked twice: %+v", again)
	}
	c = getCron(t, q, "report")
	if c.LastTick.String() != "2026-05-02T00:30:00.000Z" || *c.LastJobID != j.ID || c.NextAt.String() != "2026-05-03T00:30:00.000Z" {
		t.Errorf("stands at %+v", c)
	}
}

func TestWhatIsMissedIsCaughtUpAsThePolicySays(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		policy queue.CatchUp
		late   time.Duration // after 13:00
		want   string
	}{
		{queue.CatchUpOne, 50 * time.Minute, "stored 13:00 since 10:00"},
		{queue.CatchUpAll, 50 * time.Minute, "stored 10:00, stored 11:00, stored 12:00, stored 13:00"},
		{queue.CatchUpNone, time.Minute, "stored 13:00 since 10:00"},
		{queue.CatchUpNone, time.Minute + time.Millisecond, "dropped 13:00 since 10:00"},
	} {
		t.Run(fmt.Sprintf("%s, %s late", c.policy, c.late), func(t *testing.T) {
			t.Parallel()
			q, clock := setupCron(t, "2026-05-01T09:15:00Z")
			setCron(t, q, queue.NewCron{Name: "c", CatchUp: c.policy})
			clock.set(instant(t, "2026-05-01T13:00:00Z").Add(c.late).UnixMilli())
			if got := ticked(tick(t, q)); got != c.want {
				t.Errorf("%s, want %s", got, c.want)
			}
			s := getCron(t, q, "c")
			if s.LastTick.String() != "2026-05-01T13:00:00.000Z" || s.NextAt.String() != "2026-05-01T14:00:00.000Z" ||
				(s.LastJobID == nil) != strings.HasPrefix(c.want, "dropped") {
				t.Errorf("stands at %+v", s)
			}
			if got := tick(t, q); len(got.Done) != 0 {
				t.Errorf("and again: %+v", got)
			}
		})
	}
}

func TestALongBacklogIsCaughtUpInBoundedBatchesOldestFirst(t *testing.T) {
	t.Parallel()
	q, clock := setupCron(t, "2026-05-01T00:00:00Z")
	setCron(t, q, queue.NewCron{Name: "a", Schedule: "* * * * *", CatchUp: queue.CatchUpAll})
	setCron(t, q, queue.NewCron{Name: "b", Schedule: "0 4 * * *"})
	setCron(t, q, queue.NewCron{Name: "large", Schedule: "0 * * * *", CatchUp: queue.CatchUpAll, Payload: job.Payload(strings.Repeat("x", 1<<20-2))})
	clock.advance(250*time.Minute + 30*time.Second)
	var perCall []string
	for {
		got := tick(t, q)
		n := map[string]int{}
		for _, d := range got.Done {
			n[d.Name]++
		}
		perCall = append(perCall, fmt.Sprint(n["a"], n["b"], n["large"]))
		if *got.Next > 0 {
			break
		}
	}
	if got := strings.Join(perCall, ", "); got != "100 1 4, 100 0 0, 50 0 0" {
		t.Errorf("jobs of a, b and large per call: %s", got)
	}
	instants := stored(t, q, "a")
	if len(instants) != 250 || !slices.IsSortedFunc(instants, time.Time.Compare) {
		t.Errorf("%d jobs, the first for %s", len(instants), instants[0])
	}
}

func TestSchedulesFollowTheClocksOfTheirZone(t *testing.T) {
	t.Parallel()
	q, clock := setupCron(t, "2026-03-07T12:00:00Z")
	setCron(t, q, queue.NewCron{Name: "fixed", Schedule: "30 1,2 * * *", TZ: "America/New_York", CatchUp: queue.CatchUpAll})
	setCron(t, q, queue.NewCron{Name: "hourly", Schedule: "30 * * * *", TZ: "America/New_York", CatchUp: queue.CatchUpAll})
	walk := func(until string) {
		for end := instant(t, until).UnixMilli(); clock.ms < end; clock.advance(10 * time.Minute) {
			tick(t, q)
		}
	}
	walk("2026-03-09T12:00:00Z")
	clock.set(instant(t, "2026-10-31T12:00:00Z").UnixMilli())
	exec(t, q, "UPDATE cron SET next_at = (SELECT ms FROM db_clock)")
	tick(t, q)
	exec(t, q, "DELETE FROM jobs WHERE created_at = (SELECT ms FROM db_clock)")
	walk("2026-11-02T12:00:00Z")
	var got []string
	for _, at := range stored(t, q, "fixed") {
		got = append(got, at.Format("02T15:04"))
	}
	// 8 March has no 02:30: it comes at 03:00. 1 November has 01:30 twice: it
	// comes the first time.
	if want := "08T06:30 08T07:00 09T05:30 09T06:30 01T05:30 01T07:30 02T06:30 02T07:30"; strings.Join(got, " ") != want {
		t.Errorf("fixed: %v, want %s", got, want)
	}
	if n := len(stored(t, q, "hourly")); n != 96 {
		t.Errorf("%d jobs of the hourly one in twice 48 hours, whatever the clocks show; want 96", n)
	}
}

func TestSettingAScheduleAgainKeepsWhereItStands(t *testing.T) {
	t.Parallel()
	q, clock := setupCron(t, "2026-05-01T09:15:00Z")
	n := queue.NewCron{Name: "c", Schedule: "@every 1h", Type: "x"}
	if _, created, err := q.SetCron(t.Context(), n); err != nil || !created {
		t.Fatalf("created %v, %v", created, err)
	}
	clock.advance(30 * time.Minute)
	n.Payload, n.CatchUp = json.RawMessage("1"), queue.CatchUpAll
	c, created, err := q.SetCron(t.Context(), n)
	if err != nil || created || c.NextAt.String() != "2026-05-01T10:15:00.000Z" || string(c.Payload) != "1" || c.CatchUp != queue.CatchUpAll {
		t.Errorf("another payload: %+v, created %v, %v", c, created, err)
	}
	n.Schedule = "@every 2h"
	if c := setCron(t, q, n); c.NextAt.String() != "2026-05-01T11:45:00.000Z" {
		t.Errorf("another schedule: next at %s", c.NextAt)
	}
	n.Schedule = "0 12 * * *"
	setCron(t, q, n)
	n.TZ = "Asia/Tokyo"
	if c := setCron(t, q, n); c.NextAt.String() != "2026-05-02T03:00:00.000Z" {
		t.Errorf("another zone: next at %s", c.NextAt)
	}
	if _, err := q.PauseCron(t.Context(), "c"); err != nil {
		t.Fatal(err)
	}
	if c := setCron(t, q, n); !c.Paused {
		t.Error("setting a paused schedule again resumed it")
	}
}

func TestAPausedScheduleRestsAndCatchesNothingUp(t *testing.T) {
	t.Parallel()
	q, clock := setupCron(t, "2026-05-01T09:15:00Z")
	setCron(t, q, queue.NewCron{Name: "c", CatchUp: queue.CatchUpAll})
	setCron(t, q, queue.NewCron{Name: "every", Schedule: "@every 40m"})
	for range 2 {
		for _, name := range []string{"c", "every"} {
			if c, err := q.PauseCron(t.Context(), name); err != nil || !c.Paused || c.NextAt != nil {
				t.Fatalf("paused: %+v, %v", c, err)
			}
		}
	}
	clock.advance(3 * time.Hour)
	if got := tick(t, q); len(got.Done) != 0 || got.Next != nil {
		t.Errorf("a paused schedule ticked: %+v", got)
	}
	for range 2 {
		c, err := q.ResumeCron(t.Context(), "c")
		if err != nil || c.Paused || c.NextAt.String() != "2026-05-01T13:00:00.000Z" {
			t.Fatalf("resumed: %+v, %v", c, err)
		}
	}
	if c, err := q.ResumeCron(t.Context(), "every"); err != nil || c.NextAt.String() != "2026-05-01T12:35:00.000Z" {
		t.Errorf("every 40 minutes from 09:55 goes on at %+v, %v", c, err)
	}
	if got := tick(t, q); len(got.Done) != 0 || *got.Next != 20*time.Minute {
		t.Errorf("after it was resumed: %+v", got)
	}
	for _, err := range []error{
		second(q.PauseCron(t.Context(), "none")), second(q.ResumeCron(t.Context(), "none")), second(q.Cron(t.Context(), "none")),
		second(q.TriggerCron(t.Context(), "none")), q.DeleteCron(t.Context(), "none"),
	} {
		if !errors.Is(err, queue.ErrNoCron) {
			t.Errorf("a schedule that does not exist: %v", err)
		}
	}
}

func second[T any](_ T, err error) error { return err }

func TestATriggeredScheduleStoresAJobAndStaysWhereItIs(t *testing.T) {
	t.Parallel()
	q, _ := setupCron(t, "2026-05-01T09:15:00Z")
	before := setCron(t, q, queue.NewCron{Name: "c", Queue: "q", Priority: -3, Payload: json.RawMessage("5")})
	if _, err := q.PauseCron(t.Context(), "c"); err != nil {
		t.Fatal(err)
	}
	ids := map[string]bool{}
	for range 2 {
		e, err := q.TriggerCron(t.Context(), "c")
		if err != nil || e.Duplicate {
			t.Fatalf("%+v, %v", e, err)
		}
		ids[e.ID] = true
		if j := get(t, q, e.ID); j.Queue != "q" || j.Priority != -3 || string(j.Payload) != "5" || j.IdempotencyKey != nil {
			t.Errorf("job %+v", j)
		}
	}
	after, err := q.ResumeCron(t.Context(), "c")
	if err != nil || len(ids) != 2 || !ids[*after.LastJobID] || *after.NextAt != *before.NextAt || after.LastTick != nil {
		t.Errorf("%d jobs; stands at %+v, %v", len(ids), after, err)
	}
}

func TestAScheduleThatMustNotOverlapWaitsForItsLastJob(t *testing.T) {
	t.Parallel()
	q, clock := setupCron(t, "2026-05-01T09:15:00Z")
	setCron(t, q, queue.NewCron{Name: "c", Overlap: queue.OverlapSkip})
	clock.advance(time.Hour)
	first := tick(t, q).Done[0].JobID
	clock.advance(time.Hour)
	if got := tick(t, q); ticked(got) != "skipped 11:00" || got.Done[0].JobID != "" {
		t.Errorf("while it is queued: %+v", got)
	}
	if e, err := q.TriggerCron(t.Context(), "c"); err != nil || e.ID != first || !e.Duplicate {
		t.Errorf("triggered: %+v, %v; want %s as a duplicate", e, err, first)
	}
	c := claimOne(t, q)
	clock.advance(time.Hour)
	if got := ticked(tick(t, q)); got != "skipped 12:00" {
		t.Errorf("while it runs: %s", got)
	}
	finish(t, q, c.Lease, queue.Outcome{Kind: queue.Failed, Error: "again"}) // queued again: not over
	clock.advance(time.Hour)
	if got := ticked(tick(t, q)); got != "skipped 13:00" {
		t.Errorf("while it waits for its next attempt: %s", got)
	}
	finish(t, q, claimOne(t, q).Lease, queue.Outcome{Kind: queue.Completed})
	e, err := q.TriggerCron(t.Context(), "c")
	if err != nil || e.Duplicate {
		t.Errorf("triggered when it was over: %+v, %v", e, err)
	}
	clock.advance(time.Hour)
	if got := ticked(tick(t, q)); got != "skipped 14:00" {
		t.Errorf("while the triggered one is queued: %s", got)
	}
	exec(t, q, "DELETE FROM jobs") // pruned
	clock.advance(time.Hour)
	if got := ticked(tick(t, q)); got != "stored 15:00" {
		t.Errorf("when its last job is gone: %s", got)
	}
}

func TestOneBrokenScheduleStopsNoOther(t *testing.T) {
	t.Parallel()
	q, clock := setupCron(t, "2026-05-01T09:15:00Z")
	setCron(t, q, queue.NewCron{Name: "a"})
	setCron(t, q, queue.NewCron{Name: "b"})
	exec(t, q, "UPDATE cron SET tz = 'Mars/Olympus_Mons' WHERE name = 'a'")
	clock.advance(time.Hour)
	got := tick(t, q)
	if ticked(got) != "stored 10:00" || got.Done[0].Name != "b" || len(got.Broken) != 1 || !strings.Contains(got.Broken["a"].Error(), "tz: is no time zone") {
		t.Fatalf("%+v", got)
	}
	if *got.Next != 45*time.Minute {
		t.Errorf("next in %s, want the time of the one that works", got.Next)
	}
	setCron(t, q, queue.NewCron{Name: "a", TZ: "UTC"})
	clock.advance(time.Hour)
	if got := ticked(tick(t, q)); got != "stored 11:00, stored 11:00" {
		t.Errorf("once it was mended: %s", got)
	}
}

func TestSchedulesAreListedByName(t *testing.T) {
	t.Parallel()
	q, _ := setup(t)
	if list, next, err := q.Crons(t.Context(), "", 2); err != nil || list == nil || len(list) != 0 || next != "" {
		t.Errorf("none: %v, %q, %v", list, next, err)
	}
	for _, name := range []string{"c", "a", "b"} {
		setCron(t, q, queue.NewCron{Name: name})
	}
	list, next, err := q.Crons(t.Context(), "", 2)
	if err != nil || len(list) != 2 || list[0].Name != "a" || list[1].Name != "b" || next != "b" {
		t.Errorf("%v, %q, %v", list, next, err)
	}
	list, next, err = q.Crons(t.Context(), next, 2)
	if err != nil || len(list) != 1 || list[0].Name != "c" || next != "" {
		t.Errorf("%v, %q, %v", list, next, err)
	}
	if err := q.DeleteCron(t.Context(), "b"); err != nil {
		t.Error(err)
	}
	if list, _, _ = q.Crons(t.Context(), "", 9); len(list) != 2 {
		t.Errorf("after one was deleted: %v", list)
	}
}

func TestABadScheduleIsRefusedWithItsField(t *testing.T) {
	t.Parallel()
	q, _ := setup(t)
	good := queue.NewCron{Name: "c", Schedule: "@daily", Type: "x"}
	for _, c := range []struct {
		field, reason string
		change        func(*queue.NewCron)
	}{
		{"name", "must be 1 to 100", func(n *queue.NewCron) { n.Name = "" }},
		{"name", "must be 1 to 100", func(n *queue.NewCron) { n.Name = "a:b" }},
		{"name", "must be 1 to 100", func(n *queue.NewCron) { n.Name = "-a" }},
		{"name", "must be 1 to 100", func(n *queue.NewCron) { n.Name = strings.Repeat("a", 101) }},
		{"schedule", "is required", func(n *queue.NewCron) { n.Schedule = "" }},
		{"schedule", "field 1, the minute", func(n *queue.NewCron) { n.Schedule = "61 * * * *" }},
		{"schedule", "never comes", func(n *queue.NewCron) { n.Schedule = "0 0 30 2 *" }},
		{"schedule", "it goes into tz", func(n *queue.NewCron) { n.Schedule = "CRON_TZ=UTC @daily" }},
		{"tz", "is no time zone", func(n *queue.NewCron) { n.TZ = "Europe/Nowhere" }},
		{"catch_up", `must be "one", "all" or "none"`, func(n *queue.NewCron) { n.CatchUp = "some" }},
		{"overlap", `must be "allow" or "skip"`, func(n *queue.NewCron) { n.Overlap = "queue" }},
		{"overlap", "must not be \"skip\" together", func(n *queue.NewCron) { n.CatchUp, n.Overlap = queue.CatchUpAll, queue.OverlapSkip }},
		{"type", "is required", func(n *queue.NewCron) { n.Type = "" }},
		{"queue", "control character", func(n *queue.NewCron) { n.Queue = "a\nb" }},
		{"priority", "must be between", func(n *queue.NewCron) { n.Priority = 101 }},
		{"payload", "is not a JSON value", func(n *queue.NewCron) { n.Payload = json.RawMessage("{") }},
		{"payload", "is not valid UTF-8", func(n *queue.NewCron) { n.Payload = json.RawMessage("\"\xff\"") }},
	} {
		n := good
		c.change(&n)
		_, _, err := q.SetCron(t.Context(), n)
		var inv *job.Invalid
		if !errors.As(err, &inv) || inv.Field != c.field || !strings.Contains(inv.Reason, c.reason) {
			t.Errorf("%+v: %v, want %s: %s", n, err, c.field, c.reason)
		}
	}
}
