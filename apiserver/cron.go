package main

import (
	"context"
	"encoding/json"
	"net/http"

	"github.com/postroom/postroom/core/job"
	"github.com/postroom/postroom/core/queue"
	"github.com/postroom/postroom/core/token"
)

// newCron is a schedule as a client asks for it; its name is in the path.
type newCron struct {
	Schedule string          `json:"schedule" doc:"Five fields (30 2 * * *), @hourly, @daily, @weekly, @monthly, @yearly, or @every with a duration (@every 90m)."`
	TZ       *string         `json:"tz,omitempty" default:"UTC" doc:"The time zone whose clocks the fields mean, such as Europe/Berlin."`
	CatchUp  *string         `json:"catch_up,omitempty" enum:"one,all,none" default:"one" doc:"What becomes of times that were missed: one job, a job for each, or none."`
	Overlap  *string         `json:"overlap,omitempty" enum:"allow,skip" default:"allow" doc:"Whether a job is stored while the one before has not ended."`
	Type     string          `json:"type" doc:"Of the jobs."`
	Queue    *string         `json:"queue,omitempty" doc:"Of the jobs; the type's when left out."`
	Priority *int64          `json:"priority,omitempty" minimum:"-100" maximum:"100" doc:"Of the jobs."`
	Payload  json.RawMessage `json:"payload,omitempty" doc:"Of the jobs; null when left out."`
}

type nameInput struct {
	Name string `path:"name"`
}

type setCronInput struct {
	jsonBody[newCron]
	Name string `path:"name" doc:"Up to 100 letters, digits, '.', '_' and '-'."`
}

type cronList struct {
	Cron []queue.Cron `json:"cron" nullable:"false"`
	Next *string      `json:"next_cursor"`
}

func (s service) cronRoutes(a *api) {
	register(a, route{id: "list-cron", method: "GET", path: "/v1/cron", summary: "List schedules by name"}, s.listCron)
	register(a, route{
		id: "set-cron", role: token.Admin, method: "PUT", path: "/v1/cron/{name}", summary: "Store a schedule, or replace it and keep where it stands",
		also: map[int]string{http.StatusCreated: "there was none of this name"}, takes: newCron{}, max: s.maxBody,
	}, s.setCron)
	register(a, route{id: "get-cron", method: "GET", path: "/v1/cron/{name}", summary: "A schedule"}, s.getCron)
	register(a, route{
		id: "delete-cron", role: token.Admin, method: "DELETE", path: "/v1/cron/{name}", summary: "Delete a schedule; its jobs stay", status: http.StatusNoContent,
	}, s.deleteCron)
	register(a, route{id: "pause-cron", method: "POST", path: "/v1/cron/{name}/pause", summary: "Pause a schedule"}, s.pauseCron)
	register(a, route{id: "resume-cron", method: "POST", path: "/v1/cron/{name}/resume", summary: "Resume a schedule, without what it missed"}, s.resumeCron)
	register(a, route{
		id: "trigger-cron", method: "POST", path: "/v1/cron/{name}/trigger", summary: "Store a job of a schedule now and leave its times alone",
		status: http.StatusCreated, also: map[int]string{http.StatusOK: "overlap is skip: the job that has not ended, with \"duplicate\": true"},
	}, s.triggerCron)
}

func (s service) listCron(ctx context.Context, in *Paging) (*reply[cronList], error) {
	list, next, err := s.queue.Crons(ctx, in.Cursor, in.Limit)
	return &reply[cronList]{cronList{list, optional(next)}}, err
}

func (s service) setCron(ctx context.Context, in *setCronInput) (*replyAs[*queue.Cron], error) {
	n := in.value
	if err := checkSize("payload", n.Payload); err != nil {
		return nil, err
	}
	priority, err := within(n.Priority, "priority", -job.MaxPriority, job.MaxPriority)
	if err != nil {
		return nil, err
	}
	c, created, err := s.queue.SetCron(ctx, queue.NewCron{
		Name: in.Name, Schedule: n.Schedule, TZ: text(n.TZ), CatchUp: queue.CatchUp(text(n.CatchUp)), Overlap: queue.Overlap(text(n.Overlap)),
		Type: n.Type, Queue: text(n.Queue), Priority: priority, Payload: n.Payload,
	})
	status := http.StatusOK
	if created {
		status = http.StatusCreated
	}
	return &replyAs[*queue.Cron]{status, c}, err
}

func (s service) getCron(ctx context.Context, in *nameInput) (*reply[*queue.Cron], error) {
	c, err := s.queue.Cron(ctx, in.Name)
	return &reply[*queue.Cron]{c}, err
}

func (s service) deleteCron(ctx context.Context, in *nameInput) (*struct{}, error) {
	return &struct{}{}, s.queue.DeleteCron(ctx, in.Name)
}

func (s service) pauseCron(ctx context.Context, in *nameInput) (*reply[*queue.Cron], error) {
	c, err := s.queue.PauseCron(ctx, in.Name)
	return &reply[*queue.Cron]{c}, err
}

func (s service) resumeCron(ctx context.Context, in *nameInput) (*reply[*queue.Cron], error) {
	c, err := s.queue.ResumeCron(ctx, in.Name)
	return &reply[*queue.Cron]{c}, err
}

func (s service) triggerCron(ctx context.Context, in *nameInput) (*replyAs[anyJob], error) {
	c, err := s.queue.Cron(ctx, in.Name)
	if err != nil {
		return nil, err
	}
	stored, err := s.queue.TriggerCron(ctx, in.Name)
	if err != nil {
		return nil, err
	}
	return s.answerStored(ctx, stored, c.Type, http.StatusCreated)
}
