package main

import (
	"flag"
	"fmt"
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

func TestEachShellGetsEveryCommandAndFlag(t *testing.T) {
	t.Parallel()
	for _, shell := range []string{"bash", "zsh", "fish"} {
		out := fine(t, "", "completion", shell)
		for _, cmd := range commands() {
			last := cmd.name[strings.LastIndex(cmd.name, " ")+1:]
			c := &call{name: cmd.name}
			flags := c.flagSet()
			cmd.setup(c, flags)
			wanted := []string{last, "-config", "-set"}
			flags.VisitAll(func(f *flag.Flag) { wanted = append(wanted, "-"+f.Name) })
			for _, word := range wanted {
				if !completes(shell, out, cmd.name, word) {
					t.Errorf("%s: no %s of %s", shell, word, cmd.name)
				}
			}
		}
	}
}

// completes says whether a script offers a command's last word, or its flag.
func completes(shell, script, command, word string) bool {
	before, last := "", command
	if i := strings.LastIndex(command, " "); i >= 0 {
		before, last = command[:i], command[i+1:]
	}
	isFlag := strings.HasPrefix(word, "-")
	if isFlag {
		before = command
	}
	for line := range strings.Lines(script) {
		words := strings.FieldsFunc(line, func(r rune) bool { return strings.ContainsRune(" \"';\n", r) })
		switch {
		case shell != "fish" && strings.HasPrefix(strings.TrimSpace(line), fmt.Sprintf("%q)", before)):
			return slices.Contains(words, word)
		case shell == "fish" && isFlag && slices.Contains(words, last) && slices.Equal(words[len(words)-2:], []string{"-o", word[1:]}),
			shell == "fish" && !isFlag && slices.Equal(words[len(words)-2:], []string{"-a", word}):
			return true
		}
	}
	return false
}
