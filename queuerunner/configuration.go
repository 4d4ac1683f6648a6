package main

import (
	"context"
	"flag"

	"github.com/postroom/postroom/core/fault"
)

// configCheck is `config check`: what the services refuse at their start is
// refused here too.
func configCheck(c *call, _ *flag.FlagSet) action {
	return func(context.Context, []string) error {
		cfg, err := c.config()
		if err != nil {
			return err
		}
		problems := append(runProblems(cfg, c.options.Lookup), bindProblems(cfg, apiKey, cfg.App.Host)...)
		if err := refused(problems); err != nil {
			return err
		}
		if err := c.printf("configuration is fine\n"); err != nil {
			return err
		}
		for _, r := range cfg.Reserved() {
			if err := c.printf("%s (%s) is reserved: nothing acts on it yet\n", r.Key, r.Origin); err != nil {
				return err
			}
		}
		if cfg.Undurable() {
			if err := c.printf("database.admin_url is not set, so the server decides whether it syncs each commit; sqld does not\n"); err != nil {
				return err
			}
		}
		for _, k := range cfg.Rehearsing() {
			if err := c.printf("WARNING: %s (%s) is set: %s\n", k.Key, k.Origin, fault.Warning); err != nil {
				return err
			}
		}
		return nil
	}
}

// configPrint is `config print`.
func configPrint(c *call, flags *flag.FlagSet) action {
	asJSON := flags.Bool("json", false, "print JSON")
	return func(context.Context, []string) error {
		cfg, err := c.config()
		if err != nil {
			return err
		}
		if *asJSON {
			return cfg.PrintJSON(c.stdout)
		}
		return cfg.Print(c.stdout)
	}
}
