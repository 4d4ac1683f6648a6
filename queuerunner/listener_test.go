package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/postroom/postroom/core/job"
)

// address waits until the process listens and returns where.
func (p *process) address() string {
	p.t.Helper()
	var lines []map[string]any
	await(p.t, "the runner listens", func() bool {
		lines = p.logged("listening")
		return len(lines) == 1
	})
	return fmt.Sprint(lines[0]["address"])
}

// get asks a path of the process and returns the status and the body.
func (p *process) get(path string, headers ...string) (int, map[string]any) {
	p.t.Helper()
	req, err := http.NewRequestWithContext(p.t.Context(), http.MethodGet, "http://"+p.address()+path, nil)
	if err != nil {
		p.t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
		if headers[i] == "Host" {
			req.Host = headers[i+1]
		}
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		p.t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }() // it was read
	text, err := io.ReadAll(res.Body)
	if err != nil {
		p.t.Fatal(err)
	}
	var body map[string]any
	if err := json.Unmarshal(text, &body); err != nil {
		p.t.Fatalf("%v in %q", err, text)
	}
	return res.StatusCode, body
}

// answers says whether a path answers with the status and the word for it.
func (p *process) answers(path string, status int, word string) bool {
	p.t.Helper()
	code, body := p.get(path)
	return code == status && body["status"] == word
}

func TestTheListener(t *testing.T) {
	t.Parallel()

	t.Run("says ok while the runner works, and draining when it stops", func(t *testing.T) {
		t.Parallel()
		db := newDatabase(t)
		id := db.enqueue(job.DebugSleep, `{"ms":600000}`)
		p := startRunner(t, db.path, "queue.http_addr=127.0.0.1:0", "queue.drain_timeout=1h")
		db.await(id, job.Running)
		for _, path := range []string{"/healthz", "/readyz", "/livez"} {
			if code, body := p.get(path); code != http.StatusOK || body["status"] != "ok" {
				t.Errorf("%s: %d %v", path, code, body)
			}
		}
		ask := func() (int, string) {
			r := cli(t, db.path, "healthcheck", "-set", "queue.http_addr="+p.address())
			return r.code, r.err
		}
		if code, said := ask(); code != exitFine || said != "" {
			t.Errorf("healthcheck of a runner that works: %d %s", code, said)
		}
		p.signal(syscall.SIGTERM)
		await(t, "healthz says draining", func() bool { return p.answers("/healthz", http.StatusServiceUnavailable, "draining") })
		if code, said := ask(); code != exitFailed || !strings.Contains(said, "draining") {
			t.Errorf("healthcheck of a runner that drains: %d %s", code, said)
		}
		if r := cli(t, db.path, "healthcheck", "-set", "queue.http_addr="); r.code != exitWrong || !strings.Contains(r.err, "queue.http_addr is empty") {
			t.Errorf("healthcheck without a listener: %d %s", r.code, r.err)
		}
		if !p.answers("/readyz", http.StatusServiceUnavailable, "draining") || !p.answers("/livez", http.StatusOK, "ok") {
			t.Error("readyz or livez is wrong while draining")
		}
		p.signal(syscall.SIGTERM)
		if code := p.exit(); code != exitFine {
			t.Errorf("exit %d", code)
		}
	})

	t.Run("says unavailable while the database is away", func(t *testing.T) {
		t.Parallel()
		folder := filepath.Join(t.TempDir(), "not-mounted")
		if err := os.WriteFile(folder, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		p := startRunner(t, filepath.Join(folder, "postroom.db"), "queue.http_addr=127.0.0.1:0")
		for _, path := range []string{"/healthz", "/readyz"} {
			if !p.answers(path, http.StatusServiceUnavailable, "unavailable") {
				t.Errorf("%s is wrong", path)
			}
		}
		if !p.answers("/livez", http.StatusOK, "ok") {
			t.Error("/livez is wrong")
		}
		if err := os.Remove(folder); err != nil {
			t.Fatal(err)
		}
		await(t, "readyz says ok", func() bool { return p.answers("/readyz", http.StatusOK, "ok") })
	})

	t.Run("serves this machine only without a token", func(t *testing.T) {
		t.Parallel()
		p := startRunner(t, newDatabase(t).path, "queue.http_addr=127.0.0.1:0")
		if code, body := p.get("/livez", "Host", "evil.example"); code != http.StatusForbidden || body["code"] != "host_not_allowed" {
			t.Errorf("another host: %d %v", code, body)
		}
		if code, body := p.get("/elsewhere"); code != http.StatusNotFound || body["code"] != "not_found" {
			t.Errorf("another path: %d %v", code, body)
		}
	})

	t.Run("with a token keeps only the probes open", func(t *testing.T) {
		t.Parallel()
		p := startRunner(t, newDatabase(t).path, "queue.http_addr=:0", "api.token=secret-one", "api.tokens=secret-two")
		if !p.answers("/livez", http.StatusOK, "ok") {
			t.Error("/livez is closed")
		}
		if code, _ := p.get("/elsewhere"); code != http.StatusUnauthorized {
			t.Errorf("without the token: %d", code)
		}
		for _, token := range []string{"secret-one", "secret-two"} {
			if code, _ := p.get("/elsewhere", "Authorization", "Bearer "+token); code != http.StatusNotFound {
				t.Errorf("with the token: %d", code)
			}
		}
		if strings.Contains(p.log.String(), "secret-") {
			t.Error("the log holds a token")
		}
	})

	t.Run("whose address is taken stops the start and names its key", func(t *testing.T) {
		t.Parallel()
		taken, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = taken.Close() })
		p := startRunner(t, newDatabase(t).path, "queue.http_addr="+taken.Addr().String())
		if code := p.exit(); code != exitFailed {
			t.Errorf("exit %d", code)
		}
		lines := p.logged("queuerunner gives up")
		if len(lines) != 1 || !strings.HasPrefix(fmt.Sprint(lines[0]["error"]), "queue.http_addr: ") {
			t.Errorf("log %v", lines)
		}
	})

	t.Run("that others could reach needs a token", func(t *testing.T) {
		t.Parallel()
		r := cli(t, "unused.db", "-set", "queue.http_addr=0.0.0.0:0")
		if r.code != exitWrong || !strings.HasPrefix(r.err, "flag -set: queue.http_addr: ") {
			t.Errorf("%+v", r)
		}
	})
}
