// Command asynq drives asynq with 50 workers on a Redis server.
package main

import (
	"context"
	"encoding/json"
	"sync"
	"time"

	"github.com/hibiken/asynq"

	"github.com/postroom/postroom/bench/driver"
)

// batchers is how many goroutines store the jobs of one call: asynq has no
// enqueue of several.
const batchers = 32

type peer struct {
	redis asynq.RedisConnOpt
	c     *asynq.Client
	seen  *asynq.Inspector
}

func main() { driver.Main(open) }

func open(_ context.Context, at string) (driver.Peer, error) {
	redis, err := asynq.ParseRedisURI(at)
	if err != nil {
		return nil, err
	}
	return &peer{redis, asynq.NewClient(redis), asynq.NewInspector(redis)}, nil
}

func (p *peer) Enqueue(ctx context.Context, args []driver.Args) error {
	if len(args) == 1 {
		return p.enqueue(ctx, args[0])
	}
	next := make(chan driver.Args)
	failed := make(chan error, batchers)
	var wg sync.WaitGroup
	for range min(batchers, len(args)) {
		wg.Go(func() {
			var err error
			for a := range next {
				if err == nil {
					err = p.enqueue(ctx, a)
				}
			}
			if err != nil {
				failed <- err
			}
		})
	}
	for _, a := range args {
		next <- a
	}
	close(next)
	wg.Wait()
	select {
	case err := <-failed:
		return err
	default:
		return nil
	}
}

func (p *peer) enqueue(ctx context.Context, a driver.Args) error {
	payload, err := json.Marshal(a)
	if err != nil {
		return err
	}
	_, err = p.c.EnqueueContext(ctx, asynq.NewTask(a.Kind(), payload), asynq.Retention(24*time.Hour))
	return err
}

func (p *peer) Work(ctx context.Context, handle func(driver.Args)) error {
	s := asynq.NewServer(p.redis, asynq.Config{Concurrency: 50, LogLevel: asynq.ErrorLevel})
	mux := asynq.NewServeMux()
	mux.HandleFunc(driver.Args{}.Kind(), func(_ context.Context, t *asynq.Task) error {
		var a driver.Args
		if err := json.Unmarshal(t.Payload(), &a); err != nil {
			return err
		}
		handle(a)
		_, err := t.ResultWriter().Write([]byte(`{"ok":true}`))
		return err
	})
	if err := s.Start(mux); err != nil {
		return err
	}
	<-ctx.Done()
	s.Shutdown()
	return nil
}

func (p *peer) Unfinished(context.Context) (int, error) {
	q, err := p.seen.GetQueueInfo("default")
	if err != nil {
		return 0, err
	}
	return q.Pending + q.Active + q.Scheduled + q.Retry, nil
}
