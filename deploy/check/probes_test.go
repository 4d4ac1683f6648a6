package check

import (
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Both services, started with the variables of their pod, answer its probes
// where the kubelet sends them, under the pod's own address.
func TestTheServicesAnswerTheirProbes(t *testing.T) {
	t.Parallel()
	c := build(t, "single")
	n := 1<<16 + rand.IntN(1<<24-1<<17) // an address of this machine that nobody else uses
	host := net.IPv4(127, byte(n>>16), byte(n>>8), byte(n)).String()
	dir := t.TempDir()
	for _, container := range c.workloads["postroom"].pod.Spec.Containers {
		program := filepath.Join(dir, container.Name)
		compile := exec.CommandContext(t.Context(), "go", "build", "-o", program, ".")
		compile.Dir = "../../" + container.Name
		if said, err := compile.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, said)
		}
		cmd := exec.CommandContext(t.Context(), program)
		cmd.Dir = dir
		for name, value := range c.environment(t, container.Name, container) {
			value = strings.Replace(value, "0.0.0.0", host, 1)
			cmd.Env = append(cmd.Env, name+"="+strings.Replace(value, "/var/lib/postroom", dir, 1))
		}
		log, err := os.Create(program + ".log")
		if err != nil {
			t.Fatal(err)
		}
		cmd.Stderr = log
		cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		ended := make(chan struct{})
		go func() { defer close(ended); _ = cmd.Wait() }() // it is stopped
		t.Cleanup(func() {                                 // after the context has ended
			<-ended
			if code := cmd.ProcessState.ExitCode(); code != 0 {
				text, _ := os.ReadFile(log.Name())
				t.Errorf("%s ended with %d:\n%s", container.Name, code, text)
			}
		})
		for _, probe := range []string{container.StartupProbe.HTTPGet.Path, container.LivenessProbe.HTTPGet.Path, container.ReadinessProbe.HTTPGet.Path} {
			url := fmt.Sprintf("http://%s:%d%s", host, container.Ports[0].ContainerPort, probe)
			if !answers(t, url, ended) {
				text, _ := os.ReadFile(log.Name())
				t.Errorf("%s is not answered:\n%s", url, text)
			}
		}
	}
}

// answers waits until the address is answered with 200 to a caller that names
// the pod's address, as long as the program runs.
func answers(t *testing.T, url string, ended <-chan struct{}) bool {
	t.Helper()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 10 * time.Second}
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for limit := time.After(time.Minute); ; {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Host = "10.1.2.3"
		if res, err := client.Do(req); err == nil {
			_ = res.Body.Close() // nothing was written
			if res.StatusCode == http.StatusOK {
				return true
			}
		}
		select {
		case <-tick.C:
		case <-ended:
			return false
		case <-limit:
			return false
		}
	}
}
