package httpd_test

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/rs/zerolog"

	"github.com/postroom/postroom/core/httpd"
	"github.com/postroom/postroom/core/token"
)

// answered is what a handler behind the guard says.
const answered = http.StatusTeapot

func ask(t *testing.T, g *httpd.Guard, method, path, remote, host string, headers ...string) *http.Response {
	t.Helper()
	h := g.Wrap(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(answered) }))
	r := httptest.NewRequestWithContext(t.Context(), method, path, nil)
	r.RemoteAddr, r.Host = remote, host
	for i := 0; i < len(headers); i += 2 {
		r.Header.Add(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Result()
}

func TestWithoutATokenOnlyThisMachineIsServed(t *testing.T) {
	t.Parallel()
	const here, away = "127.0.0.1:5000", "192.0.2.7:5000"
	for name, c := range map[string]struct {
		remote, host string
		headers      []string
		want         int
	}{
		"a call from here":                         {here, "127.0.0.1:17800", nil, answered},
		"by name":                                  {here, "localhost:17800", nil, answered},
		"by name without a port":                   {here, "LOCALHOST", nil, answered},
		"over IPv6":                                {"[::1]:5000", "[::1]:17800", nil, answered},
		"over IPv6 without a port":                 {"[::1]:5000", "[::1]", nil, answered},
		"over IPv4 in IPv6":                        {"[::ffff:127.0.0.1]:5000", "127.0.0.2", nil, answered},
		"another machine":                          {away, "127.0.0.1:17800", nil, 403},
		"another machine that names itself":        {away, "127.0.0.1", []string{"X-Forwarded-For", "127.0.0.1"}, 403},
		"no remote address":                        {"", "127.0.0.1", nil, 403},
		"a name that was pointed here":             {here, "evil.example:17800", nil, 403},
		"a name that begins like an address":       {here, "127.0.0.1.evil.example", nil, 403},
		"no Host":                                  {here, "", nil, 403},
		"a page of this machine":                   {here, "localhost", []string{"Origin", "http://localhost:3000", "Sec-Fetch-Site", "same-site"}, answered},
		"a page of another site":                   {here, "localhost", []string{"Origin", "https://evil.example"}, 403},
		"a page whose origin begins like ours":     {here, "localhost", []string{"Origin", "http://localhost.evil.example"}, 403},
		"a page without an origin":                 {here, "localhost", []string{"Origin", "null"}, 403},
		"an extension":                             {here, "localhost", []string{"Origin", "chrome-extension://localhost"}, 403},
		"two origins":                              {here, "localhost", []string{"Origin", "http://localhost", "Origin", "https://evil.example"}, 403},
		"a link on another site":                   {here, "localhost", []string{"Sec-Fetch-Site", "cross-site"}, 403},
		"an address that was typed in":             {here, "localhost", []string{"Sec-Fetch-Site", "none"}, answered},
		"a page of an origin that is allowed":      {here, "localhost", []string{"Origin", "https://app.example", "Sec-Fetch-Site", "cross-site"}, answered},
		"a page of an allowed name's other origin": {here, "localhost", []string{"Origin", "http://app.example"}, 403},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := &httpd.Guard{AllowedOrigins: []string{"https://app.example"}, Open: []string{"/healthz"}}
			for _, path := range []string{"/v1/jobs", "/healthz"} { // health makes no exception here
				if got := ask(t, g, "POST", path, c.remote, c.host, c.headers...); got.StatusCode != c.want {
					t.Errorf("%s: status %d, want %d", path, got.StatusCode, c.want)
				}
			}
		})
	}
}

func TestWithATokenItIsNeeded(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		method, path string
		headers      []string
		want         int
	}{
		"the token":                        {"POST", "/v1/jobs", []string{"Authorization", "Bearer first"}, answered},
		"the other token":                  {"POST", "/v1/jobs", []string{"Authorization", "Bearer second"}, answered},
		"the scheme in lower case":         {"POST", "/v1/jobs", []string{"Authorization", "bearer first"}, answered},
		"none":                             {"GET", "/v1/jobs", nil, 401},
		"a wrong one":                      {"GET", "/v1/jobs", []string{"Authorization", "Bearer firs"}, 401},
		"an empty one":                     {"GET", "/v1/jobs", []string{"Authorization", "Bearer "}, 401},
		"another scheme":                   {"GET", "/v1/jobs", []string{"Authorization", "Basic first"}, 401},
		"two headers":                      {"GET", "/v1/jobs", []string{"Authorization", "Bearer no", "Authorization", "Bearer first"}, 401},
		"in the query":                     {"GET", "/v1/jobs?token=first", nil, 401},
		"health without one":               {"GET", "/healthz", nil, answered},
		"health's head without one":        {"HEAD", "/healthz", nil, answered},
		"writing to health without one":    {"POST", "/healthz", nil, 401},
		"a path below health":              {"GET", "/healthz/../v1/jobs", nil, 401},
		"a path that begins like health":   {"GET", "/healthzz", nil, 401},
		"a page's question before a call":  {"OPTIONS", "/v1/jobs", []string{"Origin", "https://app.example", "Access-Control-Request-Method", "POST"}, 204},
		"the same from another site":       {"OPTIONS", "/v1/jobs", []string{"Origin", "https://evil.example", "Access-Control-Request-Method", "POST"}, 401},
		"an OPTIONS that asks for nothing": {"OPTIONS", "/v1/jobs", []string{"Origin", "https://app.example"}, 401},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := &httpd.Guard{Tokens: token.NewKeyring("", "first", "second"), AllowedOrigins: []string{"https://app.example"}, Open: []string{"/healthz"}}
			got := ask(t, g, c.method, c.path, "192.0.2.7:5000", "api.example", c.headers...)
			if got.StatusCode != c.want {
				t.Errorf("status %d, want %d", got.StatusCode, c.want)
			}
			if wants := got.Header.Get("WWW-Authenticate") != ""; wants != (c.want == 401) {
				t.Errorf("WWW-Authenticate is there: %v", wants)
			}
		})
	}
}

func TestACookieStandsForTheHeader(t *testing.T) {
	t.Parallel()
	const cookie = httpd.CookieName + "=a%3Bb"
	for name, c := range map[string]struct {
		method  string
		headers []string
		want    int
	}{
		"reading":                       {"GET", []string{"Cookie", cookie}, answered},
		"reading for another site":      {"GET", []string{"Cookie", cookie, "Sec-Fetch-Site", "cross-site"}, answered}, // whose page may not see the answer
		"a change by a page from here":  {"POST", []string{"Cookie", cookie, "Sec-Fetch-Site", "same-origin"}, answered},
		"the same by its origin":        {"DELETE", []string{"Cookie", cookie, "Origin", "https://api.example"}, answered},
		"a change by hand":              {"POST", []string{"Cookie", cookie, "Sec-Fetch-Site", "none"}, answered},
		"a change by another site":      {"POST", []string{"Cookie", cookie, "Sec-Fetch-Site", "cross-site"}, 403},
		"a change by a neighbour":       {"PUT", []string{"Cookie", cookie, "Sec-Fetch-Site", "same-site"}, 403},
		"a change by another origin":    {"PATCH", []string{"Cookie", cookie, "Origin", "https://evil.example"}, 403},
		"a wrong one":                   {"GET", []string{"Cookie", httpd.CookieName + "=a"}, 401},
		"two":                           {"GET", []string{"Cookie", cookie + "; " + cookie}, 401},
		"a wrong header beside it":      {"GET", []string{"Cookie", cookie, "Authorization", "Bearer no"}, 401},
		"the header by another site":    {"POST", []string{"Authorization", "Bearer a;b", "Sec-Fetch-Site", "cross-site"}, answered},
		"the header beside a wrong one": {"GET", []string{"Authorization", "Bearer a;b", "Cookie", httpd.CookieName + "=a"}, answered},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := &httpd.Guard{Tokens: token.NewKeyring("a;b")}
			got := ask(t, g, c.method, "/v1/jobs", "192.0.2.7:5000", "api.example", c.headers...)
			if got.StatusCode != c.want {
				t.Errorf("status %d, want %d", got.StatusCode, c.want)
			}
			if cleared := len(got.Cookies()) == 1 && got.Cookies()[0].MaxAge < 0; cleared != (c.want == 401) {
				t.Errorf("the cookie is taken away: %v", cleared)
			}
		})
	}
}

func TestPathsBelowAnOpenOneAreOpen(t *testing.T) {
	t.Parallel()
	g := &httpd.Guard{Tokens: token.NewKeyring("first"), Open: []string{"/ui/", "POST /login"}}
	for call, want := range map[string]int{
		"GET /ui/": answered, "GET /ui/app.js": answered, "HEAD /ui/a/b/": answered, "POST /login": answered,
		"GET /ui": 401, "GET /uix": 401, "POST /ui/app.js": 401, "GET /login": 401, "POST /login/": 401, "POST /login/x": 401,
		"GET /ui/../v1/jobs": 401, "GET /ui/%2e%2e/v1/jobs": 401, "GET /ui//v1": 401, "GET /ui/./x": 401, "GET //ui/": 401,
	} {
		method, path, _ := strings.Cut(call, " ")
		if got := ask(t, g, method, path, "192.0.2.7:5000", "api.example"); got.StatusCode != want {
			t.Errorf("%s: status %d, want %d", call, got.StatusCode, want)
		}
	}
}

func TestTheGuardSaysWhoCalls(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		guard  *httpd.Guard
		path   string
		header string
		want   token.Caller
	}{
		"a token":       {&httpd.Guard{Tokens: token.NewKeyring("first")}, "/", "Bearer first", token.Caller{Name: "config", Role: token.Admin}},
		"no token":      {&httpd.Guard{}, "/", "", token.Caller{Name: "loopback", Role: token.Admin}},
		"an open path":  {&httpd.Guard{Tokens: token.NewKeyring("first"), Open: []string{"/"}}, "/", "Bearer first", token.Caller{}},
		"an empty ring": {&httpd.Guard{Tokens: token.NewKeyring()}, "/", "", token.Caller{Name: "loopback", Role: token.Admin}},
	} {
		var got token.Caller
		mux := http.NewServeMux()
		mux.HandleFunc("GET /", func(_ http.ResponseWriter, r *http.Request) { got = httpd.CallerOf(r.Context()) })
		r := httptest.NewRequestWithContext(t.Context(), "GET", c.path, nil)
		r.RemoteAddr, r.Host = "127.0.0.1:5000", "localhost"
		if c.header != "" {
			r.Header.Set("Authorization", c.header)
		}
		c.guard.Wrap(mux).ServeHTTP(httptest.NewRecorder(), r)
		if got != c.want || r.Pattern != "GET /" {
			t.Errorf("%s: %+v of %q, want %+v", name, got, r.Pattern, c.want)
		}
	}
}

func TestEveryAnswerCarriesTheSecurityHeaders(t *testing.T) {
	t.Parallel()
	g := &httpd.Guard{Tokens: token.NewKeyring("first")}
	for _, headers := range [][]string{nil, {"Authorization", "Bearer first"}} {
		got := ask(t, g, "GET", "/", "192.0.2.7:5000", "api.example", headers...)
		for header, want := range map[string]string{
			"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "Content-Security-Policy": "default-src 'none'",
			"Cross-Origin-Resource-Policy": "same-origin", "Cache-Control": "no-store",
		} {
			if !strings.HasPrefix(got.Header.Get(header), want) {
				t.Errorf("status %d: %s is %q, want %q", got.StatusCode, header, got.Header.Get(header), want)
			}
		}
	}
}

func TestOriginsAreSharedWithOnlyWhenConfigured(t *testing.T) {
	t.Parallel()
	const origin, header = "https://app.example", "Access-Control-Allow-Origin"
	call := func(allowed ...string) string {
		g := &httpd.Guard{Tokens: token.NewKeyring("first"), AllowedOrigins: allowed}
		got := ask(t, g, "GET", "/", "192.0.2.7:5000", "api.example", "Authorization", "Bearer first", "Origin", origin)
		return got.Header.Get(header)
	}
	if got := call(); got != "" {
		t.Errorf("nothing configured: %s is %q", header, got)
	}
	if got := call("https://other.example"); got != "" {
		t.Errorf("another origin configured: %s is %q", header, got)
	}
	if got := call(origin); got != origin {
		t.Errorf("this origin configured: %s is %q", header, got)
	}
}

func TestCheckBind(t *testing.T) {
	t.Parallel()
	for host, loopback := range map[string]bool{
		"127.0.0.1": true, "127.9.9.9": true, "::1": true, "localhost": true, "::ffff:127.0.0.1": true,
		"": false, "0.0.0.0": false, "::": false, "192.0.2.7": false, "api.example": false, "localhost.example": false,
	} {
		if err := httpd.CheckBind(host, false); (err == nil) != loopback {
			t.Errorf("%q without a token: %v", host, err)
		}
		if err := httpd.CheckBind(host, true); err != nil {
			t.Errorf("%q with a token: %v", host, err)
		}
	}
}

func TestAListenerThatIsTakenNamesItsKey(t *testing.T) {
	t.Parallel()
	first, err := httpd.Listen("127.0.0.1:0", "app.port")
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	_, err = httpd.Listen(first.Addr().String(), "app.port")
	if err == nil || !strings.HasPrefix(err.Error(), "app.port: ") || !strings.Contains(err.Error(), "in use") {
		t.Errorf("got %v", err)
	}
}

func TestTheServerBoundsEveryPhase(t *testing.T) {
	t.Parallel()
	s := httpd.NewServer(http.NotFoundHandler(), zerolog.Nop())
	if s.ReadHeaderTimeout <= 0 || s.ReadTimeout <= 0 || s.WriteTimeout <= s.ReadTimeout || s.IdleTimeout <= 0 || s.MaxHeaderBytes <= 0 || s.ErrorLog == nil {
		t.Errorf("a phase is not bounded: %+v", s)
	}
}

func TestAccess(t *testing.T) {
	t.Parallel()
	serve := func(t *testing.T, h http.HandlerFunc, id string) (*http.Response, string) {
		t.Helper()
		var log strings.Builder
		w := httptest.NewRecorder()
		r := httptest.NewRequestWithContext(t.Context(), "GET", "/probe", nil)
		r.Header.Set("X-Request-Id", id)
		a := httpd.Access{Log: zerolog.New(&log).Level(zerolog.InfoLevel), Quiet: []string{"/quiet"}}
		httpd.WithRequestID(a.Wrap(h)).ServeHTTP(w, r)
		return w.Result(), log.String()
	}
	t.Run("a request is one line with its id", func(t *testing.T) {
		t.Parallel()
		got, log := serve(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("hello")) }, "my-id.1")
		if got.Header.Get("X-Request-Id") != "my-id.1" || strings.Count(log, "\n") != 1 ||
			!strings.Contains(log, `"request_id":"my-id.1"`) || !strings.Contains(log, `"status":200`) || !strings.Contains(log, `"bytes":5`) {
			t.Errorf("%v\n%s", got.Header, log)
		}
	})
	t.Run("an id that is unfit is replaced", func(t *testing.T) {
		t.Parallel()
		for _, id := range []string{"", "a b", "ü", "a\"b", strings.Repeat("a", 129)} {
			got, log := serve(t, func(http.ResponseWriter, *http.Request) {}, id)
			if made := got.Header.Get("X-Request-Id"); len(made) < 20 || made == id || !strings.Contains(log, made) {
				t.Errorf("%q became %q", id, made)
			}
		}
	})
	t.Run("a panic is a problem that tells nothing", func(t *testing.T) {
		t.Parallel()
		got, log := serve(t, func(http.ResponseWriter, *http.Request) { panic(errors.New("a detail")) }, "my-id")
		body := read(t, got)
		if got.StatusCode != 500 || !strings.Contains(body, `"code":"internal"`) || strings.Contains(body, "a detail") || !strings.Contains(body, `"request_id":"my-id"`) {
			t.Errorf("%d %s", got.StatusCode, body)
		}
		if !strings.Contains(log, "a detail") || !strings.Contains(log, `"status":500`) {
			t.Errorf("log: %s", log)
		}
	})
	t.Run("a panic in the middle of an answer cuts it off", func(t *testing.T) {
		t.Parallel()
		defer func() {
			if got := recover(); got != http.ErrAbortHandler {
				t.Errorf("recovered %v", got)
			}
		}()
		serve(t, func(w http.ResponseWriter, _ *http.Request) {
			_, _ = fmt.Fprint(w, "half")
			panic("late")
		}, "my-id")
	})
}
