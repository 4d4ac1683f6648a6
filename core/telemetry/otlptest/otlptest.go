// Package otlptest is a small OpenTelemetry collector for tests: it takes
// traces and metrics over OTLP, HTTP and gRPC on one port, and keeps them in
// memory. It imports the protocol's definitions and gRPC, neither the
// OpenTelemetry SDK nor anything of this project, so that it can serve tests of
// the real exporters and of whole binaries.
package otlptest

import (
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	metricspb "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	tracepb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/grpc"
	_ "google.golang.org/grpc/encoding/gzip" // lets the server read compressed requests
	"google.golang.org/protobuf/proto"
)

// maxRequest bounds a request in both its forms, packed and unpacked.
const maxRequest = 64 << 20

// Receiver is a running collector.
type Receiver struct {
	address string
	http    *http.Server
	grpc    *grpc.Server
	serving sync.WaitGroup

	mu       sync.Mutex
	changed  chan struct{} // closed, and replaced, when something has arrived
	spans    []Span
	metrics  []Metric
	requests []Request
}

// Request is a call that was received.
type Request struct {
	Path   string // an HTTP path, or a gRPC method such as "/package.Service/Export"
	Header http.Header
}

// New starts a receiver that is closed when the test ends.
func New(t testing.TB) *Receiver {
	t.Helper()
	r, err := Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	return r
}

// Start starts a receiver on a free port of 127.0.0.1.
func Start() (*Receiver, error) {
	listener, err := new(net.ListenConfig).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("otlptest: %w", err)
	}
	r := &Receiver{address: listener.Addr().String(), changed: make(chan struct{})}
	r.grpc = grpc.NewServer(grpc.MaxRecvMsgSize(maxRequest))
	tracepb.RegisterTraceServiceServer(r.grpc, traceService{receiver: r})
	metricspb.RegisterMetricsServiceServer(r.grpc, metricsService{receiver: r})

	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/traces", func(w http.ResponseWriter, req *http.Request) {
		var body tracepb.ExportTraceServiceRequest
		if read(w, req, &body) {
			r.addSpans(&body)
			answer(w, &tracepb.ExportTraceServiceResponse{})
		}
	})
	mux.HandleFunc("POST /v1/metrics", func(w http.ResponseWriter, req *http.Request) {
		var body metricspb.ExportMetricsServiceRequest
		if read(w, req, &body) {
			r.addMetrics(&body)
			answer(w, &metricspb.ExportMetricsServiceResponse{})
		}
	})
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	r.http = &http.Server{Protocols: protocols, Handler: http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		r.addRequest(req)
		if req.ProtoMajor == 2 && strings.HasPrefix(req.Header.Get("Content-Type"), "application/grpc") {
			r.grpc.ServeHTTP(w, req)
			return
		}
		mux.ServeHTTP(w, req)
	})}
	// Serve ends with an error only because Close was called.
	r.serving.Go(func() { _ = r.http.Serve(listener) })
	return r, nil
}

// Endpoint is the base URL for both protocols.
func (r *Receiver) Endpoint() string { return "http://" + r.address }

// Close stops the receiver. What it received stays readable.
func (r *Receiver) Close() {
	_ = r.http.Close() // nothing to be done about a socket that does not close
	r.grpc.Stop()
	r.serving.Wait()
}

// Spans returns the spans received so far, in the order of their arrival.
func (r *Receiver) Spans() []Span {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.spans)
}

// Metrics returns the metrics received so far; one that was exported several
// times is there several times.
func (r *Receiver) Metrics() []Metric {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.metrics)
}

// Requests returns the calls received so far, refused ones too.
func (r *Receiver) Requests() []Request {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.requests)
}

// WaitFor returns the spans as soon as enough says yes to them. When ctx ends
// before, the error says which spans there were.
func (r *Receiver) WaitFor(ctx context.Context, enough func([]Span) bool) ([]Span, error) {
	return waitFor(ctx, r, r.Spans, enough, func(s Span) string { return s.Name })
}

// WaitForMetrics is WaitFor for metrics.
func (r *Receiver) WaitForMetrics(ctx context.Context, enough func([]Metric) bool) ([]Metric, error) {
	return waitFor(ctx, r, r.Metrics, enough, func(m Metric) string { return m.Name })
}

func waitFor[T any](ctx context.Context, r *Receiver, received func() []T, enough func([]T) bool, name func(T) string) ([]T, error) {
	for {
		// The signal is taken before the look, or an arrival in between would
		// be missed.
		r.mu.Lock()
		changed := r.changed
		r.mu.Unlock()
		items := received()
		if enough(items) {
			return items, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			names := make([]string, len(items))
			for i, item := range items {
				names[i] = name(item)
			}
			return items, fmt.Errorf("otlptest: %w; received %d: %s", ctx.Err(), len(items), strings.Join(names, ", "))
		}
	}
}

func (r *Receiver) addRequest(req *http.Request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.requests = append(r.requests, Request{Path: req.URL.Path, Header: req.Header.Clone()})
}

func (r *Receiver) addSpans(body *tracepb.ExportTraceServiceRequest) {
	spans := decodeSpans(body.GetResourceSpans())
	r.mu.Lock()
	defer r.mu.Unlock()
	r.spans = append(r.spans, spans...)
	r.signal()
}

func (r *Receiver) addMetrics(body *metricspb.ExportMetricsServiceRequest) {
	metrics := decodeMetrics(body.GetResourceMetrics())
	r.mu.Lock()
	defer r.mu.Unlock()
	r.metrics = append(r.metrics, metrics...)
	r.signal()
}

// signal wakes those who wait; r.mu is held.
func (r *Receiver) signal() {
	close(r.changed)
	r.changed = make(chan struct{})
}

type traceService struct {
	tracepb.UnimplementedTraceServiceServer
	receiver *Receiver
}

func (s traceService) Export(_ context.Context, body *tracepb.ExportTraceServiceRequest) (*tracepb.ExportTraceServiceResponse, error) {
	s.receiver.addSpans(body)
	return &tracepb.ExportTraceServiceResponse{}, nil
}

type metricsService struct {
	metricspb.UnimplementedMetricsServiceServer
	receiver *Receiver
}

func (s metricsService) Export(_ context.Context, body *metricspb.ExportMetricsServiceRequest) (*metricspb.ExportMetricsServiceResponse, error) {
	s.receiver.addMetrics(body)
	return &metricspb.ExportMetricsServiceResponse{}, nil
}

// read decodes an HTTP request or answers it with what is wrong.
func read(w http.ResponseWriter, req *http.Request, body proto.Message) bool {
	if t := req.Header.Get("Content-Type"); t != "application/x-protobuf" {
		http.Error(w, "want application/x-protobuf", http.StatusUnsupportedMediaType)
		return false
	}
	raw, err := unpack(req)
	if err == nil {
		err = proto.Unmarshal(raw, body)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return false
	}
	return true
}

func unpack(req *http.Request) ([]byte, error) {
	var source io.Reader = req.Body
	switch encoding := req.Header.Get("Content-Encoding"); encoding {
	case "":
	case "gzip":
		unzip, err := gzip.NewReader(req.Body)
		if err != nil {
			return nil, err
		}
		source = unzip
	default:
		return nil, fmt.Errorf("content encoding %q is not supported", encoding)
	}
	raw, err := io.ReadAll(io.LimitReader(source, maxRequest+1))
	if err == nil && len(raw) > maxRequest {
		err = errors.New("request too large")
	}
	return raw, err
}

func answer(w http.ResponseWriter, body proto.Message) {
	raw, err := proto.Marshal(body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/x-protobuf")
	_, _ = w.Write(raw) // the exporter has gone; its data is kept all the same
}
