package e2e

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

// BenchmarkAtRest reports what both services cost when there is nothing to do,
// a minute after all mail and a message of 5 MB have gone through: the share
// of one core over thirty seconds, and resident memory.
//
//	go test -run '^$' -bench AtRest -benchtime 1x -timeout 20m ./e2e
func BenchmarkAtRest(b *testing.B) {
	s := newSystem(b, "QUEUE_LEASE=60s", "QUEUE_POLL=1s", "MAIL_SYNC_INTERVAL=1m") // the defaults
	api := s.server()
	runner := s.runner()
	account := api.account()
	mails := append(messages(b), []byte("Subject: big\n\n"+strings.Repeat("0123456789abcde\n", 5<<20/16)))
	started := time.Now()
	for _, raw := range mails {
		if r := api.do("POST", "/v1/messages?account="+account, "message/rfc822", bytes.NewReader(raw)); r.status != http.StatusAccepted {
			b.Fatalf("%d %s", r.status, r.body)
		}
	}
	s.settled(s.open(), int64(len(mails)))
	b.ReportMetric(float64(len(mails))/time.Since(started).Seconds(), "messages/s")
	<-time.After(time.Minute)
	for name, p := range map[string]*process{"apiserver": api, "queuerunner": runner} {
		before := ticks(b, p)
		<-time.After(30 * time.Second)
		b.ReportMetric(float64(ticks(b, p)-before)/100/30*100, name+"-%-of-a-core") // 100 ticks a second
		b.ReportMetric(float64(resident(b, p))/1024, name+"-MB")
	}
	b.ReportMetric(0, "ns/op")
}

// ticks is the processor time a process has used, of user and system.
func ticks(b *testing.B, p *process) int64 {
	b.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.Process.Pid))
	if err != nil {
		b.Fatal(err)
	}
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	var sum int64
	for _, f := range fields[11:13] {
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			b.Fatal(err)
		}
		sum += n
	}
	return sum
}

// resident is a process's resident memory in KiB.
func resident(b *testing.B, p *process) int64 {
	b.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.Process.Pid))
	if err != nil {
		b.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			n, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			if err != nil {
				b.Fatal(err)
			}
			return n
		}
	}
	b.Fatal("no VmRSS")
	return 0
}
