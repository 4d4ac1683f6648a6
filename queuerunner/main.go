// Command queuerunner claims jobs and runs them, and is the operator's command
// line: it migrates the database, checks the configuration, and shows and
// changes jobs, schedules, accounts and rules. It is a thin binary: it wires the packages
// of core together and holds no SQL and no handler of its own. It never
// imports apiserver.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"

	"github.com/postroom/postroom/core/config"
	"github.com/postroom/postroom/core/system"
	"github.com/postroom/postroom/core/version"
)

// Exit codes.
const (
	exitFine   = 0
	exitFailed = 1
	exitWrong  = 2 // wrong use or configuration
)

func main() {
	system.Ballast()
	os.Exit(run(context.Background(), os.Args[1:], os.LookupEnv, os.Stdin, os.Stdout, os.Stderr))
}

// run is the whole program. It returns the exit code.
func run(ctx context.Context, args []string, lookup func(string) (string, bool), stdin io.Reader, stdout, stderr io.Writer) int {
	c := &call{name: "queuerunner", options: config.Options{Lookup: lookup}, stdin: stdin, stdout: stdout, stderr: stderr}
	return c.exitCode(c.dispatch(ctx, args))
}

// call is one use of the command line.
type call struct {
	name    string         // the program and its subcommand, for messages
	options config.Options // filled by -config and -set wherever they stand
	stdin   io.Reader
	stdout  io.Writer
	stderr  io.Writer
}

// dispatch finds the command that the arguments name and runs it.
func (c *call) dispatch(ctx context.Context, args []string) error {
	flags := c.flagSet()
	showVersion := flags.Bool("version", false, "print the version and exit")
	if err := flags.Parse(args); err != nil {
		return c.helpOr(err, flags, func() error { return c.printUsage("", flags) })
	}
	if *showVersion {
		return c.printf("queuerunner %s\n", version.Version())
	}
	if flags.NArg() == 0 {
		return c.perform(ctx, "run", nil)
	}
	return c.descend(ctx, flags.Arg(0), flags.Args()[1:])
}

// descend follows words through the groups of commands to a command.
func (c *call) descend(ctx context.Context, name string, rest []string) error {
	switch {
	case isCommand(name):
		return c.perform(ctx, name, rest)
	case !isGroup(name):
		return unknownCommand(name)
	}
	c.name = "queuerunner " + name
	flags := c.flagSet()
	if err := flags.Parse(rest); err != nil {
		return c.helpOr(err, flags, func() error { return c.printUsage(name, flags) })
	}
	if flags.NArg() == 0 {
		return wrongUse("which one? %s", choices(name))
	}
	return c.descend(ctx, name+" "+flags.Arg(0), flags.Args()[1:])
}

// perform runs a command of the table. Its flags may stand before, between
// and after its arguments; what follows -- is an argument whatever it looks like.
func (c *call) perform(ctx context.Context, name string, rest []string) error {
	cmd := lookUp(name)
	c.name = "queuerunner " + name
	flags := c.flagSet()
	act := cmd.setup(c, flags)
	var args []string
	for {
		if err := flags.Parse(rest); err != nil {
			return c.helpOr(err, flags, func() error { return c.printHelp(cmd, flags) })
		}
		left := flags.Args()
		if read := len(rest) - len(left); read > 0 && rest[read-1] == "--" {
			args = append(args, left...)
			break
		}
		if len(left) == 0 {
			break
		}
		args, rest = append(args, left[0]), left[1:]
	}
	if err := cmd.checkArgs(args); err != nil {
		return err
	}
	return act(ctx, args)
}

// flagSet returns flags that every command has.
func (c *call) flagSet() *flag.FlagSet {
	flags := flag.NewFlagSet(c.name, flag.ContinueOnError)
	flags.SetOutput(io.Discard) // exitCode reports the error, printHelp the flags
	c.options.Register(flags)
	return flags
}

// config loads the configuration. Its error is *config.Problems.
func (c *call) config() (*config.Loaded, error) { return config.Load(c.options) }

func (c *call) printf(format string, args ...any) error {
	if _, err := fmt.Fprintf(c.stdout, format, args...); err != nil {
		return fmt.Errorf("write the output: %w", err)
	}
	return nil
}

// note tells a person something beside the output proper.
func (c *call) note(format string, args ...any) {
	_, _ = fmt.Fprintf(c.stderr, format+"\n", args...) // nowhere left to report it
}
