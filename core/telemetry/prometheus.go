package telemetry

import (
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/rs/zerolog"
	otelprometheus "go.opentelemetry.io/otel/exporters/prometheus"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
)

// A page of metrics asks the database, so few at a time are answered, each
// within a bound.
const (
	pagesAtOnce = 4
	pageBound   = 10 * time.Second
)

// newPage returns what collects the metrics for Prometheus and the page on
// which it reads them. The names are those of OTLP in Prometheus's spelling:
// postroom.queue.depth is postroom_queue_depth, a counter ends in _total, and
// a unit of seconds in _seconds.
func newPage(log zerolog.Logger) (sdkmetric.Reader, http.Handler, error) {
	registry := prometheus.NewRegistry()
	process := registry.Register(collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	reader, err := otelprometheus.New(otelprometheus.WithRegisterer(registry), otelprometheus.WithoutScopeInfo())
	if err := errors.Join(process, err); err != nil {
		return nil, nil, fmt.Errorf("metrics for Prometheus: %w", err)
	}
	return reader, promhttp.HandlerFor(registry, promhttp.HandlerOpts{
		ErrorLog: pageLog{log}, ErrorHandling: promhttp.ContinueOnError, MaxRequestsInFlight: pagesAtOnce, Timeout: pageBound,
	}), nil
}

// pageLog writes what is wrong with a page to the log.
type pageLog struct{ zerolog.Logger }

func (l pageLog) Println(v ...any) {
	l.Warn().Str("error", fmt.Sprint(v...)).Msg("metrics: the page is not whole")
}
