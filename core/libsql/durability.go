package libsql

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/postroom/postroom/core/libsql/internal/hrana"
)

// What a commit survives, as [DB].Durability tells it.
const (
	DurabilityFull    = "full"    // a power cut: it is on the disk when the call returns
	DurabilityNormal  = "normal"  // the death of every process; the last commits before a power cut may be lost
	DurabilityUnknown = "unknown" // the server does not tell
)

// A server commits like synchronous=normal unless its admin API was told
// otherwise since it was started: a restart forgets it. So each commit also
// asks how it was made. One that was not synced is followed, before anybody is
// told of it, by the order to sync from now on and a commit that does, which
// takes what stands before it in the log to the disk as well.

const sqlSynchronous = "PRAGMA synchronous"

// adminTimeout bounds a call to the admin API.
const adminTimeout = 2 * time.Second

// Durability implements [DB].
func (f *File) Durability() string { return strings.ToLower(f.opt.Synchronous) }

// Durability implements [DB].
func (r *Remote) Durability() string { return r.durability.Load().(string) }

// demandsSync says whether the server is to be told to sync each commit.
func (r *Remote) demandsSync() bool { return r.opt.Admin != "" && r.opt.Synchronous == "FULL" }

// learnDurability asks the server how it commits, and tells it to sync.
func (r *Remote) learnDurability(ctx context.Context) {
	ask := func() string {
		res, err := r.client.Run(ctx, []hrana.Step{{SQL: sqlSynchronous, Rows: true}})
		if err != nil {
			return DurabilityUnknown
		}
		return durabilityOf(res[0])
	}
	told := ask()
	if told != DurabilityFull && r.demandsSync() && syncEachCommit(ctx, r.opt.Admin) == nil {
		told = ask()
	}
	r.durability.Store(told)
}

// durabilityOf reads the answer to sqlSynchronous.
func durabilityOf(res hrana.Result) string {
	if len(res.Rows) != 1 {
		return DurabilityUnknown
	}
	switch n, _ := res.Rows[0][0].(int64); {
	case n >= 2:
		return DurabilityFull
	case n == 1:
		return DurabilityNormal
	}
	return DurabilityUnknown
}

// harden takes a commit to the disk that was made like durability, if that is
// not enough. Where the admin API does not answer, what was committed stands,
// and Durability tells.
func (r *Remote) harden(ctx context.Context, durability string) {
	if durability != DurabilityFull && syncEachCommit(ctx, r.opt.Admin) == nil {
		p := begun(r.databaseID)
		how := p.add(following(p.same), Query(sqlSynchronous))
		p.end(p.add(following(how), Exec(sqlTouch)))
		if res, err := r.client.Run(ctx, p.steps); err == nil && res[p.commit].Done {
			durability = durabilityOf(res[how])
		}
	}
	r.durability.Store(durability)
}

// syncEachCommit tells the admin API of a server that commits are to be
// durable. Everything else in its configuration is given back as it was.
func syncEachCommit(ctx context.Context, admin string) error {
	ctx, cancel := context.WithTimeout(ctx, adminTimeout)
	defer cancel()
	at := strings.TrimSuffix(admin, "/") + "/v1/namespaces/default/config"
	text, err := askAdmin(ctx, http.MethodGet, at, nil)
	if err != nil {
		return err
	}
	config := map[string]json.RawMessage{}
	if err := json.Unmarshal(text, &config); err != nil {
		return fmt.Errorf("the admin API: %w", err)
	}
	config["durability_mode"] = json.RawMessage(`"strong"`)
	if text, err = json.Marshal(config); err != nil {
		return fmt.Errorf("the admin API: %w", err)
	}
	_, err = askAdmin(ctx, http.MethodPost, at, text)
	return err
}

func askAdmin(ctx context.Context, method, url string, body []byte) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("the admin API: %w", err)
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, fmt.Errorf("the admin API: %w", err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("HTTP %d", res.StatusCode)
	}
	if err != nil {
		return nil, fmt.Errorf("the admin API: %w", err)
	}
	return text, nil
}
