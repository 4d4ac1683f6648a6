package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
)

// docs/tutorial-job-type.md, done: the files and changes that it shows are laid
// over the code, the runner is built from that, and the commands are executed.
func TestTheTutorialAddsAJobType(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../docs/tutorial-job-type.md")
	if err != nil {
		t.Fatal(err)
	}
	root, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	over := map[string]string{}
	put := func(path, text string) {
		file := filepath.Join(dir, strings.ReplaceAll(path, "/", "-"))
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		over[filepath.Join(root, path)] = file
	}
	var commands []string
	for _, m := range regexp.MustCompile("(?ms)^```(go|diff|sh) ([^\n]*)\n(.*?)^```").FindAllStringSubmatch(string(page), -1) {
		switch kind, path, text := m[1], m[2], m[3]; kind {
		case "go":
			put(path, text)
		case "diff":
			have, err := os.ReadFile(filepath.Join(root, path))
			if err != nil {
				t.Fatal(err)
			}
			before := regexp.MustCompile(`(?m)^\+.*\n`).ReplaceAllString(text, "")
			before, after := regexp.MustCompile(`(?m)^[ -]`).ReplaceAllString(before, ""), regexp.MustCompile(`(?m)^[ +]`).ReplaceAllString(regexp.MustCompile(`(?m)^-.*\n`).ReplaceAllString(text, ""), "")
			if n := strings.Count(string(have), before); n != 1 {
				t.Fatalf("%s has %d places for\n%s", path, n, text)
			}
			put(path, strings.Replace(string(have), before, after, 1))
		case "sh":
			commands = append(commands, text)
		}
	}
	if len(over) != 4 || len(commands) != 2 {
		t.Fatalf("%d files, %d commands", len(over), len(commands))
	}
	list, err := json.Marshal(map[string]any{"Replace": over})
	if err != nil {
		t.Fatal(err)
	}
	overlay := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(overlay, list, 0o600); err != nil {
		t.Fatal(err)
	}
	build := exec.CommandContext(t.Context(), "go", "build", "-overlay", overlay, "-o", filepath.Join(dir, "queuerunner"), ".")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}

	env := append(os.Environ(), "DATABASE_URL="+filepath.Join(dir, "postroom.db"), "QUEUE_HTTP_ADDR=", "PATH="+dir+":"+os.Getenv("PATH"))
	runner := exec.CommandContext(t.Context(), filepath.Join(dir, "queuerunner"))
	runner.Env = env
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	runner.Stderr = log
	if err := runner.Start(); err != nil {
		t.Fatal(err)
	}
	run := func(text string) string {
		t.Helper()
		sh := exec.CommandContext(t.Context(), "timeout", "60", "bash", "-euo", "pipefail", "-c", text)
		sh.Env = env
		out, err := sh.CombinedOutput()
		if err != nil {
			said, _ := os.ReadFile(log.Name())
			t.Errorf("%v\n%s\n%s\nthe runner said:\n%s", err, text, out, said)
		}
		return string(out)
	}
	run("until queuerunner queues list; do sleep 0.1; done") // the runner makes the database
	if out := run(commands[0]); !strings.Contains(out, "Your mail of 31 January 2026") {
		t.Error(out)
	}
	run(commands[1])
	if err := runner.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := runner.Wait(); err != nil {
		t.Error(err)
	}
}
