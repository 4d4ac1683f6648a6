package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// narrow is a client over connections that take in little unread.
var narrow = &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
	c, err := new(net.Dialer).DialContext(ctx, network, address)
	if err == nil {
		err = c.(*net.TCPConn).SetReadBuffer(4 << 10)
	}
	return c, err
}}}

// Listeners that stop reading hold up nobody. They are cut off, and one that
// reads on before that is told why its stream ends; it goes on from where it
// was.
func TestListenersThatStopReading(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	api := s.server()
	quick := api.follow(http.DefaultClient, "")
	sockets := api.sockets()
	stuck := make([]*reader, 10)
	for i := range stuck {
		stuck[i] = api.follow(narrow, "")
	}
	// Together more than is kept for listeners and what is on its way to one.
	const batches, each = 6, 5_000
	long := "nobody.knows." + strings.Repeat("x", 100)
	for range batches {
		var reading sync.WaitGroup
		reading.Go(func() { quick.read(each) })
		api.enqueue(jobs(each, long, func(i int) any { return i }))
		reading.Wait()
	}
	if quick.wrong != nil {
		t.Fatal(quick.wrong)
	}
	one := stuck[0]
	one.read(batches * each)
	switch cut := errors.Is(one.wrong, io.ErrUnexpectedEOF); { // on a machine that takes so long
	case one.last == batches*each, !cut && !strings.Contains(one.end, `"code":"slow_consumer"`):
		t.Fatalf("after event %d: %q, %v", one.last, one.end, one.wrong)
	case cut:
		t.Logf("the listener was cut off before it read on, after event %d", one.last)
	}
	rest := api.follow(http.DefaultClient, one.id)
	rest.last = one.last
	if rest.read(batches*each - one.last); rest.wrong != nil {
		t.Error(rest.wrong)
	}
	s.until("the apiserver lets go of those who never read", func() bool { return api.sockets() <= sockets+2 })
}

// sockets is how many a process has.
func (p *process) sockets() (n int) {
	p.s.Helper()
	links, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", p.Process.Pid))
	if err != nil {
		p.s.Fatal(err)
	}
	for _, link := range links {
		if to, err := os.Readlink(link); err == nil && strings.HasPrefix(to, "socket:") {
			n++
		}
	}
	return n
}

// Connections on which a request never becomes whole are closed, and others
// are served meanwhile.
func TestHeadersThatNeverEnd(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	api := s.server()
	var open sync.WaitGroup
	for range 200 {
		c, err := net.Dial("tcp", strings.TrimPrefix(api.url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		open.Go(func() {
			defer c.Close()
			_, err := fmt.Fprintf(c, "GET /v1/jobs HTTP/1.1\r\nHost: localhost\r\nX-Slow: ")
			_ = c.SetDeadline(time.Now().Add(time.Minute)) // for a test that fails
			trickle := time.NewTicker(200 * time.Millisecond)
			defer trickle.Stop()
			for ; err == nil; <-trickle.C {
				_, err = c.Write([]byte("x"))
			}
			if errors.Is(err, os.ErrDeadlineExceeded) {
				t.Error("the server still waits for the end of a header")
			}
		})
	}
	for range 10 {
		if r := api.get("/v1/jobs"); r.status != http.StatusOK {
			t.Errorf("meanwhile: %d %s", r.status, r.body)
		}
	}
	open.Wait()
}
