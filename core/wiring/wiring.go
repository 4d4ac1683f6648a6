// Package wiring is what the wiring of every service has in common: from a
// loaded configuration to warnings, telemetry and an open database. It may
// import core/config, core/fault, core/httpd, core/libsql, core/mail,
// core/system, core/telemetry and core/version; nothing but the services'
// programs imports it.
package wiring

import (
	"context"
	"net/http"

	"github.com/rs/zerolog"

	"github.com/postroom/postroom/core/config"
	"github.com/postroom/postroom/core/fault"
	"github.com/postroom/postroom/core/libsql"
	"github.com/postroom/postroom/core/mail"
	"github.com/postroom/postroom/core/telemetry"
	"github.com/postroom/postroom/core/version"
)

// WarnOfKeys says which keys do nothing yet, and which do harm on purpose.
func WarnOfKeys(cfg *config.Loaded, log zerolog.Logger) {
	for _, r := range cfg.Reserved() {
		log.Warn().Str("key", r.Key).Str("origin", r.Origin).Msg("this key is reserved: nothing acts on it yet")
	}
	for _, k := range cfg.Rehearsing() {
		log.Warn().Str("key", k.Key).Str("origin", k.Origin).Msg(fault.Warning)
	}
}

// StartTelemetry starts what the configuration asks for. instance names this
// start of the program; it may be empty. page is where Prometheus reads the
// metrics. stop flushes within a bound of its own, also when ctx has ended. An
// error is one of the configuration.
func StartTelemetry(ctx context.Context, cfg *config.Loaded, lookup func(string) (string, bool), instance string, log zerolog.Logger) (page http.Handler, stop func(), err error) {
	t := cfg.Telemetry
	tel, err := telemetry.Start(ctx, telemetry.Config{
		ServiceName: cfg.App.ServiceName, Version: version.Version(), Environment: cfg.App.Env, InstanceID: instance,
		Endpoint: t.OTLPEndpoint, Protocol: t.OTLPProtocol, ExportTraces: t.ExportTraces, SampleRatio: t.SampleRatio,
		Lookup: lookup,
	}, log)
	if err != nil {
		return nil, nil, err
	}
	return tel.Metrics(), func() {
		if err := tel.Shutdown(context.WithoutCancel(ctx)); err != nil {
			log.Warn().Err(err).Msg("telemetry was not flushed")
		}
	}, nil
}

// MailPolicy turns the configuration's section into what the mail side takes.
func MailPolicy(cfg *config.Loaded) mail.Policy {
	p := cfg.Policy
	return mail.Policy{ApprovalAlways: p.ApprovalAlways, Confidence: p.ConfidenceDefault, ApprovalExpiry: p.ApprovalExpiry.Duration}
}

// DatabaseOptions turns the configuration's paths and database sections into
// what the storage face takes. Its error is *config.Problems.
func DatabaseOptions(cfg *config.Loaded, lookup func(string) (string, bool)) (libsql.Options, error) {
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
