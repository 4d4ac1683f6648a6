package libsql

import (
	"context"
	"path/filepath"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"
)

// watchRest is how long nothing is listened to after a signal. A process that
// writes much would else be woken by every page of its log; what is written
// meanwhile is one event, which is met afterwards.
const watchRest = 2 * time.Millisecond

// Watch implements [DB]: every commit in WAL mode writes the log, which the
// operating system reports at no idle cost. The signal may come before the
// commit can be read. It is nil where folders cannot be watched.
func (f *File) Watch(ctx context.Context) <-chan struct{} {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return nil
	}
	if err := w.Add(filepath.Dir(f.opt.Path)); err != nil {
		_ = w.Close() // there is nothing to watch
		return nil
	}
	base := filepath.Base(f.opt.Path)
	out := make(chan struct{}, 1)
	f.opt.System.Go("watch", func() {
		defer func() { _ = w.Close() }() // nothing is pending
		for {
			select {
			case <-ctx.Done():
				return
			case <-w.Errors: //nolint:errcheck // an overflow: something changed
			case ev, ok := <-w.Events:
				if !ok {
					return
				}
				if name := filepath.Base(ev.Name); !strings.HasPrefix(name, base) || strings.HasSuffix(name, "-shm") {
					continue
				}
			}
			select {
			case out <- struct{}{}:
			default:
			}
			rest := f.opt.System.NewTimer(watchRest)
			select {
			case <-rest.C():
			case <-ctx.Done():
				rest.Stop()
			}
		}
	})
	return out
}
