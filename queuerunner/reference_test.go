package main

import (
	"fmt"
	"strings"
	"testing"

	"github.com/postroom/postroom/core/reference"
)

// docs/reference/commands.md is the help of every command.
func TestReferenceOfCommands(t *testing.T) {
	t.Parallel()
	path := none(t)
	var b strings.Builder
	fmt.Fprintf(&b, "# Commands\n\nWhat `queuerunner -h` and `queuerunner COMMAND -h` say. Exit codes: 0 fine, 1 failed, 2 wrong use or configuration.\n\n```\n%s```\n", fine(t, path, "-h"))
	for _, cmd := range commands() {
		help := fine(t, path, append(strings.Fields(cmd.name), "-h")...)
		fmt.Fprintf(&b, "\n## queuerunner %s\n\n```\n%s```\n", cmd.name, help)
	}
	reference.Hold(t, "commands.md", b.String())
}
