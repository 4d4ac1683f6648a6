package telemetry

import (
	"context"
	"fmt"
	"net/url"
	"runtime"
	"strings"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/sdk/resource"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
)

// resource says who speaks. The environment comes last and so wins: first
// OTEL_RESOURCE_ATTRIBUTES, then OTEL_SERVICE_NAME. Both are read through
// Lookup, where the SDK's own detector would read the process environment
// whatever the caller gave.
func (c Config) resource(ctx context.Context) (*resource.Resource, error) {
	attrs := []attribute.KeyValue{
		semconv.ServiceName(c.ServiceName),
		semconv.ServiceVersion(c.Version),
		semconv.DeploymentEnvironmentNameKey.String(c.Environment),
		semconv.ServiceInstanceID(c.InstanceID),
		semconv.HostArchKey.String(runtime.GOARCH),
		semconv.OSTypeKey.String(runtime.GOOS),
	}
	const variable = "OTEL_RESOURCE_ATTRIBUTES"
	for i, entry := range strings.Split(c.env(variable), ",") {
		if strings.TrimSpace(entry) == "" {
			continue
		}
		key, value, found := strings.Cut(entry, "=")
		key = strings.TrimSpace(key)
		value, err := url.PathUnescape(strings.TrimSpace(value))
		if !found || key == "" || err != nil {
			return nil, fmt.Errorf("%s: entry %d is not key=value", variable, i+1)
		}
		attrs = append(attrs, attribute.String(key, value))
	}
	if name := c.env("OTEL_SERVICE_NAME"); name != "" {
		attrs = append(attrs, semconv.ServiceName(name))
	}
	given := attrs[:0]
	for _, a := range attrs {
		// Nothing is known is said by leaving it out, not by "".
		if a.Value.AsString() != "" {
			given = append(given, Text(a.Key, a.Value.AsString()))
		}
	}
	res, err := resource.New(ctx, resource.WithSchemaURL(semconv.SchemaURL),
		resource.WithTelemetrySDK(), resource.WithAttributes(given...))
	if err != nil {
		return nil, fmt.Errorf("resource: %w", err)
	}
	return res, nil
}
