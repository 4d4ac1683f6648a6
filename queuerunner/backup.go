package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/postroom/postroom/core/job"
	"github.com/postroom/postroom/core/libsql"
	"github.com/postroom/postroom/core/mail"
	"github.com/postroom/postroom/core/queue"
	"github.com/postroom/postroom/core/system"
	"github.com/postroom/postroom/core/telemetry"
	"github.com/postroom/postroom/core/wiring"
)

// backedUp is what a backup or a restore says at its end.
type backedUp struct {
	File     string `json:"file"`
	Bytes    int64  `json:"bytes"`
	Schema   int64  `json:"schema"`
	Verified *bool  `json:"verified,omitempty"`  // of a backup: its rows were held against the rules
	SetAside string `json:"set_aside,omitempty"` // of a restore: where the database before it lies
}

// backup is `backup`.
func backup(c *call, flags *flag.FlagSet) action {
	check := flags.Bool("verify", true, "hold the rows of the copy against the rules of the database, as verify does")
	asJSON := flags.Bool("json", false, "print JSON")
	return func(ctx context.Context, args []string) error {
		ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
		defer stop()
		to := args[0]
		_, opt, err := c.database()
		if err != nil {
			return err
		}
		switch st, err := libsql.Schema(ctx, opt); {
		case err != nil:
			return fmt.Errorf("read the schema's version: %w", err)
		case st.Version == 0:
			return fmt.Errorf("there is no database at %s", quote(opt.Path))
		}
		if _, err := os.Lstat(to); !errors.Is(err, fs.ErrNotExist) {
			if err == nil {
				err = fmt.Errorf("%s exists already: a backup overwrites nothing", quote(to))
			}
			return err
		}
		// It has its name only when it is whole, on the disk and checked.
		part := to + ".part"
		bar := c.newBar("copied")
		err = libsql.Backup(ctx, opt, part, bar.show)
		bar.end()
		if errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("%w: another backup to this name is under way, or one was cut off: then remove that file", err)
		}
		if err != nil {
			return err
		}
		out := backedUp{File: to}
		if err = c.examine(ctx, part, *check, &out); err == nil {
			err = libsql.Publish(part, to)
		}
		if err != nil {
			libsql.Discard(part)
			return err
		}
		if *asJSON {
			return c.printJSON(out)
		}
		how := "verified"
		if !*out.Verified {
			how = "checked by SQLite, not verified"
		}
		return c.printf("%s: %s, schema %d, %s\n", printable(to), megabytes(out.Bytes), out.Schema, how)
	}
}

// examine holds the rows of a copy against the rules, unless its schema is
// another one than this program knows the rules of.
func (c *call) examine(ctx context.Context, path string, wanted bool, out *backedUp) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	opt := libsql.Options{Path: path, CallTimeout: verifyBound, System: system.Real{}}
	st, err := libsql.Schema(ctx, opt)
	if err != nil {
		return err
	}
	out.Bytes, out.Schema, out.Verified = info.Size(), st.Version, new(bool)
	switch {
	case !wanted:
		return nil
	case st.Version != st.Latest:
		c.note("the schema is %d and this program knows the rules of %d: the copy was not verified", st.Version, st.Latest)
		return nil
	}
	db, err := libsql.Open(ctx, opt)
	if err != nil {
		return err
	}
	end := c.busy("verifying the copy")
	rep, err := mail.NewStore(db, queue.New(db, system.Real{}, job.Known()), mail.Policy{}).Verify(ctx)
	end()
	if err = errors.Join(err, wiring.CloseDatabase(ctx, db)); err != nil {
		return fmt.Errorf("verify the copy: %w", err)
	}
	if len(rep.Violations) > 0 {
		if err := c.printReport(rep); err != nil {
			return err
		}
		return errors.New("the database breaks its own rules, and so would the copy, which was removed; -verify=false keeps one all the same")
	}
	*out.Verified = true
	return nil
}

// restore is `restore`.
func restore(c *call, flags *flag.FlagSet) action {
	replace := flags.Bool("replace", false, "set the database aside that is there")
	asJSON := flags.Bool("json", false, "print JSON")
	return func(ctx context.Context, args []string) error {
		ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
		defer stop()
		_, opt, err := c.database()
		if err != nil {
			return err
		}
		bar := c.newBar("restored")
		done, err := libsql.Restore(ctx, opt, args[0], *replace, bar.show)
		bar.end()
		if done.Aside != "" {
			c.note("the database that was there is %s now", printable(done.Aside))
		}
		if err != nil {
			return err
		}
		out := backedUp{File: opt.Path, Bytes: done.Bytes, Schema: done.Schema, SetAside: done.Aside}
		if *asJSON {
			return c.printJSON(out)
		}
		return c.printf("%s: %s, schema %d\n", printable(opt.Path), megabytes(out.Bytes), out.Schema)
	}
}

func megabytes(n int64) string { return fmt.Sprintf("%.1f MB", float64(n)/1e6) }

// bar shows on a terminal how far a copy is.
type bar struct {
	c     *call
	verb  string
	live  bool
	shown time.Time
}

func (c *call) newBar(verb string) *bar {
	return &bar{c: c, verb: verb, live: telemetry.IsTerminal(c.stderr)}
}

func (b *bar) show(done, total int64) {
	if !b.live || done < total && time.Since(b.shown) < taskLook {
		return
	}
	b.shown = time.Now()
	_, _ = fmt.Fprintf(b.c.stderr, "\r%s%s of %s %s\x1b[K", drawBar(done, total), megabytes(done), megabytes(total), b.verb) // nowhere left to report it
}

func (b *bar) end() {
	if b.live && !b.shown.IsZero() {
		_, _ = fmt.Fprintln(b.c.stderr)
	}
}

// drawBar is "" while the total is not known.
func drawBar(done, total int64) string {
	const width = 30
	if total <= 0 {
		return ""
	}
	full := int(min(done, total) * width / total)
	return "[" + strings.Repeat("#", full) + strings.Repeat(".", width-full) + "] "
}
