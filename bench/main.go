// Command bench measures this queue beside its peers: the same workloads, in
// one run, on one disk, in turns. It prints a table, and writes JSON and a
// picture. It builds the programs under peer/, starts the servers that they
// need where these are installed, and removes all it made.
// docs/performance.md says how to read what it prints.
package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/postroom/postroom/bench/driver"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	if err != nil {
		_, _ = fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// bench is one run of the benchmark.
type bench struct {
	size, count int
	dir         string // for all that is made, and removed
	log         io.Writer
	peers       []*peer
	workloads   []driver.Workload
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) (err error) {
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(stderr)
	size := flags.Int("size", 100_000, "jobs of the backlog; other workloads take a share of it")
	count := flags.Int("count", 3, "rounds; the median counts")
	dir := flags.String("dir", ".", "an existing folder on the disk to measure")
	only := flags.String("peers", "", "names of peers, with commas; empty for all")
	which := flags.String("workloads", "", "names of workloads, with commas; empty for all")
	jsonFile := flags.String("json", "", "file to write the results to")
	svgFile := flags.String("svg", "", "file to draw the main results in")
	if err := flags.Parse(args); err != nil {
		return err
	}
	b := &bench{size: *size, count: *count, log: stderr}
	if b.peers, err = choose("peer", peers(), func(p *peer) string { return p.Name }, *only); err != nil {
		return err
	}
	if b.workloads, err = choose("workload", driver.Workloads(), func(w driver.Workload) string { return w.Name }, *which); err != nil {
		return err
	}
	fs, err := disk(*dir)
	if err != nil {
		return err
	}
	if b.dir, err = os.MkdirTemp(*dir, "bench-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(b.dir)) }()
	if b.dir, err = filepath.Abs(b.dir); err != nil {
		return err
	}
	if err := os.Chmod(b.dir, 0o711); err != nil { //nolint:gosec // a server that runs as another user has a folder in it
		return err
	}
	res, err := b.measure(ctx)
	if err != nil {
		return err
	}
	res.Machine.Filesystem = fs
	if err := res.print(stdout); err != nil {
		return err
	}
	if *jsonFile != "" {
		text, err := json.MarshalIndent(res, "", "  ")
		if err != nil {
			return err
		}
		if err := os.WriteFile(*jsonFile, append(text, '\n'), 0o644); err != nil { //nolint:gosec // to be read by anybody
			return err
		}
	}
	if *svgFile != "" {
		if err := os.WriteFile(*svgFile, []byte(res.draw()), 0o644); err != nil { //nolint:gosec // to be read by anybody
			return err
		}
	}
	if n := len(res.Failed); n > 0 {
		return fmt.Errorf("%d runs failed: see above", n)
	}
	return nil
}

// choose keeps what a list of names names.
func choose[T any](what string, all []T, name func(T) string, names string) ([]T, error) {
	if names == "" {
		return all, nil
	}
	var out []T
	for _, n := range strings.Split(names, ",") {
		i := slices.IndexFunc(all, func(t T) bool { return name(t) == n })
		if i < 0 {
			return nil, fmt.Errorf("there is no %s %q", what, n)
		}
		out = append(out, all[i])
	}
	return out, nil
}

// measure runs every workload on every peer, in turns, so that what else the
// machine does falls on all of them.
func (b *bench) measure(ctx context.Context) (*results, error) {
	if err := b.build(ctx); err != nil {
		return nil, err
	}
	res := &results{Size: b.size, Count: b.count, Machine: machine()}
	var ready []*peer
	for _, p := range b.peers {
		if p.server != nil {
			srv, err := p.server(ctx, filepath.Join(b.dir, p.Name), nil)
			if err != nil {
				res.Skipped = append(res.Skipped, skipped{p.Name, err.Error()})
				b.note("%s is skipped: %v", p.Name, err)
				continue
			}
			defer srv.stop()
			p.running, p.Version = srv, p.Version+" on "+srv.version
		}
		ready = append(ready, p)
	}
	for _, p := range ready {
		if err := b.countSyncs(ctx, p); err != nil {
			return nil, fmt.Errorf("%s: count syncs: %w", p.Name, err)
		}
	}
	res.Peers = ready
	for round := range b.count {
		for _, w := range b.workloads {
			for _, p := range ready {
				if !p.has(w.Name) {
					continue
				}
				b.note("round %d of %d: %s: %s", round+1, b.count, w.Name, p.Name)
				r, err := b.one(ctx, p, p.running, w.Name, b.size, nil)
				switch {
				case ctx.Err() != nil:
					return nil, ctx.Err()
				case err != nil: // the other figures stay good
					res.Failed = append(res.Failed, failed{p.Name, w.Name, strings.TrimSpace(err.Error())})
					b.note("%s: %s: %v", p.Name, w.Name, err)
				default:
					res.add(w, p, r)
				}
			}
		}
	}
	return res, ctx.Err()
}

func (b *bench) note(format string, args ...any) { _, _ = fmt.Fprintf(b.log, format+"\n", args...) }

// build builds the programs of the chosen peers.
func (b *bench) build(ctx context.Context) error {
	b.note("building")
	args := []string{"build", "-o", filepath.Join(b.dir, "bin") + string(filepath.Separator)}
	for _, p := range b.peers {
		if pkg := "github.com/postroom/postroom/bench/peer/" + p.program; !slices.Contains(args, pkg) {
			args = append(args, pkg)
		}
	}
	if out, err := exec.CommandContext(ctx, "go", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("go build: %w: %s", err, out)
	}
	for _, p := range b.peers {
		p.Version = versionOf(filepath.Join(b.dir, "bin", p.program), p.module)
	}
	return nil
}

// one runs one workload on one peer, in a process and on a database of its own.
func (b *bench) one(ctx context.Context, p *peer, srv *server, workload string, size int, wrap []string) (measured, error) {
	at, err := os.MkdirTemp(b.dir, p.Name+"-")
	if err != nil {
		return measured{}, err
	}
	defer os.RemoveAll(at)
	if srv != nil {
		var drop func()
		if at, drop, err = srv.fresh(ctx); err != nil {
			return measured{}, err
		}
		defer drop()
	}
	args := slices.Concat(wrap, []string{filepath.Join(b.dir, "bin", p.program), "-at", at, "-workload", workload, "-size", strconv.Itoa(size)}, p.args)
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return measured{}, fmt.Errorf("%w: %s", err, &stderr)
	}
	var m measured
	if err := json.Unmarshal(stdout.Bytes(), &m.Report); err != nil {
		return m, fmt.Errorf("its report: %w", err)
	}
	m.MemoryMB = memory(cmd.ProcessState)
	return m, nil
}

// countSyncs says how many syncs of the disk an enqueue of one job costs the
// peer, its server included: what 100 more of them add, because a program's
// and a server's own beginning sync too.
func (b *bench) countSyncs(ctx context.Context, p *peer) error {
	strace, err := exec.LookPath("strace")
	if err != nil {
		b.note("%v: syncs are not counted", err)
		return nil
	}
	const share = 50 // of the size that enqueue-1 stores
	trace := filepath.Join(b.dir, p.Name+".strace")
	defer os.Remove(trace)
	if err := os.WriteFile(trace, nil, 0o600); err != nil {
		return err
	}
	if err := os.Chmod(trace, 0o666); err != nil { //nolint:gosec // a server that runs as another user is traced as that user
		return err
	}
	wrap := []string{strace, "-f", "-A", "-qq", "-e", "trace=fsync,fdatasync", "-o", trace}
	srv := p.running
	if p.server != nil {
		if srv, err = p.server(ctx, filepath.Join(b.dir, p.Name+"-traced"), wrap); err != nil {
			return err
		}
		defer srv.stop()
		wrap = nil
	}
	counts := make([]int, 2)
	for i, jobs := range []int{20, 120} {
		before := countLines(trace)
		if _, err := b.one(ctx, p, srv, "enqueue-1", jobs*share, wrap); err != nil {
			return err
		}
		counts[i] = countLines(trace) - before
	}
	syncs := float64(counts[1]-counts[0]) / 100
	p.Syncs = &syncs
	b.note("%s: %.2f syncs per enqueue", p.Name, syncs)
	return nil
}

// countLines counts the system calls in what strace wrote. One that was
// interrupted has a second line, without the parenthesis.
func countLines(path string) int {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0
	}
	return bytes.Count(text, []byte("sync("))
}

// median is the middle one, or the upper of the two.
func median[T cmp.Ordered](list []T) T {
	sorted := slices.Sorted(slices.Values(list))
	return sorted[len(sorted)/2]
}
