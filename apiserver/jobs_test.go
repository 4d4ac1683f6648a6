package main

import (
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/postroom/postroom/core/queue"
)

const unknownID = "0193f1a0-8c5e-7abc-8def-0123456789ab"

var stamp = regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$`)

func TestAJobHasExactlyTheFieldsOfTheContract(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	job := f.post("/v1/jobs", `{"type":"debug.echo","payload":[1,{"a":null}]}`).is(201)
	want := []string{
		"id", "type", "queue", "state", "priority", "attempts", "max_attempts", "payload", "result", "last_error",
		"not_before", "idempotency_key", "created_at", "updated_at", "finished_at", "heartbeat_at", "claimed_by",
		"parent_id", "trace_id", "cancel_requested_at", "limit_key", "failures", "crashes",
	}
	slices.Sort(want)
	if got := slices.Sorted(maps.Keys(job)); !slices.Equal(got, want) {
		t.Errorf("fields are %v, want %v", got, want)
	}
	for _, field := range []string{"result", "last_error", "not_before", "idempotency_key", "finished_at", "heartbeat_at", "claimed_by", "parent_id", "cancel_requested_at", "limit_key"} {
		if v, has := job[field]; !has || v != nil {
			t.Errorf("%s is %v, want null", field, v)
		}
	}
	for _, field := range []string{"created_at", "updated_at"} {
		if s, _ := job[field].(string); !stamp.MatchString(s) {
			t.Errorf("%s is %q", field, s)
		}
	}
	if got := fmt.Sprint(job["payload"]); got != "[1 map[a:<nil>]]" {
		t.Errorf("payload is %s", got)
	}
	detail := f.get("/v1/jobs/" + job["id"].(string)).is(200)
	for _, field := range []string{"after", "steps", "runs"} {
		if list, ok := detail[field].([]any); !ok || len(list) != 0 {
			t.Errorf("%s is %v, want []", field, detail[field])
		}
	}
}

func TestAJobTakesItsSettings(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	job := f.post("/v1/jobs", `{"id":"`+unknownID+`","type":"x","queue":"q","priority":-7,"max_attempts":9,"not_before":"2031-01-02T03:04:05.678901+01:00",
		"idempotency_key":"k","key_scope":"until","key_ttl":"90m","limit_key":"l","payload":"text"}`).is(201)
	for field, want := range map[string]any{
		"id": unknownID, "queue": "q", "priority": -7.0, "max_attempts": 9.0, "not_before": "2031-01-02T02:04:05.678Z",
		"idempotency_key": "k", "limit_key": "l", "payload": "text", "state": "queued",
	} {
		if job[field] != want {
			t.Errorf("%s is %v, want %v", field, job[field], want)
		}
	}
	t.Run("the same id again is the same request", func(t *testing.T) {
		t.Parallel()
		again := f.post("/v1/jobs", `{"id":"`+unknownID+`","type":"x","idempotency_key":"k"}`).is(201)
		if again["created_at"] != job["created_at"] || again["duplicate"] != nil {
			t.Errorf("got %v", again)
		}
	})
	t.Run("the id of a job of another type is refused", func(t *testing.T) {
		t.Parallel()
		f.post("/v1/jobs", `{"id":"`+unknownID+`","type":"y"}`).problem(409, "id_in_use", "")
	})
	t.Run("a delay is a time from now", func(t *testing.T) {
		t.Parallel()
		if got := f.post("/v1/jobs", `{"type":"x","delay":"1h"}`).is(201); got["not_before"] == nil {
			t.Errorf("got %v", got)
		}
	})
	t.Run("null is the same as leaving a field out", func(t *testing.T) {
		t.Parallel()
		f.post("/v1/jobs", `{"type":"x","payload":null,"id":null,"queue":null,"priority":null,"max_attempts":null,"not_before":null,
			"delay":null,"idempotency_key":null,"key_scope":null,"key_ttl":null,"limit_key":null}`).is(201)
	})
}

func TestAKeyThatIsHeldAnswersWithItsJob(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	const asJSON, name = "application/json", "Idempotency-Key"
	first := f.post("/v1/jobs", `{"type":"x","payload":1,"idempotency_key":"k"}`).is(201)
	if _, has := first["duplicate"]; has {
		t.Error("the first one calls itself a duplicate")
	}
	for what, got := range map[string]answer{
		"by field":         f.post("/v1/jobs", `{"type":"x","payload":2,"idempotency_key":"k"}`),
		"by header":        f.call("POST", "/v1/jobs", `{"type":"x"}`, "Content-Type", asJSON, name, "k"),
		"by both, alike":   f.call("POST", "/v1/jobs", `{"type":"x","idempotency_key":"k"}`, "Content-Type", asJSON, name, "k"),
		"header, null key": f.call("POST", "/v1/jobs", `{"type":"x","idempotency_key":null}`, "Content-Type", asJSON, name, "k"),
	} {
		if again := got.is(200); again["id"] != first["id"] || again["duplicate"] != true || again["payload"] != 1.0 {
			t.Errorf("%s: %v", what, again)
		}
	}
	f.call("POST", "/v1/jobs", `{"type":"x","idempotency_key":"a"}`, "Content-Type", asJSON, name, "b").problem(400, "invalid", "idempotency_key")
}

func TestABatchIsAllOrNothing(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	got := f.post("/v1/jobs:batch", `{"jobs":[{"type":"a"},{"type":"b","idempotency_key":"k"},{"type":"b","idempotency_key":"k"}]}`).is(201)
	jobs := got["jobs"].([]any)
	at := func(i int) map[string]any { return jobs[i].(map[string]any) }
	if len(jobs) != 3 || at(0)["duplicate"] != false || at(1)["duplicate"] != false || at(2)["duplicate"] != true || at(1)["id"] != at(2)["id"] {
		t.Errorf("got %v", got)
	}
	f.post("/v1/jobs:batch", `{"jobs":[]}`).is(201)
	for body, field := range map[string]string{
		`{"jobs":[{"type":"a"},{"type":"b","priority":1000}]}`: "jobs[1].priority",
		`{"jobs":[{"type":"a"},{"type":""}]}`:                  "jobs[1].type",
		`{"jobs":[{"type":""}]}`:                               "jobs[0].type",
		`{"jobs":[{"type":"a"},{"typ":"b"}]}`:                  "jobs[1].typ",
		`{"jobs":[{"type":"a"},7]}`:                            "jobs[1]",
		`{"jobs":{}}`:                                          "jobs",
		`{"jobs":null}`:                                        "jobs",
		`{}`:                                                   "jobs",
	} {
		f.post("/v1/jobs:batch", body).problem(400, "invalid", field)
	}
	many := `{"jobs":[` + strings.Repeat(`{"type":"m"},`, maxItems)
	f.post("/v1/jobs:batch", many+`{"type":"m"}]}`).problem(413, "too_large", "jobs")
	if page := f.get("/v1/jobs").is(200); len(page["jobs"].([]any)) != 2 {
		t.Errorf("what was refused was stored: %v", page)
	}
	if stored := f.post("/v1/jobs:batch", strings.TrimSuffix(many, ",")+`]}`).is(201); len(stored["jobs"].([]any)) != maxItems {
		t.Errorf("%d jobs were stored, want %d", len(stored["jobs"].([]any)), maxItems)
	}
}

func TestJobsAreListedInPages(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	if got := strings.TrimSpace(f.get("/v1/jobs").raw); got != `{"jobs":[],"next_cursor":null}` {
		t.Errorf("an empty list is %s", got)
	}
	for i := range 5 {
		f.post("/v1/jobs", fmt.Sprintf(`{"type":"t%d","queue":"q%d","idempotency_key":"k%d","limit_key":"l"}`, i, i%2, i)).is(201)
	}
	types := func(page map[string]any) (list []string) {
		for _, j := range page["jobs"].([]any) {
			list = append(list, j.(map[string]any)["type"].(string))
		}
		return list
	}
	var all []string
	next := ""
	for range 3 {
		page := f.get("/v1/jobs?limit=2&cursor=" + next).is(200)
		all = append(all, types(page)...)
		next, _ = page["next_cursor"].(string)
	}
	if want := []string{"t4", "t3", "t2", "t1", "t0"}; !slices.Equal(all, want) || next != "" {
		t.Errorf("the pages hold %v and end with %q, want %v", all, next, want)
	}
	for query, want := range map[string]string{
		"state=queued": "t4 t3 t2 t1 t0", "state=failed": "", "type=t2": "t2", "queue=q1": "t3 t1", "key=k3": "t3", "key=l": "t4 t3 t2 t1 t0", "limit=1": "t4",
	} {
		if got := strings.Join(types(f.get("/v1/jobs?"+query).is(200)), " "); got != want {
			t.Errorf("%s: %s, want %s", query, got, want)
		}
	}
	for query, field := range map[string]string{
		"limit=0": "limit", "limit=201": "limit", "limit=x": "limit", "state=done": "state", "cursor=x": "cursor", "cursor=AAAAAAAAAAA": "cursor", "stat=failed": "stat",
	} {
		f.get("/v1/jobs?"+query).problem(400, "invalid", field)
	}
	f.get("/v1/jobs?type=%ff").problem(400, "invalid_utf8", "")
	f.get("/v1/jobs?type=%00").problem(400, "invalid", "")
	f.get("/v1/jobs?type=%zz").problem(400, "invalid", "")
}

func TestCancelAndRetry(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	id := f.post("/v1/jobs", `{"type":"x","idempotency_key":"k","key_scope":"active"}`).is(201)["id"].(string)
	path := "/v1/jobs/" + id
	f.call("POST", path+"/retry", "").problem(409, "invalid_state", "")
	if got := f.call("POST", path+"/cancel", "").is(200); got["state"] != "canceled" || got["finished_at"] == nil {
		t.Errorf("got %v", got)
	}
	f.post("/v1/jobs", `{"type":"x","idempotency_key":"k","key_scope":"active"}`).is(201)
	f.call("POST", path+"/retry", "").problem(409, "key_in_use", "")
	other := "/v1/jobs/" + f.post("/v1/jobs", `{"type":"x"}`).is(201)["id"].(string)
	f.call("POST", other+"/cancel", "").is(200)
	if got := f.call("POST", other+"/retry", "").is(200); got["state"] != "queued" || got["finished_at"] != nil {
		t.Errorf("got %v", got)
	}
	for _, id := range []string{unknownID, "no-id"} {
		f.get("/v1/jobs/"+id).problem(404, "not_found", "")
		f.call("POST", "/v1/jobs/"+id+"/cancel", "").problem(404, "not_found", "")
		f.call("POST", "/v1/jobs/"+id+"/retry", "").problem(404, "not_found", "")
	}
	f.get("/v1/jobs/%00").problem(400, "invalid", "")
}

func TestAJobWhoseKeyOutlivedIt(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	id := f.post("/v1/jobs", `{"type":"x","idempotency_key":"k","key_scope":"forever"}`).is(201)["id"]
	b := f.queue.NewBatch(t.Context())
	b.Exec("DELETE FROM jobs WHERE id=?", id) // what pruning does
	if _, err := f.queue.Write(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	got := f.post("/v1/jobs", `{"type":"x","idempotency_key":"k","key_scope":"forever"}`)
	if want := fmt.Sprintf(`{"id":"%s","type":"x","duplicate":true,"pruned":true}`, id); got.status != 200 || strings.TrimSpace(got.raw) != want {
		t.Errorf("got %d %s, want %s", got.status, got.raw, want)
	}
}

func TestAJobComesAfterOthers(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	first := f.post("/v1/jobs", `{"type":"x"}`).is(201)["id"].(string)
	second := f.post("/v1/jobs", `{"type":"x","after":["`+first+`"],"after_failure":"run"}`).is(201)
	if second["state"] != "queued" {
		t.Errorf("got %v", second)
	}
	detail := f.get("/v1/jobs/" + second["id"].(string)).is(200)
	if got := fmt.Sprint(detail["after"]); got != "[map[id:"+first+" outcome:<nil>]]" {
		t.Errorf("after is %s", got)
	}
	if history := detail["history"].([]any); len(history) != 1 || history[0].(map[string]any)["state"] != "queued" {
		t.Errorf("history is %v", history)
	}
	f.post("/v1/jobs", `{"type":"x","after":[],"after_failure":null}`).is(201)

	t.Run("in a batch also after those before it", func(t *testing.T) {
		t.Parallel()
		one, two := strings.Replace(unknownID, "0193", "0194", 1), strings.Replace(unknownID, "0193", "0195", 1)
		f.post("/v1/jobs:batch", `{"jobs":[{"type":"x","id":"`+one+`"},{"type":"x","id":"`+two+`","after":["`+one+`","`+first+`"]}]}`).is(201)
		if after := f.get("/v1/jobs/" + two).is(200)["after"].([]any); len(after) != 2 {
			t.Errorf("after is %v", after)
		}
		f.post("/v1/jobs:batch", `{"jobs":[{"type":"x","after":["`+one+`","`+unknownID+`"]}]}`).problem(400, "unknown_job", "jobs[0].after[1]")
		f.post("/v1/jobs:batch", `{"jobs":[{"type":"x"},{"type":"x","after":["`+one+`"]},{"type":"x","after":["`+one+`","`+first+`","`+unknownID+`"]}]}`).
			problem(400, "unknown_job", "jobs[2].after[2]")
	})
	for body, want := range map[string][2]string{
		`"after":["` + unknownID + `"]`:                               {"unknown_job", "after[0]"},
		`"after":["` + first + `","` + unknownID + `"]`:               {"unknown_job", "after[1]"},
		`"after":["` + first + `","7"]`:                               {"invalid", "after[1]"},
		`"after":["` + first + `",null]`:                              {"invalid", "after[1]"},
		`"after":["` + first + `"],"after_failure":"x"`:               {"invalid", "after_failure"},
		`"after_failure":"run"`:                                       {"invalid", "after_failure"},
		`"after":"` + first + `"`:                                     {"invalid", "after"},
		`"after":[7]`:                                                 {"invalid", "after"},
		`"id":"` + unknownID + `","after":["` + unknownID + `"]`:      {"invalid", "after[0]"},
		`"after":["` + strings.Repeat(first+`","`, 10_000) + `last"]`: {"invalid", "after"},
	} {
		f.post("/v1/jobs", `{"type":"x",`+body+`}`).problem(400, want[0], want[1])
	}
}

func TestWhyAJobIsNotRunning(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.post("/v1/queues/mail/pause", "").is(200)
	id := f.post("/v1/jobs", `{"type":"x","queue":"mail","delay":"1h"}`).is(201)["id"].(string)
	why := f.get("/v1/jobs/" + id + "/why").is(200)
	var codes []string
	for _, r := range why["reasons"].([]any) {
		reason := r.(map[string]any)
		codes = append(codes, reason["code"].(string))
		if reason["text"] == "" || reason["jobs"] == nil {
			t.Errorf("got %v", reason)
		}
		if until, _ := reason["until"].(string); (reason["code"] == "not_due") != stamp.MatchString(until) {
			t.Errorf("got %v", reason)
		}
	}
	if want := []string{"not_due", "queue_paused", "no_runner"}; why["id"] != id || why["state"] != "queued" || !slices.Equal(codes, want) {
		t.Errorf("got %v, want the reasons %v", why, want)
	}
	f.get("/v1/jobs/"+unknownID+"/why").problem(404, "not_found", "")
}

func TestQueuesArePausedAndResumed(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	for _, name := range []string{"mail", "a%2Fb%20%25", "caf%C3%A9", "..x"} {
		for verb, paused := range map[string]bool{"pause": true, "resume": false} {
			q := f.post("/v1/queues/"+name+"/"+verb, "").is(200)
			if want, _ := url.PathUnescape(name); q["name"] != want || q["paused"] != paused || q["depth"].(map[string]any)["queued"] != 0.0 {
				t.Errorf("%s of %s: %v", verb, name, q)
			}
		}
	}
	f.put("/v1/limits/queue/mail", `{"max_running":3}`).is(200)
	for _, q := range f.get("/v1/queues").is(200)["queues"].([]any) {
		var want any
		q := q.(map[string]any)
		if q["name"] == "mail" {
			want = 3.0
		}
		if got, has := q["max_running"]; !has || got != want {
			t.Errorf("max_running of %v is %v, want %v", q["name"], got, want)
		}
	}
	f.post("/v1/queues/"+strings.Repeat("x", 201)+"/pause", "").problem(400, "invalid", "name")
	f.post("/v1/queues/a%0Ab/pause", "").problem(400, "invalid", "name")
}

func TestLimits(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	if got := strings.TrimSpace(f.get("/v1/limits").raw); got != `{"limits":[],"next_cursor":null}` {
		t.Errorf("no limits are %s", got)
	}
	for _, c := range []struct{ path, body, want string }{
		{"key/*", `{"max_running":2,"interval":"1m30s"}`, `{"scope":"key","name":"*","max_running":2,"interval":"1m30s","running":0}`},
		{"key/a%2Fb", `{"interval":"250ms"}`, `{"scope":"key","name":"a/b","max_running":null,"interval":"250ms","running":0}`},
		{"queue/mail", `{"max_running":0,"interval":null}`, `{"scope":"queue","name":"mail","max_running":0,"interval":null,"running":0}`},
		{"type/two%20words", `{"max_running":7}`, `{"scope":"type","name":"two words","max_running":7,"interval":null,"running":0}`},
	} {
		got := f.put("/v1/limits/"+c.path, c.body)
		if strings.TrimSpace(got.raw) != c.want || got.status != 200 {
			t.Errorf("PUT %s: %d %s, want %s", c.path, got.status, got.raw, c.want)
		}
		if got := f.get("/v1/limits/" + c.path); strings.TrimSpace(got.raw) != c.want {
			t.Errorf("GET %s: %s, want %s", c.path, got.raw, c.want)
		}
	}
	var names []string
	next := ""
	for range 2 {
		page := f.get("/v1/limits?limit=2&cursor=" + url.QueryEscape(next)).is(200)
		for _, l := range page["limits"].([]any) {
			names = append(names, l.(map[string]any)["name"].(string))
		}
		next, _ = page["next_cursor"].(string)
	}
	if want := []string{"*", "a/b", "mail", "two words"}; !slices.Equal(names, want) || next != "" {
		t.Errorf("the pages hold %v and end with %q, want %v", names, next, want)
	}
	f.call("DELETE", "/v1/limits/key/*", "").is(204)
	f.call("DELETE", "/v1/limits/key/*", "").problem(404, "not_found", "")
	f.get("/v1/limits/key/*").problem(404, "not_found", "")
	for _, c := range []struct{ path, body, field string }{
		{"queue/q", `{}`, "max_running"},
		{"queue/q", `{"max_running":-1}`, "max_running"},
		{"queue/q", `{"max_running":1.5}`, "max_running"},
		{"queue/q", `{"interval":"1s"}`, "interval"},
		{"key/k", `{"interval":"soon"}`, "interval"},
		{"key/k", `{"interval":"0s"}`, "interval"},
		{"key/k", `{"interval":"25h"}`, "interval"},
		{"key/k", `{"maximum":1}`, "maximum"},
		{"key/" + strings.Repeat("x", 201), `{"max_running":1}`, "name"},
		{"account/k", `{"max_running":1}`, "scope"},
	} {
		f.put("/v1/limits/"+c.path, c.body).problem(400, "invalid", c.field)
	}
}

func TestQueuesAndRunners(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	if got := strings.TrimSpace(f.get("/v1/runners").raw); got != `{"runners":[],"next_cursor":null}` {
		t.Errorf("no runners are %s", got)
	}
	f.post("/v1/jobs", `{"type":"x","queue":"q"}`).is(201)
	queues := f.get("/v1/queues").is(200)["queues"].([]any)
	if q := queues[len(queues)-1].(map[string]any); q["name"] != "q" || q["paused"] != false || q["depth"].(map[string]any)["queued"] != 1.0 || q["depth"].(map[string]any)["failed"] != 0.0 {
		t.Errorf("got %v", queues)
	}
	if err := f.queue.Register(t.Context(), queue.Runner{ID: "r1", Host: "h", PID: 7, Version: "v", Types: []string{"x"}, Concurrency: 2}); err != nil {
		t.Fatal(err)
	}
	runner := f.get("/v1/runners").is(200)["runners"].([]any)[0].(map[string]any)
	if runner["id"] != "r1" || runner["queues"] == nil || !stamp.MatchString(runner["heartbeat_at"].(string)) {
		t.Errorf("got %v", runner)
	}
}

func TestBadRequestsAreRefused(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	deep := func(n int) string {
		return `{"type":"x","payload":` + strings.Repeat("[", n) + strings.Repeat("]", n) + `}`
	}
	for name, c := range map[string]struct {
		body, code, field string
		status            int
	}{
		"nothing":                     {"", "malformed_json", "body", 400},
		"no JSON":                     {`{"type":`, "malformed_json", "body", 400},
		"two values":                  {`{"type":"x"}{"type":"y"}`, "malformed_json", "body", 400},
		"a byte order mark":           {"\ufeff" + `{"type":"x"}`, "malformed_json", "body", 400},
		"deeper than a parser goes":   {deep(20_000), "malformed_json", "body", 400},
		"deeper than a payload goes":  {deep(501), "invalid", "payload", 400},
		"a list":                      {`[]`, "invalid", "body", 400},
		"null":                        {`null`, "invalid", "body", 400},
		"an unknown field":            {`{"type":"x","payloda":1}`, "invalid", "payloda", 400},
		"a field in other letters":    {`{"Type":"x"}`, "invalid", "Type", 400},
		"a field twice":               {`{"type":"x","type":"y"}`, "invalid", "type", 400},
		"no type":                     {`{}`, "invalid", "type", 400},
		"a number as type":            {`{"type":7}`, "invalid", "type", 400},
		"a text as priority":          {`{"type":"x","priority":"7"}`, "invalid", "priority", 400},
		"a fraction as priority":      {`{"type":"x","priority":1.5}`, "invalid", "priority", 400},
		"a priority out of range":     {`{"type":"x","priority":101}`, "invalid", "priority", 400},
		"a priority beyond 64 bits":   {`{"type":"x","priority":99999999999999999999}`, "invalid", "priority", 400},
		"no attempts":                 {`{"type":"x","max_attempts":0}`, "invalid", "max_attempts", 400},
		"a delay that is none":        {`{"type":"x","delay":"soon"}`, "invalid", "delay", 400},
		"a delay back":                {`{"type":"x","delay":"-1s"}`, "invalid", "delay", 400},
		"a delay as number":           {`{"type":"x","delay":30}`, "invalid", "delay", 400},
		"a time that is none":         {`{"type":"x","not_before":"tomorrow"}`, "invalid", "not_before", 400},
		"a delay and a time":          {`{"type":"x","delay":"1s","not_before":"2031-01-01T00:00:00Z"}`, "invalid", "delay", 400},
		"an id that is none":          {`{"type":"x","id":"7"}`, "invalid", "id", 400},
		"a scope that is none":        {`{"type":"x","idempotency_key":"k","key_scope":"always"}`, "invalid", "key_scope", 400},
		"a scope without a key":       {`{"type":"x","key_scope":"active"}`, "invalid", "key_scope", 400},
		"a key that lives no time":    {`{"type":"x","idempotency_key":"k","key_scope":"until","key_ttl":"0s"}`, "invalid", "key_ttl", 400},
		"a NUL in a key":              {`{"type":"x","idempotency_key":"a\u0000"}`, "invalid", "idempotency_key", 400},
		"a Latin-1 byte in a payload": {"{\"type\":\"x\",\"payload\":\"caf\xe9\"}", "invalid_utf8", "body", 400},
		"a Latin-1 byte in a type":    {"{\"type\":\"caf\xe9\"}", "invalid_utf8", "body", 400},
		"a payload above 1 MiB":       {`{"type":"x","payload":"` + strings.Repeat("x", 1<<20) + `"}`, "too_large", "payload", 413},
		"a body of 50 MB":             {strings.Repeat("x", 50_000_000), "too_large", "", 413},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := f.post("/v1/jobs", c.body)
			got.t = t
			got.problem(c.status, c.code, c.field)
		})
	}
	for _, contentType := range []string{"text/plain", "application/x-www-form-urlencoded", "application/json; charset=latin1", "application/jsonp", ""} {
		f.call("POST", "/v1/jobs", `{"type":"x"}`, "Content-Type", contentType).problem(415, "unsupported_media_type", "")
	}
	f.call("POST", "/v1/jobs", `{"type":"x"}`, "Content-Type", "application/json; charset=UTF-8").is(201)
}

func TestAddressesThatAreNone(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	for _, path := range []string{"/nothing", "/v1", "/v1/jobs/", "/v1/jobs/x/y", "/healthz/", "/favicon.ico"} {
		f.get(path).problem(404, "not_found", "")
	}
	for request, allow := range map[string]string{
		"PUT /v1/jobs": "GET, HEAD, POST", "PUT /v1/jobs/x": "DELETE, GET, HEAD", "GET /v1/jobs:batch": "POST", "POST /healthz": "GET, HEAD", "OPTIONS /v1/jobs": "GET, HEAD, POST",
	} {
		method, path, _ := strings.Cut(request, " ")
		got := f.call(method, path, "")
		got.problem(405, "method_not_allowed", "")
		if got.header.Get("Allow") != allow {
			t.Errorf("%s: Allow is %q, want %q", request, got.header.Get("Allow"), allow)
		}
	}
	if got := f.get("/v1//jobs"); got.status != http.StatusTemporaryRedirect || got.header.Get("Content-Security-Policy") == "" {
		t.Errorf("a redirect is %d %v", got.status, got.header)
	}
}
