package e2e

import (
	"bytes"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/postroom/postroom/core/libsql/sqldtest"
)

// A libsql server is killed under load again and again: no process needs to be
// started again, nothing is lost and nothing done twice.
func TestAServerThatIsKilledLosesNothing(t *testing.T) {
	t.Parallel()
	const rounds = 10
	perRound := 500 * scale(t)
	s := newSystemOnServer(t, "QUEUE_DEBUG_JOBS=true", "QUEUE_CONCURRENCY=20")
	api := s.server()
	db := s.open()
	runners := []*process{s.runner(), s.runner()}
	var back []int64 // when the server was there again, by its clock
	for round := range rounds {
		api.enqueue(jobs(perRound, "debug.echo", func(i int) any { return round*perRound + i }))
		want := int64(round*perRound + (round*perRound*3/4)%perRound)
		s.until("enough is done for the next kill", func() bool { return s.inState(db, "completed") >= want })
		s.sqld.Kill()
		if r := api.get("/healthz"); r.status != http.StatusServiceUnavailable || !bytes.Contains(r.body, []byte(`"unavailable"`)) {
			t.Errorf("without a database healthz says %d %s", r.status, r.body)
		}
		s.sqld.Restart()
		back = append(back, s.count(db, "SELECT ms FROM db_clock"))
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
	var longest int64
	for _, since := range back {
		longest = max(longest, s.count(db, "SELECT min(finished_at) FROM job_runs WHERE finished_at > ?", since)-since)
	}
	t.Logf("%d jobs, %d kills; work went on %d ms after the server was back, at the latest; %d runs were rescued, %d attempts failed", rounds*perRound, rounds, longest,
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

// A part of the fleet is cut off from the server, longer than a lease: it says
// so, the others take its jobs over, and it works again once the network does.
func TestAPartitionLosesNothing(t *testing.T) {
	t.Parallel()
	s := newSystemOnServer(t, "QUEUE_DEBUG_JOBS=true", "QUEUE_CONCURRENCY=5", "QUEUE_LEASE=1s")
	line := newLink(t, s.sqld.URL, 0)
	api, far, near := s.over(line).server(), s.over(line).runner(), s.runner()
	db := s.open()
	work := func(n int) { api.enqueue(jobs(n, "debug.sleep", func(int) any { return map[string]int{"ms": 300} })) }
	stored := 60 * scale(t)
	work(stored)
	s.until("both are at work", func() bool { return s.held(db, far) > 0 && s.held(db, near) > 0 })
	line.cut()
	for range 3 {
		if r := api.get("/healthz"); r.status != http.StatusServiceUnavailable {
			t.Errorf("cut off, healthz says %d %s", r.status, r.body)
		}
	}
	if r := api.postJSON("/v1/jobs", `{"type":"debug.echo"}`); r.status != http.StatusServiceUnavailable || r.header.Get("Retry-After") == "" {
		t.Errorf("cut off, a job is answered %d %v %s", r.status, r.header, r.body)
	} else {
		stored += int(s.count(db, "SELECT count(*) FROM jobs WHERE type = 'debug.echo'")) // it may lie in the line
	}
	s.until("the other runner has done all of it", func() bool { return s.inState(db, "completed") >= int64(stored) })
	if s.count(db, "SELECT count(*) FROM job_runs WHERE outcome = 'rescued' AND runner = ?", far.runnerID()) == 0 {
		t.Error("nothing was taken over")
	}
	line.heal()
	since := s.count(db, "SELECT ms FROM db_clock")
	api.awaitHealth(http.StatusOK)
	s.until("both are at work again", func() bool {
		work(10)
		stored += 10
		return s.held(db, far) > 0 && s.held(db, near) > 0
	})
	t.Logf("the runner that was cut off worked again after %d ms", s.count(db, "SELECT min(started_at) FROM (SELECT started_at, runner FROM job_runs UNION ALL SELECT claimed_at, claimed_by FROM jobs WHERE state = 'running') WHERE started_at > ? AND runner = ?", since, far.runnerID())-since)
	s.until("all is done", func() bool { return s.count(db, "SELECT count(*) FROM jobs WHERE finished_at IS NULL") == 0 })
	s.exactlyOnce(db, int(s.count(db, "SELECT count(*) FROM jobs WHERE type LIKE 'debug.%'")))
	if got := s.count(db, "SELECT count(*) FROM jobs WHERE type = 'debug.sleep' AND state = 'completed'"); got < int64(stored-1) {
		t.Errorf("%d jobs were accepted, %d are completed", stored, got)
	}
	for _, p := range []*process{api, far, near} {
		if code := p.stop(); code != 0 {
			t.Errorf("a process ended with %d", code)
		}
	}
}

// Services that are started while the server is away wait for it, and say so.
func TestServicesThatStartBeforeTheServerWaitForIt(t *testing.T) {
	t.Parallel()
	s := newSystemOnServer(t, "QUEUE_DEBUG_JOBS=true")
	s.sqld.Kill()
	api := s.start("apiserver")
	runner := s.start("queuerunner", "-set", "queue.http_addr=127.0.0.1:0")
	for p, line := range map[*process]string{api: `"message":"answering health checks"`, runner: `"message":"listening"`} {
		var said struct{ Address string }
		if err := json.Unmarshal([]byte(p.log.await(t, line)), &said); err != nil {
			t.Fatal(err)
		}
		p.url = "http://" + said.Address
		if r := p.get("/healthz"); r.status != http.StatusServiceUnavailable {
			t.Errorf("without a server healthz says %d %s", r.status, r.body)
		}
		if r := p.get("/livez"); r.status != http.StatusOK {
			t.Errorf("without a server livez says %d %s", r.status, r.body)
		}
	}
	if r := api.postJSON("/v1/jobs", `{"type":"debug.echo"}`); r.status != http.StatusServiceUnavailable || r.header.Get("Retry-After") == "" {
		t.Errorf("without a server a job is answered %d %v %s", r.status, r.header, r.body)
	}
	s.sqld.Restart()
	api.awaitHealth(http.StatusOK)
	runner.awaitHealth(http.StatusOK)
	api.enqueue(jobs(20, "debug.echo", func(i int) any { return i }))
	db := s.open()
	s.allCompleted(db, 20)
	s.exactlyOnce(db, 20)
}

// The server's disk fills up and has room again: callers are told, nobody ends,
// and work goes on.
func TestAServerWithAFullDisk(t *testing.T) {
	t.Parallel()
	s := newSystem(t, "QUEUE_DEBUG_JOBS=true")
	s.onSmallDisk("size=48m")
	s.on(sqldtest.StartIn(t, s.dir))
	api, runner := s.server(), s.runner()
	db := s.open()
	accepted := jobs(20, "debug.steps", func(int) any { return map[string]int{"n": 20, "fail_after": 10} })
	api.enqueue(accepted)
	ballast := filepath.Join(s.dir, "ballast")
	fill(t, ballast)
	told := 0
	s.until("jobs are refused", func() bool {
		j := jobs(1, "debug.echo", func(int) any { return strings.Repeat("x", 50_000) })[0]
		r := api.create(j)
		switch {
		case r.status == http.StatusCreated:
			accepted = append(accepted, j)
			fill(t, ballast) // what a checkpoint gave back
		case r.status == http.StatusServiceUnavailable && r.header.Get("Retry-After") != "":
			told++
		default:
			t.Fatalf("a job that does not fit: %d %s", r.status, r.body)
		}
		return told == 5
	})
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	api.enqueue(jobs(1, "debug.echo", func(int) any { return "there is room again" })) // until it is stored
	for _, j := range accepted {
		s.until("what was accepted is done", func() bool {
			return s.count(db, "SELECT count(*) FROM jobs WHERE id = ? AND state = 'completed'", j.ID) == 1
		})
	}
	n := int(s.count(db, "SELECT count(*) FROM jobs WHERE type LIKE 'debug.%'"))
	s.allCompleted(db, n)
	s.exactlyOnce(db, n)
	for _, p := range []*process{api, runner} {
		if code := p.stop(); code != 0 {
			t.Errorf("a process ended with %d", code)
		}
	}
}
