package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// server is one that the benchmark started for itself, in a folder of its own
// and on a socket in it.
type server struct {
	version string
	// fresh makes an empty database and returns its URL and what removes it.
	fresh func(ctx context.Context) (url string, drop func(), err error)
	stop  func()
}

// startupBound is how long a server may take to answer.
const startupBound = time.Minute

// startPostgres starts a PostgreSQL server with its own defaults. It refuses
// to run as root, so then it runs as another user. What wrap holds goes before
// the server's command.
func startPostgres(ctx context.Context, dir string, wrap []string) (*server, error) {
	bin, err := postgresBin()
	if err != nil {
		return nil, err
	}
	as, err := unprivileged(dir)
	if err != nil {
		return nil, err
	}
	command := func(ctx context.Context, name string, args ...string) *exec.Cmd {
		cmd := exec.CommandContext(ctx, filepath.Join(bin, name), args...)
		cmd.Dir, cmd.SysProcAttr = dir, &syscall.SysProcAttr{Credential: as}
		return cmd
	}
	data := filepath.Join(dir, "data")
	if out, err := command(ctx, "initdb", "-D", data, "-U", "bench", "-A", "trust", "-E", "UTF8", "--no-locale").CombinedOutput(); err != nil {
		return nil, fmt.Errorf("initdb: %w: %s", err, out)
	}
	version, err := command(ctx, "postgres", "--version").Output()
	if err != nil {
		return nil, fmt.Errorf("postgres: %w", err)
	}
	args := slices.Concat(wrap, []string{filepath.Join(bin, "postgres"), "-D", data, "-k", dir, "-c", "listen_addresses="})
	stop, err := startServer(ctx, args, dir, "unix", filepath.Join(dir, ".s.PGSQL.5432"), as, syscall.SIGINT)
	if err != nil {
		return nil, err
	}
	run := func(ctx context.Context, name string, args ...string) error {
		if out, err := command(ctx, name, append(args, "-h", dir, "-U", "bench")...).CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w: %s", name, err, out)
		}
		return nil
	}
	if err := until(ctx, func() error { return run(ctx, "pg_isready", "-d", "postgres") }); err != nil {
		stop()
		return nil, err
	}
	n := 0
	return &server{
		version: strings.TrimSpace(string(version)),
		stop:    stop,
		fresh: func(ctx context.Context) (string, func(), error) {
			n++
			name := "bench" + strconv.Itoa(n)
			drop := func() { _ = run(context.WithoutCancel(ctx), "dropdb", "--force", name) } // the server goes soon
			return fmt.Sprintf("postgres:///%s?host=%s&user=bench", name, dir), drop, run(ctx, "createdb", name)
		},
	}, nil
}

// postgresBin finds the newest PostgreSQL: Debian keeps its programs off the
// path.
func postgresBin() (string, error) {
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if err != nil {
		return "", err
	}
	slices.SortFunc(found, func(a, b string) int { return major(a) - major(b) })
	if len(found) > 0 {
		return filepath.Dir(found[len(found)-1]), nil
	}
	path, err := exec.LookPath("initdb")
	return filepath.Dir(path), err
}

func major(path string) int {
	n, _ := strconv.Atoi(filepath.Base(filepath.Dir(filepath.Dir(path)))) // 0 for what is no version
	return n
}

// unprivileged makes the folder and, for root, gives it to the user that the
// server shall run as.
func unprivileged(dir string) (*syscall.Credential, error) {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	if os.Getuid() != 0 {
		return nil, nil
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		if u, err = user.Lookup("nobody"); err != nil {
			return nil, err
		}
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return nil, err
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	if err != nil {
		return nil, err
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, os.Chown(dir, int(uid), int(gid))
}

// startRedis starts a Redis server that syncs its append-only file before it
// answers.
func startRedis(ctx context.Context, dir string, wrap []string) (*server, error) {
	bin, err := exec.LookPath("redis-server")
	if err != nil {
		return nil, err
	}
	cli, err := exec.LookPath("redis-cli")
	if err != nil {
		return nil, err
	}
	version, err := exec.CommandContext(ctx, bin, "--version").Output()
	if err != nil {
		return nil, fmt.Errorf("redis-server: %w", err)
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	socket := filepath.Join(dir, "redis.sock")
	args := slices.Concat(wrap, []string{bin, "--port", "0", "--unixsocket", socket, "--dir", dir,
		"--appendonly", "yes", "--appendfsync", "always", "--save", ""})
	stop, err := startServer(ctx, args, dir, "unix", socket, nil, syscall.SIGTERM)
	if err != nil {
		return nil, err
	}
	words := strings.Fields(string(version)) // Redis server v=7.0.15 …
	return &server{
		version: "Redis " + strings.TrimPrefix(words[min(2, len(words)-1)], "v="),
		stop:    stop,
		fresh: func(ctx context.Context) (string, func(), error) {
			out, err := exec.CommandContext(ctx, cli, "-s", socket, "flushall").CombinedOutput()
			if err != nil {
				err = fmt.Errorf("redis-cli: %w: %s", err, out)
			}
			return "redis-socket://" + socket, func() {}, err
		},
	}, nil
}

// startSqld finds a libsql server, which each database is a new start of, and
// whose addresses are free ports of this machine. Its URL comes with that of
// its admin API.
func startSqld(ctx context.Context, dir string, wrap []string) (*server, error) {
	bin, err := exec.LookPath("sqld")
	if err != nil {
		if bin, err = filepath.Abs("../.cache/sqld/sqld"); err != nil { // where make setup puts it
			return nil, err
		}
	}
	version, err := exec.CommandContext(ctx, bin, "--version").Output()
	if err != nil {
		return nil, fmt.Errorf("sqld: %w", err)
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	n := 0
	return &server{
		version: strings.Join(strings.Fields(string(version))[:2], " "), // sqld 0.24.32 (…)
		stop:    func() {},
		fresh: func(ctx context.Context) (string, func(), error) {
			n++
			at := filepath.Join(dir, strconv.Itoa(n))
			if err := os.Mkdir(at, 0o700); err != nil {
				return "", nil, err
			}
			http, err := freeAddress(ctx)
			if err != nil {
				return "", nil, err
			}
			admin, err := freeAddress(ctx)
			if err != nil {
				return "", nil, err
			}
			args := slices.Concat(wrap, []string{bin, "--no-welcome", "--db-path", filepath.Join(at, "data"), "--http-listen-addr", http,
				"--admin-listen-addr", admin, "--max-concurrent-connections", "2", "--connection-creation-timeout-sec", "10"})
			stop, err := startServer(ctx, args, at, "tcp", http, nil, syscall.SIGTERM)
			if err != nil {
				return "", nil, err
			}
			return "http://" + http + " http://" + admin, stop, nil
		},
	}, nil
}

// freeAddress is one of this machine that nobody listens on.
func freeAddress(ctx context.Context) (string, error) {
	var l net.ListenConfig
	listener, err := l.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return listener.Addr().String(), listener.Close()
}

// startServer starts a server in a process group of its own, so that an
// interrupt from the terminal ends the measurement first, and waits until it
// listens. stop tells the group to end and waits for it.
func startServer(ctx context.Context, args []string, dir, network, address string, as *syscall.Credential, sig syscall.Signal) (stop func(), err error) {
	cmd := exec.CommandContext(context.WithoutCancel(ctx), args[0], args[1:]...)
	cmd.Dir = dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: as, Setpgid: true}
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait() // how it ends does not matter
		close(ended)
	}()
	stop = func() {
		_ = syscall.Kill(-cmd.Process.Pid, sig)
		select {
		case <-ended:
		case <-time.After(startupBound):
			_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
			<-ended
		}
	}
	var d net.Dialer
	err = until(ctx, func() error {
		c, err := d.DialContext(ctx, network, address)
		if err != nil {
			return err
		}
		return c.Close()
	})
	if err != nil {
		stop()
		return nil, fmt.Errorf("%s: %w: %s", args[0], err, &output)
	}
	return stop, nil
}

// until repeats a call until it succeeds, within the bound.
func until(ctx context.Context, call func() error) error {
	ctx, cancel := context.WithTimeout(ctx, startupBound)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := call()
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		}
	}
}
