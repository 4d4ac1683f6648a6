// Command scaled is what `make scaled` starts: a libsql server, two
// apiservers, four queuerunners, HAProxy, a collector and Prometheus on this
// machine, from the files in deploy/, and mail that flows through them. It imports the
// standard library and deploy/internal/child only.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/postroom/postroom/deploy/internal/child"
)

const usage = `Usage: scaled [-data FOLDER] [-bin FOLDER] [-deploy FOLDER] [-sqld FILE] [-collector FILE] [-host ADDRESS]

Starts a libsql server, two apiservers behind HAProxy, four queuerunners, an
OpenTelemetry collector and Prometheus, delivers the demo's mail through
HAProxy on the first start, and stays up until Ctrl-C. haproxy and prometheus
must be installed. The collector passes traces and metrics on to OTLP_ENDPOINT,
if that is set, over HTTP.

`

// How many of each, and where they listen.
const (
	servers, runners                           = 2, 4
	databasePort, adminPort                    = 17870, 17871
	tracesPort, tracesGRPCPort                 = 17875, 17876
	serverPort, runnerPort                     = 17810, 17820 // of the first one
	balancerPort, prometheusPort               = 17880, 17890
	patience, grace              time.Duration = time.Minute, time.Minute
)

func main() {
	runtime.LockOSThread() // the children end with this thread: see child.Attributes
	os.Exit(run(os.Args[1:], os.Environ(), os.Stdout, os.Stderr))
}

// options are the command line.
type options struct{ data, bin, deploy, sqld, collector, host string }

// run is the whole program. It returns the exit code: 0 stopped by Ctrl-C, 1
// failed, 2 wrong use.
func run(args, environ []string, stdout, stderr io.Writer) int {
	var o options
	flags := flag.NewFlagSet("scaled", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() { _, _ = io.WriteString(stderr, usage); flags.PrintDefaults() } // nowhere left to report it
	flags.StringVar(&o.data, "data", "data/scaled", "where database, mail, metrics and logs are kept")
	flags.StringVar(&o.bin, "bin", "bin", "where the services' programs are")
	flags.StringVar(&o.deploy, "deploy", "deploy", "the repository's folder deploy")
	flags.StringVar(&o.sqld, "sqld", ".cache/sqld/sqld", "the libsql server's program")
	flags.StringVar(&o.collector, "collector", ".cache/collector/collector", "the OpenTelemetry collector's program")
	flags.StringVar(&o.host, "host", "127.0.0.1", "the loopback address on which all listen")
	if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		return 0
	} else if err != nil || flags.NArg() > 0 {
		return 2
	}
	asked, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithCancelCause(asked)
	defer cancel(nil)
	s := &setup{options: o, environ: environ, out: stdout, cancel: cancel}
	err := s.start(ctx)
	if err == nil {
		<-ctx.Done()
	}
	wanted := asked.Err() != nil
	stop() // a second Ctrl-C ends it at once, and the kernel its children
	clean := s.stop()
	if !wanted {
		if err == nil {
			err = context.Cause(ctx)
		}
		_, _ = fmt.Fprintf(stderr, "scaled: %v\n", err)
		return 1
	}
	if !clean {
		return 1
	}
	return 0
}

// setup is everything that was started.
type setup struct {
	options
	environ  []string
	out      io.Writer
	cancel   context.CancelCauseFunc
	children []*child.Process // in the order of their start
}

func (s *setup) say(format string, args ...any) {
	_, _ = fmt.Fprintf(s.out, format+"\n", args...) // nowhere left to report it
}

func (s *setup) at(port int) string { return net.JoinHostPort(s.host, fmt.Sprint(port)) }

// start starts everything, each when what it needs is there.
func (s *setup) start(ctx context.Context) error {
	for _, path := range []*string{&s.data, &s.bin, &s.deploy, &s.sqld, &s.collector} {
		var err error
		if *path, err = filepath.Abs(*path); err != nil {
			return fmt.Errorf("find %s: %w", *path, err)
		}
	}
	for _, folder := range []string{"logs", "mail", "prometheus"} {
		if err := os.MkdirAll(filepath.Join(s.data, folder), 0o700); err != nil {
			return fmt.Errorf("make the folders of data: %w", err)
		}
	}
	haproxy, err := program("haproxy")
	if err != nil {
		return err
	}
	prometheus, err := program("prometheus")
	if err != nil {
		return err
	}

	// Two connections at a time: docs/remote.md tells why.
	if err := s.launch("sqld", nil, s.sqld, "--no-welcome", "--db-path", filepath.Join(s.data, "sqld"),
		"--http-listen-addr", s.at(databasePort), "--admin-listen-addr", s.at(adminPort),
		"--max-concurrent-connections", "2", "--connection-creation-timeout-sec", "10"); err != nil {
		return err
	}
	if err := s.await(ctx, "sqld", databasePort, "/health"); err != nil {
		return err
	}
	if err := s.collect(ctx); err != nil {
		return err
	}
	var apiAt, runnersAt []string
	for i := range servers {
		env := []string{"APP_HOST=" + s.host, fmt.Sprintf("APP_PORT=%d", serverPort+i)}
		if err := s.launch(fmt.Sprintf("apiserver-%d", i+1), env, filepath.Join(s.bin, "apiserver")); err != nil {
			return err
		}
		apiAt = append(apiAt, s.at(serverPort+i))
	}
	for i := range runners {
		env := []string{"QUEUE_HTTP_ADDR=" + s.at(runnerPort+i)}
		if err := s.launch(fmt.Sprintf("queuerunner-%d", i+1), env, filepath.Join(s.bin, "queuerunner")); err != nil {
			return err
		}
		runnersAt = append(runnersAt, s.at(runnerPort+i))
	}
	if err := s.launch("haproxy", []string{"API_BIND=" + s.at(balancerPort), "API_ONE=" + apiAt[0], "API_TWO=" + apiAt[1]},
		haproxy, "-db", "-f", filepath.Join(s.deploy, "haproxy", "haproxy.cfg")); err != nil {
		return err
	}
	if err := s.watch(prometheus, apiAt, runnersAt); err != nil {
		return err
	}
	for i := range servers {
		if err := s.await(ctx, fmt.Sprintf("apiserver-%d", i+1), serverPort+i, "/readyz"); err != nil {
			return err
		}
	}
	for i := range runners {
		if err := s.await(ctx, fmt.Sprintf("queuerunner-%d", i+1), runnerPort+i, "/readyz"); err != nil {
			return err
		}
	}
	if err := s.await(ctx, "haproxy", balancerPort, "/readyz"); err != nil {
		return err
	}
	if err := s.await(ctx, "prometheus", prometheusPort, "/-/ready"); err != nil {
		return err
	}
	delivered, err := s.deliver(ctx)
	if err != nil {
		return err
	}
	s.say("All works: %d apiservers, %d queuerunners.", servers, runners)
	if delivered > 0 {
		s.say("%d messages were delivered through HAProxy into %s", delivered, filepath.Join(s.data, "mail"))
	}
	s.say("  API and pages  http://%s/", s.at(balancerPort))
	s.say("  Prometheus     http://%s/", s.at(prometheusPort))
	s.say("  logs           %s", filepath.Join(s.data, "logs"))
	s.say("Ctrl-C stops it.")
	return nil
}

// program finds what a package installs, also where only root's PATH leads.
func program(name string) (string, error) {
	if path, err := exec.LookPath(name); err == nil {
		return path, nil
	}
	if path := "/usr/sbin/" + name; exec.Command(path, "-v").Run() == nil { //nolint:noctx // it prints its version
		return path, nil
	}
	return "", fmt.Errorf("%s is not installed: make setup, or your system's package %s", name, name)
}

// launch starts a program whose environment is ours, with the database, the
// collector and more replaced.
func (s *setup) launch(name string, env []string, path string, args ...string) error {
	env = append(env, "DATABASE_URL=http://"+s.at(databasePort), "DATABASE_ADMIN_URL=http://"+s.at(adminPort),
		"TELEMETRY_OTLP_ENDPOINT=http://"+s.at(tracesPort), "TELEMETRY_OTLP_PROTOCOL=http/protobuf")
	replaced := func(entry string) bool {
		variable, _, _ := strings.Cut(entry, "=")
		return variable == "PATHS_DATABASE" || variable == "OTLP_ENDPOINT" || slices.ContainsFunc(env, func(e string) bool { return strings.HasPrefix(e, variable+"=") })
	}
	all := append(slices.DeleteFunc(slices.Clone(s.environ), replaced), env...)
	p, err := child.Start(name, filepath.Join(s.data, "logs", name+".log"), all, s.cancel, path, args...)
	if err != nil {
		return err
	}
	s.children = append(s.children, p)
	return nil
}

// collect starts the collector as its configuration is shipped, which says on
// its output what came.
func (s *setup) collect(ctx context.Context) error {
	env := []string{"OTLP_HTTP_ADDR=" + s.at(tracesPort), "OTLP_GRPC_ADDR=" + s.at(tracesGRPCPort)}
	args := []string{"--config", filepath.Join(s.deploy, "monitoring", "collector.yml")}
	for _, name := range []string{"TELEMETRY_OTLP_ENDPOINT", "OTLP_ENDPOINT"} {
		if i := slices.IndexFunc(s.environ, func(e string) bool { return strings.HasPrefix(e, name+"=") }); i >= 0 {
			_, endpoint, _ := strings.Cut(s.environ[i], "=")
			env = append(env, "OTLP_FORWARD_TO="+endpoint)
			args = append(args, "--config", filepath.Join(s.deploy, "monitoring", "collector-forward.yml"))
			break
		}
	}
	if err := s.launch("collector", env, s.collector, args...); err != nil {
		return err
	}
	return s.until(ctx, "collector", func(ctx context.Context) error {
		_, err := s.call(ctx, http.MethodPost, tracesPort, "/v1/traces", "application/json", []byte("{}"))
		return err
	})
}

// watch starts Prometheus on the files that are shipped, with our addresses.
func (s *setup) watch(path string, apis, runners []string) error {
	folder := filepath.Join(s.data, "prometheus")
	for from, to := range map[string]string{"scaled.yml": "prometheus.yml", "alerts.yml": "alerts.yml"} {
		text, err := os.ReadFile(filepath.Join(s.deploy, "monitoring", from))
		if err == nil {
			err = os.WriteFile(filepath.Join(folder, to), text, 0o600)
		}
		if err != nil {
			return fmt.Errorf("lay out Prometheus: %w", err)
		}
	}
	for name, targets := range map[string][]string{"apiservers.json": apis, "queuerunners.json": runners} {
		text, err := json.Marshal([]map[string][]string{{"targets": targets}})
		if err == nil {
			err = os.WriteFile(filepath.Join(folder, name), text, 0o600)
		}
		if err != nil {
			return fmt.Errorf("lay out Prometheus: %w", err)
		}
	}
	return s.launch("prometheus", nil, path, "--config.file="+filepath.Join(folder, "prometheus.yml"),
		"--storage.tsdb.path="+filepath.Join(folder, "data"), "--web.listen-address="+s.at(prometheusPort))
}

// client asks this machine, whatever the environment says of proxies.
var client = &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{}}

// await returns when a path is answered with 200.
func (s *setup) await(ctx context.Context, name string, port int, path string) error {
	return s.until(ctx, name, func(ctx context.Context) error {
		_, err := s.call(ctx, http.MethodGet, port, path, "", nil)
		return err
	})
}

// until returns when a program answers as it should.
func (s *setup) until(ctx context.Context, name string, ask func(context.Context) error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, fmt.Errorf("%s was not ready within %v; its log is %s",
		name, patience, filepath.Join(s.data, "logs", name+".log")))
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		if ask(ctx) == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// call makes a request and returns the answer to one that succeeded.
func (s *setup) call(ctx context.Context, method string, port int, path, contentType string, body []byte) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://"+s.at(port)+path, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", method, path, err)
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	res, err := client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", method, path, err)
	}
	defer func() { _ = res.Body.Close() }() // nothing was written
	const most = 1 << 20
	answer, err := io.ReadAll(io.LimitReader(res.Body, most))
	if err == nil && res.StatusCode >= http.StatusMultipleChoices {
		err = fmt.Errorf("%d %.300q", res.StatusCode, answer)
	}
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", method, path, err)
	}
	return answer, nil
}

// insist is call through HAProxy, which is made again while the answer is 503,
// as every caller should: on a machine with much else to do both apiservers may
// be late with an answer to a health check.
func (s *setup) insist(ctx context.Context, method, path, contentType string, body []byte) (answer []byte, err error) {
	late := s.until(ctx, "haproxy", func(ctx context.Context) error {
		if answer, err = s.call(ctx, method, balancerPort, path, contentType, body); err != nil && strings.Contains(err.Error(), ": 503 ") {
			return err
		}
		return nil
	})
	if late != nil {
		return nil, late
	}
	return answer, err
}

// deliver makes the demo's account and rules on the first start and sends its
// mail. A start that broke off is completed by the next: what was delivered
// before is a duplicate.
func (s *setup) deliver(ctx context.Context) (int, error) {
	const done = "delivered"
	if _, err := os.Stat(filepath.Join(s.data, done)); err == nil {
		return 0, nil
	}
	account, err := s.account(ctx)
	if err != nil {
		return 0, err
	}
	files, err := filepath.Glob(filepath.Join(s.deploy, "demo", "mail", "*.eml"))
	if err != nil {
		return 0, fmt.Errorf("find the mail: %w", err)
	}
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			return 0, fmt.Errorf("read the mail: %w", err)
		}
		if _, err := s.insist(ctx, http.MethodPost, "/v1/messages?account="+account, "message/rfc822", raw); err != nil {
			return 0, fmt.Errorf("deliver %s: %w", filepath.Base(file), err)
		}
	}
	if err := os.WriteFile(filepath.Join(s.data, done), nil, 0o600); err != nil {
		return 0, fmt.Errorf("note that the mail was delivered: %w", err)
	}
	return len(files), nil
}

// account returns the demo's account, which it makes, with the rules, where it
// is missing.
func (s *setup) account(ctx context.Context) (string, error) {
	type account struct {
		ID string `json:"id"`
	}
	var list struct {
		Accounts []account `json:"accounts"`
	}
	answer, err := s.insist(ctx, http.MethodGet, "/v1/accounts", "", nil)
	if err == nil {
		err = json.Unmarshal(answer, &list)
	}
	if err != nil {
		return "", fmt.Errorf("look for the account: %w", err)
	}
	if len(list.Accounts) > 0 {
		return list.Accounts[0].ID, nil
	}
	text, err := os.ReadFile(filepath.Join(s.deploy, "demo", "rules.json"))
	var rules []json.RawMessage
	if err == nil {
		err = json.Unmarshal(text, &rules)
	}
	if err != nil {
		return "", fmt.Errorf("read the rules: %w", err)
	}
	for _, rule := range rules {
		if _, err := s.insist(ctx, http.MethodPost, "/v1/rules", "application/json", rule); err != nil && !strings.Contains(err.Error(), ": 409 ") {
			return "", fmt.Errorf("add a rule: %w", err) // 409 is one of a start that broke off
		}
	}
	body, err := json.Marshal(map[string]any{
		"provider": "maildir", "email": "robin@example.org",
		"config": map[string]string{"path": filepath.Join(s.data, "mail")},
	})
	var made account
	if err == nil {
		answer, err = s.insist(ctx, http.MethodPost, "/v1/accounts", "application/json", body)
	}
	if err == nil {
		err = json.Unmarshal(answer, &made)
	}
	if err != nil {
		return "", fmt.Errorf("add the account: %w", err)
	}
	return made.ID, nil
}

// stop ends everything in the order in which callers notice least, the
// database last. It tells whether all ended well.
func (s *setup) stop() bool {
	s.say("Stopping")
	limit := time.NewTimer(grace)
	defer limit.Stop()
	clean := true
	for _, names := range [][]string{{"haproxy", "prometheus"}, {"queuerunner", "apiserver"}, {"sqld", "collector"}} {
		var some []*child.Process
		for _, p := range s.children {
			kind, _, _ := strings.Cut(p.Name, "-")
			if slices.Contains(names, kind) {
				some = append(some, p)
				p.Terminate()
			}
		}
		for _, p := range some {
			select {
			case <-p.Done:
			case <-limit.C:
				s.kill()
			}
			<-p.Done
			fate, well := p.Fate()
			clean = clean && well
			s.say("  %-14s %s", p.Name, fate)
		}
	}
	return clean
}

func (s *setup) kill() {
	for _, p := range s.children {
		p.Kill()
	}
}
