// Package telemetry sets up OpenTelemetry and logging for a service: where
// spans and metrics go, what they are called, and how a log line learns which
// span it belongs to.
//
// It is the only package that imports the OpenTelemetry SDK and its exporters.
// Every other package uses the API alone (go.opentelemetry.io/otel and its
// attribute, metric and trace packages) or the helpers in spans.go. Of this
// project it imports nothing.
package telemetry

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"math"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"github.com/rs/zerolog"
	otelruntime "go.opentelemetry.io/contrib/instrumentation/runtime"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/propagation"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
)

// shutdownBound is how long Shutdown may take whatever its context allows: the
// SDK waits for a dead collector until the context ends, and a service that
// stops must not be held up by its telemetry.
const shutdownBound = 5 * time.Second

// Config says who is speaking and where to. The zero Endpoint exports nothing
// unless the environment names one.
type Config struct {
	ServiceName string // service.name; required
	Version     string // service.version
	Environment string // deployment.environment.name
	InstanceID  string // service.instance.id; made up when empty

	// Endpoint is a base URL, http or https: over HTTP /v1/traces and
	// /v1/metrics are appended to its path, over gRPC its host and port are
	// used. When it is empty, OTEL_EXPORTER_OTLP_ENDPOINT and its forms for
	// one signal decide, and OTEL_EXPORTER_OTLP_PROTOCOL goes before Protocol.
	Endpoint string
	// Protocol is "http/protobuf" (also when empty) or "grpc".
	Protocol string
	// ExportTraces false keeps spans at home; metrics are exported all the same.
	ExportTraces bool
	// SampleRatio, 0 to 1, is the share of traces that begin here which are
	// recorded. A trace that began elsewhere follows its parent's decision.
	SampleRatio float64

	// Lookup reads the environment; nil means os.LookupEnv. Settings that this
	// package does not read itself (certificates, timeouts, batch delays) are
	// read by the SDK from the process environment.
	Lookup func(string) (string, bool)
}

// Telemetry is the running set-up. Its methods may be called from any
// goroutine.
type Telemetry struct {
	log     zerolog.Logger
	handler *errorHandler
	tracers *sdktrace.TracerProvider
	meters  *sdkmetric.MeterProvider
	queue   *spanQueue // nil when no spans are exported
	page    http.Handler
	bound   time.Duration

	shutdown    sync.Once
	shutdownErr error
}

// Start builds the providers and makes them OpenTelemetry's globals, together
// with the W3C propagators and an error handler that writes to log. Trace and
// span ids are made whether or not anything is exported. An error names the
// setting that is wrong, never its value.
func Start(ctx context.Context, cfg Config, log zerolog.Logger) (*Telemetry, error) {
	handler := newErrorHandler(log, time.Now)
	// First of all, because the SDK reports problems of the environment while
	// it is being built, by default as plain text on stderr.
	otel.SetLogger(logr.New(sdkLog{handler}))
	otel.SetErrorHandler(handler)

	t, err := build(ctx, cfg, log, handler)
	if err != nil {
		return nil, fmt.Errorf("telemetry: %w", err)
	}
	otel.SetTracerProvider(t.tracers)
	otel.SetMeterProvider(t.meters)
	otel.SetTextMapPropagator(propagation.NewCompositeTextMapPropagator(propagation.TraceContext{}, propagation.Baggage{}))
	return t, nil
}

// build is Start without the globals.
func build(ctx context.Context, cfg Config, log zerolog.Logger, handler *errorHandler) (*Telemetry, error) {
	if cfg.Lookup == nil {
		cfg.Lookup = os.LookupEnv
	}
	if cfg.InstanceID == "" {
		cfg.InstanceID = rand.Text()
	}
	if cfg.ServiceName == "" {
		return nil, errors.New("the service has no name")
	}
	if r := cfg.SampleRatio; math.IsNaN(r) || r < 0 || r > 1 {
		return nil, errors.New("telemetry.sample_ratio: want a number from 0 to 1")
	}
	size, err := cfg.queueSize()
	if err != nil {
		return nil, err
	}
	toTraces, toMetrics, err := cfg.targets()
	if err != nil {
		return nil, err
	}
	handler.hide(toTraces.secrets())
	handler.hide(toMetrics.secrets())

	res, err := cfg.resource(ctx)
	if err != nil {
		return nil, err
	}
	t := &Telemetry{log: log, handler: handler, bound: shutdownBound}
	traceOptions := []sdktrace.TracerProviderOption{
		sdktrace.WithResource(res),
		sdktrace.WithIDGenerator(spanIDs{}),
		sdktrace.WithSampler(sdktrace.ParentBased(sdktrace.TraceIDRatioBased(cfg.SampleRatio))),
	}
	reader, page, err := newPage(log)
	if err != nil {
		return nil, err
	}
	t.page = page
	meterOptions := []sdkmetric.Option{sdkmetric.WithResource(res), sdkmetric.WithReader(reader)}
	if toTraces != nil {
		exporter, err := toTraces.spanExporter(ctx)
		if err != nil {
			return nil, fmt.Errorf("%s: trace exporter: %w", toTraces.key, err)
		}
		t.queue = newSpanQueue(exporter, size)
		traceOptions = append(traceOptions, sdktrace.WithSpanProcessor(t.queue))
	}
	if toMetrics != nil {
		exporter, err := toMetrics.metricExporter(ctx)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("%s: metric exporter: %w", toMetrics.key, err), t.queue.discard(ctx))
		}
		meterOptions = append(meterOptions, sdkmetric.WithReader(sdkmetric.NewPeriodicReader(exporter)))
	}
	t.tracers = sdktrace.NewTracerProvider(traceOptions...)
	t.meters = sdkmetric.NewMeterProvider(meterOptions...)
	err = errors.Join(
		otelruntime.Start(otelruntime.WithMeterProvider(t.meters)),
		t.queue.observe(t.meters.Meter(scope)),
	)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("runtime metrics: %w", err), t.Shutdown(ctx))
	}
	log.Debug().Str("traces", toTraces.String()).Str("metrics", toMetrics.String()).Msg("telemetry started")
	return t, nil
}

// Metrics is the page on which Prometheus reads the metrics. Who may read it
// is for its listener to say.
func (t *Telemetry) Metrics() http.Handler { return t.page }

// Loss counts the spans that did not arrive.
type Loss struct {
	QueueFull    int64 // ended while the queue was full
	ExportFailed int64 // in batches that the collector did not take, or not whole
}

// Lost returns what has been lost so far.
func (t *Telemetry) Lost() Loss { return t.queue.loss() }

// Shutdown sends what is waiting and stops. It takes at most five seconds, less
// when ctx ends before, whatever the collector does. Later calls return what
// the first one did.
func (t *Telemetry) Shutdown(ctx context.Context) error {
	t.shutdown.Do(func() { t.shutdownErr = t.stop(ctx) })
	return t.shutdownErr
}

func (t *Telemetry) stop(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, t.bound)
	defer cancel()
	// Side by side, so that a collector that takes one signal gets it although
	// the other hangs. The channel has room for both answers: nobody may be
	// left to read the second.
	done := make(chan error, 2)
	go func() { done <- t.stopError("traces", t.tracers.Shutdown(ctx)) }()
	go func() { done <- t.stopError("metrics", t.meters.Shutdown(ctx)) }()
	var errs []error
	for waiting := 2; waiting > 0; {
		select {
		case err := <-done:
			errs = append(errs, err)
			waiting--
		case <-ctx.Done():
			errs = append(errs, t.stopError("flush", ctx.Err()))
			waiting = 0
		}
	}
	lost, unsent := t.queue.loss(), t.queue.unsent()
	if ctx.Err() != nil {
		// The span processor goes on draining in the background; without its
		// exporter it comes to an end at once.
		go func() { _ = t.queue.discard(ctx) }() // what is lost is counted
	}
	t.handler.flush()
	if lost != (Loss{}) || unsent > 0 {
		t.log.Warn().Int64("queue_full", lost.QueueFull).Int64("export_failed", lost.ExportFailed).
			Int64("unsent", unsent).Msg("telemetry: spans were lost")
	}
	return errors.Join(errs...)
}

// stopError is an error of Shutdown. Its text is cleaned like a logged one,
// because a collector's answer is quoted in it.
type stopError struct {
	text  string
	cause error
}

func (e *stopError) Error() string { return e.text }
func (e *stopError) Unwrap() error { return e.cause }

func (t *Telemetry) stopError(what string, err error) error {
	if err == nil {
		return nil
	}
	return &stopError{"telemetry: shut down: " + what + ": " + t.handler.clean(err.Error()), err}
}
