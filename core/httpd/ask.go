package httpd

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"
)

// askWait is above what Readyz takes at the most.
const askWait = 3 * time.Second

// AskReady asks the service that listens on addr of this machine whether it
// is ready, for container engines, whose images hold no program that could. An
// error says why it is not.
func AskReady(ctx context.Context, addr string) error { return ask(ctx, addr, "/readyz") }

// AskLive asks the service that listens on addr of this machine whether it
// answers at all, for a service that looks at itself.
func AskLive(ctx context.Context, addr string) error { return ask(ctx, addr, "/livez") }

func ask(ctx context.Context, addr, path string) error {
	ctx, cancel := context.WithTimeout(ctx, askWait)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+fromHere(addr)+path, nil)
	if err != nil {
		return fmt.Errorf("ask %s: %w", addr, err)
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}} // without a proxy: it is this machine
	res, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("it does not answer: %w", err)
	}
	defer func() { _ = res.Body.Close() }() // nothing was written
	if res.StatusCode == http.StatusOK {
		return nil
	}
	const most = 1 << 10
	body, err := io.ReadAll(io.LimitReader(res.Body, most))
	if err != nil {
		return fmt.Errorf("it answers %d and breaks off: %w", res.StatusCode, err)
	}
	return fmt.Errorf("it answers %d %s", res.StatusCode, strings.ToValidUTF8(strings.TrimSpace(string(body)), "�"))
}

// fromHere turns an address to listen on into one to call.
func fromHere(addr string) string {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return addr
	}
	if ip, err := netip.ParseAddr(host); host == "" || err == nil && ip == netip.IPv4Unspecified() {
		host = "127.0.0.1"
	} else if err == nil && ip == netip.IPv6Unspecified() {
		host = "::1"
	}
	return net.JoinHostPort(host, port)
}
