package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"strings"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
	"github.com/klauspost/compress/gzhttp"
	"github.com/rs/zerolog"

	"github.com/postroom/postroom/core/httpd"
	"github.com/postroom/postroom/core/job"
	"github.com/postroom/postroom/core/once"
	"github.com/postroom/postroom/core/queue"
	"github.com/postroom/postroom/core/token"
)

// api registers operations on a mux and in the description of the API. Both
// happen in one place, so that neither can have what the other lacks.
type api struct {
	huma     huma.API
	mux      *http.ServeMux
	log      zerolog.Logger
	patterns []string         // as registered, "GET /v1/jobs"
	routes   map[string]route // by the mux's pattern
	gzipped  http.Handler     // the mux, for answers that may be compressed
	answers  once.Store       // to requests with an Idempotency-Key
}

// adoptProblems makes huma write its own refusals as this API's problems. huma
// knows only a variable of its package for that, so it is set once per process.
var adoptProblems = sync.OnceFunc(func() {
	huma.NewErrorWithContext = func(ctx huma.Context, status int, detail string, errs ...error) huma.StatusError {
		return refusal(status, detail, errs).In(ctx.Context())
	}
	huma.NewError = func(status int, detail string, errs ...error) huma.StatusError {
		return refusal(status, detail, errs)
	}
})

// refusal turns what huma found, a parameter that is wrong in most cases, into
// a problem.
func refusal(status int, detail string, errs []error) *httpd.Problem {
	var fields []httpd.FieldError
	for _, err := range errs {
		switch err := err.(type) { //nolint:errorlint // huma hands its own over bare
		case *httpd.Problem:
			return err
		case huma.ErrorDetailer:
			d := err.ErrorDetail()
			_, name, _ := strings.Cut(d.Location, ".") // query.limit
			fields = append(fields, httpd.FieldError{Field: short(name), Message: d.Message})
		}
	}
	if status != http.StatusUnprocessableEntity && status != http.StatusBadRequest {
		return httpd.NewProblem(status, "internal", "something went wrong here; the log knows what")
	}
	if len(fields) > 0 {
		detail = fields[0].Field + ": " + fields[0].Message
	}
	return httpd.NewProblem(http.StatusBadRequest, "invalid", detail, fields...)
}

// newAPI returns an API without operations.
func newAPI(mux *http.ServeMux, version string, log zerolog.Logger) *api {
	adoptProblems()
	schemas := huma.NewMapRegistry("#/components/schemas/", huma.DefaultSchemaNamer)
	schemas.RegisterTypeAlias(reflect.TypeFor[job.Time](), reflect.TypeFor[time.Time]())
	schemas.RegisterTypeAlias(reflect.TypeFor[queue.Limit](), reflect.TypeFor[shownLimit]())
	config := huma.Config{
		OpenAPI: &huma.OpenAPI{
			OpenAPI: "3.1.0",
			Info: &huma.Info{
				Title: "Postroom", Version: version,
				Description: "Jobs, accounts, messages, actions and rules of a Postroom installation. Errors are RFC 9457 problems with a stable code.",
			},
			Components: &huma.Components{
				Schemas: schemas,
				SecuritySchemes: map[string]*huma.SecurityScheme{
					"token":  {Type: "http", Scheme: "bearer"},
					"cookie": {Type: "apiKey", In: "cookie", Name: httpd.CookieName, Description: "What POST /login sets."},
				},
			},
		},
		Formats:       map[string]huma.Format{"application/json": {Marshal: encode}, "json": {Marshal: encode}}, // "json" is for +json
		DefaultFormat: "application/json",
	}
	config.RejectUnknownQueryParameters = true // a filter that is misspelt must not list everything
	return &api{huma: humago.New(mux, config), mux: mux, log: log, routes: map[string]route{}, gzipped: compress(mux)}
}

// leastCompressed is how many bytes an answer has at least that is compressed.
const leastCompressed = 2 << 10

// compress compresses what is JSON, for callers that take it. It is for
// answers that only show what is stored: none holds a secret beside what a
// caller chose, which is what a length could give away (BREACH).
func compress(next http.Handler) http.Handler {
	wrap, err := gzhttp.NewWrapper(gzhttp.MinSize(leastCompressed), gzhttp.ContentTypes([]string{"application/json"}), gzhttp.EnableZstd(false))
	if err != nil {
		panic("apiserver: compress answers: " + err.Error()) // the options are constants
	}
	return wrap(next)
}

// encode writes v as JSON. An error is a mistake of this program; that the
// caller is gone is none, and can be told to nobody.
func encode(w io.Writer, v any) error {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return err
	}
	_, _ = w.Write(buf.Bytes())
	return nil
}

// reply is the output of an operation that always answers with one status.
type reply[T any] struct{ Body T }

// replyAs is the output of an operation that chooses between statuses.
type replyAs[T any] struct {
	Status int
	Body   T
}

// route says what an operation is.
type route struct {
	id, method, path, summary string
	status                    int            // of success; 200 when zero
	also                      map[int]string // further statuses of success, and when
	takes                     any            // an example of the type of the JSON body, or nil
	takesRaw                  string         // or the media type of a raw body
	max                       int64          // bytes of the body
	ownKey                    bool           // Idempotency-Key is a field of what the route stores
	role                      token.Role     // that a caller needs; what read needs changes nothing. See needs
}

// anyone is the role of routes that need no token.
const anyone token.Role = "anyone"

// needs is the role that a caller needs: to look is read, to change is operate
// where the route does not say otherwise.
func (r route) needs() token.Role {
	switch {
	case r.role != "":
		return r.role
	case r.method == http.MethodGet:
		return token.Read
	}
	return token.Operate
}

// security describes the role: a token with it, or none where there are none.
func (r route) security() []map[string][]string {
	if r.needs() == anyone {
		return []map[string][]string{}
	}
	roles := []string{string(r.needs())}
	return []map[string][]string{{"token": roles}, {"cookie": roles}, {}}
}

// add keeps a route under the pattern that the mux knows it by.
func (a *api) add(r route, pattern string) {
	a.patterns = append(a.patterns, r.method+" "+r.path)
	a.routes[pattern] = r
}

// operation describes the route; body is the type of its answer.
func (r route) operation(schemas huma.Registry, body reflect.Type) huma.Operation {
	op := huma.Operation{
		OperationID: r.id, Method: r.method, Path: r.path, Summary: r.summary, DefaultStatus: r.status, Security: r.security(),
		MaxBodyBytes: r.max, Responses: map[string]*huma.Response{"default": problemResponse(schemas)},
	}
	for status, when := range r.also {
		op.Responses[fmt.Sprint(status)] = &huma.Response{Description: when, Content: map[string]*huma.MediaType{
			"application/json": {Schema: schemas.Schema(body, true, "")},
		}}
	}
	return op
}

// body describes what the route takes in; nil for nothing.
func (r route) body(schemas huma.Registry) *huma.RequestBody {
	content := map[string]*huma.MediaType{}
	switch {
	case r.takes != nil:
		content["application/json"] = &huma.MediaType{Schema: schemas.Schema(reflect.TypeOf(r.takes), true, "")}
	case r.takesRaw != "":
		content[r.takesRaw] = &huma.MediaType{Schema: &huma.Schema{Type: "string", Format: "binary"}}
	default:
		return nil
	}
	return &huma.RequestBody{Required: true, Content: content}
}

func problemResponse(schemas huma.Registry) *huma.Response {
	return &huma.Response{Description: "A problem (RFC 9457)", Content: map[string]*huma.MediaType{
		"application/problem+json": {Schema: schemas.Schema(reflect.TypeFor[httpd.Problem](), true, "")},
	}}
}

// plain adds a route that answers with JSON and that huma has no part in but
// its description.
func (a *api) plain(r route, answers string, schema any, handler http.HandlerFunc) {
	a.raw(r, answers, "application/json", a.huma.OpenAPI().Components.Schemas.Schema(reflect.TypeOf(schema), true, ""), handler)
}

// raw is plain for any type of answer.
func (a *api) raw(r route, answers, media string, schema *huma.Schema, handler http.HandlerFunc) {
	pattern := r.method + " " + r.path
	if strings.HasSuffix(pattern, "/") {
		pattern += "{$}" // a slash at the end would take in everything below
	}
	a.add(r, pattern)
	a.mux.HandleFunc(pattern, handler)
	body := map[string]*huma.MediaType{media: {Schema: schema}}
	op := huma.Operation{
		OperationID: r.id, Method: r.method, Path: r.path, Summary: r.summary, Security: r.security(),
		Responses: map[string]*huma.Response{"200": {Description: answers, Content: body}, "default": problemResponse(a.huma.OpenAPI().Components.Schemas)},
	}
	for status, when := range r.also {
		op.Responses[fmt.Sprint(status)] = &huma.Response{Description: when, Content: body}
	}
	a.huma.OpenAPI().AddOperation(&op)
}

// register adds an operation. What its handler returns as an error is turned
// into a problem here, and nowhere else.
func register[I, O any](a *api, r route, handler func(context.Context, *I) (*O, error)) {
	a.add(r, r.method+" "+r.path)
	var body reflect.Type
	if f, has := reflect.TypeFor[O]().FieldByName("Body"); has {
		body = f.Type
	}
	schemas := a.huma.OpenAPI().Components.Schemas
	op := r.operation(schemas, body)
	if r.method != http.MethodGet {
		op.Middlewares = huma.Middlewares{asChange(r)}
	}
	if r.takesKey() {
		op.Parameters = append(op.Parameters, keyParam())
		handler = onlyOnce(a, r, handler)
	}
	huma.Register(a.huma, op, func(ctx context.Context, in *I) (*O, error) {
		out, err := handler(ctx, in)
		var before replayed
		switch {
		case err == nil:
			return out, nil
		case errors.As(err, &before):
			return nil, before
		}
		p := changeOf(ctx).shownAs(err)
		if p.Status >= http.StatusInternalServerError {
			level := zerolog.WarnLevel
			if p.Status == http.StatusInternalServerError {
				level = zerolog.ErrorLevel
			}
			a.log.WithLevel(level).Ctx(ctx).Err(err).Str("operation", r.id).Str("request_id", httpd.RequestID(ctx)).Msg("request failed")
		}
		return nil, p.In(ctx)
	}) // huma would read a body that it knows of itself, so it is told afterwards.
	if takes := r.body(schemas); takes != nil {
		item := a.huma.OpenAPI().Paths[r.path]
		for method, op := range map[string]*huma.Operation{"POST": item.Post, "PUT": item.Put, "PATCH": item.Patch} {
			if method == r.method {
				op.RequestBody = takes
			}
		}
	}
}
