package main

import (
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/postroom/postroom/core/job"
	"github.com/postroom/postroom/core/libsql"
	"github.com/postroom/postroom/core/mail"
	"github.com/postroom/postroom/core/token"
)

// takesKey says whether the description promises that a repeat with the same
// key changes nothing; of a job the key is its own.
func (o operation) takesKey() bool {
	return o.path != "/v1/jobs" && slices.ContainsFunc(o.parameters, func(p parameter) bool { return p.in == "header" && p.name == keyHeader })
}

// Every POST that changes something, repeated with its key, gets the same
// answer and changes nothing more.
func TestARepeatWithTheSameKeyChangesNothing(t *testing.T) {
	t.Parallel()
	c, err := theContract()
	if err != nil {
		t.Fatal(err)
	}
	tried := 0
	for _, o := range c.list {
		role := roleOf(o.method + " " + o.path)
		if want := o.method == "POST" && role != "" && role != token.Read && o.path != "/v1/jobs"; o.takesKey() != want {
			t.Errorf("%s %s takes a key: %v", o.method, o.path, !want)
		}
		for status := range o.answers {
			name := o.method + " " + o.path + " " + status
			make, has := successes[name]
			if !has || !o.takesKey() {
				continue
			}
			tried++
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				f := newFixture(t)
				r := make(f)
				first := r.send(f, o.method, keyHeader, "k")
				first.is(first.status)
				if first.status >= 300 || first.header.Get(replayHeader) != "" {
					t.Fatalf("got %d %v %s", first.status, first.header, first.raw)
				}
				before := f.rows()
				second := r.send(f, o.method, keyHeader, "k")
				if second.status != first.status || second.raw != first.raw || second.header.Get(replayHeader) != "true" || second.header.Get("Content-Type") != inJSON {
					t.Errorf("got %d %v %s, want %d %s", second.status, second.header, second.raw, first.status, first.raw)
				}
				f.call("POST", "/v1/queues/other/pause", "", keyHeader, "k").problem(422, "idempotency_key_reused", "")
				if r.body != "" {
					r.body += "\n"
					r.send(f, o.method, keyHeader, "k").problem(422, "idempotency_key_reused", "")
				}
				if after := f.rows(); after != before {
					t.Errorf("the repeat changed something:\n%s\nwas\n%s", after, before)
				}
			})
		}
	}
	if tried < 25 {
		t.Errorf("only %d were tried", tried)
	}
}

func TestOfRepeatsAtOnceOneIsCarriedOut(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	var all sync.WaitGroup
	var carried, replayed, refused atomic.Int64
	for range 16 {
		all.Go(func() {
			got := f.call("POST", "/v1/rules", aRule, "Content-Type", inJSON, keyHeader, "k")
			switch {
			case got.status == 201 && got.header.Get(replayHeader) == "":
				carried.Add(1)
			case got.status == 201:
				replayed.Add(1)
			case got.status == 409 && strings.Contains(got.raw, `"request_under_way"`) && got.header.Get("Retry-After") == "1":
				refused.Add(1)
			default:
				t.Errorf("got %d %v %s", got.status, got.header, got.raw)
			}
		})
	}
	all.Wait()
	if n := len(f.get("/v1/rules").is(200)["rules"].([]any)); n != 1 || carried.Load() != 1 {
		t.Errorf("%d rules; %d carried out, %d replayed, %d refused", n, carried.Load(), replayed.Load(), refused.Load())
	}
}

func TestAKeyThatIsNoneIsRefused(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	for _, path := range []string{"/v1/rules", "/v1/jobs", "/v1/rules:apply"} {
		for what, keys := range map[string][]string{
			"too long": {strings.Repeat("k", job.MaxKey+1)}, "empty": {""}, "two": {"a", "b"}, "a control character": {"a\tb"},
		} {
			headers := []string{"Content-Type", inJSON}
			for _, k := range keys {
				headers = append(headers, keyHeader, k)
			}
			got := f.call("POST", path, aRule, headers...)
			if got.status != 400 || !strings.Contains(got.raw, `"field":"`+keyHeader+`"`) {
				t.Errorf("%s, %s: %d %s", path, what, got.status, got.raw)
			}
		}
		f.call("POST", path, aRule, "Content-Type", inJSON, keyHeader, "caf\xe9").problem(400, "invalid_utf8", keyHeader)
	}
	f.call("POST", "/v1/jobs:batch", `{"jobs":[]}`, "Content-Type", inJSON, keyHeader, strings.Repeat("é", job.MaxKey/2)).is(201)
	if got := f.get("/v1/rules").is(200)["rules"].([]any); len(got) != 0 {
		t.Errorf("stored were %v", got)
	}
}

func TestAKeyIsItsCallersOwn(t *testing.T) {
	t.Parallel()
	var secrets map[token.Role]string
	f := newFixture(t, func(s *service) { secrets = withTokens(t, s) })
	for _, secret := range []string{"configured", secrets[token.Admin]} {
		got := f.call("POST", "/v1/rules", aRule, "Content-Type", inJSON, keyHeader, "k", "Authorization", "Bearer "+secret)
		if got.status != 201 || got.header.Get(replayHeader) != "" {
			t.Errorf("got %d %v", got.status, got.header)
		}
	}
	f.call("POST", "/v1/rules", aRule, "Content-Type", inJSON, keyHeader, "k", "Authorization", "Bearer "+secrets[token.Operate]).problem(403, "forbidden", "")
}

// A key belongs to a request that changed something: one that was refused
// leaves it free, and one that only looks has no use for it.
func TestAKeyIsSpentByASuccessOnly(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	id := f.enqueue("x", "q")
	retry := func() answer { return f.call("POST", "/v1/jobs/"+id+"/retry", "", keyHeader, "k") }
	retry().problem(409, "invalid_state", "")
	f.call("POST", "/v1/rules", `{}`, "Content-Type", inJSON, keyHeader, "k").is(400)
	f.call("POST", "/v1/rules:dryrun", `{}`, "Content-Type", inJSON, keyHeader, strings.Repeat("k", job.MaxKey+1)).is(200)
	for _, path := range []string{"/v1/jobs:cancel?type=x&dry_run=true", "/v1/jobs:cancel?type=y&dry_run=true"} {
		f.call("POST", path, "", keyHeader, "k").is(200)
	}
	f.call("POST", "/v1/jobs/"+id+"/cancel", "").is(200)
	if got := retry(); got.status != 200 || got.header.Get(replayHeader) != "" {
		t.Errorf("got %d %v %s", got.status, got.header, got.raw)
	}
	f.call("POST", "/v1/jobs/"+id+"/cancel", "").is(200)
	if got := retry().is(200); got["state"] != "queued" { // as it was then
		t.Errorf("got %v", got)
	}
	if got := f.get("/v1/jobs/" + id).is(200); got["state"] != "canceled" {
		t.Errorf("the repeat retried the job again: %v", got)
	}
	if log := f.log.String(); strings.Count(log, `"replayed":true`) != 1 {
		t.Errorf("the log does not tell the repeat: %s", log)
	}
}

func TestAKeyWhoseRequestFailed(t *testing.T) {
	t.Parallel()
	db := &failing{} // of the rules alone
	f := newFixture(t, func(s *service) {
		db.DB = s.queue.DB()
		s.mail = mail.NewStore(noting{db}, s.queue, mail.Policy{})
	})
	create := func(key string) answer {
		return f.call("POST", "/v1/rules", aRule, "Content-Type", inJSON, keyHeader, key)
	}
	stored := func() int { return len(f.get("/v1/rules").is(200)["rules"].([]any)) }

	db.writes.Store(&libsql.Error{Class: libsql.Busy})
	create("k").problem(503, "database_busy", "")
	db.writes.Store(nil)
	create("k").is(201)
	if n := stored(); n != 1 {
		t.Errorf("%d rules", n)
	}

	db.reads.Store(&libsql.Error{Class: libsql.Unavailable})
	f.post("/v1/rules", aRule).problem(503, "database_unknown", "") // "nothing was changed" would be wrong
	create("l").problem(503, "database_unknown", "")
	db.reads.Store(nil)
	create("l").problem(409, "outcome_unknown", "")

	db.writes.Store(&libsql.Error{Class: libsql.Unknown})
	create("m").problem(503, "database_unknown", "")
	db.writes.Store(nil)
	create("m").problem(409, "outcome_unknown", "")
	if n := stored(); n != 3 {
		t.Errorf("%d rules", n)
	}
}
