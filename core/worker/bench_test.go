package worker_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/postroom/postroom/core/internal/dbtest"
	"github.com/postroom/postroom/core/job"
	"github.com/postroom/postroom/core/libsql"
	"github.com/postroom/postroom/core/queue"
	"github.com/postroom/postroom/core/step"
	"github.com/postroom/postroom/core/system"
	"github.com/postroom/postroom/core/worker"
)

// The first figures of docs/performance.md, all with synchronous=full:
// go test -run '^$' -bench . -benchtime 2s -count 5 ./worker

const payload = `{"to":"somebody@example.org","n":12345,"text":"` +
	`two hundred bytes of a payload that is as long as the payloads that jobs of this kind usually have in real life, more or less"}`

func BenchmarkEnqueue(b *testing.B) {
	b.Run("one caller", func(b *testing.B) {
		q := queue.New(dbtest.Open(b), system.Real{}, job.Known())
		b.ResetTimer()
		for range b.N {
			store(b, q, 1)
		}
		perSecond(b, b.N, "jobs/s")
	})
	b.Run("64 callers", func(b *testing.B) {
		q := queue.New(dbtest.Open(b), system.Real{}, job.Known())
		work := make(chan struct{}, b.N)
		for range b.N {
			work <- struct{}{}
		}
		close(work)
		b.ResetTimer()
		var callers sync.WaitGroup
		for range 64 {
			callers.Go(func() {
				for range work {
					store(b, q, 1)
				}
			})
		}
		callers.Wait()
		perSecond(b, b.N, "jobs/s")
	})
	b.Run("batches of 1000", func(b *testing.B) {
		q := queue.New(dbtest.Open(b), system.Real{}, job.Known())
		b.ResetTimer()
		for range b.N {
			store(b, q, 1000)
		}
		perSecond(b, 1000*b.N, "jobs/s")
	})
}

func BenchmarkWorkNoOps(b *testing.B) {
	for _, concurrency := range []int{10, 100, 500} {
		b.Run(fmt.Sprintf("concurrency %d", concurrency), func(b *testing.B) { workBacklog(b, dbtest.Open(b), concurrency, noOp) })
	}
}

// BenchmarkSteps is jobs with three steps, and with a follow-up, beside no-ops.
func BenchmarkSteps(b *testing.B) {
	for _, concurrency := range []int{100, 500, 1000} {
		for _, c := range []struct {
			name    string
			handler func(context.Context, *worker.Job[json.RawMessage]) (any, error)
		}{{"no-ops", noOp}, {"three steps", threeSteps}, {"follow-up", followUp}} {
			b.Run(fmt.Sprintf("%s, concurrency %d", c.name, concurrency), func(b *testing.B) { workBacklog(b, dbtest.Open(b), concurrency, c.handler) })
		}
	}
}

func noOp(context.Context, *worker.Job[json.RawMessage]) (any, error) { return nil, nil }

func threeSteps(ctx context.Context, _ *worker.Job[json.RawMessage]) (any, error) {
	for i := range 3 {
		if _, err := step.Run(ctx, strconv.Itoa(i), func(context.Context) (int, error) { return i, nil }); err != nil {
			return nil, err
		}
	}
	return nil, nil
}

// followUp stores a job that is not worked.
func followUp(ctx context.Context, j *worker.Job[json.RawMessage]) (any, error) {
	return nil, j.Commit(ctx, nil, func(b *queue.Batch) { b.Enqueue(job.New{Type: job.DebugSleep}) })
}

// workBacklog measures how fast b.N stored jobs are worked, to the end of
// their last commit.
func workBacklog(b *testing.B, db libsql.DB, concurrency int, handler func(context.Context, *worker.Job[json.RawMessage]) (any, error)) {
	b.Helper()
	q := queue.New(db, system.Real{}, job.Known())
	for left := b.N; left > 0; left -= 1000 {
		store(b, q, min(left, 1000))
	}
	var done sync.WaitGroup
	done.Add(b.N)
	before := processorTime(b)
	b.ResetTimer()
	stop := work(b, q, concurrency, func(ctx context.Context, j *worker.Job[json.RawMessage]) (any, error) {
		defer done.Done()
		return handler(ctx, j)
	})
	done.Wait()
	stop() // the drain waits until every completion is durable
	perSecond(b, b.N, "jobs/s")
	b.ReportMetric(float64((processorTime(b)-before).Microseconds())/float64(b.N), "cpu-µs/job")
}

// BenchmarkBesideHistory works no-ops on an empty database and beside two and
// a half million finished jobs, which have ten million rows: four each, with
// the log.
func BenchmarkBesideHistory(b *testing.B) {
	const finished, chunk = 2_500_000, 20_000
	beside := dbtest.Open(b)
	for from := 0; from < finished; from += chunk {
		var fill libsql.Batch
		fill.Exec(`INSERT INTO jobs(id, type, queue, state, claims, attempts, completed_by, payload_json, result_json, created_at, updated_at, claimed_at, finished_at)
		 WITH RECURSIVE i(n) AS (SELECT ?1 UNION ALL SELECT n + 1 FROM i WHERE n + 1 < ?2)
		 SELECT printf('0193%04x-%04x-7000-8000-%012x', n >> 16, n & 65535, n * 7919), 'debug.echo', 'default', 'completed', 1, 1, 'bench', ?3, '{"ok":true}',
		   c.ms - 86400000 + n / 100, c.ms - 86400000 + n / 100, c.ms - 86400000 + n / 100, c.ms - 86400000 + n / 100 FROM i, db_clock AS c`, from, from+chunk, payload)
		fill.Exec(`INSERT INTO job_log(job, run, state, was, created_at)
		 SELECT j.seq, 1, s.value, iif(s.value = 'running', 'queued', 'running'), j.created_at
		 FROM jobs AS j, json_each('["running", "completed"]') AS s WHERE j.seq > ?`, from)
		if _, err := beside.Write(b.Context(), &fill); err != nil {
			b.Fatal(err)
		}
	}
	var counted libsql.Batch // as the claims would have done meanwhile
	counted.Exec("UPDATE meta SET value = (SELECT max(seq) FROM job_log) WHERE key = 'log_counted_to'")
	counted.Exec("INSERT INTO queue_counts(queue, state, jobs) VALUES ('default', 'completed', ?)", finished)
	if _, err := beside.Write(b.Context(), &counted); err != nil {
		b.Fatal(err)
	}
	empty := dbtest.Open(b)
	b.ResetTimer()
	for round := range 5 {
		b.Run(fmt.Sprintf("empty, round %d", round), func(b *testing.B) { workBacklog(b, empty, 1000, noOp) })
		b.Run(fmt.Sprintf("beside, round %d", round), func(b *testing.B) { workBacklog(b, beside, 1000, noOp) })
	}
}

// BenchmarkLog is what the log of transitions costs: from the enqueue to the
// end of no-op jobs, with it and without.
func BenchmarkLog(b *testing.B) {
	for _, with := range []bool{true, false} {
		b.Run(fmt.Sprintf("written %t", with), func(b *testing.B) {
			db := dbtest.Open(b)
			if !with {
				var drop libsql.Batch
				drop.Exec("DROP TRIGGER jobs_log_insert")
				drop.Exec("DROP TRIGGER jobs_log_update")
				if _, err := db.Write(b.Context(), &drop); err != nil {
					b.Fatal(err)
				}
			}
			q := queue.New(db, system.Real{}, job.Known())
			var done sync.WaitGroup
			done.Add(b.N)
			before := processorTime(b)
			b.ResetTimer()
			for left := b.N; left > 0; left -= 1000 {
				store(b, q, min(left, 1000))
			}
			stop := work(b, q, 500, said(func(time.Time) { done.Done() }))
			done.Wait()
			stop()
			perSecond(b, b.N, "jobs/s")
			b.ReportMetric(float64((processorTime(b)-before).Microseconds())/float64(b.N), "cpu-µs/job")
		})
	}
}

// processorTime is what this process has used so far.
func processorTime(tb testing.TB) time.Duration {
	tb.Helper()
	var use syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &use); err != nil {
		tb.Fatal(err)
	}
	return time.Duration(use.Utime.Nano() + use.Stime.Nano())
}

func BenchmarkPickup(b *testing.B) {
	b.Run("one process", func(b *testing.B) {
		q := queue.New(dbtest.Open(b), system.Real{}, job.Known())
		measurePickup(b, q, func(int) { store(b, q, 1) })
	})
	b.Run("across two processes", func(b *testing.B) {
		path := dbtest.Path(b)
		q := queue.New(dbtest.OpenPath(b, path), system.Real{}, job.Known())
		other := exec.Command(os.Args[0], "-test.run=TestHelperEnqueuer")
		other.Env = append(os.Environ(), "POSTROOM_ENQUEUE="+path)
		in, err := other.StdinPipe()
		if err != nil {
			b.Fatal(err)
		}
		other.Stderr = os.Stderr
		if err := other.Start(); err != nil {
			b.Fatal(err)
		}
		measurePickup(b, q, func(i int) {
			if _, err := fmt.Fprintln(in, i); err != nil {
				b.Error(err)
			}
		})
		_ = in.Close() // ends the child
		if err := other.Wait(); err != nil {
			b.Error(err)
		}
	})
}

// TestHelperEnqueuer is the other process of BenchmarkPickup.
func TestHelperEnqueuer(t *testing.T) {
	path := os.Getenv("POSTROOM_ENQUEUE")
	if path == "" {
		t.Skip("runs only as the other process of BenchmarkPickup")
	}
	q := queue.New(dbtest.OpenPath(t, path), system.Real{}, job.Known())
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		store(t, q, 1)
	}
}

// measurePickup asks for a job a hundred times a second and reports how long
// it takes from before the enqueue to the start of its handler.
func measurePickup(b *testing.B, q *queue.Queue, enqueue func(i int)) {
	b.Helper()
	latencies := make(chan time.Duration, b.N)
	asked := make(chan time.Time, b.N)
	stop := work(b, q, 10, said(func(at time.Time) { latencies <- at.Sub(<-asked) }))
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	b.ResetTimer()
	got := make([]time.Duration, b.N)
	for i := range b.N {
		<-tick.C
		asked <- time.Now()
		enqueue(i)
		got[i] = <-latencies
	}
	b.StopTimer()
	stop()
	slices.Sort(got)
	b.ReportMetric(float64(got[len(got)/2].Microseconds())/1000, "p50-ms")
	b.ReportMetric(float64(got[len(got)*99/100].Microseconds())/1000, "p99-ms")
}

func store(tb testing.TB, q *queue.Queue, n int) {
	jobs := make([]job.New, n)
	for i := range jobs {
		jobs[i] = job.New{Type: job.DebugEcho, Payload: json.RawMessage(payload)}
	}
	if _, err := q.EnqueueMany(context.Background(), jobs); err != nil && libsql.ClassOf(err) != libsql.Closed {
		tb.Error(err)
	}
}

// said is a handler that does nothing but say when it started.
func said(started func(time.Time)) func(context.Context, *worker.Job[json.RawMessage]) (any, error) {
	return func(context.Context, *worker.Job[json.RawMessage]) (any, error) {
		started(time.Now())
		return nil, nil
	}
}

// work runs a worker.
func work(b *testing.B, q *queue.Queue, concurrency int, handler func(context.Context, *worker.Job[json.RawMessage]) (any, error)) (stop func()) {
	b.Helper()
	w, err := worker.New(q, zerolog.Nop(), worker.Config{
		Runner: queue.Runner{ID: "bench", Host: "bench", Version: "bench"}, Concurrency: concurrency,
		Lease: time.Minute, Heartbeat: 20 * time.Second, Poll: time.Second, DrainTimeout: time.Minute,
	}, worker.Bind(job.DebugEcho, handler))
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = w.Run(ctx) }()
	return func() { cancel(); <-done }
}

func perSecond(b *testing.B, n int, unit string) {
	b.Helper()
	b.ReportMetric(float64(n)/b.Elapsed().Seconds(), unit)
	b.ReportMetric(0, "ns/op")
	if strings.Contains(b.Name(), "#") {
		b.Fatal("two benchmarks have one name")
	}
}
