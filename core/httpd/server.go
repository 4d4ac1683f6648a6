// Package httpd is what every HTTP listener of Postroom has in common: how it
// binds, who may call it, what its errors look like, how it answers a health
// check, and what it logs about a request. It knows no route. It may import
// core/job, core/libsql, core/mail, core/once, core/queue, core/telemetry and
// core/token.
package httpd

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"syscall"
	"time"

	"github.com/rs/zerolog"

	"github.com/postroom/postroom/core/telemetry"
)

// The bounds of each phase of a request. The largest body, 25 MiB, arrives in
// readTimeout over a line of 0.7 Mbit/s. The time for the answer runs from the
// end of the request's header, so it includes the reading of the body.
const (
	headerTimeout  = 10 * time.Second
	readTimeout    = 5 * time.Minute
	writeTimeout   = readTimeout + time.Minute
	idleTimeout    = 2 * time.Minute
	maxHeaderBytes = 64 << 10
)

// Listen binds addr. Its error names the configuration key that addr came
// from.
func Listen(addr, key string) (net.Listener, error) {
	l, err := new(net.ListenConfig).Listen(context.Background(), "tcp", addr)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("%s: the address %s is already in use", key, addr)
	case err != nil:
		return nil, fmt.Errorf("%s: %w", key, err)
	}
	return l, nil
}

// NewServer returns a server with a bound on every phase, which logs its own
// troubles through log.
func NewServer(handler http.Handler, log zerolog.Logger) *http.Server {
	return &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: headerTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          telemetry.StdLogger(log, zerolog.WarnLevel),
	}
}
