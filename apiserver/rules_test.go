package main

import (
	"strings"
	"testing"
)

func TestARuleIsChangedReplacedAndDisabled(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	path := "/v1/rules/" + f.post("/v1/rules", aRule).is(201)["id"].(string)
	change := func(body string) answer { return f.call("PATCH", path, body, "Content-Type", "application/json") }

	if got := change(`{"enabled":false,"disabled_reason":"on holiday"}`).is(200); got["enabled"] != false || got["disabled_reason"] != "on holiday" || got["name"] != "r" {
		t.Errorf("got %v", got)
	}
	if got := change(`{"enabled":true,"priority":-5,"description":"d"}`).is(200); got["enabled"] != true || got["disabled_reason"] != nil || got["priority"] != -5.0 || got["description"] != "d" {
		t.Errorf("got %v", got)
	}
	if got := change(`{"scope":"domain","scope_ref":"example.com","action_type":"move","action_parameters":{"folder":"X"}}`).is(200); got["scope_ref"] != "example.com" || got["action_type"] != "move" {
		t.Errorf("got %v", got)
	}
	if got := change(`{"scope":"global","action_type":"star"}`).is(200); got["scope_ref"] != nil || len(got["action_parameters"].(map[string]any)) != 0 {
		t.Errorf("got %v", got)
	}
	change(`{"conditions":{"op":"or","children":[{"op":"subject_regex","value":"a("}]}}`).problem(400, "invalid", "conditions.children[0].value")
	change(`{"scope":"sender"}`).problem(400, "invalid", "scope_ref")
	change(`{"action_type":"move"}`).problem(400, "invalid", "action_parameters.folder")
	change(`{"frob":1}`).problem(400, "invalid", "frob")
	change(`{}`).is(200)

	replaced := f.call("PUT", path, strings.Replace(aRule, `"r"`, `"second"`, 1), "Content-Type", "application/json").is(200)
	if replaced["name"] != "second" || replaced["priority"] != 100.0 || replaced["description"] != nil || replaced["action_type"] != "archive" {
		t.Errorf("got %v", replaced)
	}
	f.call("PUT", "/v1/rules/"+unknownID, aRule, "Content-Type", "application/json").problem(404, "not_found", "")
	f.call("PATCH", "/v1/rules/"+unknownID, "{}", "Content-Type", "application/json").problem(404, "not_found", "")
}

func TestADryRunShowsWhatRulesWouldDo(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.message(f.account("me@example.com"), aMessage)
	f.message(f.account("you@example.com"), "0193f1a0-8c5e-7abc-8def-0123456789ad")

	stored := f.post("/v1/rules:dryrun", "{}").is(200)["messages"].([]any)
	if len(stored) != 2 || stored[0].(map[string]any)["action_type"] != "none" || len(stored[0].(map[string]any)["changes"].([]any)) != 0 {
		t.Errorf("got %v", stored)
	}
	rule := f.post("/v1/rules", aRule).is(201)
	one := f.post("/v1/rules:dryrun", `{"messages":["`+aMessage+`"]}`).is(200)["messages"].([]any)[0].(map[string]any)
	if one["rule_id"] != rule["id"] || one["action_type"] != "archive" || one["needs_approval"] != false || one["undoable"] != true {
		t.Errorf("got %v", one)
	}
	if c := one["changes"].([]any)[0].(map[string]any); c["what"] != "folder" || c["before"] != "INBOX" || c["after"] != "Archive" {
		t.Errorf("got %v", c)
	}
	other := f.post("/v1/rules:dryrun", `{"limit":1,"rules":[`+strings.Replace(aRule, "archive", "delete", 1)+`]}`).is(200)
	tried := other["messages"].([]any)[0].(map[string]any)
	if tried["rule_id"] != nil || tried["rule_name"] != "r" || tried["needs_approval"] != true || tried["undoable"] != false || other["next_cursor"] == nil {
		t.Errorf("got %v", other)
	}
	f.post("/v1/rules:dryrun", `{"rules":[`+strings.Replace(aRule, "archive", "explode", 1)+`]}`).problem(400, "invalid", "rules[0].action_type")
	f.post("/v1/rules:dryrun", `{"limit":0}`).problem(400, "invalid", "limit")
	f.post("/v1/rules:dryrun", `{"cursor":"x"}`).problem(400, "invalid", "cursor")
	if n := len(f.get("/v1/actions").is(200)["actions"].([]any)); n != 0 {
		t.Errorf("a dry run made %d actions", n)
	}
}

func TestRulesAreAppliedAsATask(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.post("/v1/rules:apply", `{"account":"\u0000"}`).problem(400, "invalid", "account")
	f.post("/v1/rules:dryrun", `{"account":"\u0000"}`).problem(400, "invalid", "account")
	f.post("/v1/rules:dryrun", `{"messages":["\u0000"]}`).problem(400, "invalid", "messages")
	f.post("/v1/rules:dryrun", `{"cursor":"\u0000"}`).problem(400, "invalid", "cursor")
	account := f.account("me@example.com")
	task := f.post("/v1/rules:apply", `{"account":"`+account+`"}`).is(202)
	if task["kind"] != "rules.apply" || task["state"] != "queued" || task["total"] != nil || task["account_id"] != account {
		t.Errorf("got %v", task)
	}
	if again := f.post("/v1/rules:apply", `{"account":"`+account+`"}`).is(200); again["id"] != task["id"] {
		t.Errorf("got %v", again)
	}
	all := f.post("/v1/rules:apply", `{}`).is(202)
	if got := f.get("/v1/tasks/" + all["id"].(string)).is(200); got["account_id"] != nil {
		t.Errorf("got %v", got)
	}
	if list := f.get("/v1/tasks?account=" + account).is(200)["tasks"].([]any); len(list) != 1 {
		t.Errorf("got %v", list)
	}
	f.post("/v1/jobs/"+task["id"].(string)+"/cancel", "").is(200)
	if got := f.get("/v1/tasks/" + task["id"].(string)).is(200); got["state"] != "canceled" {
		t.Errorf("got %v", got)
	}
	f.post("/v1/rules:apply", `{"account":"`+unknownID+`"}`).problem(404, "not_found", "")
	f.get("/v1/tasks/"+unknownID).problem(404, "not_found", "")
}

func TestMessagesAreSearched(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	account := f.account("me@example.com")
	f.message(account, aMessage)
	f.exec("INSERT INTO message_docs(message_id, created_at, updated_at) VALUES (?, 0, 0)", aMessage)
	f.exec("INSERT INTO message_search(rowid, sender, subject, body) SELECT doc, 'ann', 'hello', 'the text' FROM message_docs")
	f.exec("UPDATE messages SET received_at = 1767323045000, labels_json = '[\"a\"]'")
	for query, want := range map[string]int{
		"q=hello": 1, "q=text+ann": 1, "q=nothing": 0, "from=ann": 1, "subject=ann": 0, "text=text": 1, "label=a": 1, "label=b": 0,
		"after=2026-01-02T03:04:05Z": 1, "after=2026-01-02T03:04:06Z": 0, "before=2026-01-02T03:04:05Z": 0, "before=2027-01-01T00:00:00%2B02:00": 1,
		"account=" + account + "&q=hello&label=a": 1, "thread=" + aMessage: 1, "thread=x": 0,
	} {
		if got := f.get("/v1/messages?" + query).is(200)["messages"].([]any); len(got) != want {
			t.Errorf("%s: %d messages, want %d", query, len(got), want)
		}
	}
	f.get("/v1/messages?q=%22%22").problem(400, "invalid", "q")
	f.get("/v1/messages?after=yesterday").problem(400, "invalid", "after")
	if got := f.get("/v1/threads?account=" + account).is(200)["threads"].([]any)[0].(map[string]any); got["message_count"] != 1.0 {
		t.Errorf("got %v", got)
	}
	f.get("/v1/threads/" + aMessage).is(200)
	f.get("/v1/threads/"+unknownID).problem(404, "not_found", "")
	f.get("/v1/threads?account="+unknownID).problem(404, "not_found", "")
	f.get("/v1/threads").problem(400, "invalid", "account")
	if got := f.get("/v1/messages/" + aMessage).is(200); got["automatic"] != nil {
		t.Errorf("got %v", got)
	}
}
