package libsql

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/fstest"
	"time"

	"github.com/postroom/postroom/core/libsql/sqldtest"
)

// link stands between a client and a server. What is done to a request is
// decided by its test.
type link struct {
	*httptest.Server
	target  *httputil.ReverseProxy
	handle  atomic.Pointer[func(w http.ResponseWriter, r *http.Request)]
	batches atomic.Int64 // requests seen
}

func newLink(t *testing.T, to string, tls bool) *link {
	t.Helper()
	u, err := url.Parse(to)
	if err != nil {
		t.Fatal(err)
	}
	l := &link{target: httputil.NewSingleHostReverseProxy(u)}
	l.target.ErrorHandler = func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusBadGateway) }
	l.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		l.batches.Add(1)
		if h := l.handle.Load(); h != nil {
			(*h)(w, r)
			return
		}
		l.target.ServeHTTP(w, r)
	}))
	l.Config.ErrorLog = log.New(io.Discard, "", 0)
	if tls {
		l.StartTLS()
	} else {
		l.Start()
	}
	t.Cleanup(l.Close)
	return l
}

func (l *link) do(h func(w http.ResponseWriter, r *http.Request)) { l.handle.Store(&h) }

// loseReplies lets requests reach the server and cuts the connection before
// their answers come back.
func (l *link) loseReplies() {
	l.do(func(_ http.ResponseWriter, r *http.Request) {
		l.target.ServeHTTP(httptest.NewRecorder(), r)
		panic(http.ErrAbortHandler)
	})
}

// linked returns a handle on a server behind a link, with a table t(k, v).
func linked(t *testing.T, opt Options) (*Remote, *link) {
	t.Helper()
	_, s := setupRemote(t, Options{})
	l := newLink(t, s.URL, false)
	opt.Path = l.URL
	return openOn(t, opt), l
}

// hold lets no request through until held is closed, and tells of each.
func (l *link) hold() (arrived <-chan struct{}, held chan<- struct{}) {
	told, gate := make(chan struct{}, 100), make(chan struct{})
	l.do(func(w http.ResponseWriter, q *http.Request) {
		told <- struct{}{}
		<-gate
		l.target.ServeHTTP(w, q)
	})
	return told, gate
}

func TestWritesThatComeWhileOthersAreUnderWayShareARequest(t *testing.T) {
	t.Parallel()
	var commits sync.Map
	r, l := linked(t, Options{OnCommit: func(requests, statements int) { commits.Store(requests, statements) }})
	arrived, held := l.hold()
	var wg sync.WaitGroup
	wg.Go(func() {
		if _, err := r.Write(t.Context(), batch(Exec("INSERT INTO t(k) VALUES (0)"))); err != nil {
			t.Error(err)
		}
	})
	<-arrived
	before := l.batches.Load()
	errs := make([]error, 40)
	for i := range errs {
		wg.Go(func() {
			switch {
			case i == 7:
				_, errs[i] = r.Write(t.Context(), batch(Exec("INSERT INTO t(k) VALUES (?)", 100+i), Exec("INSERT INTO t(k, v) VALUES (?, 'bad')", 200+i)))
			case i%2 == 0:
				_, errs[i] = r.Merge(t.Context(), opPut, fmt.Appendf(nil, `{"k":%d,"v":"x"}`, 100+i))
			default:
				_, errs[i] = r.Write(t.Context(), batch(Exec("INSERT INTO t(k) VALUES (?)", 100+i)))
			}
		})
	}
	waitFor(t, func() bool {
		r.inbox.mu.Lock()
		defer r.inbox.mu.Unlock()
		return len(r.inbox.pending) == len(errs)
	})
	close(held)
	wg.Wait()
	if n := l.batches.Load() - before; n != 1 {
		t.Errorf("%d requests for %d callers, want one", n, len(errs))
	}
	for i, err := range errs {
		if i == 7 {
			wantClass(t, err, Constraint)
		} else if err != nil {
			t.Errorf("caller %d: %v", i, err)
		}
	}
	if n := readInt(t, r, "SELECT count(*) FROM t"); n != int64(len(errs)) {
		t.Errorf("%d rows, want all but those of the batch that failed", n)
	}
	if n, _ := commits.Load(len(errs)); n != 2+1+20 {
		t.Errorf("the shared commit had %v statements, want those of 19 good batches, 2 of the bad one and 2 of the op", n)
	}
}

func TestABadItemFailsAloneOnAServer(t *testing.T) {
	t.Parallel()
	r, l := linked(t, Options{})
	arrived, held := l.hold()
	var wg sync.WaitGroup
	wg.Go(func() { _, _ = r.Write(t.Context(), &Batch{}) })
	<-arrived
	rows := make([][]Row, 20)
	errs := make([]error, len(rows))
	for i := range rows {
		wg.Go(func() {
			v := fmt.Sprint("v", i, ",")
			if i == 7 {
				v = "bad"
			}
			rows[i], errs[i] = r.Merge(t.Context(), opPut, fmt.Appendf(nil, `{"k":%d,"v":%q}`, i, v))
		})
	}
	waitFor(t, func() bool {
		r.inbox.mu.Lock()
		defer r.inbox.mu.Unlock()
		return len(r.inbox.pending) == len(rows)
	})
	close(held)
	wg.Wait()
	for i, err := range errs {
		if i == 7 {
			wantClass(t, err, Constraint)
			continue
		}
		if want := fmt.Sprintf("v%d,v%d,", i, i); err != nil || rows[i][0].Str(1) != want {
			t.Errorf("caller %d got %v, %v, want %s", i, rows[i], err, want)
		}
	}
}

func TestItemsThatFitNoSingleValueAreSplitAndStayOneWrite(t *testing.T) {
	t.Parallel()
	r, _ := setupRemote(t, Options{CallTimeout: time.Minute})
	long := strings.Repeat("x", 900_000)
	items := make([][]byte, 6)
	for i := range items {
		items[i] = fmt.Appendf(nil, `{"k":%d,"v":"%d%s"}`, i, i, long)
	}
	rows, err := r.Merge(t.Context(), &Op{Name: "put", Stmts: []string{
		opPut.Stmts[0], "SELECT e.key, t.k FROM json_each(?) AS e JOIN t ON t.k = e.value->>'k'",
	}}, items...)
	if err != nil {
		t.Fatal(err)
	}
	for i, row := range rows {
		if row.Int(1) != int64(i) {
			t.Errorf("item %d got the row %v", i, row)
		}
	}
	t.Run("or none", func(t *testing.T) {
		items[5] = []byte(`{"k":5,"v":"bad"}`)
		mustWrite(t, r, Exec("DELETE FROM t"))
		_, err := r.Merge(t.Context(), opPut, items...)
		wantClass(t, err, Constraint)
		if n := readInt(t, r, "SELECT count(*) FROM t"); n != 0 {
			t.Errorf("%d items of a failed call were stored", n)
		}
	})
	t.Run("what no value holds is refused", func(t *testing.T) {
		_, err := r.Merge(t.Context(), opPut, bytes.Repeat([]byte("1"), maxValue))
		wantClass(t, err, Invalid)
		_, err = r.Write(t.Context(), batch(Exec("INSERT INTO t(v) VALUES (?)", make([]byte, maxValue+1))))
		wantClass(t, err, Invalid)
		if !strings.Contains(err.Error(), "5000001 bytes") {
			t.Errorf("the error %v does not say how long it is", err)
		}
	})
}

func TestAnswersOfMoreThanTenMegabytes(t *testing.T) {
	t.Parallel()
	r, _ := setupRemote(t, Options{CallTimeout: time.Minute})
	for k := range 3 {
		mustWrite(t, r, Exec("INSERT INTO t(k, v) VALUES (?, ?)", k, bytes.Repeat([]byte{byte('a' + k)}, 4_000_000)))
	}
	check := func(what string, rows []Row) {
		t.Helper()
		if len(rows) != 3 {
			t.Fatalf("%s: %d rows", what, len(rows))
		}
		for k, row := range rows {
			if v := row.Bytes(0); len(v) != 4_000_000 || v[0] != byte('a'+k) || v[len(v)-1] != v[0] {
				t.Errorf("%s: row %d has %d bytes", what, k, len(v))
			}
		}
	}
	res, err := r.Read(t.Context(), Query("SELECT 1"), Query("SELECT v FROM t ORDER BY k"))
	if err != nil {
		t.Fatal(err)
	}
	check("read", res[1].Rows)
	res, err = r.Write(t.Context(), batch(Exec("INSERT INTO t(k) VALUES (99)"), Query("SELECT v FROM t WHERE k < 5 ORDER BY k")))
	if err != nil {
		t.Fatal(err)
	}
	check("write", res[1].Rows)
	if n := readInt(t, r, "SELECT count(*) FROM t WHERE k = 99"); n != 1 || res[0].Changes != 1 {
		t.Errorf("%d rows of the write whose answer was long", n)
	}
}

func TestALostReplyIsUnknown(t *testing.T) {
	t.Parallel()
	r, l := linked(t, Options{RetryTimes: 3})
	l.loseReplies()
	_, err := r.Write(t.Context(), batch(Exec("INSERT INTO t(k) VALUES (1)")))
	wantClass(t, err, Unknown)
	_, err = r.Read(t.Context(), Query("SELECT 1"))
	wantClass(t, err, Unavailable) // a read is repeated, and changes nothing
	l.handle.Store(nil)
	if n := readInt(t, r, "SELECT count(*) FROM t"); n != 1 {
		t.Errorf("%d rows: the lost reply was that of a commit, which was made once", n)
	}
	l.do(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) })
	_, err = r.Write(t.Context(), batch(Exec("INSERT INTO t(k) VALUES (2)")))
	wantClass(t, err, Unknown)
}

func TestAServerThatIsAskedTooMuchIsAskedAgain(t *testing.T) {
	t.Parallel()
	r, l := linked(t, Options{RetryTimes: 3})
	var refused atomic.Int64
	l.do(func(w http.ResponseWriter, q *http.Request) {
		if refused.Add(1) <= 3 {
			w.WriteHeader(http.StatusTooManyRequests)
			return
		}
		l.target.ServeHTTP(w, q)
	})
	mustWrite(t, r, Exec("INSERT INTO t(k) VALUES (1)"))
	refused.Store(0)
	if n := readInt(t, r, "SELECT count(*) FROM t"); n != 1 {
		t.Errorf("%d rows, want 1", n)
	}
	l.do(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTooManyRequests) })
	_, err := r.Write(t.Context(), &Batch{})
	wantClass(t, err, Busy)
}

func TestAServerThatWasKilledIsFoundAgain(t *testing.T) {
	t.Parallel()
	r, s := setupRemote(t, Options{})
	for round := range 3 {
		var wg sync.WaitGroup // so that there are idle connections, which will be stale
		for range 8 {
			wg.Go(func() { readInt(t, r, "SELECT count(*) FROM t") })
		}
		wg.Wait()
		s.Kill()
		_, err := r.Write(t.Context(), batch(Exec("INSERT INTO t(k) VALUES (?)", round)))
		if c := ClassOf(err); c != Unavailable && c != Unknown { // it may have been on its way
			t.Errorf("the error is %v", err)
		}
		_, err = r.Read(t.Context(), Query("SELECT 1"))
		wantClass(t, err, Unavailable)
		_, err = r.Health(t.Context())
		wantClass(t, err, Unavailable)
		s.Restart()
		mustWrite(t, r, Exec("INSERT INTO t(k) VALUES (?)", round))
		if n := readInt(t, r, "SELECT count(*) FROM t"); n != int64(round+1) {
			t.Errorf("%d rows after %d restarts", n, round+1)
		}
	}
}

func TestAFrozenServerHoldsNoCallLongerThanItsContext(t *testing.T) {
	t.Parallel()
	r, s := setupRemote(t, Options{})
	s.Freeze()
	ctx, cancel := context.WithCancel(t.Context())
	result := make(chan error, 1)
	write := &request{stmts: batch(Exec("INSERT INTO t(k) VALUES (1)")).stmts, done: make(chan struct{})}
	go func() { result <- r.inbox.submit(ctx, write) }()
	waitFor(t, func() bool { return write.state.Load() == started })
	cancel()
	wantClass(t, <-result, Unknown)

	ctx, cancel = context.WithCancel(t.Context())
	go func() {
		_, err := r.Read(ctx, Query("SELECT 1"))
		result <- err
	}()
	waitFor(t, func() bool { return len(r.slots) > 0 })
	cancel()
	wantClass(t, <-result, Canceled)
	waitFor(t, func() bool { return len(r.slots) == 0 }) // the connection is given up with the call

	s.Thaw()
	mustWrite(t, r, Exec("INSERT INTO t(k) VALUES (2)"))
}

func TestTokens(t *testing.T) {
	t.Parallel()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	key := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(key, []byte(base64.RawURLEncoding.EncodeToString(public)), 0o600); err != nil {
		t.Fatal(err)
	}
	claims := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"EdDSA","typ":"JWT"}`)) + "." +
		base64.RawURLEncoding.EncodeToString([]byte(`{"a":"rw"}`))
	good := claims + "." + base64.RawURLEncoding.EncodeToString(ed25519.Sign(private, []byte(claims)))
	bad := claims + "." + base64.RawURLEncoding.EncodeToString(make([]byte, ed25519.SignatureSize))

	s := sqldtest.Start(t, "--auth-jwt-key-file", key)
	var token atomic.Pointer[string]
	token.Store(&good)
	opt := Options{Path: s.URL, AuthToken: func() (string, error) { return *token.Load(), nil }}
	if err := Migrate(t.Context(), opt); err != nil {
		t.Fatal(err)
	}
	r := openOn(t, opt)
	token.Store(&bad)
	_, err = r.Write(t.Context(), &Batch{})
	wantClass(t, err, Unavailable)
	if strings.Contains(err.Error(), bad) || !strings.Contains(err.Error(), "refuses the token") {
		t.Errorf("the error %v says too much or too little", err)
	}
	opt.AuthToken = nil
	_, err = Open(t.Context(), opt)
	wantClass(t, err, Unavailable)
	_, err = Schema(t.Context(), opt)
	wantClass(t, err, Unavailable)

	token.Store(&good) // rotated
	if _, err := r.Write(t.Context(), &Batch{}); err != nil {
		t.Error(err)
	}
	opt.AuthToken = func() (string, error) { return "", errors.New("no such file") }
	_, err = Open(t.Context(), opt)
	wantClass(t, err, Unavailable)
}

func TestTLS(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	l := newLink(t, s.URL, true)
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: l.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	host := strings.TrimPrefix(l.URL, "https://")
	for name, c := range map[string]struct {
		opt  Options
		want Class
	}{
		"a certificate of the given authority":  {Options{Path: "https://" + host, CA: ca}, ""},
		"the scheme of libsql":                  {Options{Path: "libsql://" + host, CA: ca}, ""},
		"the name it carries":                   {Options{Path: "https://" + host, CA: ca, ServerName: "example.com"}, ""},
		"a name it does not carry":              {Options{Path: "https://" + host, CA: ca, ServerName: "example.org"}, Unavailable},
		"an authority that nobody knows":        {Options{Path: "https://" + host}, Unavailable},
		"a file without certificates":           {Options{Path: "https://" + host, CA: os.Args[0]}, Invalid},
		"no such file":                          {Options{Path: "https://" + host, CA: ca + "x"}, Invalid},
		"plain HTTP to a server that wants TLS": {Options{Path: "http://" + host}, Unavailable},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db, err := Open(t.Context(), c.opt)
			wantClass(t, err, c.want)
			if err == nil {
				_ = db.Close(t.Context())
			}
		})
	}
}

func TestAServerWithAnotherDatabaseIsNotWrittenTo(t *testing.T) {
	t.Parallel()
	r, s := setupRemote(t, Options{})
	other := newServer(t)
	l := newLink(t, s.URL, false)
	behind := openOn(t, Options{Path: l.URL})
	mustWrite(t, behind, Exec("INSERT INTO t(k) VALUES (1)"))
	to, err := url.Parse(other.URL)
	if err != nil {
		t.Fatal(err)
	}
	swapped := httputil.NewSingleHostReverseProxy(to)
	l.do(swapped.ServeHTTP)
	_, err = behind.Write(t.Context(), batch(Exec("UPDATE meta SET updated_at = 1")))
	wantClass(t, err, Unavailable)
	_, err = behind.Read(t.Context(), Query("SELECT 1"))
	wantClass(t, err, Unavailable)
	empty := sqldtest.Start(t)
	if to, err = url.Parse(empty.URL); err != nil {
		t.Fatal(err)
	}
	swapped = httputil.NewSingleHostReverseProxy(to)
	l.do(swapped.ServeHTTP)
	_, err = behind.Write(t.Context(), &Batch{})
	wantClass(t, err, Unavailable)
	l.handle.Store(nil)
	mustWrite(t, behind, Exec("INSERT INTO t(k) VALUES (2)"))
	if n := readInt(t, r, "SELECT count(*) FROM t"); n != 2 {
		t.Errorf("%d rows, want 2", n)
	}
}

func TestADatabaseThatWasPutOnAServerGetsANewEpoch(t *testing.T) {
	t.Parallel()
	r, s := setupRemote(t, Options{})
	epoch := epochOf(t, r)
	if got := writtenEpoch(t, openOn(t, Options{Path: s.URL})); got != epoch {
		t.Errorf("another client changed the epoch from %s to %s", epoch, got)
	}
	mustWrite(t, r, Exec("UPDATE meta SET value = '1:2:3' WHERE key = 'file'")) // as a copied file has it
	moved := writtenEpoch(t, openOn(t, Options{Path: s.URL}))
	if moved == epoch {
		t.Error("the epoch of the file was kept")
	}
	if got := writtenEpoch(t, openOn(t, Options{Path: s.URL})); got != moved {
		t.Errorf("and it changed again, from %s to %s", moved, got)
	}
}

func TestMigrationsOnAServer(t *testing.T) {
	t.Parallel()
	source := fstest.MapFS{
		"000001_a.up.sql":   {Data: []byte("CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT, created_at INTEGER, updated_at INTEGER) STRICT;\nCREATE TABLE a (k INTEGER) STRICT; INSERT INTO a VALUES (1);")},
		"000001_a.down.sql": {Data: []byte("DROP TABLE a; DROP TABLE meta;")},
		"000002_b.up.sql":   {Data: []byte("CREATE TRIGGER b AFTER INSERT ON a BEGIN SELECT CASE WHEN 1 THEN 2 END; INSERT INTO meta VALUES ('x', 'y', 1, 1); END;\nUPDATE a SET k = k + 1;")},
		"000002_b.down.sql": {Data: []byte("DROP TRIGGER b;")},
	}
	s := sqldtest.Start(t)
	opt, err := Options{Path: s.URL}.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	status := func() SchemaStatus {
		t.Helper()
		st, err := schema(t.Context(), opt, time.Minute, source)
		if err != nil {
			t.Fatal(err)
		}
		return st
	}
	if st := status(); st.Version != 0 || len(st.Pending) != 2 {
		t.Errorf("an empty server has the status %+v", st)
	}
	source["000003_c.up.sql"] = &fstest.MapFile{Data: []byte("CREATE TABLE c (k INTEGER) STRICT;\nINSERT INTO no_such_table VALUES (1);")}
	err = migrateUp(t.Context(), opt, source)
	if err == nil || !strings.Contains(err.Error(), "to version 3, statement 2") || ClassOf(err) != Invalid {
		t.Errorf("a failing migration gave %v", err)
	}
	if st := status(); st.Version != 0 {
		t.Errorf("it left something behind: %+v", st)
	}
	source["000003_c.up.sql"].Data = []byte("CREATE TABLE c (k INTEGER) STRICT;")
	source["000003_c.down.sql"] = &fstest.MapFile{Data: []byte("DROP TABLE c;")}
	var wg sync.WaitGroup
	for range 6 {
		wg.Go(func() {
			if err := migrateUp(t.Context(), opt, source); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if st := status(); st.Version != 3 || len(st.Pending) != 0 {
		t.Errorf("the status is %+v, want version 3", st)
	}
	client, err := dial(opt)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	rows, err := retryRemote(t.Context(), opt, client, "SELECT k, (SELECT count(*) FROM a) FROM a")
	if err != nil || rows[0].Int(0) != 2 || rows[0].Int(1) != 1 {
		t.Errorf("each migration should have run once: %v, %v", rows, err)
	}
}

func TestMigratingDownOnAServer(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	opt := Options{Path: s.URL}
	before, err := Schema(t.Context(), opt)
	if err != nil || before.Version != before.Latest {
		t.Fatalf("%+v, %v", before, err)
	}
	if err := MigrateDown(t.Context(), opt, 2); err != nil {
		t.Fatal(err)
	}
	if st, err := Schema(t.Context(), opt); err != nil || st.Version != before.Latest-2 {
		t.Errorf("the status is %+v, %v", st, err)
	}
	if err := errors.Join(MigrateDown(t.Context(), opt, 0), Migrate(t.Context(), opt)); err != nil {
		t.Fatal(err)
	}
	if st, err := Schema(t.Context(), opt); err != nil || st.Version != before.Latest {
		t.Errorf("the status is %+v, %v", st, err)
	}
}

func TestWhatIsNoLibsqlServerIsSaidSo(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]string{
		"a page":                "<html>hello</html>",
		"other JSON":            `{"hello":1}`,
		"too few results":       `{"results":[{"type":"ok","response":{"result":{"step_results":[],"step_errors":[]}}}]}`,
		"a value of no type":    `{"results":[{"type":"ok","response":{"result":{"step_results":[{"cols":[{"name":"a"}],"rows":[[{"type":"?"}]]}],"step_errors":[null]}}}]}`,
		"an integer of letters": `{"results":[{"type":"ok","response":{"result":{"step_results":[{"cols":[{"name":"a"}],"rows":[[{"type":"integer","value":"x"}]]}],"step_errors":[null]}}}]}`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				_, _ = io.Copy(io.Discard, r.Body)
				_, _ = io.WriteString(w, answer)
			}))
			defer s.Close()
			_, err := Open(t.Context(), Options{Path: s.URL})
			wantClass(t, err, Unavailable)
		})
	}
	t.Run("a redirect is not followed", func(t *testing.T) {
		t.Parallel()
		s := httptest.NewServer(http.RedirectHandler("http://127.0.0.1:1/", http.StatusTemporaryRedirect))
		defer s.Close()
		_, err := Open(t.Context(), Options{Path: s.URL})
		wantClass(t, err, Unavailable)
	})
}

// What a server says of a value is no part of an error.
func TestServersWordsAboutValuesAreCut(t *testing.T) {
	t.Parallel()
	r, _ := setupRemote(t, Options{})
	for _, s := range []Stmt{
		Query("SELECT json_extract('{}', ?)", secret),
		Query("SELECT json(?)", secret),
		Query("SELECT * FROM message_search WHERE message_search MATCH ?", `"`+secret),
		Query("SELECT * FROM message_search WHERE message_search MATCH ?", secret+" : x"),
		Query("SELEC 1"),
		Query("PRAGMA busy_timeout=1"),
		Query("SELECT * FROM no_such_table"),
	} {
		_, err := r.Read(t.Context(), s)
		if err == nil || strings.Contains(err.Error(), secret) || ClassOf(err) != Invalid {
			t.Errorf("%s: %v", s.SQL, err)
		}
	}
	_, err := r.Write(t.Context(), batch(Exec("INSERT INTO t(v) VALUES (1)"), Exec("SELEC 1")))
	wantClass(t, err, Invalid)
}

func TestSplitArrays(t *testing.T) {
	t.Parallel()
	item := func(n int) []byte { return []byte(`"` + strings.Repeat("x", n-2) + `"`) }
	rs := []*request{{items: [][]byte{item(100), item(100)}}, {items: [][]byte{item(500)}}, {}, {items: [][]byte{item(100), item(90), item(100)}}}
	decoded := func(arg any) (n, bytes int, err error) {
		switch arg := arg.(type) {
		case string:
			var values []string
			err = json.Unmarshal([]byte(arg), &values)
			return len(values), len(arg), err
		case []byte:
			at, err := strconv.Atoi(string(arg[:10]))
			if err != nil {
				return 0, 0, err
			}
			var places []int
			err = json.Unmarshal(arg[at-1:], &places)
			for _, p := range places {
				if !strings.HasPrefix(string(arg[p-1:]), `"xxx`) {
					err = fmt.Errorf("no item begins at %d", p)
				}
			}
			return len(places), len(arg), err
		}
		return 0, 0, fmt.Errorf("an argument of type %T", arg)
	}
	for _, op := range []*Op{{}, {Packed: true}} {
		var got []int
		for _, a := range arrays(op, rs, 320) {
			n, bytes, err := decoded(a.arg)
			if err != nil || n != a.items || n > 1 && bytes > 320 {
				t.Errorf("%v: %d items in %d bytes, %v", a.arg, n, bytes, err)
			}
			got = append(got, n)
		}
		if !slices.Equal(got, []int{2, 1, 2, 1}) {
			t.Errorf("packed %t: arrays of %v items, want 2, 1, 2, 1", op.Packed, got)
		}
		got = nil
		for _, a := range arrays(op, []*request{{}}, 320) {
			n, _, err := decoded(a.arg)
			if err != nil || n != 0 {
				t.Errorf("packed %t: no items gave %d, %v", op.Packed, n, err)
			}
		}
	}
}

func TestAServerIsToldToSyncAndToldAgainAfterARestart(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	told := func() string {
		t.Helper()
		text, err := askAdmin(t.Context(), http.MethodGet, s.Admin+"/v1/namespaces/default/config", nil)
		var config struct {
			Mode    string `json:"durability_mode"`
			Timeout int    `json:"txn_timeout_s"`
		}
		if err = errors.Join(err, json.Unmarshal(text, &config)); err != nil || config.Timeout == 0 {
			t.Fatalf("the server's configuration is %s, %v", text, err)
		}
		return config.Mode
	}
	if r := openOn(t, Options{Path: s.URL}); r.Durability() != DurabilityNormal || told() != "relaxed" {
		t.Errorf("nobody asked, and it is %s, %s", r.Durability(), told())
	}
	if r := openOn(t, Options{Path: s.URL, Admin: s.Admin, Synchronous: "normal"}); r.Durability() != DurabilityNormal || told() != "relaxed" {
		t.Errorf("normal was asked for, and it is %s, %s", r.Durability(), told())
	}
	r := openOn(t, Options{Path: s.URL, Admin: s.Admin + "/"})
	if r.Durability() != DurabilityFull || told() != "strong" {
		t.Errorf("full was asked for, and it is %s, %s", r.Durability(), told())
	}
	s.Restart()
	if told() != "relaxed" {
		t.Fatal("the server remembers: then nobody need tell it again")
	}
	mustWrite(t, r, Exec("CREATE TABLE t (k INTEGER) STRICT"))
	if r.Durability() != DurabilityFull || told() != "strong" {
		t.Errorf("after a commit it is %s, %s", r.Durability(), told())
	}
	t.Run("without its admin API", func(t *testing.T) {
		t.Parallel()
		r := openOn(t, Options{Path: newServer(t).URL, Admin: "http://127.0.0.1:1"})
		mustWrite(t, r, Exec("CREATE TABLE t (k INTEGER) STRICT"))
		if r.Durability() != DurabilityNormal {
			t.Errorf("it is %s", r.Durability())
		}
	})
}

func TestAHealthCheckDoesNotWaitForReaders(t *testing.T) {
	t.Parallel()
	r, l := linked(t, Options{})
	held := make(chan struct{})
	l.do(func(w http.ResponseWriter, q *http.Request) {
		body, _ := io.ReadAll(q.Body) // a short one
		q.Body = io.NopCloser(bytes.NewReader(body))
		if bytes.Contains(body, []byte("SELECT 42")) {
			<-held
		}
		l.target.ServeHTTP(w, q)
	})
	var wg sync.WaitGroup
	for range 2 * remoteReaders {
		wg.Go(func() {
			if _, err := r.Read(t.Context(), Query("SELECT 42")); err != nil {
				t.Error(err)
			}
		})
	}
	waitFor(t, func() bool { return len(r.slots) == remoteReaders })
	if _, err := r.Health(t.Context()); err != nil {
		t.Error(err)
	}
	close(held)
	wg.Wait()
}
