package e2e

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/postroom/postroom/core/libsql"
	"github.com/postroom/postroom/core/telemetry/otlptest"
)

// A runner that is stopped past its lease and goes on finds that its jobs are
// another's: it changes nothing, and its handlers are told why.
func TestAZombieChangesNothing(t *testing.T) {
	t.Parallel()
	s := newSystem(t, "QUEUE_DEBUG_JOBS=true")
	api := s.server()
	db := s.open()
	zombie := s.runner()
	// Some sleep on when the zombie wakes up; the others have slept enough.
	api.enqueue(append(
		jobs(3, "debug.sleep", func(int) any { return map[string]int{"ms": 9000} }),
		jobs(3, "debug.sleep", func(int) any { return map[string]int{"ms": 3000} })...))
	s.until("the runner has all jobs", func() bool { return s.held(db, zombie) == 6 })
	zombie.freeze()
	heir := s.runner()
	s.until("another runner has them", func() bool { return s.held(db, heir) == 6 })
	zombie.thaw()
	lost := `the lease was lost before the outcome could be stored; nothing was changed`
	s.until("the zombie gives up all its jobs", func() bool { return strings.Count(zombie.log.String(), lost) == 6 })
	if told := strings.Count(zombie.log.String(), `"error":"the lease on the job is lost"`); told < 3 {
		t.Errorf("%d handlers were told that the lease is lost, want at least the 3 that slept on:\n%s", told, zombie.log.tail(20))
	}
	s.allCompleted(db, 6)
	s.exactlyOnce(db, 6)
	if n := s.count(db, `SELECT count(*) FROM jobs AS j JOIN job_runs AS a ON a.job_id = j.id AND a.run = 1 JOIN job_runs AS b ON b.job_id = j.id AND b.run = 2
		WHERE j.claims = 2 AND j.crashes = 1 AND j.failures = 0 AND a.outcome = 'rescued' AND a.runner = ? AND b.outcome = 'completed' AND b.runner = ?`,
		zombie.runnerID(), heir.runnerID()); n != 6 {
		t.Errorf("%d jobs were rescued from the zombie and completed by its heir, want 6", n)
	}
	for _, p := range []*process{zombie, heir} {
		if code := p.stop(); code != 0 {
			t.Errorf("exit code %d", code)
		}
	}
}

// A runner that is stopped while it holds the file's write lock blocks every
// writer, which the others report; when it goes on or dies, so does all else.
func TestARunnerStoppedWithTheWriteLockIsReported(t *testing.T) {
	t.Parallel()
	receiver := otlptest.New(t)
	s := newSystem(t, "QUEUE_DEBUG_JOBS=true", "QUEUE_CONCURRENCY=50", "OTLP_ENDPOINT="+receiver.Endpoint(), "OTEL_METRIC_EXPORT_INTERVAL=500")
	api := s.server()
	other := s.listening()
	db := s.open()
	stored := 0
	for _, end := range []struct {
		how string
		do  func(*process)
	}{{"resumed", (*process).thaw}, {"killed", (*process).kill}} {
		before := len(receiver.Metrics())
		victim := s.runner()
		s.until("the runner is stopped with the lock", func() bool {
			if s.count(db, "SELECT count(*) FROM jobs WHERE state = 'queued'") < 2000 {
				api.enqueue(jobs(2000, "debug.echo", func(i int) any { return i }))
				stored += 2000
			}
			victim.freeze()
			if s.writersAreBlocked() {
				return true
			}
			victim.thaw()
			return false
		})
		for name, p := range map[string]*process{"the apiserver": api, "the other runner": other} {
			s.until(name+" reports the blocked writer", func() bool {
				r := p.get("/readyz")
				return r.status == http.StatusServiceUnavailable && strings.Contains(string(r.body), `"status":"writer_blocked"`)
			})
			if status, body := p.health(); status != http.StatusOK {
				t.Errorf("healthz of %s while the lock is held: %d %s", name, status, body)
			}
		}
		if _, err := receiver.WaitForMetrics(t.Context(), func(all []otlptest.Metric) bool {
			said := map[any]bool{}
			for _, m := range all[before:] {
				if m.Name == "postroom.database.writer_blocked" && m.Points[0].Value == 1 {
					said[m.Resource["service.instance.id"]] = true
				}
			}
			return len(said) == 2
		}); err != nil {
			t.Error(err)
		}
		end.do(victim)
		for name, p := range map[string]*process{"the apiserver": api, "the other runner": other} {
			s.until(name+" is ready again", func() bool { return p.get("/readyz").status == http.StatusOK })
		}
		t.Logf("the runner was %s: all goes on", end.how)
		victim.kill()
	}
	s.allCompleted(db, stored)
	s.exactlyOnce(db, stored)
}

// writersAreBlocked says whether another process holds the write lock for
// longer than any commit takes.
func (s *system) writersAreBlocked() bool {
	s.Helper()
	db, err := libsql.Open(s.Context(), libsql.Options{Path: s.database(), BusyTimeout: 700 * time.Millisecond})
	if err != nil {
		s.Fatal(err)
	}
	defer func() { _ = db.Close(s.Context()) }() // the process that is stopped may keep the log from being folded
	_, err = db.ProbeWriter(s.Context())
	return libsql.ClassOf(err) == libsql.Busy
}

// held is how many jobs a runner has in hand.
func (s *system) held(db libsql.DB, p *process) int64 {
	s.Helper()
	return s.count(db, "SELECT count(*) FROM jobs WHERE state = 'running' AND claimed_by = ?", p.runnerID())
}

func (s *system) rows(db libsql.DB, sql string, args ...any) []libsql.Row {
	s.Helper()
	res, err := db.Read(s.Context(), libsql.Query(sql, args...))
	if err != nil {
		s.Fatal(err)
	}
	return res[0].Rows
}
