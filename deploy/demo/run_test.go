package main

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// scripts makes a folder with shell scripts in place of the services.
// queuerunner prints its configuration, with the port given, before its own
// lines are run.
func scripts(t *testing.T, port int, queuerunner, apiserver string) string {
	t.Helper()
	dir := t.TempDir()
	config := strings.NewReplacer("17800", fmt.Sprint(port), "127.0.0.1:17801", "").Replace(printedConfig)
	for name, text := range map[string]string{
		"queuerunner": "if [ \"$1\" = config ]; then cat <<'END'\n" + config + "\nEND\nexit; fi\n" + queuerunner,
		"apiserver":   apiserver,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+text+"\n"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// freePort is a port that was free a moment ago.
func freePort(t *testing.T) int {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().(*net.TCPAddr).Port
}

func runDemo(t *testing.T, signals <-chan os.Signal, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	code = run(args, environment(nil), os.Environ(), signals, &out, &errs)
	return code, out.String(), errs.String()
}

func TestRunUse(t *testing.T) {
	t.Parallel()
	if code, out, errs := runDemo(t, nil, "-h"); code != exitFine || out != usage || errs != "" {
		t.Errorf("-h: %d, %q, %q", code, out, errs)
	}
	for _, args := range [][]string{{"-nope"}, {"more"}, {"-data", ""}} {
		if code, out, errs := runDemo(t, nil, args...); code != exitWrong || out != "" || !strings.Contains(errs, "Usage:") {
			t.Errorf("%v: %d, %q, %q", args, code, out, errs)
		}
	}
}

const (
	lasting = "sleep 60 & trap 'kill $!; exit 0' TERM; wait"
	dying   = "echo starting; echo 'app.port: taken\x1b[0m' >&2; exit 2"
)

func TestRun(t *testing.T) {
	t.Parallel()

	t.Run("binaries that are missing", func(t *testing.T) {
		t.Parallel()
		code, _, errs := runDemo(t, nil, "-data", t.TempDir(), "-bin", t.TempDir())
		if code != exitFailed || !strings.Contains(errs, "make build") {
			t.Errorf("%d, %q", code, errs)
		}
	})

	t.Run("a configuration that is refused", func(t *testing.T) {
		t.Parallel()
		bin := scripts(t, 1, "", "")
		if err := os.WriteFile(filepath.Join(bin, "queuerunner"), []byte("#!/bin/sh\necho 'app.port: too large' >&2; exit 2\n"), 0o700); err != nil {
			t.Fatal(err)
		}
		code, _, errs := runDemo(t, nil, "-data", t.TempDir(), "-bin", bin)
		if code != exitWrong || !strings.Contains(errs, "app.port: too large") {
			t.Errorf("%d, %q", code, errs)
		}
	})

	t.Run("a port that is taken starts nothing", func(t *testing.T) {
		t.Parallel()
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		data := t.TempDir()
		bin := scripts(t, ln.Addr().(*net.TCPAddr).Port, lasting, lasting)
		code, out, errs := runDemo(t, nil, "-data", data, "-bin", bin)
		if code != exitFailed || out != "" || !strings.Contains(errs, "app.port cannot be used") {
			t.Errorf("%d, %q, %q", code, out, errs)
		}
	})

	t.Run("a service that dies is shown and takes the other along", func(t *testing.T) {
		t.Parallel()
		data := t.TempDir()
		code, out, errs := runDemo(t, nil, "-data", data, "-bin", scripts(t, freePort(t), lasting, dying))
		if code != exitFailed || !strings.Contains(errs, "apiserver ended by itself (exit status 2)") ||
			!strings.Contains(errs, "  app.port: taken\uFFFD[0m\n") {
			t.Errorf("%d, %q", code, errs)
		}
		if !strings.Contains(out, "queuerunner  stopped\n") {
			t.Errorf("printed %q", out)
		}
		log, err := os.ReadFile(filepath.Join(data, "logs", "apiserver.log"))
		if err != nil || !strings.HasPrefix(string(log), "starting\n") {
			t.Errorf("the log is %q, %v", log, err)
		}
	})

	t.Run("only the log of this start is shown", func(t *testing.T) {
		t.Parallel()
		data := t.TempDir()
		bin := scripts(t, freePort(t), lasting, dying)
		runDemo(t, nil, "-data", data, "-bin", bin)
		_, _, errs := runDemo(t, nil, "-data", data, "-bin", bin)
		if strings.Count(errs, "starting") != 1 {
			t.Errorf("printed %q", errs)
		}
	})

	t.Run("a signal during the start stops both", func(t *testing.T) {
		t.Parallel()
		signals := make(chan os.Signal, 2)
		bin := scripts(t, freePort(t), lasting, lasting)
		signals <- syscall.SIGINT
		code, _, errs := runDemo(t, signals, "-data", t.TempDir(), "-bin", bin)
		if code != exitFine || errs != "" {
			t.Errorf("%d, %q", code, errs)
		}
	})

	t.Run("a second signal kills a service that does not stop", func(t *testing.T) {
		t.Parallel()
		data := t.TempDir()
		// The script tells by a file that it ignores SIGTERM from here on.
		ready := filepath.Join(t.TempDir(), "ready")
		deaf := "trap '' TERM; : >" + ready + "; while :; do sleep 1; done"
		bin := scripts(t, freePort(t), lasting, deaf)
		signals := make(chan os.Signal, 2)
		go func() {
			tick := time.NewTicker(5 * time.Millisecond)
			defer tick.Stop()
			for range tick.C {
				if _, err := os.Stat(ready); err == nil {
					break
				}
			}
			signals <- syscall.SIGINT
			signals <- syscall.SIGINT
		}()
		code, out, _ := runDemo(t, signals, "-data", data, "-bin", bin)
		if code != exitFailed || !strings.Contains(out, "signal: killed") {
			t.Errorf("%d, %q", code, out)
		}
	})
}
