package httpd

import (
	"fmt"
	"maps"
	"net/http"
	"net/netip"
	"sync"
	"time"
)

// How many tokens an address may get wrong in a while, and how many addresses
// are remembered.
const (
	failuresAllowed = 10
	failuresWindow  = time.Minute
	failuresKept    = 10_000
)

// failures counts wrong tokens by address. Its zero value is ready.
type failures struct {
	mu sync.Mutex
	by map[netip.Prefix]*failed
}

// failed is what an address got wrong since the first time.
type failed struct {
	times int
	until time.Time // from then on it is forgotten
}

// wait returns for how long the address has had its tries; 0 when it has not.
func (f *failures) wait(remote string) time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	if e := f.by[originOf(remote)]; e != nil && e.times >= failuresAllowed {
		return max(0, time.Until(e.until))
	}
	return 0
}

func (f *failures) add(remote string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	from, now := originOf(remote), time.Now()
	e := f.by[from]
	if e == nil || !now.Before(e.until) {
		if len(f.by) >= failuresKept {
			maps.DeleteFunc(f.by, func(_ netip.Prefix, e *failed) bool { return !now.Before(e.until) })
		}
		if f.by == nil || len(f.by) >= failuresKept { // from so many addresses no count holds anybody up
			f.by = map[netip.Prefix]*failed{}
		}
		e = &failed{until: now.Add(failuresWindow)}
		f.by[from] = e
	}
	e.times++
}

// originOf is the address, of IPv6 the network that one caller has for itself;
// what is no address counts as one.
func originOf(remote string) netip.Prefix {
	at, err := netip.ParseAddrPort(remote)
	if err != nil {
		return netip.Prefix{}
	}
	addr, bits := at.Addr().Unmap().WithZone(""), 32
	if addr.Is6() {
		bits = 64
	}
	p, _ := addr.Prefix(bits) // both fit
	return p
}

func tooManyFailures(wait time.Duration) *Problem {
	p := NewProblem(http.StatusTooManyRequests, "too_many_failures", "too many wrong tokens came from this address")
	p.retryAfter = fmt.Sprint(int((wait + time.Second - 1) / time.Second))
	return p
}
