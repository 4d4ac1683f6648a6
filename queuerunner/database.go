package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/postroom/postroom/core/config"
	"github.com/postroom/postroom/core/job"
	"github.com/postroom/postroom/core/libsql"
	"github.com/postroom/postroom/core/queue"
	"github.com/postroom/postroom/core/system"
)

// closeBound is how long the database may take to finish its last commit.
const closeBound = 5 * time.Second

// databaseOptions turns the configuration's paths and database sections into
// what the storage face takes.
func databaseOptions(cfg *config.Loaded, lookup func(string) (string, bool)) (libsql.Options, error) {
	home, _ := lookup("HOME")
	path, err := cfg.Paths.Location(home)
	if err != nil {
		return libsql.Options{}, &config.Problems{List: []config.Problem{{
			Where: cfg.Origin("paths.database"), Key: "paths.database", What: err.Error(), Want: "the path of a file or the URL of a server",
		}}}
	}
	d := cfg.Database
	return libsql.Options{
		Path:        path,
		AuthToken:   d.Token,
		CA:          d.TLSCA,
		ServerName:  d.TLSServerName,
		Admin:       d.AdminURL,
		Synchronous: d.Synchronous,
		Readers:     d.Readers,
		BusyTimeout: d.BusyTimeout.Duration,
		CallTimeout: d.CallTimeout.Duration,
		RetryTimes:  d.RetryAttempts - 1, // the first try is no repeat
		RetryBase:   d.RetryBase.Duration,
		RetryMax:    d.RetryMax.Duration,
	}, nil
}

// checkSchema refuses a database that this program cannot work with as it is,
// and names the command that mends it.
func checkSchema(ctx context.Context, opt libsql.Options) error {
	st, err := libsql.Schema(ctx, opt)
	switch {
	case err != nil:
		return fmt.Errorf("read the schema's version: %w", err)
	case st.MinCompatible > st.Latest:
		return libsql.ErrIncompatible
	case st.Version == 0 && isMissing(opt.Path):
		return &schemaError{fmt.Sprintf("there is no database at %s: run `queuerunner migrate up` to create it", quote(opt.Path))}
	case st.Version == 0:
		return &schemaError{fmt.Sprintf("the database at %s is empty: run `queuerunner migrate up`", quote(opt.Path))}
	case st.Version < st.Latest:
		return &schemaError{fmt.Sprintf("the database's schema is %d and this program needs %d: run `queuerunner migrate up`", st.Version, st.Latest)}
	}
	return nil
}

// schemaError is a schema that a person has to bring up to date.
type schemaError struct{ text string }

func (e *schemaError) Error() string { return e.text }

func isMissing(path string) bool {
	if libsql.IsRemote(path) {
		return false
	}
	_, err := os.Stat(path)
	return errors.Is(err, fs.ErrNotExist)
}

// withDatabase opens the configured database for one command.
func (c *call) withDatabase(ctx context.Context, use func(*config.Loaded, libsql.DB) error, change ...func(*libsql.Options)) error {
	cfg, err := c.config()
	if err != nil {
		return err
	}
	opt, err := databaseOptions(cfg, c.options.Lookup)
	if err != nil {
		return err
	}
	for _, ch := range change {
		ch(&opt)
	}
	if err := checkSchema(ctx, opt); err != nil {
		return err
	}
	db, err := libsql.Open(ctx, opt)
	if err != nil {
		return fmt.Errorf("open the database: %w", err)
	}
	return errors.Join(use(cfg, db), closeDatabase(ctx, db))
}

// withQueue opens the configured database for one command on jobs.
func (c *call) withQueue(ctx context.Context, use func(*queue.Queue) error) error {
	return c.withDatabase(ctx, func(_ *config.Loaded, db libsql.DB) error {
		return use(queue.New(db, system.Real{}, job.Known()))
	})
}

// closeDatabase finishes what is pending, bounded, even when ctx has ended.
func closeDatabase(ctx context.Context, db libsql.DB) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeBound)
	defer cancel()
	if err := db.Close(ctx); err != nil {
		return fmt.Errorf("close the database: %w", err)
	}
	return nil
}
