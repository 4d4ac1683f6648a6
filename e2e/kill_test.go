package e2e

import (
	"testing"
)

// Three runners work off short jobs and are killed in turn, without a word,
// again and again: every job is completed exactly once, and none is taken for
// poison.
func TestKilledRunnersLoseNothing(t *testing.T) {
	t.Parallel()
	const perRound = 1000
	rounds := 10 * scale(t)
	s := newSystem(t, "QUEUE_DEBUG_JOBS=true", "QUEUE_CONCURRENCY=20")
	api := s.server()
	db := s.open()
	runners := []*process{s.runner(), s.runner(), s.runner()}
	for round := range rounds {
		api.enqueue(jobs(perRound, "debug.echo", func(i int) any { return round*perRound + i }))
		// In the midst of the round's work, each time at another place.
		want := int64(round*perRound + (round*379)%perRound)
		s.until("enough is done for the next kill", func() bool { return s.inState(db, "completed") >= want })
		victim := round % len(runners)
		runners[victim].kill()
		runners[victim] = s.runner()
	}
	s.allCompleted(db, rounds*perRound)
	s.exactlyOnce(db, rounds*perRound)
	if n := s.count(db, "SELECT count(*) FROM jobs WHERE failures <> 0"); n != 0 {
		t.Errorf("%d jobs have a failed attempt, though no handler failed", n)
	}
	t.Logf("%d kills took %d jobs from their runners", rounds, s.count(db, "SELECT count(*) FROM job_runs WHERE outcome = 'rescued'"))
}

// What a runner had in hand when it died is taken back within a lease and two
// seconds, by the clock of the database.
func TestADeadRunnersJobsAreTakenBackInTime(t *testing.T) {
	t.Parallel()
	const lease, grace, delay = 2000, 2000, 2000 // ms; delay is what a first rescue adds
	for range scale(t) {
		s := newSystem(t, "QUEUE_DEBUG_JOBS=true", "QUEUE_CONCURRENCY=20")
		api := s.server()
		db := s.open()
		victim, rescuer := s.runner(), s.runner()
		s.until("both runners have known the database for a lease", func() bool {
			return s.count(db, "SELECT count(*) FROM runners WHERE started_at < (SELECT ms FROM db_clock) - ?", lease+500) == 2
		})
		api.enqueue(jobs(30, "debug.sleep", func(int) any { return map[string]int{"ms": 1500} }))
		s.until("both are at work", func() bool {
			return s.inState(db, "running") == 30 && s.held(db, victim) > 0 && s.held(db, rescuer) > 0
		})
		victim.kill()
		lost := s.held(db, victim)
		expiry := map[string]int64{} // of the dead runner's leases, which nobody renews any more
		for _, row := range s.rows(db, "SELECT CAST(id AS BLOB), lease_expires_at FROM jobs WHERE claimed_by = ?", victim.runnerID()) {
			expiry[row.Str(0)] = row.Int(1)
		}
		s.allCompleted(db, 30)
		s.exactlyOnce(db, 30)
		rescued := s.rows(db, `SELECT CAST(a.job_id AS BLOB), a.finished_at, b.started_at FROM job_runs AS a
			JOIN job_runs AS b ON b.job_id = a.job_id AND b.run = a.run + 1 WHERE a.outcome = 'rescued' AND a.runner = ?`, victim.runnerID())
		if int64(len(rescued)) != lost || len(expiry) != len(rescued) {
			t.Errorf("%d jobs were taken back, the dead runner had %d", len(rescued), lost)
		}
		var latest, again int64
		for _, row := range rescued {
			latest = max(latest, row.Int(1)-expiry[row.Str(0)])
			again = max(again, row.Int(2)-row.Int(1))
		}
		if latest > grace {
			t.Errorf("a job was taken back %d ms after its lease had run out, want %d at most", latest, grace)
		}
		if again > delay+grace {
			t.Errorf("a job was run again %d ms after it was taken back, want %d at most", again, delay+grace)
		}
		t.Logf("%d jobs were taken back up to %d ms after their lease, and run again up to %d ms later", lost, latest, again)
		api.kill()
		rescuer.kill()
	}
}
