package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

// setup returns a follower of a fake API and what it has printed.
func setup(t *testing.T) (*fakeAPI, *follower, *bytes.Buffer) {
	t.Helper()
	fake := newFakeAPI(t)
	printed := &bytes.Buffer{}
	out := &console{w: printed, width: func() int { return 120 }, broken: func(err error) { t.Error(err) }}
	f := newFollower(fake.client, out)
	f.now = func() time.Time { return afterStart }
	f.every = time.Millisecond
	return fake, f, printed
}

// poll polls once and returns the lines it printed.
func poll(t *testing.T, f *follower, printed *bytes.Buffer) []string {
	t.Helper()
	printed.Reset()
	if _, err := f.poll(t.Context()); err != nil {
		t.Fatal(err)
	}
	return split(printed.String())
}

func split(text string) []string {
	if text == "" {
		return nil
	}
	return strings.Split(strings.TrimSuffix(text, "\n"), "\n")
}

func TestPoll(t *testing.T) {
	t.Parallel()

	t.Run("a message is printed once, when its action is done", func(t *testing.T) {
		t.Parallel()
		fake, f, printed := setup(t)
		fake.add("m1", "Frost and sun", afterStart)
		for _, step := range []func(){
			func() {},
			func() { fake.decide("m1", "star", "Walks", "queued") },
			func() { fake.decide("m1", "star", "Walks", "executing") },
		} {
			step()
			if got := poll(t, f, printed); got != nil {
				t.Fatalf("printed too early: %q", got)
			}
		}
		fake.decide("m1", "star", "Walks", "completed")
		got := poll(t, f, printed)
		if len(got) != 1 || !strings.Contains(got[0], "Frost and sun") || !strings.HasSuffix(got[0], "→ starred  (rule Walks)") {
			t.Fatalf("printed %q", got)
		}
		if got := poll(t, f, printed); got != nil {
			t.Fatalf("printed again: %q", got)
		}
	})

	t.Run("messages come oldest first", func(t *testing.T) {
		t.Parallel()
		fake, f, printed := setup(t)
		for _, id := range []string{"m1", "m2", "m3"} {
			fake.add(id, "subject "+id, afterStart)
			fake.decide(id, "none", "", "")
		}
		got := poll(t, f, printed)
		if len(got) != 3 || !strings.Contains(got[0], "subject m1") || !strings.Contains(got[2], "subject m3") {
			t.Fatalf("printed %q", got)
		}
	})

	t.Run("a message stored late under a lower id is not missed", func(t *testing.T) {
		t.Parallel()
		fake, f, printed := setup(t)
		fake.add("m2", "second", afterStart)
		fake.decide("m2", "none", "", "")
		poll(t, f, printed)
		fake.add("m1", "first", afterStart)
		fake.decide("m1", "none", "", "")
		if got := poll(t, f, printed); len(got) != 1 || !strings.Contains(got[0], "first") {
			t.Fatalf("printed %q", got)
		}
	})

	t.Run("more messages than a page holds are all printed", func(t *testing.T) {
		t.Parallel()
		fake, f, printed := setup(t)
		for i := range 2*pageSize + 50 {
			id := fmt.Sprintf("m%04d", i)
			fake.add(id, id, afterStart)
			fake.decide(id, "none", "", "")
		}
		if got := poll(t, f, printed); len(got) != 2*pageSize+50 {
			t.Fatalf("printed %d lines", len(got))
		}
	})

	t.Run("a message that waits below a page of settled ones is not forgotten", func(t *testing.T) {
		t.Parallel()
		fake, f, printed := setup(t)
		fake.add("m0000", "the slow one", afterStart)
		poll(t, f, printed)
		for i := range pageSize + 1 {
			id := fmt.Sprintf("m%04d", i+1)
			fake.add(id, id, afterStart)
			fake.decide(id, "none", "", "")
		}
		poll(t, f, printed)
		fake.decide("m0000", "none", "", "")
		if got := poll(t, f, printed); len(got) != 1 || !strings.Contains(got[0], "the slow one") {
			t.Fatalf("printed %q", got)
		}
	})

	t.Run("a failed action shows its error", func(t *testing.T) {
		t.Parallel()
		fake, f, printed := setup(t)
		fake.add("m1", "s", afterStart)
		fake.decide("m1", "move", "R", "failed")
		fake.set(func() {
			fake.details["m1"] = map[string]any{"id": "m1", "actions": []any{map[string]any{"error_message": "message_gone"}}}
		})
		if got := poll(t, f, printed); len(got) != 1 || !strings.HasSuffix(got[0], "→ move failed  (message_gone)") {
			t.Fatalf("printed %q", got)
		}
	})

	t.Run("a message that is deleted while it waits is dropped", func(t *testing.T) {
		t.Parallel()
		fake, f, printed := setup(t)
		fake.add("m1", "s", afterStart)
		poll(t, f, printed)
		fake.set(func() { fake.messages = nil })
		poll(t, f, printed)
		if len(f.waiting) != 0 {
			t.Errorf("still waits for %v", f.waiting)
		}
	})

	t.Run("a message that waits for long is mentioned once", func(t *testing.T) {
		t.Parallel()
		fake, f, printed := setup(t)
		fake.add("m1", "s", afterStart)
		poll(t, f, printed)
		f.now = func() time.Time { return afterStart.Add(longWait) }
		if got := poll(t, f, printed); len(got) != 1 || !strings.Contains(got[0], "not decided yet  (see /v1/messages/m1)") {
			t.Fatalf("printed %q", got)
		}
		if got := poll(t, f, printed); got != nil {
			t.Fatalf("mentioned again: %q", got)
		}
		fake.decide("m1", "none", "", "")
		if got := poll(t, f, printed); len(got) != 1 {
			t.Fatalf("printed %q", got)
		}
	})

	t.Run("after a refusal nothing is lost", func(t *testing.T) {
		t.Parallel()
		fake, f, printed := setup(t)
		fake.add("m1", "s", afterStart)
		fake.decide("m1", "none", "", "")
		fake.set(func() { fake.refuse = "GET /v1/messages" })
		_, err := f.poll(t.Context())
		if err == nil || err.Error() != "GET /v1/messages?limit=200: 503 the database does not answer" {
			t.Fatalf("the error is %v", err)
		}
		fake.set(func() { fake.refuse = "" })
		if got := poll(t, f, printed); len(got) != 1 {
			t.Fatalf("printed %q", got)
		}
	})

	t.Run("a subject cannot write to the terminal", func(t *testing.T) {
		t.Parallel()
		fake, f, printed := setup(t)
		fake.add("m1", "a\x1b[2J\nb\u202ec", afterStart)
		fake.decide("m1", "none", "x\x1b]0;y\x07", "")
		got := poll(t, f, printed)
		if len(got) != 1 || strings.ContainsAny(got[0], "\x1b\x07\u202e") {
			t.Fatalf("printed %q", got)
		}
	})
}

func TestPrime(t *testing.T) {
	t.Parallel()

	t.Run("what was settled before is summed up, the rest is printed", func(t *testing.T) {
		t.Parallel()
		fake, f, printed := setup(t)
		fake.add("m1", "old", beforeStart)
		fake.decide("m1", "none", "", "")
		fake.add("m2", "old and waiting", beforeStart)
		fake.add("m3", "settled since the start", afterStart)
		fake.decide("m3", "none", "", "")
		text, err := f.prime(t.Context(), atStart)
		if err != nil || !strings.HasPrefix(text, "1 message from before") {
			t.Fatalf("got %q, %v", text, err)
		}
		if got := poll(t, f, printed); len(got) != 1 || !strings.Contains(got[0], "settled since the start") {
			t.Fatalf("printed %q", got)
		}
		fake.decide("m2", "none", "", "")
		if got := poll(t, f, printed); len(got) != 1 || !strings.Contains(got[0], "old and waiting") {
			t.Fatalf("printed %q", got)
		}
	})

	t.Run("an empty mailbox is not worth a line", func(t *testing.T) {
		t.Parallel()
		_, f, _ := setup(t)
		if text, err := f.prime(t.Context(), atStart); err != nil || text != "" {
			t.Fatalf("got %q, %v", text, err)
		}
	})

	t.Run("of a large mailbox the oldest are not looked at", func(t *testing.T) {
		t.Parallel()
		fake, f, printed := setup(t)
		for i := range (primePages + 2) * pageSize {
			id := fmt.Sprintf("m%06d", i)
			fake.add(id, id, beforeStart)
		}
		fake.set(func() {
			for i, m := range fake.messages {
				if i%pageSize == 50 {
					continue // so that no page is all settled
				}
				m["decision"] = map[string]any{"action_type": "none"}
			}
		})
		text, err := f.prime(t.Context(), atStart)
		if err != nil || !strings.HasPrefix(text, "More than 4975 messages") {
			t.Fatalf("got %q, %v", text, err)
		}
		fake.add("n", "new", afterStart)
		fake.decide("n", "none", "", "")
		if got := poll(t, f, printed); len(got) != 1 {
			t.Fatalf("printed %d lines", len(got))
		}
	})
}

func TestFollow(t *testing.T) {
	t.Parallel()

	t.Run("sums the first batch up once it is through", func(t *testing.T) {
		t.Parallel()
		fake, f, printed := setup(t)
		for _, id := range []string{"m1", "m2"} {
			fake.add(id, id, afterStart)
			fake.decide(id, "none", "", "")
		}
		ctx, cancel := context.WithCancelCause(t.Context())
		var sum string
		err := f.follow(ctx, func() bool { return true }, 2, func(text string) {
			sum = text
			cancel(errAsked)
		})
		if !errors.Is(err, errAsked) || sum != "2 messages: 2 left in the inbox." {
			t.Errorf("ended with %v after %q", err, sum)
		}
		if got := split(printed.String()); len(got) != 2 {
			t.Errorf("printed %q", got)
		}
	})

	t.Run("an outage is told once, and its end", func(t *testing.T) {
		t.Parallel()
		fake, f, printed := setup(t)
		fake.set(func() { fake.refuse = "GET /v1/messages" })
		ctx, cancel := context.WithCancelCause(t.Context())
		looks := 0
		err := f.follow(ctx, func() bool {
			switch looks++; looks {
			case 3:
				fake.set(func() { fake.refuse = "" })
			case 5:
				cancel(errAsked)
			}
			return true
		}, 0, nil)
		if !errors.Is(err, errAsked) {
			t.Fatal(err)
		}
		got := split(printed.String())
		if len(got) != 2 || !strings.Contains(got[0], "503 the database does not answer") || !strings.Contains(got[1], "answers again") {
			t.Errorf("printed %q", got)
		}
	})

	t.Run("asks seldom while the Maildir rests", func(t *testing.T) {
		t.Parallel()
		fake, f, _ := setup(t)
		now := afterStart
		f.now = func() time.Time { return now }
		ctx, cancel := context.WithCancelCause(t.Context())
		looks := 0
		err := f.follow(ctx, func() bool {
			switch looks++; looks {
			case 1: // asked, because nothing was asked yet
				now = now.Add(restAfter)
			case 5:
				cancel(errAsked)
			}
			return false
		}, 0, nil)
		if !errors.Is(err, errAsked) {
			t.Fatal(err)
		}
		if len(fake.requests) > 1 {
			t.Errorf("%d requests in 5 looks: %q", len(fake.requests), fake.requests)
		}
	})
}
