package httpd_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/postroom/postroom/core/httpd"
	"github.com/postroom/postroom/core/job"
	"github.com/postroom/postroom/core/libsql"
	"github.com/postroom/postroom/core/mail"
	"github.com/postroom/postroom/core/once"
	"github.com/postroom/postroom/core/queue"
)

func read(t *testing.T, r *http.Response) string {
	t.Helper()
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

func TestEveryErrorHasItsProblem(t *testing.T) {
	t.Parallel()
	class := func(c libsql.Class) error { return &libsql.Error{Class: c, Op: "execute", Detail: "secret words"} }
	for _, c := range []struct {
		err    error
		status int
		code   string
	}{
		{&job.Invalid{Field: "type", Code: "invalid", Reason: "is required"}, 400, "invalid"},
		{&job.Invalid{Field: "type", Code: "invalid_utf8", Reason: "is not valid UTF-8"}, 400, "invalid_utf8"},
		{queue.ErrNotFound, 404, "not_found"},
		{mail.ErrNotFound, 404, "not_found"},
		{queue.ErrInvalidState, 409, "invalid_state"},
		{queue.ErrKeyInUse, 409, "key_in_use"},
		{queue.ErrIDInUse, 409, "id_in_use"},
		{mail.ErrEmailInUse, 409, "email_in_use"},
		{mail.ErrTooLarge, 413, "too_large"},
		{once.ErrUnderWay, 409, "request_under_way"},
		{once.ErrOther, 422, "idempotency_key_reused"},
		{once.ErrUnknown, 409, "outcome_unknown"},
		{class(libsql.Busy), 503, "database_busy"},
		{class(libsql.Unavailable), 503, "database_unavailable"},
		{class(libsql.Full), 503, "database_full"},
		{class(libsql.Canceled), 503, "database_timeout"},
		{class(libsql.Unknown), 503, "database_unknown"},
		{class(libsql.Closed), 503, "shutting_down"},
		{class(libsql.Constraint), 500, "internal"},
		{class(libsql.Corrupt), 500, "internal"},
		{errors.New("secret words"), 500, "internal"},
		{httpd.NewProblem(415, "unsupported_media_type", "no"), 415, "unsupported_media_type"},
	} {
		p := httpd.ProblemOf(fmt.Errorf("doing something: %w", c.err))
		if p.Status != c.status || p.Code != c.code {
			t.Errorf("%v: %d %s, want %d %s", c.err, p.Status, p.Code, c.status, c.code)
		}
		if strings.Contains(p.Detail, "secret") {
			t.Errorf("%v: the detail tells too much: %s", c.err, p.Detail)
		}
		w := httptest.NewRecorder()
		httpd.WriteProblem(w, httptest.NewRequestWithContext(t.Context(), "GET", "/", nil), p)
		got := w.Result()
		if has := got.Header.Get("Retry-After") != ""; has != (c.status == 503 || c.code == "request_under_way") {
			t.Errorf("%v: Retry-After is there: %v", c.err, has)
		}
		if ct := got.Header.Get("Content-Type"); ct != "application/problem+json" {
			t.Errorf("%v: %s", c.err, ct)
		}
	}
}

func TestAProblemNamesTheField(t *testing.T) {
	t.Parallel()
	w := httptest.NewRecorder()
	r := httptest.NewRequestWithContext(t.Context(), "GET", "/", nil)
	httpd.WriteProblem(w, r, httpd.ProblemOf(&job.Invalid{Field: "jobs[1].type", Code: "invalid", Reason: "is required"}))
	const want = `{"type":"about:blank","title":"Bad Request","status":400,"detail":"jobs[1].type: is required",` +
		`"code":"invalid","errors":[{"field":"jobs[1].type","message":"is required"}]}` + "\n"
	if got := read(t, w.Result()); got != want {
		t.Errorf("got  %swant %s", got, want)
	}
}
