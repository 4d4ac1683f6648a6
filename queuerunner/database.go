package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/postroom/postroom/core/config"
	"github.com/postroom/postroom/core/job"
	"github.com/postroom/postroom/core/libsql"
	"github.com/postroom/postroom/core/mail"
	"github.com/postroom/postroom/core/queue"
	"github.com/postroom/postroom/core/system"
	"github.com/postroom/postroom/core/wiring"
)

// database returns the configuration and what the database is opened with.
func (c *call) database() (*config.Loaded, libsql.Options, error) {
	cfg, err := c.config()
	if err != nil {
		return nil, libsql.Options{}, err
	}
	opt, err := wiring.DatabaseOptions(cfg, c.options.Lookup)
	return cfg, opt, err
}

// withDatabase opens the configured database for one command.
func (c *call) withDatabase(ctx context.Context, use func(*config.Loaded, libsql.DB) error, change ...func(*libsql.Options)) error {
	cfg, opt, err := c.database()
	if err != nil {
		return err
	}
	for _, ch := range change {
		ch(&opt)
	}
	if err := wiring.CheckSchema(ctx, opt); err != nil {
		return err
	}
	db, err := libsql.Open(ctx, opt)
	if err != nil {
		return fmt.Errorf("open the database: %w", err)
	}
	return errors.Join(use(cfg, db), wiring.CloseDatabase(ctx, db))
}

// withQueue opens the configured database for one command on jobs.
func (c *call) withQueue(ctx context.Context, use func(*queue.Queue) error) error {
	return c.withDatabase(ctx, func(_ *config.Loaded, db libsql.DB) error {
		return use(queue.New(db, system.Real{}, job.Known()))
	})
}

// withStore opens the configured database for one command on the mail side.
func (c *call) withStore(ctx context.Context, use func(*mail.Store) error, change ...func(*libsql.Options)) error {
	return c.withDatabase(ctx, func(cfg *config.Loaded, db libsql.DB) error {
		return use(mail.NewStore(db, queue.New(db, system.Real{}, job.Known()), wiring.MailPolicy(cfg)))
	}, change...)
}
