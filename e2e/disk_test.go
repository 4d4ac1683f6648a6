package e2e

import (
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// The disk fills up under running services and has room again later. Nobody
// dies, callers and supervisors are told, nothing is lost or half done, and
// work goes on by itself.
func TestAFullDisk(t *testing.T) {
	t.Parallel()
	s := newSystem(t, "QUEUE_DEBUG_JOBS=true")
	s.onSmallDisk("size=24m")
	api := s.server()
	runner := s.listening()
	account := api.account()
	db := s.open()
	accepted := jobs(10, "debug.sleep", func(int) any { return map[string]int{"ms": 1000} })
	accepted = append(accepted, jobs(20, "debug.steps", func(int) any { return map[string]int{"n": 20, "fail_after": 10} })...)
	api.enqueue(accepted)

	ballast := filepath.Join(s.dir, "ballast")
	fill(t, ballast)
	// What the file and its log have left is used up by the jobs themselves.
	var refused newJob
	s.until("a job is refused", func() bool {
		j := jobs(1, "debug.echo", func(int) any { return strings.Repeat("x", 50_000) })[0]
		r := api.create(j)
		switch r.status {
		case http.StatusCreated:
			accepted = append(accepted, j)
			fill(t, ballast) // what a checkpoint gave back
			return false
		case http.StatusServiceUnavailable:
			if r.header.Get("Retry-After") == "" || !strings.Contains(string(r.body), `"code":"database_full"`) {
				t.Errorf("a job that does not fit: %v %s", r.header, r.body)
			}
			refused = j
			return true
		}
		t.Fatalf("%d %s", r.status, r.body)
		return true
	})
	if r := api.get("/v1/jobs/" + refused.ID); r.status != http.StatusNotFound {
		t.Errorf("the refused job: %d %s", r.status, r.body)
	}
	if r := api.do("POST", "/v1/messages?account="+account, "message/rfc822", strings.NewReader(strings.Repeat("Subject: x\n\ny", 9000))); r.status != http.StatusServiceUnavailable || r.header.Get("Retry-After") == "" {
		t.Errorf("a message that does not fit: %d %s", r.status, r.body)
	}
	since := s.count(db, "SELECT ms FROM db_clock")
	for name, p := range map[string]*process{"the apiserver": api, "the runner": runner} {
		s.until(name+" reports the full disk", func() bool {
			r := p.get("/readyz")
			return r.status == http.StatusServiceUnavailable && strings.Contains(string(r.body), `"status":"disk_full"`)
		})
		if status, body := p.health(); status != http.StatusOK || p.get("/livez").status != http.StatusOK {
			t.Errorf("healthz of %s: %d %s", name, status, body)
		}
	}
	s.until("leases have run out meanwhile", func() bool { return s.count(db, "SELECT ms FROM db_clock") > since+3000 })

	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	for name, p := range map[string]*process{"the apiserver": api, "the runner": runner} {
		s.until(name+" is ready again", func() bool { return p.get("/readyz").status == http.StatusOK })
	}
	api.enqueue([]newJob{refused})
	accepted = append(accepted, refused)
	if r := api.do("POST", "/v1/messages?account="+account, "message/rfc822", strings.NewReader("Subject: x\n\ny")); r.status != http.StatusAccepted {
		t.Errorf("a message: %d %s", r.status, r.body)
	}
	s.allCompleted(db, len(accepted))
	s.settled(db, 1)
	s.exactlyOnce(db, len(accepted))
	if n := s.count(db, "SELECT count(*) FROM jobs WHERE crashes > 0"); n != 0 {
		t.Errorf("%d jobs count a crash, though no runner died", n)
	}
	for _, j := range accepted {
		if s.count(db, "SELECT count(*) FROM jobs WHERE id = ?", j.ID) != 1 {
			t.Errorf("job %s was accepted and is lost", j.ID)
		}
	}
	for _, p := range []*process{api, runner} {
		if code := p.stop(); code != 0 {
			t.Errorf("exit code %d", code)
		}
	}
}

// create asks for one job.
func (p *process) create(j newJob) reply {
	p.s.Helper()
	body, err := json.Marshal(j)
	if err != nil {
		p.s.Fatal(err)
	}
	return p.postJSON("/v1/jobs", string(body))
}

// onSmallDisk puts the system's folder on a disk of its own, which takes root.
func (s *system) onSmallDisk(size string) {
	s.Helper()
	if err := syscall.Mount("postroom-e2e", s.dir, "tmpfs", 0, size); err != nil {
		s.Skipf("a small disk cannot be mounted, which takes root: %v", err)
	}
	s.Cleanup(func() {
		if err := syscall.Unmount(s.dir, syscall.MNT_DETACH); err != nil {
			s.Errorf("unmount %s: %v", s.dir, err)
		}
	})
}

// fill takes all the room that is left on the disk of the file.
func fill(tb testing.TB, path string) {
	tb.Helper()
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		tb.Fatal(err)
	}
	for size := 1 << 20; size > 0; { // ever smaller pieces, to the last byte
		if _, err = f.Write(make([]byte, size)); err != nil {
			size /= 2
		}
	}
	if !errors.Is(err, syscall.ENOSPC) {
		tb.Errorf("fill the disk: %v", err)
	}
	_ = f.Close() // the data does not matter
}
