package maildir

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"
)

// settle is how long Watch gathers events before it calls notify: a delivery
// is several of them, a synchronisation thousands.
const settle = 50 * time.Millisecond

// ErrWatchLost: the watched folders were removed or renamed.
var ErrWatchLost = errors.New("the watched folders are gone")

// Watch calls notify when files appear in new/ or cur/ of the Maildir at path:
// once at the start, when it has begun to watch, so that nothing before that
// is missed, and then once for each burst of events. notify runs on Watch's
// goroutine. Watch returns ctx's error when ctx ends, and any other error
// (a missing folder, the system's limit of watches, folders removed) at once,
// so that the caller falls back to its interval.
func Watch(ctx context.Context, path string, notify func()) error {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("maildir: watch %q: %w", path, err)
	}
	defer w.Close()
	watched := make(map[string]bool, len(subs))
	for _, sub := range subs {
		dir := filepath.Join(path, sub)
		if err := w.Add(dir); err != nil {
			return fmt.Errorf("maildir: watch %q: %w", dir, err)
		}
		watched[dir] = true
	}
	notify()

	timer := time.NewTimer(settle)
	timer.Stop()
	defer timer.Stop()
	pending := false
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case event, ok := <-w.Events:
			if !ok {
				return fmt.Errorf("maildir: watch %q: %w", path, ErrWatchLost)
			}
			if watched[event.Name] && event.Op&(fsnotify.Remove|fsnotify.Rename) != 0 {
				return fmt.Errorf("maildir: watch %q: %w", path, ErrWatchLost)
			}
			if !event.Op.Has(fsnotify.Create) || pending {
				continue
			}
			pending = true
			timer.Reset(settle)
		case err, ok := <-w.Errors:
			if !ok {
				return fmt.Errorf("maildir: watch %q: %w", path, ErrWatchLost)
			}
			if !errors.Is(err, fsnotify.ErrEventOverflow) {
				return fmt.Errorf("maildir: watch %q: %w", path, err)
			}
			// Events were lost, so something happened.
			if !pending {
				pending = true
				timer.Reset(settle)
			}
		case <-timer.C:
			pending = false
			notify()
		}
	}
}
