package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

// patience is how long a test waits for what must come.
const patience = 60 * time.Second

// buildAll builds the three binaries as `make build` does.
func buildAll(t *testing.T) (bin string) {
	t.Helper()
	bin = t.TempDir()
	for name, dir := range map[string]string{"apiserver": "../../apiserver", "queuerunner": "../../queuerunner", "demo": "."} {
		cmd := exec.CommandContext(t.Context(), "go", "build", "-o", filepath.Join(bin, name), ".")
		cmd.Dir = dir
		if output, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("go build in %s: %v\n%s", dir, err, output)
		}
	}
	return bin
}

// process is a running demo whose output can be waited for.
type process struct {
	t     *testing.T
	cmd   *exec.Cmd
	data  string
	ports [2]int
	lines chan string // closed at the end of the output
	all   []string
}

func startDemo(t *testing.T, bin, data string) *process {
	t.Helper()
	p := &process{t: t, data: data, ports: [2]int{freePort(t), freePort(t)}, lines: make(chan string, 1000)}
	p.cmd = exec.CommandContext(t.Context(), filepath.Join(bin, "demo"), "-data", data, "-bin", bin)
	for _, entry := range os.Environ() {
		if name, _, _ := strings.Cut(entry, "="); name != "CONFIG_PATH" && name != "API_TOKEN" && name != "APP_HOST" {
			p.cmd.Env = append(p.cmd.Env, entry)
		}
	}
	p.cmd.Env = append(p.cmd.Env, fmt.Sprintf("APP_PORT=%d", p.ports[0]), fmt.Sprintf("QUEUE_HTTP_ADDR=127.0.0.1:%d", p.ports[1]),
		"APP_DRAIN_DELAY=100ms", "COLUMNS=160")
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	p.cmd.Stdout, p.cmd.Stderr = writer, writer
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = writer.Close() // the child has its own
	t.Cleanup(func() {
		// After a failed test; the services see the end of the demo.
		_ = p.cmd.Process.Signal(syscall.SIGTERM)
		for range p.lines {
		}
		_ = p.cmd.Wait()
	})
	go func() {
		defer close(p.lines)
		defer func() { _ = reader.Close() }()
		for s := bufio.NewScanner(reader); s.Scan(); {
			p.lines <- s.Text()
		}
	}()
	return p
}

// until reads the output up to a line that holds the text.
func (p *process) until(text string) {
	p.t.Helper()
	limit := time.After(patience)
	for {
		select {
		case line, open := <-p.lines:
			if !open {
				p.t.Fatalf("the output ended before %q:\n%s", text, strings.Join(p.all, "\n"))
			}
			p.all = append(p.all, line)
			if strings.Contains(line, text) {
				return
			}
		case <-limit:
			p.t.Fatalf("no %q in the output:\n%s", text, strings.Join(p.all, "\n"))
		}
	}
}

// rest reads the output to its end and returns the exit code.
func (p *process) rest() int {
	p.t.Helper()
	limit := time.After(patience)
	for open := true; open; {
		var line string
		select {
		case line, open = <-p.lines:
			p.all = append(p.all, line)
		case <-limit:
			p.t.Fatalf("the demo does not end:\n%s", strings.Join(p.all, "\n"))
		}
	}
	_ = p.cmd.Wait() // the exit code tells
	return p.cmd.ProcessState.ExitCode()
}

// messageLines are the lines printed about messages.
func (p *process) messageLines() (list []string) {
	for _, line := range p.all {
		if strings.Contains(line, "  → ") {
			list = append(list, line)
		}
	}
	return list
}

// portsFree waits until nobody listens any more.
func (p *process) portsFree() {
	p.t.Helper()
	limit := time.After(patience)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for _, port := range p.ports {
		for {
			ln, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
			if err == nil {
				_ = ln.Close()
				break
			}
			select {
			case <-tick.C:
			case <-limit:
				p.t.Fatalf("port %d is still in use: %v", port, err)
			}
		}
	}
}

func (p *process) signal(sig syscall.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(sig); err != nil {
		p.t.Fatal(err)
	}
}

func TestEndToEnd(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("builds and runs both services; left out with -short")
	}
	bin := buildAll(t)

	t.Run("a first start, a second, and a dropped message", func(t *testing.T) {
		t.Parallel()
		data := filepath.Join(t.TempDir(), "my data")
		p := startDemo(t, bin, data)
		p.until("38 messages: ")
		if n := len(p.messageLines()); n != 38 {
			t.Errorf("%d messages were printed:\n%s", n, strings.Join(p.all, "\n"))
		}
		compareWithExpected(t, p)

		drop(t, data, "06-newsletter-garden.eml", "hello-1")
		p.until("→ moved to Newsletters  (rule Move newsletters)")
		p.signal(syscall.SIGINT)
		if code := p.rest(); code != exitFine {
			t.Fatalf("exit code %d:\n%s", code, strings.Join(p.all, "\n"))
		}
		p.portsFree()

		// One that comes while the services are down is listed by the next
		// start; those from before are not.
		drop(t, data, "16-bank-alert.eml", "hello-2")
		p = startDemo(t, bin, data)
		p.until("39 messages from before")
		p.until("→ starred")
		p.signal(syscall.SIGINT)
		if code := p.rest(); code != exitFine {
			t.Fatalf("exit code %d:\n%s", code, strings.Join(p.all, "\n"))
		}
		if got := p.messageLines(); len(got) != 1 {
			t.Errorf("the second start printed %q", got)
		}
		p.portsFree()
	})

	t.Run("a demo that is killed leaves nothing running", func(t *testing.T) {
		t.Parallel()
		if runtime.GOOS != "linux" {
			t.Skip("only Linux tells a child of its parent's end")
		}
		p := startDemo(t, bin, t.TempDir())
		p.until("Where to look")
		p.signal(syscall.SIGKILL)
		p.rest()
		p.portsFree()
	})
}

// drop delivers one of the demo's messages as a person would: by a copy into
// new/ under a new name.
func drop(t *testing.T, data, file, name string) {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join("mail", file))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(data, "Maildir", "new", name), raw, 0o600); err != nil {
		t.Fatal(err)
	}
}

// compareWithExpected holds expected.json against the API and the disk.
func compareWithExpected(t *testing.T, p *process) {
	t.Helper()
	raw, err := os.ReadFile("expected.json")
	if err != nil {
		t.Fatal(err)
	}
	var expected []struct{ File, Rule, Action string }
	if err := json.Unmarshal(raw, &expected); err != nil {
		t.Fatal(err)
	}
	type row struct {
		Unique   string   `json:"provider_message_id"`
		Labels   []string `json:"labels"`
		Decision struct {
			ActionType   string `json:"action_type"`
			RuleName     string `json:"rule_name"`
			ActionStatus string `json:"action_status"`
		} `json:"decision"`
	}
	got := map[string]row{}
	client := newAPI(fmt.Sprintf("http://127.0.0.1:%d", p.ports[0]), "")
	if err := every(t.Context(), client, "/v1/messages", "messages", func(m row) bool {
		got[m.Unique] = m
		return true
	}); err != nil {
		t.Fatal(err)
	}
	if len(got) != len(expected) {
		t.Errorf("%d messages, want %d", len(got), len(expected))
	}
	places := map[string]string{ // where a file lies after an action, and its flags
		"none": "new/", "apply_label": "new/", "star": "cur/:2,F", "mark_read": "cur/:2,S",
		"archive": ".Archive/", "trash": ".Trash/", "move": ".Newsletters/",
	}
	for _, want := range expected {
		unique := uniqueName(want.File)
		m := got[unique]
		if m.Decision.RuleName != want.Rule || m.Decision.ActionType != want.Action {
			t.Errorf("%s: decision %+v, want rule %q, action %q", want.File, m.Decision, want.Rule, want.Action)
		}
		if labelled := strings.Join(m.Labels, ","); (want.Action == "apply_label") != (labelled == "Receipts") {
			t.Errorf("%s: labels %q", want.File, labelled)
		}
		dir, suffix, _ := strings.Cut(places[want.Action], "/")
		if !lies(t, filepath.Join(p.data, "Maildir"), dir, unique, suffix, filepath.Join("mail", want.File)) {
			t.Errorf("%s: not found unchanged at %s", want.File, places[want.Action])
		}
	}
}

// lies tells whether a folder holds a message under its name, with what is
// wanted behind that, and with the bytes of the original.
func lies(t *testing.T, root, dir, unique, suffix, original string) bool {
	t.Helper()
	candidates := []string{filepath.Join(root, dir, unique+suffix)}
	if strings.HasPrefix(dir, ".") {
		candidates = []string{
			filepath.Join(root, dir, "new", unique), filepath.Join(root, dir, "cur", unique),
			filepath.Join(root, dir, "cur", unique+":2,"),
		}
	}
	want, err := os.ReadFile(original)
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range candidates {
		if got, err := os.ReadFile(path); err == nil && string(got) == string(want) {
			return true
		}
	}
	return false
}
