package telemetry

import (
	"maps"
	"math"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"go.opentelemetry.io/otel/attribute"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
)

func TestTargets(t *testing.T) {
	t.Parallel()
	const base = "http://collector:4318"
	tests := []struct {
		name            string
		cfg             Config
		traces, metrics string
	}{
		{"nothing is set", config("", ""), "off", "off"},
		{"the paths are appended to a base URL", config(base, ""), "http/protobuf " + base + "/v1/traces", "http/protobuf " + base + "/v1/metrics"},
		{"a base URL may have a path", config("https://gateway/otlp/", ""), "http/protobuf https://gateway/otlp/v1/traces", "http/protobuf https://gateway/otlp/v1/metrics"},
		{"gRPC takes host and port alone", config("http://collector:4317/x", "grpc"), "grpc http://collector:4317", "grpc http://collector:4317"},
		{"gRPC takes the scheme's port", config("HTTPS://[::1]", "grpc"), "grpc https://[::1]:443", "grpc https://[::1]:443"},
		{"the environment names the endpoint", config("", "", "OTEL_EXPORTER_OTLP_ENDPOINT="+base), "http/protobuf " + base + "/v1/traces", "http/protobuf " + base + "/v1/metrics"},
		{"an endpoint for one signal is used as it is", config("", "", "OTEL_EXPORTER_OTLP_ENDPOINT="+base, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=http://t/in"), "http/protobuf http://t/in", "http/protobuf " + base + "/v1/metrics"},
		{"the configured endpoint goes before the environment", config(base, "", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=http://t/in"), "http/protobuf " + base + "/v1/traces", "http/protobuf " + base + "/v1/metrics"},
		{"the protocol comes from where the endpoint comes from", config("", protocolHTTP, "OTEL_EXPORTER_OTLP_ENDPOINT=http://c:4317", "OTEL_EXPORTER_OTLP_PROTOCOL=grpc"), "grpc http://c:4317", "grpc http://c:4317"},
		{"the configured protocol stays with the configured endpoint", config(base, protocolHTTP, "OTEL_EXPORTER_OTLP_PROTOCOL=grpc"), "http/protobuf " + base + "/v1/traces", "http/protobuf " + base + "/v1/metrics"},
		{"the environment's protocol fills a gap", config("http://c:4317", "", "OTEL_EXPORTER_OTLP_PROTOCOL=grpc"), "grpc http://c:4317", "grpc http://c:4317"},
		{"a protocol for one signal", config("", "", "OTEL_EXPORTER_OTLP_ENDPOINT=http://c:1", "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL=grpc"), "http/protobuf http://c:1/v1/traces", "grpc http://c:1"},
		{"another metrics exporter takes the metrics", config(base, "", "OTEL_METRICS_EXPORTER=none"), "http/protobuf " + base + "/v1/traces", "off"},
		{"an empty variable is an unset one", config("", "", "OTEL_EXPORTER_OTLP_ENDPOINT="), "off", "off"},
		{"a disabled SDK", config(base, "", "OTEL_SDK_DISABLED=true"), "off", "off"},
		{"only true disables", config(base, "", "OTEL_SDK_DISABLED=1"), "http/protobuf " + base + "/v1/traces", "http/protobuf " + base + "/v1/metrics"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			traces, metrics, err := tt.cfg.targets()
			if err != nil {
				t.Fatal(err)
			}
			if traces.String() != tt.traces || metrics.String() != tt.metrics {
				t.Errorf("traces to %q, metrics to %q; want %q, %q", traces, metrics, tt.traces, tt.metrics)
			}
		})
	}
}

func TestHeadersOfTargets(t *testing.T) {
	t.Parallel()
	cfg := config("http://c", "",
		"OTEL_EXPORTER_OTLP_HEADERS= a=1%2C2 ,b=x=y,,c=", "OTEL_EXPORTER_OTLP_METRICS_HEADERS=m=1")
	traces, metrics, err := cfg.targets()
	if err != nil {
		t.Fatal(err)
	}
	if want := map[string]string{"a": "1,2", "b": "x=y", "c": ""}; !maps.Equal(traces.headers, want) {
		t.Errorf("traces: headers %q, want %q", traces.headers, want)
	}
	if want := map[string]string{"m": "1"}; !maps.Equal(metrics.headers, want) {
		t.Errorf("metrics: headers %q, want %q", metrics.headers, want)
	}
}

func TestBadSettings(t *testing.T) {
	t.Parallel()
	withRatio := func(r float64) Config { c := config("", ""); c.SampleRatio = r; return c }
	tests := map[string]struct {
		cfg  Config
		want string
	}{
		"no scheme":              {config("hunter2:4318", ""), "telemetry.otlp_endpoint: want a URL that begins with"},
		"a foreign scheme":       {config("ftp://hunter2", ""), "telemetry.otlp_endpoint: want a URL that begins with"},
		"a password as the port": {config("http://me:hunter2", ""), "telemetry.otlp_endpoint: not a valid URL"},
		"no host":                {config("http://:4318/hunter2", ""), "telemetry.otlp_endpoint: not a valid URL"},
		"userinfo":               {config("http://me:hunter2@host", ""), "telemetry.otlp_endpoint: a URL must not carry a user"},
		"a query":                {config("http://host/?token=hunter2", ""), "telemetry.otlp_endpoint: a URL must not carry a query"},
		"a fragment":             {config("http://host/#hunter2", ""), "telemetry.otlp_endpoint: a URL must not carry a query"},
		"a variable is named":    {config("", "", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=hunter2"), "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: want a URL"},
		"protocol":               {config("http://host", "hunter2"), `telemetry.otlp_protocol: want "http/protobuf" or "grpc"`},
		"protocol of a variable": {config("", "", "OTEL_EXPORTER_OTLP_ENDPOINT=http://h", "OTEL_EXPORTER_OTLP_PROTOCOL=http/json"), "OTEL_EXPORTER_OTLP_PROTOCOL: want"},
		"header without a value": {config("http://host", "", "OTEL_EXPORTER_OTLP_HEADERS=a=b,hunter2"), "OTEL_EXPORTER_OTLP_HEADERS: entry 2 is not name=value"},
		"header name":            {config("http://host", "", "OTEL_EXPORTER_OTLP_HEADERS=hunter2 x=b"), "OTEL_EXPORTER_OTLP_HEADERS: entry 1 is not"},
		"header escape":          {config("http://host", "", "OTEL_EXPORTER_OTLP_HEADERS=a=hunter2%zz"), "OTEL_EXPORTER_OTLP_HEADERS: entry 1 is not"},
		"header value":           {config("http://host", "", "OTEL_EXPORTER_OTLP_HEADERS=a=hunter2%0ax"), "OTEL_EXPORTER_OTLP_HEADERS: entry 1 is not"},
		"resource attribute":     {config("", "", "OTEL_RESOURCE_ATTRIBUTES=a=b,hunter2"), "OTEL_RESOURCE_ATTRIBUTES: entry 2 is not key=value"},
		"queue size":             {config("", "", "OTEL_BSP_MAX_QUEUE_SIZE=hunter2"), "OTEL_BSP_MAX_QUEUE_SIZE: want a whole number"},
		"ratio above one":        {withRatio(1.5), "telemetry.sample_ratio: want a number from 0 to 1"},
		"ratio is no number":     {withRatio(math.NaN()), "telemetry.sample_ratio: want a number from 0 to 1"},
		"no service name":        {Config{Lookup: environment()}, "the service has no name"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			log := zerolog.Nop()
			_, err := build(t.Context(), tt.cfg, log, newErrorHandler(log, time.Now))
			if err == nil || !strings.HasPrefix(err.Error(), tt.want) {
				t.Fatalf("error %v, want %s…", err, tt.want)
			}
			if strings.Contains(err.Error(), "hunter2") {
				t.Errorf("the error quotes the value: %v", err)
			}
		})
	}
}

func TestResource(t *testing.T) {
	t.Parallel()
	t.Run("the environment wins, the service name last", func(t *testing.T) {
		t.Parallel()
		got := resourceOf(t, config("", "",
			"OTEL_RESOURCE_ATTRIBUTES=service.name=other, service.version=9%209 ,team=mail", "OTEL_SERVICE_NAME=named"))
		want := map[string]string{"service.name": "named", "service.version": "9 9", "team": "mail",
			"host.arch": runtime.GOARCH, "service.instance.id": "runner-1"}
		for k, v := range want {
			if got[k] != v {
				t.Errorf("%s is %q, want %q", k, got[k], v)
			}
		}
	})
	t.Run("what is not known is left out", func(t *testing.T) {
		t.Parallel()
		got := resourceOf(t, Config{ServiceName: "s", Lookup: environment()})
		for _, k := range []string{"service.version", "deployment.environment.name"} {
			if v, ok := got[k]; ok {
				t.Errorf("%s is %q", k, v)
			}
		}
	})
	t.Run("an instance id is made up", func(t *testing.T) {
		t.Parallel()
		seen := map[string]bool{}
		for range 2 {
			cfg := config("", "")
			cfg.InstanceID = ""
			tel, _ := setup(t, cfg)
			_, span := tel.tracers.Tracer("test").Start(t.Context(), "s")
			id := stringsOf(span.(sdktrace.ReadOnlySpan).Resource().Attributes())["service.instance.id"]
			if id == "" || seen[id] {
				t.Errorf("instance id %q is empty or was seen before", id)
			}
			seen[id] = true
		}
	})
}

func resourceOf(t *testing.T, cfg Config) map[string]string {
	t.Helper()
	res, err := cfg.resource(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return stringsOf(res.Attributes())
}

func stringsOf(attrs []attribute.KeyValue) map[string]string {
	m := map[string]string{}
	for _, a := range attrs {
		m[string(a.Key)] = a.Value.AsString()
	}
	return m
}
