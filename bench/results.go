package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/postroom/postroom/bench/driver"
)

// results are all that a run of the benchmark found, as its JSON file holds it.
type results struct {
	Size    int       `json:"size"`
	Count   int       `json:"count"`
	Machine place     `json:"machine"`
	Peers   []*peer   `json:"peers"`
	Skipped []skipped `json:"skipped,omitempty"`
	Failed  []failed  `json:"failed,omitempty"` // runs that count for nothing
	Results []*result `json:"results"`
}

type place struct {
	Go         string `json:"go"`
	OS         string `json:"os"`
	CPUs       int    `json:"cpus"`
	Filesystem string `json:"filesystem"`
	Load       string `json:"load,omitempty"` // averages when it began: what else ran
}

type skipped struct {
	Peer string `json:"peer"`
	Why  string `json:"why"`
}

type failed struct {
	Peer     string `json:"peer"`
	Workload string `json:"workload"`
	Why      string `json:"why"`
}

type result struct {
	Workload string     `json:"workload"`
	Peer     string     `json:"peer"`
	Runs     []measured `json:"runs"`

	help string
}

type measured struct {
	driver.Report
	MemoryMB float64 `json:"memory_mb"` // the program's largest resident size, without its server's
}

func machine() place {
	p := place{Go: runtime.Version(), OS: runtime.GOOS + "/" + runtime.GOARCH, CPUs: runtime.NumCPU()}
	if load, err := os.ReadFile("/proc/loadavg"); err == nil {
		p.Load = strings.Join(strings.Fields(string(load))[:3], " ")
	}
	return p
}

func (r *results) add(w driver.Workload, p *peer, m measured) {
	found := r.find(w.Name, p.Name)
	if found == nil {
		found = &result{Workload: w.Name, Peer: p.Name, help: w.Help}
		r.Results = append(r.Results, found)
	}
	found.Runs = append(found.Runs, m)
}

func (r *results) find(workload, peer string) *result {
	i := slices.IndexFunc(r.Results, func(x *result) bool { return x.Workload == workload && x.Peer == peer })
	if i < 0 {
		return nil
	}
	return r.Results[i]
}

// column takes one figure of each run.
func (r *result) column(of func(measured) float64) []float64 {
	out := make([]float64, len(r.Runs))
	for i, m := range r.Runs {
		out[i] = of(m)
	}
	return out
}

func rate(m measured) float64   { return float64(m.Jobs) / m.Seconds }
func p50(m measured) float64    { return m.P50 }
func p99(m measured) float64    { return m.P99 }
func growth(m measured) float64 { return m.Growth }
func memoryMB(m measured) float64 {
	return m.MemoryMB
}

// isLatency says that a workload's own pace is given, so that its rate says
// nothing.
func (r *result) isLatency() bool { return r.Runs[0].P99 > 0 }

// spread shows the median of a figure, and between which it lay.
func spread(list []float64, format string) string {
	text := fmt.Sprintf(format, median(list))
	if len(list) > 1 {
		text += fmt.Sprintf(" ["+format+"–"+format+"]", slices.Min(list), slices.Max(list))
	}
	return text
}

// print writes a table per workload. Ratios are to the first peer: its own
// figure is 1.
func (r *results) print(out io.Writer) error {
	var text bytes.Buffer
	_, _ = fmt.Fprintf(&text, "%s, %s, %d CPUs, %s; load when it began %s; size %d, %d rounds\n\n",
		r.Machine.Go, r.Machine.OS, r.Machine.CPUs, r.Machine.Filesystem, r.Machine.Load, r.Size, r.Count)
	t := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(t, "peer\tversion\tsyncs per enqueue\tsettings")
	for _, p := range r.Peers {
		syncs := "not counted"
		if p.Syncs != nil {
			syncs = fmt.Sprintf("%.2f", *p.Syncs)
		}
		_, _ = fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", p.Name, p.Version, syncs, p.Settings)
	}
	for _, s := range r.Skipped {
		_, _ = fmt.Fprintf(t, "%s\tskipped: %s\n", s.Peer, s.Why)
	}
	for _, f := range r.Failed {
		_, _ = fmt.Fprintf(t, "%s\t%s failed: %s\n", f.Peer, f.Workload, f.Why)
	}
	_ = t.Flush() // into memory
	last := ""
	for _, x := range slices.SortedStableFunc(slices.Values(r.Results), r.order) {
		if x.Workload != last {
			_ = t.Flush()
			last = x.Workload
			_, _ = fmt.Fprintf(&text, "\n%s: %s (%d jobs)\n", x.Workload, x.help, x.Runs[0].Jobs)
		}
		_, _ = fmt.Fprintf(t, "  %s\t%s\t×%.2f\t%.0f MB\n", x.Peer, x.figure(), r.ratio(x), median(x.column(memoryMB)))
	}
	_ = t.Flush()
	_, err := out.Write(text.Bytes())
	return err
}

// order keeps the workloads as they were run and puts the peers of one
// together.
func (r *results) order(a, b *result) int {
	return r.firstOf(a.Workload) - r.firstOf(b.Workload)
}

func (r *results) firstOf(workload string) int {
	return slices.IndexFunc(r.Results, func(x *result) bool { return x.Workload == workload })
}

func (r *result) figure() string {
	switch {
	case r.isLatency():
		return "p50 " + spread(r.column(p50), "%.1f") + " ms, p99 " + spread(r.column(p99), "%.1f") + " ms"
	case r.Runs[0].Growth > 0:
		return spread(r.column(rate), "%.0f") + " jobs/s, last tenth " + spread(r.column(growth), "%.2f") + " times the first"
	default:
		return spread(r.column(rate), "%.0f") + " jobs/s"
	}
}

// ratio compares the main figure with the first peer's in the same run; the
// first peer has every workload.
func (r *results) ratio(x *result) float64 {
	first := r.Results[r.firstOf(x.Workload)]
	if x.isLatency() {
		return median(x.column(p50)) / median(first.column(p50))
	}
	return median(x.column(rate)) / median(first.column(rate))
}
