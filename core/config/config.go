// Package config is the one place that knows every setting of both services:
// its name in the TOML file, its environment names, its default and what makes
// a value acceptable. It reads file, environment and flags in that order, the
// later winning, remembers where each value came from, and reports everything
// that is wrong at once. It may import the standard library and go-toml, and
// nothing of Postroom, so that every other package may be configured by it.
package config

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"
)

// Config holds every setting after file, environment and flags were merged.
// Fields and sections marked reserved are read, checked and shown, and no
// code acts on them yet.
type Config struct {
	App       App       `toml:"app"`
	Paths     Paths     `toml:"paths"`
	Database  Database  `toml:"database"`
	Queue     Queue     `toml:"queue"`
	API       API       `toml:"api"`
	Mail      Mail      `toml:"mail"`
	Log       Log       `toml:"log"`
	Telemetry Telemetry `toml:"telemetry"`
	Model     Model     `toml:"model" reserved:"true"`
	Discord   Discord   `toml:"discord" reserved:"true"`
	Gmail     Gmail     `toml:"gmail" reserved:"true"`
	IMAP      IMAP      `toml:"imap" reserved:"true"`
	Policy    Policy    `toml:"policy"`
}

// App names the installation and says where the API listens.
type App struct {
	ServiceName string   `toml:"service_name"`
	Env         string   `toml:"env"` // dev or prod
	Host        string   `toml:"host"`
	Port        int      `toml:"port"`
	DrainDelay  Duration `toml:"drain_delay"`
}

// Paths says where things are kept.
type Paths struct {
	// Database is a path, a file: URL or the URL of a libsql server.
	Database string `toml:"database" alias:"DATABASE_URL"`
}

// Database tunes how the database is reached.
type Database struct {
	AuthToken     Secret   `toml:"auth_token" alias:"LIBSQL_AUTH_TOKEN"`
	AuthTokenFile string   `toml:"auth_token_file"` // read before each request
	TLSCA         string   `toml:"tls_ca"`
	TLSServerName string   `toml:"tls_server_name"`
	AdminURL      string   `toml:"admin_url"` // of the server's admin API
	EncryptionKey Secret   `toml:"encryption_key" reserved:"true"`
	Replica       string   `toml:"replica" reserved:"true"` // path of an embedded replica
	Readers       int      `toml:"readers"`                 // connections that only read
	BusyTimeout   Duration `toml:"busy_timeout"`            // longest wait for another process's write lock
	CallTimeout   Duration `toml:"call_timeout"`            // longest a call may take
	RetryAttempts int      `toml:"retry_attempts"`
	RetryBase     Duration `toml:"retry_base"`
	RetryMax      Duration `toml:"retry_max"`
	Synchronous   string   `toml:"synchronous"` // full or normal
	AutoMigrate   bool     `toml:"auto_migrate"`
}

// Queue tunes a runner and says how long finished jobs are kept.
type Queue struct {
	Queues      []string `toml:"queues"` // empty means all
	Concurrency int      `toml:"concurrency"`
	Lease       Duration `toml:"lease"`
	// Heartbeat is zero in a file that leaves it to the lease; Load fills in
	// a third of the lease.
	Heartbeat          Duration `toml:"heartbeat"`
	Poll               Duration `toml:"poll"`
	DrainTimeout       Duration `toml:"drain_timeout"`
	DebugJobs          bool     `toml:"debug_jobs"`
	FaultSeed          int64    `toml:"fault_seed"`          // zero makes no faults
	ClockOffset        Duration `toml:"clock_offset"`        // may be negative
	HTTPAddr           string   `toml:"http_addr"`           // empty means no listener
	RetentionCompleted Duration `toml:"retention_completed"` // zero keeps for ever
	RetentionCanceled  Duration `toml:"retention_canceled"`
	RetentionFailed    Duration `toml:"retention_failed"`
	Limits             Limits   `toml:"limits"`
}

// Limits caps how many jobs run at once, by queue, by job type and by limit
// key, and how close two starts of a key may be. They are seeds: the database
// has the limits that are in force.
type Limits struct {
	Queues map[string]int `toml:"queues"`
	Types  map[string]int `toml:"types"`
	Keys   map[string]int `toml:"keys"` // the name * stands for each key that has none of its own

	Intervals map[string]Duration `toml:"intervals"` // by key, between two starts
}

// API says who may call the HTTP API and how much they may send.
type API struct {
	Token          Secret   `toml:"token"`
	Tokens         []Secret `toml:"tokens"`
	MaxBody        int64    `toml:"max_body"`    // bytes of a JSON body
	MaxMessage     int64    `toml:"max_message"` // bytes of a raw message
	AllowedOrigins []string `toml:"allowed_origins"`
	TLSCert        string   `toml:"tls_cert" reserved:"true"`
	TLSKey         string   `toml:"tls_key" reserved:"true"`
}

// Mail tunes the mail path.
type Mail struct {
	SyncInterval Duration `toml:"sync_interval"`
}

// Log says what is logged and how it looks. Ask Loaded.LogFormat for the
// format: its default depends on more than this section.
type Log struct {
	Level  string `toml:"level"`
	Format string `toml:"format"` // json or pretty
}

// Telemetry says where traces and metrics go. The standard OTEL_* variables
// belong to the telemetry package.
type Telemetry struct {
	OTLPEndpoint string  `toml:"otlp_endpoint" alias:"OTLP_ENDPOINT"`
	OTLPProtocol string  `toml:"otlp_protocol"` // http/protobuf or grpc
	ExportTraces bool    `toml:"export_traces"`
	SampleRatio  float64 `toml:"sample_ratio"`
}

// Model chooses a language model.
type Model struct {
	Provider        string  `toml:"provider"`
	Model           string  `toml:"model" alias:"MODEL"`
	Temperature     float64 `toml:"temperature"`
	MaxOutputTokens int     `toml:"max_output_tokens"`
	BaseURL         string  `toml:"base_url"`
	APIKey          Secret  `toml:"api_key"`
}

// Discord connects the bot that asks for approvals.
type Discord struct {
	BotToken  Secret   `toml:"bot_token"`
	ChannelID string   `toml:"channel_id"`
	Whitelist []string `toml:"whitelist"` // user ids
}

// Gmail tunes the Gmail provider.
type Gmail struct {
	UsePubSub    bool   `toml:"use_pubsub"`
	ProjectID    string `toml:"project_id"`
	Subscription string `toml:"subscription"`
	SnoozeLabel  string `toml:"snooze_label"`
}

// IMAP tunes the IMAP provider.
type IMAP struct {
	Idle          bool   `toml:"idle"`
	BackfillDays  int    `toml:"backfill_days"`
	ArchiveFolder string `toml:"archive_folder"`
	SnoozeFolder  string `toml:"snooze_folder"`
}

// Policy says which actions wait for a person.
type Policy struct {
	ApprovalAlways    []string `toml:"approval_always"` // action types
	ConfidenceDefault float64  `toml:"confidence_default"`
	ApprovalExpiry    Duration `toml:"approval_expiry"`
}

// Default returns the settings of a system that was told nothing. They are
// what the annotated example shows; Load also fills in Queue.Heartbeat.
func Default() Config {
	return Config{
		App: App{
			ServiceName: "postroom",
			Env:         "dev",
			Host:        "127.0.0.1",
			Port:        17800,
			DrainDelay:  Duration{2 * time.Second},
		},
		Paths: Paths{Database: "./data/postroom.db"},
		Database: Database{
			Readers:       4,
			BusyTimeout:   Duration{5 * time.Second},
			CallTimeout:   Duration{10 * time.Second},
			RetryAttempts: 8,
			RetryBase:     Duration{5 * time.Millisecond},
			RetryMax:      Duration{time.Second},
			Synchronous:   "full",
			AutoMigrate:   true,
		},
		Queue: Queue{
			Queues:             []string{},
			Concurrency:        10,
			Lease:              Duration{time.Minute},
			Poll:               Duration{time.Second},
			DrainTimeout:       Duration{30 * time.Second},
			HTTPAddr:           "127.0.0.1:17801",
			RetentionCompleted: Duration{24 * time.Hour},
			RetentionCanceled:  Duration{24 * time.Hour},
			RetentionFailed:    Duration{720 * time.Hour},
			Limits:             Limits{Queues: map[string]int{}, Types: map[string]int{}, Keys: map[string]int{}, Intervals: map[string]Duration{}},
		},
		API: API{
			Tokens:         []Secret{},
			MaxBody:        32 << 20,
			MaxMessage:     25 << 20,
			AllowedOrigins: []string{},
		},
		Mail:      Mail{SyncInterval: Duration{time.Minute}},
		Log:       Log{Level: "info", Format: "json"},
		Telemetry: Telemetry{OTLPProtocol: "http/protobuf", ExportTraces: true, SampleRatio: 1},
		Model:     Model{MaxOutputTokens: 1024},
		Discord:   Discord{Whitelist: []string{}},
		Gmail:     Gmail{SnoozeLabel: "Postroom/Snoozed"},
		IMAP:      IMAP{Idle: true, BackfillDays: 30, ArchiveFolder: "Archive", SnoozeFolder: "Snoozed"},
		Policy: Policy{
			ApprovalAlways:    []string{"delete", "forward", "auto_reply", "escalate"},
			ConfidenceDefault: 0.7,
			ApprovalExpiry:    Duration{7 * 24 * time.Hour},
		},
	}
}

// DurabilityWarning is for a server that does not sync commits although
// database.synchronous asks for it.
const DurabilityWarning = "the database server does not sync each commit to the disk: the last ones may be lost in a power cut; set database.admin_url, or database.synchronous = \"normal\" to accept that"

// Undurable says whether commits cannot be synced because nothing says where
// the server's admin API is.
func (c *Config) Undurable() bool {
	return c.Paths.IsRemote() && c.Database.Synchronous == "full" && c.Database.AdminURL == ""
}

// Token returns the token for a database server: what auth_token_file holds at
// this moment, or auth_token.
func (d Database) Token() (string, error) {
	if d.AuthTokenFile == "" {
		return d.AuthToken.Reveal(), nil
	}
	text, err := os.ReadFile(d.AuthTokenFile)
	if err != nil {
		return "", fmt.Errorf("database.auth_token_file: %w", err)
	}
	token := strings.TrimSpace(string(text))
	if !isToken(token) {
		return "", errors.New("database.auth_token_file: the file does not hold one token")
	}
	return token, nil
}

// Accepted lists the tokens that open the API: api.token and api.tokens.
func (a API) Accepted() []string {
	var list []string
	for _, t := range append([]Secret{a.Token}, a.Tokens...) {
		if s := t.Reveal(); s != "" {
			list = append(list, s)
		}
	}
	return list
}
