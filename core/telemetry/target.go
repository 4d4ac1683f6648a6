package telemetry

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetricgrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetrichttp"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
)

const (
	protocolHTTP = "http/protobuf"
	protocolGRPC = "grpc"
)

// target is where one signal goes. A nil target is nowhere.
type target struct {
	key      string // the setting that named it, for errors
	url      string // scheme, host and port; over HTTP the whole path, too
	protocol string
	headers  map[string]string
}

// signal is traces or metrics, as the standard variables spell them.
type signal struct{ variable, path string }

var (
	tracesSignal  = signal{"TRACES", "/v1/traces"}
	metricsSignal = signal{"METRICS", "/v1/metrics"}
)

// env returns a variable of the environment. OpenTelemetry takes an empty one
// for an unset one.
func (c Config) env(name string) string {
	v, _ := c.Lookup(name)
	return strings.TrimSpace(v)
}

// firstEnv returns the first variable that is set, and its name.
func (c Config) firstEnv(names ...string) (name, value string) {
	for _, name = range names {
		if value = c.env(name); value != "" {
			return name, value
		}
	}
	return "", ""
}

// targets decides where traces and metrics go.
func (c Config) targets() (traces, metrics *target, err error) {
	if strings.EqualFold(c.env("OTEL_SDK_DISABLED"), "true") {
		return nil, nil, nil
	}
	if c.ExportTraces {
		if traces, err = c.target(tracesSignal); err != nil {
			return nil, nil, err
		}
	}
	if metrics, err = c.target(metricsSignal); err != nil {
		return nil, nil, err
	}
	return traces, metrics, nil
}

func (c Config) target(s signal) (*target, error) {
	// A list without otlp means that somebody else takes this signal, or none.
	if list := c.env("OTEL_" + s.variable + "_EXPORTER"); list != "" && !slices.Contains(strings.Split(list, ","), "otlp") {
		return nil, nil
	}
	const prefix = "OTEL_EXPORTER_OTLP_"
	key, endpoint, path := "telemetry.otlp_endpoint", c.Endpoint, s.path
	if endpoint == "" {
		key, endpoint = c.firstEnv(prefix+s.variable+"_ENDPOINT", prefix+"ENDPOINT")
		if key == prefix+s.variable+"_ENDPOINT" {
			path = "" // an endpoint for one signal is used as it is
		}
	}
	if endpoint == "" {
		return nil, nil
	}
	t := &target{key: key}
	var err error
	if t.protocol, err = c.protocol(prefix+s.variable+"_PROTOCOL", prefix+"PROTOCOL"); err != nil {
		return nil, err
	}
	if t.url, err = targetURL(endpoint, t.protocol, path); err != nil {
		return nil, fmt.Errorf("%s: %w", key, err)
	}
	if name, list := c.firstEnv(prefix+s.variable+"_HEADERS", prefix+"HEADERS"); list != "" {
		if t.headers, err = parseHeaders(list); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	return t, nil
}

// protocol lets the environment speak first when it also names the endpoint.
func (c Config) protocol(variables ...string) (string, error) {
	key, protocol := "telemetry.otlp_protocol", c.Protocol
	if c.Endpoint == "" || protocol == "" {
		if name, value := c.firstEnv(variables...); value != "" {
			key, protocol = name, value
		}
	}
	switch protocol {
	case "", protocolHTTP:
		return protocolHTTP, nil
	case protocolGRPC:
		return protocolGRPC, nil
	}
	return "", fmt.Errorf("%s: want %q or %q", key, protocolHTTP, protocolGRPC)
}

// targetURL checks an endpoint and brings it into the form the exporters take.
// Its errors quote nothing: a mistyped URL may hold a password anywhere.
func targetURL(endpoint, protocol, path string) (string, error) {
	if lower := strings.ToLower(endpoint); !strings.HasPrefix(lower, "http://") && !strings.HasPrefix(lower, "https://") {
		return "", errors.New("want a URL that begins with http:// or https://")
	}
	u, err := url.Parse(endpoint)
	switch {
	case err != nil || u.Hostname() == "":
		return "", errors.New("not a valid URL; want http://host:port or https://host:port")
	case u.User != nil:
		return "", errors.New("a URL must not carry a user or a password; put them into OTEL_EXPORTER_OTLP_HEADERS")
	case u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		return "", errors.New("a URL must not carry a query or a fragment")
	}
	if protocol == protocolGRPC {
		port := u.Port()
		if port == "" {
			port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
		}
		return (&url.URL{Scheme: u.Scheme, Host: net.JoinHostPort(u.Hostname(), port)}).String(), nil
	}
	return strings.TrimRight(u.String(), "/") + path, nil
}

// parseHeaders reads name=value,… with percent-encoded values. Its errors give
// an entry's place, because the values are secrets.
func parseHeaders(list string) (map[string]string, error) {
	headers := map[string]string{}
	for i, entry := range strings.Split(list, ",") {
		if strings.TrimSpace(entry) == "" {
			continue
		}
		name, value, found := strings.Cut(entry, "=")
		name = strings.TrimSpace(name)
		value, err := url.PathUnescape(value)
		value = strings.TrimSpace(value)
		if !found || err != nil || !isToken(name) || !isHeaderValue(value) {
			return nil, fmt.Errorf("entry %d is not name=value", i+1)
		}
		headers[name] = value
	}
	return headers, nil
}

// isToken says whether s may name an HTTP header.
func isToken(s string) bool {
	for _, r := range s {
		if r <= ' ' || r >= 0x7f || strings.ContainsRune(`"(),/:;<=>?@[\]{}`, r) {
			return false
		}
	}
	return s != ""
}

// isHeaderValue allows what both HTTP headers and gRPC metadata do.
func isHeaderValue(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' })
}

// secrets returns the parts of header values that must not be repeated in a
// log: a collector that refuses a request may quote its credentials.
func (t *target) secrets() []string {
	if t == nil {
		return nil
	}
	var secrets []string
	for _, value := range t.headers {
		for part := range strings.FieldsSeq(value) {
			// Shorter ones hide nothing and would garble the text.
			if len(part) >= 6 {
				secrets = append(secrets, part)
			}
		}
	}
	return secrets
}

// String describes the target in the log.
func (t *target) String() string {
	if t == nil {
		return "off"
	}
	return t.protocol + " " + t.url
}

func (t *target) spanExporter(ctx context.Context) (sdktrace.SpanExporter, error) {
	if t.protocol == protocolGRPC {
		options := []otlptracegrpc.Option{otlptracegrpc.WithEndpointURL(t.url)}
		if t.headers != nil {
			options = append(options, otlptracegrpc.WithHeaders(t.headers))
		}
		return otlptracegrpc.New(ctx, options...)
	}
	options := []otlptracehttp.Option{
		otlptracehttp.WithEndpointURL(t.url),
		otlptracehttp.WithEncoding(otlptracehttp.EncodingProtobuf),
	}
	if t.headers != nil {
		options = append(options, otlptracehttp.WithHeaders(t.headers))
	}
	return otlptracehttp.New(ctx, options...)
}

func (t *target) metricExporter(ctx context.Context) (sdkmetric.Exporter, error) {
	if t.protocol == protocolGRPC {
		options := []otlpmetricgrpc.Option{otlpmetricgrpc.WithEndpointURL(t.url)}
		if t.headers != nil {
			options = append(options, otlpmetricgrpc.WithHeaders(t.headers))
		}
		return otlpmetricgrpc.New(ctx, options...)
	}
	options := []otlpmetrichttp.Option{otlpmetrichttp.WithEndpointURL(t.url)}
	if t.headers != nil {
		options = append(options, otlpmetrichttp.WithHeaders(t.headers))
	}
	return otlpmetrichttp.New(ctx, options...)
}

// queueSize is how many ended spans may wait for the collector.
func (c Config) queueSize() (int, error) {
	const variable = "OTEL_BSP_MAX_QUEUE_SIZE"
	v := c.env(variable)
	if v == "" {
		return spanQueueSize, nil
	}
	n, err := strconv.Atoi(v)
	if err != nil || n < 1 {
		return 0, fmt.Errorf("%s: want a whole number above 0", variable)
	}
	return n, nil
}
