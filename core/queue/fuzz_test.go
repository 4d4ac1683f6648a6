package queue_test

import (
	"errors"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/postroom/postroom/core/internal/dbtest"
	"github.com/postroom/postroom/core/job"
	"github.com/postroom/postroom/core/libsql"
	"github.com/postroom/postroom/core/queue"
	"github.com/postroom/postroom/core/system"
)

// A job that is accepted goes through the real database and comes back byte for
// byte, and so do the neighbours that share its statements; one that is refused
// is refused alone. The driver dies of some text and cuts other, so a mistake
// here may show as the end of the process.
func FuzzJobComesBack(f *testing.F) {
	for _, payload := range []string{
		`null`, `{"a": [1, "2024-01-02", "\u0000"]}`, `"2024-01-02"`, `2024-01-02`, "\"caf\xe9\"", "\"\x00\"", `1E400`, `-0`, `"\ud800"`, "\"\u2028<&\ufeff\"",
		"\xef\xbb\xbf1", strings.Repeat("[", 500) + strings.Repeat("]", 500), `'a'`, `{a:1}`, `[1,]`, `+1`, `0x1`, `NaN`, `.5`, "\"\U0010ffff\x7f\"", "\n\t {}\r\n", `"',?1;--"`, `{"id":1,"id":2}`,
	} {
		f.Add([]byte(payload), "x", "default", "k", "active", "", "boom", int64(0), int64(0), 0, 0)
	}
	f.Add([]byte(`1`), "2024-01-02T00:00:00Z", "2024-01-02", "2024-01-02", "forever", "2024-01-02", "2024-01-02", int64(1), int64(1_700_000_000_000), 100, 1000)
	f.Add([]byte(`1`), "caf\xe9", "a\x00b", "\x01", "until", "\ufffd", "caf\xe9\x00", int64(-1), int64(253402300799999+1), -101, -1)
	f.Add([]byte(`1`), "debug.echo", "\u0085\u00a0", "'; DROP TABLE jobs; --", "until", strings.Repeat("x", 201), strings.Repeat("é", 9000), int64(1<<62), int64(0), 7, 3)
	f.Add([]byte(`1`), "x", "", "", "", "", "", int64(0), int64(253402300800006), 0, 0)
	f.Add([]byte(`1`), "x", "", "", "", "", "", int64(0), int64(-3), 0, 0)
	f.Add([]byte(`1`), "%s", "\u202e", strings.Repeat("k", 513), "", "l", "", int64(9_000_000_000_000_000), int64(-62135596800000), 0, 0)

	db := dbtest.Open(f)
	q := queue.New(db, system.Real{}, job.Known())
	f.Fuzz(func(t *testing.T, payload []byte, typ, in, key, scope, limit, text string, delay, at int64, priority, attempts int) {
		neighbour := func(mark string) job.New {
			n := job.New{Type: "neighbour", Queue: "neighbours", Payload: job.Payload(mark), LimitKey: mark}
			if key != "" { // without one, nothing is asked about any of the three
				n.Key = mark
			}
			return n
		}
		n := job.New{
			Type: typ, Queue: in, Payload: payload, Key: key, KeyScope: job.Scope(scope), LimitKey: limit,
			Delay: time.Duration(delay), Priority: priority, MaxAttempts: attempts,
		}
		if at != 0 {
			n.NotBefore = time.UnixMilli(at).In(time.FixedZone("", int((at%29+29)%29-14)*3600)) // a user's own zone
		}
		defer wipe(t, db)

		checked := n
		refused := checked.Check(job.Known())
		three, err := q.EnqueueMany(t.Context(), []job.New{neighbour("before"), n, neighbour("after")})
		if refused != nil {
			var inv *job.Invalid
			if !errors.As(err, &inv) || !strings.HasPrefix(inv.Field, "jobs[1].") || !oneLine(inv.Reason) {
				t.Fatalf("refused with %q, then with %q", refused, err)
			}
			if jobs := count(t, q, "jobs"); jobs != 0 {
				t.Errorf("%d jobs were stored with one that was refused", jobs)
			}
			return
		}
		if err != nil {
			t.Fatalf("a job that Check accepts is refused: %v", err)
		}
		for i, want := range []job.New{neighbour("before"), checked, neighbour("after")} {
			if three[i].Duplicate || three[i].Pruned {
				t.Fatalf("job %d: %+v", i, three[i])
			}
			cameBack(t, q, three[i].ID, want)
		}

		// The same jobs again, each from a caller of its own: they share a group.
		var again sync.WaitGroup
		for i, dup := range []job.New{neighbour("before"), n, neighbour("after")} {
			again.Go(func() {
				dup.ID = three[i].ID
				if e, err := q.Enqueue(t.Context(), dup); err != nil || e != three[i] {
					t.Errorf("the repeat of job %d gave %+v, %v", i, e, err)
				}
			})
		}
		again.Wait()
		makeDue(t, db)
		ended(t, q, three, checked, text)
	})
}

// cameBack compares a job with what was asked for.
func cameBack(t *testing.T, q *queue.Queue, id string, want job.New) {
	t.Helper()
	j := get(t, q, id)
	same := func(what, got, want string) {
		if got != want {
			t.Errorf("the %s came back as %q, want %q", what, got, want)
		}
	}
	text := func(s *string) string {
		if s == nil {
			return ""
		}
		return *s
	}
	same("payload", string(j.Payload), string(want.Payload))
	same("type", j.Type, want.Type)
	same("queue", j.Queue, want.Queue)
	same("key", text(j.IdempotencyKey), want.Key)
	same("limit key", text(j.LimitKey), want.LimitKey)
	if want.Queue == "" {
		same("queue", j.Queue, job.DefaultQueue)
	}
	if j.State != job.Queued || j.Priority != int64(want.Priority) {
		t.Errorf("job %+v", j.Job)
	}
	switch {
	case !want.NotBefore.IsZero():
		if j.NotBefore == nil || !j.NotBefore.Time().Equal(want.NotBefore.Truncate(time.Millisecond)) {
			t.Errorf("not before %v, want %v", j.NotBefore, want.NotBefore)
		}
	case want.Delay >= time.Millisecond:
		if j.NotBefore == nil || j.NotBefore.Time().Sub(j.CreatedAt.Time()) != want.Delay.Truncate(time.Millisecond) {
			t.Errorf("not before %v, want %v after %v", j.NotBefore, want.Delay, j.CreatedAt)
		}
	}
	if _, err := j.CreatedAt.MarshalJSON(); err != nil {
		t.Error(err)
	}
	if j.NotBefore != nil {
		var back job.Time
		if b, err := j.NotBefore.MarshalJSON(); err != nil || back.UnmarshalJSON(b) != nil || back != *j.NotBefore {
			t.Errorf("not before is shown as %s, which reads as %s, %v", j.NotBefore, back, err)
		}
	}
}

// ended claims all three jobs and ends them at once: the one in the middle with
// text from its handler and the payload as result.
func ended(t *testing.T, q *queue.Queue, three []queue.Enqueued, n job.New, text string) {
	t.Helper()
	c, err := q.Claim(t.Context(), queue.ClaimRequest{Runner: text, Token: q.NewToken(), Types: []string{"neighbour", n.Type}, Limit: 9, Lease: lease})
	if !utf8.ValidString(text) || strings.ContainsRune(text, 0) {
		if libsql.ClassOf(err) != libsql.Invalid {
			t.Fatalf("a runner's name that cannot be stored: %v", err)
		}
		c, err = q.Claim(t.Context(), queue.ClaimRequest{Runner: "r", Token: q.NewToken(), Types: []string{"neighbour", n.Type}, Limit: 9, Lease: lease})
	}
	if err != nil || len(c.Jobs) != 3 {
		t.Fatalf("claimed %d jobs, %v; want all three", len(c.Jobs), err)
	}
	var all sync.WaitGroup
	for _, j := range c.Jobs {
		if j.JobID == three[1].ID && (string(j.Payload) != string(n.Payload) || j.Type != n.Type) {
			t.Errorf("claimed %+v", j)
		}
		all.Go(func() {
			o := queue.Outcome{Kind: queue.Completed, Result: j.Payload}
			if j.JobID == three[1].ID && text != "" {
				o = queue.Outcome{Kind: queue.Fatal, Error: text, Stack: text}
			}
			if _, err := q.Finish(t.Context(), j.Lease, o); err != nil {
				t.Errorf("finish %s: %v", j.Type, err)
			}
		})
	}
	all.Wait()
	for i, e := range three {
		d := get(t, q, e.ID)
		if i == 1 && text != "" {
			got, whole := *d.LastError, len(text) <= 16<<10 && utf8.ValidString(text) && !strings.ContainsRune(text, 0)
			if d.State != job.Failed || !utf8.ValidString(got) || whole && (got != text || *d.Runs[0].Error != text || *d.Runs[0].Stack != text) {
				t.Errorf("state %s, error %.100q, want %.100q", d.State, got, text)
			}
			continue
		}
		if d.State != job.Completed || string(d.Result) != string(d.Payload) || d.LastError != nil {
			t.Errorf("job %d ended as %s with %q", i, d.State, d.Result)
		}
	}
}

// oneLine says whether a reason is made for people: one short line.
func oneLine(reason string) bool {
	return reason != "" && len(reason) < 200 && !strings.ContainsFunc(reason, func(r rune) bool { return r < ' ' || r == utf8.RuneError })
}

// makeDue lets a job be claimed whatever its time.
func makeDue(t *testing.T, db libsql.DB) {
	t.Helper()
	var b libsql.Batch
	b.Exec("UPDATE jobs SET ready_key = 0")
	if _, err := db.Write(t.Context(), &b); err != nil {
		t.Fatal(err)
	}
}

func wipe(t *testing.T, db libsql.DB) {
	t.Helper()
	var b libsql.Batch
	for _, table := range []string{"jobs", "job_keys", "job_runs", "queues"} {
		b.Exec("DELETE FROM " + table)
	}
	if _, err := db.Write(t.Context(), &b); err != nil {
		t.Fatal(err)
	}
}
