package main

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
)

// service is a child process. It has a process group of its own, so that
// Ctrl-C in a terminal reaches the demo alone, which then stops the services
// in an orderly way.
type service struct {
	name    string
	logPath string
	logFrom int64 // where this start's part of the log begins
	cmd     *exec.Cmd
	ending  atomic.Bool   // it was told to stop
	done    chan struct{} // closed when the process has ended
	failure error         // how it ended, once done is closed
}

// startService starts a binary whose output is appended to the log. If it ends
// without being told to, died is called with an error that shows the end of
// its log.
func startService(path, name, logPath string, env []string, died func(error)) (*service, error) {
	log, err := os.OpenFile(logPath, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the log of %s: %w", name, err)
	}
	defer func() { _ = log.Close() }() // the child has its own descriptor
	end, err := log.Seek(0, io.SeekEnd)
	if err != nil {
		return nil, fmt.Errorf("open the log of %s: %w", name, err)
	}
	s := &service{name: name, logPath: logPath, logFrom: end, cmd: exec.CommandContext(context.Background(), path), done: make(chan struct{})}
	s.cmd.Env = env
	s.cmd.Stdout, s.cmd.Stderr = log, log
	s.cmd.SysProcAttr = processAttributes()
	if err := s.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	go func() {
		s.failure = s.cmd.Wait()
		if !s.ending.Load() {
			// It must be known before done is closed, or a waiting stop would win.
			died(fmt.Errorf("%s ended by itself (%s)%s", s.name, how(s.failure), s.lastWords()))
		}
		close(s.done)
	}()
	return s, nil
}

func (s *service) terminate() {
	s.ending.Store(true)
	_ = s.cmd.Process.Signal(syscall.SIGTERM) // an error means that it has ended
}

// kill ends the service and whatever it started.
func (s *service) kill() {
	select {
	case <-s.done: // its number may belong to somebody else by now
	default:
		_ = syscall.Kill(-s.cmd.Process.Pid, syscall.SIGKILL) // as above
	}
}

// fate says how the service ended, once it has, and whether that was well. One
// that was told to stop before it listened for that ends by the signal.
func (s *service) fate() (text string, well bool) {
	var exit *exec.ExitError
	if errors.As(s.failure, &exit) && s.ending.Load() {
		if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signaled() && status.Signal() == syscall.SIGTERM {
			return "stopped", true
		}
	}
	if s.failure == nil {
		return "stopped", true
	}
	return "ended: " + how(s.failure), false
}

func how(err error) string {
	var exit *exec.ExitError
	switch {
	case err == nil:
		return "exit status 0"
	case errors.As(err, &exit):
		return exit.String()
	}
	return err.Error()
}

// lastWords is the end of what the service logged since it was started, ready
// to follow a sentence.
func (s *service) lastWords() string {
	const most, lines = 16 << 10, 5
	f, err := os.Open(s.logPath)
	if err != nil {
		return fmt.Sprintf("\nThe log of %s cannot be read: %v", s.name, err)
	}
	defer func() { _ = f.Close() }() // nothing was written
	from := s.logFrom
	if info, err := f.Stat(); err == nil {
		from = max(from, info.Size()-most)
	}
	text, err := io.ReadAll(io.NewSectionReader(f, from, most))
	if err != nil {
		return fmt.Sprintf("\nThe log of %s cannot be read: %v", s.name, err)
	}
	text = bytes.TrimSpace(text)
	if len(text) == 0 {
		return fmt.Sprintf("\n%s logged nothing in %s", s.name, s.logPath)
	}
	all := strings.Split(string(text), "\n")
	all = all[max(0, len(all)-lines):]
	var b strings.Builder
	fmt.Fprintf(&b, "\nThe end of %s:", s.logPath)
	for _, line := range all {
		b.WriteString("\n  " + fit(line, 1000))
	}
	return b.String()
}

// serviceEnvironment is ours with the database replaced, under its one name
// that is left: two different values would be an error.
func serviceEnvironment(environ []string, database string) []string {
	var env []string
	for _, entry := range environ {
		switch name, _, _ := strings.Cut(entry, "="); name {
		case "DATABASE_URL", "PATHS_DATABASE":
		default:
			env = append(env, entry)
		}
	}
	return append(env, "DATABASE_URL="+database)
}
