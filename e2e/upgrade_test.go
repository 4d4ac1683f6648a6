package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/postroom/postroom/core/libsql"
)

// before is the last release, or while there is none the commit before the
// schema changed last.
func before(t *testing.T) string {
	t.Helper()
	git := func(args ...string) []string {
		out, err := exec.Command("git", append([]string{"-C", ".."}, args...)...).Output()
		if err != nil {
			return nil
		}
		return strings.Fields(string(out))
	}
	if tags := git("tag", "--merged", "HEAD", "--sort=-v:refname", "v*"); len(tags) > 0 {
		return tags[0]
	}
	changed := git("log", "-1", "--format=%H", "--diff-filter=A", "--", "migrations/*.up.sql")
	if len(changed) == 0 || len(git("rev-parse", "--verify", "--quiet", changed[0]+"^")) == 0 {
		t.Skip("the history that the release before is built from is not here")
	}
	return changed[0] + "^"
}

// release is the system with the services of a commit.
func (s *system) release(t *testing.T, commit string) *system {
	t.Helper()
	src, bin := t.TempDir(), t.TempDir()
	run := func(dir, name string, args ...string) {
		t.Helper()
		cmd := exec.Command(name, args...)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s %v: %v\n%s", name, args, err, out)
		}
	}
	tar := filepath.Join(src, "src.tar")
	run("..", "git", "archive", "--format=tar", "--output="+tar, commit)
	run(src, "tar", "-xf", tar)
	for _, name := range []string{"queuerunner", "apiserver"} {
		run(filepath.Join(src, name), "go", "build", "-trimpath", "-o", filepath.Join(bin, name), ".")
	}
	old := *s
	old.bin = bin
	return &old
}

// A rolling upgrade: the new release migrates, and while it takes over service
// by service the one before works on with the new schema.
func TestTheReleaseBeforeWorksOnTheNewSchema(t *testing.T) {
	t.Parallel()
	s := newSystemOnServer(t, "QUEUE_DEBUG_JOBS=true", "QUEUE_CONCURRENCY=5")
	old := s.release(t, before(t))
	api, runner := old.server(), old.runner()
	account := api.account()
	work := func(at *process) {
		t.Helper()
		at.enqueue(append(jobs(20, "debug.sleep", func(int) any { return map[string]int{"ms": 20} }),
			jobs(10, "debug.steps", func(int) any { return map[string]int{"n": 4, "fail_after": 2} })...))
	}
	mail := func(at *process, text string) {
		t.Helper()
		if r := at.do("POST", "/v1/messages?account="+account, "message/rfc822", strings.NewReader("Subject: "+text+"\n\n"+text)); r.status != 202 {
			t.Errorf("a message: %d %s", r.status, r.body)
		}
	}
	work(api)
	mail(api, "before the upgrade")
	db := s.open()
	s.until("the release before is at work", func() bool { return s.inState(db, "completed") > 0 })
	was := s.count(db, "SELECT max(version) FROM schema_migrations")
	if out, err := s.tool("queuerunner", "migrate", "up"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Logf("schema %d is %d now", was, s.count(db, "SELECT max(version) FROM schema_migrations"))

	newAPI, newRunner := s.server(), s.runner()
	for _, at := range []*process{api, newAPI} {
		work(at)
		mail(at, "through "+at.url)
	}
	s.until("both releases have run jobs on the new schema", func() bool {
		api.enqueue(jobs(1, "debug.echo", func(i int) any { return i }))
		return s.count(db, "SELECT count(DISTINCT runner) FROM job_runs WHERE runner IN (?, ?)", runner.runnerID(), newRunner.runnerID()) == 2
	})
	again := old.runner() // it also starts on the new schema
	for _, p := range []*process{api, runner, again} {
		if code := p.stop(); code != 0 {
			t.Errorf("a service of the release before ended with %d", code)
		}
	}
	s.until("all is done", func() bool {
		return s.count(db, "SELECT count(*) FROM jobs WHERE finished_at IS NULL AND type <> 'account.sync'") == 0
	})
	s.settled(db, 3)
	s.exactlyOnce(db, int(s.count(db, "SELECT count(*) FROM jobs WHERE type LIKE 'debug.%'")))
}

// A schema that a later release changed so that this one cannot work with it
// says so in min_compatible: this one does not start, and changes nothing.
func TestAnIncompatibleSchemaIsRefused(t *testing.T) {
	t.Parallel()
	s := newSystemOnServer(t)
	if out, err := s.tool("queuerunner", "migrate", "up"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	db := s.open()
	version := s.count(db, "SELECT max(version) FROM schema_migrations")
	later := func(compatible int64) {
		t.Helper()
		var b libsql.Batch
		b.Exec("INSERT INTO schema_migrations SELECT ? WHERE NOT EXISTS (SELECT 1 FROM schema_migrations WHERE version = ?)", version+1, version+1)
		b.Exec("UPDATE meta SET value = ? WHERE key = 'min_compatible'", compatible)
		if _, err := db.Write(t.Context(), &b); err != nil {
			t.Fatal(err)
		}
	}
	later(version)
	api, runner := s.server(), s.runner() // a later schema that is compatible
	for _, p := range []*process{api, runner} {
		if code := p.stop(); code != 0 {
			t.Errorf("on a later schema a service ended with %d", code)
		}
	}
	later(version + 1)
	for name, args := range map[string][]string{"queuerunner": {"run"}, "apiserver": {"serve"}} {
		cmd := exec.Command(filepath.Join(s.bin, name), args...)
		cmd.Env = slices.Concat(s.env, []string{"TMPDIR=" + os.TempDir()})
		out, err := cmd.CombinedOutput()
		if exitCode(err) != 1 || !strings.Contains(string(out), "incompatible") {
			t.Errorf("%s on an incompatible schema: %v\n%s", name, err, out)
		}
	}
}
