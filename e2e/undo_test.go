package e2e

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/postroom/postroom/core/libsql"
)

// kills is how often the services are killed; POSTROOM_E2E_KILLS says more.
func kills(t *testing.T) int {
	t.Helper()
	if n, err := strconv.Atoi(os.Getenv("POSTROOM_E2E_KILLS")); err == nil {
		return n
	}
	return 12
}

// rulesOfAllKinds are rules whose actions between them change everything that
// an action can change.
var rulesOfAllKinds = []string{
	`{"name":"archive","priority":1,"conditions":{"op":"subject_regex","value":"[05]$"},"action_type":"archive"}`,
	`{"name":"move","priority":2,"conditions":{"op":"subject_regex","value":"1$"},"action_type":"move","action_parameters":{"folder":"Lists/Some"}}`,
	`{"name":"trash","priority":3,"conditions":{"op":"subject_regex","value":"2$"},"action_type":"trash"}`,
	`{"name":"read","priority":4,"conditions":{"op":"subject_regex","value":"3$"},"action_type":"mark_read"}`,
	`{"name":"unread","priority":5,"conditions":{"op":"subject_regex","value":"4$"},"action_type":"mark_unread"}`,
	`{"name":"star","priority":6,"conditions":{"op":"subject_regex","value":"6$"},"action_type":"star"}`,
	`{"name":"unstar","priority":7,"conditions":{"op":"subject_regex","value":"7$"},"action_type":"unstar"}`,
	`{"name":"snooze","priority":8,"conditions":{"op":"subject_regex","value":"8$"},"action_type":"snooze","action_parameters":{"for":"24h"}}`,
	`{"name":"label","priority":9,"conditions":{"op":"subject_regex","value":"9$"},"action_type":"apply_label","action_parameters":{"label":"nine"}}`,
}

// lay puts messages into the Maildir as other programs leave them: in new/ and
// cur/, with flags in and out of order.
func (s *system) lay(mails [][]byte) {
	s.Helper()
	for _, dir := range []string{"tmp", "new", "cur"} {
		if err := os.MkdirAll(filepath.Join(s.maildir(), dir), 0o700); err != nil {
			s.Fatal(err)
		}
	}
	endings := []string{"", ":2,", ":2,S", ":2,F", ":2,SF", ":2,RaS"}
	for i, raw := range mails {
		name := fmt.Sprintf("%d.M%dP7.host%s", firstNumber+i, i, endings[i%len(endings)])
		dir := "cur"
		if i%7 == 0 {
			dir, name = "new", fmt.Sprintf("%d.M%dP7.host", firstNumber+i, i)
		}
		if err := os.WriteFile(filepath.Join(s.maildir(), dir, name), raw, 0o600); err != nil {
			s.Fatal(err)
		}
	}
}

// numbered is n of the real messages, each with a subject that a rule matches;
// POSTROOM_E2E_MAILS says how many instead. If there are not as many, they come
// again under other numbers.
func (s *system) numbered(n int) [][]byte {
	s.Helper()
	mails := messages(s)
	if os.Getenv("POSTROOM_E2E_MAILS") != "" {
		n = many(s)
	} else {
		n = min(n, len(mails))
	}
	s.patience *= time.Duration(1 + n/1000)
	out := make([][]byte, n)
	for i := range out {
		out[i] = append(fmt.Appendf(nil, "X-Number: %d\nSubject: number %d\n", i, i), mails[i%len(mails)]...)
	}
	return out
}

// killer kills the runner and the apiserver at random moments until it has
// done so n times.
func (s *system) killer(n int, api, runner **process, swap *sync.RWMutex) {
	s.Helper()
	seed := uint64(time.Now().UnixNano()) //nolint:gosec // a seed
	s.Logf("the kills' seed is %d", seed)
	random := rand.New(rand.NewPCG(seed, 0)) //nolint:gosec // moments
	for range n {
		timer := time.NewTimer(time.Duration(50+random.IntN(700)) * time.Millisecond)
		<-timer.C
		swap.Lock()
		if random.IntN(3) == 0 {
			(*api).kill()
			*api = s.revive("apiserver", serverListens)
			(*api).reach((*api).log.await(s, serverListens))
		} else {
			(*runner).kill()
			*runner = s.revive("queuerunner", runnerWorks)
		}
		swap.Unlock()
	}
}

// revive starts a service as a supervisor does: again, when it ends before it
// is ready because the disk is full.
func (s *system) revive(name, ready string) *process {
	s.Helper()
	for {
		p := s.start(name)
		if p.log.awaitUnless(s, ready, p.done) != "" {
			return p
		}
		if out := p.log.String(); !strings.Contains(out, "full") && !strings.Contains(out, "no space") {
			s.Fatalf("%s ended and does not say that the disk is full:\n%s", name, out)
		}
	}
}

// All mail in, rules of all kinds over it, and all of it undone, while both
// services are killed at random and another program moves and flags every third
// message: the others are where they were, byte for byte and flag for flag, as
// a script sees it that knows nothing of Postroom; of those that were moved
// none is lost, doubled or changed.
func TestUndoOfAllPutsEverythingBackWhateverIsKilled(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	mails := s.numbered(300)
	s.lay(mails)
	before := s.sums()
	api := s.server()
	for _, rule := range rulesOfAllKinds {
		if r := api.postJSON("/v1/rules", rule); r.status != http.StatusCreated {
			t.Fatalf("rule: %d %s", r.status, r.body)
		}
	}
	api.account()
	runner := s.runner()
	db := s.open()
	n := int64(len(mails))

	stop := s.mover(func(i int) bool { return i%3 == 0 })
	var swap sync.RWMutex
	var killing sync.WaitGroup
	killing.Go(func() { s.killer(kills(t)/2, &api, &runner, &swap) })
	s.until("everything is done", func() bool {
		return s.count(db, "SELECT count(*) FROM decisions") == n && s.count(db, "SELECT count(*) FROM actions WHERE status IN ('queued', 'executing') AND not_before IS NULL") == 0
	})
	killing.Wait()
	// What another program did at the moment of a crash stands.
	const touched = "message_id IN (SELECT id FROM messages WHERE CAST(substr(provider_message_id, 1, 10) AS INTEGER) % 3 = 1700000000 % 3)"
	unlike := func(status string) int64 {
		return s.count(db, "SELECT count(*) FROM actions WHERE status NOT IN ('completed', iif("+touched+", 'canceled', 'completed')) AND "+status)
	}
	if got := unlike("not_before IS NULL"); got != 0 {
		t.Errorf("%d actions are not completed", got)
	}
	if s.sums() == before {
		t.Fatal("nothing was changed")
	}

	killing.Go(func() { s.killer(kills(t)-kills(t)/2, &api, &runner, &swap) })
	for _, row := range s.rows(db, "SELECT CAST(id AS BLOB) FROM actions WHERE status = 'completed' ORDER BY id DESC") {
		id := row.Str(0)
		s.until("the undo is taken", func() bool {
			swap.RLock()
			defer swap.RUnlock()
			r, err := api.try("POST", "/v1/actions/"+id+"/undo", "", nil)
			if err == nil && r.status != http.StatusAccepted && r.status != http.StatusOK {
				t.Fatalf("undo: %d %s", r.status, r.body)
			}
			return err == nil
		})
	}
	killing.Wait()
	// A snooze whose undo was called off, because the other program moved the
	// message, goes on: its wake waits for its time.
	s.until("everything is undone", func() bool {
		return s.count(db, `SELECT count(*) FROM actions AS a WHERE status IN ('queued', 'executing') AND NOT EXISTS (
			SELECT 1 FROM actions AS u WHERE u.message_id = a.message_id AND u.action_type = 'undo' AND u.status = 'canceled' AND u.parameters_json->>'action_id' = a.parameters_json->>'snooze_id')`) == 0
	})
	stop()
	if got := unlike("action_type = 'undo'"); got != 0 {
		t.Errorf("%d undos are not completed", got)
	}
	after := s.sums()
	if others(after) != others(before) {
		t.Errorf("what nobody else touched is not as it was:\n%s", difference(others(before), others(after)))
	}
	if contents(after) != contents(before) {
		t.Errorf("messages are lost, doubled or changed:\n%s", difference(contents(before), contents(after)))
	}
	if got := s.count(db, "SELECT count(*) FROM messages WHERE labels_json <> '[]'"); got != 0 {
		t.Errorf("%d messages still have labels", got)
	}
	if got := s.count(db, "SELECT count(*) FROM actions AS a WHERE a.action_type <> 'undo' AND a.status = 'completed' AND NOT EXISTS (SELECT 1 FROM action_links AS l WHERE l.cause_action_id = a.id AND l.relation_type = 'undo_of')"); got != 0 {
		t.Errorf("%d actions have no undo", got)
	}
	s.spentNothing(db)
	s.figures(db)
	s.verified()
}

// figures says how much has happened.
func (s *system) figures(db libsql.DB) {
	s.Helper()
	s.Logf("%d messages", s.count(db, "SELECT count(*) FROM messages"))
	for _, row := range s.rows(db, "SELECT CAST(iif(action_type = 'undo', 'undos', 'actions') AS BLOB), CAST(status AS BLOB), count(*) FROM actions GROUP BY 1, 2") {
		s.Logf("%s %s: %d", row.Str(0), row.Str(1), row.Int(2))
	}
}

// spentNothing checks that no job has spent an attempt: neither a kill nor an
// outage is its fault.
func (s *system) spentNothing(db libsql.DB) {
	s.Helper()
	for _, row := range s.rows(db, "SELECT CAST(type AS BLOB), failures, CAST(coalesce(last_error, '') AS BLOB) FROM jobs WHERE failures > 0") {
		s.Errorf("a job %s spent %d attempts: %s", row.Str(0), row.Int(1), row.Str(2))
	}
}

// sums is what scripts/mailsum says about the Maildir.
func (s *system) sums() string {
	s.Helper()
	out, err := exec.Command(filepath.Join("..", "scripts", "mailsum"), s.maildir()).Output()
	if err != nil {
		s.Fatal(err)
	}
	return string(out)
}

// others are the lines of messages that the other program left alone: each
// name begins with a number.
func others(sums string) string {
	var out strings.Builder
	for line := range strings.Lines(sums) {
		if numberOf(line[strings.LastIndexByte(line, '/')+1:])%3 != 0 {
			out.WriteString(line)
		}
	}
	return out.String()
}

// numberOf is which of the messages laid a file is.
func numberOf(name string) int {
	n, _ := strconv.Atoi(name[:min(len(name), 10)]) // all names were made by lay
	return n - firstNumber
}

const firstNumber = 1700000000

// contents are the sums without the paths, in order.
func contents(sums string) string {
	var out []string
	for line := range strings.Lines(sums) {
		sum, _, _ := strings.Cut(line, " ")
		out = append(out, sum)
	}
	slices.Sort(out)
	return strings.Join(out, "\n")
}

// difference is the lines that only one of the two has.
func difference(before, after string) string {
	was, is := strings.Split(before, "\n"), strings.Split(after, "\n")
	var out []string
	for _, line := range was {
		if !slices.Contains(is, line) {
			out = append(out, "- "+line)
		}
	}
	for _, line := range is {
		if !slices.Contains(was, line) {
			out = append(out, "+ "+line)
		}
	}
	return strings.Join(out, "\n")
}

// verified checks that rows and files agree, once the last sync has seen all.
func (s *system) verified() {
	s.Helper()
	s.until("the sync has seen everything", func() bool {
		out, err := s.tool("queuerunner", "verify")
		if err != nil {
			s.Fatalf("verify: %v\n%s", err, out)
		}
		return !strings.Contains(out, "not compared")
	})
}

// mover has another program move and flag files until stop is called.
func (s *system) mover(those func(i int) bool) (stop func()) {
	s.Helper()
	for _, dir := range []string{".Other/cur", ".Other/new", ".Archive/cur", "cur"} {
		if err := os.MkdirAll(filepath.Join(s.maildir(), dir), 0o700); err != nil {
			s.Fatal(err)
		}
	}
	quit := make(chan struct{})
	var working sync.WaitGroup
	working.Go(func() {
		random := rand.New(rand.NewPCG(7, 7)) //nolint:gosec // moves
		for {
			select {
			case <-quit:
				return
			default:
				s.moveOne(random, those)
			}
		}
	})
	return sync.OnceFunc(func() { close(quit); working.Wait() })
}

// Another program moves and flags the files while rules act on them and the
// runner is killed: no message is lost, none doubled, none changed.
func TestAnotherProgramAtWorkLosesAndDoublesNothing(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	mails := s.numbered(200)
	s.lay(mails)
	before := s.sums()
	api := s.server()
	for _, rule := range rulesOfAllKinds {
		if r := api.postJSON("/v1/rules", rule); r.status != http.StatusCreated {
			t.Fatalf("rule: %d %s", r.status, r.body)
		}
	}
	api.account()
	runner := s.runner()
	db := s.open()
	n := int64(len(mails))

	stop := s.mover(func(int) bool { return true })
	defer stop()
	var swap sync.RWMutex
	s.killer(kills(t)/2, &api, &runner, &swap)
	s.until("everything is done", func() bool {
		return s.count(db, "SELECT count(*) FROM decisions") == n && s.count(db, "SELECT count(*) FROM actions WHERE status IN ('queued', 'executing') AND not_before IS NULL") == 0
	})
	stop()

	if after := s.sums(); contents(after) != contents(before) {
		t.Errorf("messages are lost, doubled or changed:\n%s", difference(contents(before), contents(after)))
	}
	if stored := s.count(db, "SELECT count(*) FROM messages"); stored != n {
		t.Errorf("%d messages are stored, want %d", stored, n)
	}
	if failed := s.count(db, "SELECT count(*) FROM actions WHERE status = 'failed'"); failed != 0 {
		t.Errorf("%d actions failed", failed)
	}
	s.spentNothing(db)
	s.figures(db)
	s.verified()
}

// moveOne gives one file another folder or other flags, as a mail program
// does: by a rename, never over another file.
func (s *system) moveOne(random *rand.Rand, those func(i int) bool) {
	dirs, err := filepath.Glob(filepath.Join(s.maildir(), ".*/cur"))
	if err != nil {
		return
	}
	dirs = append(dirs, filepath.Join(s.maildir(), "cur"))
	from := dirs[random.IntN(len(dirs))]
	entries, err := os.ReadDir(from)
	if err != nil || len(entries) == 0 {
		return
	}
	name := entries[random.IntN(len(entries))].Name()
	if !those(numberOf(name)) {
		return
	}
	unique, _, _ := strings.Cut(name, ":")
	flags := []string{":2,", ":2,S", ":2,RS", ":2,F", ":2,T"}[random.IntN(5)]
	to := filepath.Join(dirs[random.IntN(len(dirs))], unique+flags)
	if _, err := os.Lstat(to); err == nil {
		return
	}
	_ = os.Rename(filepath.Join(from, name), to) // the file may have moved meanwhile
}
