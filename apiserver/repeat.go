package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/postroom/postroom/core/httpd"
	"github.com/postroom/postroom/core/job"
	"github.com/postroom/postroom/core/libsql"
	"github.com/postroom/postroom/core/once"
	"github.com/postroom/postroom/core/token"
)

const (
	keyHeader    = "Idempotency-Key"
	replayHeader = "Idempotent-Replayed"
)

// endWait is how long the end of a request with a key may take to be noted,
// whether the caller is still there or not.
const endWait = 10 * time.Second

// change is a request for a change that is being carried out.
type change struct {
	wrote atomic.Bool // something was written, or may have been
	key   string
	sum   hash.Hash // of all that is asked for; nil without a key
}

type changeContext struct{}

// changeOf returns the change that is carried out with ctx; nil for none.
func changeOf(ctx context.Context) *change {
	c, _ := ctx.Value(changeContext{}).(*change)
	return c
}

// noting notes with each change whether it wrote anything.
type noting struct{ libsql.DB }

// Write implements [libsql.DB].
func (n noting) Write(ctx context.Context, b *libsql.Batch) ([]libsql.Result, error) {
	res, err := n.DB.Write(ctx, b)
	note(ctx, err)
	return res, err
}

// Merge implements [libsql.DB].
func (n noting) Merge(ctx context.Context, op *libsql.Op, items ...[]byte) ([]libsql.Row, error) {
	rows, err := n.DB.Merge(ctx, op, items...)
	note(ctx, err)
	return rows, err
}

func note(ctx context.Context, err error) {
	if c := changeOf(ctx); c != nil && (err == nil || libsql.ClassOf(err) == libsql.Unknown) {
		c.wrote.Store(true)
	}
}

// changes says whether the request asks for a change: to look needs the role
// read, and a dry run changes nothing.
func (rt route) changes(r *http.Request) bool {
	dryRun, _ := strconv.ParseBool(r.URL.Query().Get("dry_run"))
	return rt.needs() != anyone && rt.needs() != token.Read && !dryRun
}

// takesKey says whether the route keeps its answers for an Idempotency-Key.
func (rt route) takesKey() bool {
	return rt.method == http.MethodPost && rt.needs() != anyone && rt.needs() != token.Read && !rt.ownKey
}

func keyParam() *huma.Param {
	least, most := 1, job.MaxKey
	return &huma.Param{
		Name: keyHeader, In: "header", Schema: &huma.Schema{Type: "string", MinLength: &least, MaxLength: &most},
		Description: "Names this request: the same one sent again with it changes nothing and gets the same answer.",
	}
}

// asChange tells what a request for a change carries along, and refuses a key
// that cannot be kept.
func asChange(rt route) func(huma.Context, func(huma.Context)) {
	return func(ctx huma.Context, next func(huma.Context)) {
		r, w := humago.Unwrap(ctx)
		c := &change{}
		if given := r.Header.Values(keyHeader); len(given) > 0 && rt.method == http.MethodPost && rt.changes(r) {
			if err := checkKey(given); err != nil {
				httpd.WriteProblem(w, r, httpd.ProblemOf(err))
				return
			}
			if rt.takesKey() {
				c.key, c.sum = given[0], sha256.New()
				fmt.Fprintf(c.sum, "%s %s?%s\n", r.Method, r.URL.EscapedPath(), r.URL.RawQuery)
			}
		}
		next(huma.WithValue(ctx, changeContext{}, c))
	}
}

func checkKey(given []string) error {
	switch {
	case len(given) > 1:
		return invalid(keyHeader, "is given twice")
	case given[0] == "":
		return invalid(keyHeader, "is empty")
	}
	return job.CheckText(keyHeader, given[0], job.MaxKey)
}

// answering is an output that knows what it answers; the status 0 is the
// route's.
type answering interface{ answer() (status int, body any) }

func (r *reply[T]) answer() (int, any)   { return 0, r.Body }
func (r *replyAs[T]) answer() (int, any) { return r.Status, r.Body }

// replayed is an answer that was given before. It is handed over as an error,
// which is how huma takes what is not of an operation's own type.
type replayed struct {
	json.RawMessage
	status int
}

func (replayed) Error() string             { return "answered before" }
func (p replayed) GetStatus() int          { return p.status }
func (replayed) ContentType(string) string { return "application/json" }
func (replayed) GetHeaders() http.Header   { return http.Header{replayHeader: {"true"}} }

// onlyOnce has handler carry out a request with a key the first time only.
func onlyOnce[I, O any](a *api, rt route, handler func(context.Context, *I) (*O, error)) func(context.Context, *I) (*O, error) {
	return func(ctx context.Context, in *I) (*O, error) {
		c := changeOf(ctx)
		if c == nil || c.sum == nil {
			return handler(ctx, in)
		}
		claim, before, err := a.answers.Begin(ctx, once.Request{Caller: httpd.CallerOf(ctx).Name, Key: c.key, Sum: [sha256.Size]byte(c.sum.Sum(nil))})
		switch {
		case err != nil:
			return nil, err
		case before != nil:
			httpd.Audited(ctx, map[string]any{"replayed": true})
			return nil, replayed{before.Body, before.Status}
		}
		out, err := handler(ctx, in)
		if noted := a.end(ctx, rt, claim, c, any(out), err); noted != nil {
			a.log.Warn().Ctx(ctx).Err(noted).Str("operation", rt.id).Str("request_id", httpd.RequestID(ctx)).Msg("the answer was not kept: the request cannot be repeated with its key")
		}
		return out, err
	}
}

// end notes how a request with a key ended: with an answer, or without a
// change, or nobody knows.
func (a *api) end(ctx context.Context, rt route, claim once.Claim, c *change, out any, err error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), endWait)
	defer cancel()
	switch {
	case err != nil && c.wrote.Load() && httpd.ProblemOf(err).Status >= http.StatusInternalServerError:
		return a.answers.Lose(ctx, claim)
	case err != nil:
		return a.answers.Release(ctx, claim)
	}
	given, is := out.(answering)
	if !is {
		return errors.Join(fmt.Errorf("%s answers with %T", rt.id, out), a.answers.Lose(ctx, claim))
	}
	status, body := given.answer()
	if status == 0 {
		status = max(rt.status, http.StatusOK)
	}
	var buf bytes.Buffer
	if err := encode(&buf, body); err != nil {
		return errors.Join(err, a.answers.Lose(ctx, claim))
	}
	return a.answers.Finish(ctx, claim, once.Answer{Status: status, Body: buf.Bytes()})
}

// shownAs is the problem that an error is to the caller of a change: where
// something was written, none may say that nothing was.
func (c *change) shownAs(err error) *httpd.Problem {
	p := httpd.ProblemOf(err)
	if p.Status == http.StatusServiceUnavailable && c != nil && c.wrote.Load() && libsql.ClassOf(err) != libsql.Unknown {
		return httpd.NewProblem(p.Status, "database_unknown", "the change was made, at least in part, and then the database could not be asked for what to show")
	}
	return p
}
