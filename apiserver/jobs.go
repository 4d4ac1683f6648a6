package main

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/postroom/postroom/core/httpd"
	"github.com/postroom/postroom/core/job"
	"github.com/postroom/postroom/core/queue"
)

// newJob is a job as a client asks for it.
type newJob struct {
	Type           string          `json:"type" doc:"Which handler runs it. A type that nobody knows yet is accepted and waits."`
	Payload        json.RawMessage `json:"payload,omitempty" doc:"Any JSON value, 1 MiB at most; null when left out."`
	ID             *string         `json:"id,omitempty" doc:"A UUID in lower case. The same id again is the same request." format:"uuid"`
	Queue          *string         `json:"queue,omitempty" doc:"Which queue it waits in; the type's when left out."`
	Priority       *int64          `json:"priority,omitempty" minimum:"-100" maximum:"100" doc:"Higher goes first; one step is worth 30 s of age."`
	MaxAttempts    *int64          `json:"max_attempts,omitempty" minimum:"1" maximum:"1000" doc:"Failures until it is failed for good."`
	NotBefore      *string         `json:"not_before,omitempty" format:"date-time" doc:"It does not start before."`
	Delay          *string         `json:"delay,omitempty" doc:"Or a time from now by the database's clock, such as 30s or 1h30m."`
	IdempotencyKey *string         `json:"idempotency_key,omitempty" doc:"While it is held, the job that holds it is returned in place of a new one."`
	KeyScope       *string         `json:"key_scope,omitempty" enum:"active,until,forever" doc:"How long the key is held."`
	KeyTTL         *string         `json:"key_ttl,omitempty" doc:"For until: how long, such as 24h."`
	LimitKey       *string         `json:"limit_key,omitempty" doc:"What it shares a limit with."`
	After          []string        `json:"after,omitempty" maxItems:"10000" doc:"The ids of jobs that must end first; in a batch also of jobs that stand before it."`
	AfterFailure   *string         `json:"after_failure,omitempty" enum:"cancel,run,wait" doc:"What becomes of it when one of those does not complete: it is canceled (the default), runs all the same, or waits until that one was retried."`
}

// job checks what package job cannot see once the values are put together.
func (n newJob) job() (job.New, error) {
	j := job.New{
		Type: n.Type, Payload: n.Payload, ID: text(n.ID), Queue: text(n.Queue),
		Key: text(n.IdempotencyKey), KeyScope: job.Scope(text(n.KeyScope)), LimitKey: text(n.LimitKey),
		After: n.After, AfterFailure: job.AfterFailure(text(n.AfterFailure)),
	}
	err := checkSize("payload", n.Payload)
	if err != nil {
		return j, err
	}
	if j.Priority, err = within(n.Priority, "priority", -job.MaxPriority, job.MaxPriority); err != nil {
		return j, err
	}
	if j.MaxAttempts, err = within(n.MaxAttempts, "max_attempts", 1, job.MaxAttempts); err != nil {
		return j, err
	}
	if j.Delay, err = duration(n.Delay, "delay", 0); err != nil {
		return j, err
	}
	if j.KeyTTL, err = duration(n.KeyTTL, "key_ttl", time.Second); err != nil {
		return j, err
	}
	if n.NotBefore != nil {
		if j.NotBefore, err = time.Parse(time.RFC3339, *n.NotBefore); err != nil {
			return j, invalid("not_before", "must be a time such as 2026-01-31T09:00:00Z (RFC 3339)")
		}
	}
	return j, nil
}

// checkSize refuses JSON that is too large with a status of its own.
func checkSize(field string, v json.RawMessage) error {
	if len(v) <= job.MaxPayload {
		return nil
	}
	reason := fmt.Sprintf("is larger than %d bytes", job.MaxPayload)
	return httpd.NewProblem(http.StatusRequestEntityTooLarge, "too_large", field+": "+reason, httpd.FieldError{Field: field, Message: reason})
}

func text(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

func within(v *int64, field string, low, high int) (int, error) {
	switch {
	case v == nil:
		return 0, nil
	case *v < int64(low), *v > int64(high):
		return 0, invalid(field, fmt.Sprintf("must be between %d and %d", low, high))
	}
	return int(*v), nil
}

func duration(s *string, field string, least time.Duration) (time.Duration, error) {
	if s == nil {
		return 0, nil
	}
	d, err := time.ParseDuration(*s)
	switch {
	case err != nil:
		return 0, invalid(field, "must be a duration such as 30s or 1h30m")
	case d < least:
		return 0, invalid(field, "must be at least "+least.String())
	}
	return d, nil
}

// jobAnswer is a job, or the one that stands for it.
type jobAnswer struct {
	*job.Job
	Duplicate bool `json:"duplicate,omitempty" doc:"The key was held: this is the job that holds it."`
}

// prunedAnswer is a job that holds a key and is no longer stored.
type prunedAnswer struct {
	ID        string `json:"id"`
	Type      string `json:"type"`
	Duplicate bool   `json:"duplicate"`
	Pruned    bool   `json:"pruned"`
}

// anyJob is either of them.
type anyJob struct{ value any }

// Schema implements huma.SchemaProvider.
func (anyJob) Schema(schemas huma.Registry) *huma.Schema {
	return &huma.Schema{AnyOf: []*huma.Schema{
		schemas.Schema(reflect.TypeFor[jobAnswer](), true, ""), schemas.Schema(reflect.TypeFor[prunedAnswer](), true, ""),
	}}
}

// MarshalJSON implements json.Marshaler.
func (a anyJob) MarshalJSON() ([]byte, error) { return json.Marshal(a.value) }

type idInput struct {
	ID string `path:"id"`
}

// Paging is what every list that has pages takes. It is exported because huma
// does not look into embedded types that are not.
type Paging struct {
	Limit  int    `query:"limit" minimum:"1" maximum:"200" default:"50" doc:"How many at most."`
	Cursor string `query:"cursor" doc:"The next_cursor of the page before."`
}

func (s service) jobRoutes(a *api) {
	duplicate := map[int]string{http.StatusOK: "the job that holds the idempotency key, with \"duplicate\": true"}
	register(a, route{
		id: "create-job", method: "POST", path: "/v1/jobs", summary: "Store a job",
		status: http.StatusCreated, also: duplicate, takes: newJob{}, max: s.maxBody, ownKey: true,
	}, s.createJob)
	register(a, route{
		id: "create-jobs", method: "POST", path: "/v1/jobs:batch", summary: "Store up to 10,000 jobs, all or none",
		status: http.StatusCreated, takes: newJobs{}, max: min(s.maxBody, maxBatch),
	}, s.createJobs)
	s.changeRoutes(a)
	register(a, route{id: "list-jobs", method: "GET", path: "/v1/jobs", summary: "List jobs, newest first"}, s.listJobs)
	register(a, route{id: "get-job", method: "GET", path: "/v1/jobs/{id}", summary: "A job with its steps, runs and history"}, s.getJob)
	register(a, route{id: "why-job", method: "GET", path: "/v1/jobs/{id}/why", summary: "Why a job is not running"}, s.whyJob)
	register(a, route{
		id: "settle-step", method: "POST", path: "/v1/jobs/{id}/steps/{name}/settle",
		summary: "Say whether an uncertain step happened", takes: settlement{}, max: s.maxBody,
	}, s.settleStep)
}

// createJobInput is the body and the header that is the same as a field of it.
type createJobInput struct {
	jsonBody[newJob]
	Key string `header:"Idempotency-Key" doc:"The same as idempotency_key."`
}

func (s service) createJob(ctx context.Context, in *createJobInput) (*replyAs[anyJob], error) {
	n := in.value
	switch {
	case in.Key == "":
	case text(n.IdempotencyKey) == "":
		n.IdempotencyKey = &in.Key
	case *n.IdempotencyKey != in.Key:
		return nil, invalid("idempotency_key", "differs from the header Idempotency-Key")
	}
	j, err := n.job()
	if err != nil {
		return nil, err
	}
	stored, shown, err := s.queue.EnqueueShown(ctx, j)
	if err != nil {
		return nil, err
	}
	return answerJob(stored, shown, j.Type, http.StatusCreated), nil
}

// answerJob shows a job that was just stored, or the one that stands for it,
// which may be pruned.
func answerJob(stored queue.Enqueued, j *job.Job, typ string, created int) *replyAs[anyJob] {
	status := created
	if stored.Duplicate {
		status = http.StatusOK
	}
	if j == nil {
		return &replyAs[anyJob]{status, anyJob{prunedAnswer{ID: stored.ID, Type: typ, Duplicate: stored.Duplicate, Pruned: true}}}
	}
	return &replyAs[anyJob]{status, anyJob{jobAnswer{j, stored.Duplicate}}}
}

// answerStored reads a job that was just stored back, or the one that stands
// for it.
func (s service) answerStored(ctx context.Context, stored queue.Enqueued, typ string, created int) (*replyAs[anyJob], error) {
	if stored.Pruned {
		return answerJob(stored, nil, typ, created), nil
	}
	j, err := s.queue.Get(ctx, stored.ID)
	if err != nil && !errors.Is(err, queue.ErrNotFound) { // it may be pruned between the two calls
		// The job is durable: no answer may say that nothing was changed.
		return nil, httpd.NewProblem(http.StatusServiceUnavailable, "database_unknown", "the job is stored as "+stored.ID+", but it could not be read back")
	}
	return answerJob(stored, j, typ, created), nil
}

// maxBatch bounds the body of a batch whatever the configuration says.
const maxBatch = 32 << 20

type newJobs struct {
	Jobs []newJob `json:"jobs" maxItems:"10000"`
}

type createJobsInput struct{ jsonBody[newJobs] }

// storedJobs are the ids in the order of the request.
type storedJobs struct {
	Jobs []storedJob `json:"jobs"`
}

type storedJob struct {
	ID        string `json:"id"`
	Duplicate bool   `json:"duplicate"`
	Pruned    bool   `json:"pruned,omitempty" doc:"The job that holds the key is no longer stored."`
}

func (s service) createJobs(ctx context.Context, in *createJobsInput) (*reply[storedJobs], error) {
	if in.value.Jobs == nil {
		return nil, invalid("jobs", "is required")
	}
	jobs := make([]job.New, len(in.value.Jobs))
	for i, n := range in.value.Jobs {
		var err error
		if jobs[i], err = n.job(); err != nil {
			return nil, inJob(i, err)
		}
	}
	stored, err := s.queue.EnqueueMany(ctx, jobs)
	if err != nil {
		return nil, inJob(0, err)
	}
	out := storedJobs{Jobs: make([]storedJob, len(stored))}
	for i, e := range stored {
		out.Jobs[i] = storedJob(e)
	}
	return &reply[storedJobs]{out}, nil
}

// inJob puts the place of a job before the names of its fields, where it is
// not there already.
func inJob(i int, err error) error {
	const list = "jobs["
	var p *httpd.Problem
	var inv *job.Invalid
	switch place := fmt.Sprintf("%s%d].", list, i); {
	case errors.As(err, &inv) && !strings.HasPrefix(inv.Field, list):
		return &job.Invalid{Field: place + inv.Field, Code: inv.Code, Reason: inv.Reason}
	case errors.As(err, &p) && len(p.Errors) == 1:
		return httpd.NewProblem(p.Status, p.Code, place+p.Detail, httpd.FieldError{Field: place + p.Errors[0].Field, Message: p.Errors[0].Message})
	}
	return err
}

// JobFilter chooses jobs. It is exported because huma does not look into
// embedded types that are not.
type JobFilter struct {
	State   string    `query:"state" enum:"queued,running,completed,failed,canceled"`
	Type    string    `query:"type"`
	Queue   string    `query:"queue"`
	Key     string    `query:"key" doc:"An idempotency key or a limit key."`
	From    time.Time `query:"created_from" doc:"Stored at or after this time."`
	Before  time.Time `query:"created_before" doc:"Stored before this time."`
	Payload string    `query:"payload" doc:"FIELD=VALUE: only jobs whose payload has that value in that field; a field within a field is written with a dot, as in user.id=7. The value is JSON or the text of a string. Fewer jobs are looked at in one call, because their payloads must be read." example:"user.id=7"`
	IDs     []string  `query:"id,explode" maxItems:"200" doc:"Only the jobs with these ids; the parameter may be repeated."`
}

func (f JobFilter) filter() (queue.Filter, error) {
	out := queue.Filter{State: f.State, Type: f.Type, Queue: f.Queue, Key: f.Key, From: f.From, Before: f.Before, IDs: f.IDs}
	if f.Payload == "" {
		return out, nil
	}
	var err error
	out.Payload, err = queue.ParseInside(f.Payload)
	return out, err
}

type listJobsInput struct {
	JobFilter
	Paging
}

type jobList struct {
	Jobs    []job.Job `json:"jobs" nullable:"false"`
	Next    *string   `json:"next_cursor"`
	Partial bool      `json:"partial,omitempty" doc:"The list stopped because enough was looked at; there may be more."`
}

func (s service) listJobs(ctx context.Context, in *listJobsInput) (*reply[jobList], error) {
	before, err := readCursor(in.Cursor)
	if err != nil {
		return nil, err
	}
	f, err := in.filter()
	if err != nil {
		return nil, err
	}
	page, err := s.queue.List(ctx, f, in.Limit, before)
	if err != nil {
		return nil, err
	}
	return &reply[jobList]{jobList{page.Jobs, cursor(page.Next), page.Partial}}, nil
}

// cursor hides the place of a job in the order, so that nobody counts on it.
func cursor(place int64) *string {
	if place == 0 {
		return nil
	}
	c := base64.RawURLEncoding.EncodeToString(binary.BigEndian.AppendUint64(nil, uint64(place)))
	return &c
}

func readCursor(c string) (int64, error) {
	if c == "" {
		return 0, nil
	}
	raw, err := base64.RawURLEncoding.DecodeString(c)
	if err != nil || len(raw) != 8 || int64(binary.BigEndian.Uint64(raw)) <= 0 {
		return 0, invalid("cursor", "is not one that a list has returned")
	}
	return int64(binary.BigEndian.Uint64(raw)), nil
}

func (s service) getJob(ctx context.Context, in *idInput) (*reply[*queue.Detail], error) {
	d, err := s.queue.Detail(ctx, in.ID)
	return &reply[*queue.Detail]{d}, err
}

func (s service) whyJob(ctx context.Context, in *idInput) (*reply[*queue.Why], error) {
	w, err := s.queue.Why(ctx, in.ID)
	return &reply[*queue.Why]{w}, err
}
