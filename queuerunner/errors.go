package main

import (
	"errors"
	"flag"
	"fmt"
	"strings"

	"github.com/postroom/postroom/core/config"
	"github.com/postroom/postroom/core/job"
)

// useError is wrong use of the command line.
type useError struct{ text string }

func (e *useError) Error() string { return e.text }

func wrongUse(format string, args ...any) error { return &useError{fmt.Sprintf(format, args...)} }

// reported is an error that was shown already, in the log or as the output
// proper, and its exit code.
type reported int

func (r reported) Error() string { return "reported already" }

// exitCode shows err on stderr, where it was not yet, and turns it into the
// exit code.
func (c *call) exitCode(err error) int {
	var (
		problems *config.Problems
		use      *useError
		invalid  *job.Invalid
		shown    reported
	)
	switch {
	case err == nil:
		return exitFine
	case errors.As(err, &shown):
		return int(shown)
	case errors.As(err, &problems):
		for _, p := range problems.List {
			c.note("%s", p)
		}
		return exitWrong
	case errors.As(err, &use):
		c.note("%s: %s\n%s -h shows how it is used", c.name, use.text, c.name)
		return exitWrong
	case errors.As(err, &invalid):
		c.note("%s: %s", c.name, printable(err.Error()))
		return exitWrong
	}
	c.note("%s: %s", c.name, printable(err.Error()))
	return exitFailed
}

// helpOr answers -h with help and any other error of package flag as wrong use,
// with the flag that was probably meant.
func (c *call) helpOr(err error, flags *flag.FlagSet, help func() error) error {
	if errors.Is(err, flag.ErrHelp) {
		return help()
	}
	if name, unknown := strings.CutPrefix(err.Error(), "flag provided but not defined: -"); unknown {
		best, least := "", 3 // as for commands
		flags.VisitAll(func(f *flag.Flag) {
			if d := distance(name, f.Name); d < least && d < len(f.Name) {
				best, least = f.Name, d
			}
		})
		if best != "" {
			return wrongUse("%s: did you mean -%s?", printable(err.Error()), best)
		}
	}
	return wrongUse("%s", printable(err.Error()))
}

// asFlags turns the field of an invalid value into the flag that set it.
func asFlags(err error) error {
	var invalid *job.Invalid
	if !errors.As(err, &invalid) {
		return err
	}
	field := strings.TrimPrefix(invalid.Field, "config.") // of an account
	field = strings.TrimPrefix(field, "parameters.")      // of an action
	name := "-" + strings.ReplaceAll(field, "_", "-")
	switch field {
	case "type", "schedule", "scope", "name":
		name = strings.ToUpper(field)
	case "action_type":
		name = "TYPE"
	case "idempotency_key":
		name = "-key"
	}
	return &job.Invalid{Field: name, Code: invalid.Code, Reason: invalid.Reason}
}
