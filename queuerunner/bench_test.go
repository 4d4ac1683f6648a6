package main

import (
	"bytes"
	"context"
	"strings"
	"testing"

	"github.com/postroom/postroom/core/job"
	"github.com/postroom/postroom/core/queue"
)

func TestBench(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	kept := db.enqueue(job.DebugEcho, `1`)

	f := decode[benchFigures](t, fine(t, db.path, "bench", "-jobs", "100", "-json"))
	for _, r := range []benchRate{f.One, f.Many, f.Bulk, f.Work} {
		if r.Jobs < 1 || r.PerSecond <= 0 {
			t.Errorf("%+v", f)
		}
	}
	if f.PickupP50 <= 0 || f.PickupP99 < f.PickupP50 || f.Work.Jobs != 112 {
		t.Errorf("%+v", f)
	}
	out := fine(t, db.path, "bench", "-jobs", "100")
	for _, want := range []string{"enqueue, one caller", "enqueue, 64 callers", "work no-op jobs, concurrency 10", "pickup at 100 jobs/s"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in %s", want, out)
		}
	}
	db.onlyHas(t, kept)
}

func TestAnInterruptedBenchCleansUp(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	kept := db.enqueue(job.DebugEcho, `1`)
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	var out, errs bytes.Buffer
	code := make(chan int, 1)
	go func() {
		code <- run(ctx, []string{"bench", "-jobs", "1000000", "-set", "paths.database=" + db.path}, noEnvironment, strings.NewReader(""), &out, &errs)
	}()
	await(t, "something is stored", func() bool { return len(db.queues()) == 2 })
	interrupt()
	if got := <-code; got != exitFailed || out.Len() > 0 || !strings.Contains(errs.String(), "interrupted; what was stored is gone") {
		t.Errorf("exit %d, stdout %q, stderr %q", got, &out, &errs)
	}
	db.onlyHas(t, kept)
}

func noEnvironment(string) (string, bool) { return "", false }

func (d *database) queues() []queue.Depth {
	d.t.Helper()
	list, err := d.q.Queues(d.t.Context())
	if err != nil {
		d.t.Fatal(err)
	}
	return list
}

// onlyHas checks that one job and its queue are all that is stored.
func (d *database) onlyHas(t *testing.T, id string) {
	t.Helper()
	page, err := d.q.List(t.Context(), queue.Filter{}, 10, 0)
	if err != nil || len(page.Jobs) != 1 || page.Jobs[0].ID != id {
		t.Errorf("%+v, %v", page, err)
	}
	if list := d.queues(); len(list) != 1 {
		t.Errorf("%+v", list)
	}
	if rep, err := d.q.Verify(t.Context()); err != nil || len(rep.Violations) > 0 {
		t.Errorf("%+v, %v", rep, err)
	}
}
