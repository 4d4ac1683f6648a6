package main

import (
	"context"
	"encoding/json"

	"github.com/postroom/postroom/core/job"
	"github.com/postroom/postroom/core/queue"
)

// settlement is what a person found out about an uncertain step.
type settlement struct {
	Happened *bool           `json:"happened" doc:"Whether what the step does has been done."`
	Result   json.RawMessage `json:"result,omitempty" doc:"What the step would have returned, if it happened: any JSON value, 1 MiB at most; null when left out."`
}

type settleInput struct {
	ID   string `path:"id"`
	Name string `path:"name" doc:"The step's name, percent-encoded."`
	jsonBody[settlement]
}

// settledStep is the step and what is left to decide. Settling is one decision
// and running the job again another, so they are two calls.
type settledStep struct {
	*queue.Settled
	Next *string `json:"next" doc:"The call that goes on from here, for people to read; null when the job is completed."`
}

func (s service) settleStep(ctx context.Context, in *settleInput) (*reply[settledStep], error) {
	v := in.value
	if v.Happened == nil {
		return nil, invalid("happened", "is required")
	}
	if err := checkSize("result", v.Result); err != nil {
		return nil, err
	}
	settled, err := s.queue.SettleStep(ctx, in.ID, in.Name, queue.Settlement{Happened: *v.Happened, Result: v.Result})
	if err != nil {
		return nil, err
	}
	out := settledStep{Settled: settled}
	if settled.JobState != job.Completed {
		next := "POST /v1/jobs/" + settled.JobID + "/retry runs the job again; this step is executed then"
		if settled.Outcome == job.StepDone {
			next = "POST /v1/jobs/" + settled.JobID + "/retry runs the job again; this step's result is replayed then"
		}
		out.Next = &next
	}
	return &reply[settledStep]{out}, nil
}
