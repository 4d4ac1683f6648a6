package main

import (
	"context"
	"debug/buildinfo"
	"slices"
)

// peer is a queue to measure: a program under peer/, and perhaps a server.
type peer struct {
	Name     string   `json:"name"`
	Settings string   `json:"settings"`
	Version  string   `json:"version"`
	Syncs    *float64 `json:"syncs_per_enqueue"` // null where strace is missing
	Lacks    []string `json:"lacks,omitempty"`   // workloads that it has not what it takes for

	program string
	args    []string
	module  string // that Version is the version of
	server  func(ctx context.Context, dir string, wrap []string) (*server, error)
	running *server
}

// peers are all of them. The first is what the others are compared with.
func peers() []*peer {
	var (
		ofOthers    = []string{"steps"}
		ofReference = []string{"steps", "processes"} // it counts in memory what is left
	)
	return []*peer{
		{Name: "postroom", program: "postroom", Settings: "synchronous=full, concurrency 1000"},
		{Name: "postroom-normal", program: "postroom", args: []string{"-synchronous", "normal"}, Settings: "synchronous=normal: an enqueue is not synced"},
		{Name: "postroom-remote", program: "postroom", server: startSqld, Settings: "on a libsql server that syncs each commit, concurrency 1000"},
		{Name: "reference-1000", program: "reference", Lacks: ofReference, module: "github.com/tursodatabase/go-libsql", Settings: "plain SQL, batches of 1000, synchronous=FULL"},
		{Name: "reference-100", program: "reference", Lacks: ofReference, args: []string{"-batch", "100"}, module: "github.com/tursodatabase/go-libsql", Settings: "plain SQL, batches of 100, synchronous=FULL"},
		{Name: "river-postgres", program: "river", Lacks: ofOthers, module: "github.com/riverqueue/river", server: startPostgres, Settings: "2000 workers, 2 ms cooldown, 20 ms poll, InsertManyFast"},
		{Name: "river-modernc", program: "river", Lacks: ofOthers, args: []string{"-on", "modernc"}, module: "github.com/riverqueue/river", Settings: "the same on modernc, one connection, synchronous=FULL"},
		{Name: "river-mattn", program: "river", Lacks: ofOthers, args: []string{"-on", "mattn"}, module: "github.com/riverqueue/river", Settings: "the same on mattn, one connection, synchronous=FULL"},
		{Name: "goqite", program: "goqite", Lacks: ofOthers, module: "maragu.dev/goqite", Settings: "limit 100, poll 10 ms, one connection, synchronous=FULL; stores no result"},
		{Name: "backlite", program: "backlite", Lacks: ofOthers, module: "github.com/mikestefanello/backlite", Settings: "1000 workers, one connection, synchronous=FULL; stores no result"},
		{Name: "asynq", program: "asynq", Lacks: ofOthers, module: "github.com/hibiken/asynq", server: startRedis, Settings: "50 workers, appendfsync always; bulk is 32 goroutines"},
	}
}

func (p *peer) has(workload string) bool { return !slices.Contains(p.Lacks, workload) }

// versionOf is the version of a module that a program was built with.
func versionOf(program, module string) string {
	info, err := buildinfo.ReadFile(program)
	if err != nil {
		return "unknown"
	}
	for _, m := range info.Deps {
		if m.Path == module {
			return m.Version
		}
	}
	return "this source"
}
