package main

import (
	"context"
	"net/http"
	"time"

	"github.com/postroom/postroom/core/queue"
	"github.com/postroom/postroom/core/token"
)

// newLimit is a limit as a client asks for it; what it limits is in the path.
type newLimit struct {
	MaxRunning *int64  `json:"max_running,omitempty" minimum:"0" maximum:"1000000" doc:"How many jobs may run at once; null for any number, 0 lets none start."`
	Interval   *string `json:"interval,omitempty" doc:"Of a key: the least time between two starts, such as 1s; null for none."`
}

// LimitOf is what a limit is on. It is exported because huma does not look into
// embedded types that are not.
type LimitOf struct {
	Scope string `path:"scope" enum:"queue,type,key"`
	Name  string `path:"name" doc:"The name of a queue or type, or a limit key; * with the scope key is each key that has no limit of its own."`
}

// shownLimit describes how a limit encodes itself.
type shownLimit struct {
	Scope      string  `json:"scope" enum:"queue,type,key"`
	Name       string  `json:"name"`
	MaxRunning *int64  `json:"max_running"`
	Interval   *string `json:"interval"`
	Running    int64   `json:"running" doc:"How many jobs run under it now."`
}

type setLimitInput struct {
	jsonBody[newLimit]
	LimitOf
}

type limitList struct {
	Limits []queue.Limit `json:"limits" nullable:"false"`
	Next   *string       `json:"next_cursor"`
}

func (s service) limitRoutes(a *api) {
	register(a, route{id: "list-limits", method: "GET", path: "/v1/limits", summary: "List limits by scope and name"}, s.listLimits)
	register(a, route{id: "get-limit", method: "GET", path: "/v1/limits/{scope}/{name}", summary: "A limit"}, s.getLimit)
	register(a, route{
		id: "set-limit", role: token.Admin, method: "PUT", path: "/v1/limits/{scope}/{name}", summary: "Set a limit, for what starts from now on",
		takes: newLimit{}, max: s.maxBody,
	}, s.setLimit)
	register(a, route{
		id: "delete-limit", role: token.Admin, method: "DELETE", path: "/v1/limits/{scope}/{name}", summary: "Take a limit away", status: http.StatusNoContent,
	}, s.deleteLimit)
}

func (s service) listLimits(ctx context.Context, in *Paging) (*reply[limitList], error) {
	limits, next, err := s.queue.LimitsPage(ctx, in.Cursor, in.Limit)
	return &reply[limitList]{limitList{limits, optional(next)}}, err
}

func (s service) getLimit(ctx context.Context, in *LimitOf) (*reply[*queue.Limit], error) {
	l, err := s.queue.GetLimit(ctx, in.Scope, in.Name)
	return &reply[*queue.Limit]{l}, err
}

func (s service) setLimit(ctx context.Context, in *setLimitInput) (*reply[*queue.Limit], error) {
	interval, err := duration(in.value.Interval, "interval", time.Millisecond)
	if err != nil {
		return nil, err
	}
	l := queue.Limit{Scope: in.Scope, Name: in.Name, MaxRunning: in.value.MaxRunning, Interval: interval}
	if err := s.queue.SetLimit(ctx, l); err != nil {
		return nil, err
	}
	return s.getLimit(ctx, &in.LimitOf)
}

func (s service) deleteLimit(ctx context.Context, in *LimitOf) (*struct{}, error) {
	return &struct{}{}, s.queue.DropLimit(ctx, in.Scope, in.Name)
}
