package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// fakeAPI answers as the API does, from lists that a test fills.
type fakeAPI struct {
	client *api

	mu       sync.Mutex
	messages []map[string]any // oldest first
	details  map[string]map[string]any
	accounts []map[string]any
	rules    []map[string]any
	refuse   string // "METHOD /path" that is answered with 503
	requests []string
}

func newFakeAPI(t *testing.T) *fakeAPI {
	t.Helper()
	f := &fakeAPI{details: map[string]map[string]any{}}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/messages", f.list(&f.messages, "messages"))
	mux.HandleFunc("GET /v1/accounts", f.list(&f.accounts, "accounts"))
	mux.HandleFunc("GET /v1/rules", f.list(&f.rules, "rules"))
	mux.HandleFunc("POST /v1/accounts", f.create(&f.accounts))
	mux.HandleFunc("POST /v1/rules", f.create(&f.rules))
	mux.HandleFunc("GET /v1/messages/{id}", func(w http.ResponseWriter, r *http.Request) {
		if m, ok := f.details[r.PathValue("id")]; ok {
			answer(w, http.StatusOK, m)
			return
		}
		for _, m := range f.messages {
			if m["id"] == r.PathValue("id") {
				answer(w, http.StatusOK, m)
				return
			}
		}
		answer(w, http.StatusNotFound, map[string]any{"code": "not_found", "title": "Not found"})
	})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.requests = append(f.requests, r.Method+" "+r.URL.Path)
		if f.refuse == r.Method+" "+r.URL.Path {
			answer(w, http.StatusServiceUnavailable, map[string]any{"code": "unavailable", "title": "Unavailable", "detail": "the database does not answer"})
			return
		}
		if r.Header.Get("Authorization") != "Bearer secret" {
			answer(w, http.StatusUnauthorized, map[string]any{"title": "Unauthorized"})
			return
		}
		mux.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	f.client = newAPI(server.URL, "secret")
	return f
}

func answer(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // the test sees what is missing
}

func (f *fakeAPI) list(rows *[]map[string]any, name string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		limit, err := strconv.Atoi(r.FormValue("limit"))
		if err != nil || limit > 200 {
			answer(w, http.StatusBadRequest, map[string]any{"title": "limit"})
			return
		}
		newest := slices.SortedFunc(slices.Values(*rows), func(a, b map[string]any) int {
			return strings.Compare(b["id"].(string), a["id"].(string))
		})
		page := []map[string]any{}
		var next any
		for _, row := range newest {
			if cursor := r.FormValue("cursor"); cursor != "" && row["id"].(string) >= cursor {
				continue
			}
			if len(page) == limit {
				next = page[limit-1]["id"]
				break
			}
			page = append(page, row)
		}
		answer(w, http.StatusOK, map[string]any{name: page, "next_cursor": next})
	}
}

func (f *fakeAPI) create(rows *[]map[string]any) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		row := map[string]any{}
		if err == nil {
			err = json.Unmarshal(body, &row)
		}
		if err != nil || r.Header.Get("Content-Type") != "application/json" {
			answer(w, http.StatusBadRequest, map[string]any{"title": "body"})
			return
		}
		row["id"] = fmt.Sprintf("row-%04d", len(*rows))
		*rows = append(*rows, row)
		answer(w, http.StatusCreated, row)
	}
}

var (
	beforeStart = time.Date(2026, 1, 3, 9, 0, 0, 0, time.UTC)
	atStart     = beforeStart.Add(time.Hour)
	afterStart  = atStart.Add(time.Hour)
)

// add stores a message that nothing is decided about.
func (f *fakeAPI) add(id, subject string, updated time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.messages = append(f.messages, map[string]any{
		"id": id, "from_email": "jonas@example.net", "from_name": nil, "subject": subject, "labels": []string{},
		"raw": map[string]any{"folder": ""}, "updated_at": updated.Format("2006-01-02T15:04:05.000Z"), "decision": nil,
	})
}

// decide stores a decision; an empty status is an action that need not be done.
func (f *fakeAPI) decide(id, action, rule, status string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	null := func(s string) any {
		if s == "" {
			return nil
		}
		return s
	}
	for _, m := range f.messages {
		if m["id"] == id {
			m["decision"] = map[string]any{"action_type": action, "rule_name": null(rule), "action_status": null(status)}
		}
	}
}

func (f *fakeAPI) set(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}
