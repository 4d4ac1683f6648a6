package main

import (
	"context"
	"encoding/json"
	"errors"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/postroom/postroom/core/job"
	"github.com/postroom/postroom/core/queue"
	"github.com/postroom/postroom/core/step"
	"github.com/postroom/postroom/core/system"
)

// uncertain stores a job whose step came to an end that nobody knows, as a
// runner would, and returns its id. The job is left running when final is
// false.
func (f *fixture) uncertain(name string, final bool) string {
	f.t.Helper()
	ctx := f.t.Context()
	e, err := f.queue.Enqueue(ctx, job.New{Type: "mail.send"})
	if err != nil {
		f.t.Fatal(err)
	}
	r := f.claim(e.ID)
	_, err = step.Once(r.ctx, name, func(context.Context) (string, error) {
		return "", step.Uncertain(errors.New("the line went dead"))
	}, nil)
	if err == nil || !r.steps.Uncertain() {
		f.t.Fatalf("the step is not uncertain: %v", err)
	}
	if final {
		r.finish(queue.Outcome{Kind: queue.Fatal, Error: job.CodeStepUncertain + ": " + err.Error()})
	}
	return e.ID
}

// oneRun is one run of a job without a worker.
type oneRun struct {
	f     *fixture
	ctx   context.Context
	lease queue.Lease
	steps *step.Recorder
}

func (f *fixture) claim(id string) *oneRun {
	f.t.Helper()
	c, err := f.queue.Claim(f.t.Context(), queue.ClaimRequest{
		Runner: "r", Token: f.queue.NewToken(), Types: []string{"mail.send"}, Limit: 1, Lease: time.Minute,
	})
	if err != nil || len(c.Jobs) != 1 || c.Jobs[0].JobID != id {
		f.t.Fatalf("claimed %+v, %v", c.Jobs, err)
	}
	log := zerolog.Nop()
	steps := step.NewRecorder(step.Config{
		DB: f.queue.DB(), System: system.Real{}, Lease: c.Jobs[0].Lease, Run: c.Jobs[0].Run,
		LeaseEnds: func() time.Time { return c.Jobs[0].Deadline }, Worker: f.t.Context(), Log: func() *zerolog.Logger { return &log },
	})
	return &oneRun{f, step.NewContext(f.t.Context(), steps), c.Jobs[0].Lease, steps}
}

func (r *oneRun) finish(o queue.Outcome) {
	r.f.t.Helper()
	if _, err := r.f.queue.Finish(r.f.t.Context(), r.lease, o); err != nil {
		r.f.t.Fatal(err)
	}
}

func (f *fixture) settle(id, name, body string) answer {
	f.t.Helper()
	return f.post("/v1/jobs/"+id+"/steps/"+url.PathEscape(name)+"/settle", body)
}

func TestAnUncertainStepIsSettledByHand(t *testing.T) {
	t.Parallel()
	t.Run("one that happened is replayed", func(t *testing.T) {
		t.Parallel()
		f := newFixture(t)
		id := f.uncertain("send", true)
		detail := f.get("/v1/jobs/" + id).is(200)
		shown := detail["steps"].([]any)[0].(map[string]any)
		if detail["state"] != "failed" || shown["outcome"] != "uncertain" || shown["error"] != "the line went dead" || shown["finished_at"] != nil ||
			detail["last_error"] != "step_uncertain: step send: it is not known whether it happened: the line went dead" {
			t.Errorf("shown as %v", detail)
		}

		got := f.settle(id, "send", `{"happened":true,"result":"<id@example.org>"}`).is(200)
		for field, want := range map[string]any{
			"name": "send", "run": 1.0, "outcome": "done", "result": "<id@example.org>", "job_id": id, "job_state": "failed",
			"error": "settled by hand; it was uncertain: the line went dead",
			"next":  "POST /v1/jobs/" + id + "/retry runs the job again; this step's result is replayed then",
		} {
			if got[field] != want {
				t.Errorf("%s is %v, want %v", field, got[field], want)
			}
		}
		if s, _ := got["finished_at"].(string); !stamp.MatchString(s) {
			t.Errorf("finished_at is %v", got["finished_at"])
		}
		f.settle(id, "send", `{"happened":true}`).problem(409, "invalid_state", "") // it is settled

		f.call("POST", "/v1/jobs/"+id+"/retry", "").is(200)
		sent, err := step.Once(f.claim(id).ctx, "send", func(context.Context) (string, error) {
			t.Error("the effect was repeated")
			return "", nil
		}, nil)
		if err != nil || sent != "<id@example.org>" {
			t.Errorf("replayed %q, %v", sent, err)
		}
	})
	t.Run("one that did not is executed, whatever its name", func(t *testing.T) {
		t.Parallel()
		f := newFixture(t)
		name := "send/1 of 2: é%?#"
		id := f.uncertain(name, true)
		got := f.settle(id, name, `{"happened":false,"result":null}`).is(200)
		if got["outcome"] != "failed" || got["result"] != nil || !strings.HasSuffix(got["next"].(string), "is executed then") {
			t.Errorf("got %v", got)
		}
		f.call("POST", "/v1/jobs/"+id+"/retry", "").is(200)
		f.settle(id, name, `{"happened":true}`).problem(409, "invalid_state", "")
		r := f.claim(id)
		sent, err := step.Once(r.ctx, name, func(context.Context) (string, error) { return "now", nil }, nil)
		if err != nil || sent != "now" {
			t.Errorf("executed: %q, %v", sent, err)
		}
		r.finish(queue.Outcome{Kind: queue.Completed, Result: json.RawMessage(`1`)})
		if detail := f.get("/v1/jobs/" + id).is(200); detail["steps"].([]any)[0].(map[string]any)["outcome"] != "done" {
			t.Errorf("shown as %v", detail)
		}
	})
	t.Run("a result that is left out is null, and a completed job needs nothing more", func(t *testing.T) {
		t.Parallel()
		f := newFixture(t)
		id := f.uncertain("send", true)
		b := f.queue.NewBatch(t.Context())
		b.Exec("UPDATE jobs SET state = 'completed' WHERE id = ?", id) // by a handler that went on without the step
		if _, err := f.queue.Write(t.Context(), b); err != nil {
			t.Fatal(err)
		}
		got := f.settle(id, "send", `{"happened":true}`).is(200)
		if next, has := got["next"]; got["outcome"] != "done" || got["result"] != nil || !has || next != nil {
			t.Errorf("got %v", got)
		}
	})
}

func TestWhatCannotBeSettledIsRefused(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	running := f.uncertain("send", false)
	id := f.uncertain("send", true)
	before := f.get("/v1/jobs/" + id).raw

	f.settle(running, "send", `{"happened":true}`).problem(409, "invalid_state", "")
	f.settle(id, "receive", `{"happened":true}`).problem(404, "not_found", "")
	f.settle(running, "receive", `{"happened":true}`).problem(404, "not_found", "")
	f.settle(unknownID, "send", `{"happened":true}`).problem(404, "not_found", "")
	f.get("/v1/jobs/"+id+"/steps/send/settle").problem(405, "method_not_allowed", "")
	f.call("POST", "/v1/jobs/"+id+"/steps/send/settle", `{"happened":true}`, "Content-Type", "text/plain").problem(415, "unsupported_media_type", "")
	f.post("/v1/jobs/"+id+"/steps/%ff/settle", `{"happened":true}`).problem(400, "invalid_utf8", "")
	f.settle(id, "a\tb", `{"happened":true}`).problem(400, "invalid", "name")
	f.settle(id, strings.Repeat("x", 201), `{"happened":true}`).problem(400, "invalid", "name")
	for body, field := range map[string]string{
		`{}`:                              "happened",
		`{"happened":null}`:               "happened",
		`{"happened":"yes"}`:              "happened",
		`{"happened":false,"result":1}`:   "result",
		`{"happened":true,"outcome":"x"}`: "outcome",
		`{"happened":true,"result":` + strings.Repeat("[", 501) + strings.Repeat("]", 501) + `}`: "result",
	} {
		f.settle(id, "send", body).problem(400, "invalid", field)
	}
	f.settle(id, "send", "{\"happened\":true,\"result\":\"caf\xe9\"}").problem(400, "invalid_utf8", "body")
	f.settle(id, "send", `{"happened":true,"result":"`+strings.Repeat("x", 1<<20)+`"}`).problem(413, "too_large", "result")
	if after := f.get("/v1/jobs/" + id).raw; after != before {
		t.Errorf("a refusal changed the job:\n%s\n%s", before, after)
	}

	f.settle(id, "send", `{"happened":true,"result":"`+strings.Repeat("x", 1<<20-2)+`"}`).is(200) // as large as may be
	described := f.get("/openapi.json").is(200)["components"].(map[string]any)["schemas"].(map[string]any)
	outcome := described["Step"].(map[string]any)["properties"].(map[string]any)["outcome"].(map[string]any)["enum"].([]any)
	if !slices.Equal(outcome, []any{"running", "done", "failed", "uncertain"}) {
		t.Errorf("the outcomes are described as %v", outcome)
	}
}
