package e2e

import (
	"encoding/json"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/postroom/postroom/core/libsql/sqldtest"
	"github.com/postroom/postroom/core/telemetry/otlptest"
)

// `make scaled` starts many of each on one machine from deploy's files. Jobs
// that come in through HAProxy are completed, a trace leads from the request
// to the job's run, Prometheus answers every query of the dashboard, and all
// of it stops at Ctrl-C.
func TestTheScaledSetUp(t *testing.T) {
	t.Parallel()
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
	receiver := otlptest.New(t)
	host := sqldtest.FreeHost()
	s := newSystem(t)
	p := &process{Cmd: exec.Command(program, "-data", s.dir, "-bin", binaries, "-deploy", "../deploy", "-sqld", sqldtest.Program(t), "-host", host),
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
	spans, err := receiver.WaitFor(t.Context(), func(all []otlptest.Span) bool {
		return slices.ContainsFunc(all, func(s otlptest.Span) bool { return s.TraceID == trace && s.Name == "queue.job" })
	})
	if err != nil {
		t.Fatal(err)
	}
	parents := map[string]string{}
	for _, span := range spans {
		if span.TraceID == trace {
			parents[span.SpanID] = span.ParentID
		}
	}
	for _, span := range spans {
		if span.TraceID != trace || span.Name != "queue.job" {
			continue
		}
		at, steps := span.SpanID, 0
		for ; parents[at] != ""; at = parents[at] {
			steps++
		}
		if at != "b7ad6b7169203331" || steps < 2 {
			t.Errorf("from the job's run %d spans lead to %s, not to the caller", steps, at)
		}
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
	if code := p.ProcessState.ExitCode(); code != 0 || strings.Count(p.log.String(), " stopped\n") != 9 {
		t.Errorf("it ended with %d:\n%s", code, p.log)
	}
}
