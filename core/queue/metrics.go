package queue

import (
	"context"
	"fmt"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"
)

const meterName = "github.com/postroom/postroom/core/queue"

// depthWait bounds how long a collection of metrics waits for the database.
const depthWait = 2 * time.Second

func enqueuedCounter() metric.Int64Counter {
	c, err := otel.Meter(meterName).Int64Counter("postroom.queue.enqueued", metric.WithUnit("{job}"),
		metric.WithDescription("Jobs that this process handed in, duplicates included."))
	if err != nil { // of a name that cannot be
		return noop.Int64Counter{}
	}
	return c
}

// ObserveDepth makes metrics of what the database says about the queues when
// they are collected. A collection that gets no answer has no such metrics.
func (q *Queue) ObserveDepth() error {
	meter := otel.Meter(meterName)
	depth, err := meter.Int64ObservableGauge("postroom.queue.depth", metric.WithUnit("{job}"),
		metric.WithDescription("Jobs by queue and state."))
	if err != nil {
		return fmt.Errorf("queue: metrics: %w", err)
	}
	oldest, err := meter.Float64ObservableGauge("postroom.queue.oldest_waiting", metric.WithUnit("s"),
		metric.WithDescription("How long the first in line of a queue has been waiting; 0 when none waits."))
	if err != nil {
		return fmt.Errorf("queue: metrics: %w", err)
	}
	paused, err := meter.Int64ObservableGauge("postroom.queue.paused",
		metric.WithDescription("1 while a queue is paused."))
	if err != nil {
		return fmt.Errorf("queue: metrics: %w", err)
	}
	runners, err := meter.Int64ObservableGauge("postroom.runners", metric.WithUnit("{runner}"),
		metric.WithDescription("Runners whose heartbeat is not older than three minutes."))
	if err != nil {
		return fmt.Errorf("queue: metrics: %w", err)
	}
	_, err = meter.RegisterCallback(func(ctx context.Context, o metric.Observer) error {
		ctx, cancel := context.WithTimeout(ctx, depthWait)
		defer cancel()
		queues, err := q.Queues(ctx)
		if err != nil {
			return nil //nolint:nilerr // counted as an error of the database
		}
		for _, d := range queues {
			name := attribute.String("postroom.queue.name", d.Name)
			for state, n := range d.Depth {
				o.ObserveInt64(depth, n, metric.WithAttributes(name, attribute.String("postroom.job.state", string(state))))
			}
			o.ObserveFloat64(oldest, float64(d.OldestWaitingFor)/1000, metric.WithAttributes(name))
			isPaused := int64(0)
			if d.Paused {
				isPaused = 1
			}
			o.ObserveInt64(paused, isPaused, metric.WithAttributes(name))
		}
		n, err := q.liveRunners(ctx)
		if err == nil {
			o.ObserveInt64(runners, n)
		}
		return nil
	}, depth, oldest, paused, runners)
	if err != nil {
		return fmt.Errorf("queue: metrics: %w", err)
	}
	return nil
}
