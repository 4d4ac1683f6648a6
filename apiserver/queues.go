package main

import (
	"context"

	"github.com/postroom/postroom/core/queue"
)

func (s service) queueRoutes(a *api) {
	register(a, route{id: "list-queues", method: "GET", path: "/v1/queues", summary: "The queues with their depth by state"}, s.listQueues)
	register(a, route{id: "list-runners", method: "GET", path: "/v1/runners", summary: "The runners that were heard of in the last day"}, s.listRunners)
}

// queueList and runnerList are always whole; they have a cursor because every
// list has one.
type queueList struct {
	Queues []queue.Depth `json:"queues" nullable:"false"`
	Next   *string       `json:"next_cursor"`
}

type runnerList struct {
	Runners []queue.Runner `json:"runners" nullable:"false"`
	Next    *string        `json:"next_cursor"`
}

func (s service) listQueues(ctx context.Context, _ *struct{}) (*reply[queueList], error) {
	queues, err := s.queue.Queues(ctx)
	return &reply[queueList]{queueList{Queues: queues}}, err
}

func (s service) listRunners(ctx context.Context, _ *struct{}) (*reply[runnerList], error) {
	runners, err := s.queue.Runners(ctx)
	return &reply[runnerList]{runnerList{Runners: runners}}, err
}
