package main

import (
	"context"
	"time"

	"github.com/rs/zerolog"

	"github.com/postroom/postroom/core/libsql"
	"github.com/postroom/postroom/core/system"
)

// The waits between tries to reach a database that is away.
const (
	firstWait   = 100 * time.Millisecond
	longestWait = 5 * time.Second
)

// attach opens the database, whose schema it brings up to date if migrate
// says so, and returns it with the schema this program needs. A database that
// is away is waited for until ctx ends; one that no waiting mends is an error.
func attach(ctx context.Context, sys system.System, log zerolog.Logger, opt libsql.Options, migrate bool) (libsql.DB, int64, error) {
	var db libsql.DB
	var st libsql.SchemaStatus
	err := persist(ctx, sys, log, "open the database", func() (err error) {
		if migrate {
			err = libsql.Migrate(ctx, opt)
		} else {
			err = checkSchema(ctx, opt)
		}
		if err == nil {
			st, err = libsql.Schema(ctx, opt)
		}
		if err == nil {
			db, err = libsql.Open(ctx, opt)
		}
		return err
	})
	return db, st.Latest, err
}

// persist repeats a call that the database did not answer, ever more rarely,
// until it succeeds, ctx ends, or trying again would not help.
func persist(ctx context.Context, sys system.System, log zerolog.Logger, doing string, call func() error) error {
	said := ""
	for wait := firstWait; ; wait = min(2*wait, longestWait) {
		err := call()
		switch {
		case err == nil && said != "":
			log.Info().Str("doing", doing).Msg("the database answers again")
			return nil
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case !libsql.Transient(err):
			return err
		}
		if text := err.Error(); text != said {
			log.Warn().Err(err).Str("doing", doing).Str("class", string(libsql.ClassOf(err))).Msg("the database does not answer; trying again")
			said = text
		}
		t := sys.NewTimer(wait)
		select {
		case <-t.C():
		case <-ctx.Done():
			t.Stop()
			return context.Cause(ctx)
		}
	}
}
