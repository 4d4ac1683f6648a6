package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"github.com/postroom/postroom/core/config"
	"github.com/postroom/postroom/core/job"
	"github.com/postroom/postroom/core/libsql"
	"github.com/postroom/postroom/core/mail"
	"github.com/postroom/postroom/core/mail/agent"
	"github.com/postroom/postroom/core/queue"
	"github.com/postroom/postroom/core/system"
	"github.com/postroom/postroom/core/telemetry"
	"github.com/postroom/postroom/core/version"
	"github.com/postroom/postroom/core/wiring"
	"github.com/postroom/postroom/core/worker"
)

// runCommand is `run`.
func runCommand(c *call, _ *flag.FlagSet) action {
	return func(ctx context.Context, _ []string) error {
		cfg, err := c.config()
		if err != nil {
			return err
		}
		if err := refused(runProblems(cfg, c.options.Lookup)); err != nil {
			return err
		}
		opt, err := wiring.DatabaseOptions(cfg, c.options.Lookup)
		if err != nil {
			return err
		}
		sys := system.Skew(system.Real{}, cfg.Queue.ClockOffset.Duration)
		opt.System = sys
		r := &runner{cfg: cfg, database: opt, sys: sys, types: job.Known(), lookup: c.options.Lookup, self: self(sys)}
		r.log, err = telemetry.NewLogger(c.stderr, cfg.Log.Level, cfg.LogFormat(telemetry.IsTerminal(c.stderr)),
			"service", cfg.App.ServiceName, "runner", r.self.ID)
		if err != nil {
			return wrongUse("%s", err)
		}
		wiring.WarnOfKeys(cfg, r.log)
		ctx, hurry, stop := system.StopSignals(ctx)
		defer stop()
		if err := r.run(ctx, hurry); err != nil {
			r.log.Error().Err(err).Msg("queuerunner gives up")
			var use *useError
			if errors.As(err, &use) {
				return reported(exitWrong)
			}
			return reported(exitFailed)
		}
		r.log.Info().Msg("queuerunner stopped")
		return nil
	}
}

// runner is one start of `queuerunner run`.
type runner struct {
	cfg      *config.Loaded
	database libsql.Options
	sys      system.System
	types    job.Types
	log      zerolog.Logger
	lookup   func(string) (string, bool)
	self     queue.Runner
}

// run works until ctx ends, then stops in order; hurry cuts that short.
func (r *runner) run(ctx context.Context, hurry <-chan struct{}) error {
	page, flush, err := wiring.StartTelemetry(ctx, r.cfg, r.lookup, r.self.ID, r.log)
	if err != nil {
		return wrongUse("%s", err)
	}
	defer flush()

	own, err := listen(ctx, r.cfg, r.log, r.self.Version, page)
	if err != nil {
		return err
	}
	defer own.close()

	manager := wiring.NewManager(r.lookup, r.log)
	manager.Waiting("the database")
	defer context.AfterFunc(ctx, manager.Stopping)()
	db, schema, err := wiring.Open(ctx, r.cfg, r.database, r.log)
	if ctx.Err() != nil && err != nil {
		return nil // told to stop before there was anything to do
	}
	if err != nil {
		return err
	}
	own.opened(db, schema)
	defer func() {
		if err := wiring.CloseDatabase(ctx, db); err != nil {
			r.log.Warn().Err(err).Msg("the database was left unclosed")
		}
	}()

	q := queue.New(db, r.sys, r.types)
	if err := q.ObserveDepth(); err != nil {
		return err
	}
	mailAgent := agent.New(ctx, mail.NewStore(db, q, wiring.MailPolicy(r.cfg)), q, r.log, agent.Config{SyncInterval: r.cfg.Mail.SyncInterval.Duration})
	if err := r.seedLimits(ctx, q); err != nil {
		return err
	}
	w, err := r.worker(q, handlers(r.cfg, mailAgent))
	if err != nil {
		return err
	}

	var beside sync.WaitGroup
	done := make(chan struct{})
	defer beside.Wait()
	defer close(done)
	keeping, stop := context.WithCancel(ctx)
	defer stop()
	beside.Go(func() {
		r.ensureAccounts(keeping, mailAgent)
		mailAgent.Keep(keeping)
	})
	beside.Go(func() {
		select {
		case <-hurry:
			w.Hurry()
		case <-done:
		}
	})
	r.log.Info().Str("version", r.self.Version).Int("concurrency", r.cfg.Queue.Concurrency).
		Strs("queues", r.cfg.Queue.Queues).Bool("debug_jobs", r.cfg.Queue.DebugJobs).Msg("queuerunner works")
	manager.Ready()
	watched, unwatch := context.WithCancel(context.WithoutCancel(ctx)) // to the end of the drain
	defer unwatch()
	go manager.Watch(watched, func(ctx context.Context) error {
		w.Running() // takes the lock that all of its loops share
		return own.alive(ctx)
	})
	return w.Run(ctx)
}

// eager is how soon a runner that had work looks for more at a server, which
// does not tell of what others store.
const eager = 20 * time.Millisecond

func (r *runner) worker(q *queue.Queue, bindings []worker.Binding) (*worker.Worker, error) {
	c := r.cfg.Queue
	queues := c.Queues
	if len(queues) == 0 {
		queues = nil // all
	}
	return worker.New(q, r.log, worker.Config{
		Runner: r.self, Queues: queues, Concurrency: c.Concurrency, Lease: c.Lease.Duration,
		Heartbeat: c.Heartbeat.Duration, Poll: c.Poll.Duration, Eager: eager, DrainTimeout: cmp.Or(c.DrainTimeout.Duration, -1), // 0 is none
		Retention: queue.Retention{
			Completed: c.RetentionCompleted.Duration, Canceled: c.RetentionCanceled.Duration, Failed: c.RetentionFailed.Duration,
		},
	}, bindings...)
}

// ensureAccounts wakes the accounts: mail may have come while nobody watched.
func (r *runner) ensureAccounts(ctx context.Context, a *agent.Agent) {
	err := wiring.Persist(ctx, r.sys, r.log, "wake the accounts", func() error { return a.Ensure(ctx) })
	if err != nil && ctx.Err() == nil {
		r.log.Error().Err(err).Msg("the accounts were not woken; they are synced when their time comes")
	}
}

// seedLimits brings configured limits that are new or have changed into the
// database, before the first job is claimed.
func (r *runner) seedLimits(ctx context.Context, q *queue.Queue) error {
	limits := configuredLimits(r.cfg.Queue.Limits)
	err := wiring.Persist(ctx, r.sys, r.log, "apply the limits", func() error { return q.SeedLimits(ctx, limits) })
	if ctx.Err() != nil {
		return nil // told to stop before there was anything to do
	}
	return err
}

func configuredLimits(c config.Limits) []queue.Limit {
	var out []queue.Limit
	add := func(scope string, most map[string]int) {
		for _, name := range slices.Sorted(maps.Keys(most)) {
			n := int64(most[name])
			out = append(out, queue.Limit{Scope: scope, Name: name, MaxRunning: &n})
		}
	}
	add(queue.LimitQueue, c.Queues)
	add(queue.LimitType, c.Types)
	add(queue.LimitKey, c.Keys)
	for _, name := range slices.Sorted(maps.Keys(c.Intervals)) {
		interval := c.Intervals[name].Duration
		if i := slices.IndexFunc(out, func(l queue.Limit) bool { return l.Scope == queue.LimitKey && l.Name == name }); i >= 0 {
			out[i].Interval = interval
		} else {
			out = append(out, queue.Limit{Scope: queue.LimitKey, Name: name, Interval: interval})
		}
	}
	return out
}

// self describes this start of the program.
func self(sys system.System) queue.Runner {
	r := worker.Self(sys)
	r.Version = version.Version()
	return r
}
