package main

import (
	"errors"
	"net"
	"slices"
	"strings"
	"testing"
	"time"
)

const printedConfig = `{"settings":[
 {"key":"app.host","value":"127.0.0.1","origin":"default","reserved":false},
 {"key":"app.port","value":17800,"origin":"default","reserved":false},
 {"key":"app.drain_delay","value":"2s","origin":"default","reserved":false},
 {"key":"queue.http_addr","value":"127.0.0.1:17801","origin":"default","reserved":false},
 {"key":"queue.drain_timeout","value":"30s","origin":"default","reserved":false},
 {"key":"api.token","value":"","origin":"default","reserved":false},
 {"key":"api.tokens","value":[],"origin":"default","reserved":false},
 {"key":"model.temperature","value":0.0,"origin":"default","reserved":true}]}`

func environment(entries map[string]string) func(string) (string, bool) {
	return func(name string) (string, bool) {
		v, ok := entries[name]
		return v, ok
	}
}

func TestParseSettings(t *testing.T) {
	t.Parallel()

	t.Run("the defaults", func(t *testing.T) {
		t.Parallel()
		s, err := parseSettings([]byte(printedConfig), environment(nil))
		if err != nil {
			t.Fatal(err)
		}
		if s.baseURL() != "http://127.0.0.1:17800" || s.runnerAddr != "127.0.0.1:17801" || s.grace() != 42*time.Second {
			t.Errorf("got %+v", s)
		}
	})
	for _, c := range []struct {
		name, old, new string
		env            map[string]string
		want           string // in the error
	}{
		{"any free port cannot be found again", "17800", "0", nil, "APP_PORT"},
		{"a token that the demo does not have", `"api.token","value":""`, `"api.token","value":"***"`, nil, "export it as API_TOKEN"},
		{"tokens that the demo does not have", `"api.tokens","value":[]`, `"api.tokens","value":["***"]`, nil, "export it as API_TOKEN"},
		{"a key that is missing", `app.host`, `app.other`, nil, "app.host is missing"},
		{"a value of another type", `17800`, `"17800"`, nil, "app.port"},
		{"no JSON", printedConfig, "hello", nil, "read the configuration"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			_, err := parseSettings([]byte(strings.Replace(printedConfig, c.old, c.new, 1)), environment(c.env))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("the error is %v", err)
			}
		})
	}
}

func TestTokenFrom(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		env  map[string]string
		want string
	}{
		{nil, ""},
		{map[string]string{"API_TOKEN": "one"}, "one"},
		{map[string]string{"API_TOKENS": "two, three"}, "two"},
		{map[string]string{"API_TOKEN": "env:MINE", "MINE": "four"}, "four"},
		{map[string]string{"API_TOKEN": "env:MINE"}, ""},
	} {
		if got := tokenFrom(environment(c.env)); got != c.want {
			t.Errorf("%v: got %q, want %q", c.env, got, c.want)
		}
	}
}

func TestReachable(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"127.0.0.1:1": "127.0.0.1:1", "0.0.0.0:1": "127.0.0.1:1", ":1": "127.0.0.1:1",
		"[::]:1": "[::1]:1", "[::1]:1": "[::1]:1", "localhost:1": "localhost:1",
	} {
		if got := reachable(in); got != want {
			t.Errorf("reachable(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestCheckPorts(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	taken := ln.Addr().(*net.TCPAddr).Port
	s := &settings{host: "127.0.0.1", port: taken}
	if err := s.checkPorts(t.Context()); err == nil || !strings.Contains(err.Error(), "APP_PORT") {
		t.Errorf("a taken port: %v", err)
	}
	s = &settings{host: "127.0.0.1", runnerAddr: ln.Addr().String()}
	if err := s.checkPorts(t.Context()); err == nil || !strings.Contains(err.Error(), "QUEUE_HTTP_ADDR") {
		t.Errorf("a taken address: %v", err)
	}
	s.runnerAddr = ""
	if err := s.checkPorts(t.Context()); err != nil {
		t.Errorf("no address: %v", err)
	}
}

func TestServiceEnvironment(t *testing.T) {
	t.Parallel()
	got := serviceEnvironment([]string{"A=1", "DATABASE_URL=x", "PATHS_DATABASE=y", "APP_PORT=9"}, "/data/postroom.db")
	if want := []string{"A=1", "APP_PORT=9", "DATABASE_URL=/data/postroom.db"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestWrongUnwraps(t *testing.T) {
	t.Parallel()
	_, err := parseSettings([]byte(strings.Replace(printedConfig, "17800", "0", 1)), environment(nil))
	var w wrong
	if !errors.As(err, &w) {
		t.Errorf("a configuration that cannot be used is not the user's fault: %v", err)
	}
}
