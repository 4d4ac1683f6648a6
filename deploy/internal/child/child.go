// Package child starts the programs that a set-up consists of, as children
// that end with it, and says how they ended. It imports the standard library
// only.
package child

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"syscall"
	"unicode"
)

// Process is a child process. It has a process group of its own, so that
// Ctrl-C in a terminal reaches the parent alone, which then stops its children
// in an orderly way.
type Process struct {
	Name    string
	logPath string
	logFrom int64 // where this start's part of the log begins
	cmd     *exec.Cmd
	ending  atomic.Bool   // it was told to stop
	Done    chan struct{} // closed when the process has ended
	failure error         // how it ended, once done is closed
}

// Start starts a binary whose output is appended to the log. If it ends
// without being told to, died is called with an error that shows the end of
// its log.
func Start(name, logPath string, env []string, died func(error), path string, args ...string) (*Process, error) {
	log, err := os.OpenFile(logPath, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the log of %s: %w", name, err)
	}
	defer func() { _ = log.Close() }() // the child has its own descriptor
	end, err := log.Seek(0, io.SeekEnd)
	if err != nil {
		return nil, fmt.Errorf("open the log of %s: %w", name, err)
	}
	s := &Process{Name: name, logPath: logPath, logFrom: end, cmd: exec.CommandContext(context.Background(), path, args...), Done: make(chan struct{})}
	s.cmd.Env = env
	s.cmd.Stdout, s.cmd.Stderr = log, log
	s.cmd.SysProcAttr = Attributes()
	if err := s.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	go func() {
		s.failure = s.cmd.Wait()
		if !s.ending.Load() {
			// It must be known before Done is closed, or a waiting stop would win.
			died(fmt.Errorf("%s ended by itself (%s)%s", s.Name, How(s.failure), s.LastWords()))
		}
		close(s.Done)
	}()
	return s, nil
}

// Terminate asks the process to stop.
func (s *Process) Terminate() {
	s.ending.Store(true)
	_ = s.cmd.Process.Signal(syscall.SIGTERM) // an error means that it has ended
}

// Kill ends the service and whatever it started.
func (s *Process) Kill() {
	select {
	case <-s.Done: // its number may belong to somebody else by now
	default:
		_ = syscall.Kill(-s.cmd.Process.Pid, syscall.SIGKILL) // as above
	}
}

// Fate says how the service ended, once it has, and whether that was well. One
// that was told to stop before it listened for that ends by the signal.
func (s *Process) Fate() (text string, well bool) {
	var exit *exec.ExitError
	if errors.As(s.failure, &exit) && s.ending.Load() {
		if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signaled() && status.Signal() == syscall.SIGTERM {
			return "stopped", true
		}
	}
	if s.failure == nil {
		return "stopped", true
	}
	return "ended: " + How(s.failure), false
}

// How says how a process ended that was waited for.
func How(err error) string {
	var exit *exec.ExitError
	switch {
	case err == nil:
		return "exit status 0"
	case errors.As(err, &exit):
		return exit.String()
	}
	return err.Error()
}

// LastWords is the end of what the service logged since it was started, ready
// to follow a sentence.
func (s *Process) LastWords() string {
	const most, lines = 16 << 10, 5
	f, err := os.Open(s.logPath)
	if err != nil {
		return fmt.Sprintf("\nThe log of %s cannot be read: %v", s.Name, err)
	}
	defer func() { _ = f.Close() }() // nothing was written
	from := s.logFrom
	if info, err := f.Stat(); err == nil {
		from = max(from, info.Size()-most)
	}
	text, err := io.ReadAll(io.NewSectionReader(f, from, most))
	if err != nil {
		return fmt.Sprintf("\nThe log of %s cannot be read: %v", s.Name, err)
	}
	text = bytes.TrimSpace(text)
	if len(text) == 0 {
		return fmt.Sprintf("\n%s logged nothing in %s", s.Name, s.logPath)
	}
	all := strings.Split(string(text), "\n")
	all = all[max(0, len(all)-lines):]
	var b strings.Builder
	fmt.Fprintf(&b, "\nThe end of %s:", s.logPath)
	for _, line := range all {
		b.WriteString("\n  " + printable(line))
	}
	return b.String()
}

// printable is a line of a log that is safe to show on a terminal.
func printable(line string) string {
	const most = 1000
	line = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return unicode.ReplacementChar
		}
		return r
	}, line)
	if runes := []rune(line); len(runes) > most {
		return string(runes[:most]) + "…"
	}
	return line
}
