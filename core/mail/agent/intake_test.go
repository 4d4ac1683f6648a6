package agent_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/postroom/postroom/core/job"
	"github.com/postroom/postroom/core/libsql"
	"github.com/postroom/postroom/core/mail"
	"github.com/postroom/postroom/core/mail/agent"
	"github.com/postroom/postroom/core/mail/maildir"
	"github.com/postroom/postroom/core/mail/message"
)

// A mailbox that is there already comes in many messages at a time; the few
// that are large or cannot be read get a job each, as new mail does.
func TestAMailboxThatIsThereComesInManyAtATime(t *testing.T) {
	t.Parallel()
	r := setup(t)
	r.rule(mail.NewRule{Name: "fives", ActionType: "apply_label", ActionParameters: json.RawMessage(`{"label":"five"}`), Conditions: json.RawMessage(`{"op":"subject_regex","value":"55$"}`)})
	const n = 2500 // three commits
	for i := range n {
		raw := fmt.Sprintf("Subject: number %d\nMessage-ID: <%d@x>\nIn-Reply-To: <%d@x>\n\nbody of %d", i, i, i/2, i)
		if i == 7 {
			raw += strings.Repeat(" large", 1<<18)
		}
		names := []string{fmt.Sprintf("%d.host:2,S", i)}
		if i%500 == 6 { // another program has left a copy
			names = append(names, fmt.Sprintf("%d.host:2,ST", i))
		}
		for _, name := range names {
			if err := os.WriteFile(filepath.Join(r.dir.Path(), "cur", name), []byte(raw), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	stop := r.run()
	found := r.settled(n)
	stop()
	if got := r.count("SELECT count(*) FROM jobs WHERE type IN ('message.ingest', 'message.classify')"); got != 2 {
		t.Errorf("%d jobs for single messages, want those of the large one", got)
	}
	if got := r.count("SELECT count(*) FROM message_labels WHERE label = 'five'"); got != n/100 {
		t.Errorf("%d labels, want %d", got, n/100)
	}
	if got := r.count("SELECT count(DISTINCT thread_id) FROM messages"); got != 1 {
		t.Errorf("%d threads, want one", got)
	}
	if m := found[0]; string(m.Labels) == "" || m.Decision == nil || r.place(m.ID) != (mail.Place{Flags: "S"}) {
		t.Errorf("%+v", m)
	}
	// Rows in the order of their ids: else the index of words is written out again and again.
	for _, table := range []string{"messages", "decisions"} {
		if got := r.count("SELECT count(*) FROM " + table + " AS a JOIN " + table + " AS b ON b.rowid = a.rowid + 1 WHERE b.id < a.id"); got != 0 {
			t.Errorf("%s: %d rows come before the one that was stored before them", table, got)
		}
	}
	words, _, err := r.store.Messages(t.Context(), mail.MessageFilter{Query: `"body of 2345"`}, mail.PageOf{Limit: 10})
	if err != nil || len(words) != 1 {
		t.Errorf("%d found, %v", len(words), err)
	}
	acc, err := r.store.Account(t.Context(), r.account.ID)
	if err != nil || strings.Contains(string(acc.State), "taking_in") {
		t.Errorf("the account's state is %s, %v", acc.State, err)
	}
	// None of them is ever taken for new again.
	if _, err := r.store.Resync(t.Context(), r.account.ID); err != nil {
		t.Fatal(err)
	}
	r.syncer(t)()
	if got := r.count("SELECT count(*) FROM jobs WHERE type = 'message.ingest'"); got != 1 {
		t.Errorf("%d jobs after another look", got)
	}
}

// Another program has left a copy of a message, whose name comes up while the
// message is being committed.
func TestACopyOfAMessageThatIsBeingCommitted(t *testing.T) {
	t.Parallel()
	r := setup(t)
	const n = agent.ScanBatch + 200
	names := []string{fmt.Sprintf("%04d:2,ST", agent.ScanBatch-1)}
	for i := range n {
		names = append(names, fmt.Sprintf("%04d:2,S", i))
	}
	for _, name := range names {
		if err := os.WriteFile(filepath.Join(r.dir.Path(), "cur", name), []byte("Subject: x\n\ny"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	r.syncer(t)()
	if got := r.count("SELECT count(*) FROM messages"); got != n {
		t.Errorf("%d messages, want %d", got, n)
	}
}

// A pause holds for a mailbox that is coming in, too; it goes on when it ends.
func TestAPauseStopsAMailboxThatComesIn(t *testing.T) {
	t.Parallel()
	r := setup(t)
	yes, no := true, false
	pause := func(p *bool) {
		t.Helper()
		if _, err := r.store.UpdateAccount(t.Context(), r.account.ID, mail.AccountChange{Paused: p}); err != nil {
			t.Fatal(err)
		}
	}
	pause(&yes)
	const n = 150
	box := filepath.Join(t.TempDir(), "box")
	if err := os.WriteFile(box, []byte(strings.Repeat("From x\nSubject: the same\n\nbody\n\n", n)), 0o600); err != nil {
		t.Fatal(err)
	}
	for i := range n {
		if err := os.WriteFile(filepath.Join(r.dir.Path(), "cur", fmt.Sprint(i)), fmt.Appendf(nil, "Subject: %d\n\nx", i), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	task, _, err := r.store.Import(t.Context(), job.ImportPayload{AccountID: r.account.ID, Path: box, ApplyRules: true})
	if err != nil {
		t.Fatal(err)
	}
	r.run()
	r.until("both were put back", func() bool {
		return r.count("SELECT count(*) FROM jobs WHERE type IN ('account.sync', 'mail.import') AND claims > 1") == 2
	})
	if got := r.count("SELECT count(*) FROM messages"); got != 0 {
		t.Errorf("%d messages came into a paused account", got)
	}
	pause(&no)
	r.ends(task.ID)
	r.settled(n + 1)
}

// What the rules say about a message that was read just now is what they say
// about it once it is stored.
func TestTheRulesSayTheSameBeforeAndAfterAMessageIsStored(t *testing.T) {
	t.Parallel()
	mails := corpus(t)
	mails = mails[:min(len(mails), 200)]
	r := setup(t)
	for i, conditions := range []string{
		`{"op":"list_id","value":"lists.example.com"}`, `{"op":"has_attachment"}`, `{"op":"header_match","header":"list-id","pattern":"."}`,
		`{"op":"subject_regex","value":"(?i)^re:"}`, `{"op":"sender_domain","value":"com"}`, `{"op":"body_contains","value":"unsubscribe"}`,
		`{"op":"subject_contains","value":"e"}`, `{"op":"sender_email","value":"*@example.org"}`,
	} {
		priority := int64(i)
		r.rule(mail.NewRule{Name: fmt.Sprint("rule ", i), Priority: &priority, ActionType: "apply_label", ActionParameters: json.RawMessage(`{"label":"x"}`), Conditions: json.RawMessage(conditions)})
	}
	for _, raw := range mails {
		if _, err := r.store.PostMessage(t.Context(), r.account.ID, raw); err != nil {
			t.Fatal(err)
		}
	}
	r.run()
	book, err := r.store.Book(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	byRule := map[string]int{}
	for _, m := range r.settled(int64(len(mails))) {
		raw, _, err := r.dir.Read(maildir.Entry{Unique: m.ProviderMessageID}, mail.MaxMessage)
		if err != nil {
			t.Fatal(err)
		}
		_, want, err := r.store.Evaluate(t.Context(), m.ID)
		if err != nil {
			t.Fatal(err)
		}
		if got := book.Judge(r.account.ID, message.Parse(raw)); !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, stored %+v", m.ProviderMessageID, got, want)
		}
		byRule[want.RuleName]++
	}
	if len(byRule) < 5 {
		t.Errorf("only these rules matched: %v", byRule)
	}
}

// BenchmarkFirstSync takes a mailbox of b.N messages in. Beside it the least
// that any program must do which has such a mailbox searchable in this
// database: each file read and put into one table and one index of words.
func BenchmarkFirstSync(b *testing.B) {
	b.Run("taken in", func(b *testing.B) {
		r := setupFor(b)
		r.fill(b.N)
		measure(b, r.syncer(b))
	})
	b.Run("lean", func(b *testing.B) {
		r := setupFor(b)
		names := r.fill(b.N)
		r.exec("CREATE TABLE lean (id INTEGER PRIMARY KEY, raw BLOB NOT NULL) STRICT")
		r.exec("CREATE VIRTUAL TABLE lean_words USING fts5(text, content='', contentless_delete=1, tokenize='unicode61 remove_diacritics 2')")
		r.exec("INSERT INTO lean_words(lean_words, rank) VALUES ('hashsize', 4194304), ('automerge', 16), ('crisismerge', 64)")
		measure(b, func() {
			id := 0
			for some := range slices.Chunk(names, 1000) {
				var rows, words []any
				for _, name := range some {
					raw, err := os.ReadFile(name)
					if err != nil {
						b.Fatal(err)
					}
					id++
					rows, words = append(rows, id, raw), append(words, id, string(raw))
				}
				values := strings.Repeat(", (?, ?)", len(some))[2:]
				var batch libsql.Batch
				batch.Exec("INSERT INTO lean(id, raw) VALUES "+values, rows...)
				batch.Exec("INSERT INTO lean_words(rowid, text) VALUES "+values, words...)
				if _, err := r.db.Write(b.Context(), &batch); err != nil {
					b.Fatal(err)
				}
			}
		})
	})
}

// fill puts n messages into the Maildir, with few frequent words and many rare ones.
func (r *rig) fill(n int) (names []string) {
	r.Helper()
	random := rand.New(rand.NewPCG(1, 1)) //nolint:gosec // words
	for i := range n {
		raw := fmt.Appendf(nil, "From: Person %d <p%d@example.com>\nSubject: number %d\nMessage-ID: <%d@x>\nIn-Reply-To: <%d@x>\nDate: Thu, 1 Jan 2026 00:00:00 +0000\n\n", i%5000, i%5000, i, i, i-i%3)
		for range 60 {
			raw = fmt.Appendf(raw, "word%d ", int(20000*random.Float64()*random.Float64()*random.Float64()))
		}
		names = append(names, filepath.Join(r.dir.Path(), "cur", fmt.Sprintf("%d.M%dP7.host:2,S", 1600000000+i, i)))
		if err := os.WriteFile(names[i], raw, 0o600); err != nil {
			r.Fatal(err)
		}
	}
	return names
}

func measure(b *testing.B, work func()) {
	b.Helper()
	used := cpuTime(b)
	b.ResetTimer()
	work()
	b.StopTimer()
	b.ReportMetric(float64((cpuTime(b)-used).Microseconds())/float64(b.N), "cpu-us/op")
}
