package main

import (
	"strings"
	"testing"

	"github.com/postroom/postroom/core/job"
	"github.com/postroom/postroom/core/queue"
)

func TestQueues(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	db.enqueue("a.type", `1`)
	fine(t, db.path, "limits", "set", "queue", "default", "-max-running", "3")

	if out := fine(t, db.path, "queues", "pause", "default"); out != "queue default is paused\n" {
		t.Error(out)
	}
	out := fine(t, db.path, "queues", "list")
	if lines := strings.Split(out, "\n"); len(lines) != 3 || !strings.HasPrefix(lines[0], "QUEUE    PAUSED  AT MOST  QUEUED") || !strings.HasPrefix(lines[1], "default  yes     3        1       0 ") {
		t.Error(out)
	}
	l := decode[queueList](t, fine(t, db.path, "queues", "list", "-json"))
	if len(l.Queues) != 1 || !l.Queues[0].Paused || *l.Queues[0].MaxRunning != 3 || l.Queues[0].Depth[job.Queued] != 1 {
		t.Errorf("%+v", l)
	}
	if out := fine(t, db.path, "queues", "resume", "default"); out != "queue default is not paused\n" {
		t.Error(out)
	}
	if d := decode[queue.Depth](t, fine(t, db.path, "queues", "pause", "later", "-json")); d.Name != "later" || !d.Paused || d.MaxRunning != nil {
		t.Errorf("%+v", d)
	}
	if r := cli(t, db.path, "queues", "pause", "a\nb"); r.code != exitWrong || !strings.Contains(r.err, "NAME: contains a control character") {
		t.Errorf("%+v", r)
	}
}

func TestLimits(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	for _, s := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"set", "key", "*", "-max-running", "2", "-interval", "1m30s"}, exitFine, "each key without a limit of its own: at most 2 at once, starts 1m30s apart\n"},
		{[]string{"set", "-max-running", "0", "queue", "mail"}, exitFine, "queue mail: at most 0 at once\n"},
		{[]string{"set", "key", "a b", "-interval", "250ms", "-json"}, exitFine, `{"scope":"key","name":"a b","max_running":null,"interval":"250ms","running":0}` + "\n"},
		{[]string{"set", "key", "k"}, exitWrong, "-max-running: is required where there is no interval"},
		{[]string{"set", "queue", "q", "-interval", "1s", "-max-running", "1"}, exitWrong, "-interval: goes with the scope key only"},
		{[]string{"set", "account", "a", "-max-running", "1"}, exitWrong, "SCOPE: must be queue, type or key"},
		{[]string{"set", "type", "", "-max-running", "1"}, exitWrong, "NAME: is required"},
		{[]string{"drop", "key", "k"}, exitFailed, "no such limit"},
		{[]string{"list"}, exitFine, "SCOPE  NAME  AT MOST  APART  RUNNING\nkey    *     2        1m30s  0\nkey    a b   -        250ms  0\nqueue  mail  0        -      0\n"},
		{[]string{"drop", "key", "a b"}, exitFine, "key a b has no limit any more\n"},
		{[]string{"list", "-limit", "1"}, exitFine, `there are more: -cursor "key *"`},
	} {
		r := cli(t, db.path, append([]string{"limits"}, s.args...)...)
		if r.code != s.code || !strings.Contains(r.out+r.err, s.want) {
			t.Errorf("%v: %+v, want %q", s.args, r, s.want)
		}
	}
	type page struct {
		Limits []struct{ Name string }
		Next   *string `json:"next_cursor"`
	}
	if p := decode[page](t, fine(t, db.path, "limits", "list", "-json", "-cursor", "key *")); len(p.Limits) != 1 || p.Limits[0].Name != "mail" || p.Next != nil {
		t.Errorf("%+v", p)
	}
}
