package otlptest

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	collectorpb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
)

func request(t *testing.T, name string) []byte {
	t.Helper()
	raw, err := proto.Marshal(&collectorpb.ExportTraceServiceRequest{ResourceSpans: []*tracepb.ResourceSpans{{
		ScopeSpans: []*tracepb.ScopeSpans{{Spans: []*tracepb.Span{{
			Name: name, TraceId: bytes.Repeat([]byte{0xab}, 16), SpanId: bytes.Repeat([]byte{1}, 8),
			Status: &tracepb.Status{Code: tracepb.Status_STATUS_CODE_ERROR},
		}}}},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func post(t *testing.T, r *Receiver, path, encoding string, body []byte) int {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, r.Endpoint()+path, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-protobuf")
	if encoding != "" {
		req.Header.Set("Content-Encoding", encoding)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	return resp.StatusCode
}

func TestReceiver(t *testing.T) {
	t.Parallel()

	t.Run("plain and compressed requests are kept", func(t *testing.T) {
		t.Parallel()
		r := New(t)
		var packed bytes.Buffer
		zip := gzip.NewWriter(&packed)
		_, _ = zip.Write(request(t, "b"))
		_ = zip.Close()
		if code := post(t, r, "/v1/traces", "", request(t, "a")); code != http.StatusOK {
			t.Errorf("plain: status %d", code)
		}
		if code := post(t, r, "/v1/traces", "gzip", packed.Bytes()); code != http.StatusOK {
			t.Errorf("gzip: status %d", code)
		}
		spans := r.Spans()
		if len(spans) != 2 || spans[0].Name != "a" || spans[1].Name != "b" {
			t.Fatalf("spans %+v", spans)
		}
		if s := spans[0]; s.TraceID != strings.Repeat("ab", 16) || s.ParentID != "" || s.Status != "error" {
			t.Errorf("span %+v", s)
		}
		r.Close()
		if len(r.Spans()) != 2 {
			t.Error("closing forgot the spans")
		}
	})

	t.Run("what it cannot read is refused", func(t *testing.T) {
		t.Parallel()
		r := New(t)
		for _, tt := range []struct {
			path, encoding string
			want           int
		}{
			{"/v1/traces", "", http.StatusBadRequest},
			{"/v1/metrics", "gzip", http.StatusBadRequest},
			{"/v1/traces", "br", http.StatusBadRequest},
			{"/v1/logs", "", http.StatusNotFound},
		} {
			if code := post(t, r, tt.path, tt.encoding, []byte("\xff")); code != tt.want {
				t.Errorf("%s %q: status %d, want %d", tt.path, tt.encoding, code, tt.want)
			}
		}
		if len(r.Spans()) != 0 || len(r.Requests()) != 4 {
			t.Errorf("%d spans, %d requests; want 0, 4", len(r.Spans()), len(r.Requests()))
		}
	})

	t.Run("waiting ends with the arrival", func(t *testing.T) {
		t.Parallel()
		r := New(t)
		looked := make(chan struct{}, 10)
		got := make(chan []Span, 1)
		go func() {
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			spans, _ := r.WaitFor(ctx, func(s []Span) bool {
				looked <- struct{}{}
				return len(s) == 1
			})
			got <- spans
		}()
		<-looked // it has seen nothing and waits
		post(t, r, "/v1/traces", "", request(t, "late"))
		if spans := <-got; len(looked) == 0 || len(spans) != 1 || spans[0].Name != "late" {
			t.Errorf("spans %+v", spans)
		}
	})

	t.Run("waiting ends with the context and says what there was", func(t *testing.T) {
		t.Parallel()
		r := New(t)
		post(t, r, "/v1/traces", "", request(t, "only"))
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err := r.WaitFor(ctx, func(s []Span) bool { return len(s) > 1 })
		if !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "received 1: only") {
			t.Errorf("error %v", err)
		}
	})
}
