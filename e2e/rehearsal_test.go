package e2e

import (
	"bytes"
	"fmt"
	"net/http"
	"testing"
)

// Runners whose clocks are wrong work beside one whose clock is right: nobody
// loses a job to them, and no job waits for them.
func TestRunnersWithWrongClocksNeitherStealNorDelay(t *testing.T) {
	t.Parallel()
	// A lease that a loaded machine does not lose by itself.
	s := newSystem(t, "QUEUE_DEBUG_JOBS=true", "QUEUE_CONCURRENCY=5", "QUEUE_LEASE=6s")
	api := s.server("-set", "queue.clock_offset=7h")
	db := s.open()
	runners := map[string]*process{}
	for _, offset := range []string{"0s", "10m", "-10m", "-3h"} {
		runners[offset] = s.runner("-set", "queue.clock_offset="+offset)
	}
	// Longer than a lease, due later, and at once: heartbeats, promotion and
	// claims all happen under wrong clocks.
	list := jobs(20, "debug.sleep", func(int) any { return map[string]int{"ms": 8000} })
	list = append(list, jobs(20, "debug.echo", func(i int) any { return i })...)
	delayed := jobs(40*scale(t), "debug.echo", func(i int) any { return i })
	for i := range delayed {
		delayed[i].Delay = fmt.Sprintf("%dms", 1000+100*i)
	}
	list = append(list, delayed...)
	api.enqueue(list)
	s.until("a job is running", func() bool { return s.inState(db, "running") > 0 })
	s.allCompleted(db, len(list))
	s.exactlyOnce(db, len(list))
	if n := s.count(db, "SELECT count(*) FROM jobs WHERE type LIKE 'debug.%' AND (claims <> 1 OR crashes <> 0 OR failures <> 0)"); n != 0 {
		t.Errorf("%d jobs did not run exactly once", n)
	}
	if n := s.count(db, "SELECT count(*) FROM jobs WHERE claimed_at < not_before"); n != 0 {
		t.Errorf("%d jobs began before their time", n)
	}
	for offset, p := range runners {
		if s.count(db, "SELECT count(*) FROM job_runs WHERE runner = ?", p.runnerID()) == 0 {
			t.Errorf("the runner whose clock is off by %s did nothing", offset)
		}
		if code := p.stop(); code != 0 {
			t.Errorf("exit code %d", code)
		}
	}
}

// Both services run on a database that loses replies, stalls, is busy and
// takes leases away. Everything is done, and done once.
func TestARehearsalOfFailuresLosesAndDoublesNothing(t *testing.T) {
	t.Parallel()
	s := newSystem(t, "QUEUE_DEBUG_JOBS=true", "QUEUE_FAULT_SEED=42", "LOG_LEVEL=debug")
	api := s.server()
	db := s.open()
	runners := []*process{s.runner("-set", "queue.fault_seed=1"), s.runner("-set", "queue.fault_seed=2")}
	account := s.accountThroughFaults(api)
	n := 0
	for range scale(t) {
		for _, list := range [][]newJob{
			jobs(1000, "debug.echo", func(i int) any { return i }),
			jobs(100, "debug.steps", func(i int) any { return map[string]int{"n": 5, "fail_after": i % 6} }),
			jobs(20, "debug.sleep", func(int) any { return map[string]int{"ms": 1000} }),
		} {
			api.enqueue(list)
			n += len(list)
		}
	}
	mails := messages(t)
	mails = mails[:min(len(mails), 100*scale(t))]
	for _, raw := range mails {
		s.until("the message is taken in", func() bool {
			r := api.do("POST", "/v1/messages?account="+account, "message/rfc822", bytes.NewReader(raw))
			if r.status != http.StatusAccepted && r.status != http.StatusOK && r.status != http.StatusServiceUnavailable {
				t.Fatalf("%d %s", r.status, r.body)
			}
			return r.status != http.StatusServiceUnavailable
		})
	}
	s.allCompleted(db, n)
	s.settled(db, int64(len(mails)))
	s.exactlyOnce(db, n)
	if files := s.files(); len(files) != len(mails) {
		t.Errorf("%d files in the Maildir, want %d", len(files), len(mails))
	}
	// A step that was recorded as done was not done again: what the job got
	// from it in the end is what was recorded, and in the run that recorded it.
	if wrong := s.count(db, `SELECT count(*) FROM jobs AS j, json_each(j.result_json, '$.steps') AS e
		LEFT JOIN job_steps AS p ON p.job_id = j.id AND p.name = 'step_' || (e.key + 1)
		WHERE j.type = 'debug.steps' AND (p.outcome IS NOT 'done' OR p.result_json IS NOT CAST(e.value AS TEXT))`); wrong != 0 {
		t.Errorf("%d steps have another result than the one recorded", wrong)
	}
	for _, row := range s.rows(db, "SELECT CAST(outcome AS BLOB), count(*) FROM job_runs GROUP BY outcome ORDER BY outcome") {
		t.Logf("runs %s: %d", row.Str(0), row.Int(1))
	}
	for _, p := range append(runners, api) {
		if code := p.stop(); code != 0 {
			t.Errorf("exit code %d", code)
		}
		t.Log(p.log.await(s, "these faults were made on purpose"))
	}
}

// accountThroughFaults makes the account, and rules for it, whatever it takes.
func (s *system) accountThroughFaults(api *process) (id string) {
	s.Helper()
	s.until("the account and the rules exist", func() bool {
		r := api.postJSON("/v1/accounts", fmt.Sprintf(`{"provider":"maildir","email":"me@example.org","config":{"path":%q}}`, s.maildir()))
		if r.status != http.StatusServiceUnavailable && r.status != http.StatusCreated && r.status != http.StatusConflict {
			s.Fatalf("create account: %d %s", r.status, r.body)
		}
		if r = api.get("/v1/accounts"); r.status != http.StatusOK {
			return false
		}
		var list struct{ Accounts []struct{ ID string } }
		if r.into(s, &list); len(list.Accounts) == 0 {
			return false
		}
		id = list.Accounts[0].ID
		return api.postJSON("/v1/rules", moveLists).status == http.StatusCreated && api.postJSON("/v1/rules", trashMoney).status == http.StatusCreated
	})
	return id
}
