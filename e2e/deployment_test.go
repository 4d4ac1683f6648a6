package e2e

import (
	"bytes"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/postroom/postroom/core/config"
)

// deployed are the files that tell others how to run the services.
func deployed(tb testing.TB) map[string]string {
	tb.Helper()
	texts := map[string]string{}
	for _, pattern := range []string{"container/Dockerfile", "compose/*", "systemd/*", "kubernetes/*", "kubernetes/*/*", "monitoring/*.yml", "nginx/*", "debian/*"} {
		paths, err := filepath.Glob("../deploy/" + pattern)
		if err != nil {
			tb.Fatal(err)
		}
		for _, path := range paths {
			if info, err := os.Stat(path); err != nil || info.IsDir() {
				continue
			}
			text, err := os.ReadFile(path)
			if err != nil {
				tb.Fatal(err)
			}
			texts[strings.TrimPrefix(path, "../deploy/")] = string(text)
		}
	}
	return texts
}

// A variable that a file sets is one that the services read.
func TestDeployedVariablesExist(t *testing.T) {
	t.Parallel()
	example, err := os.ReadFile("../config/postroom.example.toml")
	if err != nil {
		t.Fatal(err)
	}
	// Of other programs and of the files themselves.
	known := map[string]bool{"CONFIG_PATH": true, "API_BIND": true, "API_ONE": true, "API_TWO": true, "OTLP_HTTP_ADDR": true, "OTLP_GRPC_ADDR": true, "OTLP_FORWARD_TO": true}
	for _, m := range regexp.MustCompile(`(?m)^# Env: (.*)$`).FindAllStringSubmatch(string(example), -1) {
		for name := range strings.SplitSeq(m[1], ", ") {
			known[name] = true
		}
	}
	named := regexp.MustCompile(`\b(?:APP|PATHS|DATABASE|QUEUE|API|MAIL|LOG|TELEMETRY|OTLP|LIBSQL|CONFIG)_[A-Z_]+\b`)
	found := 0
	for file, text := range deployed(t) {
		for _, name := range named.FindAllString(text, -1) {
			if found++; !known[name] {
				t.Errorf("deploy/%s sets %s, which nothing reads", file, name)
			}
		}
	}
	if found < 10 {
		t.Errorf("only %d variables were found", found)
	}
}

// A service is not killed while it stops as it should.
func TestDeployedTimesLeaveRoomToStop(t *testing.T) {
	t.Parallel()
	cfg := config.Default()
	const requests = 15 * time.Second // of apiserver, after its drain delay
	least := min(cfg.Queue.DrainTimeout.Duration, cfg.App.DrainDelay.Duration+requests)
	most := max(cfg.Queue.DrainTimeout.Duration, cfg.App.DrainDelay.Duration+requests)
	times := regexp.MustCompile(`(?m)(TimeoutStopSec=|stop_grace_period: |terminationGracePeriodSeconds: )(\d+)`)
	found := 0
	for file, text := range deployed(t) {
		for _, m := range times.FindAllStringSubmatch(text, -1) {
			found++
			want := most
			// Of the apiserver's own file or the first of a file with both.
			if strings.Contains(file, "apiserver") || strings.HasPrefix(file, "compose") && m[2] == "30" {
				want = least
			}
			if n, _ := strconv.Atoi(m[2]); time.Duration(n)*time.Second <= want {
				t.Errorf("deploy/%s: %s%s is not above %v", file, m[1], m[2], want)
			}
		}
	}
	if found < 6 {
		t.Errorf("only %d times were found", found)
	}
}

// What the Dockerfile copies is enough for the commands that it runs.
func TestTheDockerfileBuilds(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../deploy/container/Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	top, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	src, out := t.TempDir(), t.TempDir()
	joined := strings.ReplaceAll(string(text), "\\\n", " ")
	build, _, found := strings.Cut(joined, "\nFROM ${BASE_IMAGE}")
	if !found {
		t.Fatal("there is no second stage")
	}
	env := append(os.Environ(), "VERSION=from-the-dockerfile")
	ran := 0
	for line := range strings.Lines(build) {
		word, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		fields := strings.Fields(rest)
		switch word {
		case "ENV":
			env = append(env, fields...)
		case "COPY":
			to := filepath.Join(src, fields[len(fields)-1])
			for _, from := range fields[:len(fields)-1] {
				args := []string{"-c", `mkdir -p "$2" && cp -r "$1" "$2"`, "sh", filepath.Join(top, from), to}
				if info, err := os.Stat(filepath.Join(top, from)); err == nil && info.IsDir() {
					args = []string{"-c", `mkdir -p "$2" && cp -r "$1"/. "$2" && find "$2" -name '*_test.go' -delete`, "sh", filepath.Join(top, from), to}
				}
				if said, err := exec.Command("sh", args...).CombinedOutput(); err != nil {
					t.Fatalf("%s: %v\n%s", line, err, said)
				}
			}
		case "RUN":
			cmd := exec.Command("sh", "-c", strings.ReplaceAll(rest, "/out/", out+"/"))
			cmd.Dir, cmd.Env = src, env
			if said, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("%s%v\n%s", line, err, said)
			}
			ran++
		}
	}
	for _, name := range []string{"apiserver", "queuerunner"} {
		said, err := exec.Command(filepath.Join(out, name), "-version").Output()
		if err != nil || string(said) != name+" from-the-dockerfile\n" {
			t.Errorf("%s: %q %v", name, said, err)
		}
	}
	if ran < 3 {
		t.Errorf("only %d commands were run", ran)
	}
}

// systemd finds no mistake in the units, and they may do little.
func TestSystemdTakesTheUnits(t *testing.T) {
	t.Parallel()
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("there is no systemd-analyze on this machine")
	}
	dir := t.TempDir()
	var units []string
	for file, text := range deployed(t) {
		name, isUnit := strings.CutPrefix(file, "systemd/")
		if !isUnit || !strings.HasSuffix(name, ".service") {
			continue
		}
		// The programs are where this test built them, and a template needs an instance.
		name = strings.Replace(name, "@.", "@1.", 1)
		if err := os.WriteFile(filepath.Join(dir, name), []byte(strings.ReplaceAll(text, "/usr/bin/", binaries+"/")), 0o600); err != nil {
			t.Fatal(err)
		}
		units = append(units, filepath.Join(dir, name))
	}
	if len(units) != 2 {
		t.Fatalf("%d units", len(units))
	}
	for _, unit := range units {
		if said, err := exec.Command(analyze, "verify", "--man=no", unit).CombinedOutput(); err != nil || len(bytes.TrimSpace(said)) > 0 {
			t.Errorf("systemd-analyze verify %s: %v\n%s", filepath.Base(unit), err, said)
		}
		// 1.3 of 10, where less is better.
		if said, err := exec.Command(analyze, "security", "--offline=yes", "--threshold=13", unit).CombinedOutput(); err != nil {
			t.Errorf("systemd-analyze security %s: %v\n%s", filepath.Base(unit), err, said)
		}
	}
}

// unit reads the command and the variables of a unit.
func unit(tb testing.TB, name, instance string) (command []string, env []string) {
	tb.Helper()
	text := strings.ReplaceAll(deployed(tb)["systemd/"+name], "%i", instance)
	for line := range strings.Lines(text) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		switch key {
		case "ExecStart":
			command = strings.Fields(value)
		case "Environment":
			env = append(env, value)
		}
	}
	if len(command) == 0 {
		tb.Fatalf("%s starts nothing", name)
	}
	return command, env
}

// Services started as their units say tell the service manager when they are
// ready, that they are alive, and when they stop.
func TestServicesTellTheServiceManager(t *testing.T) {
	t.Parallel()
	s := newSystem(t, "QUEUE_DEBUG_JOBS=true")
	for _, c := range []struct{ unit, port string }{{"postroom-apiserver.service", "APP_PORT=0"}, {"postroom-queuerunner@.service", "QUEUE_HTTP_ADDR=127.0.0.1:0"}} {
		socket := filepath.Join(shortDir(t), "notify")
		conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		command, _ := unit(t, c.unit, "1")
		one := *s
		one.env = append(slices.Clone(s.env), "NOTIFY_SOCKET="+socket, "WATCHDOG_USEC=200000", c.port)
		p := one.start(filepath.Base(command[0]), command[1:]...)
		var heard []string
		until := func(what string) {
			t.Helper()
			conn.SetReadDeadline(time.Now().Add(time.Minute))
			for {
				buf := make([]byte, 1<<10)
				n, err := conn.Read(buf)
				if err != nil {
					t.Fatalf("%s: waiting for %s: %v after %q", c.unit, what, err, heard)
				}
				heard = append(heard, string(buf[:n]))
				if strings.HasPrefix(heard[len(heard)-1], what) {
					return
				}
			}
		}
		until("READY=1")
		if heard[0] != "STATUS=waiting for the database" {
			t.Errorf("%s said %q first", c.unit, heard[0])
		}
		p.log.await(t, map[bool]string{true: serverListens, false: runnerWorks}[c.port == "APP_PORT=0"])
		until("WATCHDOG=1")
		until("WATCHDOG=1")
		if code := p.stop(); code != 0 {
			t.Errorf("%s ended with %d", c.unit, code)
		}
		until("STOPPING=1")
	}
}

// shortDir is a folder for sockets, whose paths have to be short.
func shortDir(tb testing.TB) string {
	tb.Helper()
	dir, err := os.MkdirTemp("", "p") //nolint:usetesting // the path of t.TempDir may be too long
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}
