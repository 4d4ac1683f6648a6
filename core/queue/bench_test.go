package queue_test

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/postroom/postroom/core/internal/dbtest"
	"github.com/postroom/postroom/core/job"
	"github.com/postroom/postroom/core/libsql"
	"github.com/postroom/postroom/core/queue"
	"github.com/postroom/postroom/core/system"
)

// What the claim costs beside large tables. By hand, each a few minutes:
//
//	go test -run '^$' -bench Beside -benchtime 300x -timeout 1h ./queue

// fill stores n jobs that look like those of the queue's own making.
func fill(b *testing.B, q *queue.Queue, n int, columns, values string) {
	b.Helper()
	const chunk = 20_000
	for done := 0; done < n; done += chunk {
		var batch libsql.Batch
		batch.Exec(`INSERT INTO jobs(id, type, queue, payload_json, created_at, updated_at, `+columns+`)
		 WITH RECURSIVE i(n) AS (SELECT ? UNION ALL SELECT n + 1 FROM i WHERE n + 1 < ?)
		 SELECT '01930000-0000-7000-8000-' || lower(hex(randomblob(6))), 'debug.echo', 'default', '{"n":1}', c.ms - 86400000 + n, c.ms, `+values+`
		 FROM i, db_clock AS c`, done, min(done+chunk, n))
		if _, err := q.DB().Write(b.Context(), &batch); err != nil {
			b.Fatal(err)
		}
	}
}

func future(b *testing.B, q *queue.Queue, n int) {
	fill(b, q, n, "state, not_before", "'queued', c.ms + 86400000000 + n")
}

func finished(b *testing.B, q *queue.Queue, n int, state string, ago time.Duration) {
	fill(b, q, n, "state, finished_at, claims, attempts", fmt.Sprintf("'%s', c.ms - %d + n / 1000, 1, 1", state, ago.Milliseconds()))
}

func percentile(d []time.Duration, p int) float64 {
	slices.Sort(d)
	return float64(d[len(d)*p/100].Microseconds()) / 1000
}

// claimOnce stores n jobs, gives back how long a claim of ten of them took, and
// finishes them all.
func claimOnce(b *testing.B, q *queue.Queue, n int) (took time.Duration) {
	b.Helper()
	store(b, q, n)
	began := time.Now()
	first := take(b, q, 10)
	took = time.Since(began)
	complete(b, q, first)
	if n > 10 {
		complete(b, q, take(b, q, n-10))
	}
	return took
}

func store(b *testing.B, q *queue.Queue, n int) {
	b.Helper()
	jobs := make([]job.New, n)
	for i := range jobs {
		jobs[i] = job.New{Type: job.DebugEcho}
	}
	if _, err := q.EnqueueMany(b.Context(), jobs); err != nil {
		b.Fatal(err)
	}
}

func take(b *testing.B, q *queue.Queue, n int) []queue.Claimed {
	b.Helper()
	c, err := q.Claim(b.Context(), queue.ClaimRequest{Runner: "r", Token: q.NewToken(), Types: job.Known().Names(), Limit: n, Lease: time.Hour})
	if err != nil || len(c.Jobs) != n {
		b.Fatalf("claimed %d of %d, %v", len(c.Jobs), n, err)
	}
	return c.Jobs
}

// complete ends jobs as a worker does: each by itself, all at once.
func complete(b *testing.B, q *queue.Queue, jobs []queue.Claimed) {
	b.Helper()
	var done sync.WaitGroup
	for _, j := range jobs {
		done.Go(func() {
			if _, err := q.Finish(b.Context(), j.Lease, queue.Outcome{Kind: queue.Completed}); err != nil {
				b.Error(err)
			}
		})
	}
	done.Wait()
}

// BenchmarkClaimBesideOthers compares a claim of ten among a hundred ready
// jobs alone with one beside a million future and a million finished jobs.
func BenchmarkClaimBesideOthers(b *testing.B) {
	for _, name := range []string{"a hundred ready jobs alone", "beside a million future and a million finished jobs"} {
		b.Run(name, func(b *testing.B) {
			q := queue.New(dbtest.Open(b), system.Real{}, job.Known())
			if name[0] == 'b' {
				future(b, q, 1_000_000)
				finished(b, q, 1_000_000, "completed", time.Minute)
			}
			took := make([]time.Duration, b.N)
			b.ResetTimer()
			for i := range b.N {
				took[i] = claimOnce(b, q, 100)
			}
			b.ReportMetric(percentile(took, 50), "p50-ms")
			b.ReportMetric(percentile(took, 99), "p99-ms")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// BenchmarkClaimBesideAThrottledKey measures how long jobs of other keys wait
// for their claim while a hundred thousand wait for a key that may start one a
// second.
func BenchmarkClaimBesideAThrottledKey(b *testing.B) {
	for _, waiting := range []int{0, 100_000} {
		b.Run(fmt.Sprintf("%d waiting", waiting), func(b *testing.B) {
			q := queue.New(dbtest.Open(b), system.Real{}, job.Known())
			if err := q.SetLimit(b.Context(), queue.Limit{Scope: queue.LimitKey, Name: "slow", Interval: time.Second}); err != nil {
				b.Fatal(err)
			}
			for stored := 0; stored < waiting; stored += 1000 {
				jobs := make([]job.New, 1000)
				for i := range jobs {
					jobs[i] = job.New{Type: job.DebugEcho, LimitKey: "slow"}
				}
				if _, err := q.EnqueueMany(b.Context(), jobs); err != nil {
					b.Fatal(err)
				}
			}
			took := make([]time.Duration, b.N)
			b.ResetTimer()
			for i := range b.N {
				began := time.Now()
				e, err := q.Enqueue(b.Context(), job.New{Type: job.DebugEcho, LimitKey: "fast"})
				if err != nil {
					b.Fatal(err)
				}
				for claimed := false; !claimed; {
					c, err := q.Claim(b.Context(), queue.ClaimRequest{Runner: "r", Token: q.NewToken(), Types: job.Known().Names(), Limit: 10, Lease: time.Hour})
					if err != nil {
						b.Fatal(err)
					}
					for _, j := range c.Jobs {
						claimed = claimed || j.JobID == e.ID
						if _, err := q.Finish(b.Context(), j.Lease, queue.Outcome{Kind: queue.Completed}); err != nil {
							b.Fatal(err)
						}
					}
				}
				took[i] = time.Since(began)
			}
			b.ReportMetric(percentile(took, 50), "p50-ms")
			b.ReportMetric(percentile(took, 99), "p99-ms")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// BenchmarkClaimBesideRetention compares claims with and without a million
// finished jobs being pruned at the same time, as a worker does it.
func BenchmarkClaimBesideRetention(b *testing.B) {
	for _, pruning := range []bool{false, true} {
		b.Run(fmt.Sprintf("pruning %v", pruning), func(b *testing.B) {
			q := queue.New(dbtest.Open(b), system.Real{}, job.Known())
			finished(b, q, 1_000_000, "failed", 100*time.Hour)
			stop := make(chan struct{})
			pruned := make(chan int, 1)
			go func() {
				total := 0
				for size := 50; pruning; {
					select {
					case <-stop:
						pruned <- total
						return
					default:
					}
					began := time.Now()
					n, err := q.Prune(b.Context(), queue.Retention{Failed: time.Hour}, size)
					if err != nil {
						b.Error(err)
					}
					total += n
					took := time.Since(began)
					if took > 4*time.Millisecond {
						size = max(size/2, 10)
					} else if took < 2*time.Millisecond {
						size = min(size*2, 500)
					}
					<-time.After(max(4*took, 2*time.Millisecond))
				}
				pruned <- 0
			}()
			took := make([]time.Duration, b.N)
			b.ResetTimer()
			for i := range b.N {
				took[i] = claimOnce(b, q, 10)
			}
			b.StopTimer()
			close(stop)
			b.ReportMetric(percentile(took, 50), "p50-ms")
			b.ReportMetric(percentile(took, 99), "p99-ms")
			b.ReportMetric(float64(<-pruned)/b.Elapsed().Seconds(), "pruned/s")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// BenchmarkTransitionLog measures what the log costs: the life of jobs, 500 at
// a time, with its triggers and without them.
//
//	go test -run '^$' -bench TransitionLog -benchtime 40x -count 5 ./queue
func BenchmarkTransitionLog(b *testing.B) {
	for _, log := range []bool{true, false} {
		b.Run(fmt.Sprintf("log %v", log), func(b *testing.B) {
			q := queue.New(dbtest.Open(b), system.Real{}, job.Known())
			if !log {
				var drop libsql.Batch
				drop.Exec("DROP TRIGGER jobs_log_insert")
				drop.Exec("DROP TRIGGER jobs_log_update")
				if _, err := q.DB().Write(b.Context(), &drop); err != nil {
					b.Fatal(err)
				}
			}
			b.ResetTimer()
			for range b.N {
				store(b, q, 500)
				complete(b, q, take(b, q, 500))
			}
			b.ReportMetric(float64(500*b.N)/b.Elapsed().Seconds(), "jobs/s")
			b.ReportMetric(0, "ns/op")
		})
	}
}
