package main

import (
	"bufio"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/postroom/postroom/core/httpd"
	"github.com/postroom/postroom/core/token"
)

// The routes of this service. What is added to it is added here.
var everyRoute = slices.Sorted(slices.Values(append(mailRoutes,
	"GET /", "GET /healthz", "GET /livez", "GET /metrics", "GET /openapi.json", "GET /readyz", "GET /v1/config", "GET /v1/jobs", "GET /v1/jobs/{id}",
	"GET /v1/queues", "GET /v1/runners", "POST /v1/jobs", "POST /v1/jobs/{id}/cancel", "POST /v1/jobs/{id}/retry",
	"POST /v1/jobs/{id}/run-now", "DELETE /v1/jobs/{id}", "POST /v1/jobs:cancel", "POST /v1/jobs:retry", "POST /v1/jobs:delete",
	"GET /v1/cron", "PUT /v1/cron/{name}", "GET /v1/cron/{name}", "DELETE /v1/cron/{name}",
	"POST /v1/cron/{name}/pause", "POST /v1/cron/{name}/resume", "POST /v1/cron/{name}/trigger",
	"POST /v1/jobs:batch", "GET /v1/jobs/{id}/why", "POST /v1/jobs/{id}/steps/{name}/settle", "POST /v1/queues/{name}/pause", "POST /v1/queues/{name}/resume",
	"GET /v1/events", "GET /v1/limits", "GET /v1/limits/{scope}/{name}", "PUT /v1/limits/{scope}/{name}", "DELETE /v1/limits/{scope}/{name}",
	"GET /v1/me", "POST /login", "POST /logout",
)))

func TestTheDescriptionHasEveryRouteAndNoOther(t *testing.T) {
	t.Parallel()
	mux := http.NewServeMux()
	a, err := service{health: httpd.Health{Version: "test"}, log: zerolog.Nop()}.routes(mux)
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(a.patterns)
	if !slices.Equal(a.patterns, everyRoute) {
		t.Errorf("registered are\n%v, want\n%v", a.patterns, everyRoute)
	}
	f := newFixture(t)
	got := f.get("/openapi.json")
	var document struct {
		OpenAPI string                    `json:"openapi"`
		Paths   map[string]map[string]any `json:"paths"`
	}
	got.is(200)
	if err := json.Unmarshal([]byte(got.raw), &document); err != nil {
		t.Fatal(err)
	}
	var described []string
	for path, operations := range document.Paths {
		for method := range operations {
			described = append(described, strings.ToUpper(method)+" "+path)
		}
	}
	slices.Sort(described)
	if !slices.Equal(described, everyRoute) || !strings.HasPrefix(document.OpenAPI, "3.1") {
		t.Errorf("described as %s are\n%v, want\n%v", document.OpenAPI, described, everyRoute)
	}
	for _, route := range everyRoute {
		method, path, _ := strings.Cut(route, " ")
		r, err := http.NewRequestWithContext(t.Context(), method, strings.NewReplacer("{id}", "x", "{name}", "y", "{scope}", "key").Replace(path), nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, pattern := mux.Handler(r); strings.TrimSuffix(pattern, "{$}") != route {
			t.Errorf("%s is served by %q", route, pattern)
		}
	}
}

func TestTheDescriptionTellsTheShapes(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	raw := f.get("/openapi.json").raw
	document := f.get("/openapi.json").is(200)
	schemas := document["components"].(map[string]any)["schemas"].(map[string]any)
	job := schemas["Job"].(map[string]any)["properties"].(map[string]any)
	if created := job["created_at"].(map[string]any); created["type"] != "string" || created["format"] != "date-time" {
		t.Errorf("created_at is described as %v", created)
	}
	post := document["paths"].(map[string]any)["/v1/jobs"].(map[string]any)["post"].(map[string]any)
	body := post["requestBody"].(map[string]any)["content"].(map[string]any)
	if _, has := body["application/json"]; !has {
		t.Errorf("the body of POST /v1/jobs is described as %v", body)
	}
	put := document["paths"].(map[string]any)["/v1/limits/{scope}/{name}"].(map[string]any)["put"].(map[string]any)
	if _, has := put["requestBody"]; !has {
		t.Error("the body of PUT /v1/limits/{scope}/{name} is not described")
	}
	if got := slices.Sorted(maps.Keys(post["responses"].(map[string]any))); !slices.Equal(got, []string{"200", "201", "default"}) {
		t.Errorf("POST /v1/jobs answers with %v", got)
	}
	if strings.Contains(raw, "$schema") || strings.Contains(raw, `"422"`) {
		t.Error("the description speaks of $schema or of status 422")
	}
}

func TestTheIndexPointsOn(t *testing.T) {
	t.Parallel()
	got := newFixture(t).get("/").is(200)
	if got["openapi"] != "/openapi.json" || got["health"] != "/healthz" {
		t.Errorf("got %v", got)
	}
}

func TestTheTokenOpensEverythingButHealth(t *testing.T) {
	t.Parallel()
	f := newFixture(t, func(s *service) { s.tokens = token.NewKeyring("old", "new") })
	for _, route := range everyRoute {
		method, path, _ := strings.Cut(route, " ")
		path = strings.NewReplacer("{id}", unknownID, "{name}", "none", "{scope}", "key").Replace(path)
		got := f.call(method, path, "")
		if slices.Contains(probes, path) || path == "/" {
			got.is(200)
			continue
		}
		if path == loginPath || path == logoutPath {
			continue // TestABrowserLogsInAndOut has them
		}
		got.problem(401, "unauthorized", "")
		if path == eventsPath {
			method = "HEAD" // the answer to which ends
		}
		for _, token := range []string{"old", "new"} {
			if got := f.call(method, path, "", "Authorization", "Bearer "+token); got.status == 401 {
				t.Errorf("%s with the token %q: %d", route, token, got.status)
			}
		}
	}
	f.get("/nothing").problem(401, "unauthorized", "")
	if log := f.log.String(); strings.Contains(log, "Bearer") || strings.Contains(log, `"old"`) {
		t.Errorf("a token is in the log: %s", log)
	}
}

// However a path is written, it is no way round the token. The requests go out
// byte for byte: a client would tidy their paths.
func TestNoPathLeadsRoundTheToken(t *testing.T) {
	t.Parallel()
	f := newFixture(t, func(s *service) { s.tokens = token.NewKeyring("secret") })
	for _, path := range []string{
		"/v1/jobs", "//v1/jobs", "/./v1/jobs", "/healthz/../v1/jobs", "/healthz/..%2fv1/jobs", "/%2e%2e/v1/jobs", "/healthz%2f..%2fv1%2fjobs",
		"/ui/../v1/jobs", "/ui/%2e%2e/v1/jobs", "/ui/..%5c..%5cgo.mod", "/ui/%2e%2e%2fgo.mod", "/ui/....//go.mod", "/livez;/v1/jobs", "/v1/jobs?/healthz",
		"/v1/jobs#/healthz", "/healthz/v1/jobs", "/v1/../metrics", "http://127.0.0.1/v1/jobs", "/V1/JOBS", "/v1/jobs/%00", "*",
	} {
		conn, err := net.Dial("tcp", strings.TrimPrefix(f.url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n", path); err != nil {
			t.Fatal(err)
		}
		got, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		body, err := io.ReadAll(got.Body)
		_ = conn.Close()
		if err != nil || got.StatusCode < 300 || got.StatusCode >= 500 || strings.Contains(string(body), `"jobs"`) || strings.Contains(string(body), "module github.com") {
			t.Errorf("%s: %s %.200s, %v", path, got.Status, body, err)
		}
	}
}

func TestWithoutATokenPagesOfOtherSitesAreRefused(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.call("GET", "/v1/jobs", "", "Host", "evil.example").problem(403, "host_not_allowed", "")
	f.call("POST", "/v1/jobs/x/cancel", "", "Origin", "https://evil.example").problem(403, "cross_site", "")
	f.call("GET", "/v1/jobs", "", "Sec-Fetch-Site", "cross-site").problem(403, "cross_site", "")
	f.call("GET", "/v1/jobs", "", "Host", "localhost:17800", "Origin", "http://localhost:17800", "Sec-Fetch-Site", "same-origin").is(200)
	for name, got := range map[string]answer{
		"an answer": f.get("/v1/jobs"), "a refusal": f.get("/v1/jobs?limit=0"), "nothing there": f.get("/nothing"), "a wrong method": f.call("PUT", "/", ""),
	} {
		if got.header.Get("X-Content-Type-Options") != "nosniff" || got.header.Get("Cache-Control") != "no-store" || got.header.Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("%s has the headers %v", name, got.header)
		}
	}
}

func TestHealthTellsWhenTheDatabaseIsAway(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.get("/healthz").is(200)
	bringBack := f.place.TakeAway(t)
	if got := f.get("/healthz").is(503); got["status"] != "unavailable" || got["database"] != "unavailable" {
		t.Errorf("got %v", got)
	}
	got := f.post("/v1/jobs", `{"type":"x"}`)
	got.problem(503, "database_unavailable", "")
	if got.header.Get("Retry-After") == "" || strings.Contains(got.raw, "postroom.db") {
		t.Errorf("got %v %s", got.header, got.raw)
	}
	f.get("/v1/jobs").problem(503, "database_unavailable", "")
	bringBack()
	f.get("/healthz").is(200)
	f.post("/v1/jobs", `{"type":"x"}`).is(201)
}

func TestTheLogHasOneLinePerRequest(t *testing.T) {
	t.Parallel()
	f := newFixture(t, func(s *service) { s.log = s.log.Level(zerolog.InfoLevel) })
	f.call("POST", "/v1/jobs?cursor=in-the-query", `{"type":"x","payload":"in-the-payload"}`, "Content-Type", "application/json", "X-Request-Id", "first")
	f.call("POST", "/v1/jobs", `{"type":"x","payload":"in-the-payload"}`, "Content-Type", "application/json", "X-Request-Id", "second")
	f.get("/healthz")
	log := f.log.String()
	if strings.Count(log, `"message":"request"`) != 2 || !strings.Contains(log, `"request_id":"first"`) || !strings.Contains(log, `"route":"POST /v1/jobs","status":201`) {
		t.Errorf("log:\n%s", log)
	}
	if strings.Contains(log, "in-the-") {
		t.Errorf("the log tells too much:\n%s", log)
	}
}

// A route that a page names is there.
func TestPagesNameRoutesThatExist(t *testing.T) {
	t.Parallel()
	a, err := service{health: httpd.Health{Version: "test"}, log: zerolog.Nop()}.routes(http.NewServeMux())
	if err != nil {
		t.Fatal(err)
	}
	there := map[string]bool{}
	variable := regexp.MustCompile(`\{\w+\}|<\w+>|\$\w+|\b[A-Z]+\b`) // however a page writes it
	for _, p := range a.patterns {
		method, path, _ := strings.Cut(p, " ")
		there[method+" "+variable.ReplaceAllString(path, "*")] = true
	}
	named := regexp.MustCompile("\\b(GET|POST|PUT|PATCH|DELETE) (/(?:v1|healthz|livez|readyz|metrics|openapi|login|logout)[^\\s`?,;)]*)")
	paths, err := filepath.Glob("../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, page := range append(paths, "../README.md", "../CHANGELOG.md", "../CONTRIBUTING.md") {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range named.FindAllStringSubmatch(string(text), -1) {
			route := m[1] + " " + variable.ReplaceAllString(strings.TrimRight(m[2], ".:"), "*")
			if found++; !there[route] {
				t.Errorf("%s names %s, which does not exist", page, m[0])
			}
		}
	}
	if found < 5 {
		t.Errorf("only %d routes were found", found)
	}
}

func TestLargeAnswersAreCompressed(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	for range 20 {
		f.post("/v1/jobs", `{"type":"x","payload":"`+strings.Repeat("long ", 100)+`"}`).is(201)
	}
	for path, want := range map[string]string{"/v1/jobs": "gzip", "/openapi.json": "gzip", "/v1/jobs?limit=1": "", "/v1/nothing": "", "/healthz": "", "/ui/": ""} {
		got := f.call("GET", path, "", "Accept-Encoding", "gzip")
		if e := got.header.Get("Content-Encoding"); e != want {
			t.Errorf("%s: Content-Encoding %q, want %q", path, e, want)
		}
		for _, coding := range []string{"gzip", "gzip;q=0", "identity"} { // a cache must not mix them up, whatever it got first
			coded := f.call("GET", path, "", "Accept-Encoding", coding)
			varies := strings.Contains(strings.Join(coded.header.Values("Vary"), ","), "Accept-Encoding")
			if may := strings.HasPrefix(path, "/v1/") || want != ""; may && coded.status == 200 && !varies || coding != "gzip" && coded.header.Get("Content-Encoding") != "" {
				t.Errorf("%s for %s: %v", path, coding, coded.header)
			}
		}
		if want == "" {
			continue
		}
		unpacked, err := gzip.NewReader(strings.NewReader(got.raw))
		if err != nil {
			t.Fatal(err)
		}
		plain, err := io.ReadAll(unpacked)
		if err != nil || string(plain) != f.call("GET", path, "", "Accept-Encoding", "identity").raw {
			t.Errorf("%s: %d bytes unpacked are another answer, %v", path, len(plain), err)
		}
	}
	if got := f.call("POST", "/v1/jobs", `{"type":"x","payload":"`+strings.Repeat("long ", 1000)+`"}`, "Content-Type", "application/json", "Accept-Encoding", "gzip"); got.header.Get("Content-Encoding") != "" {
		t.Error("the answer to a change is compressed")
	}
	if got := f.call("HEAD", "/v1/events", "", "Accept-Encoding", "gzip"); got.header.Get("Content-Encoding") != "" {
		t.Error("the stream is compressed")
	}
}

// A stream is neither compressed nor held back, however much a caller would
// like to have it compressed: each event is there before the next one happens.
func TestAStreamIsNeitherCompressedNorHeldBack(t *testing.T) {
	t.Parallel()
	for _, coding := range []string{"gzip", "gzip, br, zstd, deflate", "*", "gzip;q=1, identity;q=0"} {
		t.Run(coding, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t, func(s *service) { s.heartbeat = time.Hour }) // which would push on what is held back
			l := f.follow("", "Accept-Encoding", coding)
			if got := l.header; got.Get("Content-Encoding") != "" || got.Get("Content-Type") != "text/event-stream" || !strings.Contains(got.Get("Cache-Control"), "no-transform") {
				t.Errorf("%v", got)
			}
			l.begin()
			read := 0
			for n := 0; read <= leastCompressed; n++ {
				id := f.enqueue("x", strings.Repeat("q", 100))
				b := l.event()
				if !strings.Contains(b.data, id) {
					t.Fatalf("event %d is %+v, want that of %s", n, b, id)
				}
				read += len(b.data)
			}
			l.leave()
		})
	}
}

// What others wrote for the pages is as they published it.
func TestVendoredFilesAreAsPublished(t *testing.T) {
	t.Parallel()
	sums, err := os.ReadFile("ui/vendor/SHA256SUMS")
	if err != nil {
		t.Fatal(err)
	}
	listed := map[string]string{}
	for line := range strings.Lines(string(sums)) {
		sum, name, _ := strings.Cut(strings.TrimSpace(line), "  ")
		listed[name] = sum
	}
	files, err := os.ReadDir("ui/vendor")
	if err != nil || len(files) != len(listed)+1 {
		t.Errorf("%d files, %d sums, %v", len(files), len(listed), err)
	}
	for name, want := range listed {
		text, err := os.ReadFile(filepath.Join("ui/vendor", name))
		if err != nil {
			t.Fatal(err)
		}
		if got := sha256.Sum256(text); hex.EncodeToString(got[:]) != want {
			t.Errorf("ui/vendor/%s was changed; scripts/vendor-web fetches it", name)
		}
	}
}

func TestThePagesAreServed(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	for path, mime := range map[string]string{"/ui/": "text/html", "/ui/app.js": "text/javascript", "/ui/app.css": "text/css", "/ui/vendor/uplot.js": "text/javascript"} {
		got := f.get(path)
		if got.status != 200 || !strings.HasPrefix(got.header.Get("Content-Type"), mime) || got.header.Get("Etag") == "" ||
			!strings.HasPrefix(got.header.Get("Content-Security-Policy"), "default-src 'none'; script-src 'self';") {
			t.Errorf("%s: %d %v", path, got.status, got.header)
		}
		if again := send(t, "GET", f.url+path, http.NoBody, "If-None-Match", got.header.Get("Etag")); again.status != 304 || again.raw != "" {
			t.Errorf("%s again: %d", path, again.status)
		}
	}
	client := http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	for path, accept := range map[string]string{"/": "text/html,*/*;q=0.8", "/ui/nowhere": "*/*", "/ui/../go.mod": "*/*"} {
		req, err := http.NewRequestWithContext(t.Context(), "GET", f.url+path, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Accept", accept)
		res, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close() // nothing is read
		if to := res.Header.Get("Location"); path != "/ui/../go.mod" && (res.StatusCode != 303 || to != "/ui/") || strings.Contains(to, "..") {
			t.Errorf("%s: %d to %q", path, res.StatusCode, to)
		}
	}
	f.get("/").is(200) // a program is told where to look
}
