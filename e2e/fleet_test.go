package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/postroom/postroom/core/libsql"
)

// fleet is runners on one server that have a backlog to work.
type fleet struct {
	*system
	db      libsql.DB
	runners []*process
	jobs    int
}

// newFleet stores a backlog of no-op jobs in a queue that rests until work is
// called, and starts runners.
func newFleet(tb testing.TB, runners, n int, env ...string) *fleet {
	tb.Helper()
	s := newSystemOnServer(tb, append([]string{"QUEUE_DEBUG_JOBS=true", "QUEUE_CONCURRENCY=500", "QUEUE_LEASE=60s"}, env...)...)
	api := s.server()
	f := &fleet{system: s, db: s.open(), jobs: n}
	api.enqueue(jobs(1, "debug.echo", func(int) any { return "first" })) // makes the queue
	if r := api.postJSON("/v1/queues/default/pause", ""); r.status != http.StatusOK {
		tb.Fatalf("pause: %d %s", r.status, r.body)
	}
	payload := strings.Repeat("x", 200)
	for left := n - 1; left > 0; left -= 5000 {
		api.enqueue(jobs(min(left, 5000), "debug.echo", func(int) any { return payload }))
	}
	if code := api.stop(); code != 0 {
		tb.Fatalf("the apiserver ended with %d", code)
	}
	for range runners {
		f.runners = append(f.runners, s.runner())
	}
	return f
}

// work lets the runners work and returns jobs per second, from the first claim
// to the last completion by the clock of the database, and each runner's share.
func (f *fleet) work() (perSecond float64, shares []int64) {
	f.Helper()
	if out, err := f.tool("queuerunner", "queues", "resume", "default"); err != nil {
		f.Fatalf("resume: %v\n%s", err, out)
	}
	f.Cleanup(func() {
		if f.Failed() {
			for _, r := range f.rows(f.db, "SELECT CAST(state AS BLOB), CAST(claimed_by AS BLOB), count(*), min(lease_expires_at) - (SELECT ms FROM db_clock), count(ready_key) FROM jobs GROUP BY 1, 2") {
				f.Logf("%s %s %d jobs, lease %d ms, in line %d", r.Str(0), r.Str(1), r.Int(2), r.Int(3), r.Int(4))
			}
		}
	})
	f.untilEvery(500*time.Millisecond, "the backlog is worked", func() bool {
		return f.count(f.db, `SELECT EXISTS (SELECT 1 FROM jobs INDEXED BY jobs_ready WHERE ready_key IS NOT NULL)
			OR EXISTS (SELECT 1 FROM jobs INDEXED BY jobs_lease WHERE state = 'running' AND lease_expires_at IS NOT NULL)`) == 0
	})
	took := f.count(f.db, "SELECT max(finished_at) - min(started_at) FROM job_runs")
	for _, r := range f.runners {
		shares = append(shares, f.count(f.db, "SELECT count(*) FROM job_runs WHERE runner = ?", r.runnerID()))
	}
	for _, r := range f.runners {
		for line := range strings.Lines(r.log.String()) {
			if strings.Contains(line, `"level":"error"`) || strings.Contains(line, `"level":"warn"`) {
				f.Errorf("a runner said %s", line)
			}
		}
		if code := r.stop(); code != 0 {
			f.Errorf("a runner ended with %d", code)
		}
	}
	f.exactlyOnce(f.db, f.jobs)
	if n := f.count(f.db, "SELECT count(*) FROM job_runs"); n != int64(f.jobs) {
		f.Errorf("%d runs for %d jobs", n, f.jobs)
	}
	return float64(f.jobs) * 1000 / float64(took), shares
}

// Runners that work a backlog on one server share it without a word of trouble.
func TestRunnersOnAServerShareABacklog(t *testing.T) {
	t.Parallel()
	perSecond, shares := newFleet(t, 4, 4000*scale(t)).work()
	t.Logf("%.0f jobs/s, shares %v", perSecond, shares)
	for i, n := range shares {
		if n == 0 {
			t.Errorf("runner %d had no share", i)
		}
	}
}

// ceiling is how many jobs a second a lean table and plain SQL do on a server
// of their own: claim and complete, so many at a time.
func ceiling(tb testing.TB, n, batch int) float64 {
	tb.Helper()
	s := newSystemOnServer(tb)
	if out, err := s.tool("queuerunner", "migrate", "up"); err != nil {
		tb.Fatalf("%v\n%s", err, out)
	}
	db, err := libsql.Open(s.Context(), libsql.Options{Path: s.sqld.URL, Admin: s.sqld.Admin}) // synced, as the fleet's
	if err != nil {
		tb.Fatal(err)
	}
	defer func() { _ = db.Close(s.Context()) }() // the server ends with the test
	write := func(sql string, args ...any) []libsql.Row {
		tb.Helper()
		var b libsql.Batch
		if strings.Contains(sql, "RETURNING") {
			b.Query(sql, args...)
		} else {
			b.Exec(sql, args...)
		}
		res, err := db.Write(s.Context(), &b)
		if err != nil {
			tb.Fatal(err)
		}
		return res[0].Rows
	}
	write("CREATE TABLE lean(id INTEGER PRIMARY KEY, state TEXT NOT NULL, ready INTEGER NOT NULL, key TEXT NOT NULL UNIQUE, payload TEXT NOT NULL, result TEXT)")
	write("CREATE INDEX lean_ready ON lean(ready, id) WHERE state = 'queued'")
	write(`INSERT INTO lean(state, ready, key, payload) WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)
		SELECT 'queued', i, hex(randomblob(16)), ? FROM n`, n, `"`+strings.Repeat("x", 200)+`"`)
	began := time.Now()
	for done := 0; done < n; {
		rows := write(`UPDATE lean SET state = 'running' WHERE id IN (SELECT id FROM lean INDEXED BY lean_ready WHERE state = 'queued' ORDER BY ready, id LIMIT ?)
			RETURNING id, CAST(payload AS BLOB)`, batch)
		ids := make([]string, len(rows))
		for i, r := range rows {
			ids[i] = fmt.Sprint(r.Int(0))
		}
		write(`UPDATE lean SET state = 'done', result = '{"ok":true}' FROM json_each(?) AS e WHERE lean.id = e.value AND +state = 'running'`, "["+strings.Join(ids, ",")+"]")
		done += len(rows)
	}
	return float64(n) / time.Since(began).Seconds()
}

// BenchmarkRunnersOnAServer reports how fast 1, 2 and 4 runners work a backlog
// on one server, beside what a lean table and plain SQL do there.
//
//	cd e2e && POSTROOM_E2E_SCALE=10 go test -run '^$' -bench RunnersOnAServer -benchtime 1x -timeout 20m .
func BenchmarkRunnersOnAServer(b *testing.B) {
	n := 5000 * scale(b)
	for _, batch := range []int{100, 1000} {
		b.Run(fmt.Sprintf("lean/%d", batch), func(b *testing.B) {
			b.ReportMetric(ceiling(b, n, batch), "jobs/s")
			b.ReportMetric(0, "ns/op")
		})
	}
	for _, runners := range []int{1, 2, 4} {
		b.Run(fmt.Sprintf("runners/%d", runners), func(b *testing.B) {
			perSecond, shares := newFleet(b, runners, n).work()
			b.ReportMetric(perSecond, "jobs/s")
			b.ReportMetric(spread(shares), "least/most")
			b.ReportMetric(0, "ns/op")
		})
	}
}

func spread(shares []int64) float64 {
	least, most := shares[0], shares[0]
	for _, n := range shares {
		least, most = min(least, n), max(most, n)
	}
	return float64(least) / float64(most)
}

// BenchmarkASlowLink reports how fast one runner works a backlog on a server
// that is 50 ms away.
//
//	cd e2e && POSTROOM_E2E_SCALE=10 go test -run '^$' -bench ASlowLink -benchtime 1x -timeout 20m .
func BenchmarkASlowLink(b *testing.B) {
	f := newFleet(b, 0, 5000*scale(b))
	l := newLink(b, f.sqld.URL, 50*time.Millisecond)
	f.runners = append(f.runners, f.over(l).runner())
	perSecond, _ := f.work()
	b.ReportMetric(perSecond, "jobs/s")
	b.ReportMetric(0, "ns/op")
}
