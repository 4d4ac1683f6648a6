package httpd

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"net/http"

	"github.com/postroom/postroom/core/job"
	"github.com/postroom/postroom/core/libsql"
	"github.com/postroom/postroom/core/mail"
	"github.com/postroom/postroom/core/once"
	"github.com/postroom/postroom/core/queue"
)

// retryAfter is how many seconds a caller is asked to wait when the database
// cannot answer now.
const retryAfter = "1"

const problemType = "application/problem+json"

// Problem is an error as a caller sees it (RFC 9457). Code is stable; Detail is
// for people.
type Problem struct {
	Type      string       `json:"type"`
	Title     string       `json:"title"`
	Status    int          `json:"status"`
	Detail    string       `json:"detail"`
	Code      string       `json:"code" enum:"invalid,invalid_utf8,malformed_json,unknown_job,timeout,unauthorized,forbidden,cross_site,host_not_allowed,loopback_only,not_found,method_not_allowed,invalid_state,key_in_use,id_in_use,email_in_use,not_undoable,request_under_way,outcome_unknown,too_large,unsupported_media_type,idempotency_key_reused,too_many_failures,internal,database_busy,database_unavailable,database_full,database_timeout,database_unknown,shutting_down"`
	Errors    []FieldError `json:"errors,omitempty"`
	RequestID string       `json:"request_id,omitempty"`

	retryAfter string // seconds; "" for no promise
}

// FieldError is what is wrong with one field of a request.
type FieldError struct {
	Field   string `json:"field"`
	Message string `json:"message"`
}

// NewProblem returns a problem; its title is the status's name.
func NewProblem(status int, code, detail string, fields ...FieldError) *Problem {
	p := &Problem{
		Type: "about:blank", Title: http.StatusText(status), Status: status, Code: code, Detail: detail, Errors: fields,
	}
	if status == http.StatusServiceUnavailable {
		p.retryAfter = retryAfter
	}
	return p
}

// Error implements error, so that a handler can return a problem.
func (p *Problem) Error() string { return p.Code + ": " + p.Detail }

// GetStatus tells a framework that writes errors itself how to write this
// one, as ContentType and GetHeaders do.
func (p *Problem) GetStatus() int { return p.Status }

// ContentType is the media type of a problem, whatever was asked for.
func (p *Problem) ContentType(string) string { return problemType }

// GetHeaders is what goes with the problem: when to come again.
func (p *Problem) GetHeaders() http.Header {
	if p.retryAfter == "" {
		return nil
	}
	return http.Header{"Retry-After": {p.retryAfter}}
}

// In returns a copy of the problem that names the request of ctx.
func (p *Problem) In(ctx context.Context) *Problem {
	named := *p
	named.RequestID = RequestID(ctx)
	return &named
}

// table says how the errors of the core look from outside. Nothing else
// decides that.
var table = []struct {
	err    error
	status int
	code   string
	detail string
}{
	{queue.ErrNotFound, http.StatusNotFound, "not_found", "there is no such job"},
	{queue.ErrNoCron, http.StatusNotFound, "not_found", "there is no such schedule"},
	{queue.ErrEventsClosed, http.StatusServiceUnavailable, "shutting_down", "the service is shutting down"},
	{queue.ErrNoLimit, http.StatusNotFound, "not_found", "there is no such limit"},
	{mail.ErrNotFound, http.StatusNotFound, "not_found", "there is nothing with this id"},
	{queue.ErrInvalidState, http.StatusConflict, "invalid_state", "the job's state does not allow this"},
	{queue.ErrStepNotFound, http.StatusNotFound, "not_found", "the job has no such step"},
	{queue.ErrNotUncertain, http.StatusConflict, "invalid_state", "the step is not uncertain: there is nothing to settle"},
	{queue.ErrKeyInUse, http.StatusConflict, "key_in_use", "the job's idempotency key is held by another job"},
	{queue.ErrIDInUse, http.StatusConflict, "id_in_use", "the id belongs to a job of another type"},
	{mail.ErrEmailInUse, http.StatusConflict, "email_in_use", "another account has this e-mail address"},
	{mail.ErrInvalidState, http.StatusConflict, "invalid_state", "the action's status does not allow this"},
	{mail.ErrNotUndoable, http.StatusConflict, "not_undoable", "the action cannot be taken back"},
	{mail.ErrTooLarge, http.StatusRequestEntityTooLarge, "too_large", "the message is too large"},
	{once.ErrUnderWay, http.StatusConflict, "request_under_way", "the first request with this Idempotency-Key is being carried out; come back for its answer"},
	{once.ErrOther, http.StatusUnprocessableEntity, "idempotency_key_reused", "this Idempotency-Key came with another request: one key is for one request"},
	{once.ErrUnknown, http.StatusConflict, "outcome_unknown", "whether the first request with this Idempotency-Key changed anything is not known: look, and go on with another key"},
}

// classes are the failures of the database that pass.
var classes = map[libsql.Class]struct{ code, detail string }{
	libsql.Busy:        {"database_busy", "another process holds the database; nothing was changed"},
	libsql.Unavailable: {"database_unavailable", "the database cannot be reached; nothing was changed"},
	libsql.Full:        {"database_full", "the database has no room; nothing was changed"},
	libsql.Canceled:    {"database_timeout", "the database did not answer in time; nothing was changed"},
	libsql.Unknown:     {"database_unknown", "the database did not answer in time; whether anything was changed is not known"},
	libsql.Closed:      {"shutting_down", "the service is shutting down; nothing was changed"},
}

// ProblemOf turns an error into what a caller may know of it. Whatever the
// table does not list is status 500, and only the log may say more.
func ProblemOf(err error) *Problem {
	var p *Problem
	var inv *job.Invalid
	switch {
	case errors.As(err, &p):
		return p
	case errors.As(err, &inv):
		return NewProblem(http.StatusBadRequest, inv.Code, inv.Error(), FieldError{inv.Field, inv.Reason})
	}
	for _, row := range table {
		if errors.Is(err, row.err) {
			p = NewProblem(row.status, row.code, row.detail)
			if row.err == once.ErrUnderWay { //nolint:errorlint // a row of the table
				p.retryAfter = retryAfter
			}
			return p
		}
	}
	if c, ok := classes[libsql.ClassOf(err)]; ok {
		return NewProblem(http.StatusServiceUnavailable, c.code, c.detail)
	}
	return NewProblem(http.StatusInternalServerError, "internal", "something went wrong here; the log knows what")
}

// WriteProblem answers the request with a problem.
func WriteProblem(w http.ResponseWriter, r *http.Request, p *Problem) {
	maps.Copy(w.Header(), p.GetHeaders())
	writeJSON(w, p.Status, problemType, p.In(r.Context()))
}

// writeJSON answers with v, which must be encodable. That the caller is gone
// cannot be told to anybody.
func writeJSON(w http.ResponseWriter, status int, contentType string, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		panic("httpd: encode an answer: " + err.Error())
	}
	w.Header().Set("Content-Type", contentType)
	w.WriteHeader(status)
	_, _ = w.Write(append(body, '\n'))
}
