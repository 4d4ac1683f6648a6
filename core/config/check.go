package config

import (
	"fmt"
	"math"
	"net"
	"net/netip"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// actionTypes are what an action may be, for policy.approval_always.
var actionTypes = []string{
	"archive", "apply_label", "remove_label", "mark_read", "mark_unread", "move", "trash", "restore", "none",
	"star", "unstar", "snooze", "delete", "forward", "auto_reply", "escalate",
}

// check judges the merged values: each by itself first, then those that must
// fit together. A key whose value was not understood is not judged again.
func (l *loader) check() {
	c := &l.out.Config
	l.checkServices(c)
	l.checkDatabase(c)
	l.checkQueue(c)
	l.checkPolicy(c.Policy)
	l.checkReserved(c)

	// Half a file says nothing about what fits together.
	if !l.whole {
		return
	}
	l.together(c.Database.BusyTimeout.Duration <= c.Database.CallTimeout.Duration,
		"longer than a whole call may take", "database.busy_timeout not above database.call_timeout",
		"database.busy_timeout", "database.call_timeout")
	l.together(c.Database.AuthToken.Reveal() == "" || c.Database.AuthTokenFile == "",
		"two tokens", "database.auth_token or database.auth_token_file", "database.auth_token", "database.auth_token_file")
	l.together(c.Database.RetryBase.Duration <= c.Database.RetryMax.Duration,
		"the first wait is longer than the longest", "database.retry_base not above database.retry_max",
		"database.retry_base", "database.retry_max")
	l.together(c.Queue.Heartbeat.Duration < c.Queue.Lease.Duration/2,
		"a single late heartbeat would lose the lease", "queue.heartbeat below half of queue.lease",
		"queue.heartbeat", "queue.lease")
	l.together((c.API.TLSCert == "") == (c.API.TLSKey == ""),
		"one half of a pair", "api.tls_cert and api.tls_key, or neither", "api.tls_cert", "api.tls_key")
	l.together(!c.Gmail.UsePubSub || c.Gmail.ProjectID != "" && c.Gmail.Subscription != "",
		"incomplete", "gmail.project_id and gmail.subscription when gmail.use_pubsub is true",
		"gmail.use_pubsub", "gmail.project_id", "gmail.subscription")
	if c.Queue.Heartbeat.Duration == 0 {
		c.Queue.Heartbeat.Duration = c.Queue.Lease.Duration / 3
	}
}

func (l *loader) checkServices(c *Config) {
	l.filled("app.service_name", c.App.ServiceName)
	l.oneOf("app.env", c.App.Env, "dev", "prod")
	l.that("app.host", isHost(c.App.Host), "not a host", "an IP address or a host name, without a port")
	l.number("app.port", int64(c.App.Port), 0, 65535)
	l.duration("app.drain_delay", c.App.DrainDelay, 0, time.Hour)

	if token := c.API.Token.Reveal(); token != "" {
		l.that("api.token", isToken(token), "not a bearer token", wantToken)
	}
	for i, token := range c.API.Tokens {
		l.that("api.tokens", isToken(token.Reveal()), fmt.Sprintf("item %d is not a bearer token", i+1), wantToken)
	}
	l.number("api.max_body", c.API.MaxBody, 1<<10, 1<<30)
	l.number("api.max_message", c.API.MaxMessage, 1, 25<<20)
	for i, origin := range c.API.AllowedOrigins {
		l.that("api.allowed_origins", isOrigin(origin), fmt.Sprintf("item %d is not an origin", i+1),
			"scheme://host or scheme://host:port, nothing after it")
	}
	l.duration("mail.sync_interval", c.Mail.SyncInterval, 10*time.Millisecond, 24*time.Hour)
	l.oneOf("log.level", c.Log.Level, "debug", "info", "warn", "error")
	l.oneOf("log.format", c.Log.Format, "json", "pretty")

	what := baseURLFault(c.Telemetry.OTLPEndpoint, "OTEL_EXPORTER_OTLP_HEADERS")
	l.that("telemetry.otlp_endpoint", what == "", what, "a base URL such as http://localhost:4318, or nothing")
	l.oneOf("telemetry.otlp_protocol", c.Telemetry.OTLPProtocol, "http/protobuf", "grpc")
	l.fraction("telemetry.sample_ratio", c.Telemetry.SampleRatio, 0, 1)
}

func (l *loader) checkDatabase(c *Config) {
	what := c.Paths.databaseFault()
	l.that("paths.database", what == "", what, "a path, file:PATH, or libsql://, http:// or https:// and a host")

	d := c.Database
	if token := d.AuthToken.Reveal(); token != "" {
		l.that("database.auth_token", isToken(token), "not a bearer token", wantToken)
	}
	l.that("database.tls_server_name", d.TLSServerName == "" || isHost(d.TLSServerName), "not a host", "a host name, without a port, or nothing")
	fault := baseURLFault(d.AdminURL, "nothing of Postroom's")
	l.that("database.admin_url", fault == "", fault, "a base URL such as http://127.0.0.1:9090, or nothing")
	l.number("database.readers", int64(d.Readers), 1, 64)
	l.duration("database.busy_timeout", d.BusyTimeout, time.Millisecond, 10*time.Minute)
	l.duration("database.call_timeout", d.CallTimeout, time.Millisecond, 10*time.Minute)
	l.number("database.retry_attempts", int64(d.RetryAttempts), 1, 1000)
	l.duration("database.retry_base", d.RetryBase, time.Millisecond, time.Minute)
	l.duration("database.retry_max", d.RetryMax, time.Millisecond, 10*time.Minute)
	l.oneOf("database.synchronous", d.Synchronous, "full", "normal")
}

func (l *loader) checkQueue(c *Config) {
	q := c.Queue
	for i, name := range q.Queues {
		l.that("queue.queues", isName(name), fmt.Sprintf("item %d is not a queue name", i+1), wantName)
		l.that("queue.queues", !slices.Contains(q.Queues[:i], name), fmt.Sprintf("item %d is there twice", i+1), "each queue once")
	}
	l.number("queue.concurrency", int64(q.Concurrency), 1, 10000)
	l.duration("queue.lease", q.Lease, 100*time.Millisecond, 24*time.Hour)
	if q.Heartbeat.Duration != 0 {
		l.duration("queue.heartbeat", q.Heartbeat, 10*time.Millisecond, 12*time.Hour)
	}
	l.duration("queue.poll", q.Poll, time.Millisecond, 5*time.Minute)
	l.duration("queue.drain_timeout", q.DrainTimeout, 0, 24*time.Hour)
	l.number("queue.fault_seed", q.FaultSeed, 0, 1_000_000_000)
	l.duration("queue.clock_offset", q.ClockOffset, -240*time.Hour, 240*time.Hour)
	l.that("queue.http_addr", q.HTTPAddr == "" || isListenAddress(q.HTTPAddr), "not a listen address",
		"host:port with a port from 0 to 65535, or nothing for no listener")
	const century = 100 * 365 * 24 * time.Hour
	l.duration("queue.retention_completed", q.RetentionCompleted, 0, century)
	l.duration("queue.retention_canceled", q.RetentionCanceled, 0, century)
	l.duration("queue.retention_failed", q.RetentionFailed, 0, century)
	for _, f := range l.out.entries {
		l.that(f.key, isName(f.entry), "not a name", wantName)
		switch n := f.in(c).MapIndex(reflect.ValueOf(f.entry)); {
		case !n.IsValid():
		case f.typ == durationType:
			l.duration(f.key, Duration{time.Duration(n.Field(0).Int())}, time.Millisecond, 24*time.Hour)
		default:
			l.number(f.key, n.Int(), 0, 1_000_000)
		}
	}
}

func (l *loader) checkReserved(c *Config) {
	m := c.Model
	l.fraction("model.temperature", m.Temperature, 0, 2)
	l.number("model.max_output_tokens", int64(m.MaxOutputTokens), 1, 1_000_000)
	what := baseURLFault(m.BaseURL, "model.api_key")
	l.that("model.base_url", what == "", what, "a base URL such as https://models.example.com/v1, or nothing")

	l.that("discord.channel_id", c.Discord.ChannelID == "" || isSnowflake(c.Discord.ChannelID), "not a Discord id", wantSnowflake)
	for i, id := range c.Discord.Whitelist {
		l.that("discord.whitelist", isSnowflake(id), fmt.Sprintf("item %d is not a Discord id", i+1), wantSnowflake)
	}

	l.filled("gmail.snooze_label", c.Gmail.SnoozeLabel)
	l.number("imap.backfill_days", int64(c.IMAP.BackfillDays), 0, 36500)
	l.filled("imap.archive_folder", c.IMAP.ArchiveFolder)
	l.filled("imap.snooze_folder", c.IMAP.SnoozeFolder)

}

func (l *loader) checkPolicy(p Policy) {
	for i, action := range p.ApprovalAlways {
		l.that("policy.approval_always", slices.Contains(actionTypes, action),
			fmt.Sprintf("item %d is not an action type", i+1), "any of "+strings.Join(actionTypes, ", "))
	}
	l.fraction("policy.confidence_default", p.ConfidenceDefault, 0, 1)
	l.duration("policy.approval_expiry", p.ApprovalExpiry, time.Second, 10*365*24*time.Hour)
}

// that reports the key unless its value is good or was reported before.
func (l *loader) that(key string, good bool, what, want string) {
	if good || l.bad[key] {
		return
	}
	l.bad[key] = true
	l.report(l.out.origins[key], key, what, want)
}

// together blames the key that was set last, as that is the one that broke
// what fitted before.
func (l *loader) together(good bool, what, want string, keys ...string) {
	blamed := keys[0]
	for _, key := range keys {
		if l.bad[key] {
			return
		}
		if l.out.origins[key].layer > l.out.origins[blamed].layer {
			blamed = key
		}
	}
	l.that(blamed, good, what, want)
}

func (l *loader) number(key string, n, low, high int64) {
	l.that(key, low <= n && n <= high, "out of range", fmt.Sprintf("a whole number from %d to %d", low, high))
}

func (l *loader) fraction(key string, n, low, high float64) {
	// Written so that NaN is refused.
	l.that(key, n >= low && n <= high && !math.IsInf(n, 0), "out of range", fmt.Sprintf("a number from %g to %g", low, high))
}

func (l *loader) duration(key string, d Duration, low, high time.Duration) {
	lowest, _ := Duration{low}.MarshalText()
	highest, _ := Duration{high}.MarshalText()
	l.that(key, low <= d.Duration && d.Duration <= high, "out of range", fmt.Sprintf("a duration from %s to %s", lowest, highest))
}

func (l *loader) oneOf(key, value string, allowed ...string) {
	l.that(key, slices.Contains(allowed, value), "not one of its values", strings.Join(allowed, " or "))
}

func (l *loader) filled(key, value string) {
	l.that(key, value != "" && strings.TrimSpace(value) == value, "empty, or with spaces around it", "a name")
}

const (
	wantToken     = "printable ASCII without spaces, at least one character"
	wantName      = "a name of at most 200 bytes, not empty, without control characters and spaces around it"
	wantSnowflake = "a number of up to 20 digits, in quotes"
)

// isName tells what can name a queue or a type. Names inside keys
// have not been looked at yet, so that they may be any bytes.
func isName(s string) bool {
	return s != "" && len(s) <= 200 && strings.TrimSpace(s) == s && utf8.ValidString(s) && !strings.ContainsFunc(s, unicode.IsControl)
}

// isToken tells what can follow "Bearer " in a header.
func isToken(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(c rune) bool { return c <= ' ' || c > '~' })
}

func isSnowflake(s string) bool {
	_, err := strconv.ParseUint(s, 10, 64)
	return err == nil && s[0] != '+'
}

func isHost(s string) bool {
	if _, err := netip.ParseAddr(s); err == nil {
		return true
	}
	return s != "" && !strings.ContainsFunc(s, func(c rune) bool {
		return c <= ' ' || c > '~' || strings.ContainsRune(`:/\[]@?#%`, c)
	})
}

func isListenAddress(s string) bool {
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return false
	}
	_, err = strconv.ParseUint(port, 10, 16)
	return err == nil && (host == "" || isHost(host))
}

func isOrigin(s string) bool {
	u, err := url.Parse(s)
	return err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Hostname() != "" && s == u.Scheme+"://"+u.Host
}
