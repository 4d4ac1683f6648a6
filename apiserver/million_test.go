package main

import (
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/postroom/postroom/core/libsql"
)

// fill stores jobs in all states, as a service leaves them that has run for
// long: most have completed, few wait, and a type is rare.
func fill(b *testing.B, s service, jobs int) {
	b.Helper()
	const part = 20_000
	for from := 0; from < jobs; from += part {
		var batch libsql.Batch
		batch.Exec(`INSERT INTO jobs(id, type, queue, state, attempts, claims, payload_json, result_json, last_error, ready_key, not_before, finished_at, created_at, updated_at)
		 WITH RECURSIVE n(i) AS (SELECT ?1 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < ?2)
		 SELECT printf('0193f1a0-8c5e-7abc-8def-%012d', i), iif(i % 50000 = 7, 'rare', 'type' || i % 5), 'queue' || i % 3, state, 1, 1,
		   json_object('user', json_object('id', i % 1000), 'text', hex(randomblob(100))), '{"ok":true}', iif(state = 'failed', CAST('no' AS BLOB), NULL),
		   iif(state = 'queued' AND i % 2, c.ms - i % 1000, NULL), iif(state = 'queued' AND NOT i % 2, c.ms + 86400000, NULL), iif(state = 'queued', NULL, c.ms), c.ms, c.ms
		 FROM (SELECT i, CASE WHEN i % 100 < 2 THEN 'queued' WHEN i % 100 < 5 THEN 'canceled' WHEN i % 100 < 10 THEN 'failed' ELSE 'completed' END AS state FROM n), db_clock AS c`, from, min(from+part, jobs))
		if _, err := s.queue.DB().Write(b.Context(), &batch); err != nil {
			b.Fatal(err)
		}
	}
	var counts libsql.Batch // which claims would have kept
	counts.Exec(`INSERT INTO queue_counts(queue, state, jobs) SELECT queue, state, count(*) FROM jobs GROUP BY queue, state`)
	counts.Exec(`UPDATE meta SET value = (SELECT CAST(max(seq) AS TEXT) FROM job_log) WHERE key = 'log_counted_to'`)
	if _, err := s.queue.DB().Write(b.Context(), &counts); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkViews asks for what the pages show, with so many jobs in the
// database: POSTROOM_BENCH_JOBS, 1,000,000 if it is not set.
func BenchmarkViews(b *testing.B) {
	jobs := 1_000_000
	if given, err := strconv.Atoi(os.Getenv("POSTROOM_BENCH_JOBS")); err == nil {
		jobs = given
	}
	s, _ := newService(b, io.Discard)
	handler, err := newHandler(s)
	if err != nil {
		b.Fatal(err)
	}
	fill(b, s, jobs)
	const last = "/v1/jobs/0193f1a0-8c5e-7abc-8def-000000000001"
	for name, path := range map[string]string{
		"jobs": "/v1/jobs", "jobs of a state": "/v1/jobs?state=failed", "queued jobs": "/v1/jobs?state=queued", "running jobs, of which there are none": "/v1/jobs?state=running",
		"jobs of a rare type": "/v1/jobs?type=rare", "jobs of a type that is not there": "/v1/jobs?type=none", "jobs by key": "/v1/jobs?key=none", "jobs of a queue": "/v1/jobs?queue=queue1",
		"jobs by a field of the payload": "/v1/jobs?payload=user.id=7", "jobs by a field that is nowhere": "/v1/jobs?payload=none=7", "jobs of a time": "/v1/jobs?created_before=2020-01-01T00:00:00Z",
		"a job": last, "why": last + "/why", "queues": "/v1/queues", "runners": "/v1/runners", "limits": "/v1/limits", "cron": "/v1/cron", "me": "/v1/me", "configuration": "/v1/config",
		"actions": "/v1/actions?status=approved_pending", "messages": "/v1/messages", "rules": "/v1/rules", "accounts": "/v1/accounts", "tasks": "/v1/tasks", "health": "/healthz",
	} {
		b.Run(name, func(b *testing.B) {
			var took []time.Duration
			for b.Loop() {
				r := httptest.NewRequestWithContext(b.Context(), http.MethodGet, "http://localhost"+path, http.NoBody)
				r.RemoteAddr = "127.0.0.1:1"
				w := httptest.NewRecorder()
				begin := time.Now()
				handler.ServeHTTP(w, r)
				took = append(took, time.Since(begin))
				if w.Code != http.StatusOK {
					b.Fatalf("%s: %d %s", path, w.Code, w.Body)
				}
			}
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "p50-ms")
			b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "p99-ms")
		})
	}
}
