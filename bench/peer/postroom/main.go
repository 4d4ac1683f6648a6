// Command postroom drives this queue with its real worker.
package main

import (
	"context"
	"flag"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/rs/zerolog"

	"github.com/postroom/postroom/bench/driver"
	"github.com/postroom/postroom/core/job"
	"github.com/postroom/postroom/core/libsql"
	"github.com/postroom/postroom/core/queue"
	"github.com/postroom/postroom/core/step"
	"github.com/postroom/postroom/core/system"
	"github.com/postroom/postroom/core/worker"
)

const concurrency = 1000

var (
	synchronous = flag.String("synchronous", "full", "full or normal")
	types       = job.Types{driver.Args{}.Kind(): {Name: driver.Args{}.Kind(), Queue: job.DefaultQueue, MaxAttempts: 5, Timeout: time.Minute}}
)

type peer struct{ q *queue.Queue }

func main() { driver.Main(open) }

// open is given a folder, or a server's URL and that of its admin API.
func open(ctx context.Context, at string) (driver.Peer, error) {
	opt := libsql.Options{Path: filepath.Join(at, "postroom.db"), Synchronous: *synchronous}
	if libsql.IsRemote(at) {
		opt.Path, opt.Admin, _ = strings.Cut(at, " ")
	}
	if err := libsql.Migrate(ctx, opt); err != nil {
		return nil, err
	}
	db, err := libsql.Open(ctx, opt)
	if err != nil {
		return nil, err
	}
	return &peer{queue.New(db, system.Real{}, types)}, nil
}

func (p *peer) Enqueue(ctx context.Context, args []driver.Args) error {
	jobs := make([]job.New, len(args))
	for i, a := range args {
		jobs[i] = job.New{Type: a.Kind(), Payload: job.Payload(a)}
	}
	_, err := p.q.EnqueueMany(ctx, jobs)
	return err
}

func (p *peer) Work(ctx context.Context, handle func(driver.Args)) error {
	return p.work(ctx, func(_ context.Context, j *worker.Job[driver.Args]) (any, error) {
		handle(j.Payload)
		return driver.Result{OK: true}, nil
	})
}

// WorkSteps implements driver.Stepper.
func (p *peer) WorkSteps(ctx context.Context, steps int, do func() driver.Result, handle func(driver.Args)) error {
	return p.work(ctx, func(ctx context.Context, j *worker.Job[driver.Args]) (any, error) {
		for n := range steps {
			if _, err := step.Run(ctx, strconv.Itoa(n), func(context.Context) (driver.Result, error) { return do(), nil }); err != nil {
				return nil, err
			}
		}
		handle(j.Payload)
		return driver.Result{OK: true}, nil
	})
}

// WorkAndFollow implements driver.Follower.
func (p *peer) WorkAndFollow(ctx context.Context, handle func(driver.Args) []driver.Args) error {
	return p.work(ctx, func(ctx context.Context, j *worker.Job[driver.Args]) (any, error) {
		return nil, j.Commit(ctx, driver.Result{OK: true}, func(b *queue.Batch) {
			for _, a := range handle(j.Payload) {
				b.Enqueue(job.New{Type: a.Kind(), Payload: job.Payload(a)})
			}
		})
	})
}

func (p *peer) work(ctx context.Context, handler func(context.Context, *worker.Job[driver.Args]) (any, error)) error {
	w, err := worker.New(p.q, zerolog.Nop(), worker.Config{
		Runner: queue.Runner{ID: p.q.NewID(), Host: "bench", Version: "bench"}, Concurrency: concurrency,
		Lease: 30 * time.Second, Heartbeat: 10 * time.Second, Poll: time.Second, Eager: 20 * time.Millisecond, DrainTimeout: 30 * time.Second,
	}, worker.Bind(driver.Args{}.Kind(), handler))
	if err != nil {
		return err
	}
	return w.Run(ctx)
}

// Unfinished reads an index of what is not done, so that asking costs nothing.
func (p *peer) Unfinished(ctx context.Context) (int, error) {
	res, err := p.q.DB().Read(ctx, libsql.Query(`SELECT
	 (SELECT count(*) FROM jobs WHERE state = 'running' AND lease_expires_at IS NOT NULL) +
	 (SELECT count(*) FROM jobs WHERE ready_key IS NOT NULL)`))
	if err != nil {
		return 0, err
	}
	return int(res[0].Rows[0].Int(0)), nil
}
