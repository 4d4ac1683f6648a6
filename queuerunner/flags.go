package main

import (
	"flag"
	"fmt"
	"strconv"
	"time"
)

// Flags whose errors say what would be right, which those of package flag do
// not.

type (
	durationValue time.Duration
	intValue      int
)

func (d *durationValue) String() string { return time.Duration(*d).String() }

func (d *durationValue) Set(s string) error {
	v, err := time.ParseDuration(s)
	if err != nil {
		return fmt.Errorf("must be a duration such as 90s or 1h30m, not %s", quote(s))
	}
	*d = durationValue(v)
	return nil
}

func (n *intValue) String() string { return strconv.Itoa(int(*n)) }

func (n *intValue) Set(s string) error {
	v, err := strconv.Atoi(s)
	if err != nil {
		return fmt.Errorf("must be a whole number, not %s", quote(s))
	}
	*n = intValue(v)
	return nil
}

// timeFlag reads the value of a flag that names an instant; nothing is no time.
func timeFlag(name, value string) (time.Time, error) {
	if value == "" {
		return time.Time{}, nil
	}
	at, err := time.Parse(time.RFC3339, value)
	if err != nil {
		return at, wrongUse("-%s must be a time such as 2027-01-31T08:00:00Z, not %s", name, quote(value))
	}
	return at, nil
}

func durationFlag(flags *flag.FlagSet, d *time.Duration, name, usage string) {
	flags.Var((*durationValue)(d), name, usage)
}

func intFlag(flags *flag.FlagSet, n *int, name, usage string) {
	flags.Var((*intValue)(n), name, usage)
}

// limitFlag declares -limit of a list.
func limitFlag(flags *flag.FlagSet, n *int) {
	*n = defaultPage
	intFlag(flags, n, "limit", "how many to list, `N` from 1 to 200")
}
