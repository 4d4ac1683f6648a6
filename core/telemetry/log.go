package telemetry

import (
	"errors"
	"fmt"
	"io"
	stdlog "log"
	"os"
	"strings"
	"time"

	"github.com/rs/zerolog"
	"go.opentelemetry.io/otel/trace"
)

// NewLogger returns a logger that writes to w. Level is debug, info, warn or
// error; format is "json", one object a line, or "pretty" for a person at a
// terminal. Fields are keys and values in turn, which every line carries.
//
// A line carries the time in UTC with milliseconds and, when the event was
// given a context (log.Info().Ctx(ctx)) with a span in it, trace_id and
// span_id. Nothing of it depends on zerolog's globals but one thing: trace, a
// level below debug, is cut off by zerolog's global level and so not offered.
func NewLogger(w io.Writer, level, format string, fields ...any) (zerolog.Logger, error) {
	l, errLevel := parseLevel(level)
	out, errFormat := formatted(w, format)
	if err := errors.Join(errLevel, errFormat, checkFields(fields)); err != nil {
		return zerolog.Nop(), err
	}
	// One line is one Write, and lines come from every goroutine.
	log := zerolog.New(zerolog.SyncWriter(out)).Level(l).Hook(lineHook{})
	if len(fields) > 0 {
		log = log.With().Fields(fields).Logger()
	}
	return log, nil
}

func parseLevel(level string) (zerolog.Level, error) {
	for _, l := range []zerolog.Level{zerolog.DebugLevel, zerolog.InfoLevel, zerolog.WarnLevel, zerolog.ErrorLevel} {
		if strings.EqualFold(level, l.String()) {
			return l, nil
		}
	}
	return zerolog.NoLevel, fmt.Errorf("log.level: %q is none of debug, info, warn, error", level)
}

func formatted(w io.Writer, format string) (io.Writer, error) {
	switch format {
	case "json":
		return w, nil
	case "pretty":
		return zerolog.ConsoleWriter{Out: w, TimeFormat: "15:04:05.000", NoColor: !IsTerminal(w)}, nil
	}
	return nil, fmt.Errorf("log.format: %q is neither json nor pretty", format)
}

// IsTerminal says whether a person reads w.
func IsTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

func checkFields(fields []any) error {
	if len(fields)%2 != 0 {
		return errors.New("log fields: a key without a value")
	}
	for i := 0; i < len(fields); i += 2 {
		if _, ok := fields[i].(string); !ok {
			return fmt.Errorf("log fields: key %d is a %T, not a string", i/2+1, fields[i])
		}
	}
	return nil
}

// lineHook adds to each line what is known only when it is written. The time is
// written here because zerolog's own comes from its global settings.
type lineHook struct{}

func (lineHook) Run(e *zerolog.Event, _ zerolog.Level, _ string) {
	e.Str(zerolog.TimestampFieldName, time.Now().UTC().Format("2006-01-02T15:04:05.000Z07:00"))
	if span := trace.SpanContextFromContext(e.GetCtx()); span.IsValid() {
		e.Str("trace_id", span.TraceID().String()).Str("span_id", span.SpanID().String())
	}
}

// StdLogger adapts log for code that wants a standard logger, net/http's
// ErrorLog for example. What such code prints at once becomes one line, a
// stack trace too.
func StdLogger(log zerolog.Logger, level zerolog.Level) *stdlog.Logger {
	return stdlog.New(stdWriter{log, level}, "", 0)
}

type stdWriter struct {
	log   zerolog.Logger
	level zerolog.Level
}

func (w stdWriter) Write(p []byte) (int, error) {
	w.log.WithLevel(w.level).Msg(strings.TrimRight(string(p), "\r\n"))
	return len(p), nil
}
