package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/term"

	"github.com/postroom/postroom/core/telemetry"
)

// screen is a terminal that shows one page and changes it in place.
type screen struct {
	out, in *os.File
}

// Escape sequences of every terminal in use: the other page, where nothing is
// lost of what stands on the first, and the cursor.
const (
	enterPage = "\x1b[?1049h\x1b[?25l"
	leavePage = "\x1b[?25h\x1b[?1049l"
	pageTop   = "\x1b[H"
	lineEnd   = "\x1b[K\r\n" // the rest of the line is empty
	pageEnd   = "\x1b[J"
)

// screen returns the terminal that a person sits at; nil if there is none.
func (c *call) screen() *screen {
	out, _ := c.stdout.(*os.File)
	in, _ := c.stdin.(*os.File)
	if out == nil || in == nil || !term.IsTerminal(int(out.Fd())) || !term.IsTerminal(int(in.Fd())) { //nolint:gosec // a small number
		return nil
	}
	return &screen{out, in}
}

// show looks again and again until the person has seen enough, and leaves the
// terminal as it was.
func (s *screen) show(ctx context.Context, t *top, every time.Duration) error {
	before, err := term.MakeRaw(int(s.in.Fd())) //nolint:gosec // a small number
	if err != nil {
		return fmt.Errorf("take over the terminal: %w", err)
	}
	defer func() { _ = term.Restore(int(s.in.Fd()), before) }() //nolint:gosec // a small number
	if err := s.print(enterPage); err != nil {
		return err
	}
	defer func() { _ = s.print(leavePage) }() // the terminal may have gone
	ctx, enough := context.WithCancel(ctx)
	defer enough()
	go s.heed(enough)
	resized := make(chan os.Signal, 1)
	signal.Notify(resized, syscall.SIGWINCH)
	defer signal.Stop(resized)
	tick := time.NewTicker(every)
	defer tick.Stop()
	text := "looking …\n"
	for {
		if err := s.draw(text, every); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-resized:
		case <-tick.C:
			v, err := t.look(ctx)
			switch {
			case ctx.Err() != nil:
				return nil
			case err != nil:
				text = "the database does not answer; trying again: " + printable(err.Error()) + "\n"
			default:
				text = v.String()
			}
		}
	}
}

// heed waits for q or Ctrl-C, which a terminal in this state passes on as a
// key, and for its end.
func (s *screen) heed(enough func()) {
	defer enough()
	keys := make([]byte, 32)
	for {
		n, err := s.in.Read(keys)
		if err != nil || strings.ContainsAny(string(keys[:n]), "qQ\x03\x04") {
			return
		}
	}
}

// draw puts a text on the page, as much of it as there is room for.
func (s *screen) draw(text string, every time.Duration) error {
	width, height, err := term.GetSize(int(s.out.Fd())) //nolint:gosec // a small number
	if err != nil || width < 1 || height < 1 {
		width, height = 80, 24
	}
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	if room := max(height-2, 1); len(lines) > room {
		lines = append(lines[:room-1], "…")
	}
	var page strings.Builder
	page.WriteString(pageTop)
	for _, line := range append(lines, fmt.Sprintf("every %s; q ends", every)) {
		if runes := []rune(line); len(runes) > width {
			line = string(runes[:width-1]) + "…"
		}
		page.WriteString(line + lineEnd)
	}
	page.WriteString(pageEnd)
	return s.print(page.String())
}

func (s *screen) print(text string) error {
	if _, err := s.out.WriteString(text); err != nil {
		return fmt.Errorf("write to the terminal: %w", err)
	}
	return nil
}

// busy says on a terminal what is being done, and for how long already, until
// end is called; it leaves nothing there.
func (c *call) busy(what string) (end func()) {
	if !telemetry.IsTerminal(c.stderr) {
		return func() {}
	}
	began := time.Now()
	show := func() {
		_, _ = fmt.Fprintf(c.stderr, "\r%s, %d s\x1b[K", what, int(time.Since(began).Seconds())) // nowhere left to report it
	}
	show()
	enough := make(chan struct{})
	var showing sync.WaitGroup
	showing.Go(func() {
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				show()
			case <-enough:
				return
			}
		}
	})
	return func() {
		close(enough)
		showing.Wait()
		_, _ = fmt.Fprint(c.stderr, "\r\x1b[K")
	}
}
