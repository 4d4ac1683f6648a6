package queue_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/postroom/postroom/core/job"
	"github.com/postroom/postroom/core/libsql"
	"github.com/postroom/postroom/core/queue"
	"github.com/postroom/postroom/core/telemetry"
)

// Jobs that nothing is asked about are stored by a statement of their own, and
// so are those of a batch. Each way makes the same row of the same job.
func TestEveryWayOfStoringAJobMakesTheSameRow(t *testing.T) {
	t.Parallel()
	q, c := setup(t)
	one := int64(1)
	if err := q.SetLimit(t.Context(), queue.Limit{Scope: "key", Name: "limited", MaxRunning: &one}); err != nil {
		t.Fatal(err)
	}
	traced := telemetry.ContextWithTraceParent(t.Context(), "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
	for name, c := range map[string]struct {
		ctx context.Context
		n   job.New
		row string
	}{
		"plain":             {t.Context(), job.New{}, "0 5 due=nil ready=0 waits=nil limit= parent= trace="},
		"of high priority":  {t.Context(), job.New{Priority: 100, MaxAttempts: 1000}, "100 1000 due=nil ready=-3000000 waits=nil limit= parent= trace="},
		"of low priority":   {t.Context(), job.New{Priority: -100, MaxAttempts: 1}, "-100 1 due=nil ready=3000000 waits=nil limit= parent= trace="},
		"delayed":           {t.Context(), job.New{Delay: time.Second}, "0 5 due=1000 ready=nil waits=nil limit= parent= trace="},
		"for later":         {t.Context(), job.New{NotBefore: time.UnixMilli(c.ms + 1)}, "0 5 due=1 ready=nil waits=nil limit= parent= trace="},
		"for now":           {t.Context(), job.New{NotBefore: time.UnixMilli(c.ms)}, "0 5 due=0 ready=0 waits=nil limit= parent= trace="},
		"limited":           {t.Context(), job.New{LimitKey: "limited", Priority: 1}, "1 5 due=nil ready=nil waits=-30000 limit=limited parent= trace="},
		"limited for later": {t.Context(), job.New{LimitKey: "limited", Delay: time.Second}, "0 5 due=1000 ready=nil waits=nil limit=limited parent= trace="},
		"without a limit":   {t.Context(), job.New{LimitKey: `free "é"`}, `0 5 due=nil ready=0 waits=nil limit=free "é" parent= trace=`},
		"of a parent":       {t.Context(), job.New{ParentID: "0193f1a0-8c5e-7abc-8def-0123456789ab"}, "0 5 due=nil ready=0 waits=nil limit= parent=0193f1a0-8c5e-7abc-8def-0123456789ab trace="},
		"in a trace":        {traced, job.New{}, "0 5 due=nil ready=0 waits=nil limit= parent= trace=00-0af7651916cd43dd8448eb211c80319c"},
		"with all of it": {
			traced, job.New{LimitKey: "x", ParentID: "0193f1a0-8c5e-7abc-8def-0123456789ab", Delay: time.Hour},
			"0 5 due=3600000 ready=nil waits=nil limit=x parent=0193f1a0-8c5e-7abc-8def-0123456789ab trace=00-0af7651916cd43dd8448eb211c80319c",
		},
	} {
		c.n.Type, c.n.Queue = strings.Repeat("é", 100), `a "queue"`
		c.n.Payload = json.RawMessage(` {"a": ["\u00e9", "é\\", 1e3 ]} `)
		asked := c.n
		asked.ID = q.NewID()
		many, err := q.EnqueueMany(c.ctx, []job.New{c.n, {Type: "between"}, c.n})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if many[0].ID >= many[1].ID || many[1].ID >= many[2].ID { // or the index over them is not appended to
			t.Errorf("%s: the ids do not ascend: %+v", name, many)
		}
		shown, row, err := q.EnqueueShown(c.ctx, c.n)
		if err != nil || row == nil || row.ID != shown.ID || string(row.Payload) != string(c.n.Payload) {
			t.Errorf("%s: shown as %+v, %v", name, row, err)
		}
		one, err := q.Enqueue(c.ctx, asked)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		b := q.NewBatch(c.ctx)
		inBatch := b.Enqueue(c.n)
		if _, err := q.Write(t.Context(), b); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		for way, id := range map[string]string{"first of many": many[0].ID, "last of many": many[2].ID, "shown": shown.ID, "with an id": one.ID, "in a batch": inBatch} {
			if got := storedRow(t, q, id, c.n); got != c.row {
				t.Errorf("%s, %s:\n%s, want\n%s", name, way, got, c.row)
			}
		}
	}
}

// storedRow is what is stored of a job, times as of when it was stored, after
// what all of them have has been held against n.
func storedRow(t *testing.T, q *queue.Queue, id string, n job.New) string {
	t.Helper()
	res, err := q.DB().Read(t.Context(), libsql.Query(`SELECT CAST(type AS BLOB), CAST(queue AS BLOB), CAST(payload_json AS BLOB), updated_at = created_at,
	 priority, max_attempts, not_before - created_at, ready_key - created_at, wait_key - created_at, CAST(limit_key AS BLOB), CAST(parent_id AS BLOB), CAST(trace_parent AS BLOB)
	 FROM jobs WHERE id = ? AND state = 'queued' AND waits = 0 AND idempotency_key IS NULL AND after_failure IS NULL`, id))
	if err != nil || len(res[0].Rows) != 1 {
		t.Fatalf("the row of %s: %v", id, err)
	}
	r := res[0].Rows[0]
	if r.Str(0) != n.Type || r.Str(1) != n.Queue || r.Str(2) != string(n.Payload) || !r.Bool(3) {
		t.Errorf("%q %q %s %v", r.Str(0), r.Str(1), r.Bytes(2), r[3])
	}
	ms := func(i int) string {
		if r.Null(i) {
			return "nil"
		}
		return fmt.Sprint(r.Int(i))
	}
	trace, _, _ := strings.Cut(r.Str(11), "-01") // its span is the call's own
	if len(trace) > 35 {
		trace = trace[:35]
	}
	return fmt.Sprintf("%d %d due=%s ready=%s waits=%s limit=%s parent=%s trace=%s", r.Int(4), r.Int(5), ms(6), ms(7), ms(8), r.Str(9), r.Str(10), trace)
}
