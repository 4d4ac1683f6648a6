package e2e

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// block is a fenced piece of a page.
type block struct {
	page   string
	line   int
	info   string // what stands behind the fence: "sh", "sh norun why"
	text   string
	output string // that of a fence "output" behind it
}

// blocks returns the fenced pieces of a page.
func blocks(t *testing.T, page string) []block {
	t.Helper()
	raw, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	var out []block
	open := -1
	lines := strings.Split(string(raw), "\n")
	for i, line := range lines {
		info, fence := strings.CutPrefix(line, "```")
		switch {
		case fence && open < 0:
			open = i
			out = append(out, block{page: strings.TrimPrefix(page, "../"), line: i + 1, info: info})
		case fence:
			b := &out[len(out)-1]
			b.text = strings.Join(lines[open+1:i], "\n")
			if n := len(out) - 2; b.info == "output" && n >= 0 {
				out[n].output = b.text
			}
			open = -1
		}
	}
	if open >= 0 {
		t.Errorf("%s:%d: the fence is not closed", page, open+1)
	}
	return out
}

// The commands of all pages are executed, page by page, each page in a system
// of its own: both services on data/postroom.db, an account with mail ($ID),
// bin/, config/ and deploy/ beside them. A fence says what is different:
//
//	sh              is executed and must succeed
//	sh endless      does not end by itself: it must say something, then it is ended
//	sh stopped      is executed while no service runs
//	sh norun WHY    is not executed
//
// A fence "output" behind it says what it prints, … standing for anything.
func TestCommandsOfPagesWork(t *testing.T) {
	t.Parallel()
	pages, err := filepath.Glob("../docs/*.md")
	if err != nil || len(pages) == 0 {
		t.Fatalf("%d pages, %v", len(pages), err)
	}
	command := regexp.MustCompile(`(?m)^(?:[A-Z_]+=\S+ )*(?:bin/)?(?:queuerunner|apiserver|curl|make|cd|go|sudo|systemctl|export) \S`)
	for _, page := range append(pages, "../README.md", "../CONTRIBUTING.md", "../SECURITY.md") {
		all := blocks(t, page)
		run := 0
		for _, b := range all {
			how, why, _ := strings.Cut(strings.TrimPrefix(b.info, "sh "), " ")
			switch {
			case b.info == "sh", b.info == "sh endless", b.info == "sh stopped":
				run++
			case how == "norun" && len(why) > 10:
			case strings.HasPrefix(b.info, "sh"):
				t.Errorf("%s:%d: the fence says %q, want sh, sh endless, sh stopped or sh norun WHY", b.page, b.line, b.info)
			case b.info == "" && command.MatchString(b.text):
				t.Errorf("%s:%d: there are commands in a fence that does not say sh", b.page, b.line)
			}
		}
		if run == 0 {
			continue
		}
		t.Run(strings.TrimSuffix(filepath.Base(page), ".md"), func(t *testing.T) {
			t.Parallel()
			s := newPageSystem(t)
			for _, b := range all {
				s.execute(b)
			}
		})
	}
}

// pageSystem is what a page's commands work on.
type pageSystem struct {
	*system
	services []*process
	address  string
	account  string
}

func newPageSystem(t *testing.T) *pageSystem {
	s := &pageSystem{system: newSystem(t, "QUEUE_DEBUG_JOBS=true")}
	s.env = append(s.env, "DATABASE_URL="+filepath.Join(s.dir, "data", "postroom.db"), "PATH="+binaries+":"+os.Getenv("PATH"))
	if err := os.Symlink(binaries, filepath.Join(s.dir, "bin")); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"config", "deploy"} {
		from, err := filepath.Abs(filepath.Join("..", name))
		if err == nil {
			err = os.Symlink(from, filepath.Join(s.dir, name))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	const message = "From: Ann <ann@news.example.org>\nTo: me@example.org\nSubject: %s\nMessage-ID: <%d@news.example.org>\n\nHello.\n"
	if err := os.WriteFile(filepath.Join(s.dir, "message.eml"), fmt.Appendf(nil, message, "Walk on Sunday?", 0), 0o600); err != nil {
		t.Fatal(err)
	}
	api := s.run()
	s.account = api.account()
	for i := range 3 {
		r := api.do("POST", "/v1/messages?account="+s.account, "message/rfc822", strings.NewReader(fmt.Sprintf(message, "Your weekly newsletter", i+1)))
		var j struct{ ID string }
		r.into(t, &j)
		api.job(j.ID)
	}
	s.until("the mail is judged", func() bool {
		var list struct{ Jobs []struct{ State string } }
		api.get("/v1/jobs?type=message.classify").into(t, &list)
		n := 0
		for _, j := range list.Jobs {
			if j.State == "completed" {
				n++
			}
		}
		return n == 3
	})
	return s
}

// run starts the services, unless they run.
func (s *pageSystem) run() *process {
	s.Helper()
	if len(s.services) == 0 {
		api := s.server()
		s.address = strings.TrimPrefix(api.url, "http://")
		s.services = []*process{api, s.runner()}
	}
	return s.services[0]
}

func (s *pageSystem) halt() {
	s.Helper()
	for _, p := range s.services {
		if code := p.stop(); code != 0 {
			s.Errorf("a service ended with %d", code)
		}
	}
	s.services = nil
}

func (s *pageSystem) execute(b block) {
	s.Helper()
	where := fmt.Sprintf("%s:%d", b.page, b.line)
	switch b.info {
	case "sh", "sh endless":
		s.run()
	case "sh stopped":
		s.halt()
	default:
		return
	}
	text := strings.NewReplacer("localhost:17800", s.address, "127.0.0.1:17800", s.address).Replace(b.text)
	ctx, cancel := context.WithTimeout(s.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", "-euo", "pipefail", "-c", text)
	cmd.Dir, cmd.Env = s.dir, append(slices.Clone(s.env), "ID="+s.account)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 10 * time.Second
	if b.info == "sh endless" {
		said := newLog()
		cmd.Stdout, cmd.Stderr = said, said
		if err := cmd.Start(); err != nil {
			s.Fatalf("%s: %v", where, err)
		}
		ended := make(chan struct{})
		go func() { defer close(ended); _ = cmd.Wait() }() // it is killed
		if said.awaitUnless(s, "", ended) == "" {
			s.Errorf("%s ended by itself:\n%s\n%s", where, text, said)
		}
		cancel()
		<-ended
		return
	}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		s.Errorf("%s: %v\n%s\n%s", where, err, text, &out)
	}
	at := 0
	for want := range strings.Lines(b.output) {
		parts := strings.Split(strings.TrimSpace(want), "…")
		for i := range parts {
			parts[i] = regexp.QuoteMeta(parts[i])
		}
		found := regexp.MustCompile(strings.ReplaceAll(strings.Join(parts, ".*"), " ", " *")).FindStringIndex(out.String()[at:])
		if found == nil {
			s.Errorf("%s does not print %q:\n%s", where, strings.TrimSpace(want), &out)
			return
		}
		at += found[1]
	}
}
