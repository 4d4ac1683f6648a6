package main

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// A shell completes words, flags and what stands behind an argument.
func TestBashCompletes(t *testing.T) {
	t.Parallel()
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Skip("there is no bash")
	}
	for line, want := range map[string]string{
		"queuerunner mig": "migrate", "queuerunner migrate ": "up down status", "queuerunner jobs wh": "why",
		"queuerunner jobs list -sta": "-state", "queuerunner jobs cancel 0123 -jso": "-json", "queuerunner -set a=b jobs ta": "tail", "queuerunner nonsense": "",
	} {
		words := strings.Split(line, " ")
		script := bashCompletion() + "\nCOMP_WORDS=('" + strings.Join(words, "' '") + "'); COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); _queuerunner; echo \"${COMPREPLY[@]}\""
		out, err := exec.CommandContext(t.Context(), bash, "-c", script).CombinedOutput()
		if got := strings.TrimSpace(string(out)); err != nil || got != want {
			t.Errorf("%s: %q, %v; want %q", line, got, err, want)
		}
	}
}

func TestEachShellGetsEveryCommand(t *testing.T) {
	t.Parallel()
	for _, shell := range []string{"bash", "zsh", "fish"} {
		out := fine(t, "", "completion", shell)
		for _, cmd := range commands() {
			if last := cmd.name[strings.LastIndex(cmd.name, " ")+1:]; !slices.Contains(strings.FieldsFunc(out, func(r rune) bool { return strings.ContainsRune(" \"\n", r) }), last) {
				t.Errorf("%s: no %s", shell, cmd.name)
			}
		}
	}
}
