package e2e

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

// many is how many messages a large Maildir has; POSTROOM_E2E_MAILS says more.
func many(tb testing.TB) int {
	tb.Helper()
	if n, err := strconv.Atoi(os.Getenv("POSTROOM_E2E_MAILS")); err == nil {
		return n
	}
	return 10_000
}

// BenchmarkLargeMaildir reports what the first sync of a Maildir with many
// messages costs, and then the sync of ten new ones: messages a second, the
// runner's processor time and memory.
//
//	cd e2e && POSTROOM_E2E_MAILS=1000000 go test -run '^$' -bench LargeMaildir -benchtime 1x -timeout 3h .
func BenchmarkLargeMaildir(b *testing.B) {
	n := many(b)
	s := newSystem(b, "QUEUE_LEASE=60s", "QUEUE_POLL=1s", "MAIL_SYNC_INTERVAL=10m")
	write := s.writer()
	for i := range n {
		write(filepath.Join("cur", fmt.Sprintf("%d.M%dP7.host:2,S", 1600000000+i, i)), i)
	}
	api := s.server()
	db := s.open()
	runner := s.runner()
	started, used := time.Now(), ticks(b, runner)
	api.account()
	least, most := int64(1<<62), int64(0)
	last := int64(0)
	for stored := int64(0); stored < int64(n); {
		<-time.After(time.Second)
		stored = s.count(db, "SELECT coalesce(max(doc), 0) FROM message_docs") // to count them would read them all
		if stored > int64(n)/10 {                                              // it has warmed up
			rss := resident(b, runner)
			least, most = min(least, rss), max(most, rss)
		}
		if stored/int64(n/10) != last {
			last = stored / int64(n/10)
			b.Logf("%d messages after %v, %d MB", stored, time.Since(started).Round(time.Second), resident(b, runner)>>10)
		}
	}
	took := time.Since(started)
	b.ReportMetric(float64(n)/took.Seconds(), "messages/s")
	b.ReportMetric(float64(ticks(b, runner)-used)*10/float64(n), "cpu-ms/message")
	b.ReportMetric(float64(least)/1024, "least-MB")
	b.ReportMetric(float64(most)/1024, "most-MB")
	s.until("all is done", func() bool {
		return s.count(db, "SELECT count(*) FROM decisions") == int64(n) && s.count(db, "SELECT count(*) FROM jobs WHERE finished_at IS NULL AND type <> 'account.sync'") == 0
	})
	b.ReportMetric(float64(n)/time.Since(started).Seconds(), "judged/s")
	info, err := os.Stat(s.database())
	if err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(info.Size())/float64(n), "database-bytes/message")
	<-time.After(12 * time.Second) // memory has been given back

	used, started = ticks(b, runner), time.Now()
	for i := range 10 {
		write(filepath.Join("new", fmt.Sprintf("%d.M%dP7.host", 1700000000+i, n+i)), n+i)
	}
	s.until("the new ones are in", func() bool { return s.count(db, "SELECT count(*) FROM decisions") == int64(n+10) })
	b.ReportMetric(float64(time.Since(started).Milliseconds()), "ten-new-ms")
	b.ReportMetric(float64(ticks(b, runner)-used)*10, "ten-new-cpu-ms")
	b.ReportMetric(0, "ns/op")
}

// writer returns a function that writes small messages, each another.
func (s *system) writer() func(path string, i int) {
	s.Helper()
	for _, dir := range []string{"tmp", "new", "cur"} {
		if err := os.MkdirAll(filepath.Join(s.maildir(), dir), 0o700); err != nil {
			s.Fatal(err)
		}
	}
	random := rand.New(rand.NewPCG(1, 1)) //nolint:gosec // words
	return func(path string, i int) {
		var m bytes.Buffer
		fmt.Fprintf(&m, "Received: from mx.example.com by mail.example.org with ESMTP id %d; Thu, 1 Jan 2026 00:00:00 +0000\n", i)
		fmt.Fprintf(&m, "From: Person %d <p%d@example.com>\nTo: me@example.org\nSubject: number %d\nMessage-ID: <%d@example.com>\n", i%5000, i%5000, i, i)
		if i%3 == 2 {
			fmt.Fprintf(&m, "In-Reply-To: <%d@example.com>\nReferences: <%d@example.com>\n", i-1, i-1)
		}
		fmt.Fprintf(&m, "Date: Thu, 1 Jan 2026 00:00:00 +0000\nMIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\n\n")
		for w := range 60 {
			// Few words are frequent, most are rare.
			fmt.Fprintf(&m, "word%d%s", int(20000*random.Float64()*random.Float64()*random.Float64()), map[bool]string{true: "\n", false: " "}[w%12 == 11])
		}
		if err := os.WriteFile(filepath.Join(s.maildir(), path), m.Bytes(), 0o600); err != nil {
			s.Fatal(err)
		}
	}
}
