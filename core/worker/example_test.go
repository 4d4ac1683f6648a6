package worker_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/rs/zerolog"

	"github.com/postroom/postroom/core/internal/exampletest"
	"github.com/postroom/postroom/core/job"
	"github.com/postroom/postroom/core/libsql"
	"github.com/postroom/postroom/core/queue"
	"github.com/postroom/postroom/core/queuetest"
	"github.com/postroom/postroom/core/system"
	"github.com/postroom/postroom/core/worker"
)

// A whole program: it opens a database, stores a job and works until it is
// told to stop.
func Example() {
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)

	file := libsql.Options{Path: filepath.Join(dir, "jobs.db")}
	if err := libsql.Migrate(ctx, file); err != nil { // creates the file, too
		panic(err)
	}
	db, err := libsql.Open(ctx, file)
	if err != nil {
		panic(err)
	}
	defer db.Close(context.WithoutCancel(ctx))

	q := queue.New(db, system.Real{}, job.Types{"greet": {}})
	w, err := worker.New(q, zerolog.New(os.Stderr), worker.Config{Concurrency: 4},
		worker.Bind("greet", func(ctx context.Context, j *worker.Job[string]) (any, error) {
			fmt.Println("Hello,", j.Payload)
			stop() // this program has only one job
			return nil, nil
		}))
	if err != nil {
		panic(err)
	}
	if _, err := q.Enqueue(ctx, job.New{Type: "greet", Payload: job.Payload("world")}); err != nil {
		panic(err)
	}
	if err := w.Run(ctx); err != nil {
		panic(err)
	}
	// Output: Hello, world
}

// Middleware that ends jobs at once whose file is no longer there, and tells
// of every run.
func ExampleMiddleware() {
	t := exampletest.New() // in a test, this is its *testing.T
	defer t.Done()

	vanished := func(ctx context.Context, _ *worker.Run, next func(context.Context) (any, error)) (any, error) {
		result, err := next(ctx)
		if errors.Is(err, fs.ErrNotExist) {
			err = job.Fatal(err)
		}
		return result, err
	}
	told := func(ctx context.Context, r *worker.Run, next func(context.Context) (any, error)) (any, error) {
		result, err := next(ctx)
		fmt.Printf("%s, attempt %d: %v\n", r.Type(), r.Attempt(), err)
		return result, err
	}
	read := func(_ context.Context, j *worker.Job[string]) (any, error) {
		text, err := os.ReadFile(j.Payload)
		return len(text), err
	}
	rig := queuetest.NewWith(t, job.Types{"file.read": {}},
		worker.Config{Middleware: []worker.Middleware{told, vanished}}, worker.Bind("file.read", read))
	ran := rig.Run(job.New{Type: "file.read", Payload: job.Payload("/nowhere")})
	fmt.Println(ran.State)
	// Output:
	// file.read, attempt 1: open /nowhere: no such file or directory
	// failed
}
