package wiring

import (
	"context"
	"errors"
	"fmt"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/postroom/postroom/core/libsql"
)

// storageMetrics counts what the storage face does.
func storageMetrics() (onCommit func(requests, statements int), onError func(libsql.Class), err error) {
	meter := otel.Meter("github.com/postroom/postroom/core/libsql")
	sizes := metric.WithExplicitBucketBoundaries(1, 2, 5, 10, 25, 50, 100, 250, 500, 1000, 2500)
	var errs [3]error
	var requests, statements metric.Int64Histogram
	var failures metric.Int64Counter
	requests, errs[0] = meter.Int64Histogram("postroom.database.commit.requests", metric.WithUnit("{request}"), sizes,
		metric.WithDescription("Requests that share a commit."))
	statements, errs[1] = meter.Int64Histogram("postroom.database.commit.statements", metric.WithUnit("{statement}"), sizes,
		metric.WithDescription("Statements of a commit."))
	failures, errs[2] = meter.Int64Counter("postroom.database.errors", metric.WithUnit("{error}"),
		metric.WithDescription("Calls of the database that failed, each try for itself, by class."))
	if err := errors.Join(errs[:]...); err != nil {
		return nil, nil, fmt.Errorf("storage metrics: %w", err)
	}
	ctx := context.Background()
	return func(r, s int) {
			requests.Record(ctx, int64(r))
			statements.Record(ctx, int64(s))
		}, func(c libsql.Class) {
			failures.Add(ctx, 1, metric.WithAttributes(attribute.String("error.type", string(c))))
		}, nil
}
