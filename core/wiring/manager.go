package wiring

import (
	"context"
	"fmt"
	"net"
	"os"
	"strconv"
	"time"

	"github.com/rs/zerolog"
)

// Manager is the service manager that started this program, such as systemd,
// and wants to hear how it is (sd_notify(3)). Without one nothing is said.
type Manager struct {
	socket   string // "" without one
	watchdog time.Duration
	log      zerolog.Logger
}

// NewManager finds the manager in the environment.
func NewManager(lookup func(string) (string, bool), log zerolog.Logger) Manager {
	m := Manager{log: log}
	m.socket, _ = lookup("NOTIFY_SOCKET")
	// The variables may have been meant for a parent of this process.
	pid, _ := lookup("WATCHDOG_PID")
	usec, _ := lookup("WATCHDOG_USEC")
	if n, err := strconv.ParseInt(usec, 10, 64); err == nil && n > 0 && (pid == "" || pid == strconv.Itoa(os.Getpid())) {
		m.watchdog = time.Duration(n) * time.Microsecond
	}
	return m
}

// Ready says that the service works.
func (m Manager) Ready() { m.say("READY=1\nSTATUS=at work") }

// Waiting says what the start waits for.
func (m Manager) Waiting(what string) { m.say("STATUS=waiting for " + what) }

// Stopping says that the service has begun to stop.
func (m Manager) Stopping() { m.say("STOPPING=1\nSTATUS=draining") }

// Watch tells the manager, twice in the time that it grants, that the service
// is alive, until ctx ends. It says nothing while alive does not return or
// gives an error, and the manager then kills and restarts the service. alive
// must not ask the database: its absence is not mended by a restart.
func (m Manager) Watch(ctx context.Context, alive func(context.Context) error) {
	if m.socket == "" || m.watchdog == 0 {
		return
	}
	tick := time.NewTicker(m.watchdog / 2)
	defer tick.Stop()
	for {
		if err := m.look(ctx, alive); err == nil {
			m.say("WATCHDOG=1")
		} else if ctx.Err() == nil {
			m.log.Error().Err(err).Msg("this service does not answer itself; the service manager is not told that it is alive")
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

func (m Manager) look(ctx context.Context, alive func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, m.watchdog/2)
	defer cancel()
	return alive(ctx)
}

func (m Manager) say(state string) {
	if m.socket == "" {
		return
	}
	if err := m.send(state); err != nil {
		m.log.Warn().Err(err).Msg("the service manager was not told")
	}
}

func (m Manager) send(state string) error {
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: m.socket, Net: "unixgram"})
	if err != nil {
		return fmt.Errorf("reach the service manager: %w", err)
	}
	defer func() { _ = conn.Close() }() // a datagram is sent or not
	if _, err := conn.Write([]byte(state)); err != nil {
		return fmt.Errorf("tell the service manager: %w", err)
	}
	return nil
}
