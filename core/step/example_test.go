package step_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/postroom/postroom/core/internal/exampletest"
	"github.com/postroom/postroom/core/job"
	"github.com/postroom/postroom/core/queuetest"
	"github.com/postroom/postroom/core/step"
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

	t := exampletest.New() // in a test, this is its *testing.T
	defer t.Done()
	rig := queuetest.New(t, job.Types{"mail.send": {}}, worker.Bind("mail.send", handler))
	rig.Run(job.New{Type: "mail.send", Payload: job.Payload("reader")})
	sent := rig.Next() // the retry
	fmt.Printf("job %s with %s\n", sent.State, sent.Result)
	fmt.Println(len(outbox), "mail sent")
	// Output:
	// run 1 renders
	// run 1 sends
	// run 2 asks
	// job completed with 1
	// 1 mail sent
}

// The second step fails at first. The retry takes the first one's result and
// does not execute it again.
func ExampleRun() {
	outage := errors.New("the printer is out of paper")
	handler := func(ctx context.Context, j *worker.Job[string]) (any, error) {
		text, err := step.Run(ctx, "render", func(context.Context) (string, error) {
			fmt.Printf("run %d renders\n", j.Number())
			return "Dear " + j.Payload, nil
		})
		if err != nil {
			return nil, err
		}
		return step.Run(ctx, "print", func(context.Context) (int, error) {
			fmt.Printf("run %d prints %q\n", j.Number(), text)
			return len(text), outage
		})
	}
	t := exampletest.New() // in a test, this is its *testing.T
	defer t.Done()
	rig := queuetest.New(t, job.Types{"letter.print": {}}, worker.Bind("letter.print", handler))
	rig.Run(job.New{Type: "letter.print", Payload: job.Payload("reader")})
	outage = nil
	fmt.Println(rig.Next().State)
	// Output:
	// run 1 renders
	// run 1 prints "Dear reader"
	// run 2 prints "Dear reader"
	// completed
}
