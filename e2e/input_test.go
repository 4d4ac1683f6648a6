package e2e

import (
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/postroom/postroom/core/telemetry/otlptest"
)

// Each mistake is a clear error, nothing is half done, every process is up
// and every row can be read.
func TestBadInput(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	api := s.server()
	runner := s.runner()
	account := api.account()
	for name, c := range map[string]struct {
		path, contentType string
		body              io.Reader
		status            int
		code, mentions    string
	}{
		"malformed JSON":      {"/v1/jobs", "application/json", strings.NewReader(`{"type":`), 400, "malformed_json", ""},
		"an unknown field":    {"/v1/jobs", "application/json", strings.NewReader(`{"type":"x","colour":1}`), 400, "invalid", "colour"},
		"a wrong type":        {"/v1/jobs", "application/json", strings.NewReader(`{"type":7}`), 400, "invalid", "type"},
		"a Latin-1 byte":      {"/v1/jobs", "application/json", strings.NewReader("{\"type\":\"x\",\"payload\":\"caf\xe9\"}"), 400, "invalid_utf8", ""},
		"a wrong media type":  {"/v1/jobs", "text/plain", strings.NewReader(`{}`), 415, "", ""},
		"fifty megabytes":     {"/v1/jobs", "application/json", io.LimitReader(zeros{}, 50<<20), 413, "", ""},
		"a 50 MB message":     {"/v1/messages?account=" + account, "message/rfc822", io.LimitReader(zeros{}, 50<<20), 413, "", ""},
		"an empty message":    {"/v1/messages?account=" + account, "message/rfc822", strings.NewReader(""), 400, "invalid", ""},
		"no such account":     {"/v1/messages?account=none", "message/rfc822", strings.NewReader("x"), 404, "not_found", ""},
		"a broken regex":      {"/v1/rules", "application/json", strings.NewReader(`{"name":"x","action_type":"archive","conditions":{"op":"not","children":[{"op":"subject_regex","value":"("}]}}`), 400, "invalid", "conditions.children[0].value"},
		"a relative Maildir":  {"/v1/accounts", "application/json", strings.NewReader(`{"provider":"maildir","email":"a@b.example","config":{"path":"x"}}`), 400, "invalid", "config.path"},
		"an address in use":   {"/v1/accounts", "application/json", strings.NewReader(`{"provider":"maildir","email":"me@example.org","config":{"path":"/x"}}`), 409, "email_in_use", ""},
		"cancel of no job":    {"/v1/jobs/none/cancel", "", nil, 404, "not_found", ""},
		"a batch with a flaw": {"/v1/jobs:batch", "application/json", strings.NewReader(`{"jobs":[{"type":"good"},{"type":""}]}`), 400, "invalid", "jobs[1].type"},
	} {
		r := api.do("POST", c.path, c.contentType, c.body)
		var p struct {
			Code   string
			Detail string
			Errors []struct{ Field string }
		}
		if err := json.Unmarshal(r.body, &p); err != nil || r.status != c.status || c.code != "" && p.Code != c.code {
			t.Errorf("%s: %d %s, want %d %s", name, r.status, r.body, c.status, c.code)
		}
		if !strings.HasPrefix(r.header.Get("Content-Type"), "application/problem+json") || !strings.Contains(string(r.body), c.mentions) {
			t.Errorf("%s: %s %s, want %q in it", name, r.header.Get("Content-Type"), r.body, c.mentions)
		}
	}
	var list struct{ Jobs []struct{ Type string } }
	api.get("/v1/jobs").into(t, &list)
	if len(list.Jobs) != 1 || list.Jobs[0].Type != "account.sync" {
		t.Errorf("something was half done: %+v", list)
	}
	for _, p := range []*process{api, runner} {
		if code := p.stop(); code != 0 {
			t.Errorf("exit code %d", code)
		}
	}
}

// zeros is as many bytes of JSON's white space as one wants.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = ' '
	}
	return len(p), nil
}

func TestAConfigurationWithThreeMistakes(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	file := filepath.Join(s.dir, "postroom.toml")
	if err := os.WriteFile(file, []byte("[queue]\nconcurrency = 0\nlease = \"soon\"\n[app]\nprot = 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"queuerunner", "apiserver"} {
		out, err := s.tool(name, "-config", file)
		if exitCode(err) != 2 {
			t.Errorf("%s: exit code %d", name, exitCode(err))
		}
		for _, want := range []string{"postroom.toml:2:", "postroom.toml:3:", "postroom.toml:5:", "app.port"} {
			if !strings.Contains(out, want) {
				t.Errorf("%s says\n%s\nwant %s in it", name, out, want)
			}
		}
	}
}

// One trace leads from the HTTP request through the three jobs of a message.
func TestOneTraceFromRequestToAction(t *testing.T) {
	t.Parallel()
	receiver := otlptest.New(t)
	s := newSystem(t, "OTLP_ENDPOINT="+receiver.Endpoint(), "OTEL_BSP_SCHEDULE_DELAY=50")
	api := s.server()
	runner := s.runner()
	account := api.account()
	if r := api.postJSON("/v1/rules", `{"name":"all","conditions":{"op":"subject_contains","value":"x"},"action_type":"star"}`); r.status != http.StatusCreated {
		t.Fatalf("%d %s", r.status, r.body)
	}
	r := api.do("POST", "/v1/messages?account="+account, "message/rfc822", strings.NewReader("Subject: x\n\ny"))
	var j struct {
		ID      string
		TraceID string `json:"trace_id"`
	}
	r.into(t, &j)
	if r.status != http.StatusAccepted || j.TraceID == "" {
		t.Fatalf("%d %s", r.status, r.body)
	}
	s.settled(s.open(), 1)
	runner.stop() // flushes
	api.stop()
	spans, err := receiver.WaitFor(t.Context(), func(all []otlptest.Span) bool {
		for _, sp := range all {
			if sp.Name == "email.action" {
				return true
			}
		}
		return false
	})
	if err != nil {
		t.Fatal(err)
	}
	byID := map[string]otlptest.Span{}
	for _, sp := range spans {
		byID[sp.SpanID] = sp
	}
	// From the action upwards to the request.
	var chain []string
	for _, sp := range spans {
		if sp.Name != "email.action" {
			continue
		}
		if sp.TraceID != j.TraceID {
			t.Errorf("the action's trace is %s, the job's %s", sp.TraceID, j.TraceID)
		}
		for at, ok := sp, true; ok; at, ok = byID[at.ParentID] {
			chain = append(chain, at.Name)
		}
	}
	want := `^email\.action queue\.job email\.classify queue\.job email\.receive queue\.job POST /v1/messages$`
	if got := strings.Join(chain, " "); !regexp.MustCompile(want).MatchString(got) {
		t.Errorf("the action's ancestors are %s, want %s", got, want)
	}
	for _, line := range []string{`"trace_id":"` + j.TraceID} {
		if !strings.Contains(api.log.String(), line) {
			t.Errorf("the request's log line has no trace id:\n%s", api.log.tail(5))
		}
	}
}

// What README tells people to type works.
func TestREADME(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	makefile, err := os.ReadFile("../Makefile")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(`(?m)^make ([a-z]+)$`).FindAllStringSubmatch(string(text), -1) {
		if !strings.Contains(string(makefile), "\n"+m[1]+":") {
			t.Errorf("README names make %s, which the Makefile does not have", m[1])
		}
	}
	s := newSystem(t)
	api := s.server()
	urls := regexp.MustCompile(`(?m)^curl -s localhost:17800(\S+)`).FindAllStringSubmatch(string(text), -1)
	if len(urls) < 4 {
		t.Fatalf("found only %d addresses in README", len(urls))
	}
	for _, m := range urls {
		if r := api.get(m[1]); r.status != http.StatusOK {
			t.Errorf("README's %s answers %d %s", m[1], r.status, r.body)
		}
	}
	for _, m := range regexp.MustCompile("`(queuerunner [a-z ]+)`").FindAllStringSubmatch(string(text), -1) {
		if out, err := s.tool("queuerunner", strings.Fields(m[1])[1:]...); err != nil {
			t.Errorf("README's %s: %v\n%s", m[1], err, out)
		}
	}
	for _, m := range regexp.MustCompile(`\]\(([A-Za-z./-]+)\)`).FindAllStringSubmatch(string(text), -1) {
		if _, err := os.Stat(filepath.Join("..", m[1])); err != nil {
			t.Errorf("README links to %s: %v", m[1], err)
		}
	}
}
