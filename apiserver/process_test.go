package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// patience is how long a test waits for what must happen.
const patience = 30 * time.Second

func runWith(t *testing.T, env map[string]string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	lookup := func(name string) (string, bool) { v, has := env[name]; return v, has }
	ctx, cancel := context.WithTimeout(t.Context(), patience) // what should refuse to serve must not serve for ever
	defer cancel()
	code = run(ctx, args, lookup, &out, &errs)
	return code, out.String(), errs.String()
}

func TestTheCommandLine(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = taken.Close() }) // not deferred: the subtests outlive this function
	_, port, _ := net.SplitHostPort(taken.Addr().String())
	database := "paths.database=" + filepath.Join(dir, "p.db")
	for name, c := range map[string]struct {
		args           []string
		env            map[string]string
		code           int
		stdout, stderr string
	}{
		"help":                          {[]string{"-h"}, nil, 0, "Usage: apiserver", ""},
		"help of the command":           {[]string{"serve", "-h"}, nil, 0, "-config FILE", ""},
		"version":                       {[]string{"-version"}, nil, 0, "apiserver ", ""},
		"an unknown flag":               {[]string{"-nope"}, nil, 2, "", "-nope"},
		"an unknown command":            {[]string{"migrate"}, nil, 2, "", `"migrate"`},
		"help of the health check":      {[]string{"healthcheck", "-h"}, nil, 0, "healthcheck", ""},
		"a health check of nobody":      {[]string{"healthcheck", "-set", "app.port=1"}, nil, 1, "", "does not answer"},
		"a health check of what is not": {[]string{"healthcheck", "-set", "app.prot=1"}, nil, 2, "", "app.prot"},
		"too many words":                {[]string{"serve", "serve"}, nil, 2, "", "serve"},
		"an unknown key":                {[]string{"-set", "app.prot=1"}, nil, 2, "", "app.prot"},
		"no such file":                  {[]string{"serve", "-config", filepath.Join(dir, "none.toml")}, nil, 2, "", "none.toml"},
		"an open address and no token":  {[]string{"-set", "app.host=0.0.0.0"}, nil, 2, "", "app.host"},
		"the same by environment":       {nil, map[string]string{"APP_HOST": "::"}, 2, "", "app.host"},
		"a server with a password":      {[]string{"-set", "paths.database=libsql://a:b@example.com"}, nil, 2, "", "paths.database"},
		"a port that is taken":          {[]string{"-set", database, "-set", "app.port=" + port}, nil, 1, "", "app.port"},
		"no database and no migrations": {[]string{"-set", "paths.database=" + filepath.Join(dir, "none.db"), "-set", "database.auto_migrate=false"}, nil, 1, "", "queuerunner migrate up"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			code, stdout, stderr := runWith(t, c.env, c.args...)
			if code != c.code || !strings.Contains(stdout, c.stdout) || !strings.Contains(stderr, c.stderr) {
				t.Errorf("code %d, want %d\nstdout: %s\nstderr: %s", code, c.code, stdout, stderr)
			}
		})
	}
}

// process is apiserver as a process of its own.
type process struct {
	t   *testing.T
	cmd *exec.Cmd
	log *safeBuffer
	url string
}

func startProcess(t *testing.T, settings ...string) *process {
	t.Helper()
	p := launch(t, settings...)
	p.line("listening")
	return p
}

// launch returns when health checks are answered.
func launch(t *testing.T, settings ...string) *process {
	t.Helper()
	p := &process{t: t, log: &safeBuffer{}}
	args := []string{"serve", "-set", "app.port=0", "-set", "paths.database=" + filepath.Join(t.TempDir(), "new", "p.db")}
	for _, s := range settings {
		args = append(args, "-set", s)
	}
	p.cmd = exec.CommandContext(context.WithoutCancel(t.Context()), os.Args[0], args...)
	p.cmd.Env = append(os.Environ(), asProgram+"=1")
	p.cmd.Stderr = p.log
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if p.cmd.ProcessState == nil {
			_ = p.cmd.Process.Kill()
			_ = p.cmd.Wait()
		}
	})
	p.url = "http://" + p.line("answering health checks")["address"].(string)
	return p
}

// until waits for something to become true.
func (p *process) until(what string, is func() bool) {
	p.t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	late := time.After(patience)
	for !is() {
		select {
		case <-tick.C:
		case <-late:
			p.t.Fatalf("not in time: %s\n%s", what, p.log)
		}
	}
}

// line waits for a line of the log.
func (p *process) line(message string) (line map[string]any) {
	p.t.Helper()
	p.until("the line "+message, func() bool {
		for text := range strings.Lines(p.log.String()) {
			line = nil
			if strings.HasSuffix(text, "\n") && json.Unmarshal([]byte(text), &line) == nil && line["message"] == message {
				return true
			}
		}
		return false
	})
	return line
}

func (p *process) signal() {
	p.t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		p.t.Fatal(err)
	}
}

func (p *process) ends(code int) {
	p.t.Helper()
	late := time.AfterFunc(patience, func() { _ = p.cmd.Process.Kill() }) // the exit code then tells
	defer late.Stop()
	err := p.cmd.Wait()
	if got := p.cmd.ProcessState.ExitCode(); got != code {
		p.t.Errorf("exit code %d, want %d (%v)\n%s", got, code, err, p.log)
	}
}

func (p *process) get(path string) answer {
	p.t.Helper()
	return send(p.t, "GET", p.url+path, http.NoBody)
}

func TestAProcessWaitsForADatabaseThatIsAway(t *testing.T) {
	t.Parallel()
	folder := filepath.Join(t.TempDir(), "not-mounted")
	if err := os.WriteFile(folder, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	database := "paths.database=" + filepath.Join(folder, "p.db")
	impatient := launch(t, database, "app.drain_delay=0s")
	p := launch(t, database)
	p.line("the database does not answer; trying again")
	for _, path := range []string{"/healthz", "/readyz"} {
		if got := p.get(path).is(503); got["status"] != "unavailable" || got["version"] == nil {
			t.Errorf("%s: %v", path, got)
		}
	}
	p.get("/livez").is(200)
	got := p.get("/v1/jobs")
	got.problem(503, "database_unavailable", "")
	if got.header.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
	impatient.signal()
	impatient.ends(exitFine)
	if err := os.Remove(folder); err != nil {
		t.Fatal(err)
	}
	p.line("listening")
	p.get("/readyz").is(200)
	p.get("/v1/jobs").is(200)
}

func TestPrometheusReadsTheMetrics(t *testing.T) {
	t.Parallel()
	p := startProcess(t)
	send(t, "POST", p.url+"/v1/jobs", strings.NewReader(`{"type":"nobody.knows","queue":"q"}`), "Content-Type", "application/json").is(201)
	got := p.get("/metrics")
	if got.status != 200 || !strings.HasPrefix(got.header.Get("Content-Type"), "text/plain") {
		t.Fatalf("%d %v", got.status, got.header)
	}
	for _, want := range []string{
		`postroom_queue_depth{postroom_job_state="queued",postroom_queue_name="q"} 1`, `postroom_queue_depth{postroom_job_state="failed",postroom_queue_name="q"} 0`,
		`postroom_queue_oldest_waiting_seconds{postroom_queue_name="q"} `, `postroom_queue_paused{postroom_queue_name="q"} 0`, "postroom_runners 0",
		"postroom_queue_enqueued_total 1", "postroom_database_commit_requests_bucket{", "postroom_database_writer_blocked 0", "process_resident_memory_bytes ", "go_goroutine_count ",
	} {
		if !strings.Contains(got.raw, "\n"+want) {
			t.Errorf("not there: %s", want)
		}
	}
	locked := startProcess(t, "api.token=secret")
	locked.get("/metrics").problem(401, "unauthorized", "")
}

func TestAProcessDrainsAndTheSecondSignalHurriesIt(t *testing.T) {
	t.Parallel()
	p := startProcess(t, "app.drain_delay=1h")
	p.get("/readyz").is(200)
	p.signal()
	p.line("draining")
	for _, path := range []string{"/healthz", "/readyz"} {
		if got := p.get(path).is(503); got["status"] != "draining" {
			t.Errorf("%s: %v", path, got)
		}
	}
	p.get("/livez").is(200)
	p.get("/v1/jobs").is(200) // what still comes is still answered
	p.signal()
	p.ends(exitFine)
}

func TestAProcessFinishesTheRequestsItHas(t *testing.T) {
	t.Parallel()
	p := startProcess(t, "app.drain_delay=0s")
	reading, writing := io.Pipe()
	done := make(chan answer, 1)
	go func() {
		defer close(done) // also when send gives up
		done <- send(t, "POST", p.url+"/v1/jobs", reading, "Content-Type", "application/json")
	}()
	if _, err := writing.Write([]byte(`{"type":`)); err != nil { // returns once the request is being sent
		t.Fatal(err)
	}
	p.get("/livez").is(200)
	p.signal()
	p.until("the listener closes", func() bool {
		conn, err := net.Dial("tcp", strings.TrimPrefix(p.url, "http://"))
		if err == nil {
			_ = conn.Close()
		}
		return errors.Is(err, syscall.ECONNREFUSED)
	})
	if _, err := writing.Write([]byte(`"x"}`)); err != nil {
		t.Fatal(err)
	}
	_ = writing.Close() // a pipe's end always closes
	got, answered := <-done
	if !answered {
		t.Fatal("the request was cut off")
	}
	got.is(201)
	p.ends(exitFine)
}

func TestTheTraceOfTheRequestIsTheJobs(t *testing.T) {
	t.Parallel()
	p := startProcess(t)
	const trace = "4bf92f3577b34da6a3ce929d0e0e4736"
	post := func(headers ...string) map[string]any {
		return send(t, "POST", p.url+"/v1/jobs", strings.NewReader(`{"type":"x"}`), append(headers, "Content-Type", "application/json")...).is(201)
	}
	if got := post("Traceparent", "00-"+trace+"-00f067aa0ba902b7-01"); got["trace_id"] != trace {
		t.Errorf("the trace id is %v, want the caller's", got["trace_id"])
	}
	own := post("X-Request-Id", "own-trace")["trace_id"]
	p.until("the request's line", func() bool {
		for text := range strings.Lines(p.log.String()) {
			var line map[string]any
			if json.Unmarshal([]byte(text), &line) == nil && line["request_id"] == "own-trace" {
				return own != nil && line["trace_id"] == own
			}
		}
		return false
	})
	p.signal()
	p.ends(exitFine)
}
