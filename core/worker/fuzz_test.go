package worker

import (
	"bytes"
	"context"
	"encoding/json"
	"reflect"
	"regexp"
	"strconv"
	"testing"
	"time"

	"github.com/postroom/postroom/core/job"
	"github.com/postroom/postroom/core/queue"
)

// everything is a payload with one field of each shape a payload may have.
type everything struct {
	Text   string            `json:"text"`
	Small  int8              `json:"small"`
	Count  uint              `json:"count"`
	Real   float64           `json:"real"`
	Flag   bool              `json:"flag"`
	Maybe  *int64            `json:"maybe"`
	List   []string          `json:"list"`
	Pair   [2]int            `json:"pair"`
	ByName map[string]int    `json:"by_name"`
	ByInt  map[int]bool      `json:"by_int"`
	Inner  inner             `json:"inner"`
	Inners []inner           `json:"inners"`
	Bytes  []byte            `json:"bytes"`
	At     job.Time          `json:"at"`
	When   time.Time         `json:"when"`
	Raw    json.RawMessage   `json:"raw"`
	Any    any               `json:"any"`
	Nested map[string]*inner `json:"nested"`
}

type inner struct {
	Text string `json:"text"`
	N    int    `json:"n"`
}

// payloads bind one handler to each kind of payload.
var payloads = map[string]func(t *testing.T, payload []byte) error{
	"everything": handle[everything], "sync": handle[job.SyncPayload], "ingest": handle[job.IngestPayload],
	"text": handle[string], "int": handle[int], "bool": handle[bool], "list": handle[[]inner],
	"map": handle[map[string]everything], "raw": handle[json.RawMessage], "any": handle[any],
}

// handle runs a handler for P, which must be given what encoding/json makes of
// the payload, or not run at all.
func handle[P any](t *testing.T, payload []byte) error {
	t.Helper()
	var got *P
	b := Bind("x", func(_ context.Context, j *Job[P]) (any, error) {
		got = &j.Payload
		return nil, nil
	})
	_, err := b.handle(t.Context(), &Run{claimed: queue.Claimed{Payload: payload}})
	var want P
	wrong := json.Unmarshal(payload, &want)
	switch {
	case (err == nil) != (wrong == nil), (err == nil) != (got != nil):
		t.Errorf("%T: encoding/json says %v, the binding %v, the handler got %v", want, wrong, err, got)
	case err == nil && !reflect.DeepEqual(*got, want):
		t.Errorf("%T: the handler got %#v, want %#v", want, *got, want)
	}
	return err
}

// A mistake is told in words that were all known before the payload came: the
// names of fields, numbers, types.
var payloadMistake = regexp.MustCompile(`^(the payload|payload(\.(text|small|count|real|flag|maybe|list|pair|by_name|by_int|inner|inners|bytes|at|when|raw|any|nested|n|account_id|unique|posted))+) ` +
	`\(byte (\d+), line (\d+)\) must be of type ([][*a-z0-9A-Z._]+)$`)

// Whatever a payload holds, its handler gets what encoding/json makes of it, or
// the job fails for good with the place of the mistake and no word of the
// payload.
func FuzzPayload(f *testing.F) {
	for _, seed := range []string{
		`null`, `{}`, `"text"`, `1`, `[]`, `{"text":1}`, `{"small":1000}`, `{"count":-1}`, `{"real":1e999}`, "{\n\"flag\":\n\"secret\"}",
		`{"maybe":1.5}`, `{"list":["a",2]}`, `{"pair":[1,"2"]}`, `{"by_name":{"secret":"x"}}`, `{"by_int":{"secret":true}}`, `{"inner":{"n":"x"}}`,
		`{"inners":[{},{"text":{}}]}`, `{"bytes":"!"}`, `{"at":"secret"}`, `{"when":1}`, `{"nested":{"secret":{"n":[]}}}`, `{"TEXT":false}`,
		`{"account_id":{"secret":1}}`, `{"unique":"\ud800","posted":"yes"}`, `{"at":1e400}`, "{\"list\":\n\n[{\n}]}", `{"text":"a","text":2}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		if job.CheckJSON("payload", payload) != nil {
			return // it was never stored
		}
		for name, handle := range payloads {
			before := bytes.Clone(payload)
			err := handle(t, payload)
			if !bytes.Equal(payload, before) {
				t.Fatalf("%s: the payload was changed", name)
			}
			if err == nil {
				continue
			}
			if !job.IsFatal(err) {
				t.Errorf("%s: trying again is no cure: %v", name, err)
			}
			if err.Error() == "the payload does not decode" {
				continue
			}
			m := payloadMistake.FindStringSubmatch(err.Error())
			if m == nil {
				t.Fatalf("%s: not made of known words only: %v", name, err)
			}
			at, line := number(t, m[4]), number(t, m[5])
			first := values(payload)[at]
			if first == 0 {
				t.Errorf("%s: no value of %q begins at byte %d", name, payload, at)
			}
			if want := 1 + bytes.Count(payload[:at], []byte("\n")); line != want {
				t.Errorf("%s: byte %d is in line %d, not %d", name, at, want, line)
			}
			if first == '"' && m[6] == "string" || (first == 't' || first == 'f') && m[6] == "bool" {
				t.Errorf("%s: at byte %d of %q there is a %s, and one is asked for", name, at, payload, m[6])
			}
		}
	})
}

func number(t *testing.T, digits string) int {
	t.Helper()
	n, err := strconv.Atoi(digits)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// values are the first bytes of the values and keys of valid JSON, by their
// place from 1.
func values(payload []byte) map[int]byte {
	first := map[int]byte{}
	for i := 0; i < len(payload); i++ {
		switch c := payload[i]; c {
		case ' ', '\t', '\r', '\n', ',', ':', ']', '}':
		case '"':
			first[i+1] = c
			for i++; payload[i] != '"'; i++ {
				if payload[i] == '\\' {
					i++
				}
			}
		case '[', '{':
			first[i+1] = c
		default:
			first[i+1] = c
			for i+1 < len(payload) && !bytes.ContainsRune([]byte(" \t\r\n,]}"), rune(payload[i+1])) {
				i++
			}
		}
	}
	return first
}
