package main

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"net/http"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/postroom/postroom/core/libsql"
)

// sample is one call of an operation; its body is JSON where media does not
// say otherwise.
type sample struct{ path, body, media, accept string }

func (r sample) send(f *fixture, method string, headers ...string) answer {
	f.t.Helper()
	if media := cmp.Or(r.media, inJSON); r.body != "" {
		headers = append(headers, "Content-Type", media)
	}
	if r.accept != "" {
		headers = append(headers, "Accept", r.accept)
	}
	return f.call(method, r.path, r.body, headers...)
}

const inJSON, inMail = "application/json", "message/rfc822"

func at(path string) func(*fixture) sample {
	return func(*fixture) sample { return sample{path: path} }
}

func with(path, body string) func(*fixture) sample {
	return func(*fixture) sample { return sample{path: path, body: body} }
}

const anySchedule = `{"schedule":"@yearly","type":"x","overlap":"skip"}`

// scheduled returns a call of the schedule "a".
func scheduled(rest string) func(*fixture) sample {
	return func(f *fixture) sample {
		f.schedule("a", anySchedule).is(201)
		return sample{path: "/v1/cron/a" + rest}
	}
}

// onJob returns a call of a new job.
func onJob(rest string) func(*fixture) sample {
	return func(f *fixture) sample { return sample{path: "/v1/jobs/" + f.enqueue("x", "q") + rest} }
}

// canceled is a job that has ended.
func (f *fixture) canceled() string {
	f.t.Helper()
	id := f.enqueue("x", "q")
	f.call("POST", "/v1/jobs/"+id+"/cancel", "").is(200)
	return id
}

// acted returns a call of a new action of a type, in a status.
func acted(kind, status, rest string) func(*fixture) sample {
	return func(f *fixture) sample {
		f.message(f.account("me@example.com"), aMessage)
		id := f.post("/v1/messages/"+aMessage+"/actions", `{"action_type":"`+kind+`"}`).is(202)["id"].(string)
		if status == "completed" {
			f.exec("UPDATE actions SET status = 'executing' WHERE id = ?", id)
			f.exec("UPDATE actions SET status = 'completed' WHERE id = ?", id)
		}
		return sample{path: "/v1/actions/" + id + rest}
	}
}

// onAccount returns a call of a new account.
func onAccount(rest, body string) func(*fixture) sample {
	return func(f *fixture) sample {
		return sample{path: "/v1/accounts/" + f.account("me@example.com") + rest, body: body}
	}
}

// onRule returns a call of a new rule.
func onRule(body string) func(*fixture) sample {
	return func(f *fixture) sample {
		return sample{path: "/v1/rules/" + f.post("/v1/rules", aRule).is(201)["id"].(string), body: body}
	}
}

// withMail returns a call where there is a message.
func withMail(path string) func(*fixture) sample {
	return func(f *fixture) sample {
		account := f.account("me@example.com")
		f.message(account, aMessage)
		return sample{path: strings.NewReplacer("ACCOUNT", account, "MESSAGE", aMessage).Replace(path)}
	}
}

// then returns a call of another path once the first call was answered.
func then(path, method string, first func(*fixture) sample) func(*fixture) sample {
	return func(f *fixture) sample {
		again(method, first)(f)
		return sample{path: path}
	}
}

// listed returns a call of a list that has what the other call is about.
func listed(path string, of func(*fixture) sample) func(*fixture) sample {
	return func(f *fixture) sample {
		of(f)
		return sample{path: path}
	}
}

// again returns the same call after it was answered once.
func again(method string, first func(*fixture) sample) func(*fixture) sample {
	return func(f *fixture) sample {
		r := first(f)
		if got := r.send(f, method); got.status >= http.StatusBadRequest {
			f.t.Fatalf("the first call: %d %s", got.status, got.raw)
		}
		return r
	}
}

func delivered(f *fixture) sample {
	return sample{path: "/v1/messages?account=" + f.account("me@example.com"), body: "Subject: hello\r\n\r\nhello\r\n", media: inMail}
}

var aLimit = with("/v1/limits/key/k", `{"max_running":1,"interval":"1s"}`)

const aJob, anAccount = `{"type":"x","idempotency_key":"k"}`, `{"provider":"maildir","email":"me@example.com","config":{"path":"/var/mail/me"}}`

// successes has for each status of success that the description promises a
// request which is answered with it.
var successes = map[string]func(*fixture) sample{
	"GET / 200": at("/"), "GET / 303": func(*fixture) sample { return sample{path: "/", accept: "text/html"} }, "GET /healthz 200": at("/healthz"), "GET /livez 200": at("/livez"), "GET /readyz 200": at("/readyz"),
	"GET /metrics 200": at("/metrics"), "GET /openapi.json 200": at("/openapi.json"), "GET /v1/config 200": at("/v1/config"), "GET /v1/me 200": at("/v1/me"),
	"POST /login 303": func(*fixture) sample { return sample{path: loginPath, body: "token=x", media: inForm} }, "POST /logout 303": at(logoutPath),

	"POST /v1/jobs 201": with("/v1/jobs", aJob), "POST /v1/jobs 200": again("POST", with("/v1/jobs", aJob)),
	"POST /v1/jobs:batch 201":   with("/v1/jobs:batch", `{"jobs":[{"type":"x"},{"type":"y","idempotency_key":"k"}]}`),
	"GET /v1/jobs 200":          func(f *fixture) sample { f.enqueue("x", "q"); return sample{path: "/v1/jobs?state=queued&limit=1"} },
	"GET /v1/jobs/{id} 200":     func(f *fixture) sample { return sample{path: "/v1/jobs/" + f.uncertain("send", true)} },
	"GET /v1/jobs/{id}/why 200": onJob("/why"), "POST /v1/jobs/{id}/cancel 200": onJob("/cancel"), "POST /v1/jobs/{id}/run-now 200": onJob("/run-now"),
	"POST /v1/jobs/{id}/retry 200": func(f *fixture) sample { return sample{path: "/v1/jobs/" + f.canceled() + "/retry"} },
	"DELETE /v1/jobs/{id} 204":     func(f *fixture) sample { return sample{path: "/v1/jobs/" + f.canceled()} },
	"POST /v1/jobs:cancel 200":     func(f *fixture) sample { f.enqueue("x", "q"); return sample{path: "/v1/jobs:cancel?type=x"} },
	"POST /v1/jobs:retry 200":      func(f *fixture) sample { f.canceled(); return sample{path: "/v1/jobs:retry?type=x"} },
	"POST /v1/jobs:delete 200":     func(f *fixture) sample { f.canceled(); return sample{path: "/v1/jobs:delete?type=x"} },
	"POST /v1/jobs/{id}/steps/{name}/settle 200": func(f *fixture) sample {
		return sample{path: "/v1/jobs/" + f.uncertain("send", true) + "/steps/send/settle", body: `{"happened":true}`}
	},

	"GET /v1/queues 200": func(f *fixture) sample { f.enqueue("x", "q"); return sample{path: "/v1/queues"} },
	"GET /v1/runners 200": func(f *fixture) sample {
		f.exec("INSERT INTO runners(id, host, pid, version, queues_json, types_json, concurrency, started_at, heartbeat_at, created_at, updated_at) SELECT 'r', 'h', 1, 'v', '[\"q\"]', '[\"x\"]', 4, ms, ms, ms, ms FROM db_clock")
		return sample{path: "/v1/runners"}
	},
	"POST /v1/queues/{name}/pause 200":  func(f *fixture) sample { f.enqueue("x", "q"); return sample{path: "/v1/queues/q/pause"} },
	"POST /v1/queues/{name}/resume 200": func(f *fixture) sample { f.enqueue("x", "q"); return sample{path: "/v1/queues/q/resume"} },

	"PUT /v1/limits/{scope}/{name} 200":    aLimit,
	"GET /v1/limits 200":                   then("/v1/limits", "PUT", aLimit),
	"GET /v1/limits/{scope}/{name} 200":    then("/v1/limits/key/k", "PUT", aLimit),
	"DELETE /v1/limits/{scope}/{name} 204": then("/v1/limits/key/k", "PUT", aLimit),

	"GET /v1/cron 200": listed("/v1/cron", scheduled("")), "GET /v1/cron/{name} 200": scheduled(""), "DELETE /v1/cron/{name} 204": scheduled(""),
	"PUT /v1/cron/{name} 201": with("/v1/cron/a", anySchedule), "PUT /v1/cron/{name} 200": again("PUT", with("/v1/cron/a", anySchedule)),
	"POST /v1/cron/{name}/pause 200": scheduled("/pause"), "POST /v1/cron/{name}/resume 200": scheduled("/resume"),
	"POST /v1/cron/{name}/trigger 201": scheduled("/trigger"), "POST /v1/cron/{name}/trigger 200": again("POST", scheduled("/trigger")),

	"POST /v1/accounts 201": with("/v1/accounts", anAccount), "GET /v1/accounts 200": listed("/v1/accounts", onAccount("", "")), "GET /v1/accounts/{id} 200": onAccount("", ""),
	"PATCH /v1/accounts/{id} 200": onAccount("", `{"display_name":"Me","paused":true}`), "DELETE /v1/accounts/{id} 202": onAccount("", ""),
	"POST /v1/accounts/{id}/resync 202": onAccount("/resync", ""), "POST /v1/accounts/{id}/import 202": onAccount("/import", `{"path":"/var/mail/old"}`),
	"POST /v1/accounts/{id}/import 200": again("POST", onAccount("/import", `{"path":"/var/mail/old"}`)),

	"POST /v1/messages 202": delivered, "POST /v1/messages 200": again("POST", delivered),
	"GET /v1/messages 200": withMail("/v1/messages?account=ACCOUNT"), "GET /v1/messages/{id} 200": withMail("/v1/messages/MESSAGE"),
	"GET /v1/threads 200": withMail("/v1/threads?account=ACCOUNT"), "GET /v1/threads/{id} 200": withMail("/v1/threads/MESSAGE"),

	"POST /v1/messages/{id}/actions 202": func(f *fixture) sample {
		f.message(f.account("me@example.com"), aMessage)
		return sample{path: "/v1/messages/" + aMessage + "/actions", body: `{"action_type":"move","parameters":{"folder":"X"}}`}
	},
	"GET /v1/actions 200": listed("/v1/actions", acted("star", "", "")), "GET /v1/actions/{id} 200": acted("star", "", ""), "POST /v1/actions/{id}/cancel 200": acted("star", "", "/cancel"),
	"POST /v1/actions/{id}/approve 200": acted("delete", "", "/approve"), "POST /v1/actions/{id}/reject 200": acted("delete", "", "/reject"),
	"POST /v1/actions/{id}/undo 202": acted("archive", "completed", "/undo"), "POST /v1/actions/{id}/undo 200": again("POST", acted("archive", "completed", "/undo")),

	"POST /v1/rules 201": with("/v1/rules", aRule), "GET /v1/rules 200": listed("/v1/rules", onRule("")), "GET /v1/rules/{id} 200": onRule(""), "DELETE /v1/rules/{id} 204": onRule(""),
	"PUT /v1/rules/{id} 200": onRule(aRule), "PATCH /v1/rules/{id} 200": onRule(`{"enabled":false,"disabled_reason":"holiday"}`),
	"POST /v1/rules:dryrun 200": func(f *fixture) sample {
		f.message(f.account("me@example.com"), aMessage)
		f.post("/v1/rules", aRule).is(201)
		return sample{path: "/v1/rules:dryrun", body: `{}`}
	},
	"POST /v1/rules:apply 202": with("/v1/rules:apply", `{}`), "POST /v1/rules:apply 200": again("POST", with("/v1/rules:apply", `{}`)),
	"GET /v1/tasks 200": then("/v1/tasks", "POST", with("/v1/rules:apply", `{}`)),
	"GET /v1/tasks/{id} 200": func(f *fixture) sample {
		return sample{path: "/v1/tasks/" + f.post("/v1/rules:apply", `{}`).is(202)["id"].(string)}
	},
}

// Each operation of the description is driven to each status of success that
// it promises, on a real database, and what comes is as it is described. Where
// the database is away then, it says so.
func TestEveryOperationSucceeds(t *testing.T) {
	t.Parallel()
	c, err := theContract()
	if err != nil {
		t.Fatal(err)
	}
	left := maps.Clone(successes)
	for _, o := range c.list {
		promised := 0
		for status := range o.answers {
			if status >= "400" { // and "default"
				continue
			}
			promised++
			name := o.method + " " + o.path + " " + status
			make, has := left[name]
			delete(left, name)
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				if name == "GET "+eventsPath+" 200" {
					streamSucceeds(t, o)
					return
				}
				if !has {
					t.Fatal("no request is known that is answered so: add one to successes")
				}
				f := newFixture(t)
				r := make(f)
				got := r.send(f, o.method)
				if fmt.Sprint(got.status) != status {
					t.Fatalf("%s: %d %s", r.path, got.status, got.raw)
				}
				if is := c.operationOf(t, o.method, f.url+r.path); is.path != o.path {
					t.Errorf("%s is of %s", r.path, is.path)
				}
				if strings.Contains(got.raw, `":[],"next_cursor"`) {
					t.Errorf("an empty list shows nothing: %s", got.raw)
				}
				if strings.HasPrefix(o.path, "/v1/") && o.path != "/v1/config" && o.path != "/v1/me" {
					f.db.fail(libsql.Unavailable)
					r.send(f, o.method).problem(503, "database_unavailable", "")
				}
			})
		}
		if promised == 0 {
			t.Errorf("%s %s promises no success", o.method, o.path)
		}
	}
	for name := range left {
		t.Errorf("%s is not in the description", name)
	}
}

// operationOf is the operation that serves an address.
func (c *contract) operationOf(t *testing.T, method, address string) operation {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, address, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	_, pattern := c.mux.Handler(r)
	return c.operations[pattern]
}

// streamSucceeds holds what a stream says against its description.
func streamSucceeds(t *testing.T, o operation) {
	t.Helper()
	f := newFixture(t)
	l := f.follow("")
	l.begin()
	f.enqueue("x", "q")
	reset := f.follow("?last_event_id=x")
	schema := o.answers["200"][l.header.Get("Content-Type")]
	if schema == nil {
		t.Fatalf("%s is not described", l.header.Get("Content-Type"))
	}
	for want, b := range map[string]block{"job": l.event(), "reset": reset.event()} {
		data, err := jsonschema.UnmarshalJSON(strings.NewReader(b.data))
		if err == nil {
			err = schema.Validate(data)
		}
		if err != nil || b.event != want {
			t.Errorf("%s: %+v: %v", want, b, err)
		}
	}
}

// rows is all that is stored but the answers to requests with a key.
func (f *fixture) rows() string {
	f.t.Helper()
	read := func(sql string) []libsql.Row {
		res, err := f.queue.DB().Read(f.t.Context(), libsql.Query(sql))
		if err != nil {
			f.t.Fatal(err)
		}
		return res[0].Rows
	}
	var all bytes.Buffer
	for _, table := range read(`SELECT CAST(m.name AS BLOB), CAST(group_concat('quote("' || c.name || '")', ' || '','' || ') AS BLOB) FROM sqlite_master m, pragma_table_info(m.name) c
		WHERE m.type = 'table' AND m.name NOT LIKE 'message_search%' AND m.name <> 'request_keys' GROUP BY m.name`) {
		fmt.Fprintf(&all, "%s %s\n", table.Str(0), read("SELECT CAST("+table.Str(1)+" AS BLOB) FROM "+table.Str(0)))
	}
	return all.String()
}
