package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"
)

const (
	// lookEvery is how often the follower looks while something is going on,
	// or, at the Maildir, whether something is.
	lookEvery = 250 * time.Millisecond
	// restAfter is how long without news something counts as going on.
	restAfter = 10 * time.Second
	// restEvery is how often the API is asked all the same: not everything
	// that happens shows in the Maildir at once.
	restEvery = 5 * time.Second
	// longWait is when a message that is not settled is mentioned.
	longWait = 30 * time.Second
	// primePages bounds the look back over a large mailbox at the start.
	primePages = 25
	// singlesPerPoll bounds how many messages are asked for one by one.
	singlesPerPoll = 50
)

// follower prints each message once: when it is decided and what was decided
// is done. Ids rise with time, but two that are made at once may be stored in
// either order, so it remembers ids instead of a place.
type follower struct {
	api   *api
	out   *console
	now   func() time.Time
	every time.Duration

	settled map[string]bool
	waiting map[string]*wait
	floor   string // messages up to this id are from before and not looked at

	printed int
	counts  map[string]int // of what was done; nil once it was summed up
}

// wait is a message that is known and not settled.
type wait struct {
	since time.Time
	told  bool
}

func newFollower(a *api, out *console) *follower {
	return &follower{
		api: a, out: out, now: time.Now, every: lookEvery,
		settled: map[string]bool{}, waiting: map[string]*wait{}, counts: map[string]int{},
	}
}

// prime passes over the messages that were settled before the given time and
// returns a line about them. Those that were not are printed once they are.
func (f *follower) prime(ctx context.Context, before time.Time) (string, error) {
	earlier, cursor := 0, ""
	for n := 1; ; n++ {
		rows, next, err := f.api.messages(ctx, cursor)
		if err != nil {
			return "", fmt.Errorf("look at the messages from before: %w", err)
		}
		for _, m := range rows {
			if _, _, settled := outcome(m); settled && m.UpdatedAt.Before(before) {
				f.settled[m.ID] = true
				earlier++
				continue
			}
			f.waiting[m.ID] = &wait{since: f.now()}
		}
		if next == "" {
			break
		}
		if cursor = next; n == primePages {
			f.floor = rows[len(rows)-1].ID
			return fmt.Sprintf("More than %d messages are here from before; only what happens now is listed.\n", earlier), nil
		}
	}
	if earlier == 0 {
		return "", nil
	}
	return plural(earlier, "message") + " from before: see /v1/messages. What happens now is listed here.\n", nil
}

// follow polls until ctx ends. When the first batch of messages is through,
// onBatch gets a line that sums it up.
func (f *follower) follow(ctx context.Context, changed func() bool, batch int, onBatch func(string)) error {
	if batch == 0 {
		f.counts = nil
	}
	tick := time.NewTicker(f.every)
	defer tick.Stop()
	news, asked := f.now(), time.Time{}
	away := false
	for {
		stirred := changed()
		now := f.now()
		if stirred {
			news = now
		}
		if now.Sub(news) < restAfter || now.Sub(asked) >= restEvery {
			n, err := f.poll(ctx)
			asked = f.now()
			switch {
			case ctx.Err() != nil:
				return context.Cause(ctx)
			case err != nil && !away:
				away = true
				f.out.printf("! The API does not answer, trying again: %v\n", err)
			case err == nil && away:
				away = false
				f.out.printf("! The API answers again.\n")
			}
			if n > 0 {
				news = asked
			}
			quiet := asked.Sub(news) >= restAfter && len(f.waiting) == 0
			if f.counts != nil && f.printed > 0 && (f.printed >= batch || quiet) {
				onBatch(summary(f.counts))
				f.counts = nil
			}
			// Reading a long list must not keep the services from their work.
			tick.Reset(max(f.every, 4*asked.Sub(now)))
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// poll looks once and prints what is new, oldest first. It returns how many
// messages are new or were printed.
func (f *follower) poll(ctx context.Context) (news int, err error) {
	open := map[string]message{}
	for cursor := ""; ; {
		rows, next, err := f.api.messages(ctx, cursor)
		if err != nil {
			return 0, err
		}
		older := true // nothing on this page is still to be printed
		for _, m := range rows {
			if m.ID > f.floor && !f.settled[m.ID] {
				older = false
				open[m.ID] = m
			}
		}
		if older || next == "" {
			break
		}
		cursor = next
	}
	// A message that waits for long may lie below pages of settled ones. The
	// order of a map is random, so all of them have their turn.
	single := 0
	for id := range f.waiting {
		if _, seen := open[id]; !seen && single < singlesPerPoll {
			single++
			m, err := f.api.message(ctx, id)
			if gone(err) {
				delete(f.waiting, id)
				continue
			}
			if err != nil {
				return 0, err
			}
			open[id] = m
		}
	}
	for _, id := range slices.Sorted(maps.Keys(open)) {
		fresh, err := f.report(ctx, open[id])
		if err != nil {
			return news, err
		}
		if fresh {
			news++
		}
	}
	return news, nil
}

func gone(err error) bool {
	var r *refused
	return errors.As(err, &r) && r.status == http.StatusNotFound
}

// report prints a message if it is settled, or remembers that it is not. It
// tells whether that is news.
func (f *follower) report(ctx context.Context, m message) (bool, error) {
	did, why, settled := outcome(m)
	if !settled {
		w, known := f.waiting[m.ID]
		if !known {
			f.waiting[m.ID] = &wait{since: f.now()}
		} else if !w.told && f.now().Sub(w.since) >= longWait {
			w.told = true
			f.print(m, did, "see /v1/messages/"+m.ID)
		}
		return !known, nil
	}
	if strings.HasSuffix(did, " failed") && m.Actions == nil {
		detail, err := f.api.message(ctx, m.ID)
		if err != nil && !gone(err) {
			return false, err
		}
		m.Actions = detail.Actions
		did, why, _ = outcome(m)
	}
	f.print(m, did, why)
	f.settled[m.ID] = true
	delete(f.waiting, m.ID)
	f.printed++
	if f.counts != nil {
		f.counts[fit(did, 60)]++
	}
	return true, nil
}

func (f *follower) print(m message, did, why string) {
	f.out.printf("%s\n", line(f.now(), m, did, why, f.out.width()))
}
