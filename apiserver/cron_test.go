package main

import (
	"maps"
	"slices"
	"strings"
	"testing"
)

// schedule stores a schedule.
func (f *fixture) schedule(name, body string) answer {
	f.t.Helper()
	return f.call("PUT", "/v1/cron/"+name, body, "Content-Type", "application/json")
}

func TestAScheduleHasExactlyTheFieldsOfTheContract(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	if got := strings.TrimSpace(f.get("/v1/cron").raw); got != `{"cron":[],"next_cursor":null}` {
		t.Errorf("no schedules are %s", got)
	}
	cron := f.schedule("report", `{"schedule":"@every 90m","type":"x"}`).is(201)
	want := []string{
		"name", "schedule", "tz", "catch_up", "overlap", "paused", "type", "queue", "priority", "payload", "next_at", "last_tick",
		"last_job_id", "created_at", "updated_at",
	}
	slices.Sort(want)
	if got := slices.Sorted(maps.Keys(cron)); !slices.Equal(got, want) {
		t.Errorf("fields are %v, want %v", got, want)
	}
	for field, want := range map[string]any{
		"name": "report", "schedule": "@every 90m", "tz": "UTC", "catch_up": "one", "overlap": "allow", "paused": false, "type": "x",
		"queue": nil, "priority": 0.0, "payload": nil, "last_tick": nil, "last_job_id": nil,
	} {
		if cron[field] != want {
			t.Errorf("%s is %v, want %v", field, cron[field], want)
		}
	}
	if next, _ := cron["next_at"].(string); !stamp.MatchString(next) {
		t.Errorf("next_at is %v", cron["next_at"])
	}
}

func TestAScheduleIsStoredReplacedAndDeleted(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	first := f.schedule("a", `{"schedule":"30 2 * * *","tz":"Europe/Berlin","catch_up":"none","overlap":"skip","type":"x","queue":"q","priority":-7,"payload":[1]}`).is(201)
	again := f.schedule("a", `{"schedule":"30 2 * * *","tz":"Europe/Berlin","type":"y"}`).is(200)
	if again["type"] != "y" || again["catch_up"] != "one" || again["queue"] != nil || again["payload"] != nil || again["next_at"] != first["next_at"] || again["created_at"] != first["created_at"] {
		t.Errorf("replaced %v by %v", first, again)
	}
	if got := f.get("/v1/cron/a").is(200); got["type"] != "y" || got["updated_at"] != again["updated_at"] {
		t.Errorf("got %v", got)
	}
	for _, name := range []string{"c", "b"} {
		f.schedule(name, `{"schedule":"@daily","type":"x"}`).is(201)
	}
	var names []string
	next := ""
	for range 2 {
		page := f.get("/v1/cron?limit=2&cursor=" + next).is(200)
		for _, c := range page["cron"].([]any) {
			names = append(names, c.(map[string]any)["name"].(string))
		}
		next, _ = page["next_cursor"].(string)
	}
	if !slices.Equal(names, []string{"a", "b", "c"}) || next != "" {
		t.Errorf("the pages hold %v and end with %q", names, next)
	}
	f.call("DELETE", "/v1/cron/a", "").is(204)
	f.get("/v1/cron/a").problem(404, "not_found", "")
	for _, call := range []string{"DELETE /v1/cron/a", "POST /v1/cron/a/pause", "POST /v1/cron/a/resume", "POST /v1/cron/a/trigger"} {
		method, path, _ := strings.Cut(call, " ")
		f.call(method, path, "").problem(404, "not_found", "")
	}
}

func TestAScheduleIsPausedResumedAndTriggered(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	before := f.schedule("a", `{"schedule":"@yearly","type":"x","payload":{"n":1},"priority":3,"overlap":"skip"}`).is(201)
	for range 2 {
		if got := f.call("POST", "/v1/cron/a/pause", "").is(200); got["paused"] != true || got["next_at"] != nil {
			t.Errorf("paused: %v", got)
		}
	}
	job := f.call("POST", "/v1/cron/a/trigger", "").is(201)
	if _, has := job["duplicate"]; has || job["type"] != "x" || job["priority"] != 3.0 || job["state"] != "queued" || job["idempotency_key"] != nil || job["payload"].(map[string]any)["n"] != 1.0 {
		t.Errorf("triggered: %v", job)
	}
	if again := f.call("POST", "/v1/cron/a/trigger", "").is(200); again["id"] != job["id"] || again["duplicate"] != true {
		t.Errorf("triggered while its job has not ended: %v", again)
	}
	if got := f.call("POST", "/v1/cron/a/resume", "").is(200); got["paused"] != false || got["next_at"] != before["next_at"] || got["last_job_id"] != job["id"] || got["last_tick"] != nil {
		t.Errorf("resumed: %v", got)
	}
}

func TestABadScheduleIsRefusedWithItsField(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	for body, field := range map[string]string{
		`{"type":"x"}`:                                                       "schedule",
		`{"type":"x","schedule":"61 * * * *"}`:                               "schedule",
		`{"type":"x","schedule":"0 0 30 2 *"}`:                               "schedule",
		`{"type":"x","schedule":"CRON_TZ=UTC 0 0 * * *"}`:                    "schedule",
		`{"type":"x","schedule":7}`:                                          "schedule",
		`{"type":"x","schedule":"@daily","tz":"Europe/Nowhere"}`:             "tz",
		`{"type":"x","schedule":"@daily","tz":"Local"}`:                      "tz",
		`{"type":"x","schedule":"@daily","catch_up":"some"}`:                 "catch_up",
		`{"type":"x","schedule":"@daily","overlap":"wait"}`:                  "overlap",
		`{"type":"x","schedule":"@daily","catch_up":"all","overlap":"skip"}`: "overlap",
		`{"schedule":"@daily"}`:                                              "type",
		`{"type":"x","schedule":"@daily","queue":"a\nb"}`:                    "queue",
		`{"type":"x","schedule":"@daily","priority":101}`:                    "priority",
		`{"type":"x","schedule":"@daily","name":"b"}`:                        "name",
		`{"type":"x","schedule":"@daily","paused":true}`:                     "paused",
	} {
		f.schedule("a", body).problem(400, "invalid", field)
	}
	const good = `{"type":"x","schedule":"@daily"}`
	f.schedule("a%3Ab", good).problem(400, "invalid", "name")
	f.schedule(strings.Repeat("a", 101), good).problem(400, "invalid", "name")
	f.schedule("a", "{").problem(400, "malformed_json", "body")
	f.schedule("a", `{"type":"x","schedule":"@daily","payload":"`+strings.Repeat("x", 1<<20)+`"}`).problem(413, "too_large", "payload")
	f.call("PUT", "/v1/cron/a", good, "Content-Type", "text/plain").problem(415, "unsupported_media_type", "")
	f.get("/v1/cron?limit=0").problem(400, "invalid", "limit")
	if page := f.get("/v1/cron").is(200); len(page["cron"].([]any)) != 0 {
		t.Errorf("what was refused was stored: %v", page)
	}
	body := f.get("/openapi.json").is(200)["paths"].(map[string]any)["/v1/cron/{name}"].(map[string]any)["put"].(map[string]any)["requestBody"]
	if body == nil || body.(map[string]any)["content"].(map[string]any)["application/json"] == nil {
		t.Errorf("the body of PUT /v1/cron/{name} is described as %v", body)
	}
}
