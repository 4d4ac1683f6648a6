package main

import (
	"context"

	"github.com/postroom/postroom/core/queue"
)

func (s service) queueRoutes(a *api) {
	register(a, route{id: "list-queues", method: "GET", path: "/v1/queues", summary: "The queues with their depth by state"}, s.listQueues)
	register(a, route{id: "pause-queue", method: "POST", path: "/v1/queues/{name}/pause", summary: "Start no more jobs of a queue; those that run go on"}, s.pauseQueue)
	register(a, route{id: "resume-queue", method: "POST", path: "/v1/queues/{name}/resume", summary: "Start jobs of a paused queue again"}, s.resumeQueue)
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

type queueInput struct {
	Name string `path:"name"`
}

func (s service) listQueues(ctx context.Context, _ *struct{}) (*reply[queueList], error) {
	queues, err := s.queue.Queues(ctx)
	return &reply[queueList]{queueList{Queues: queues}}, err
}

func (s service) pauseQueue(ctx context.Context, in *queueInput) (*reply[*queue.Depth], error) {
	return s.changedQueue(ctx, in.Name, s.queue.Pause(ctx, in.Name))
}

func (s service) resumeQueue(ctx context.Context, in *queueInput) (*reply[*queue.Depth], error) {
	return s.changedQueue(ctx, in.Name, s.queue.Resume(ctx, in.Name))
}

// changedQueue shows a queue after a change.
func (s service) changedQueue(ctx context.Context, name string, err error) (*reply[*queue.Depth], error) {
	if err != nil {
		return nil, err
	}
	depth, err := s.queue.Depth(ctx, name)
	return &reply[*queue.Depth]{depth}, err
}

func (s service) listRunners(ctx context.Context, _ *struct{}) (*reply[runnerList], error) {
	runners, err := s.queue.Runners(ctx)
	return &reply[runnerList]{runnerList{Runners: runners}}, err
}
