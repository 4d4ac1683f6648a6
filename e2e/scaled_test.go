package e2e

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/postroom/postroom/core/libsql/sqldtest"
	"github.com/postroom/postroom/core/telemetry/otlptest"
)

// `make scaled` starts many of each on one machine from deploy's files. Jobs
// that come in through HAProxy are completed, a trace that goes through the
// collector leads from the request to the job's run, Prometheus answers every
// query of the dashboard, and all of it stops at Ctrl-C.
func TestTheScaledSetUp(t *testing.T) {
	t.Parallel()
	needCollector(t)
	program := scaled(t)
	receiver := otlptest.New(t)
	host := sqldtest.FreeHost()
	s := newSystem(t)
	p := &process{Cmd: exec.Command(program, "-data", s.dir, "-bin", binaries, "-deploy", "../deploy", "-sqld", sqldtest.Program(t), "-collector", collectorProgram, "-host", host),
		s: s, log: newLog(), done: make(chan struct{}), url: "http://" + host + ":17880"}
	p.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + s.dir, "QUEUE_DEBUG_JOBS=true", "QUEUE_POLL=200ms", "OTLP_ENDPOINT=" + receiver.Endpoint()}
	p.Stdout, p.Stderr = p.log, p.log
	s.begin(p, "scaled")
	if p.log.awaitUnless(t, "Ctrl-C stops it.", p.done) == "" {
		t.Fatalf("it ended:\n%s", p.log)
	}

	stored := jobs(200, "debug.echo", func(i int) any { return i })
	p.enqueue(stored)
	for _, j := range stored {
		if got := p.job(j.ID); got["state"] != "completed" {
			t.Errorf("job %s is %v", j.ID, got["state"])
		}
	}
	var mail struct{ Messages []any }
	s.until("the mail is taken in", func() bool {
		p.get("/v1/messages?limit=100").into(t, &mail)
		return len(mail.Messages) == 38
	})

	const trace = "0af7651916cd43dd8448eb211c80319c"
	req, err := http.NewRequest("POST", p.url+"/v1/jobs", strings.NewReader(`{"type":"debug.steps","payload":{"n":2}}`))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Traceparent", "00-"+trace+"-b7ad6b7169203331-01")
	res, err := http.DefaultClient.Do(req)
	if err != nil || res.StatusCode != http.StatusCreated {
		t.Fatalf("%v %v", res, err)
	}
	res.Body.Close()
	// Each process sends its spans in its own time.
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	_, err = receiver.WaitFor(ctx, func(all []otlptest.Span) bool {
		parents := map[string]string{}
		for _, span := range all {
			if span.TraceID == trace {
				parents[span.SpanID] = span.ParentID
			}
		}
		return slices.ContainsFunc(all, func(span otlptest.Span) bool {
			at, steps := span.SpanID, 0
			for ; parents[at] != ""; at = parents[at] {
				steps++
			}
			return span.TraceID == trace && span.Name == "queue.job" && at == "b7ad6b7169203331" && steps >= 2
		})
	})
	if err != nil {
		t.Fatalf("no job's run leads to the caller: %v", err)
	}

	// The services know of the collector alone, which says what it passed on.
	told, err := os.ReadFile(filepath.Join(s.dir, "logs", "collector.log"))
	if err != nil || !regexp.MustCompile(`Traces\s.*"spans": [1-9]`).Match(told) {
		t.Errorf("%v: the collector tells of no spans:\n%s", err, told)
	}

	text, err := os.ReadFile("../deploy/monitoring/dashboard.json")
	if err != nil {
		t.Fatal(err)
	}
	var dashboard struct {
		Panels []struct{ Targets []struct{ Expr string } }
	}
	if err := json.Unmarshal(text, &dashboard); err != nil {
		t.Fatal(err)
	}
	metrics := *p
	metrics.url = "http://" + host + ":17890"
	mayBeEmpty := []string{"postroom_database_errors_total", "postroom_cron_ticks_total", `outcome=~"failed|`} // what has not happened
	asked := 0
	for _, panel := range dashboard.Panels {
		for _, target := range panel.Targets {
			asked++
			query := strings.ReplaceAll(target.Expr, "$__rate_interval", "1m")
			var answer struct {
				Status string
				Error  string
				Data   struct{ Result []any }
			}
			s.until("Prometheus has an answer to "+query, func() bool {
				metrics.get("/api/v1/query?query="+url.QueryEscape(query)).into(t, &answer)
				return answer.Status != "success" || len(answer.Data.Result) > 0 ||
					slices.ContainsFunc(mayBeEmpty, func(m string) bool { return strings.Contains(query, m) })
			})
			if answer.Status != "success" {
				t.Errorf("%s: %s", query, answer.Error)
			}
		}
	}
	if asked < 15 {
		t.Errorf("only %d queries were asked", asked)
	}
	var up struct {
		Data struct{ Result []struct{ Value []any } }
	}
	metrics.get("/api/v1/query?query="+url.QueryEscape(`sum(up{job=~"postroom-.*"})`)).into(t, &up)
	if r := up.Data.Result; len(r) != 1 || r[0].Value[1] != "6" {
		t.Errorf("of six services Prometheus reaches %v", r)
	}

	if err := p.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	<-p.done
	if code := p.ProcessState.ExitCode(); code != 0 || strings.Count(p.log.String(), " stopped\n") != 10 {
		t.Errorf("it ended with %d:\n%s", code, p.log)
	}
}

// One that cannot start says why, and stops what it has started.
func TestTheScaledSetUpSaysWhyItFails(t *testing.T) {
	t.Parallel()
	cmd := exec.Command(scaled(t), "-data", t.TempDir(), "-bin", binaries, "-deploy", "../deploy", "-sqld", "/bin/false", "-host", sqldtest.FreeHost())
	said, err := cmd.CombinedOutput()
	if err == nil || cmd.ProcessState.ExitCode() != 1 || !strings.Contains(string(said), "scaled: sqld ended by itself (exit status 1)") {
		t.Errorf("%v: %s", err, said)
	}
}

// scaled builds the program, where what it starts is installed.
func scaled(t *testing.T) string {
	t.Helper()
	for _, name := range []string{"haproxy", "prometheus"} {
		_, err := exec.LookPath(name)
		if _, other := os.Stat("/usr/sbin/" + name); err != nil && other != nil {
			if os.Getenv("CI") != "" {
				t.Fatalf("there is no %s: make setup", name)
			}
			t.Skipf("there is no %s on this machine: make setup installs it where it can", name)
		}
	}
	program := filepath.Join(t.TempDir(), "scaled")
	build := exec.Command("go", "build", "-o", program, "./scaled")
	build.Dir = "../deploy"
	if said, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, said)
	}
	return program
}
