package main

import (
	"io"
	"path/filepath"
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
	b.Exec("INSERT INTO job_run_rows(job_id, run, runner, outcome, started_at, finished_at, created_at) SELECT 'gone\x1b', value, 'r', 'failed', 1, 1, 1 FROM json_each('[1,2,3]')")
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

// On a terminal long work says that it is under way, and leaves nothing of that
// behind; elsewhere it says nothing.
func TestLongWorkShowsThatItGoesOn(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	lookup := func(name string) (string, bool) {
		if name == "PATHS_DATABASE" {
			return db.path, true
		}
		return "", false
	}
	for command, want := range map[string][]string{
		"verify":     {"\rreading the database, 0 s\x1b[K", "\rcomparing the files, 0 s\x1b[K"},
		"migrate up": {"\rchanging the schema, 0 s\x1b[K"},
		"backup " + filepath.Join(t.TempDir(), "copy"): {" copied\x1b[K\r\n", "\rverifying the copy, 0 s\x1b[K"},
		"bench -jobs 100": {"\rmeasuring, 0 s\x1b[K"},
	} {
		args := strings.Fields(command)
		terminal, screen := openTerminal(t)
		if code := run(t.Context(), args, lookup, strings.NewReader(""), io.Discard, terminal); code != exitFine {
			t.Errorf("%s: exit %d", command, code)
		}
		if err := terminal.Close(); err != nil {
			t.Fatal(err)
		}
		got := <-screen
		for _, text := range want {
			if !strings.Contains(got, text) {
				t.Errorf("%s: the screen got %q, want %q", command, got, text)
			}
		}
		if !strings.HasSuffix(got, "\r\x1b[K") {
			t.Errorf("%s: the screen ends with %q", command, got)
		}
		if args[0] == "backup" {
			args[1] += "2"
		}
		if r := cli(t, db.path, args...); r.code != exitFine || r.err != "" {
			t.Errorf("%s, not on a terminal: %+v", command, r)
		}
	}
}
