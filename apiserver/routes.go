package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/danielgtaylor/huma/v2"
	"github.com/rs/zerolog"
	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"

	"github.com/postroom/postroom/core/config"
	"github.com/postroom/postroom/core/httpd"
	"github.com/postroom/postroom/core/mail"
	"github.com/postroom/postroom/core/once"
	"github.com/postroom/postroom/core/queue"
	"github.com/postroom/postroom/core/telemetry"
	"github.com/postroom/postroom/core/token"
	"github.com/postroom/postroom/core/wiring"
)

// service is what the API stands on.
type service struct {
	queue      *queue.Queue
	events     *queue.Events
	heartbeat  time.Duration // how often a stream of events says something
	mail       *mail.Store
	answers    once.Store   // to requests with an Idempotency-Key
	metrics    http.Handler // the page for Prometheus
	settings   config.Settings
	health     httpd.Health
	log        zerolog.Logger
	maxBody    int64 // bytes of a JSON body
	maxMessage int64 // bytes of a raw message
	tokens     *token.Keyring
	origins    []string
	guard      *httpd.Guard // who may call; set where the handler is put together
}

// probes need no token. quiet paths, asked again and again by machines, are
// logged at debug and not traced.
var (
	probes = []string{"/healthz", "/livez", "/readyz"}
	quiet  = append([]string{"/metrics"}, probes...)
)

// open is what needs no token: the probes, the pages, which hold no data, the
// sign that points to them, and the way in and out.
var open = append([]string{"GET /", uiPath, "POST " + loginPath, "POST " + logoutPath}, probes...)

// front answers health checks from the first moment, and everything else once
// the database is open.
type front struct{ now atomic.Pointer[http.Handler] }

func newFront(s service) *front {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", s.health.Healthz)
	mux.HandleFunc("GET /livez", s.health.Livez)
	mux.HandleFunc("GET /readyz", s.health.Readyz)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		httpd.WriteProblem(w, r, httpd.ProblemOf(wiring.ErrNotOpen))
	})
	s.guard = s.newGuard()
	var f front
	f.set(s.wrap(mux))
	return &f
}

// open lets everything in.
func (f *front) open(s service) error {
	h, err := newHandler(s)
	if err == nil {
		f.set(h)
	}
	return err
}

func (f *front) set(h http.Handler) { f.now.Store(&h) }

// ServeHTTP implements [http.Handler].
func (f *front) ServeHTTP(w http.ResponseWriter, r *http.Request) { (*f.now.Load()).ServeHTTP(w, r) }

// newHandler puts the service together.
func newHandler(s service) (http.Handler, error) {
	s.guard = s.newGuard()
	a, err := s.routes(http.NewServeMux())
	if err != nil {
		return nil, err
	}
	return s.wrap(a), nil
}

func (s service) newGuard() *httpd.Guard {
	return &httpd.Guard{Tokens: s.tokens, AllowedOrigins: s.origins, Open: open}
}

// wrap puts around the routes, from the connection inwards, the request's id,
// its span, its log line, and who may call.
func (s service) wrap(h http.Handler) http.Handler {
	h = cleanText(h)
	h = s.guard.Wrap(h)
	h = httpd.Access{Log: s.log, Quiet: quiet}.Wrap(h)
	// The route is known only when the mux has answered; otelhttp reads it
	// then and names the span after it, which does not make it an attribute.
	h = tellRoute(h)
	h = otelhttp.NewHandler(h, "request", otelhttp.WithSpanNameFormatter(spanName), otelhttp.WithFilter(isTraced))
	return httpd.WithRequestID(h)
}

// routes is the list of everything that is served.
func (s service) routes(mux *http.ServeMux) (*api, error) {
	a := newAPI(mux, s.health.Version, s.log)
	a.answers = s.answers
	s.jobRoutes(a)
	s.queueRoutes(a)
	s.cronRoutes(a)
	s.limitRoutes(a)
	s.eventRoutes(a)
	s.accountRoutes(a)
	s.messageRoutes(a)
	s.actionRoutes(a)
	s.ruleRoutes(a)
	s.loginRoutes(a)

	unavailable := map[int]string{http.StatusServiceUnavailable: "no; status says why"}
	a.plain(route{id: "healthz", role: anyone, method: "GET", path: "/healthz", summary: "Does the service work?", also: unavailable}, "yes", healthy{}, s.health.Healthz)
	a.plain(route{id: "livez", role: anyone, method: "GET", path: "/livez", summary: "Is the process up?"}, "yes", alive{}, s.health.Livez)
	a.plain(route{id: "readyz", role: anyone, method: "GET", path: "/readyz", summary: "Does the service want traffic?", also: unavailable}, "yes", readyAnswer{}, s.health.Readyz)
	a.raw(route{id: "metrics", method: "GET", path: "/metrics", summary: "Metrics for Prometheus"}, "metrics in the text format of Prometheus", "text/plain", &huma.Schema{Type: "string"}, func(w http.ResponseWriter, r *http.Request) { s.metrics.ServeHTTP(w, r) })
	a.plain(route{id: "index", role: anyone, method: "GET", path: "/", summary: "Where to look"}, "the addresses of the description and of the health check", index{}, serveIndex(index{
		Service: "postroom apiserver", Version: s.health.Version, OpenAPI: "/openapi.json", Health: "/healthz", Pages: uiPath,
	}))
	a.huma.OpenAPI().Paths["/"].Get.Responses["303"] = &huma.Response{
		Description: "a browser is sent on to the pages", Content: map[string]*huma.MediaType{"text/html": {Schema: &huma.Schema{Type: "string"}}},
	}
	pages, err := serveUI()
	if err != nil {
		return nil, fmt.Errorf("serve the pages: %w", err)
	}
	mux.Handle("GET "+uiPath+"{file...}", pages)
	register(a, route{id: "get-config", method: "GET", path: "/v1/config", summary: "The configuration of this apiserver, with the origin of each value; secrets are ***"}, s.getConfig)
	var document []byte
	a.plain(route{id: "openapi", method: "GET", path: "/openapi.json", summary: "This description"}, "an OpenAPI 3.1 document", map[string]any{},
		func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, document) })
	truly(a.huma.OpenAPI().Components.Schemas)
	document, err = json.Marshal(a.huma.OpenAPI())
	if err != nil {
		return nil, fmt.Errorf("describe the API: %w", err)
	}
	return a, nil
}

// index is the answer to GET /.
type index struct {
	Service string `json:"service"`
	Version string `json:"version"`
	OpenAPI string `json:"openapi"`
	Health  string `json:"health"`
	Pages   string `json:"pages"`
}

func (s service) getConfig(context.Context, *struct{}) (*reply[config.Settings], error) {
	return &reply[config.Settings]{s.settings}, nil
}

func serveJSON(v any) http.HandlerFunc {
	body, err := json.Marshal(v)
	if err != nil {
		panic("apiserver: encode a constant: " + err.Error())
	}
	return func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, body) }
}

func writeJSON(w http.ResponseWriter, body []byte) {
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(body) // that the caller is gone can be told to nobody
}

func spanName(_ string, r *http.Request) string {
	if r.Pattern != "" {
		return r.Pattern
	}
	return r.Method
}

// tellRoute gives the request's span its route.
func tellRoute(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		next.ServeHTTP(w, r)
		telemetry.Route(r.Context(), r.Pattern)
	})
}

// isTraced leaves out what machines ask again and again, and streams, which
// last as long as somebody listens and would pass for slow requests.
func isTraced(r *http.Request) bool {
	return r.URL.Path != eventsPath && !slices.Contains(quiet, r.URL.Path)
}

// cleanText refuses a path or query that could not be stored: the database
// takes valid UTF-8 without NUL only.
func cleanText(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		query, err := url.QueryUnescape(r.URL.RawQuery)
		text := r.URL.Path + query
		switch {
		case err != nil:
			httpd.WriteProblem(w, r, httpd.NewProblem(http.StatusBadRequest, "invalid", "the query is not properly encoded"))
		case !utf8.ValidString(text):
			httpd.WriteProblem(w, r, httpd.NewProblem(http.StatusBadRequest, "invalid_utf8", "the address is not valid UTF-8"))
		case strings.ContainsRune(text, 0):
			httpd.WriteProblem(w, r, httpd.NewProblem(http.StatusBadRequest, "invalid", "the address contains a NUL"))
		default:
			next.ServeHTTP(w, r)
		}
	})
}

// ServeHTTP implements [http.Handler]: it serves the mux to callers whose role
// allows it, notes who changes what, and puts the mux's own refusals, 404 and
// 405, in the form of every other.
func (a *api) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h, pattern := a.mux.Handler(r)
	if pattern != "" {
		a.call(a.routes[pattern], w, r)
		return
	}
	found := &refused{header: http.Header{}}
	h.ServeHTTP(found, r)
	p := httpd.NewProblem(http.StatusNotFound, "not_found", "there is nothing at this address")
	if found.status == http.StatusMethodNotAllowed {
		w.Header().Set("Allow", found.header.Get("Allow"))
		p = httpd.NewProblem(found.status, "method_not_allowed", "this address does not take "+short(r.Method))
	}
	httpd.WriteProblem(w, r, p)
}

// call serves a route; the zero route is a page, which the guard judges alone.
// The mux sets the request's pattern and path values.
func (a *api) call(rt route, w http.ResponseWriter, r *http.Request) {
	caller := httpd.CallerOf(r.Context())
	switch needed := rt.needs(); {
	case rt.id == "" || needed == anyone:
		a.mux.ServeHTTP(w, r)
	case !caller.Role.Includes(needed):
		httpd.WriteProblem(w, r, httpd.NewProblem(http.StatusForbidden, "forbidden",
			fmt.Sprintf("this needs a token with the role %s; %q has the role %s", needed, caller.Name, caller.Role)))
	case rt.method == http.MethodGet && rt.path != eventsPath: // a stream must not wait for more
		a.gzipped.ServeHTTP(w, r)
	case !rt.changes(r):
		a.mux.ServeHTTP(w, r)
	default:
		httpd.Audit(a.log, rt.id, a.mux, w, r)
	}
}

// refused takes in what the mux says to a request that has no route.
type refused struct {
	header http.Header
	status int
}

func (f *refused) Header() http.Header         { return f.header }
func (f *refused) WriteHeader(status int)      { f.status = status }
func (f *refused) Write(p []byte) (int, error) { return len(p), nil }
