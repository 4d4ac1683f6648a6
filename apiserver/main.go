// Command apiserver is the HTTP API: it takes in jobs, messages, accounts and
// rules and shows what became of them. It is a thin binary: it wires packages
// of core together and holds no SQL. It never imports core/worker, a handler
// of jobs or queuerunner: work is done elsewhere.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"

	"github.com/postroom/postroom/core/config"
	"github.com/postroom/postroom/core/httpd"
	"github.com/postroom/postroom/core/system"
	"github.com/postroom/postroom/core/version"
)

// Exit codes.
const (
	exitFine   = 0
	exitFailed = 1
	exitWrong  = 2 // wrong use or configuration
)

const usage = `apiserver serves Postroom's HTTP API.

Usage: apiserver [serve] [flags]
       apiserver healthcheck [flags]   ask the one that runs here whether it is ready

`

func main() {
	system.Ballast()
	os.Exit(run(context.Background(), os.Args[1:], os.LookupEnv, os.Stdout, os.Stderr))
}

// run is the whole program. It returns the exit code.
func run(ctx context.Context, args []string, lookup func(string) (string, bool), stdout, stderr io.Writer) int {
	options := config.Options{Lookup: lookup}
	command, showVersion, err := parse(args, &options, stdout)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return exitFine
	case err == nil && showVersion:
		_, err = fmt.Fprintf(stdout, "apiserver %s\n", version.Version())
	case err == nil && command == "healthcheck":
		err = healthcheck(ctx, options)
	case err == nil:
		err = serve(ctx, options, stderr)
	}
	if err == nil {
		return exitFine
	}
	_, _ = fmt.Fprintf(stderr, "apiserver: %s\n", err) // nowhere left to report it
	var wrong *wrongUse
	if errors.As(err, &wrong) {
		return exitWrong
	}
	return exitFailed
}

// wrongUse is an error that the command line or the configuration must mend.
type wrongUse struct{ error }

func (w *wrongUse) Unwrap() error { return w.error }

// healthcheck asks the apiserver that runs with the same configuration on this
// machine whether it is ready.
func healthcheck(ctx context.Context, options config.Options) error {
	cfg, err := config.Load(options)
	if err != nil {
		return &wrongUse{err}
	}
	return httpd.AskReady(ctx, net.JoinHostPort(cfg.App.Host, strconv.Itoa(cfg.App.Port)))
}

// parse reads the command line. Flags may stand before and after the command.
func parse(args []string, options *config.Options, stdout io.Writer) (command string, showVersion bool, err error) {
	command = "serve"
	for pass := 0; ; pass++ {
		flags := flag.NewFlagSet("apiserver", flag.ContinueOnError)
		flags.SetOutput(io.Discard) // run reports the error
		options.Register(flags)
		flags.BoolVar(&showVersion, "version", showVersion, "print the version and exit")
		err := flags.Parse(args)
		switch {
		case errors.Is(err, flag.ErrHelp):
			_, _ = io.WriteString(stdout, usage)
			flags.SetOutput(stdout)
			flags.PrintDefaults()
			return command, false, flag.ErrHelp
		case err != nil:
			return command, false, &wrongUse{fmt.Errorf("%w (see apiserver -h)", err)}
		case flags.NArg() == 0:
			return command, showVersion, nil
		case pass > 0 || flags.Arg(0) != "serve" && flags.Arg(0) != "healthcheck":
			return command, false, &wrongUse{fmt.Errorf("there is no command %q, only serve and healthcheck (see apiserver -h)", flags.Arg(0))}
		}
		command, args = flags.Arg(0), flags.Args()[1:]
	}
}
