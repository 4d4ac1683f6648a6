package telemetry

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"github.com/rs/zerolog"
)

const (
	// errorInterval keeps a collector that is down for a night from filling
	// the log: one line a minute at most.
	errorInterval = time.Minute
	// errorLength cuts an error: a collector's answer is quoted in it, and
	// that may be a whole HTML page.
	errorLength = 300
)

// errorHandler receives what OpenTelemetry has to complain about and logs it:
// the first at once, then at most one a minute with the number that were held
// back. It writes to the log alone, never through OTLP, where a failed export
// would report itself for ever.
type errorHandler struct {
	log zerolog.Logger
	now func() time.Time

	mu     sync.Mutex
	next   time.Time // before this one, errors are counted only
	held   int
	latest string
	hidden []string
}

func newErrorHandler(log zerolog.Logger, now func() time.Time) *errorHandler {
	return &errorHandler{log: log, now: now}
}

// hide makes sure that secrets are never part of a logged error.
func (h *errorHandler) hide(secrets []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.hidden = append(h.hidden, secrets...)
}

// Handle implements otel.ErrorHandler.
func (h *errorHandler) Handle(err error) {
	if err == nil {
		return
	}
	text := h.clean(err.Error())
	h.mu.Lock()
	defer h.mu.Unlock()
	h.latest = text
	now := h.now()
	if now.Before(h.next) {
		h.held++
		return
	}
	h.next = now.Add(errorInterval)
	h.write()
}

// flush logs what was held back and would otherwise never be known.
func (h *errorHandler) flush() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.held > 0 {
		h.write()
	}
}

func (h *errorHandler) write() {
	e := h.log.Warn().Str("error", h.latest)
	if h.held > 0 {
		e = e.Int("held_back", h.held)
	}
	h.held = 0
	e.Msg("telemetry error")
}

// clean takes secrets out of a text and shortens it.
func (h *errorHandler) clean(text string) string {
	h.mu.Lock()
	hidden := h.hidden
	h.mu.Unlock()
	for _, secret := range hidden {
		text = strings.ReplaceAll(text, secret, "***")
	}
	if len(text) > errorLength {
		text = strings.ToValidUTF8(text[:errorLength], "") + "…"
	}
	return text
}

// sdkLog takes the SDK's own log lines down the same way. Their keys and values
// are left out: they may hold headers.
type sdkLog struct{ handler *errorHandler }

var _ logr.LogSink = sdkLog{}

func (sdkLog) Init(logr.RuntimeInfo) {}

// Enabled lets warnings through, which OpenTelemetry logs at 1; information and
// debugging are 4 and 8.
func (sdkLog) Enabled(level int) bool { return level <= 1 }

func (s sdkLog) Info(_ int, message string, _ ...any) { s.handler.Handle(errors.New(message)) }

func (s sdkLog) Error(err error, message string, _ ...any) {
	s.handler.Handle(fmt.Errorf("%s: %w", message, err))
}

func (s sdkLog) WithValues(...any) logr.LogSink { return s }
func (s sdkLog) WithName(string) logr.LogSink   { return s }
