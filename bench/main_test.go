package main

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/postroom/postroom/bench/driver"
)

// Every workload runs on every peer, with so few jobs that the figures mean
// nothing.
func TestEverythingRuns(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if _, err := disk(dir); err != nil {
		t.Skip(err)
	}
	jsonFile, svgFile := filepath.Join(dir, "r.json"), filepath.Join(dir, "r.svg")
	var out, log bytes.Buffer
	err := run(t.Context(), []string{"-size", "200", "-count", "2", "-dir", dir, "-json", jsonFile, "-svg", svgFile}, &out, &log)
	if err != nil {
		t.Fatalf("%v\n%s", err, &log)
	}
	t.Log(out.String())

	text, err := os.ReadFile(jsonFile)
	if err != nil {
		t.Fatal(err)
	}
	var res results
	if err := json.Unmarshal(text, &res); err != nil {
		t.Fatal(err)
	}
	want := 0
	for _, w := range driver.Workloads() {
		want += len(res.having(w.Name))
	}
	if len(res.Results) != want || len(res.Peers)+len(res.Skipped) != len(peers()) {
		t.Errorf("%d results of %d peers, want %d; skipped: %v", len(res.Results), len(res.Peers), want, res.Skipped)
	}
	for _, x := range res.Results {
		if len(x.Runs) != 2 || x.Runs[0].Jobs == 0 || x.Runs[0].Seconds <= 0 {
			t.Errorf("%+v", x)
		}
	}
	for _, p := range res.Peers {
		durable := p.Name != "postroom-normal"
		// A server's beginning may sync once or twice more than the next time.
		if p.Syncs != nil && (*p.Syncs >= 0.9) != durable {
			t.Errorf("%s makes %.2f syncs per enqueue", p.Name, *p.Syncs)
		}
	}

	picture, err := os.Open(svgFile)
	if err != nil {
		t.Fatal(err)
	}
	defer picture.Close()
	for d := xml.NewDecoder(picture); ; {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if left, err := filepath.Glob(filepath.Join(dir, "bench-*")); err != nil || len(left) > 0 {
		t.Errorf("%v is left, %v", left, err)
	}
}

func TestARunThatFailsLeavesTheOtherFigures(t *testing.T) {
	t.Parallel()
	peers, err := choose("peer", peers(), func(p *peer) string { return p.Name }, "postroom")
	if err != nil {
		t.Fatal(err)
	}
	workloads, err := choose("workload", driver.Workloads(), func(w driver.Workload) string { return w.Name }, "enqueue-1")
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{size: 200, count: 2, dir: t.TempDir(), log: io.Discard, peers: peers, workloads: append(workloads, driver.Workload{Name: "nothing"})}
	res, err := b.measure(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(res.Failed) != 2 || res.Failed[0].Workload != "nothing" || len(res.Results) != 1 || len(res.Results[0].Runs) != 2 {
		t.Errorf("failed: %+v, results: %+v", res.Failed, res.Results)
	}
	var out bytes.Buffer
	if err := res.print(&out); err != nil || !strings.Contains(out.String(), "nothing failed: ") {
		t.Errorf("%v\n%s", err, &out)
	}
}

func TestWhatCannotBeMeasuredIsRefused(t *testing.T) {
	t.Parallel()
	for args, want := range map[string]string{
		"-peers nobody":      `there is no peer "nobody"`,
		"-workloads nothing": `there is no workload "nothing"`,
	} {
		if err := run(t.Context(), strings.Fields(args), io.Discard, io.Discard); err == nil || err.Error() != want {
			t.Errorf("%s: %v, want %s", args, err, want)
		}
	}
	if _, err := disk("/dev/shm"); err == nil {
		if _, err := os.Stat("/dev/shm"); err == nil {
			t.Error("a folder in memory passes for a disk")
		}
	}
}

func TestMedian(t *testing.T) {
	t.Parallel()
	for want, list := range map[int][]int{1: {1}, 2: {3, 1, 2}, 3: {4, 1, 3, 2}} {
		if got := median(list); got != want {
			t.Errorf("median of %v is %d, want %d", list, got, want)
		}
	}
}
