package main

import (
	"context"
	"net/http"

	"github.com/postroom/postroom/core/httpd"
	"github.com/postroom/postroom/core/job"
	"github.com/postroom/postroom/core/queue"
	"github.com/postroom/postroom/core/token"
)

// Changes to jobs by hand: to one, or to all that a filter chooses.

func (s service) changeRoutes(a *api) {
	register(a, route{id: "cancel-job", method: "POST", path: "/v1/jobs/{id}/cancel", summary: "Cancel a job"}, changeJob(s.queue.Cancel))
	register(a, route{id: "retry-job", method: "POST", path: "/v1/jobs/{id}/retry", summary: "Run a failed or canceled job again"}, changeJob(s.queue.Retry))
	register(a, route{id: "run-job-now", method: "POST", path: "/v1/jobs/{id}/run-now", summary: "Let a job that waits for its time start now"}, changeJob(s.queue.RunNow))
	register(a, route{
		id: "delete-job", role: token.Admin, method: "DELETE", path: "/v1/jobs/{id}", summary: "Delete a job that has ended; what belongs to it goes too", status: http.StatusNoContent,
	}, s.deleteJob)
	register(a, route{id: "cancel-jobs", method: "POST", path: "/v1/jobs:cancel", summary: "Cancel the queued and running jobs that a filter chooses"}, s.changeJobs(queue.ToCancel))
	register(a, route{id: "retry-jobs", method: "POST", path: "/v1/jobs:retry", summary: "Run the failed and canceled jobs that a filter chooses again"}, s.changeJobs(queue.ToRetry))
	register(a, route{
		id: "delete-jobs", role: token.Admin, method: "POST", path: "/v1/jobs:delete", summary: "Delete the jobs that a filter chooses and that have ended; what belongs to them goes too",
	}, s.changeJobs(queue.ToDelete))
}

func changeJob(change func(context.Context, string) (*job.Job, error)) func(context.Context, *idInput) (*reply[*job.Job], error) {
	return func(ctx context.Context, in *idInput) (*reply[*job.Job], error) {
		j, err := change(ctx, in.ID)
		return &reply[*job.Job]{j}, err
	}
}

func (s service) deleteJob(ctx context.Context, in *idInput) (*struct{}, error) {
	return &struct{}{}, s.queue.Delete(ctx, in.ID)
}

type changeJobsInput struct {
	JobFilter
	Cursor string `query:"cursor" doc:"The next_cursor of the call before: older jobs than it looked at."`
	DryRun bool   `query:"dry_run" doc:"Count the jobs and change nothing."`
}

// changedJobs is what became of a change of many jobs.
type changedJobs struct {
	DryRun  bool        `json:"dry_run"`
	Matched int64       `json:"matched" doc:"Jobs that the filter chooses and whose state allows the change."`
	Changed int64       `json:"changed" doc:"Those of them that were changed; a running job that is canceled is asked to stop."`
	Skipped skippedJobs `json:"skipped" doc:"Those of them that stay as they are."`
	Next    *string     `json:"next_cursor" doc:"There may be more among older jobs: the same call goes on with this cursor. null when all were looked at."`
}

type skippedJobs struct {
	KeyInUse     int64 `json:"key_in_use" doc:"Another job has their idempotency key."`
	InvalidState int64 `json:"invalid_state" doc:"Their state changed meanwhile."`
}

func (s service) changeJobs(change queue.Change) func(context.Context, *changeJobsInput) (*reply[changedJobs], error) {
	return func(ctx context.Context, in *changeJobsInput) (*reply[changedJobs], error) {
		before, err := readCursor(in.Cursor)
		if err != nil {
			return nil, err
		}
		f, err := in.filter()
		if err != nil {
			return nil, err
		}
		if f.IsEmpty() {
			return nil, invalid("query", "chooses every job: give a filter, such as state=failed")
		}
		c, err := s.queue.ChangeMany(ctx, change, f, before, in.DryRun)
		if err != nil {
			return nil, err
		}
		httpd.Audited(ctx, map[string]any{"state": in.State, "type": short(in.Type), "queue": short(in.Queue), "ids": len(in.IDs), "changed": c.Changed})
		return &reply[changedJobs]{changedJobs{in.DryRun, c.Matched, c.Changed, skippedJobs{c.KeyInUse, c.Moved}, cursor(c.Next)}}, nil
	}
}
