package worker

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

// metrics counts what the worker did.
type metrics struct {
	runs     metric.Int64Counter
	waited   metric.Float64Histogram
	took     metric.Float64Histogram
	troubles metric.Int64Counter
	ticks    metric.Int64Counter
	sets     *sync.Map // of two names to their attributes, which are made once
}

// seconds are the bounds of histograms of time: from a claim at once to a
// backlog of hours.
var seconds = metric.WithExplicitBucketBoundaries(.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600, 14400)

func newMetrics() (metrics, error) {
	meter := otel.Meter("github.com/postroom/postroom/core/worker")
	m := metrics{sets: new(sync.Map)}
	var errs [5]error
	m.runs, errs[0] = meter.Int64Counter("postroom.queue.runs", metric.WithUnit("{run}"),
		metric.WithDescription("Runs of jobs that ended, by job type and outcome."))
	m.waited, errs[1] = meter.Float64Histogram("postroom.queue.wait", metric.WithUnit("s"), seconds,
		metric.WithDescription("How long claimed jobs had waited since they could have been claimed, by job type."))
	m.took, errs[2] = meter.Float64Histogram("postroom.queue.run_duration", metric.WithUnit("s"), seconds,
		metric.WithDescription("How long handlers took, by job type and outcome."))
	m.troubles, errs[3] = meter.Int64Counter("postroom.worker.errors", metric.WithUnit("{error}"),
		metric.WithDescription("Calls of the worker's loops that the database did not answer, by class."))
	m.ticks, errs[4] = meter.Int64Counter("postroom.cron.ticks", metric.WithUnit("{tick}"),
		metric.WithDescription("Instants of schedules that this runner dealt with, by schedule and outcome."))
	if err := errors.Join(errs[:]...); err != nil {
		return m, fmt.Errorf("worker: metrics: %w", err)
	}
	return m, nil
}

// with is two attributes, or one where the second has no key.
func (m metrics) with(key, value, key2, value2 string) metric.MeasurementOption {
	of := [4]string{key, value, key2, value2}
	if set, known := m.sets.Load(of); known {
		return set.(metric.MeasurementOption) //nolint:forcetypeassert // nothing else is stored
	}
	attributes := []attribute.KeyValue{attribute.String(key, value)}
	if key2 != "" {
		attributes = append(attributes, attribute.String(key2, value2))
	}
	set := metric.WithAttributeSet(attribute.NewSet(attributes...))
	m.sets.Store(of, set)
	return set
}

func (m metrics) ofType(typ, outcome string) metric.MeasurementOption {
	return m.with("postroom.job.type", typ, "outcome", outcome)
}

// claimed counts a claim. Its type is one that this worker has a handler for.
func (m metrics) claimed(typ string, waited time.Duration) {
	m.waited.Record(context.Background(), max(0, waited.Seconds()), m.with("postroom.job.type", typ, "", ""))
}

// ended counts a run: completed, failed, retried, canceled, snoozed,
// handed_back, lease_lost, rescued.
func (m metrics) ended(typ, outcome string) {
	m.runs.Add(context.Background(), 1, m.ofType(typ, outcome))
}

// ran is ended for a run of this worker whose outcome is stored.
func (m metrics) ran(typ, outcome string, took time.Duration) {
	m.ended(typ, outcome)
	m.took.Record(context.Background(), took.Seconds(), m.ofType(typ, outcome))
}

func (m metrics) trouble(doing, class string) {
	m.troubles.Add(context.Background(), 1, m.with("doing", doing, "error.type", class))
}

func (m metrics) ticked(name, outcome string) {
	m.ticks.Add(context.Background(), 1, m.with("postroom.cron.name", name, "outcome", outcome))
}
