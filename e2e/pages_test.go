package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// screens is where pictures of the pages are kept, for people to look at.
const screens = "../.cache/screens"

// page is a browser's tab as somebody uses it.
type page struct {
	testing.TB
	ctx context.Context
	url string

	mu       sync.Mutex
	problems []string // what the browser's console complained of
}

func openPage(tb testing.TB, url string) *page {
	tb.Helper()
	browser := ""
	for _, name := range []string{"chromium", "google-chrome", "chromium-browser"} {
		if path, err := exec.LookPath(name); err == nil {
			browser = path
			break
		}
	}
	if browser == "" {
		tb.Skip("there is no Chromium (apt-get install chromium)")
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(browser), chromedp.NoSandbox, chromedp.WindowSize(1280, 900))
	allocator, stop := chromedp.NewExecAllocator(context.Background(), options...)
	tb.Cleanup(stop)
	ctx, leave := chromedp.NewContext(allocator)
	tb.Cleanup(leave)
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	tb.Cleanup(cancel)
	p := &page{TB: tb, ctx: ctx, url: url}
	messages := chromedp.Console(ctx)
	var listening sync.WaitGroup
	listening.Go(func() {
		for m, err := range messages {
			if err != nil {
				return // the tab is closed
			}
			p.mu.Lock()
			if m.Type == chromedp.ConsoleError || m.IsException() { // a refusal of the content security policy among them
				p.problems = append(p.problems, m.String())
			}
			p.mu.Unlock()
		}
	})
	tb.Cleanup(func() { cancel(); listening.Wait() })
	return p
}

// run performs an action in the tab.
func run[T any](p *page, what string, action chromedp.Action[T]) T {
	p.Helper()
	value, err := chromedp.Run(p.ctx, action)
	if err != nil {
		p.fail(what, err)
	}
	return value
}

// fail ends the test and shows what stands on the page.
func (p *page) fail(what string, err error) {
	p.Helper()
	text, _ := chromedp.Run(p.ctx, chromedp.Evaluate[string]("document.body.innerText"))
	p.Fatalf("%s: %v\n%s", what, err, text)
}

// until waits for an expression to be true.
func (p *page) until(what, expression string) {
	p.Helper()
	poll := chromedp.Poll[bool](expression, chromedp.WithPollingInterval(50*time.Millisecond), chromedp.WithPollingTimeout(time.Minute))
	for {
		_, err := chromedp.Run(p.ctx, poll)
		if err == nil {
			return
		}
		if !strings.Contains(err.Error(), "context with specified id") && !strings.Contains(err.Error(), "context was destroyed") && !strings.Contains(err.Error(), "navigated or closed") { // another page came in between
			p.fail(what, err)
		}
	}
}

// goTo opens a page and waits for its heading.
func (p *page) goTo(hash, heading string) {
	p.Helper()
	run(p, "go to "+hash, chromedp.Navigate(p.url+"/ui/"+hash))
	p.see("h1", heading)
}

// see waits until an element holds a text.
func (p *page) see(selector, text string) {
	p.Helper()
	p.until(fmt.Sprintf("see %q in %s", text, selector),
		fmt.Sprintf(`[...document.querySelectorAll(%q)].some((e) => e.innerText.includes(%q))`, selector, text))
}

// press clicks on the button, or the link, that is called so, as soon as there
// is one.
func (p *page) press(name string) {
	p.Helper()
	p.until("press "+name, fmt.Sprintf(`(() => {
	  const called = (e) => (e.getAttribute("aria-label") ?? e.innerText).trim().startsWith(%q);
	  const it = [...document.querySelectorAll("button, a, [role=button]")].find(called);
	  it?.click();
	  return it !== undefined;
	})()`, name))
}

// axe is Deque's library of accessibility rules; scripts/setup fetches it.
const axe = "../.cache/axe/axe.min.js"

// judge lets axe look at the page as it stands, in light and in dark.
func (p *page) judge(name string) {
	p.Helper()
	script, err := os.ReadFile(axe)
	if err != nil {
		if os.Getenv("CI") != "" {
			p.Fatalf("there is no axe-core (scripts/setup fetches it): %v", err)
		}
		p.Logf("%s is not looked at by axe: %v", name, err)
		return
	}
	for _, scheme := range []string{"dark", "light"} {
		run(p, "a "+scheme+" page", chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
			_, err := cdp.Call(ctx, t, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
				Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}, {Name: "prefers-reduced-motion", Value: "reduce"}},
			})
			return err
		}))
		for _, v := range run(p, "axe on "+name, chromedp.Evaluate[[]string](string(script)+`;
		  new Promise((then) => requestAnimationFrame(() => requestAnimationFrame(then))).then(() => axe.run()).then((r) => r.violations
		    .filter((v) => v.impact === "serious" || v.impact === "critical")
		    .map((v) => v.id + ": " + v.help + ": " + v.nodes.map((n) => n.html + " " + n.failureSummary).join(" | ")))`, chromedp.EvalAwaitPromise)) {
			p.Errorf("%s, %s: %s", name, scheme, v)
		}
	}
}

// keep takes a picture and looks for what keeps people out: what axe finds, and
// controls without a name, pictures without a text, headings that are not one.
func (p *page) keep(name string) {
	p.Helper()
	p.judge(name)
	picture := run(p, "picture of "+name, chromedp.FullScreenshot(100))
	for _, f := range run(p, "look at "+name, chromedp.Evaluate[[]string](`(() => {
	  const faults = [];
	  const named = (e) => (e.getAttribute("aria-label") ?? e.innerText ?? "").trim() !== "" || (e.labels?.length ?? 0) > 0;
	  document.querySelectorAll("button, a, input, select, textarea").forEach((e) => { if (!named(e)) faults.push("no name: " + e.outerHTML); });
	  document.querySelectorAll("img:not([alt]), [role=img]:not([aria-label])").forEach((e) => faults.push("no text: " + e.outerHTML));
	  if (document.querySelectorAll("h1").length !== 1) faults.push("not one main heading");
	  document.querySelectorAll("th:not([scope])").forEach((e) => e.closest("[role=img]") ?? faults.push("no scope: " + e.outerHTML));
	  if (document.documentElement.scrollWidth > innerWidth + 1) faults.push("wider than the window: " + document.documentElement.scrollWidth);
	  const ids = [...document.querySelectorAll("[id]")].map((e) => e.id);
	  if (new Set(ids).size !== ids.length) faults.push("an id twice");
	  if (document.documentElement.lang === "") faults.push("no language");
	  return faults;
	})()`)) {
		p.Errorf("%s: %s", name, f)
	}
	if err := os.MkdirAll(screens, 0o755); err != nil {
		p.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(screens, name+".png"), picture, 0o600); err != nil {
		p.Fatal(err)
	}
}

// calm fails the test if the browser's console complained.
func (p *page) calm() {
	p.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, text := range p.problems {
		p.Errorf("the browser says: %s", text)
	}
}

// What the README promises a new user, by clicks.
func TestTheFirstTenMinutes(t *testing.T) {
	t.Parallel()
	s := newSystem(t, "QUEUE_DEBUG_JOBS=true")
	s.runner()
	api := s.server()
	p := openPage(t, api.url)
	create := func(body string) string {
		t.Helper()
		var j struct{ ID string }
		api.postJSON("/v1/jobs", body).into(t, &j)
		return j.ID
	}

	p.goTo("", "Overview")
	p.see("p", "No job was ever stored.")
	create(`{"type":"debug.echo","payload":"<img src=x onerror=window.hurt=1>"}`)
	p.see("td:nth-child(4)", "1") // completed, without a reload
	p.see("[role=status]", "live")
	p.keep("overview")

	failed := create(`{"type":"debug.fail","max_attempts":1}`)
	p.goTo("#/jobs?state=failed", "Jobs")
	p.see("td", failed)
	p.keep("jobs")
	p.press("Retry job " + failed)
	p.see(".says", "done")
	p.press(failed)
	p.see("h1", "debug.fail")
	p.see("td", "failure 1")
	p.keep("job")

	waits := create(`{"type":"nobody.knows","payload":{"html":"<b>bold</b>"}}`)
	p.goTo("#/jobs/"+waits, "nobody.knows")
	p.see("li", "knows the type nobody.knows")
	p.see("pre", "<b>bold</b>")
	p.press("Cancel")
	p.see("h1", "canceled")

	p.goTo("#/jobs?payload=html%3D<b>bold</b>", "Jobs")
	p.see("td", waits)
	p.press("Retry all…")
	p.press("Yes, retry 1 jobs")
	p.see("[role=status]", "retry: 1 of 1 jobs were changed.")
	p.press("Cancel all…")
	p.press("Yes, cancel 1 jobs")
	p.see("td .state", "canceled")

	later := create(`{"type":"debug.echo","delay":"20h"}`)
	p.goTo("#/jobs/"+later, "debug.echo")
	p.see("li", "its time has not come")
	p.press("Run now")
	p.see("h1", "completed")

	p.goTo("#/queues", "Queues")
	p.press("Pause default")
	p.see("td", "default (paused)")
	p.press("Resume default")
	p.see("button", "Pause")
	p.keep("queues")

	account := api.account()
	mail := func(subject string) {
		t.Helper()
		api.do("POST", "/v1/messages?account="+account, "message/rfc822", strings.NewReader("From: Shop <orders@shop.example>\r\nTo: me@example.com\r\nSubject: "+subject+"\r\nMessage-ID: <"+strings.ReplaceAll(subject, " ", "-")+"@shop.example>\r\n\r\nHello.\r\n"))
	}
	const hostile = "Invoice <script>window.hurt=1</script>"
	mail(hostile)
	p.goTo("#/mail", "Mail")
	p.see("td", hostile)
	p.goTo("#/rules/new", "New rule")
	rule := `{"name":"Shops","scope":"global","priority":10,"conditions":{"op":"sender_domain","value":"shop.example"},"action_type":"archive"}`
	run(p, "write the rule", chromedp.Evaluate[bool](fmt.Sprintf(`(() => { const t = document.querySelector("textarea"); t.value = %q; return t.dispatchEvent(new Event("input", { bubbles: true })); })()`, rule)))
	p.press("Try on stored mail")
	p.see("[role=status] p", "It matches 1 of the newest 1 messages. Nothing was changed.")
	p.see("td", "folder:")
	p.keep("rule")
	p.press("Save")
	p.see("td", "Shops")
	p.keep("rules")
	mail("Your parcel")
	p.goTo("#/mail", "Mail")
	p.see("td", "completed")
	p.keep("mail")
	p.press("Your parcel")
	p.see("td", "archive")
	p.press("Undo archive")
	p.see("td", "undone")
	p.keep("message")

	p.goTo("#/approvals", "Approvals")
	p.see("p", "Nothing waits.")
	p.keep("approvals")
	api.do("PUT", "/v1/cron/nightly", "application/json", strings.NewReader(`{"schedule":"@daily","type":"debug.echo"}`))
	p.goTo("#/schedules", "Schedules")
	p.press("Trigger nightly")
	p.see(".says", "done")
	p.press("Pause nightly")
	p.see("td", "paused")
	p.keep("schedules")
	p.goTo("#/configuration", "Configuration")
	p.see("td", "queue.lease")
	p.keep("configuration")
	p.goTo("#/nowhere", "There is no such page")
	p.keep("nowhere")

	if run(p, "look for scripts that ran", chromedp.Evaluate[bool]("window.hurt === 1")) {
		t.Error("text of a message or a payload ran as a script")
	}
	run(p, "a phone", chromedp.EmulateViewport(390, 800))
	p.goTo("#/jobs", "Jobs")
	p.see("td", failed)
	p.keep("phone")
	p.calm()
}

// A failed job is found and retried with the keyboard alone.
func TestTheKeyboardIsEnough(t *testing.T) {
	t.Parallel()
	s := newSystem(t, "QUEUE_DEBUG_JOBS=true")
	s.runner()
	api := s.server()
	var j struct{ ID string }
	api.postJSON("/v1/jobs", `{"type":"debug.fail","max_attempts":1}`).into(t, &j)
	api.job(j.ID)
	p := openPage(t, api.url)
	p.goTo("", "Overview")
	// tab goes on until the control with this name has the focus, and sees that
	// it shows.
	tab := func(name string) {
		t.Helper()
		for range 60 {
			run(p, "tab", chromedp.KeyEvent(kb.Tab))
			on := run(p, "what has the focus", chromedp.Evaluate[[]string](`(() => {
			  const e = document.activeElement, s = getComputedStyle(e);
			  return [(e.getAttribute("aria-label") ?? e.innerText ?? "").trim(), String(s.outlineStyle !== "none" || s.boxShadow !== "none")];
			})()`))
			if strings.HasPrefix(on[0], name) {
				if on[1] != "true" {
					t.Errorf("nothing shows that %q has the focus", on[0])
				}
				return
			}
		}
		p.fail("reach "+name, fmt.Errorf("sixty tabs do not come to it"))
	}
	tab("Jobs")
	run(p, "follow the link", chromedp.KeyEvent(kb.Enter))
	p.see("h1", "Jobs")
	p.see("td", j.ID)
	tab(j.ID)
	run(p, "open the job", chromedp.KeyEvent(kb.Enter))
	p.see("h1", "debug.fail")
	tab("Retry")
	run(p, "press the button", chromedp.KeyEvent(kb.Enter))
	p.see("main", "run 2 failed")
	p.calm()
}

func TestABrowserLogsInAndOut(t *testing.T) {
	t.Parallel()
	s := newSystem(t, "API_TOKEN=a-token-for-this-test")
	p := openPage(t, s.server().url)
	enter := func(token string) {
		t.Helper()
		p.until("the form", `document.querySelector("input[name=token]") !== null`)
		run(p, "enter a token", chromedp.Evaluate[bool](fmt.Sprintf(`(() => { const t = document.querySelector("input[name=token]"); t.value = %q; t.form.submit(); return true; })()`, token)))
	}
	run(p, "come from the front door", chromedp.Navigate(p.url+"/"))
	p.see("button", "Log in")
	p.keep("login")
	enter("another-token")
	p.see("[role=alert]", "not known")
	enter("a-token-for-this-test")
	p.see("h1", "Overview")
	p.see("small", "config (admin)")
	p.see("small", "live")
	p.press("Log out")
	p.see("button", "Log in")
}

// The pages load nothing that this binary does not have.
func TestThePagesLoadNothingFromElsewhere(t *testing.T) {
	t.Parallel()
	elsewhere := regexp.MustCompile(`(?i)(src|href|from|import|url)\s*[=(]?\s*["'(]?(https?:)?//`)
	for _, name := range []string{"index.html", "app.css", "app.js", "api.js", "parts.js", "overview.js", "jobs.js", "queues.js", "schedules.js", "mail.js", "rules.js", "configuration.js", "login.js"} {
		text, err := os.ReadFile(filepath.Join("../apiserver/ui", name))
		if err != nil {
			t.Fatal(err)
		}
		if found := elsewhere.Find(text); found != nil {
			t.Errorf("%s: %s", name, found)
		}
	}
}
