package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"github.com/postroom/postroom/core/config"
	"github.com/postroom/postroom/core/httpd"
	"github.com/postroom/postroom/core/job"
	"github.com/postroom/postroom/core/libsql"
	"github.com/postroom/postroom/core/mail"
	"github.com/postroom/postroom/core/once"
	"github.com/postroom/postroom/core/queue"
	"github.com/postroom/postroom/core/system"
	"github.com/postroom/postroom/core/telemetry"
	"github.com/postroom/postroom/core/token"
	"github.com/postroom/postroom/core/version"
	"github.com/postroom/postroom/core/wiring"
)

// requestBound is how long requests that are being answered may take at a
// shutdown, after app.drain_delay.
const requestBound = 15 * time.Second

// serve is `apiserver serve`: it reads as the wiring of the service.
func serve(ctx context.Context, options config.Options, stderr io.Writer) error {
	cfg, err := config.Load(options)
	if err != nil {
		return &wrongUse{err}
	}
	tokens := token.NewKeyring(cfg.API.Accepted()...)
	if err := httpd.CheckBind(cfg.App.Host, !tokens.IsEmpty()); err != nil {
		return &wrongUse{fmt.Errorf("app.host (%s): %w", cfg.Origin("app.host"), err)}
	}
	opt, err := wiring.DatabaseOptions(cfg, options.Lookup)
	if err != nil {
		return &wrongUse{err}
	}
	log, err := telemetry.NewLogger(stderr, cfg.Log.Level, cfg.LogFormat(telemetry.IsTerminal(stderr)), "service", cfg.App.ServiceName)
	if err != nil {
		return &wrongUse{err}
	}
	wiring.WarnOfKeys(cfg, log)
	page, flush, err := wiring.StartTelemetry(ctx, cfg, options.Lookup, "", log)
	if err != nil {
		return &wrongUse{err}
	}
	defer flush()
	ctx, hurry, stop := system.StopSignals(ctx)
	defer stop()

	shown, err := cfg.Settings()
	if err != nil {
		return err
	}
	var draining atomic.Bool
	s := service{
		log: log, health: httpd.Health{DB: wiring.NotOpen{}, Version: version.Version(), Draining: draining.Load},
		metrics: page, settings: shown, heartbeat: heartbeat, maxBody: cfg.API.MaxBody, maxMessage: cfg.API.MaxMessage,
		tokens: tokens, origins: cfg.API.AllowedOrigins,
	}
	listener, err := httpd.Listen(net.JoinHostPort(cfg.App.Host, strconv.Itoa(cfg.App.Port)), "app.port")
	if err != nil {
		return err
	}
	front := newFront(s)
	server := httpd.NewServer(front, log)
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(listener) }()
	defer server.Close() // after a drain nothing is left to close
	address := listener.Addr().String()
	log.Info().Str("address", address).Str("version", version.Version()).Msg("answering health checks")

	opt.System = system.Skew(system.Real{}, cfg.Queue.ClockOffset.Duration)
	opt.Settle = true // who follows the events must learn of a restore although nobody writes
	manager := wiring.NewManager(options.Lookup, log)
	manager.Waiting("the database")
	db, schema, err := wiring.Open(ctx, cfg, opt, log)
	stored := token.Store{DB: db}
	if err == nil {
		defer func() {
			if err := wiring.CloseDatabase(ctx, db); err != nil {
				log.Warn().Err(err).Msg("the database was left unclosed")
			}
		}()
		err = wiring.Persist(ctx, opt.System, log, "read the tokens", func() error { return tokens.Refresh(ctx, stored) })
	}
	switch {
	case err == nil:
		go followTokens(ctx, tokens, stored, log)
		s.health.DB, s.health.Schema = db, schema
		s.queue = queue.New(noting{db}, opt.System, job.Known())
		if err := s.queue.ObserveDepth(); err != nil {
			return err
		}
		s.mail = mail.NewStore(noting{db}, s.queue, wiring.MailPolicy(cfg))
		s.answers = once.Store{DB: db}
		go pruneAnswers(ctx, s.answers, log)
		s.events = queue.NewEvents(s.queue, func(err error) {
			if err == nil {
				log.Info().Msg("the log of transitions can be read again")
				return
			}
			log.Error().Err(err).Str("class", string(libsql.ClassOf(err))).Msg("the log of transitions cannot be read; trying again")
		})
		defer s.events.Close()
		server.RegisterOnShutdown(s.events.Close) // a stream has no end of its own to wait for
		if err := front.open(s); err != nil {
			return err
		}
		log.Info().Str("address", address).Str("version", version.Version()).Msg("listening")
		manager.Ready()
		watched, unwatch := context.WithCancel(context.WithoutCancel(ctx)) // to the end of the drain
		defer unwatch()
		go manager.Watch(watched, func(ctx context.Context) error { return httpd.AskLive(ctx, address) })
	case ctx.Err() == nil:
		return err
	} // else it is told to stop before it has begun

	select {
	case err := <-failed:
		return fmt.Errorf("serve %s: %w", address, err)
	case <-ctx.Done():
	}
	draining.Store(true)
	manager.Stopping()
	log.Info().Stringer("for", cfg.App.DrainDelay.Duration).Msg("draining")
	drain(ctx, server, cfg.App.DrainDelay.Duration, hurry, log)
	log.Info().Msg("apiserver stopped")
	return nil
}

// tokensEvery is how often the stored tokens are read anew.
const tokensEvery = 3 * time.Second

// followTokens reads the stored tokens again and again until ctx ends. While
// that fails the last known ones are good.
func followTokens(ctx context.Context, tokens *token.Keyring, stored token.Store, log zerolog.Logger) {
	tick := time.NewTicker(tokensEvery)
	defer tick.Stop()
	fails := false
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		switch err := tokens.Refresh(ctx, stored); {
		case err == nil && fails:
			log.Info().Msg("the tokens can be read again")
			fails = false
		case err != nil && !fails && ctx.Err() == nil:
			log.Warn().Err(err).Str("class", string(libsql.ClassOf(err))).Msg("the tokens cannot be read; those that are known stay good")
			fails = true
		}
	}
}

// pruneEvery is how often answers are looked for that were kept long enough.
const pruneEvery = time.Hour

// pruneAnswers deletes answers that were kept long enough, until ctx ends.
func pruneAnswers(ctx context.Context, answers once.Store, log zerolog.Logger) {
	tick := time.NewTicker(pruneEvery)
	defer tick.Stop()
	for {
		if err := answers.Prune(ctx); err != nil && ctx.Err() == nil {
			log.Warn().Err(err).Str("class", string(libsql.ClassOf(err))).Msg("answers to requests with an Idempotency-Key stay longer than they must")
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// drain waits until load balancers have noticed, then lets requests end. A
// second signal cuts both short.
func drain(ctx context.Context, server *http.Server, delay time.Duration, hurry <-chan struct{}, log zerolog.Logger) {
	timer := time.NewTimer(delay)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-hurry:
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), requestBound)
	defer cancel()
	go func() {
		select {
		case <-hurry:
			cancel()
		case <-ctx.Done():
		}
	}()
	if err := server.Shutdown(ctx); err != nil {
		log.Warn().Msg("requests were cut off")
		_ = server.Close() // the listeners are closed already
	}
}
