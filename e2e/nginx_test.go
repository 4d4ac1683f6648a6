package e2e

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/postroom/postroom/core/libsql/sqldtest"
)

// nginx starts nginx with the configuration that is shipped, its addresses
// replaced.
func (s *system) nginx(one, two string) *process {
	s.Helper()
	path := s.installed("nginx")
	text, err := os.ReadFile("../deploy/nginx/postroom.conf")
	if err != nil {
		s.Fatal(err)
	}
	bind := sqldtest.FreeHost() + ":17880"
	site := strings.NewReplacer("127.0.0.1:17880", bind, "127.0.0.1:17800", one, "127.0.0.1:17801", two).Replace(string(text))
	dir := s.TempDir()
	config := filepath.Join(dir, "nginx.conf")
	whole := fmt.Sprintf(`pid %[1]s/pid; error_log stderr notice; daemon off; master_process off;
events {}
http {
	access_log off;
	client_body_temp_path %[1]s/body; proxy_temp_path %[1]s/proxy; fastcgi_temp_path %[1]s/f; uwsgi_temp_path %[1]s/u; scgi_temp_path %[1]s/s;
%[2]s
}`, dir, site)
	if err := os.WriteFile(config, []byte(whole), 0o600); err != nil {
		s.Fatal(err)
	}
	if said, err := exec.Command(path, "-t", "-q", "-p", dir, "-e", "stderr", "-c", config).CombinedOutput(); err != nil {
		s.Fatalf("nginx -t: %v\n%s", err, said)
	}
	p := &process{Cmd: exec.Command(path, "-p", dir, "-e", "stderr", "-c", config), s: s, log: newLog(), done: make(chan struct{}), url: "http://" + bind}
	p.Stderr, p.Stdout = p.log, p.log
	s.begin(p, "nginx")
	s.until("nginx answers", func() bool {
		r, err := p.try("GET", "/healthz", "", nil)
		return err == nil && r.status == http.StatusOK
	})
	return p
}

// Behind nginx one of two apiservers is stopped and started again under load:
// no request fails, and hardly any has to be repeated. A stream of events is
// not held back, and with no server left callers are told to try again.
func TestARestartBehindNginx(t *testing.T) {
	t.Parallel()
	s := newSystem(t, "QUEUE_DEBUG_JOBS=true", "APP_DRAIN_DELAY=1s")
	hosts := []string{sqldtest.FreeHost(), sqldtest.FreeHost()}
	api := func(i int) *process { return s.server("-set", "app.host="+hosts[i], "-set", "app.port=17800") }
	apis := []*process{api(0), api(1)}
	lb := s.nginx(hosts[0]+":17800", hosts[1]+":17800")

	// One change, of a job that no runner takes: nothing follows that could push
	// it through.
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, "GET", lb.url+"/v1/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	stored := jobs(1, "debug.echo", func(int) any { return 0 })
	lb.enqueue(stored)
	events := bufio.NewScanner(res.Body)
	for events.Scan() && !strings.Contains(events.Text(), stored[0].ID) { // while the stream is open
	}
	if err := events.Err(); err != nil {
		t.Errorf("the stream of events is held back: %v", err)
	}
	cancel()

	s.runner()
	l := lb.load(100)
	busy := func() {
		s.Helper()
		n := l.count()
		s.until("more is asked", func() bool { return l.count() >= n+100 })
	}
	for i := range apis {
		busy()
		apis[i].signal(syscall.SIGTERM)
		<-apis[i].done
		busy()
		apis[i] = api(i)
	}
	busy()
	l.stop()
	for what, n := range l.failed {
		t.Errorf("%d requests failed: %s", n, what)
	}
	t.Logf("%d requests, %d jobs; told to try again: %v", l.requests, len(l.stored), l.told)
	if told := l.told[http.StatusServiceUnavailable]; told > l.requests/50 {
		t.Errorf("with a server left %d of %d were told to try again", told, l.requests)
	}
	for _, id := range l.stored {
		if j := lb.job(id); j["state"] != "completed" || j["attempts"] != 1.0 {
			t.Errorf("job %s is %v after %v attempts", id, j["state"], j["attempts"])
		}
	}
	for i := range apis {
		if code := apis[i].stop(); code != 0 {
			t.Errorf("an apiserver ended with %d", code)
		}
	}
	if r := lb.postJSON("/v1/jobs", `{"type":"debug.echo"}`); r.status != http.StatusServiceUnavailable || r.header.Get("Retry-After") == "" || !strings.Contains(string(r.body), `"code":"unavailable"`) {
		t.Errorf("without a server nginx says %d %v %s", r.status, r.header, r.body)
	}
}
