package httpd

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/metric"

	"github.com/postroom/postroom/core/libsql"
)

// How long a health check waits for the database, and how long a writer may
// be kept waiting before the service is not ready for traffic.
const (
	healthWait = time.Second
	writerWait = 2 * time.Second
)

// Health answers the three questions a supervisor asks. Its answers say
// nothing about where the database is or why it does not answer; the log does.
type Health struct {
	DB       libsql.DB
	Version  string
	Schema   int64       // the schema this program needs
	Draining func() bool // whether the service is stopping
}

// health is the body of an answer. A value that is not known is null.
type health struct {
	Status   string  `json:"status"`
	Version  string  `json:"version"`
	Database *string `json:"database"`
	Schema   *int64  `json:"schema"`
	// Durability is what a commit survives: full, normal or unknown.
	Durability *string `json:"durability"`
}

// ready is health with the state of the write lock.
type ready struct {
	health
	Writer *string `json:"writer"`
}

// Livez says that the process is up, whatever becomes of the database.
func (h Health) Livez(w http.ResponseWriter, _ *http.Request) {
	answerHealth(w, "ok", struct {
		Status  string `json:"status"`
		Version string `json:"version"`
	}{"ok", h.Version})
}

// Healthz says whether the service works: its database answers within a
// second and it is not stopping.
func (h Health) Healthz(w http.ResponseWriter, r *http.Request) {
	body := h.look(r.Context())
	answerHealth(w, body.Status, body)
}

// Readyz says whether the service wants traffic: it works, the schema is the
// one it needs, writers get their turn, and the disk has room. It takes at
// most two seconds.
func (h Health) Readyz(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), writerWait)
	defer cancel()
	writer := make(chan string, 1)
	go func() { writer <- writerState(ctx, h.DB) }()
	body := ready{health: h.look(ctx)}
	if body.Status == "ok" && *body.Schema < h.Schema {
		body.Status = "schema_outdated"
	}
	if body.Status != "ok" {
		answerHealth(w, body.Status, body)
		return
	}
	state := <-writer
	body.Writer = &state
	switch state {
	case "blocked":
		body.Status = "writer_blocked"
	case "full":
		body.Status = "disk_full"
	case "unavailable":
		body.Status = "unavailable"
	}
	answerHealth(w, body.Status, body)
}

// look asks the database for its schema, for a second at most.
func (h Health) look(ctx context.Context) health {
	if h.Draining() {
		return health{Status: "draining", Version: h.Version}
	}
	ctx, cancel := context.WithTimeout(ctx, healthWait)
	defer cancel()
	ok, unavailable := "ok", "unavailable"
	schema, err := h.DB.Health(ctx)
	if err != nil {
		return health{Status: unavailable, Version: h.Version, Database: &unavailable}
	}
	durability := h.DB.Durability()
	return health{Status: ok, Version: h.Version, Database: &ok, Schema: &schema, Durability: &durability}
}

// writerState asks for the write lock.
func writerState(ctx context.Context, db libsql.DB) string {
	waited, err := db.ProbeWriter(ctx)
	switch class := libsql.ClassOf(err); {
	case waited >= writerWait, class == libsql.Busy, class == libsql.Canceled, class == libsql.Unknown:
		return "blocked"
	case class == libsql.Full:
		return "full"
	case err != nil:
		return "unavailable"
	}
	return "ok"
}

// ObserveWriter makes the state of the write lock a metric, which is looked at
// whenever metrics are collected, for two seconds at most.
func ObserveWriter(db libsql.DB) error {
	_, err := otel.Meter("github.com/postroom/postroom/core/httpd").Int64ObservableGauge("postroom.database.writer_blocked",
		metric.WithDescription("1 while another process keeps the database's write lock for longer than two seconds."),
		metric.WithInt64Callback(func(ctx context.Context, o metric.Int64Observer) error {
			ctx, cancel := context.WithTimeout(ctx, writerWait)
			defer cancel()
			var blocked int64
			if writerState(ctx, db) == "blocked" {
				blocked = 1
			}
			o.Observe(blocked)
			return nil
		}))
	if err != nil {
		return fmt.Errorf("health: metrics: %w", err)
	}
	return nil
}

func answerHealth(w http.ResponseWriter, status string, body any) {
	code := http.StatusOK
	if status != "ok" {
		code = http.StatusServiceUnavailable
		w.Header().Set("Retry-After", retryAfter)
	}
	writeJSON(w, code, "application/json", body)
}
