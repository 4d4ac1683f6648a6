package e2e

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// Every listener gets every event, in order, from one apiserver.
func TestEveryListenerGetsEveryEventInOrder(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	listen(s, s.server(), 100, 300)
}

// BenchmarkListeners is the same with a thousand, and measures the apiserver.
func BenchmarkListeners(b *testing.B) {
	for range b.N {
		s := newSystem(b)
		api := s.server()
		api.get("/v1/jobs")
		idle := api.resident()
		memory := listen(s, api, 1000, 4000)
		b.ReportMetric(idle, "MB-alone")
		b.ReportMetric(memory[0], "MB-listening")
		b.ReportMetric(memory[len(memory)/2], "MB-halfway")
		b.ReportMetric(memory[len(memory)-1], "MB-at-the-end")
	}
}

// listen lets listeners follow an apiserver while jobs are stored, and checks
// what each got. It returns the apiserver's memory, before the first event and
// after each hundred.
func listen(s *system, api *process, listeners, events int) (memory []float64) {
	s.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	streams := make([]*http.Response, listeners)
	for i := range streams {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, api.url+"/v1/events", http.NoBody)
		if err != nil {
			s.Fatal(err)
		}
		if streams[i], err = client.Do(req); err != nil {
			s.Fatal(err)
		}
		defer streams[i].Body.Close()
		if streams[i].StatusCode != http.StatusOK {
			s.Fatalf("listener %d: %s", i, streams[i].Status)
		}
	}
	memory = append(memory, api.resident())
	readers := make([]*reader, listeners)
	for i, stream := range streams {
		readers[i] = &reader{lines: bufio.NewScanner(stream.Body)}
	}
	const together = 100
	for stored := 0; stored < events; stored += together {
		api.enqueue(jobs(together, "nobody.knows", func(i int) any { return stored + i }))
		var reading sync.WaitGroup
		for _, r := range readers {
			reading.Go(func() { r.read(together) })
		}
		reading.Wait()
		memory = append(memory, api.resident())
	}
	for _, r := range readers {
		if r.wrong != nil {
			s.Error(r.wrong)
		}
	}
	return memory
}

// reader is the far end of a stream.
type reader struct {
	lines *bufio.Scanner
	last  int
	wrong error
}

// read reads so many events, whose ids must follow on each other.
func (r *reader) read(events int) {
	for got := 0; r.wrong == nil && got < events; {
		if !r.lines.Scan() {
			r.wrong = errors.Join(fmt.Errorf("the stream ends after event %d", r.last), r.lines.Err())
			return
		}
		id, is := strings.CutPrefix(r.lines.Text(), "id: ")
		if !is {
			continue
		}
		_, number, _ := strings.Cut(id, "-")
		seq, err := strconv.Atoi(number)
		switch {
		case err == nil && seq == r.last: // the place before the first, and what a heartbeat says
		case err != nil || seq != r.last+1:
			r.wrong = fmt.Errorf("the id %s comes after event %d", id, r.last)
		default:
			r.last = seq
			got++
		}
	}
}

// resident is the memory of a process in MB.
func (p *process) resident() float64 {
	p.s.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.Process.Pid))
	if err != nil {
		p.s.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		if text, is := strings.CutPrefix(line, "VmRSS:"); is {
			kb, err := strconv.Atoi(strings.Fields(text)[0])
			if err != nil {
				p.s.Fatal(err)
			}
			return float64(kb) / 1024
		}
	}
	p.s.Fatal("the process says nothing of its memory")
	return 0
}
