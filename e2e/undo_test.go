package e2e

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
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
func (s *system) lay(mails [][]byte) map[string][]byte {
	s.Helper()
	for _, dir := range []string{"tmp", "new", "cur"} {
		if err := os.MkdirAll(filepath.Join(s.maildir(), dir), 0o700); err != nil {
			s.Fatal(err)
		}
	}
	endings := []string{"", ":2,", ":2,S", ":2,F", ":2,SF", ":2,RaS"}
	for i, raw := range mails {
		name := fmt.Sprintf("%d.M%dP7.host%s", 1700000000+i, i, endings[i%len(endings)])
		dir := "cur"
		if i%7 == 0 {
			dir, name = "new", fmt.Sprintf("%d.M%dP7.host", 1700000000+i, i)
		}
		if err := os.WriteFile(filepath.Join(s.maildir(), dir, name), raw, 0o600); err != nil {
			s.Fatal(err)
		}
	}
	return s.files()
}

// numbered gives each of the real messages a subject that a rule matches.
func numbered(mails [][]byte) [][]byte {
	out := make([][]byte, len(mails))
	for i, raw := range mails {
		out[i] = append(fmt.Appendf(nil, "X-Number: %d\nSubject: number %d\n", i, i), raw...)
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
			*api = s.server()
		} else {
			(*runner).kill()
			*runner = s.runner()
		}
		swap.Unlock()
	}
}

// All mail in, rules of all kinds over it, and all of it undone, while both
// services are killed at random: the Maildir is as it was, byte for byte and
// flag for flag.
func TestUndoOfAllPutsEverythingBackWhateverIsKilled(t *testing.T) {
	t.Parallel()
	mails := numbered(messages(t))
	if len(mails) > 300 {
		mails = mails[:300]
	}
	s := newSystem(t)
	before := s.lay(mails)
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

	var swap sync.RWMutex
	var killing sync.WaitGroup
	killing.Go(func() { s.killer(kills(t), &api, &runner, &swap) })
	s.until("everything is done", func() bool {
		return s.count(db, "SELECT count(*) FROM decisions") == n && s.count(db, "SELECT count(*) FROM actions WHERE status IN ('queued', 'executing') AND not_before IS NULL") == 0
	})
	killing.Wait()
	if got := s.count(db, "SELECT count(*) FROM actions WHERE status <> 'completed' AND not_before IS NULL"); got != 0 {
		t.Errorf("%d actions are not completed", got)
	}
	if maps.EqualFunc(before, s.files(), bytes.Equal) {
		t.Fatal("nothing was changed")
	}

	killing.Go(func() { s.killer(kills(t)/2, &api, &runner, &swap) })
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
	s.until("everything is undone", func() bool {
		return s.count(db, "SELECT count(*) FROM actions WHERE status IN ('queued', 'executing')") == 0
	})
	if got := s.count(db, "SELECT count(*) FROM actions WHERE action_type = 'undo' AND status <> 'completed'"); got != 0 {
		t.Errorf("%d undos are not completed", got)
	}
	after := s.files()
	for path, raw := range before {
		if got, there := after[path]; !there || !bytes.Equal(got, raw) {
			t.Errorf("%s is not as it was", strings.TrimPrefix(path, s.maildir()))
		}
	}
	if len(after) != len(before) {
		t.Errorf("%d files, there were %d", len(after), len(before))
	}
	if got := s.count(db, "SELECT count(*) FROM messages WHERE labels_json <> '[]'"); got != 0 {
		t.Errorf("%d messages still have labels", got)
	}
	if got := s.count(db, "SELECT count(*) FROM actions AS a WHERE a.action_type <> 'undo' AND a.status = 'completed' AND NOT EXISTS (SELECT 1 FROM action_links AS l WHERE l.cause_action_id = a.id AND l.relation_type = 'undo_of')"); got != 0 {
		t.Errorf("%d actions have no undo", got)
	}
}

// Another program moves and flags the files while rules act on them and the
// runner is killed: no message is lost, none doubled, none changed.
func TestAnotherProgramAtWorkLosesAndDoublesNothing(t *testing.T) {
	t.Parallel()
	mails := numbered(messages(t))
	if len(mails) > 200 {
		mails = mails[:200]
	}
	s := newSystem(t)
	s.lay(mails)
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

	stop := make(chan struct{})
	var working sync.WaitGroup
	working.Go(func() {
		random := rand.New(rand.NewPCG(7, 7)) //nolint:gosec // moves
		for _, dir := range []string{".Other/cur", ".Other/new", ".Archive/cur", "cur"} {
			if err := os.MkdirAll(filepath.Join(s.maildir(), dir), 0o700); err != nil {
				t.Error(err)
			}
		}
		for {
			select {
			case <-stop:
				return
			default:
			}
			s.moveOne(random)
		}
	})
	var swap sync.RWMutex
	s.killer(kills(t)/2, &api, &runner, &swap)
	s.until("everything is done", func() bool {
		return s.count(db, "SELECT count(*) FROM decisions") == n && s.count(db, "SELECT count(*) FROM actions WHERE status IN ('queued', 'executing') AND not_before IS NULL") == 0
	})
	close(stop)
	working.Wait()

	want := map[string]int{}
	for _, raw := range mails {
		want[digest(raw)]++
	}
	got := map[string]int{}
	for _, raw := range s.files() {
		got[digest(raw)]++
	}
	if !maps.Equal(got, want) {
		t.Errorf("%d files of %d contents, want %d of %d", len(s.files()), len(got), len(mails), len(want))
	}
	if stored := s.count(db, "SELECT count(*) FROM messages"); stored != n {
		t.Errorf("%d messages are stored, want %d", stored, n)
	}
	failed := s.count(db, "SELECT count(*) FROM actions WHERE status = 'failed'")
	if failed != 0 {
		t.Errorf("%d actions failed", failed)
	}
}

// moveOne gives one file another folder or other flags, as a mail program
// does: by a rename, never over another file.
func (s *system) moveOne(random *rand.Rand) {
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
	unique, _, _ := strings.Cut(name, ":")
	flags := []string{":2,", ":2,S", ":2,RS", ":2,F", ":2,T"}[random.IntN(5)]
	to := filepath.Join(dirs[random.IntN(len(dirs))], unique+flags)
	if _, err := os.Lstat(to); err == nil {
		return
	}
	_ = os.Rename(filepath.Join(from, name), to) // the file may have moved meanwhile
}

func digest(raw []byte) string {
	sum := sha256.Sum256(raw)
	return hex.EncodeToString(sum[:])
}
