package queue

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/postroom/postroom/core/job"
	"github.com/postroom/postroom/core/libsql"
)

// What one call looks at when it has filters, whatever they are.
const (
	listWindow   = 20_000  // jobs
	insideWindow = 2_500   // jobs, when it looks into their payloads
	insideBytes  = 4 << 20 // and bytes of these
)

// Filter narrows a list; empty fields do not.
type Filter struct {
	State, Type, Queue string
	Key                string    // an idempotency or limit key
	From, Before       time.Time // stored at or after, and before
	Payload            Inside
	IDs                []string
}

// Inside asks for jobs whose payload has a value at a place. The zero value
// asks for nothing.
type Inside struct {
	Field string // names of fields, from the outside in, with dots between them
	Value string // a JSON value, or the text of a string
}

// ParseInside reads FIELD=VALUE.
func ParseInside(s string) (Inside, error) {
	field, value, has := strings.Cut(s, "=")
	if !has {
		return Inside{}, &job.Invalid{Field: "payload", Code: "invalid", Reason: "must be FIELD=VALUE, such as user.id=7"}
	}
	return Inside{field, value}, Inside{field, value}.check()
}

func (i Inside) check() error {
	if err := job.CheckText("payload", i.Field, job.MaxName); err != nil {
		return err
	}
	if err := job.CheckText("payload", i.Value, job.MaxKey); err != nil {
		return err
	}
	for name := range strings.SplitSeq(i.Field, ".") {
		if name == "" || strings.ContainsAny(name, `"\\`) {
			return &job.Invalid{Field: "payload", Code: "invalid", Reason: "must name fields with dots between them, without quotes and backslashes"}
		}
	}
	return nil
}

// path is the place as SQLite writes it.
func (i Inside) path() string {
	return `$."` + strings.ReplaceAll(i.Field, ".", `"."`) + `"`
}

// IsEmpty says that every job passes.
func (f Filter) IsEmpty() bool {
	return f.State == "" && f.Type == "" && f.Queue == "" && f.Key == "" && f.From.IsZero() && f.Before.IsZero() && f.Payload == Inside{} && f.IDs == nil
}

// Page is a part of a list, newest first.
type Page struct {
	Jobs    []job.Job
	Next    int64 // cursor of the next page; 0 when this is the last
	Partial bool  // the page ended because enough was looked at, not because it is full
}

// List returns up to limit jobs that were stored before the one at cursor, 0
// for the newest. One call looks at a bounded number of jobs.
func (q *Queue) List(ctx context.Context, f Filter, limit int, cursor int64) (Page, error) {
	rows, seen, err := q.list(ctx, sqlList, sqlListGiven, f, f.states(), limit+1, cursor)
	if err != nil {
		return Page{}, fmt.Errorf("list jobs: %w", err)
	}
	p := Page{Jobs: []job.Job{}, Next: seen, Partial: seen > 0}
	var last int64
	for i, r := range rows {
		if i == limit {
			p.Next, p.Partial = last, false
			break
		}
		var j job.Job
		j, last = jobRow(r)
		p.Jobs = append(p.Jobs, j)
	}
	return p, nil
}

func (f Filter) states() []string {
	if f.State == "" {
		return nil
	}
	return []string{f.State}
}

// list reads rows of jobs in one of the states; nil for any. seen is the last
// job that was looked at, or 0 when all were.
func (q *Queue) list(ctx context.Context, sql, sqlGiven string, f Filter, states []string, limit int, cursor int64) (rows []libsql.Row, seen int64, err error) {
	if cursor <= 0 {
		cursor = 1<<63 - 1
	}
	args := []any{cursor, int64(0), jsonList(states), orNil(f.Type), orNil(f.Queue), orNil(f.Key), milli(f.From), milli(f.Before), nil, nil, limit}
	inside := f.Payload != Inside{}
	if inside {
		if err := f.Payload.check(); err != nil {
			return nil, 0, err
		}
		args[8], args[9] = f.Payload.path(), f.Payload.Value
	}
	switch {
	case f.IDs != nil:
		sql, args[1] = sqlGiven, jsonList(f.IDs)
	case !f.IsEmpty() || states != nil:
		end := libsql.Query(sqlSeen, cursor, listWindow)
		if inside {
			end = libsql.Query(sqlSeenInside, cursor, insideWindow, insideBytes)
		}
		res, err := q.db.Read(ctx, end)
		if err != nil {
			return nil, 0, err
		}
		if len(res[0].Rows) > 0 {
			seen = res[0].Rows[0].Int(0)
			args[1] = seen
		}
	}
	res, err := q.db.Read(ctx, libsql.Query(sql, args...))
	if err != nil {
		return nil, 0, err
	}
	return res[0].Rows, seen, nil
}

// jsonList is NULL for nil.
func jsonList(list []string) any {
	if list == nil {
		return nil
	}
	return string(job.Payload(list))
}

func orNil(s string) any {
	if s == "" {
		return nil
	}
	return s
}

func milli(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return t.UnixMilli()
}
