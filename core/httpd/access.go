package httpd

import (
	"context"
	"crypto/rand"
	"maps"
	"net/http"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/rs/zerolog"
)

type requestIDKey struct{}

// RequestID returns the id of the request that ctx belongs to, "" outside of
// one.
func RequestID(ctx context.Context) string {
	id, _ := ctx.Value(requestIDKey{}).(string)
	return id
}

// WithRequestID gives each request an id: the caller's X-Request-Id where that
// is fit for a log, or a new one. The answer carries it.
func WithRequestID(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id := r.Header.Get("X-Request-Id")
		if !isRequestID(id) {
			id = rand.Text()
		}
		w.Header().Set("X-Request-Id", id)
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), requestIDKey{}, id)))
	})
}

func isRequestID(id string) bool {
	if id == "" || len(id) > 128 {
		return false
	}
	for _, c := range []byte(id) {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '-', c == '_', c == '.':
		default:
			return false
		}
	}
	return true
}

// Access logs one line per request and answers for handlers that panic.
type Access struct {
	Log   zerolog.Logger
	Quiet []string // paths logged at debug: the probes of supervisors
}

// Wrap puts the log around next, which must hand the request it is given to
// the mux itself, not a copy: the route is read from there.
func (a Access) Wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		started := time.Now()
		seen := &observed{ResponseWriter: w}
		quiet := slices.Contains(a.Quiet, r.URL.Path)
		defer func() {
			broken := recover()
			if broken != nil && broken != http.ErrAbortHandler { //nolint:errorlint // a panic value, compared as net/http does
				a.Log.Error().Ctx(r.Context()).Str("request_id", RequestID(r.Context())).Str("route", r.Pattern).
					Str("panic", panicText(broken)).Bytes("stack", debug.Stack()).Msg("a handler panicked")
				if seen.status == 0 {
					WriteProblem(seen, r, ProblemOf(nil))
					broken = nil
				} else {
					broken = http.ErrAbortHandler // cut the answer off, so that it cannot pass for whole
				}
			}
			a.line(r, seen, time.Since(started), quiet)
			if broken != nil {
				panic(broken)
			}
		}()
		next.ServeHTTP(seen, r)
	})
}

// longestMethod keeps a method that a client made up from filling the log.
const longestMethod = 20

func (a Access) line(r *http.Request, seen *observed, took time.Duration, quiet bool) {
	level := zerolog.InfoLevel
	if quiet {
		level = zerolog.DebugLevel
	}
	status := seen.status
	if status == 0 {
		status = http.StatusOK
	}
	method := r.Method
	if len(method) > longestMethod {
		method = strings.ToValidUTF8(method[:longestMethod], "") + "…"
	}
	a.Log.WithLevel(level).Ctx(r.Context()).Str("method", method).Str("route", r.Pattern).Int("status", status).
		Float64("duration_ms", float64(took.Microseconds())/1000).Int64("bytes", seen.bytes).
		Str("request_id", RequestID(r.Context())).Msg("request")
}

// Audit answers a request that asks for a change, and logs who made it if it
// succeeded. operation is what the change is called.
func Audit(log zerolog.Logger, operation string, next http.Handler, w http.ResponseWriter, r *http.Request) {
	seen := &observed{ResponseWriter: w}
	more := map[string]any{}
	detailed := r.WithContext(context.WithValue(r.Context(), auditKey{}, more))
	defer func() { r.Pattern = detailed.Pattern }() // which the log and the span read
	next.ServeHTTP(seen, detailed)
	if seen.status >= http.StatusBadRequest {
		return
	}
	log.Info().Ctx(r.Context()).Fields(more).Str("caller", CallerOf(r.Context()).Name).Str("operation", operation).Str("path", r.URL.Path).
		Str("request_id", RequestID(r.Context())).Msg("change made by hand")
}

type auditKey struct{}

// Audited adds fields to the line about the change that is being made.
func Audited(ctx context.Context, fields map[string]any) {
	if more, is := ctx.Value(auditKey{}).(map[string]any); is {
		maps.Copy(more, fields)
	}
}

// panicText keeps what a handler panicked with to one bounded string.
func panicText(v any) string {
	const longest = 500
	text := "a value that is no error"
	switch v := v.(type) {
	case error:
		text = v.Error()
	case string:
		text = v
	}
	return text[:min(len(text), longest)]
}

// observed notes what was answered.
type observed struct {
	http.ResponseWriter
	status int
	bytes  int64
}

// Unwrap lets http.ResponseController reach the connection.
func (o *observed) Unwrap() http.ResponseWriter { return o.ResponseWriter }

func (o *observed) WriteHeader(status int) {
	if o.status == 0 && status >= http.StatusOK { // 1xx come before the answer
		o.status = status
	}
	o.ResponseWriter.WriteHeader(status)
}

func (o *observed) Write(p []byte) (int, error) {
	if o.status == 0 {
		o.status = http.StatusOK
	}
	n, err := o.ResponseWriter.Write(p)
	o.bytes += int64(n)
	return n, err
}
