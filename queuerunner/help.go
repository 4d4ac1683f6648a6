package main

import (
	"bytes"
	"flag"
	"fmt"
	"strings"
	"text/tabwriter"
)

// printUsage shows the commands of a group, or all of them.
func (c *call) printUsage(group string, flags *flag.FlagSet) error {
	var b bytes.Buffer
	fmt.Fprintf(&b, "Usage: %s [flags] [command]\n\nCommands:\n", c.name)
	rows := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	for _, cmd := range commands() {
		if group == "" || strings.HasPrefix(cmd.name, group+" ") {
			_, _ = fmt.Fprintf(rows, "  %s\t%s\n", strings.TrimSpace(cmd.name+" "+cmd.args), cmd.help)
		}
	}
	_ = rows.Flush() // into memory
	b.WriteString("\nFlags (-config and -set may also follow the command):\n")
	printFlags(&b, flags)
	b.WriteString("\nqueuerunner COMMAND -h shows a command's own flags.\n")
	return c.printf("%s", b.String())
}

// printHelp shows one command.
func (c *call) printHelp(cmd command, flags *flag.FlagSet) error {
	var b bytes.Buffer
	fmt.Fprintf(&b, "Usage: %s\n\n%s.\n\nFlags:\n", strings.TrimSpace(c.name+" [flags] "+cmd.args),
		strings.ToUpper(cmd.help[:1])+cmd.help[1:])
	printFlags(&b, flags)
	return c.printf("%s", b.String())
}

func printFlags(b *bytes.Buffer, flags *flag.FlagSet) {
	flags.SetOutput(b)
	flags.PrintDefaults()
}
