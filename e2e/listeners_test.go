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
	listen(s, s.server(), 100, 300, 500)
}

// BenchmarkListeners is the same with a thousand, and measures the apiserver.
func BenchmarkListeners(b *testing.B) {
	for range b.N {
		s := newSystem(b)
		api := s.server()
		api.get("/v1/jobs")
		idle := api.memory("VmRSS")
		memory, peak := listen(s, api, 1000, 4000, 2000)
		b.ReportMetric(idle, "MB-alone")
		b.ReportMetric(memory[0], "MB-listening")
		b.ReportMetric(memory[len(memory)/2], "MB-halfway")
		b.ReportMetric(memory[len(memory)-1], "MB-before-the-burst")
		b.ReportMetric(peak, "MB-in-the-burst")
	}
}

// listen lets listeners follow an apiserver while jobs are stored, and checks
// what each got: first so many events a hundred at a time, each hundred when
// every listener has the last, then a burst that waits for nobody. It returns
// the apiserver's memory, before the first event and after each hundred, and
// the most that it took from the burst on.
func listen(s *system, api *process, listeners, events, burst int) (memory []float64, peak float64) {
	s.Helper()
	readers := make([]*reader, listeners)
	for i := range readers {
		readers[i] = api.follow(http.DefaultClient, "")
	}
	memory = append(memory, api.memory("VmRSS"))
	const together = 100
	store := func(events int) {
		for range events / together {
			api.enqueue(jobs(together, "nobody.knows", func(i int) any { return i }))
		}
	}
	var reading sync.WaitGroup
	read := func(events int) {
		for _, r := range readers {
			reading.Go(func() { r.read(events) })
		}
	}
	for range events / together {
		store(together)
		read(together)
		reading.Wait()
		memory = append(memory, api.memory("VmRSS"))
	}
	api.forgetPeak()
	read(burst)
	store(burst)
	reading.Wait()
	peak = api.memory("VmHWM")
	for _, r := range readers {
		if r.wrong != nil {
			s.Error(r.wrong)
		}
	}
	return memory, peak
}

// reader is the far end of a stream.
type reader struct {
	lines *bufio.Scanner
	last  int    // the number of the last event; those that follow must go on from it
	id    string // of that event
	event string // its name
	end   string // why the stream ends, if it said so
	wrong error
}

// follow opens a stream of events, behind an id unless that is empty.
func (p *process) follow(client *http.Client, last string) *reader {
	p.s.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.url+"/v1/events", http.NoBody)
	if err != nil {
		p.s.Fatal(err)
	}
	if last != "" {
		req.Header.Set("Last-Event-ID", last)
	}
	stream, err := client.Do(req)
	if err != nil {
		p.s.Fatal(err)
	}
	p.s.Cleanup(func() { cancel(); stream.Body.Close() })
	if stream.StatusCode != http.StatusOK {
		p.s.Fatalf("a listener: %s", stream.Status)
	}
	r := &reader{lines: bufio.NewScanner(stream.Body)}
	r.lines.Split(wholeLines)
	return r
}

// wholeLines leaves out what a broken stream ends with.
func wholeLines(data []byte, _ bool) (int, []byte, error) {
	return bufio.ScanLines(data, false)
}

// read reads so many events, whose ids must follow on each other.
func (r *reader) read(events int) {
	for got := 0; r.wrong == nil && got < events; {
		if !r.lines.Scan() {
			r.wrong = errors.Join(fmt.Errorf("the stream ends after event %d: %s", r.last, r.end), r.lines.Err())
			return
		}
		name, value, _ := strings.Cut(r.lines.Text(), ": ")
		switch name {
		case "event":
			r.event = value
		case "data":
			if r.event == "end" {
				r.end = value
			}
		case "id":
			_, number, _ := strings.Cut(value, "-")
			seq, err := strconv.Atoi(number)
			switch {
			case err == nil && seq == r.last: // the place before the first, and what a heartbeat or the end says
			case err != nil || seq != r.last+1:
				r.wrong = fmt.Errorf("the id %s comes after event %d", value, r.last)
			default:
				r.last, r.id = seq, value
				got++
			}
		}
	}
}

// memory is a figure of a process's memory in MB.
func (p *process) memory(figure string) float64 {
	p.s.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.Process.Pid))
	if err != nil {
		p.s.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		if text, is := strings.CutPrefix(line, figure+":"); is {
			kb, err := strconv.Atoi(strings.Fields(text)[0])
			if err != nil {
				p.s.Fatal(err)
			}
			return float64(kb) / 1024
		}
	}
	p.s.Fatalf("the process says nothing of its %s", figure)
	return 0
}

// forgetPeak lets VmHWM begin anew at what the process takes now.
func (p *process) forgetPeak() {
	p.s.Helper()
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", p.Process.Pid), []byte("5"), 0); err != nil {
		p.s.Fatal(err)
	}
}
