package main

import (
	"context"
	"flag"
	"fmt"
	"strconv"
	"strings"

	"github.com/postroom/postroom/core/libsql"
	"github.com/postroom/postroom/core/wiring"
)

// migrateUp is `migrate up`.
func migrateUp(c *call, _ *flag.FlagSet) action {
	return func(ctx context.Context, _ []string) error {
		return c.migrate(ctx, func(opt libsql.Options, _ libsql.SchemaStatus) error {
			return libsql.Migrate(ctx, opt)
		})
	}
}

// migrateDown is `migrate down N` or `migrate down -all`.
func migrateDown(c *call, flags *flag.FlagSet) action {
	all := flags.Bool("all", false, "take back every migration: all data is lost")
	return func(ctx context.Context, args []string) error {
		steps := 0 // all of them to MigrateDown
		switch {
		case *all == (len(args) == 1):
			return wrongUse("how far? give the number of migrations to take back, or -all")
		case len(args) == 1:
			n, err := strconv.Atoi(args[0])
			if err != nil || n < 1 {
				return wrongUse("N must be a whole number from 1, not %s", quote(args[0]))
			}
			steps = n
		}
		return c.migrate(ctx, func(opt libsql.Options, before libsql.SchemaStatus) error {
			switch {
			case before.Version == 0 && wiring.IsMissing(opt.Path):
				return fmt.Errorf("there is no database at %s", quote(opt.Path))
			case before.Version == 0:
				return nil
			case int64(steps) > before.Version:
				return fmt.Errorf("only %d migrations are applied, fewer than %d; nothing was changed", before.Version, steps)
			}
			return libsql.MigrateDown(ctx, opt, steps)
		})
	}
}

// migrate changes the schema and says from where to where it went.
func (c *call) migrate(ctx context.Context, change func(libsql.Options, libsql.SchemaStatus) error) error {
	_, opt, err := c.database()
	if err != nil {
		return err
	}
	before, err := libsql.Schema(ctx, opt)
	if err != nil {
		return err
	}
	end := c.busy("changing the schema")
	err = change(opt, before)
	end()
	if err != nil {
		return err
	}
	after, err := libsql.Schema(ctx, opt)
	if err != nil {
		return err
	}
	if before.Version == after.Version {
		return c.printf("the schema is %d; nothing to do\n", after.Version)
	}
	return c.printf("the schema was %d and is %d now\n", before.Version, after.Version)
}

// migrateStatus is `migrate status`.
func migrateStatus(c *call, flags *flag.FlagSet) action {
	asJSON := flags.Bool("json", false, "print JSON")
	return func(ctx context.Context, _ []string) error {
		_, opt, err := c.database()
		if err != nil {
			return err
		}
		st, err := libsql.Schema(ctx, opt)
		if err != nil {
			return err
		}
		if *asJSON {
			return c.printJSON(st)
		}
		pending := make([]string, len(st.Pending))
		for i, v := range st.Pending {
			pending[i] = strconv.FormatInt(v, 10)
		}
		if len(pending) == 0 {
			pending = []string{"none"}
		}
		return c.printf("version  %d\nlatest   %d\npending  %s\n", st.Version, st.Latest, strings.Join(pending, ", "))
	}
}
