package main

import (
	"strings"
	"testing"

	"github.com/postroom/postroom/core/job"
	"github.com/postroom/postroom/core/libsql"
	"github.com/postroom/postroom/core/mail"
)

func TestVerify(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	done, broken := db.enqueue(job.DebugEcho, `1`), db.enqueue("a.type", `1`)
	startRunner(t, db.path) // which goes on meanwhile
	db.await(done, job.Completed)

	out := fine(t, db.path, "verify")
	if !strings.HasPrefix(out, "2 jobs, 0 messages, 0 files, ") || !strings.HasSuffix(out, " rules: no violation\n") {
		t.Error(out)
	}
	if rep := decode[mail.Report](t, fine(t, db.path, "verify", "-json")); rep.Jobs != 2 || len(rep.Violations) != 0 || rep.More {
		t.Errorf("%+v", rep)
	}

	var b libsql.Batch
	b.Exec("UPDATE jobs SET ready_key = NULL, attempts = attempts + 1 WHERE id = ?", broken)
	b.Exec("INSERT INTO job_runs(job_id, run, runner, outcome, started_at, finished_at, created_at) SELECT 'gone\x1b', value, 'r', 'failed', 1, 1, 1 FROM json_each('[1,2,3]')")
	if _, err := db.q.DB().Write(t.Context(), &b); err != nil {
		t.Fatal(err)
	}
	r := cli(t, db.path, "verify")
	if r.code != exitFailed || r.err != "" {
		t.Errorf("exit %d, stderr %q", r.code, r.err)
	}
	for _, want := range []string{
		"a queued job will be claimable: " + broken + ": it stands nowhere\n",
		"attempts are the runs that were begun, less those handed back or snoozed: " + broken + ": attempts 1, runs 0\n",
		`every run has its job: gone\x1b: run 3` + "\n",
		" rules: 5 violations of 3 rules\n",
	} {
		if !strings.Contains(r.out, want) {
			t.Errorf("no %q in\n%s", want, r.out)
		}
	}
	r = cli(t, db.path, "verify", "-json")
	if rep := decode[mail.Report](t, r.out); r.code != exitFailed || len(rep.Violations) != 5 {
		t.Errorf("%+v", r)
	}
}
