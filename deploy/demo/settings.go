package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/postroom/postroom/deploy/internal/child"
)

// settings is what the demo has to know of the services' configuration.
type settings struct {
	host       string
	port       int
	runnerAddr string // "" when the runner does not listen
	drainTime  time.Duration
	drainDelay time.Duration
	token      string
}

// readSettings asks queuerunner, so that file and environment are read by the
// code that also reads them for the services.
func readSettings(ctx context.Context, queuerunner string, env []string, lookup func(string) (string, bool)) (*settings, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, queuerunner, "config", "print", "-json")
	cmd.Env = env
	// Ctrl-C in a terminal is for the demo alone.
	cmd.SysProcAttr = child.Attributes()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		var exit *exec.ExitError
		if !errors.As(err, &exit) {
			return nil, fmt.Errorf("run queuerunner (is it built? `make build`): %w", err)
		}
		err = fmt.Errorf("the configuration is not right (%s):\n%s", child.How(err), onLines(stderr.String()))
		if exit.ExitCode() == exitWrong {
			return nil, wrong{err}
		}
		return nil, err
	}
	return parseSettings(stdout.Bytes(), lookup)
}

func onLines(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		b.WriteString("  " + fit(strings.TrimRight(line, "\n"), 1000) + "\n")
	}
	return strings.TrimRight(b.String(), "\n")
}

// parseSettings reads the output of `queuerunner config print -json`.
func parseSettings(printed []byte, lookup func(string) (string, bool)) (*settings, error) {
	var all struct {
		Settings []struct {
			Key   string          `json:"key"`
			Value json.RawMessage `json:"value"`
		} `json:"settings"`
	}
	if err := json.Unmarshal(printed, &all); err != nil {
		return nil, fmt.Errorf("read the configuration that queuerunner prints: %w", err)
	}
	s := &settings{}
	var drainTime, drainDelay, token string
	var tokens []string
	into := map[string]any{
		"app.host": &s.host, "app.port": &s.port, "queue.http_addr": &s.runnerAddr,
		"queue.drain_timeout": &drainTime, "app.drain_delay": &drainDelay,
		"api.token": &token, "api.tokens": &tokens,
	}
	for _, one := range all.Settings {
		if dst, wanted := into[one.Key]; wanted {
			if err := json.Unmarshal(one.Value, dst); err != nil {
				return nil, fmt.Errorf("read the configuration that queuerunner prints: %s: %w", one.Key, err)
			}
			delete(into, one.Key)
		}
	}
	for key := range into {
		return nil, fmt.Errorf("read the configuration that queuerunner prints: %s is missing", key)
	}
	for text, dst := range map[*string]*time.Duration{&drainTime: &s.drainTime, &drainDelay: &s.drainDelay} {
		d, err := time.ParseDuration(*text)
		if err != nil {
			return nil, fmt.Errorf("read the configuration that queuerunner prints: %w", err)
		}
		*dst = d
	}
	if s.port == 0 {
		return nil, wrong{errors.New("app.port is 0, any free port: the demo has to know it, so choose one (APP_PORT)")}
	}
	s.token = tokenFrom(lookup)
	if s.token == "" && (token != "" || len(tokens) > 0) {
		return nil, wrong{errors.New("the configuration asks for a token; export it as API_TOKEN, so that the demo can call the API")}
	}
	return s, nil
}

// tokenFrom is the token to call the API with, which the environment may name
// by another variable, as in the services.
func tokenFrom(lookup func(string) (string, bool)) string {
	token, _ := lookup("API_TOKEN")
	if token == "" {
		list, _ := lookup("API_TOKENS")
		token, _, _ = strings.Cut(list, ",")
		token = strings.TrimSpace(token)
	}
	if name, indirect := strings.CutPrefix(token, "env:"); indirect {
		token, _ = lookup(name)
	}
	return token
}

func (s *settings) apiAddr() string { return net.JoinHostPort(s.host, strconv.Itoa(s.port)) }

func (s *settings) baseURL() string { return "http://" + reachable(s.apiAddr()) }

// reachable turns an address to listen on into one to call.
func reachable(addr string) string {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return addr
	}
	if ip, err := netip.ParseAddr(host); err == nil && ip.IsUnspecified() {
		host = "127.0.0.1"
		if ip.Is6() {
			host = "::1"
		}
	} else if host == "" {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, port)
}

// grace is how long the services may take to stop by what they are told, and
// some more.
func (s *settings) grace() time.Duration { return s.drainTime + s.drainDelay + 10*time.Second }

// checkPorts makes sure that whoever answers later is the service that is
// about to be started, and not one that somebody else runs on another
// database.
func (s *settings) checkPorts(ctx context.Context) error {
	for _, l := range []struct{ addr, what, variable string }{
		{s.apiAddr(), "app.port", "APP_PORT"}, {s.runnerAddr, "queue.http_addr", "QUEUE_HTTP_ADDR"},
	} {
		if l.addr == "" {
			continue
		}
		var lc net.ListenConfig
		ln, err := lc.Listen(ctx, "tcp", l.addr)
		if err != nil {
			return fmt.Errorf("%s cannot be used: %w\nIs Postroom running already? Stop it, or choose another address with %s", l.what, err, l.variable)
		}
		if err := ln.Close(); err != nil {
			return fmt.Errorf("%s cannot be used: %w", l.what, err)
		}
	}
	return nil
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
