package main

import (
	"fmt"
	"strings"
	"testing"
)

func TestManyJobsAreChangedByFilter(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	var ids []string
	for i := range 4 {
		ids = append(ids, f.post("/v1/jobs", fmt.Sprintf(`{"type":"t%d","queue":"q","payload":{"user":{"id":%d}}}`, i%2, i)).is(201)["id"].(string))
	}
	ask := func(path string) string {
		t.Helper()
		got := f.call("POST", path, "")
		got.is(200)
		return strings.TrimSpace(got.raw)
	}
	const none = `"skipped":{"key_in_use":0,"invalid_state":0},"next_cursor":null}`
	for _, c := range []struct{ path, want string }{
		{"/v1/jobs:cancel?queue=q&type=t0&dry_run=true", `{"dry_run":true,"matched":2,"changed":0,` + none},
		{"/v1/jobs:cancel?queue=q&type=t0", `{"dry_run":false,"matched":2,"changed":2,` + none},
		{"/v1/jobs:cancel?queue=q&type=t0", `{"dry_run":false,"matched":0,"changed":0,` + none},
		{"/v1/jobs:retry?payload=user.id=2", `{"dry_run":false,"matched":1,"changed":1,` + none},
		{"/v1/jobs:delete?state=canceled&created_from=2020-01-01T00:00:00Z", `{"dry_run":false,"matched":1,"changed":1,` + none},
		{"/v1/jobs:cancel?id=" + ids[1] + "&id=" + ids[2] + "&id=none", `{"dry_run":false,"matched":2,"changed":2,` + none},
		{"/v1/jobs:delete?created_before=2020-01-01T00:00:00Z", `{"dry_run":false,"matched":0,"changed":0,` + none},
	} {
		if got := ask(c.path); got != c.want {
			t.Errorf("%s: %s, want %s", c.path, got, c.want)
		}
	}
	f.get("/v1/jobs/"+ids[0]).problem(404, "not_found", "")
	for path, field := range map[string]string{
		"/v1/jobs:cancel": "query", "/v1/jobs:retry?dry_run=true": "query", "/v1/jobs:retry?state=queued": "state", "/v1/jobs:delete?state=running": "state",
		"/v1/jobs:cancel?queue=q&limit=5": "limit", "/v1/jobs:cancel?stat=failed": "stat", "/v1/jobs:cancel?queue=q&cursor=x": "cursor", "/v1/jobs:cancel?payload=user": "payload",
		"/v1/jobs:cancel?created_from=yesterday": "created_from", "/v1/jobs:cancel?queue=q&dry_run=maybe": "dry_run",
	} {
		f.call("POST", path, "").problem(400, "invalid", field)
	}
	if list := f.get("/v1/jobs?id=" + ids[3] + "&id=" + ids[1]).is(200)["jobs"].([]any); len(list) != 2 || list[0].(map[string]any)["id"] != ids[3] {
		t.Errorf("by id: %v", list)
	}
	lines := f.changes()
	if n := len(lines); n != 4+6 { // of the seven calls one was a dry run
		t.Errorf("%d changes are in the log", n)
	}
	if last := lines[len(lines)-2]; last["operation"] != "cancel-jobs" || last["changed"] != 2.0 || last["ids"] != 3.0 {
		t.Errorf("the log says %v", last)
	}
}

func TestOneJobIsDeletedOrRunNow(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	id := f.post("/v1/jobs", `{"type":"x","delay":"1h"}`).is(201)["id"].(string)
	path := "/v1/jobs/" + id
	f.call("DELETE", path, "").problem(409, "invalid_state", "")
	for range 2 {
		if got := f.call("POST", path+"/run-now", "").is(200); got["state"] != "queued" {
			t.Errorf("got %v", got)
		}
	}
	for _, r := range f.get(path + "/why").is(200)["reasons"].([]any) {
		if r.(map[string]any)["code"] == "not_due" {
			t.Errorf("it still waits for its time: %v", r)
		}
	}
	f.call("POST", path+"/cancel", "").is(200)
	f.call("POST", path+"/run-now", "").problem(409, "invalid_state", "")
	f.call("DELETE", path, "").is(204)
	f.call("DELETE", path, "").problem(404, "not_found", "")
	f.call("POST", path+"/run-now", "").problem(404, "not_found", "")
}
