package system

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

// StopSignals returns a context that ends with the first SIGTERM or SIGINT,
// and a channel that is closed by the second.
func StopSignals(parent context.Context) (ctx context.Context, hurry <-chan struct{}, stop func()) {
	ctx, cancel := context.WithCancel(parent)
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	second := make(chan struct{})
	go func() {
		select {
		case <-signals:
			cancel()
		case <-ctx.Done():
		}
		if _, open := <-signals; open {
			close(second)
		}
	}()
	return ctx, second, func() { signal.Stop(signals); cancel(); close(signals) }
}
