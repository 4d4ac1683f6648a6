package telemetry

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/rs/zerolog"
)

// lines decodes one JSON object a line.
func lines(t *testing.T, out string) []map[string]any {
	t.Helper()
	var objects []map[string]any
	for line := range strings.Lines(out) {
		var o map[string]any
		if err := json.Unmarshal([]byte(line), &o); err != nil {
			t.Fatalf("line %q: %v", line, err)
		}
		objects = append(objects, o)
	}
	return objects
}

func TestErrorHandler(t *testing.T) {
	t.Parallel()

	t.Run("the first error is logged at once, then one a minute with a count", func(t *testing.T) {
		t.Parallel()
		var out bytes.Buffer
		now := time.Unix(1000, 0)
		h := newErrorHandler(zerolog.New(&out), func() time.Time { return now })
		for range 3 {
			h.Handle(errors.New("first"))
		}
		now = now.Add(errorInterval - time.Nanosecond)
		h.Handle(errors.New("too soon"))
		now = now.Add(time.Nanosecond)
		h.Handle(errors.New("due"))
		now = now.Add(errorInterval)
		h.Handle(errors.New("alone"))
		got := lines(t, out.String())
		if len(got) != 3 {
			t.Fatalf("%d lines, want 3:\n%s", len(got), &out)
		}
		for i, want := range []struct {
			text string
			held any
		}{{"first", nil}, {"due", 3.0}, {"alone", nil}} {
			if got[i]["error"] != want.text || got[i]["held_back"] != want.held || got[i]["level"] != "warn" {
				t.Errorf("line %d is %v, want %q with %v held back", i, got[i], want.text, want.held)
			}
		}
	})

	t.Run("what was held back is logged at the end", func(t *testing.T) {
		t.Parallel()
		var out bytes.Buffer
		h := newErrorHandler(zerolog.New(&out), func() time.Time { return time.Unix(1000, 0) })
		h.flush()
		h.Handle(errors.New("a"))
		h.flush()
		h.Handle(errors.New("b"))
		h.Handle(nil)
		h.flush()
		got := lines(t, out.String())
		if len(got) != 2 || got[1]["error"] != "b" || got[1]["held_back"] != 1.0 {
			t.Errorf("logged %s", &out)
		}
	})

	t.Run("secrets are masked and a long text is cut", func(t *testing.T) {
		t.Parallel()
		var out bytes.Buffer
		h := newErrorHandler(zerolog.New(&out), time.Now)
		h.hide((&target{headers: map[string]string{"authorization": "Bearer hunter2hunter2"}}).secrets())
		// The mask comes before the cut, or half a secret could stay.
		h.Handle(errors.New(strings.Repeat("x", errorLength-10) + "hunter2hunter2" + strings.Repeat("é", errorLength)))
		text, _ := lines(t, out.String())[0]["error"].(string)
		if strings.Contains(text, "hunter2") || !strings.Contains(text, "***") || len(text) > errorLength+len("…") {
			t.Errorf("logged %q", text)
		}
	})

	t.Run("the SDK's own log loses its values", func(t *testing.T) {
		t.Parallel()
		var out bytes.Buffer
		now := time.Unix(1000, 0)
		h := newErrorHandler(zerolog.New(&out), func() time.Time { now = now.Add(errorInterval); return now })
		log := logr.New(sdkLog{h})
		log.Error(errors.New("missing"), "parse headers", "input", "hunter2")
		log.WithName("n").WithValues("k", "hunter2").V(1).Info("careful", "k", "hunter2")
		log.V(4).Info("chatter")
		got := lines(t, out.String())
		if len(got) != 2 || got[0]["error"] != "parse headers: missing" || got[1]["error"] != "careful" {
			t.Errorf("logged %s", &out)
		}
		if strings.Contains(out.String(), "hunter2") {
			t.Errorf("logged a secret: %s", &out)
		}
	})
}
