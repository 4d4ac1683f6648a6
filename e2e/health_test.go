package e2e

import (
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/postroom/postroom/core/libsql"
)

func (p *process) health() (status int, body string) {
	p.s.Helper()
	r := p.get("/healthz")
	return r.status, string(r.body)
}

// awaitHealth waits until /healthz has the status.
func (p *process) awaitHealth(status int) {
	p.s.Helper()
	p.s.until("healthz changes", func() bool { got, _ := p.health(); return got == status })
}

// The database file is moved, deleted, emptied and replaced under running
// services: 503 while that lasts, 200 when it is back, nothing written to the
// wrong file, and the services go on by themselves.
func TestHealthFollowsTheDatabaseFile(t *testing.T) {
	t.Parallel()
	s := newSystem(t, "QUEUE_DEBUG_JOBS=true")
	api := s.server()
	runner := s.runner()
	if status, body := api.health(); status != http.StatusOK || !strings.Contains(body, `"version":"`) || !strings.Contains(body, `"database":"ok"`) {
		t.Fatalf("%d %s", status, body)
	}
	path, aside := s.database(), s.database()+".aside"
	rename := func(from, to string) {
		t.Helper()
		if err := os.Rename(from, to); err != nil {
			t.Fatal(err)
		}
	}
	works := func(when string) {
		t.Helper()
		api.awaitHealth(http.StatusOK)
		r := api.postJSON("/v1/jobs", `{"type":"debug.echo","payload":"`+when+`"}`)
		var j struct{ ID string }
		r.into(t, &j)
		if got := api.job(j.ID); got["state"] != "completed" {
			t.Errorf("after the file was %s: %v", when, got)
		}
	}
	unavailable := func(when string) {
		t.Helper()
		api.awaitHealth(http.StatusServiceUnavailable)
		if r := api.postJSON("/v1/jobs", `{"type":"debug.echo"}`); r.status != http.StatusServiceUnavailable || r.header.Get("Retry-After") == "" {
			t.Errorf("a job while the file is %s: %d %s", when, r.status, r.body)
		}
		if r := api.get("/livez"); r.status != http.StatusOK {
			t.Errorf("livez while the file is %s: %d", when, r.status)
		}
	}

	works("there")

	rename(path, aside)
	unavailable("moved")
	if _, err := os.Stat(path); err == nil {
		t.Error("an empty database was made in the place of the moved one")
	}
	rename(aside, path)
	works("moved")

	rename(path, aside)
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	unavailable("emptied")
	if info, err := os.Stat(path); err != nil || info.Size() != 0 {
		t.Errorf("the empty file was written to: %v, %v", info, err)
	}
	rename(aside, path)
	works("emptied")

	// Another database, of another system.
	other := newSystem(t)
	if out, err := s.tool("queuerunner", "-set", "paths.database="+other.database(), "migrate", "up"); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	rename(path, aside)
	rename(other.database(), path)
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	unavailable("replaced")
	if after, err := os.ReadFile(path); err != nil || string(after) != string(before) {
		t.Errorf("the other database was written to, %v", err)
	}
	rename(aside, path)
	works("replaced")

	// Deleted, and restored from a copy: another inode, the same database.
	copied, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	unavailable("deleted")
	if err := os.WriteFile(aside, copied, 0o600); err != nil {
		t.Fatal(err)
	}
	rename(aside, path)
	works("deleted")

	for _, p := range []*process{api, runner} {
		if code := p.stop(); code != 0 {
			t.Errorf("exit code %d", code)
		}
	}
}

// tool runs a command to its end.
func (s *system) tool(name string, args ...string) (string, error) {
	cmd := exec.Command(binaries+"/"+name, args...)
	cmd.Env = s.env
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// While another process holds the write lock the service is well, but not
// ready.
func TestABlockedWriterIsReported(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	api := s.server()
	db := s.open()
	if r := api.get("/readyz"); r.status != http.StatusOK {
		t.Fatalf("%d %s", r.status, r.body)
	}
	// A statement that takes long, in a batch that holds the lock meanwhile.
	var slow libsql.Batch
	slow.Exec("UPDATE meta SET updated_at = updated_at WHERE key = 'epoch'")
	slow.Query("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 30000000) SELECT max(i) FROM n")
	done := make(chan error, 1)
	go func() {
		_, err := db.Write(t.Context(), &slow)
		done <- err
	}()
	s.until("readyz reports the blocked writer", func() bool {
		r := api.get("/readyz")
		if status, body := api.health(); status != http.StatusOK {
			t.Errorf("healthz while the lock is held: %d %s", status, body)
		}
		return r.status == http.StatusServiceUnavailable && strings.Contains(string(r.body), "writer_blocked")
	})
	if err := <-done; err != nil && libsql.ClassOf(err) != libsql.Unknown {
		t.Fatal(err)
	}
	s.until("readyz is well again", func() bool { return api.get("/readyz").status == http.StatusOK })
}

func TestAuthentication(t *testing.T) {
	t.Parallel()
	s := newSystem(t, "API_TOKEN=correct-horse-battery")
	api := s.server()
	if r := api.get("/v1/jobs"); r.status != http.StatusUnauthorized {
		t.Errorf("without a token: %d %s", r.status, r.body)
	}
	if r := api.get("/healthz"); r.status != http.StatusOK {
		t.Errorf("healthz: %d", r.status)
	}
	if strings.Contains(api.log.String(), "correct-horse") {
		t.Error("the token is in the log")
	}
	out, err := newSystem(t).tool("apiserver", "-set", "app.host=0.0.0.0")
	if code := exitCode(err); code != 2 || !strings.Contains(out, "token") {
		t.Errorf("binding every address without a token: exit %d, %s", code, out)
	}
}

func exitCode(err error) int {
	if exit, ok := err.(*exec.ExitError); ok {
		return exit.ExitCode()
	}
	return 0
}
