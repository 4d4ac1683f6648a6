package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/postroom/postroom/core/httpd"
)

// A body that comes in drops is refused when its time is over, and nothing of
// it is stored.
func TestABodyThatNeverEnds(t *testing.T) {
	t.Parallel()
	s, _ := newService(t, &safeBuffer{})
	h, err := newHandler(s)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(h)
	server.Config = httpd.NewServer(h, zerolog.Nop())
	server.Config.ReadTimeout = 300 * time.Millisecond
	server.Start()
	t.Cleanup(server.Close)
	for _, head := range []string{"Content-Length: 1000", "Transfer-Encoding: chunked", "Content-Length: 100000000"} {
		c, err := net.Dial("tcp", server.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		_ = c.SetDeadline(time.Now().Add(patience))
		if _, err := fmt.Fprintf(c, "POST /v1/jobs HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\n%s\r\n\r\n", server.Listener.Addr(), head); err != nil {
			t.Fatal(err)
		}
		go func() {
			trickle := time.NewTicker(10 * time.Millisecond)
			defer trickle.Stop()
			for err := error(nil); err == nil; <-trickle.C {
				_, err = io.WriteString(c, "1\r\n \r\n")
			}
		}()
		answer, err := io.ReadAll(c)
		if status, _, _ := strings.Cut(string(answer), "\r\n"); status != "HTTP/1.1 408 Request Timeout" && !strings.Contains(status, "413") {
			t.Errorf("%s: %q, %v", head, answer, err)
		}
	}
	if got := send(t, http.MethodGet, server.URL+"/v1/jobs", nil).is(200); len(got["jobs"].([]any)) > 0 {
		t.Errorf("stored: %v", got)
	}
}
