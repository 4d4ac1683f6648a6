// Package hrana is a client of the Hrana 3 protocol over HTTP, which libsql
// servers speak (docs/HRANA_3_SPEC.md of tursodatabase/libsql). It knows one
// way to talk: a batch of statements with conditions that opens a stream, runs
// and closes it in a single request; what is too large for one answer is read
// as it comes. Nothing is asked of a stream later, so neither a stream nor a
// baton can go stale. It may import the standard library only.
package hrana

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// How long a connection may take to come about, and how long an idle one is
// kept: shorter than what lies between (load balancers, firewalls) usually
// waits before it forgets one without a word.
const (
	dialTimeout = 5 * time.Second
	idleTimeout = 30 * time.Second
)

// Config says where a server is and how to talk to it.
type Config struct {
	URL         string                 // of the database, http or https
	Token       func() (string, error) // asked before each request; "" sends none
	RootCAs     *x509.CertPool         // nil takes the system's
	ServerName  string                 // in the server's certificate; "" takes the URL's host
	Connections int                    // at most
}

// Client sends batches to one database. It is safe for concurrent use.
type Client struct {
	http  *http.Client
	base  string
	token func() (string, error)
}

// New returns a client. It does not connect yet.
func New(cfg Config) (*Client, error) {
	u, err := url.Parse(cfg.URL)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil {
		return nil, errors.New("not the http or https URL of a server, without credentials")
	}
	transport := &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		DialContext:         (&net.Dialer{Timeout: dialTimeout, KeepAlive: 15 * time.Second}).DialContext,
		TLSClientConfig:     &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: cfg.RootCAs, ServerName: cfg.ServerName},
		TLSHandshakeTimeout: dialTimeout,
		MaxConnsPerHost:     cfg.Connections,
		MaxIdleConnsPerHost: cfg.Connections,
		IdleConnTimeout:     idleTimeout,
		DisableCompression:  true,
		// A call has a connection to itself, so that one that hangs can be
		// given up without the others: no HTTP/2.
		TLSNextProto: map[string]func(string, *tls.Conn) http.RoundTripper{},
	}
	return &Client{
		// A redirect would send the token elsewhere.
		http:  &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }},
		base:  strings.TrimSuffix(u.Scheme+"://"+u.Host+u.EscapedPath(), "/"),
		token: cfg.Token,
	}, nil
}

// Close drops the idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Step is a statement of a batch. It runs when its condition holds.
type Step struct {
	If   *Cond
	SQL  string
	Args []any // nil, int64, float64, string or []byte
	Rows bool  // its rows are wanted
}

// Cond is a condition on the steps before.
type Cond struct {
	Type  string  `json:"type"`
	Step  *int    `json:"step,omitempty"`
	Cond  *Cond   `json:"cond,omitempty"`
	Conds []*Cond `json:"conds,omitempty"`
}

// OK holds when the step was executed and succeeded.
func OK(step int) *Cond { return &Cond{Type: "ok", Step: &step} }

// Not holds when c does not.
func Not(c *Cond) *Cond { return &Cond{Type: "not", Cond: c} }

// And holds when all of cs do.
func And(cs ...*Cond) *Cond { return &Cond{Type: "and", Conds: cs} }

// InTransaction holds while a transaction is open on the stream.
func InTransaction() *Cond { return Not(&Cond{Type: "is_autocommit"}) }

// Result is what became of a step.
type Result struct {
	Done    bool // it was executed and succeeded
	Err     *Error
	Columns []string
	Rows    [][]any // of nil, int64, float64, []byte, and string for TEXT
	Changes int64
}

// Error is what a server says of a step, or why there is no answer to a
// request. It holds neither URL nor token; the server's words may quote values.
type Error struct {
	Code    string // the server's code, "" for none
	Message string
	Status  int  // of the HTTP answer, 0 when there was none
	Sent    bool // the request may have reached the server, and an answer is missing
	cause   error
}

func (e *Error) Error() string {
	s := e.Message
	if e.Code != "" {
		s = e.Code + ": " + s
	}
	if e.cause != nil {
		s += ": " + e.cause.Error()
	}
	return s
}

// Unwrap gives the reason of a request that failed on its way.
func (e *Error) Unwrap() error { return e.cause }

const tooLarge = "RESPONSE_TOO_LARGE"

// Run executes the steps on a stream of their own, in one round trip, and
// returns one Result each. What they leave open is rolled back. Only an answer
// of more than about 10 MB, which the server refuses to give in one piece,
// takes a second request, which fetches it as a stream.
func (c *Client) Run(ctx context.Context, steps []Step) ([]Result, error) {
	batch := wireBatch{Steps: make([]wireStep, len(steps))}
	for i, s := range steps {
		batch.Steps[i] = s.wire()
	}
	res, err := c.pipeline(ctx, batch)
	var e *Error
	if errors.As(err, &e) && e.Code == tooLarge {
		return c.cursor(ctx, batch, nil)
	}
	return res, err
}

// Stream executes the steps like [Client.Run] and hands each row to fn as it
// arrives, so that an answer may be larger than memory. Its Results hold no
// rows.
func (c *Client) Stream(ctx context.Context, steps []Step, fn func(step int, row []any) error) ([]Result, error) {
	batch := wireBatch{Steps: make([]wireStep, len(steps))}
	for i, s := range steps {
		batch.Steps[i] = s.wire()
	}
	return c.cursor(ctx, batch, fn)
}

// pipeline runs the batch in one request that also closes the stream.
func (c *Client) pipeline(ctx context.Context, batch wireBatch) ([]Result, error) {
	body, err := c.post(ctx, "/v3/pipeline", pipelineRequest{Requests: []any{
		streamRequest{Type: "batch", Batch: &batch}, streamRequest{Type: "close"},
	}})
	if err != nil {
		return nil, err
	}
	defer body.Close()
	text, err := io.ReadAll(body)
	if err != nil {
		return nil, lost(err)
	}
	var answer pipelineAnswer
	if err := json.Unmarshal(text, &answer); err != nil || len(answer.Results) == 0 {
		return nil, garbled()
	}
	first := answer.Results[0]
	if first.Error != nil {
		// The statements were refused, or what they had done is rolled back
		// with the stream.
		return nil, &Error{Code: first.Error.Code, Message: first.Error.Message, Status: http.StatusOK}
	}
	got := first.Response.Result
	if len(got.StepResults) != len(batch.Steps) || len(got.StepErrors) != len(batch.Steps) {
		return nil, garbled()
	}
	out := make([]Result, len(batch.Steps))
	for i := range out {
		if e := got.StepErrors[i]; e != nil {
			out[i].Err = &Error{Code: e.Code, Message: e.Message}
			continue
		}
		r := got.StepResults[i]
		if r == nil {
			continue
		}
		out[i].Done, out[i].Changes = true, r.Changes
		out[i].columns(r.Cols)
		out[i].Rows = make([][]any, len(r.Rows))
		for k, row := range r.Rows {
			if out[i].Rows[k], err = decodeRow(row); err != nil {
				return nil, garbled()
			}
		}
	}
	return out, nil
}

// cursor runs the batch and reads its results as a stream, which has no limit,
// but must be closed by a request of its own. Rows go to fn; without one they
// are kept.
func (c *Client) cursor(ctx context.Context, batch wireBatch, fn func(step int, row []any) error) ([]Result, error) {
	body, err := c.post(ctx, "/v3/cursor", cursorRequest{Batch: &batch})
	if err != nil {
		return nil, err
	}
	defer body.Close()
	dec := json.NewDecoder(body)
	var head cursorHead
	if err := dec.Decode(&head); err != nil {
		return nil, lost(err)
	}
	out := make([]Result, len(batch.Steps))
	at := 0
	for {
		var e cursorEntry
		if err := dec.Decode(&e); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return nil, lost(err)
		}
		if e.Step < 0 || e.Step >= len(out) {
			return nil, garbled()
		}
		switch e.Type {
		case "step_begin":
			at = e.Step
			out[at].columns(e.Cols)
		case "row":
			row, err := decodeRow(e.Row)
			if err != nil {
				return nil, garbled()
			}
			if fn == nil {
				out[at].Rows = append(out[at].Rows, row)
			} else if err := fn(at, row); err != nil {
				return nil, err
			}
		case "step_end":
			out[at].Done, out[at].Changes = true, e.Changes
		case "step_error":
			out[e.Step].Err = &Error{Code: e.Error.Code, Message: e.Error.Message}
		case "error":
			return nil, &Error{Code: e.Error.Code, Message: e.Error.Message, Status: http.StatusOK, Sent: true}
		}
	}
	if head.Baton != nil {
		done, err := c.post(ctx, "/v3/pipeline", pipelineRequest{Baton: head.Baton, Requests: []any{streamRequest{Type: "close"}}})
		if err == nil { // otherwise the server closes it by itself after a while
			_ = done.Close()
		}
	}
	return out, nil
}

// post sends a request and returns the body of its answer if that is 200.
func (c *Client) post(ctx context.Context, path string, v any) (io.ReadCloser, error) {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, &Error{Message: "a value cannot be sent", Status: http.StatusBadRequest}
	}
	var sent atomic.Bool
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { sent.Store(true) }})
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.base+path, &buf)
	if err != nil {
		return nil, &Error{Message: "the URL cannot be used"}
	}
	req.Header.Set("Content-Type", "application/json")
	if c.token != nil {
		token, err := c.token()
		if err != nil {
			return nil, &Error{Message: "the token cannot be read", cause: err}
		}
		if token != "" {
			req.Header.Set("Authorization", "Bearer "+token)
		}
	}
	res, err := c.http.Do(req)
	if err != nil {
		var u *url.Error
		if errors.As(err, &u) {
			err = u.Err // without the URL
		}
		if !sent.Load() {
			return nil, &Error{Message: "no connection", cause: err}
		}
		c.Close() // the other connections are likely to lead nowhere as well
		return nil, lost(err)
	}
	if res.StatusCode == http.StatusOK {
		return res.Body, nil
	}
	defer res.Body.Close()
	e := &Error{Status: res.StatusCode, Message: "HTTP " + strconv.Itoa(res.StatusCode)}
	text, _ := io.ReadAll(io.LimitReader(res.Body, 64<<10)) // what is missing is not told
	var said wireError
	if json.Unmarshal(text, &said) == nil && said.Code != "" {
		e.Code, e.Message = said.Code, said.Message
	}
	return nil, e
}

func lost(err error) error {
	return &Error{Message: "the answer was lost", Sent: true, cause: err}
}

func garbled() error {
	return &Error{Message: "the answer is not that of a libsql server", Status: http.StatusOK, Sent: true}
}

func (r *Result) columns(cols []wireCol) {
	r.Columns = make([]string, len(cols))
	for i, c := range cols {
		r.Columns[i] = c.Name
	}
}

// What travels.
type (
	wireStep struct {
		Condition *Cond    `json:"condition,omitempty"`
		Stmt      wireStmt `json:"stmt"`
	}
	wireStmt struct {
		SQL      string `json:"sql"`
		Args     []any  `json:"args,omitempty"`
		WantRows bool   `json:"want_rows"`
	}
	wireBatch struct {
		Steps []wireStep `json:"steps"`
	}
	streamRequest struct {
		Type  string     `json:"type"`
		Batch *wireBatch `json:"batch,omitempty"`
	}
	pipelineRequest struct {
		Baton    *string `json:"baton"`
		Requests []any   `json:"requests"`
	}
	cursorRequest struct {
		Baton *string    `json:"baton"`
		Batch *wireBatch `json:"batch"`
	}
	wireError struct {
		Message string `json:"message"`
		Code    string `json:"code"`
	}
	wireCol struct {
		Name string `json:"name"`
	}
	wireResult struct {
		Cols    []wireCol     `json:"cols"`
		Rows    [][]wireValue `json:"rows"`
		Changes int64         `json:"affected_row_count"`
	}
	pipelineAnswer struct {
		Results []struct {
			Error    *wireError `json:"error"`
			Response struct {
				Result struct {
					StepResults []*wireResult `json:"step_results"`
					StepErrors  []*wireError  `json:"step_errors"`
				} `json:"result"`
			} `json:"response"`
		} `json:"results"`
	}
	cursorHead struct {
		Baton *string `json:"baton"`
	}
	cursorEntry struct {
		Type    string      `json:"type"`
		Step    int         `json:"step"`
		Cols    []wireCol   `json:"cols"`
		Row     []wireValue `json:"row"`
		Changes int64       `json:"affected_row_count"`
		Error   wireError   `json:"error"`
	}
	wireValue struct {
		Type   string          `json:"type"`
		Value  json.RawMessage `json:"value"`
		Base64 string          `json:"base64"`
	}
	sentText struct {
		Type  string `json:"type"`
		Value string `json:"value"`
	}
	sentFloat struct {
		Type  string  `json:"type"`
		Value float64 `json:"value"`
	}
	sentBlob struct {
		Type   string `json:"type"`
		Base64 []byte `json:"base64"`
	}
	sentNull struct {
		Type string `json:"type"`
	}
)

func (s Step) wire() wireStep {
	out := wireStep{Condition: s.If, Stmt: wireStmt{SQL: s.SQL, WantRows: s.Rows}}
	for _, a := range s.Args {
		var v any = sentNull{"null"}
		switch a := a.(type) {
		case int64:
			v = sentText{"integer", strconv.FormatInt(a, 10)} // more than a JSON number holds
		case float64:
			v = sentFloat{"float", a}
		case string:
			v = sentText{"text", a}
		case []byte:
			v = sentBlob{"blob", a}
		}
		out.Stmt.Args = append(out.Stmt.Args, v)
	}
	return out
}

func decodeRow(row []wireValue) ([]any, error) {
	out := make([]any, len(row))
	for i, v := range row {
		var err error
		switch v.Type {
		case "null":
		case "integer":
			out[i], err = strconv.ParseInt(strings.Trim(string(v.Value), `"`), 10, 64)
		case "float":
			// null stands for an infinity, which JSON cannot say.
			if string(v.Value) != "null" {
				out[i], err = strconv.ParseFloat(string(v.Value), 64)
			}
		case "text":
			var s string
			err = json.Unmarshal(v.Value, &s)
			out[i] = s
		case "blob":
			out[i], err = base64.RawStdEncoding.DecodeString(strings.TrimRight(v.Base64, "="))
		default:
			err = fmt.Errorf("a value of type %q", v.Type)
		}
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}
