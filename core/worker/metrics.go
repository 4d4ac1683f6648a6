package worker

import (
	"context"
	"fmt"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

// metrics counts what the worker did. They go out over OTLP where an endpoint
// is set.
type metrics struct {
	runs     metric.Int64Counter
	troubles metric.Int64Counter
	ticks    metric.Int64Counter
}

func newMetrics() (m metrics, err error) {
	meter := otel.Meter("github.com/postroom/postroom/core/worker")
	m.runs, err = meter.Int64Counter("postroom.queue.runs", metric.WithUnit("{run}"),
		metric.WithDescription("Runs of jobs that ended, by job type and outcome."))
	if err != nil {
		return m, fmt.Errorf("worker: metrics: %w", err)
	}
	m.troubles, err = meter.Int64Counter("postroom.worker.errors", metric.WithUnit("{error}"),
		metric.WithDescription("Calls of the worker's loops that the database did not answer, by class."))
	if err != nil {
		return m, fmt.Errorf("worker: metrics: %w", err)
	}
	m.ticks, err = meter.Int64Counter("postroom.cron.ticks", metric.WithUnit("{tick}"),
		metric.WithDescription("Instants of schedules that this runner dealt with, by schedule and outcome."))
	if err != nil {
		return m, fmt.Errorf("worker: metrics: %w", err)
	}
	return m, nil
}

func (m metrics) finished(typ, outcome string) {
	m.runs.Add(context.Background(), 1, metric.WithAttributes(
		attribute.String("postroom.job.type", typ), attribute.String("outcome", outcome)))
}

func (m metrics) trouble(doing, class string) {
	m.troubles.Add(context.Background(), 1, metric.WithAttributes(
		attribute.String("doing", doing), attribute.String("error.type", class)))
}

func (m metrics) ticked(name, outcome string) {
	m.ticks.Add(context.Background(), 1, metric.WithAttributes(
		attribute.String("postroom.cron.name", name), attribute.String("outcome", outcome)))
}
