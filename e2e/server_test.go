package e2e

import (
	"bytes"
	"net/http"
	"testing"
)

// A libsql server is killed under load again and again: no process needs to be
// started again, nothing is lost and nothing done twice.
func TestAServerThatIsKilledLosesNothing(t *testing.T) {
	t.Parallel()
	const perRound = 500
	rounds := 4 * scale(t)
	s := newSystemOnServer(t, "QUEUE_DEBUG_JOBS=true", "QUEUE_CONCURRENCY=20")
	api := s.server()
	db := s.open()
	runners := []*process{s.runner(), s.runner()}
	for round := range rounds {
		api.enqueue(jobs(perRound, "debug.echo", func(i int) any { return round*perRound + i }))
		want := int64(round*perRound + (round*379)%perRound)
		s.until("enough is done for the next kill", func() bool { return s.inState(db, "completed") >= want })
		s.sqld.Kill()
		if r := api.get("/healthz"); r.status != http.StatusServiceUnavailable || !bytes.Contains(r.body, []byte(`"unavailable"`)) {
			t.Errorf("without a database healthz says %d %s", r.status, r.body)
		}
		s.sqld.Restart()
	}
	s.allCompleted(db, rounds*perRound)
	s.exactlyOnce(db, rounds*perRound)
	if r := api.get("/healthz"); r.status != http.StatusOK || !bytes.Contains(r.body, []byte(`"durability":"full"`)) {
		t.Errorf("in the end healthz says %d %s", r.status, r.body)
	}
	for _, p := range append(runners, api) {
		if code := p.stop(); code != 0 {
			t.Errorf("a process ended with %d", code)
		}
	}
	t.Logf("%d jobs, %d kills; %d runs were rescued, %d attempts failed", rounds*perRound, rounds,
		s.count(db, "SELECT count(*) FROM job_runs WHERE outcome = 'rescued'"), s.count(db, "SELECT coalesce(sum(failures), 0) FROM jobs"))
}

// A server that is stopped for longer than a lease holds everything up, and
// nothing more.
func TestAFrozenServerHoldsWorkUpAndNoLonger(t *testing.T) {
	t.Parallel()
	s := newSystemOnServer(t, "QUEUE_DEBUG_JOBS=true", "QUEUE_CONCURRENCY=5", "QUEUE_LEASE=1s")
	api := s.server()
	db := s.open()
	s.runner()
	api.enqueue(jobs(200, "debug.sleep", func(int) any { return map[string]int{"ms": 50} }))
	s.until("it is at work", func() bool { return s.inState(db, "completed") > 20 })
	s.sqld.Freeze()
	for range 3 { // each answers after a second
		if r := api.get("/healthz"); r.status != http.StatusServiceUnavailable {
			t.Errorf("with a frozen server healthz says %d %s", r.status, r.body)
		}
	}
	s.sqld.Thaw()
	s.allCompleted(db, 200)
	s.exactlyOnce(db, 200)
}
