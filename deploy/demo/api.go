package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"
)

// api calls the HTTP API.
type api struct {
	base, token string
	http        *http.Client
}

func newAPI(base, token string) *api {
	// No proxy: the API is on this machine, whatever the environment says.
	return &api{base: base, token: token, http: &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{}}}
}

// refused is an answer that is not a success.
type refused struct {
	status int
	Code   string `json:"code"`
	Title  string `json:"title"`
	Detail string `json:"detail"`
}

func (r *refused) Error() string {
	text := r.Detail
	if text == "" {
		text = r.Title
	}
	if text == "" {
		text = http.StatusText(r.status)
	}
	if r.status == http.StatusUnauthorized {
		text += " (export the token as API_TOKEN)"
	}
	return fmt.Sprintf("%d %s", r.status, fit(text, 500))
}

func (a *api) get(ctx context.Context, path string, into any) error {
	return a.call(ctx, http.MethodGet, path, nil, into)
}

// call sends a request, with body as JSON if there is one, and decodes the
// answer into into unless that is nil.
func (a *api) call(ctx context.Context, method, path string, body []byte, into any) error {
	fail := func(err error) error {
		var inner *url.Error
		if errors.As(err, &inner) {
			err = inner.Err // it repeats method and address
		}
		return fmt.Errorf("%s %s: %w", method, path, err)
	}
	req, err := http.NewRequestWithContext(ctx, method, a.base+path, bytes.NewReader(body))
	if err != nil {
		return fail(err)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if a.token != "" {
		req.Header.Set("Authorization", "Bearer "+a.token)
	}
	res, err := a.http.Do(req)
	if err != nil {
		return fail(err)
	}
	defer func() {
		_, _ = io.Copy(io.Discard, io.LimitReader(res.Body, 1<<20)) // so that the connection can be used again
		_ = res.Body.Close()                                        // nothing is lost by it
	}()
	if res.StatusCode >= 300 {
		r := &refused{status: res.StatusCode}
		_ = json.NewDecoder(io.LimitReader(res.Body, 1<<20)).Decode(r) // the status says enough
		return fail(r)
	}
	if into == nil {
		return nil
	}
	if err := json.NewDecoder(res.Body).Decode(into); err != nil {
		return fail(err)
	}
	return nil
}

// pageSize is the largest the API gives.
const pageSize = 200

// listPath is the address of one page of a list.
func listPath(path, cursor string) string {
	q := url.Values{"limit": {fmt.Sprint(pageSize)}}
	if cursor != "" {
		q.Set("cursor", cursor)
	}
	return path + "?" + q.Encode()
}

// every calls fn for each row of a list until fn says that it has enough.
func every[T any](ctx context.Context, a *api, path, name string, fn func(T) bool) error {
	for cursor := ""; ; {
		rows, next, err := page[T](ctx, a, path, name, cursor)
		if err != nil {
			return err
		}
		for _, row := range rows {
			if !fn(row) {
				return nil
			}
		}
		if next == "" {
			return nil
		}
		cursor = next
	}
}

func page[T any](ctx context.Context, a *api, path, name, cursor string) (rows []T, next string, err error) {
	var answer map[string]json.RawMessage
	if err := a.get(ctx, listPath(path, cursor), &answer); err != nil {
		return nil, "", err
	}
	if err := json.Unmarshal(answer[name], &rows); err != nil {
		return nil, "", fmt.Errorf("GET %s: %q in the answer: %w", path, name, err)
	}
	if raw, ok := answer["next_cursor"]; ok {
		var cursor *string
		if err := json.Unmarshal(raw, &cursor); err != nil {
			return nil, "", fmt.Errorf("GET %s: \"next_cursor\" in the answer: %w", path, err)
		}
		if cursor != nil {
			next = *cursor
		}
	}
	return rows, next, nil
}

// message is what the demo reads of a message in a list.
type message struct {
	ID        string   `json:"id"`
	FromEmail string   `json:"from_email"`
	FromName  string   `json:"from_name"`
	Subject   string   `json:"subject"`
	Labels    []string `json:"labels"`
	Raw       struct {
		Folder string `json:"folder"`
	} `json:"raw"`
	UpdatedAt time.Time `json:"updated_at"`
	Decision  *struct {
		ActionType   string `json:"action_type"`
		RuleName     string `json:"rule_name"`
		ActionStatus string `json:"action_status"`
	} `json:"decision"`
	Actions []struct {
		ErrorMessage string `json:"error_message"`
	} `json:"actions"` // only when the message was asked for by its id
}

func (a *api) messages(ctx context.Context, cursor string) ([]message, string, error) {
	return page[message](ctx, a, "/v1/messages", "messages", cursor)
}

func (a *api) message(ctx context.Context, id string) (m message, err error) {
	err = a.get(ctx, "/v1/messages/"+url.PathEscape(id), &m)
	return m, err
}
