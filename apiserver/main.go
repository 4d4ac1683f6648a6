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
	"os"

	"github.com/postroom/postroom/core/config"
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

`

func main() {
	os.Exit(run(context.Background(), os.Args[1:], os.LookupEnv, os.Stdout, os.Stderr))
}

// run is the whole program. It returns the exit code.
func run(ctx context.Context, args []string, lookup func(string) (string, bool), stdout, stderr io.Writer) int {
	options := config.Options{Lookup: lookup}
	showVersion, err := parse(args, &options, stdout)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return exitFine
	case err == nil && showVersion:
		_, err = fmt.Fprintf(stdout, "apiserver %s\n", version.Version())
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

// parse reads the command line. Flags may stand before and after "serve".
func parse(args []string, options *config.Options, stdout io.Writer) (showVersion bool, err error) {
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
			return false, flag.ErrHelp
		case err != nil:
			return false, &wrongUse{fmt.Errorf("%w (see apiserver -h)", err)}
		case flags.NArg() == 0:
			return showVersion, nil
		case pass > 0 || flags.Arg(0) != "serve":
			return false, &wrongUse{fmt.Errorf("there is no command %q, only serve (see apiserver -h)", flags.Arg(0))}
		}
		args = flags.Args()[1:]
	}
}
