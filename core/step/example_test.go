package step_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/rs/zerolog"

	"github.com/postroom/postroom/core/job"
	"github.com/postroom/postroom/core/libsql"
	"github.com/postroom/postroom/core/queue"
	"github.com/postroom/postroom/core/step"
	"github.com/postroom/postroom/core/system"
	"github.com/postroom/postroom/core/worker"
)

// The connection breaks after the mail was handed over, so the first run does
// not know whether it was sent. The second asks, and does not send it again.
func ExampleOnce() {
	var outbox []string // of the mail server, which forgets nothing

	handler := func(ctx context.Context, j *worker.Job[string]) (any, error) {
		text, err := step.Run(ctx, "render", func(context.Context) (string, error) {
			fmt.Printf("run %d renders\n", j.Number())
			return "Dear " + j.Payload, nil
		})
		if err != nil {
			return nil, err
		}
		send := func(context.Context) (int, error) {
			fmt.Printf("run %d sends\n", j.Number())
			outbox = append(outbox, text)
			return 0, step.Uncertain(fmt.Errorf("connection reset by peer"))
		}
		wasSent := func(context.Context) (int, step.Verdict, error) {
			fmt.Printf("run %d asks\n", j.Number())
			for i, sent := range outbox {
				if sent == text {
					return i + 1, step.Happened, nil
				}
			}
			return 0, step.DidNotHappen, nil
		}
		return step.Once(ctx, "send", send, wasSent, step.Timeout(time.Minute))
	}

	if err := work(handler, "reader"); err != nil {
		fmt.Println(err)
	}
	fmt.Println(len(outbox), "mail sent")
	// Output:
	// run 1 renders
	// run 1 sends
	// run 2 asks
	// job completed with 1
	// 1 mail sent
}

// work runs one job on a scratch database until it is final.
func work(handler worker.Handler[string], payload string) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	file := libsql.Options{Path: filepath.Join(dir, "scratch.db")}
	if err := libsql.Migrate(ctx, file); err != nil {
		return err
	}
	db, err := libsql.Open(ctx, file)
	if err != nil {
		return err
	}
	defer db.Close(ctx)

	types := job.Types{"mail.send": {Name: "mail.send", Queue: "default", MaxAttempts: 5, Timeout: time.Minute}}
	q := queue.New(db, system.Real{}, types)
	stored, err := q.Enqueue(ctx, job.New{Type: "mail.send", Payload: job.Payload(payload)})
	if err != nil {
		return err
	}
	w, err := worker.New(q, system.Real{}, types, zerolog.Nop(), worker.Config{
		Runner: queue.Runner{ID: "example", Host: "localhost", Version: "example"}, Concurrency: 1,
		Lease: 30 * time.Second, Heartbeat: 10 * time.Second, Poll: 10 * time.Millisecond, DrainTimeout: time.Second,
	}, worker.Bind("mail.send", handler))
	if err != nil {
		return err
	}
	working, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- w.Run(working) }()
	defer func() { stop(); <-ended }()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		<-tick.C
		j, err := q.Get(ctx, stored.ID)
		if err != nil {
			return err
		}
		if j.State.Final() {
			fmt.Printf("job %s with %s\n", j.State, j.Result)
			return nil
		}
	}
}
