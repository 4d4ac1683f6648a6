package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"github.com/postroom/postroom/core/config"
	"github.com/postroom/postroom/core/fault"
	"github.com/postroom/postroom/core/httpd"
	"github.com/postroom/postroom/core/job"
	"github.com/postroom/postroom/core/libsql"
	"github.com/postroom/postroom/core/mail"
	"github.com/postroom/postroom/core/queue"
	"github.com/postroom/postroom/core/system"
	"github.com/postroom/postroom/core/telemetry"
	"github.com/postroom/postroom/core/version"
)

// The bounds of a shutdown, beside app.drain_delay.
const (
	requestBound = 15 * time.Second // for requests that are being answered
	closeBound   = 5 * time.Second  // for the database's last commit
)

// serve is `apiserver serve`: it reads as the wiring of the service.
func serve(ctx context.Context, options config.Options, stderr io.Writer) error {
	cfg, err := config.Load(options)
	if err != nil {
		return &wrongUse{err}
	}
	tokens := cfg.API.Accepted()
	if err := httpd.CheckBind(cfg.App.Host, len(tokens) > 0); err != nil {
		return &wrongUse{fmt.Errorf("app.host (%s): %w", cfg.Origin("app.host"), err)}
	}
	opt, err := databaseOptions(cfg, options.Lookup)
	if err != nil {
		return &wrongUse{err}
	}
	log, err := telemetry.NewLogger(stderr, cfg.Log.Level, cfg.LogFormat(telemetry.IsTerminal(stderr)), "service", cfg.App.ServiceName)
	if err != nil {
		return &wrongUse{err}
	}
	for _, r := range cfg.Reserved() {
		log.Warn().Str("key", r.Key).Str("origin", r.Origin).Msg("this key is reserved: nothing acts on it yet")
	}
	for _, k := range cfg.Rehearsing() {
		log.Warn().Str("key", k.Key).Str("origin", k.Origin).Msg(fault.Warning)
	}
	tel, err := startTelemetry(ctx, cfg, options.Lookup, log)
	if err != nil {
		return &wrongUse{err}
	}
	defer func() {
		if err := tel.Shutdown(context.WithoutCancel(ctx)); err != nil { // bounds itself
			log.Warn().Err(err).Msg("telemetry was not flushed")
		}
	}()
	ctx, hurry, stop := system.StopSignals(ctx)
	defer stop()

	sys := system.Skew(system.Real{}, cfg.Queue.ClockOffset.Duration)
	opt.System = sys
	opt.Settle = true // who follows the events must learn of a restore although nobody writes
	db, schema, err := openDatabase(ctx, opt, cfg.Database.AutoMigrate)
	if err != nil {
		return err
	}
	if seed := cfg.Queue.FaultSeed; seed != 0 {
		db = fault.New(db, seed, sys, log)
	}
	defer closeDatabase(ctx, db, log)
	warnOfDurability(log, cfg, db)
	if err := httpd.ObserveWriter(db); err != nil {
		return err
	}

	q := queue.New(db, sys, job.Known())
	events := queue.NewEvents(q, func(err error) {
		if err == nil {
			log.Info().Msg("the log of transitions can be read again")
			return
		}
		log.Error().Err(err).Str("class", string(libsql.ClassOf(err))).Msg("the log of transitions cannot be read; trying again")
	})
	defer events.Close()
	var draining atomic.Bool
	handler, err := newHandler(service{
		queue: q, events: events, heartbeat: heartbeat, mail: mail.NewStore(db, q, policy(cfg)), log: log,
		health:  httpd.Health{DB: db, Version: version.Version(), Schema: schema, Draining: draining.Load},
		maxBody: cfg.API.MaxBody, maxMessage: cfg.API.MaxMessage,
		tokens: tokens, origins: cfg.API.AllowedOrigins,
	})
	if err != nil {
		return err
	}
	listener, err := httpd.Listen(net.JoinHostPort(cfg.App.Host, strconv.Itoa(cfg.App.Port)), "app.port")
	if err != nil {
		return err
	}
	server := httpd.NewServer(handler, log)
	server.RegisterOnShutdown(events.Close) // a stream has no end of its own to wait for
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(listener) }()
	log.Info().Str("address", listener.Addr().String()).Str("version", version.Version()).Msg("listening")

	select {
	case err := <-failed:
		return fmt.Errorf("serve %s: %w", listener.Addr(), err)
	case <-ctx.Done():
	}
	draining.Store(true)
	log.Info().Stringer("for", cfg.App.DrainDelay.Duration).Msg("draining")
	drain(ctx, server, cfg.App.DrainDelay.Duration, hurry, log)
	log.Info().Msg("apiserver stopped")
	return nil
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

func startTelemetry(ctx context.Context, cfg *config.Loaded, lookup func(string) (string, bool), log zerolog.Logger) (*telemetry.Telemetry, error) {
	t := cfg.Telemetry
	return telemetry.Start(ctx, telemetry.Config{
		ServiceName: cfg.App.ServiceName, Version: version.Version(), Environment: cfg.App.Env,
		Endpoint: t.OTLPEndpoint, Protocol: t.OTLPProtocol, ExportTraces: t.ExportTraces, SampleRatio: t.SampleRatio,
		Lookup: lookup,
	}, log)
}

// policy turns the configuration's section into what the mail side takes.
func policy(cfg *config.Loaded) mail.Policy {
	p := cfg.Policy
	return mail.Policy{ApprovalAlways: p.ApprovalAlways, Confidence: p.ConfidenceDefault, ApprovalExpiry: p.ApprovalExpiry.Duration}
}

// databaseOptions turns the configuration into what the storage face takes.
func databaseOptions(cfg *config.Loaded, lookup func(string) (string, bool)) (libsql.Options, error) {
	home, _ := lookup("HOME")
	path, err := cfg.Paths.Location(home)
	if err != nil {
		return libsql.Options{}, fmt.Errorf("paths.database (%s): %w", cfg.Origin("paths.database"), err)
	}
	d := cfg.Database
	return libsql.Options{
		Path: path, AuthToken: d.Token, CA: d.TLSCA, ServerName: d.TLSServerName, Admin: d.AdminURL, Synchronous: d.Synchronous, Readers: d.Readers,
		BusyTimeout: d.BusyTimeout.Duration, CallTimeout: d.CallTimeout.Duration,
		RetryTimes: d.RetryAttempts - 1, // the first try is no repeat
		RetryBase:  d.RetryBase.Duration, RetryMax: d.RetryMax.Duration,
	}, nil
}

// openDatabase brings the schema up to date, unless that is somebody else's
// task, and opens the database. It also returns the schema this program needs.
func openDatabase(ctx context.Context, opt libsql.Options, migrate bool) (db libsql.DB, schema int64, err error) {
	if migrate {
		if err := libsql.Migrate(ctx, opt); err != nil {
			return nil, 0, fmt.Errorf("migrate the database: %w", err)
		}
	}
	status, err := libsql.Schema(ctx, opt)
	switch {
	case err != nil:
		return nil, 0, fmt.Errorf("read the schema's version: %w", err)
	case status.MinCompatible > status.Latest:
		return nil, 0, libsql.ErrIncompatible
	case status.Version < status.Latest:
		return nil, 0, fmt.Errorf("the database's schema is %d and this program needs %d: run `queuerunner migrate up`", status.Version, status.Latest)
	}
	if db, err = libsql.Open(ctx, opt); err != nil {
		return nil, 0, fmt.Errorf("open the database: %w", err)
	}
	return db, status.Latest, nil
}

// warnOfDurability says once that commits are not what was asked for.
func warnOfDurability(log zerolog.Logger, cfg *config.Loaded, db libsql.DB) {
	if got := db.Durability(); cfg.Database.Synchronous == "full" && got != libsql.DurabilityFull {
		log.Warn().Str("durability", got).Msg(config.DurabilityWarning)
	}
}

func closeDatabase(ctx context.Context, db libsql.DB, log zerolog.Logger) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeBound)
	defer cancel()
	if err := db.Close(ctx); err != nil && !errors.Is(err, context.Canceled) {
		log.Warn().Err(err).Msg("the database was left unclosed; nothing that was committed is lost")
	}
}
