package agent_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/postroom/postroom/core/job"
	"github.com/postroom/postroom/core/libsql"
	"github.com/postroom/postroom/core/mail"
	"github.com/postroom/postroom/core/mail/message"
	"github.com/postroom/postroom/core/queue"
)

// take delivers messages one after the other and returns them by their names.
func (r *rig) take(raw ...string) map[string]mail.Message {
	r.Helper()
	before := r.count("SELECT count(*) FROM messages")
	for i, text := range raw {
		if _, _, err := r.dir.Deliver(fmt.Sprintf("t%d", int(before)+i), []byte(text)); err != nil {
			r.Fatal(err)
		}
		r.until("it is stored", func() bool { return r.count("SELECT count(*) FROM messages") == before+int64(i)+1 })
	}
	list, _, err := r.store.Messages(r.Context(), mail.MessageFilter{}, mail.PageOf{Limit: 1000})
	if err != nil {
		r.Fatal(err)
	}
	out := map[string]mail.Message{}
	for _, m := range list {
		out[m.ProviderMessageID] = m
	}
	return out
}

// storeAll stores messages in one commit.
func (r *rig) storeAll(list []mail.Arrival) {
	r.Helper()
	err := r.store.StoreMessages(r.Context(), r.account.ID, "default", list, func(record func(*queue.Batch)) error {
		b := r.q.NewBatch(r.Context())
		record(b)
		_, err := r.q.Write(r.Context(), b)
		return err
	})
	if err != nil {
		r.Fatal(err)
	}
}

func mailOf(id, references, inReplyTo, subject string, minute int) string {
	head := "From: ann@example.org\nSubject: " + subject + "\nMessage-ID: " + id + "\nDate: " +
		time.Date(2026, 1, 2, 3, minute, 0, 0, time.UTC).Format(time.RFC1123Z)
	if references != "" {
		head += "\nReferences: " + references
	}
	if inReplyTo != "" {
		head += "\nIn-Reply-To: " + inReplyTo
	}
	return head + "\n\nminute " + fmt.Sprint(minute)
}

func TestThreadsComeTogetherInWhateverOrderTheirMessagesCome(t *testing.T) {
	t.Parallel()
	conversation := []string{
		mailOf("<1@x>", "", "", "Walk", 1),
		mailOf("<2@x>", "<1@x>", "<1@x>", "Re: Walk", 2),
		mailOf("<3@x>", "", "<2@x>", "Re: Walk", 3),       // names only its parent
		mailOf("<4@x>", "<2@x> <3@x>", "", "Re: Walk", 4), // has lost the root
	}
	for _, order := range [][]int{{0, 1, 2, 3}, {3, 2, 1, 0}, {3, 0, 2, 1}, {2, 0, 3, 1}} {
		t.Run(fmt.Sprint(order), func(t *testing.T) {
			t.Parallel()
			r := setup(t)
			r.run()
			raw := []string{mailOf("<other@x>", "", "", "Other", 9)}
			for _, i := range order {
				raw = append(raw, conversation[i])
			}
			got := r.take(raw...)
			threads, _, err := r.store.Threads(t.Context(), r.account.ID, mail.PageOf{Limit: 10})
			if err != nil || len(threads) != 2 {
				t.Fatalf("%d threads, %v", len(threads), err)
			}
			walk := threads[1] // the other has the newest message
			if walk.MessageCount != 4 || *walk.Subject != "Walk" || *walk.Snippet != "minute 4" || walk.LastMessageAt.Time().Minute() != 4 {
				t.Errorf("%+v", walk)
			}
			for name, m := range got {
				if in := m.ThreadID == walk.ID; in == (name == "t0") {
					t.Errorf("%s is in the thread: %t", name, in)
				}
			}
			list, _, err := r.store.Messages(t.Context(), mail.MessageFilter{Thread: walk.ID}, mail.PageOf{Limit: 10})
			if err != nil || len(list) != 4 {
				t.Errorf("%d messages, %v", len(list), err)
			}
			first, next, err := r.store.Threads(t.Context(), r.account.ID, mail.PageOf{Limit: 1})
			if err != nil || first[0].ID != threads[0].ID {
				t.Fatalf("%+v, %v", first, err)
			}
			second, end, err := r.store.Threads(t.Context(), r.account.ID, mail.PageOf{Limit: 1, Cursor: next})
			if err != nil || second[0].ID != walk.ID || end != "" {
				t.Errorf("%+v, %q, %v", second, end, err)
			}
		})
	}
}

// Threads come out the same whether messages are stored one by one, in batches
// or all at once, in whatever order.
func TestThreadsDoNotDependOnHowManyMessagesAreStoredAtOnce(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(6, 1)) //nolint:gosec // messages
	const n = 60
	raw := make([]string, n)
	for i := range raw {
		refs := ""
		for range random.IntN(3) {
			refs += fmt.Sprintf("<%d@x> ", random.IntN(2*n)) // of some that are not there, too
		}
		raw[i] = mailOf(fmt.Sprintf("<%d@x>", i), refs, "", "s", i)
	}
	want := ""
	for _, size := range []int{1, 7, n} {
		for range 2 {
			r := setup(t)
			for batch := range slices.Chunk(random.Perm(n), size) {
				var list []mail.Arrival
				for _, i := range batch {
					list = append(list, mail.Arrival{
						ID: r.q.NewID(), Message: message.Parse([]byte(raw[i])), File: mail.File{Unique: fmt.Sprint(i), Name: fmt.Sprint(i)},
					})
				}
				r.storeAll(list)
			}
			threads := map[string][]int{} // by thread, its messages
			found, _, err := r.store.Messages(t.Context(), mail.MessageFilter{}, mail.PageOf{Limit: n})
			if err != nil || len(found) != n {
				t.Fatalf("%d messages, %v", len(found), err)
			}
			for _, m := range found {
				i, err := strconv.Atoi(m.ProviderMessageID)
				if err != nil {
					t.Fatal(err)
				}
				threads[m.ThreadID] = append(threads[m.ThreadID], i)
			}
			var parts []string
			for _, list := range threads {
				slices.Sort(list)
				parts = append(parts, fmt.Sprint(list))
			}
			slices.Sort(parts)
			if got := strings.Join(parts, "\n"); want == "" {
				want = got
			} else if got != want {
				t.Errorf("stored %d at once the threads are\n%s\nwant\n%s", size, got, want)
			}
			if len(parts) < 4 || len(parts) > n-10 {
				t.Fatalf("%d threads of %d messages: the test shows little", len(parts), n)
			}
			if got := r.count("SELECT count(*) FROM threads"); got != int64(len(parts)) {
				t.Errorf("%d threads are stored, %d have messages", got, len(parts))
			}
		}
	}
}

// A message that ties a thread together with another comes in between the look
// at the threads and the commit.
func TestThreadsThatOthersChangeMeanwhileComeTogether(t *testing.T) {
	t.Parallel()
	r := setup(t)
	arrival := func(i int, raw string) []mail.Arrival {
		return []mail.Arrival{{ID: r.q.NewID(), Message: message.Parse([]byte(raw)), File: mail.File{Unique: fmt.Sprint(i), Name: fmt.Sprint(i)}}}
	}
	r.storeAll(arrival(1, mailOf("<1@x>", "", "", "Walk", 1)))
	tries := 0
	err := r.store.StoreMessages(t.Context(), r.account.ID, "default", arrival(2, mailOf("<2@x>", "<1@x> <3@x>", "", "Re: Walk", 2)), func(record func(*queue.Batch)) error {
		if tries++; tries == 1 {
			r.storeAll(arrival(3, mailOf("<3@x>", "", "", "Before the walk", 0)))
		}
		b := r.q.NewBatch(t.Context())
		record(b)
		_, err := r.q.Write(t.Context(), b)
		return err
	})
	if err != nil || tries != 2 {
		t.Fatalf("stored at the %d. try, %v", tries, err)
	}
	threads, _, err := r.store.Threads(t.Context(), r.account.ID, mail.PageOf{Limit: 10})
	if err != nil || len(threads) != 1 {
		t.Fatalf("%d threads, %v", len(threads), err)
	}
	if w := threads[0]; w.MessageCount != 3 || *w.Subject != "Before the walk" || *w.Snippet != "minute 2" || w.LastMessageAt.Time().Minute() != 2 {
		t.Errorf("%+v", w)
	}
}

// What a new thread says of itself is what a sync of its messages one by one
// makes of it, with and without times.
func TestANewThreadSaysWhatOneThatGrewSays(t *testing.T) {
	t.Parallel()
	raw := []string{
		"Message-ID: <1@x>\nSubject: no date\n\nfirst", "Message-ID: <2@x>\nReferences: <1@x>\nSubject: old\nDate: Sat, 01 Jan 2000 00:00:00 +0000\n\nsecond",
		"Message-ID: <4@x>\nSubject: alone\nDate: Sat, 01 Jan 2000 00:00:00 +0000\n\nthird", "Message-ID: <5@x>\nSubject: alone too\n\nfourth",
	}
	var want string
	for _, size := range []int{1, len(raw)} {
		r := setup(t)
		for some := range slices.Chunk(raw, size) {
			var list []mail.Arrival
			for _, text := range some {
				m := message.Parse([]byte(text))
				list = append(list, mail.Arrival{ID: "message " + m.MessageID, Message: m, File: mail.File{Unique: m.MessageID, Name: m.MessageID}})
			}
			r.storeAll(list)
		}
		got := ""
		res, err := r.db.Read(t.Context(), libsql.Query("SELECT CAST(provider_thread_id AS BLOB), subject, snippet, last_message_at FROM threads ORDER BY provider_thread_id"))
		if err != nil {
			t.Fatal(err)
		}
		for _, row := range res[0].Rows {
			got += fmt.Sprintf("%s %s %s %d\n", row.Str(0), row.Str(1), row.Str(2), row.Int(3))
		}
		if want == "" {
			want = got
		}
		if got != want || strings.Count(got, "\n") != 3 {
			t.Errorf("stored %d at once:\n%swant\n%s", size, got, want)
		}
	}
}

func TestMessagesAreFound(t *testing.T) {
	t.Parallel()
	r := setup(t)
	r.run()
	got := r.take(
		"From: Zoë Größe <zoe@garden.example>\nSubject: Frühling im Garten\nDate: Fri, 02 Jan 2026 10:00:00 +0000\n\nTulips and \"quoted\" words, e.g. foo-bar",
		"From: bank@example.com\nSubject: Your invoice 4711\nDate: Sat, 03 Jan 2026 10:00:00 +0000\nContent-Type: text/html\n\n<p>Please <b>pay</b> the tulips</p>",
		"From: bank@example.com\nSubject: OR AND NOT NEAR(\nDate: Sun, 04 Jan 2026 10:00:00 +0000\n\nnul\x00byte \xff latin",
	)
	r.completed(r.act(got["t0"].ID, "apply_label", mail.ActionParameters{Label: "green"}).ID)
	r.completed(r.act(got["t1"].ID, "apply_label", mail.ActionParameters{Label: "money"}).ID)
	day := func(d int) time.Time { return time.Date(2026, 1, d, 0, 0, 0, 0, time.UTC) }
	for _, c := range []struct {
		f    mail.MessageFilter
		want string
	}{
		{mail.MessageFilter{}, "t0 t1 t2"},
		{mail.MessageFilter{Query: "tulips"}, "t0 t1"},
		{mail.MessageFilter{Query: "TULIPS fruhling"}, "t0"},
		{mail.MessageFilter{Query: "tulip*"}, "t0 t1"},
		{mail.MessageFilter{Query: "tulip"}, ""},
		{mail.MessageFilter{Query: `"pay the tulips"`}, "t1"},
		{mail.MessageFilter{Query: `"tulips the pay"`}, ""},
		{mail.MessageFilter{Query: `foo-bar`}, "t0"},
		{mail.MessageFilter{Query: `OR AND NOT NEAR(`}, "t2"},
		{mail.MessageFilter{Query: `byte latin`}, "t2"},
		{mail.MessageFilter{From: "grosse"}, ""},
		{mail.MessageFilter{From: "größe"}, "t0"},
		{mail.MessageFilter{From: "bank@example.com"}, "t1 t2"},
		{mail.MessageFilter{Subject: "tulips"}, ""},
		{mail.MessageFilter{Subject: "4711", Text: "pay"}, "t1"},
		{mail.MessageFilter{Label: "green"}, "t0"},
		{mail.MessageFilter{Label: "green", Query: "pay"}, ""},
		{mail.MessageFilter{Label: "money", Query: "pay"}, "t1"},
		{mail.MessageFilter{After: day(3)}, "t1 t2"},
		{mail.MessageFilter{After: day(3), Before: day(4)}, "t1"},
		{mail.MessageFilter{Before: day(4), Query: "tulips"}, "t0 t1"},
		{mail.MessageFilter{Account: r.account.ID, Query: "latin"}, "t2"},
		{mail.MessageFilter{Account: "nobody", Query: "latin"}, ""},
	} {
		var names []string
		page := mail.PageOf{Limit: 1}
		for {
			list, next, err := r.store.Messages(t.Context(), c.f, page)
			if err != nil {
				t.Fatalf("%+v: %v", c.f, err)
			}
			for _, m := range list {
				names = append(names, m.ProviderMessageID)
			}
			if page.Cursor = next; next == "" {
				break
			}
		}
		slices.Reverse(names) // newest first
		if got := strings.Join(names, " "); got != c.want {
			t.Errorf("%+v: %q, want %q", c.f, got, c.want)
		}
	}
	if _, _, err := r.store.Messages(t.Context(), mail.MessageFilter{Query: `"" * -`}, mail.PageOf{Limit: 1}); err == nil || !isInvalid(err, "q") {
		t.Errorf("a search for no word: %v", err)
	}
	r.completed(r.act(got["t0"].ID, "remove_label", mail.ActionParameters{Label: "green"}).ID)
	if list, _, err := r.store.Messages(t.Context(), mail.MessageFilter{Label: "green"}, mail.PageOf{Limit: 1}); err != nil || len(list) != 0 {
		t.Errorf("%d messages with a label that was taken away, %v", len(list), err)
	}
}

func isInvalid(err error, field string) bool {
	var inv *job.Invalid
	return errors.As(err, &inv) && inv.Field == field
}
