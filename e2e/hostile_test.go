package e2e

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"

	"github.com/postroom/postroom/core/libsql"
)

// hostile is what a page must show as it stands: markup and links that would
// run a script, the syntax of templates, and a mark that turns the direction
// of writing.
const hostile = "<script>window.hurt=1</script><img src=x onerror=window.hurt=1><a href=\"javascript:window.hurt=1\">'\"&lt;${window.hurt=1}\u202e</td>"

// Whatever others can make a page show, it shows as text.
func TestHostileTextIsShownAsText(t *testing.T) {
	t.Parallel()
	s := newSystem(t, "QUEUE_DEBUG_JOBS=true")
	s.runner()
	api := s.server()
	p := openPage(t, api.url)
	ask := func(method, path string, body map[string]any) (v struct{ ID string }) {
		t.Helper()
		text, err := json.Marshal(body)
		if err != nil {
			t.Fatal(err)
		}
		r := api.do(method, path, "application/json", strings.NewReader(string(text)))
		if r.status >= http.StatusMultipleChoices {
			t.Fatalf("%s %s: %d %s", method, path, r.status, r.body)
		}
		r.into(t, &v)
		return v
	}
	name := url.PathEscape(hostile)

	waits := ask("POST", "/v1/jobs", map[string]any{"type": hostile, "queue": hostile, "payload": map[string]string{hostile: hostile}, "idempotency_key": hostile, "limit_key": hostile}).ID
	failed := ask("POST", "/v1/jobs", map[string]any{"type": "debug.panic", "max_attempts": 1}).ID
	done := ask("POST", "/v1/jobs", map[string]any{"type": "debug.steps", "payload": map[string]int{"n": 1}}).ID
	echo := ask("POST", "/v1/jobs", map[string]any{"type": "debug.echo", "payload": hostile}).ID
	ask("PUT", "/v1/cron/nightly", map[string]any{"schedule": "@daily", "type": hostile})
	ask("PUT", "/v1/limits/queue/"+name, map[string]any{"max_running": 1})
	rule := ask("POST", "/v1/rules", map[string]any{
		"name": hostile, "description": hostile, "scope": "global", "priority": 1, "action_type": "apply_label", "action_parameters": map[string]string{"label": hostile},
		"conditions": map[string]string{"op": "subject_contains", "value": "hurt"},
	}).ID
	ask("POST", "/v1/rules", map[string]any{
		"name": "off " + hostile, "scope": "global", "priority": 2, "enabled": false, "disabled_reason": hostile, "action_type": "archive",
		"conditions": map[string]string{"op": "subject_contains", "value": hostile},
	})
	word := "=?utf-8?B?" + base64.StdEncoding.EncodeToString([]byte(hostile)) + "?="
	raw := "From: " + word + " <x@shop.example>\r\nTo: " + word + " <me@example.org>\r\nSubject: " + word + "\r\nMIME-Version: 1.0\r\n" +
		"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n" + hostile +
		"\r\n--b\r\nContent-Type: application/pdf\r\nContent-Disposition: attachment; filename=\"" + word + "\"\r\n\r\nx\r\n--b--\r\n"
	if r := api.do("POST", "/v1/messages?account="+api.account(), "message/rfc822", strings.NewReader(raw)); r.status != http.StatusAccepted {
		t.Fatalf("deliver: %d %s", r.status, r.body)
	}
	for _, id := range []string{failed, done, echo} {
		api.job(id)
	}
	var mail struct {
		Messages []struct {
			ID       string
			Decision *struct {
				Status string `json:"action_status"`
			}
		}
	}
	s.until("the rule has labeled the message", func() bool {
		api.get("/v1/messages").into(t, &mail)
		return len(mail.Messages) == 1 && mail.Messages[0].Decision != nil && mail.Messages[0].Decision.Status == "completed"
	})
	// What handlers, runners and actions say, as if they had said this.
	var said libsql.Batch
	said.Exec("UPDATE jobs SET last_error = CAST(? AS BLOB) WHERE id = ?", hostile, failed)
	said.Exec("UPDATE job_run_rows SET error = CAST(? AS BLOB), stack = CAST(? AS BLOB), runner = ? WHERE job_id = ?", hostile, hostile, hostile, failed)
	said.Exec("UPDATE job_steps SET name = ?, outcome = 'uncertain', error = CAST(? AS BLOB), result_json = json_array(?) WHERE job_id = ?", hostile, hostile, hostile, done)
	said.Exec("UPDATE runners SET version = ?", hostile)
	said.Exec("UPDATE actions SET error_message = CAST(? AS BLOB)", hostile)
	if _, err := s.open().Write(t.Context(), &said); err != nil {
		t.Fatal(err)
	}

	// shown says where each page shows it.
	shown := func(hash, heading string, selectors ...string) {
		t.Helper()
		p.goTo(hash, heading)
		for _, selector := range selectors {
			p.see(selector, hostile)
		}
		if n := run(p, "look for what became of it", chromedp.Evaluate[int](`document.querySelectorAll("script:not([src]), img[src=x], a[href^=javascript], td td").length`)); n > 0 {
			t.Errorf("%s: %d elements were made of text", hash, n)
		}
		if run(p, "look for scripts that ran", chromedp.Evaluate[bool]("window.hurt !== undefined")) {
			t.Fatalf("%s: text ran as a script", hash)
		}
	}
	job := func(id string) string { return "#/jobs/" + id }
	shown("", "Overview", "td")
	shown("#/jobs", "Jobs", "td:nth-child(2)", "td:nth-child(3)", "td")
	shown(job(waits), hostile, "h1", "dd", "li")
	quoted := fmt.Sprintf(`[...document.querySelectorAll("pre")].some((e) => e.innerText.includes(JSON.stringify(%q)))`, hostile)
	p.until("the payload", quoted)
	shown(job(failed), "debug.panic", "dd", "td:nth-child(2)", "td:nth-child(6)")
	p.until("open the stack", `(() => { const d = document.querySelector("details"); if (d) d.open = true; return d !== null; })()`)
	p.see("pre", hostile)
	shown(job(done), "debug.steps", "td:nth-child(1)", "td:nth-child(6)", ".timeline span")
	shown(job(echo), "debug.echo")
	p.until("the result", quoted)
	shown("#/queues", "Queues", "td:nth-child(1)", "td:nth-child(2)")
	p.press("Pause " + hostile[:20])
	p.see(".says", hostile)
	shown("#/schedules", "Schedules", "td:nth-child(3)")
	shown("#/mail", "Mail", "td:nth-child(1)", "td:nth-child(2)", "td:nth-child(5)")
	shown("#/mail/"+mail.Messages[0].ID, hostile, "h1", "dd", "pre", "td:nth-child(2)", "td:nth-child(3)")
	shown("#/rules", "Rules", "td:nth-child(2)", "td:nth-child(5)")
	shown("#/rules/"+rule, hostile)
	p.until("the rule in the editor", `document.querySelector("textarea").value.includes("<script>")`)
	p.press("Try on stored mail")
	p.see("[role=status] td", hostile)
	shown("#/jobs?type="+url.QueryEscape(hostile), "Jobs", "td")
	shown("#/"+url.PathEscape(hostile), "There is no such page")
	p.calm()
}
