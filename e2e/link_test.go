package e2e

import (
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/postroom/postroom/core/libsql/sqldtest"
)

// link is a line to a server: each byte takes a while, in each direction, and
// any number may be under way. It can be cut, as a network is that goes apart:
// whatever is under way stays there, and nobody is told.
type link struct {
	url   string
	to    string
	delay time.Duration // one way

	mu    sync.Mutex
	open  chan struct{} // closed while the line works
	conns map[net.Conn]bool
}

// newLink opens a line to the server at url whose round trip takes rtt longer.
func newLink(tb testing.TB, url string, rtt time.Duration) *link {
	tb.Helper()
	listener, err := net.Listen("tcp", sqldtest.FreeHost()+":8080")
	if err != nil {
		tb.Fatal(err)
	}
	l := &link{url: "http://" + listener.Addr().String(), to: strings.TrimPrefix(url, "http://"), delay: rtt / 2, open: make(chan struct{}), conns: map[net.Conn]bool{}}
	close(l.open)
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { l.join(c) })
		}
	})
	tb.Cleanup(func() {
		_ = listener.Close() // the test is over
		l.heal()
		l.mu.Lock()
		for c := range l.conns {
			_ = c.Close()
		}
		l.mu.Unlock()
		wg.Wait()
	})
	return l
}

// cut lets nothing through until heal.
func (l *link) cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.open = make(chan struct{})
}

// heal lets through what was held back, and all that follows.
func (l *link) heal() {
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case <-l.open:
	default:
		close(l.open)
	}
}

func (l *link) works() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.open
}

func (l *link) join(client net.Conn) {
	<-l.works() // a connection comes about only over a line that works
	server, err := net.Dial("tcp", l.to)
	if err != nil {
		_ = client.Close() // which tells the client
		return
	}
	l.mu.Lock()
	l.conns[client], l.conns[server] = true, true
	l.mu.Unlock()
	var wg sync.WaitGroup
	wg.Go(func() { l.carry(server, client) })
	wg.Go(func() { l.carry(client, server) })
	wg.Wait()
	l.mu.Lock()
	delete(l.conns, client)
	delete(l.conns, server)
	l.mu.Unlock()
}

// carry takes bytes from one end to the other, and the news that it closed.
func (l *link) carry(to, from net.Conn) {
	type parcel struct {
		bytes []byte
		due   time.Time
	}
	way := make(chan parcel, 1<<12)
	go func() {
		defer close(way)
		for {
			buf := make([]byte, 64<<10)
			n, err := from.Read(buf)
			if n > 0 {
				way <- parcel{buf[:n], time.Now().Add(l.delay)}
			}
			if err != nil {
				return
			}
		}
	}()
	for p := range way {
		<-time.After(time.Until(p.due))
		<-l.works()
		if _, err := to.Write(p.bytes); err != nil {
			break
		}
	}
	_ = to.Close() // one end is gone, so the other is of no use
	_, _ = io.Copy(io.Discard, from)
	for range way {
	}
}
