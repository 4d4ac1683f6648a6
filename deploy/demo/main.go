// Command demo is what `make run` starts: it runs both services on a folder of
// data, lays a small mailbox out on the first start, and prints what happened
// to each message as it happens. It talks to the services as any client does,
// over HTTP and through the Maildir, and imports the standard library and
// deploy/internal/child only.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"
	"time"

	"github.com/postroom/postroom/deploy/internal/child"
)

// Exit codes.
const (
	exitFine   = 0
	exitFailed = 1
	exitWrong  = 2 // wrong use or configuration
)

const usage = `Usage: demo [-data FOLDER] [-bin FOLDER]

Starts queuerunner and apiserver on a folder of data and stays up until Ctrl-C.
The first start creates an account with a Maildir, a few rules and a small
mailbox; from then on what happens to each message is printed as it happens.

  -data FOLDER  where database, Maildir and logs are kept (default "data");
                nothing outside it is touched
  -bin FOLDER   where the binaries apiserver and queuerunner are (default "bin")

Both services take their configuration from the environment and the file that
CONFIG_PATH names, except for the database, which is FOLDER/postroom.db. The
demo calls the API with the token in API_TOKEN, if there is one.

Exit codes: 0 stopped by Ctrl-C, 1 failed, 2 wrong use or configuration.
`

// readyWithin is how long a start may take, migrations included.
const readyWithin = 30 * time.Second

func main() {
	// The services are tied to the life of the thread that starts them, and
	// this keeps it: see child.Attributes.
	runtime.LockOSThread()
	// A reader of our output that goes away must stop the services too, so a
	// write to it has to be an error instead of the end of the process.
	signal.Ignore(syscall.SIGPIPE)
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	os.Exit(run(os.Args[1:], os.LookupEnv, os.Environ(), signals, os.Stdout, os.Stderr))
}

// errAsked is the cause of an end that somebody asked for.
var errAsked = errors.New("asked to stop")

// wrong is an error in how the demo is used or configured.
type wrong struct{ error }

// run is the whole program. It returns the exit code.
func run(args []string, lookup func(string) (string, bool), environ []string, signals <-chan os.Signal, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("demo", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	data := flags.String("data", "data", "")
	bin := flags.String("bin", "bin", "")
	err := flags.Parse(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		_, _ = io.WriteString(stdout, usage) // nowhere left to report it
		return exitFine
	case err == nil && flags.NArg() > 0:
		err = fmt.Errorf("unexpected argument %q", flags.Arg(0))
	case err == nil && (*data == "" || *bin == ""):
		err = errors.New("-data and -bin need a folder")
	}
	if err != nil {
		_, _ = fmt.Fprintf(stderr, "demo: %v\n\n%s", err, usage)
		return exitWrong
	}

	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	go func() {
		select {
		case <-signals:
			cancel(errAsked)
		case <-ctx.Done():
		}
	}()
	out := &console{w: stdout, width: func() int { return columns(stdout, lookup) }, broken: cancel}
	d := &demo{data: *data, bin: *bin, lookup: lookup, environ: environ, out: out, cancel: cancel, started: time.Now()}
	err = d.serve(ctx)
	cancel(err)
	clean := d.stop(signals)
	if errors.Is(err, errAsked) {
		if !clean {
			return exitFailed
		}
		return exitFine
	}
	_, _ = fmt.Fprintf(stderr, "demo: %v\n", err)
	if w := (wrong{}); errors.As(err, &w) {
		return exitWrong
	}
	return exitFailed
}

// demo is one start of the demo.
type demo struct {
	data, bin string // as given
	lookup    func(string) (string, bool)
	environ   []string
	out       *console
	cancel    context.CancelCauseFunc
	started   time.Time

	grace    time.Duration // how long the services may take to stop
	services []*child.Process
}

// serve does everything up to the end, which is always an error: errAsked, or
// what went wrong.
func (d *demo) serve(ctx context.Context) (err error) {
	// Whatever a canceled call reports, the cause is what ended the demo.
	defer func() {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
	}()
	root, err := filepath.Abs(d.data)
	if err != nil {
		return fmt.Errorf("find the folder of data: %w", err)
	}
	if err := os.MkdirAll(filepath.Join(root, "logs"), 0o700); err != nil {
		return fmt.Errorf("make the folders of data: %w", err)
	}
	env := serviceEnvironment(d.environ, filepath.Join(root, "postroom.db"))
	set, err := readSettings(ctx, filepath.Join(d.bin, "queuerunner"), env, d.lookup)
	if err != nil {
		return err
	}
	d.grace = set.grace()
	if err := set.checkPorts(ctx); err != nil {
		return err
	}
	d.out.printf("Starting queuerunner and apiserver on %s\n", d.data)
	for _, name := range []string{"queuerunner", "apiserver"} {
		s, err := child.Start(name, filepath.Join(root, "logs", name+".log"), env, d.cancel, filepath.Join(d.bin, name))
		if err != nil {
			return err
		}
		d.services = append(d.services, s)
	}
	client := newAPI(set.baseURL(), set.token)
	if err := d.waitReady(ctx, client); err != nil {
		return err
	}
	box := mailbox{api: client, root: filepath.Join(root, "Maildir"), marker: filepath.Join(root, markerName)}
	made, err := box.prepare(ctx)
	if err != nil {
		return err
	}
	f := newFollower(client, d.out)
	earlier, err := f.prime(ctx, d.started)
	if err != nil {
		return err
	}
	laid, err := box.layMail()
	if err != nil {
		return err
	}
	look := whereToLook(d.data, set)
	d.out.printf("\n%s\n%s%s\n", look, made.describe(laid), earlier)
	return f.follow(ctx, watchMaildir(box.root), laid, func(summary string) { d.out.printf("\n%s\n\n%s\n", summary, look) })
}

// waitReady returns when the API is ready for traffic.
func (d *demo) waitReady(ctx context.Context, client *api) error {
	limit, cancel := context.WithTimeout(ctx, readyWithin)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		err := client.get(limit, "/readyz", nil)
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-limit.Done():
			text := fmt.Sprintf("the API at %s was not ready within %s (%v)", client.base, readyWithin, err)
			for _, s := range d.services {
				text += s.LastWords()
			}
			return errors.New(text)
		}
	}
}

// stop ends the services; a further signal, or the end of the grace, kills
// them. It tells whether both ended well.
func (d *demo) stop(signals <-chan os.Signal) bool {
	if len(d.services) == 0 {
		return true
	}
	d.out.printf("\nStopping\n")
	for _, s := range d.services {
		s.Terminate()
	}
	limit := time.NewTimer(d.grace)
	defer limit.Stop()
	clean := true
	for _, s := range d.services {
		select {
		case <-s.Done:
		case <-signals:
			d.kill()
		case <-limit.C:
			d.kill()
		}
		<-s.Done
		fate, well := s.Fate()
		clean = clean && well
		d.out.printf("  %-12s %s\n", s.Name, fate)
	}
	return clean
}

func (d *demo) kill() {
	for _, s := range d.services {
		s.Kill()
	}
}
