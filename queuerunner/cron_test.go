package main

import (
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/postroom/postroom/core/job"
	"github.com/postroom/postroom/core/queue"
)

type cronPage struct {
	Cron []queue.Cron `json:"cron"`
	Next *string      `json:"next_cursor"`
}

func TestCron(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	out := fine(t, db.path, "cron", "set", "report", "30 2 * * *", "a.type", "-tz", "Europe/Berlin", "-catch-up", "none",
		"-overlap", "skip", "-queue", "q", "-priority", "7", "-payload", `{"x":1}`)
	if !regexp.MustCompile(`^report comes next at \d{4}-\d\d-\d\dT0[01]:30:00\.000Z\n$`).MatchString(out) {
		t.Errorf("%q", out)
	}
	s := decode[queue.Cron](t, fine(t, db.path, "cron", "show", "-json", "report"))
	if s.Name != "report" || s.Schedule != "30 2 * * *" || s.TZ != "Europe/Berlin" || s.CatchUp != queue.CatchUpNone || s.Overlap != queue.OverlapSkip ||
		s.Type != "a.type" || *s.Queue != "q" || s.Priority != 7 || string(s.Payload) != `{"x":1}` {
		t.Errorf("%+v", s)
	}
	out = fine(t, db.path, "cron", "show", "report")
	if strings.Count(out, "comes at") != 3 || !regexp.MustCompile(`comes at   \d{4}-\d\d-\d\dT0[23]:[03]0:00\+0[12]:00\n`).MatchString(out) || !strings.Contains(out, "catch up   none\n") {
		t.Error(out)
	}

	id := strings.TrimSpace(fine(t, db.path, "cron", "trigger", "report"))
	if j := db.job(id); j.Type != "a.type" || j.Queue != "q" || j.Priority != 7 || string(j.Payload) != `{"x":1}` {
		t.Errorf("%+v", j)
	}
	if r := cli(t, db.path, "cron", "trigger", "report"); r.code != exitFine || r.out != id+"\n" || !strings.Contains(r.err, "nothing was stored") {
		t.Errorf("%+v", r)
	}
	if e := decode[queue.Enqueued](t, fine(t, db.path, "cron", "trigger", "-json", "report")); e.ID != id || !e.Duplicate {
		t.Errorf("%+v", e)
	}

	if out = fine(t, db.path, "cron", "pause", "report"); out != "report is paused\n" {
		t.Errorf("%q", out)
	}
	if out = fine(t, db.path, "cron", "set", "report", "@daily", "a.type"); out != "report is paused\n" {
		t.Errorf("%q", out)
	}
	if out = fine(t, db.path, "cron", "show", "report"); strings.Contains(out, "comes at") || !strings.Contains(out, "paused     true\n") {
		t.Error(out)
	}
	fine(t, db.path, "cron", "set", "another", "@every 90m", "b.type")
	out = fine(t, db.path, "cron", "list")
	lines := strings.Split(out, "\n")
	if len(lines) != 4 || !strings.HasPrefix(lines[0], "NAME ") || !strings.HasPrefix(lines[1], "another  @every 90m  UTC  b.type  active  20") ||
		!regexp.MustCompile(`^report +@daily +UTC +a\.type +paused +- +-$`).MatchString(lines[2]) {
		t.Error(out)
	}
	p := decode[cronPage](t, fine(t, db.path, "cron", "list", "-json", "-limit", "1"))
	if len(p.Cron) != 1 || p.Cron[0].Name != "another" || p.Next == nil {
		t.Fatalf("%+v", p)
	}
	p = decode[cronPage](t, fine(t, db.path, "cron", "list", "-json", "-cursor", *p.Next))
	if len(p.Cron) != 1 || p.Cron[0].Name != "report" || p.Next != nil {
		t.Errorf("%+v", p)
	}
	if out = fine(t, db.path, "cron", "resume", "report"); !strings.HasPrefix(out, "report comes next at ") {
		t.Errorf("%q", out)
	}
	if out = fine(t, db.path, "cron", "delete", "report"); out != "report is deleted\n" {
		t.Errorf("%q", out)
	}
	for _, verb := range []string{"show", "pause", "resume", "trigger", "delete"} {
		if r := cli(t, db.path, "cron", verb, "report"); r.code != exitFailed || !strings.Contains(r.err, "no such schedule") {
			t.Errorf("%s: %+v", verb, r)
		}
	}
}

func TestARunnerKeepsSchedules(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	startRunner(t, db.path)
	fine(t, db.path, "cron", "set", "c", "@every 1s", job.DebugEcho, "-payload", `"hello"`)
	var s queue.Cron
	await(t, "a tick", func() bool {
		s = decode[queue.Cron](t, fine(t, db.path, "cron", "show", "-json", "c"))
		return s.LastJobID != nil
	})
	if j := db.await(*s.LastJobID, job.Completed); string(j.Result) != `"hello"` || !strings.HasPrefix(*j.IdempotencyKey, "cron:c:20") {
		t.Errorf("%+v", j)
	}
}

// Runners are killed while they keep a schedule, and for a while there is none.
func TestKilledRunnersNeitherSkipNorRepeatATick(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	first := decode[queue.Cron](t, fine(t, db.path, "cron", "set", "c", "@every 1s", job.DebugEcho, "-catch-up", "all", "-json")).NextAt.Time()
	standsAt := func() time.Time {
		c, err := db.q.Cron(t.Context(), "c")
		if err != nil {
			t.Fatal(err)
		}
		return c.NextAt.Time()
	}
	for round := range 4 {
		a, b := startRunner(t, db.path), startRunner(t, db.path)
		before := standsAt()
		await(t, "a tick", func() bool { return standsAt().After(before) })
		a.signal(syscall.SIGKILL)
		b.signal(syscall.SIGKILL)
		a.exit()
		b.exit()
		if round == 2 {
			missed := standsAt().Add(2 * time.Second)
			await(t, "ticks to be missed", func() bool { return time.Now().After(missed) })
		}
	}
	page, err := db.q.List(t.Context(), queue.Filter{}, 1000, 0)
	if err != nil {
		t.Fatal(err)
	}
	stored := map[time.Time]int{}
	for _, j := range page.Jobs {
		_, at, _ := queue.TickOf(*j.IdempotencyKey)
		stored[at]++
	}
	end, n := standsAt(), 0
	for at := first; at.Before(end); at = at.Add(time.Second) {
		if n++; stored[at] != 1 {
			t.Errorf("%d jobs for %s", stored[at], at)
		}
	}
	if n < 6 || n != len(page.Jobs) {
		t.Errorf("%d jobs for %d ticks", len(page.Jobs), n)
	}
}
