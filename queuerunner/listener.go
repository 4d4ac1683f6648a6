package main

import (
	"context"
	"errors"
	"flag"
	"net/http"
	"slices"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"github.com/postroom/postroom/core/config"
	"github.com/postroom/postroom/core/httpd"
	"github.com/postroom/postroom/core/libsql"
	"github.com/postroom/postroom/core/token"
	"github.com/postroom/postroom/core/wiring"
)

// goodbye is how long answers under way may take once the runner is done.
const goodbye = 2 * time.Second

// probePaths are what a supervisor asks. They are open to callers without the
// token, as with the API.
var probePaths = []string{"/healthz", "/livez", "/readyz"}

// metricsPath is what Prometheus reads, with the token if there is one.
const metricsPath = "/metrics"

// listener serves the runner's own address. It is bound before the database
// is open, so that a supervisor can see what the runner waits for.
type listener struct {
	server *http.Server
	addr   string
	state  atomic.Pointer[httpd.Health]
	served chan struct{}
}

// listen binds and serves queue.http_addr; it returns nil when that is empty.
// The runner is draining once ctx has ended.
func listen(ctx context.Context, cfg *config.Loaded, log zerolog.Logger, version string, metrics http.Handler) (*listener, error) {
	if cfg.Queue.HTTPAddr == "" {
		return nil, nil
	}
	bound, err := httpd.Listen(cfg.Queue.HTTPAddr, listenKey)
	if err != nil {
		return nil, err
	}
	l := &listener{addr: bound.Addr().String(), served: make(chan struct{})}
	l.state.Store(&httpd.Health{
		DB: wiring.NotOpen{}, Version: version,
		Draining: func() bool { return ctx.Err() != nil },
	})
	l.server = httpd.NewServer(l.handler(cfg, log, metrics), log)
	go func() {
		defer close(l.served)
		if err := l.server.Serve(bound); !errors.Is(err, http.ErrServerClosed) {
			log.Error().Err(err).Str("key", listenKey).Msg("the listener ended; the runner works on without it")
		}
	}()
	log.Info().Str("address", l.addr).Msg("listening")
	return l, nil
}

func (l *listener) handler(cfg *config.Loaded, log zerolog.Logger, metrics http.Handler) http.Handler {
	mux := http.NewServeMux()
	probe := func(path string, answer func(httpd.Health, http.ResponseWriter, *http.Request)) {
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, r *http.Request) { answer(*l.state.Load(), w, r) })
	}
	probe("/healthz", httpd.Health.Healthz)
	probe("/livez", httpd.Health.Livez)
	probe("/readyz", httpd.Health.Readyz)
	mux.Handle("GET "+metricsPath, metrics)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == metricsPath || slices.Contains(probePaths, r.URL.Path) {
			w.Header().Set("Allow", "GET, HEAD")
			httpd.WriteProblem(w, r, httpd.NewProblem(http.StatusMethodNotAllowed, "method_not_allowed", "only GET and HEAD work here"))
			return
		}
		httpd.WriteProblem(w, r, httpd.NewProblem(http.StatusNotFound, "not_found", "there is nothing here"))
	})
	guard := &httpd.Guard{Tokens: token.NewKeyring(cfg.API.Accepted()...), AllowedOrigins: cfg.API.AllowedOrigins, Open: probePaths}
	return httpd.WithRequestID(httpd.Access{Log: log, Quiet: append([]string{metricsPath}, probePaths...)}.Wrap(guard.Wrap(mux)))
}

// opened lets the health checks ask the database. schema is what the program
// needs.
func (l *listener) opened(db libsql.DB, schema int64) {
	if l == nil {
		return
	}
	h := *l.state.Load()
	h.DB, h.Schema = db, schema
	l.state.Store(&h)
}

// alive says whether the listener, where there is one, answers.
func (l *listener) alive(ctx context.Context) error {
	if l == nil {
		return nil
	}
	return httpd.AskLive(ctx, l.addr)
}

// close ends the listener within a bound.
func (l *listener) close() {
	if l == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), goodbye)
	defer cancel()
	if l.server.Shutdown(ctx) != nil {
		_ = l.server.Close() // what is cut off is a probe
	}
	<-l.served
}

// healthcheck is `healthcheck`.
func healthcheck(c *call, _ *flag.FlagSet) action {
	return func(ctx context.Context, _ []string) error {
		cfg, err := c.config()
		if err != nil {
			return err
		}
		if cfg.Queue.HTTPAddr == "" {
			return wrongUse("%s is empty: a runner without a listener cannot be asked", listenKey)
		}
		return httpd.AskReady(ctx, cfg.Queue.HTTPAddr)
	}
}
