package check

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/postroom/postroom/core/config"
)

// skip leaves a test out whose program is missing; not in the gate.
func skip(t *testing.T, why string) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatalf("%s: make setup", why)
	}
	t.Skipf("%s: make setup installs it where it can", why)
}

// load makes the configuration from a service's variables.
func load(t *testing.T, service string, env map[string]string) *config.Loaded {
	t.Helper()
	cfg, err := config.Load(config.Options{Lookup: func(name string) (string, bool) { v, ok := env[name]; return v, ok }})
	if err != nil {
		t.Fatalf("%s: %v", service, err)
	}
	return cfg
}

// serving says where a service listens and how long it may take to stop.
func serving(cfg *config.Loaded, program string) (string, time.Duration) {
	if program == "queuerunner" {
		return cfg.Queue.HTTPAddr, cfg.Queue.DrainTimeout.Duration
	}
	const requests = 15 * time.Second // that are under way after the delay
	return fmt.Sprintf("%s:%d", cfg.App.Host, cfg.App.Port), cfg.App.DrainDelay.Duration + requests
}

// known are the variables that the services read, by the configuration's own
// example.
func known(t *testing.T) map[string]bool {
	t.Helper()
	example, err := os.ReadFile("../../config/postroom.example.toml")
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{"CONFIG_PATH": true, "HOME": true}
	for _, m := range regexp.MustCompile(`(?m)^# Env: (.*)$`).FindAllStringSubmatch(string(example), -1) {
		for name := range strings.SplitSeq(m[1], ", ") {
			names[name] = true
		}
	}
	return names
}

func checkVariables(t *testing.T, service string, names []string) {
	t.Helper()
	all := known(t)
	for _, name := range names {
		if !all[name] {
			t.Errorf("%s is given %s, which it does not read", service, name)
		}
	}
}

// stage is the part of the Dockerfile that makes an image, with the stage that
// it goes on from.
func stage(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile("../container/Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	for part := range strings.SplitSeq(string(text), "\nFROM ") {
		head, rest, _ := strings.Cut(part, "\n")
		from, as, _ := strings.Cut(head, " AS ")
		if as != name {
			continue
		}
		if !strings.Contains(from, "$") {
			rest = stage(t, from) + rest
		}
		return rest
	}
	t.Fatalf("the Dockerfile has no stage %s", name)
	return ""
}

// imageEnvironment are the variables that an image brings.
func imageEnvironment(t *testing.T, name string) map[string]string {
	t.Helper()
	env := map[string]string{}
	for _, m := range regexp.MustCompile(`(?m)^ENV (.*)$`).FindAllStringSubmatch(stage(t, name), -1) {
		for pair := range strings.FieldsSeq(m[1]) {
			key, value, _ := strings.Cut(pair, "=")
			env[key] = value
		}
	}
	return env
}
