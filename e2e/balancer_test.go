package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/postroom/postroom/core/libsql"
	"github.com/postroom/postroom/core/libsql/sqldtest"
)

// installed finds a server that make setup installs.
func (s *system) installed(name string) string {
	s.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		path = "/usr/sbin/" + name // which is on the PATH of root only
	}
	if _, err := os.Stat(path); err != nil {
		if os.Getenv("CI") != "" {
			s.Fatalf("there is no %s: make setup", name)
		}
		s.Skipf("there is no %s on this machine: make setup installs it where it can", name)
	}
	return path
}

// balancer starts HAProxy with the configuration that is shipped.
func (s *system) balancer(one, two string) *process {
	s.Helper()
	path := s.installed("haproxy")
	config := filepath.Join("..", "deploy", "haproxy", "haproxy.cfg")
	bind := sqldtest.FreeHost() + ":17880"
	env := append(os.Environ(), "API_BIND="+bind, "API_ONE="+one, "API_TWO="+two)
	check := exec.Command(path, "-c", "-f", config)
	check.Env = env
	if out, err := check.CombinedOutput(); err != nil {
		s.Fatalf("haproxy -c: %v\n%s", err, out)
	}
	p := &process{Cmd: exec.Command(path, "-db", "-f", config), s: s, log: newLog(), done: make(chan struct{}), url: "http://" + bind}
	p.Env, p.Stderr, p.Stdout = env, p.log, p.log
	s.begin(p, "haproxy")
	s.until("haproxy answers", func() bool {
		r, err := p.try("GET", "/healthz", "", nil)
		return err == nil && r.status == http.StatusOK
	})
	return p
}

// times is how often haproxy has reported something.
func (p *process) times(text string) int { return strings.Count(p.log.String(), text) }

// load asks an API for so much a second until stop is called, and counts what
// became of it. Most requests store a job, the others look at one.
type load struct {
	mu       sync.Mutex
	requests int
	stored   []string       // jobs that were accepted
	told     map[int]int    // answers that say try again, by status
	failed   map[string]int // everything else
	stop     func()
	took     time.Duration
}

func (p *process) load(perSecond int) *load {
	first := jobs(1, "debug.echo", func(int) any { return 0 })
	p.enqueue(first)
	l := &load{stored: []string{first[0].ID}, told: map[int]int{}, failed: map[string]int{}}
	done, ended, began := make(chan struct{}), make(chan struct{}), time.Now()
	l.stop = sync.OnceFunc(func() { close(done); <-ended; l.took = time.Since(began) })
	p.s.Cleanup(l.stop)
	go func() {
		defer close(ended)
		tick := time.NewTicker(time.Second / time.Duration(perSecond))
		defer tick.Stop()
		var wg sync.WaitGroup
		defer wg.Wait()
		for i := 0; ; i++ {
			select {
			case <-tick.C:
				wg.Go(func() { l.one(p, i%4 > 0) })
			case <-done:
				return
			}
		}
	}()
	return l
}

func (l *load) one(p *process, store bool) {
	method, path, id, body := "POST", "/v1/jobs", newID(), []byte(nil)
	if store {
		body, _ = json.Marshal(newJob{ID: id, Type: "debug.echo", Payload: id}) // plain values
	} else {
		method, path = "GET", "/v1/jobs/"+l.latest()
	}
	r, err := p.try(method, path, "application/json", bytes.NewReader(body))
	l.mu.Lock()
	defer l.mu.Unlock()
	l.requests++
	switch {
	case err != nil:
		l.failed[err.Error()]++
	case r.status == http.StatusCreated:
		l.stored = append(l.stored, id)
	case r.status == http.StatusOK:
	case (r.status == http.StatusServiceUnavailable || r.status == http.StatusTooManyRequests) && r.header.Get("Retry-After") != "":
		l.told[r.status]++
	default:
		l.failed[fmt.Sprintf("%s: %d %.200s", path, r.status, r.body)]++
	}
}

// latest is a job to look at.
func (l *load) latest() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.stored[len(l.stored)-1]
}

func (l *load) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.requests
}

// Two apiservers behind HAProxy and two runners, all on one libsql server, are
// restarted one after the other under load: callers notice nothing, no job is
// lost, and each starts soon after it was stored.
func TestARollingRestartBehindHAProxy(t *testing.T) {
	t.Parallel()
	const poll = 10 * time.Second
	s := newSystemOnServer(t, "QUEUE_DEBUG_JOBS=true", "QUEUE_CONCURRENCY=100", "QUEUE_LEASE=60s", "QUEUE_POLL="+poll.String(), "APP_DRAIN_DELAY=2s")
	hosts := []string{sqldtest.FreeHost(), sqldtest.FreeHost()}
	api := func(i int) *process { return s.server("-set", "app.host="+hosts[i], "-set", "app.port=17800") }
	apis := []*process{api(0), api(1)}
	runners := []*process{s.runner(), s.runner()}
	lb := s.balancer(hosts[0]+":17800", hosts[1]+":17800")
	db := s.open()

	l := lb.load(200)
	both := func() { // an idle runner finds work with its next poll; a busy one is no longer behind
		s.Helper()
		s.until("both runners are at work, and nothing waits", func() bool {
			return s.count(db, "SELECT count(DISTINCT runner) FROM (SELECT runner FROM job_runs ORDER BY finished_at DESC LIMIT 100)") == 2 &&
				s.count(db, "SELECT count(*) FROM jobs WHERE state = 'queued'") < 40
		})
	}
	both()
	since := s.count(db, "SELECT ms FROM db_clock")
	busy := func() { // so that each stage is seen under load
		s.Helper()
		n := l.count()
		s.until("more is asked", func() bool { return l.count() >= n+300*scale(t) })
	}
	for i, name := range []string{"one", "two"} {
		busy()
		up := lb.times("Server apiservers/" + name + " is UP")
		apis[i].signal(syscall.SIGTERM)
		s.until("it says that it is draining, and serves", func() bool {
			status, body := apis[i].health()
			if r := apis[i].get("/v1/jobs?limit=1"); r.status != http.StatusOK {
				t.Errorf("while it drains it answers %d %s", r.status, r.body)
			}
			return status == http.StatusServiceUnavailable && strings.Contains(body, `"draining"`)
		})
		<-apis[i].done
		if code := apis[i].ProcessState.ExitCode(); code != 0 {
			t.Errorf("an apiserver ended with %d", code)
		}
		apis[i] = api(i)
		s.until("haproxy takes it up again", func() bool { return lb.times("Server apiservers/"+name+" is UP") > up })
	}
	for i := range runners {
		busy()
		if code := runners[i].stop(); code != 0 {
			t.Errorf("a runner ended with %d", code)
		}
		runners[i] = s.runner()
		both()
	}
	busy()
	l.stop()
	for what, n := range l.failed {
		t.Errorf("%d requests failed: %s", n, what)
	}
	if len(l.stored) < l.requests/2 {
		t.Errorf("of %d requests %d jobs were accepted", l.requests, len(l.stored))
	}
	s.until("all that was accepted is completed", func() bool { return s.count(db, "SELECT count(*) FROM jobs WHERE finished_at IS NULL") == 0 })
	s.exactlyOnce(db, int(s.inState(db, "completed"))) // one that was answered 503 may be stored
	ids, err := json.Marshal(l.stored)
	if err != nil {
		t.Fatal(err)
	}
	if n := s.count(db, "SELECT count(*) FROM json_each(?) AS e JOIN jobs AS j ON j.id = e.value WHERE j.state = 'completed'", string(ids)); n != int64(len(l.stored)) {
		t.Errorf("%d jobs were accepted, %d of them completed", len(l.stored), n)
	}
	median, worst := s.pickup(db, since)
	t.Logf("%d requests in %v, %d jobs; told to try again: %v; from stored to started: median %d ms, worst %d ms", l.requests, l.took, len(l.stored), l.told, median, worst)
	if median > poll.Milliseconds()/20 {
		t.Errorf("busy runners begin a job %d ms after it was stored, as if they waited for the next poll", median)
	}
	if worst > 2*poll.Milliseconds() {
		t.Errorf("a job was begun after %d ms", worst)
	}

	for i := range apis {
		if code := apis[i].stop(); code != 0 {
			t.Errorf("an apiserver ended with %d", code)
		}
	}
	if r := lb.get("/v1/jobs"); r.status != http.StatusServiceUnavailable || r.header.Get("Retry-After") == "" || !strings.Contains(string(r.body), `"code":"unavailable"`) {
		t.Errorf("without a server haproxy says %d %v %s", r.status, r.header, r.body)
	}
}

// pickup is how long the jobs that were stored since then waited for their
// first start, in ms by the clock of the database.
func (s *system) pickup(db libsql.DB, since int64) (median, worst int64) {
	s.Helper()
	rows := s.rows(db, `SELECT r.started_at - j.created_at FROM jobs AS j JOIN job_runs AS r ON r.job_id = j.id AND r.run = 1
		WHERE j.type LIKE 'debug.%' AND j.created_at > ? ORDER BY 1`, since)
	return rows[len(rows)/2].Int(0), rows[len(rows)-1].Int(0)
}
