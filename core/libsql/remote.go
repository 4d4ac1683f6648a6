package libsql

import (
	"context"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/postroom/postroom/core/libsql/internal/hrana"
)

// The connections of a process to a server. One group of writes is under way at
// a time: what comes meanwhile shares the next one, so more would gain little,
// and they would do harm. Writers that queue up in a server meet its
// checkpoints there, and sqld loses track of its queue then (docs/remote.md).
const (
	remoteConnections = 16
	remoteReaders     = remoteConnections - 2 // one is for writes, one for health checks
)

// maxGather is the longest that a group waits for more callers.
const maxGather = 100 * time.Millisecond

// atServer is what meta.file says of a database that lies on a server: a copy
// that is taken to a file, or a file that is put on a server, is another.
const atServer = "server"

// Remote is a database on a libsql server. Each call is one request that
// nothing outlives: a group of writes is one atomic batch, a read one snapshot.
type Remote struct {
	opt        Options
	client     *hrana.Client
	databaseID string
	homeless   atomic.Bool // the database has yet to be told that it lies on a server

	life context.Context //nolint:containedctx // of the writes, which outlive their callers
	die  context.CancelFunc

	inbox inbox
	slots chan struct{} // one token per read on its way
	done  chan struct{}
	full  atomic.Bool // a commit found no room

	durability atomic.Value // string
	health     probe
	lock       probe
}

// IsRemote says whether a path names a database on a server.
func IsRemote(path string) bool {
	scheme, _, found := strings.Cut(path, "://")
	switch strings.ToLower(scheme) {
	case "http", "https", "libsql":
		return found
	}
	return false
}

func openRemote(ctx context.Context, opt Options) (*Remote, error) {
	client, err := dial(opt)
	if err != nil {
		return nil, err
	}
	r := &Remote{
		opt: opt, client: client, inbox: newInbox(opt),
		slots: make(chan struct{}, remoteReaders), done: make(chan struct{}),
	}
	r.life, r.die = context.WithCancel(context.WithoutCancel(ctx))
	stored, err := r.readIdentity(ctx)
	if err != nil {
		r.die()
		client.Close()
		return nil, err
	}
	r.homeless.Store(stored != atServer)
	r.learnDurability(ctx)
	opt.System.Go("writer", r.loop)
	if opt.Settle && r.homeless.Load() {
		opt.System.Go("settle", func() { _, _ = r.Write(r.life, &Batch{}) }) // where that fails, the next write does it
	}
	return r, nil
}

// dial returns a client for opt.Path. It does not connect yet.
func dial(opt Options) (*hrana.Client, error) {
	invalid := func(detail string, cause error) error {
		return &Error{Class: Invalid, Op: "open", Detail: detail, cause: cause}
	}
	u, err := url.Parse(opt.Path)
	if err != nil {
		return nil, invalid("the database's URL is not valid", nil) // its error would quote it
	}
	if strings.EqualFold(u.Scheme, "libsql") {
		u.Scheme = "https"
		if u.Query().Get("tls") == "0" {
			u.Scheme = "http"
		}
	}
	u.Scheme, u.RawQuery = strings.ToLower(u.Scheme), ""
	var roots *x509.CertPool
	if opt.CA != "" {
		pem, err := os.ReadFile(opt.CA)
		if err != nil {
			return nil, invalid("the file of certificates cannot be read", err)
		}
		if roots = x509.NewCertPool(); !roots.AppendCertsFromPEM(pem) {
			return nil, invalid("the file of certificates holds none", nil)
		}
	}
	client, err := hrana.New(hrana.Config{
		URL: u.String(), Token: opt.AuthToken, RootCAs: roots, ServerName: opt.ServerName, Connections: remoteConnections,
	})
	if err != nil {
		return nil, invalid("the database's URL", err)
	}
	return client, nil
}

// readIdentity learns the database's id and returns its home.
func (r *Remote) readIdentity(ctx context.Context) (home string, err error) {
	rows, err := retryRemote(ctx, r.opt, r.client, sqlIdentity)
	switch {
	case ClassOf(err) == Invalid, err == nil && len(rows) != 1:
		return "", &Error{Class: Unavailable, Op: "open", cause: errNotPostroom}
	case err != nil:
		return "", err
	}
	r.databaseID = rows[0].Str(0)
	return rows[0].Str(1), nil
}

// retryRemote reads with one statement, whatever database the server has.
func retryRemote(ctx context.Context, opt Options, client *hrana.Client, sql string) ([]Row, error) {
	ctx, cancel := context.WithTimeout(ctx, opt.CallTimeout)
	defer cancel()
	return retry(ctx, opt, func() ([]Row, error) {
		res, err := client.Run(ctx, []hrana.Step{{SQL: sql, Rows: true}})
		if err != nil {
			return nil, ofRequest("read", err, false)
		}
		got, err := stepResult(Query(sql), res[0])
		return got.Rows, err
	})
}

// Write implements [DB].
func (r *Remote) Write(ctx context.Context, b *Batch) ([]Result, error) {
	for i, s := range b.stmts {
		if err := s.checkSizes(); err != nil {
			return nil, inBatch(err, i, 0)
		}
	}
	return r.inbox.write(ctx, b)
}

// Merge implements [DB].
func (r *Remote) Merge(ctx context.Context, op *Op, items ...[]byte) ([]Row, error) {
	for i, it := range items {
		if len(it)+around > maxValue {
			return nil, &Error{Class: Invalid, Op: "bind", Detail: fmt.Sprintf("item %d has %d bytes, more than a libsql server takes in one value", i+1, len(it))}
		}
	}
	return r.inbox.merge(ctx, op, items)
}

// Join implements [DB]. What is too long for the server fails alone.
func (r *Remote) Join(ctx context.Context, fill func(*Batch)) ([]Result, error) {
	return r.inbox.join(ctx, fill)
}

// checkSizes refuses what the server would refuse, before it joins a group.
func (s Stmt) checkSizes() error {
	for i, a := range s.Args {
		n := 0
		switch v := a.(type) {
		case string:
			n = len(v)
		case []byte:
			n = len(v)
		}
		if n > maxValue {
			return &Error{Class: Invalid, Op: "bind", Detail: fmt.Sprintf("argument %d has %d bytes, more than the %d that a libsql server takes in one value", i+1, n, maxValue)}
		}
	}
	return nil
}

// loop sends groups as long as there are requests. Callers of one group come
// back together, and the work that its answer brings them takes them a while:
// after a group of several, the next one waits for them.
func (r *Remote) loop() {
	defer close(r.done)
	var took time.Duration // by the group before, if it had several callers
	for range r.inbox.wake {
		for r.inbox.waiting() {
			r.linger(min(took/4, maxGather))
			group, _ := r.inbox.take()
			began := r.opt.System.Now()
			r.commit(group)
			took = 0
			if len(group) > 1 {
				took = r.opt.System.Now().Sub(began)
			}
		}
		if r.inbox.finished() {
			return
		}
	}
}

// linger lets callers come for as long as they do: until none has come for an
// eighth of the time that it may take at most.
func (r *Remote) linger(atMost time.Duration) {
	const parts = 8
	part := atMost / parts
	if part == 0 {
		return
	}
	t := r.opt.System.NewTimer(part)
	defer t.Stop()
	for i := range parts {
		if i > 0 {
			t.Reset(part)
		}
		before := r.inbox.length()
		select {
		case <-t.C():
		case <-r.life.Done():
			return
		}
		if r.inbox.length() == before {
			return
		}
	}
}

// commit sends a group and answers its requests. Those that could not be told
// apart (an op's statements failed for the items of many, or the server did
// not understand one of the statements) are sent again, each by itself.
func (r *Remote) commit(group []*request) {
	if len(group) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(r.life, r.opt.CallTimeout)
	defer cancel()
	p := groupProgram(r.databaseID, r.before(), group)
	res, err := r.client.Run(ctx, p.steps)
	if err != nil {
		err = ofRequest("write", err, true)
	} else {
		err = p.failure(res)
	}
	switch cls := ClassOf(err); {
	case err == nil:
	case len(group) > 1 && (cls == Invalid || cls == Constraint || cls == Guard):
		r.commitEach(group)
		return
	default:
		if cls == Full {
			r.full.Store(true)
		}
		answer(group, err)
		return
	}
	r.homeless.Store(false)
	if r.demandsSync() {
		r.harden(ctx, durabilityOf(res[p.same+1]))
	}
	if p.statements() > 0 {
		r.full.Store(false)
	}
	r.opt.OnCommit(len(group), p.statements())
	var again []*request
	for _, u := range p.units {
		err := u.settle(res)
		if err != nil && len(u.requests) > 1 {
			again = append(again, u.requests...)
			continue
		}
		answer(u.requests, err)
	}
	r.commitEach(again)
}

func (r *Remote) commitEach(group []*request) {
	for _, q := range group {
		r.commit([]*request{q})
	}
}

// failure is why nothing of the program was applied, or nil.
func (p *program) failure(res []hrana.Result) error {
	if res[p.commit].Done {
		return nil
	}
	if err := stepError(res[p.begin]); err != nil {
		return inOp(err, "begin")
	}
	if err := stepError(res[p.same]); err != nil {
		return otherDatabase(err)
	}
	if err := res[p.commit].Err; err != nil {
		e := ofStep(err)
		if e.Class != Busy && e.Class != Full {
			e.Class = Unknown // the disk failed while the commit was written
		}
		return inOp(e, "commit")
	}
	if len(p.units) == 1 {
		if err := p.units[0].settle(res); err != nil {
			return err
		}
	}
	for _, s := range res {
		if s.Err != nil {
			if e := ofStep(s.Err); endsTransaction(e.Class) {
				return e
			}
		}
	}
	return &Error{Class: Unavailable, Op: "commit", Detail: "the server ended the transaction"}
}

// otherDatabase is the error of sqlSame.
func otherDatabase(err error) error {
	if ClassOf(err) != Invalid {
		return err
	}
	return &Error{Class: Unavailable, Op: "open", Detail: "the server has another database than the one that was opened"}
}

// before is what stands in a group before its requests: the question how it is
// committed, and, in the first write to a database, where that lies: one that
// was put on the server gets a new epoch, as a restored file does.
func (r *Remote) before() []Stmt {
	var first []Stmt
	if r.demandsSync() {
		first = append(first, Query(sqlSynchronous))
	}
	if r.homeless.Load() {
		var epoch [8]byte
		r.opt.System.Read(epoch[:])
		first = append(first, Exec(sqlNewEpoch, hex.EncodeToString(epoch[:]), atServer), Exec(sqlNoteFile, atServer))
	}
	return first
}

// Read implements [DB].
func (r *Remote) Read(ctx context.Context, stmts ...Stmt) ([]Result, error) {
	if err := checkAll(stmts); err != nil {
		return nil, err
	}
	for i, s := range stmts {
		err := s.checkSizes()
		if err == nil && !onlyReads(s.SQL) {
			err = &Error{Class: Invalid, Op: "read", Detail: "the statement may write"}
		}
		if err != nil {
			return nil, inBatch(err, i, 0)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, r.opt.CallTimeout)
	defer cancel()
	return retry(ctx, r.opt, func() ([]Result, error) {
		select {
		case r.slots <- struct{}{}:
		case <-ctx.Done():
			return nil, &Error{Class: Canceled, Op: "read", Detail: "no reader was free", cause: ctx.Err()}
		}
		defer func() { <-r.slots }()
		return r.readOnce(ctx, stmts)
	})
}

// unqueued reads beside all other readers, so that a health check does not
// wait for them.
type unqueued struct{ *Remote }

// Read implements [DB].
func (u unqueued) Read(ctx context.Context, stmts ...Stmt) ([]Result, error) {
	return retry(ctx, u.opt, func() ([]Result, error) { return u.readOnce(ctx, stmts) })
}

// onlyReads looks at the first word of a statement. A server has no connection
// that refuses to write; whatever slips through is rolled back.
func onlyReads(sql string) bool {
	word := strings.TrimLeft(sql, whitespace)
	if end := strings.IndexAny(word, whitespace); end >= 0 {
		word = word[:end]
	}
	switch strings.ToUpper(word) {
	case "SELECT", "WITH", "EXPLAIN", "PRAGMA":
		return true
	}
	return false
}

func (r *Remote) readOnce(ctx context.Context, stmts []Stmt) ([]Result, error) {
	if r.inbox.closed() {
		return nil, &Error{Class: Closed, Op: "read"}
	}
	p := &program{}
	p.begin = p.add(nil, Exec("BEGIN")) // one snapshot for all of them
	p.same = p.add(following(p.begin), Query(sqlSame, r.databaseID))
	first := len(p.steps)
	last := p.same
	for _, s := range stmts {
		s.rows = true
		last = p.add(following(last), s)
	}
	p.add(hrana.InTransaction(), Exec("ROLLBACK")) // nothing was written
	res, err := r.client.Run(ctx, p.steps)
	if err != nil {
		return nil, ofRequest("read", err, false)
	}
	if err := stepError(res[p.begin]); err != nil {
		return nil, inOp(err, "read")
	}
	if err := stepError(res[p.same]); err != nil {
		return nil, otherDatabase(err)
	}
	out := make([]Result, len(stmts))
	for i, s := range stmts {
		s.rows = true
		if out[i], err = stepResult(s, res[first+i]); err != nil {
			return nil, inOp(inBatch(err, i, 0), "read")
		}
	}
	return out, nil
}

// Health implements [DB].
func (r *Remote) Health(ctx context.Context) (int64, error) {
	return r.health.schema(ctx, r.opt, unqueued{r})
}

// ProbeWriter implements [DB].
func (r *Remote) ProbeWriter(ctx context.Context) (time.Duration, error) {
	_, waited, err := r.lock.do(ctx, r.opt, func(ctx context.Context) (int64, error) {
		var b Batch
		if r.full.Load() {
			// A lock needs no room: only a write tells whether there is some again.
			b.Exec(sqlTouch)
		}
		_, err := r.Write(ctx, &b)
		return 0, err
	})
	return waited, err
}

// Watch implements [DB]. A server gives no sign of other processes' commits.
func (r *Remote) Watch(context.Context) <-chan struct{} { return nil }

// Close implements [DB].
func (r *Remote) Close(ctx context.Context) error {
	r.inbox.refuse()
	defer r.client.Close()
	defer r.die()
	select {
	case <-r.done:
		return nil
	case <-ctx.Done():
		return &Error{Class: Canceled, Op: "close", Detail: "the writer was still busy", cause: ctx.Err()}
	}
}

// errSkipped is the error of a step that was not reached: another one's error
// says why, or the server ended the transaction without a word.
var errSkipped = &Error{Class: Unavailable, Op: "execute", Detail: "the server ended the transaction"}

// ofStep classifies what the server says of a statement.
func ofStep(e *hrana.Error) *Error {
	text, sqlite := strings.CutPrefix(e.Message, "SQLite error: ")
	out := &Error{Op: "execute", Detail: withoutValues(text), preparing: refusesSQL(text)}
	if !out.preparing && strings.HasPrefix(text, "no such column") {
		out.Detail = "no such column" // of a full text query, which is a value
	}
	switch e.Code {
	case "SQLITE_BUSY", "SQLITE_LOCKED", "TRANSACTION_BUSY", "TRANSACTION_TIMEOUT":
		out.Class = Busy
	case "SQLITE_FULL":
		out.Class = Full
	case "SQLITE_CORRUPT", "SQLITE_NOTADB":
		out.Class = Corrupt
	case "SQLITE_IOERR", "SQLITE_CANTOPEN", "SQLITE_READONLY", "SQLITE_NOMEM", "SQLITE_PROTOCOL", "SQLITE_INTERRUPT", "BLOCKED", "PROXY_ERROR":
		out.Class = Unavailable
	default:
		out.Class = classOfText(text)
	}
	if !sqlite && out.Class == Invalid {
		// The server's own words about a statement may quote it.
		out.Detail, _, _ = strings.Cut(e.Message, ":")
	}
	return out
}

// refusesSQL says whether SQLite's words are about the statement itself and
// not about what happened while it ran.
func refusesSQL(text string) bool {
	for _, words := range []string{"no such table", "no such function", "no such index", "syntax error", "incomplete input", "ambiguous column", "wrong number of arguments"} {
		if strings.Contains(text, words) {
			return true
		}
	}
	return false
}

// ofRequest classifies why there is no answer to a request. A write that may
// have reached the server is Unknown.
func ofRequest(op string, err error, write bool) error {
	var e *hrana.Error
	if !errors.As(err, &e) {
		return &Error{Class: Unavailable, Op: op, cause: err}
	}
	out := &Error{Op: op, Detail: e.Message, cause: e.Unwrap()}
	ended := errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled)
	unanswered := e.Sent || e.Status >= 500
	switch {
	case write && unanswered:
		out.Class = Unknown
	case ended:
		out.Class = Canceled
	case e.Status == 429:
		out.Class, out.Detail = Busy, "the server is asked too much"
	case e.Status == 401, e.Status == 403, strings.HasPrefix(e.Code, "AUTH_"):
		out.Class, out.Detail = Unavailable, "the server refuses the token"
	case e.Status == 413:
		out.Class, out.Detail = Invalid, "more than the server takes in one request"
	case e.Status == 400:
		out.Class, out.Detail = Invalid, "the server does not understand the request"
	case e.Status == 200 && !e.Sent:
		step := ofStep(e)
		step.Op = op
		return step
	default:
		out.Class = Unavailable
		out.again = e.Status == 0 || unanswered
	}
	return out
}
