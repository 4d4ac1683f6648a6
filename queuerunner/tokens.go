package main

import (
	"context"
	"flag"

	"github.com/postroom/postroom/core/config"
	"github.com/postroom/postroom/core/libsql"
	"github.com/postroom/postroom/core/token"
)

// tokensAdd is `tokens add`.
func tokensAdd(c *call, flags *flag.FlagSet) action {
	role := flags.String("role", "", "what it may do, `ROLE`: read, operate (change jobs, queues, messages and actions) or admin (also accounts, rules, limits and schedules); required")
	asJSON := flags.Bool("json", false, "print JSON")
	return func(ctx context.Context, args []string) error {
		if *role == "" {
			return wrongUse("-role is required: read, operate or admin")
		}
		return c.withTokens(ctx, func(s token.Store) error {
			secret, err := s.Add(ctx, args[0], token.Role(*role))
			if err != nil {
				return asFlags(err)
			}
			c.note("keep it: it is not shown again")
			if *asJSON {
				return c.printJSON(addedToken{args[0], token.Role(*role), secret})
			}
			return c.printf("%s\n", secret)
		})
	}
}

// addedToken is a new token, as JSON.
type addedToken struct {
	Name  string     `json:"name"`
	Role  token.Role `json:"role"`
	Token string     `json:"token"`
}

// tokensList is `tokens list`.
func tokensList(c *call, flags *flag.FlagSet) action {
	asJSON := flags.Bool("json", false, "print JSON")
	return func(ctx context.Context, _ []string) error {
		return c.withTokens(ctx, func(s token.Store) error {
			list, err := s.List(ctx)
			switch {
			case err != nil:
				return err
			case *asJSON:
				return c.printJSON(struct {
					Tokens []token.Token `json:"tokens"`
					Next   *string       `json:"next_cursor"` // always null: the list is whole
				}{Tokens: list})
			}
			t := newTable("NAME", "ROLE", "ADDED")
			for _, k := range list {
				t.row(short(k.Name), string(k.Role), instant(&k.CreatedAt))
			}
			return c.printf("%s", t)
		})
	}
}

// tokensRemove is `tokens remove`.
func tokensRemove(c *call, _ *flag.FlagSet) action {
	return func(ctx context.Context, args []string) error {
		if err := checkUTF8(args); err != nil {
			return err
		}
		return c.withTokens(ctx, func(s token.Store) error {
			if err := s.Remove(ctx, args[0]); err != nil {
				return err
			}
			return c.printf("the token %s is removed: services refuse it within 5s\n", printable(args[0]))
		})
	}
}

// withTokens opens the configured database for one command on tokens.
func (c *call) withTokens(ctx context.Context, use func(token.Store) error) error {
	return c.withDatabase(ctx, func(_ *config.Loaded, db libsql.DB) error { return use(token.Store{DB: db}) })
}
