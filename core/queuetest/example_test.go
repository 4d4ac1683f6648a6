package queuetest_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/postroom/postroom/core/internal/exampletest"
	"github.com/postroom/postroom/core/job"
	"github.com/postroom/postroom/core/queue"
	"github.com/postroom/postroom/core/queuetest"
	"github.com/postroom/postroom/core/worker"
)

type Order struct {
	Customer string `json:"customer"`
	Cents    int    `json:"cents"`
}

// A test of a handler that charges a customer and has the receipt sent. The
// bank is away at first.
func Example() {
	t := exampletest.New() // in a test, this is its *testing.T
	defer t.Done()

	bank := errors.New("the bank is away")
	charge := func(ctx context.Context, j *worker.Job[Order]) (any, error) {
		if j.Payload.Cents <= 0 {
			return nil, job.Fatal(errors.New("nothing to charge"))
		}
		if bank != nil {
			return nil, bank
		}
		return nil, j.Commit(ctx, "charged", func(b *queue.Batch) {
			b.Enqueue(job.New{Type: "receipt.send", Payload: job.Payload(j.Payload.Customer)})
		})
	}
	types := job.Types{"order.charge": {Backoff: job.Backoff{Base: time.Hour, Cap: 24 * time.Hour}}, "receipt.send": {}}
	rig := queuetest.New(t, types, worker.Bind("order.charge", charge))

	ran := rig.Run(job.New{Type: "order.charge", Payload: job.Payload(Order{"ada", 4200})})
	fmt.Println(ran.State, ran.ErrorText())

	bank = nil
	ran = rig.Next() // the retry, an hour later
	fmt.Println(ran.State, string(ran.Result), ran.Attempts)
	fmt.Println(ran.Stored[0].Type, string(ran.Stored[0].Payload))

	ran = rig.Run(job.New{Type: "order.charge", Payload: job.Payload(Order{Customer: "bob"})})
	fmt.Println(ran.State, ran.ErrorText())
	// Output:
	// queued the bank is away
	// completed "charged" 2
	// receipt.send "ada"
	// failed nothing to charge
}
