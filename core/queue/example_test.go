package queue_test

import (
	"context"
	"fmt"

	"github.com/postroom/postroom/core/internal/exampletest"
	"github.com/postroom/postroom/core/job"
	"github.com/postroom/postroom/core/libsql"
	"github.com/postroom/postroom/core/queue"
	"github.com/postroom/postroom/core/queuetest"
	"github.com/postroom/postroom/core/worker"
)

// The key makes a job that is stored twice one job.
func ExampleQueue_Enqueue() {
	t := exampletest.New() // in a test, this is its *testing.T
	defer t.Done()
	ctx := context.Background()
	q := queuetest.New(t, job.Types{"invoice.send": {KeyScope: job.ScopeForever}}).Queue

	invoice := job.New{Type: "invoice.send", Key: "2026-0042", Payload: job.Payload(map[string]int{"invoice": 42})}
	first, err := q.Enqueue(ctx, invoice)
	if err != nil {
		panic(err)
	}
	again, err := q.Enqueue(ctx, invoice)
	if err != nil {
		panic(err)
	}
	fmt.Println(again.Duplicate, again.ID == first.ID)
	// Output: true true
}

// Rows of the program's own and the job that works on them are stored
// together, or neither is.
func ExampleQueue_Write() {
	t := exampletest.New() // in a test, this is its *testing.T
	defer t.Done()
	ctx := context.Background()
	rig := queuetest.New(t, job.Types{"order.ship": {}},
		worker.Bind("order.ship", func(ctx context.Context, j *worker.Job[int]) (any, error) {
			return nil, j.Commit(ctx, "shipped", func(b *queue.Batch) { // with the job's completion
				b.Exec("UPDATE shop_orders SET shipped = 1 WHERE number = ?", j.Payload)
			})
		}))
	q := rig.Queue

	b := q.NewBatch(ctx)
	b.Exec("CREATE TABLE IF NOT EXISTS shop_orders (number INTEGER PRIMARY KEY, shipped INTEGER NOT NULL) STRICT")
	b.Exec("INSERT INTO shop_orders VALUES (?, 0)", 7)
	b.Enqueue(job.New{Type: "order.ship", Payload: job.Payload(7)})
	if _, err := q.Write(ctx, b); err != nil {
		panic(err)
	}
	fmt.Println(string(rig.Next().Result))

	rows, err := q.DB().Read(ctx, libsql.Query("SELECT number FROM shop_orders WHERE shipped"))
	if err != nil {
		panic(err)
	}
	fmt.Println("shipped:", rows[0].Rows[0].Int(0))
	// Output:
	// "shipped"
	// shipped: 7
}
