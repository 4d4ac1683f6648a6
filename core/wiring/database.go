package wiring

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"time"

	"github.com/rs/zerolog"

	"github.com/postroom/postroom/core/config"
	"github.com/postroom/postroom/core/fault"
	"github.com/postroom/postroom/core/httpd"
	"github.com/postroom/postroom/core/libsql"
	"github.com/postroom/postroom/core/system"
)

// The waits between tries to reach a database that is away.
const (
	firstWait   = 100 * time.Millisecond
	longestWait = 5 * time.Second
)

// closeBound is how long the database may take to finish its last commit.
const closeBound = 5 * time.Second

// Open opens the database for a service, brings its schema up to date if the
// configuration says so, puts the rehearsed faults on it and watches its write
// lock and its commits. It also returns the schema that this program needs. A database that is
// away is waited for until ctx ends; one that no waiting mends is an error.
func Open(ctx context.Context, cfg *config.Loaded, opt libsql.Options, log zerolog.Logger) (db libsql.DB, schema int64, err error) {
	if opt.OnCommit, opt.OnError, err = storageMetrics(); err != nil {
		return nil, 0, err
	}
	var st libsql.SchemaStatus
	err = Persist(ctx, opt.System, log, "open the database", func() (err error) {
		if cfg.Database.AutoMigrate {
			err = libsql.Migrate(ctx, opt)
		} else {
			err = CheckSchema(ctx, opt)
		}
		if err == nil {
			st, err = libsql.Schema(ctx, opt)
		}
		if err == nil {
			db, err = libsql.Open(ctx, opt)
		}
		return err
	})
	if err != nil {
		return nil, 0, fmt.Errorf("open the database: %w", err)
	}
	if seed := cfg.Queue.FaultSeed; seed != 0 {
		db = fault.New(db, seed, opt.System, log)
	}
	if got := db.Durability(); cfg.Database.Synchronous == "full" && got != libsql.DurabilityFull {
		log.Warn().Str("durability", got).Msg(config.DurabilityWarning)
	}
	if err := httpd.ObserveWriter(db); err != nil {
		return nil, 0, errors.Join(err, CloseDatabase(ctx, db))
	}
	return db, st.Latest, nil
}

// CloseDatabase finishes what is pending, bounded, even when ctx has ended.
func CloseDatabase(ctx context.Context, db libsql.DB) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeBound)
	defer cancel()
	if err := db.Close(ctx); err != nil {
		return fmt.Errorf("close the database; nothing that was committed is lost: %w", err)
	}
	return nil
}

// CheckSchema refuses a database that this program cannot work with as it is,
// and names the command that mends it.
func CheckSchema(ctx context.Context, opt libsql.Options) error {
	st, err := libsql.Schema(ctx, opt)
	switch {
	case err != nil:
		return fmt.Errorf("read the schema's version: %w", err)
	case st.MinCompatible > st.Latest:
		return libsql.ErrIncompatible
	case st.Version == 0 && IsMissing(opt.Path):
		return fmt.Errorf("there is no database at %s: run `queuerunner migrate up` to create it", strconv.Quote(opt.Path))
	case st.Version == 0:
		return fmt.Errorf("the database at %s is empty: run `queuerunner migrate up`", strconv.Quote(opt.Path))
	case st.Version < st.Latest:
		return fmt.Errorf("the database's schema is %d and this program needs %d: run `queuerunner migrate up`", st.Version, st.Latest)
	}
	return nil
}

// IsMissing says whether path is a file that is not there.
func IsMissing(path string) bool {
	if libsql.IsRemote(path) {
		return false
	}
	_, err := os.Stat(path)
	return errors.Is(err, fs.ErrNotExist)
}

// Persist repeats a call that the database did not answer, ever more rarely,
// until it succeeds, ctx ends, or trying again would not help.
func Persist(ctx context.Context, sys system.System, log zerolog.Logger, doing string, call func() error) error {
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

// NotOpen stands for the database until it is open. Health checks ask it
// nothing else.
type NotOpen struct{ libsql.DB }

// ErrNotOpen is what a caller is told before the database is open.
var ErrNotOpen = &libsql.Error{Class: libsql.Unavailable, Op: "open"}

// Health implements [libsql.DB].
func (NotOpen) Health(context.Context) (int64, error) { return 0, ErrNotOpen }

// Durability implements [libsql.DB].
func (NotOpen) Durability() string { return libsql.DurabilityUnknown }

// ProbeWriter implements [libsql.DB].
func (NotOpen) ProbeWriter(context.Context) (time.Duration, error) { return 0, ErrNotOpen }
