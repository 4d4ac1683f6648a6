package httpd

import (
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
)

// Guard says who may call a listener. With a token everybody who has it; with
// none only callers on this machine, and no page of another site in their
// browser.
type Guard struct {
	Tokens         []string // any of them opens; empty strings do not count
	AllowedOrigins []string // scheme://host[:port] whose pages may call from a browser
	Open           []string // paths that may be read without a token
}

// CheckBind refuses an address that others than this machine can reach when
// there is no token to keep them out.
func CheckBind(host string, haveToken bool) error {
	if haveToken || isLoopback(host) {
		return nil
	}
	return fmt.Errorf("the address %q is open to other machines, and there is no token: set api.token, or listen on 127.0.0.1", host)
}

// Wrap puts the guard, and the headers that every answer carries, before next.
func (g Guard) Wrap(next http.Handler) http.Handler {
	tokens := make([][sha256.Size]byte, 0, len(g.Tokens))
	for _, t := range g.Tokens {
		if t != "" {
			tokens = append(tokens, sha256.Sum256([]byte(t)))
		}
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		secure(w.Header())
		if p := g.judge(r, tokens); p != nil {
			if p.Status == http.StatusUnauthorized {
				w.Header().Set("WWW-Authenticate", `Bearer realm="postroom"`)
			}
			g.shareWith(w.Header(), r)
			WriteProblem(w, r, p)
			return
		}
		if g.shareWith(w.Header(), r) && isPreflight(r) {
			answerPreflight(w)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// judge returns what is against the request, or nil.
func (g Guard) judge(r *http.Request, tokens [][sha256.Size]byte) *Problem {
	if len(tokens) > 0 {
		asks := isPreflight(r) && g.isAllowed(r.Header.Get("Origin")) // a browser sends no token with that
		if g.mayBeRead(r) || asks || hasToken(r, tokens) {
			return nil
		}
		return NewProblem(http.StatusUnauthorized, "unauthorized", "a valid token is needed: Authorization: Bearer TOKEN")
	}
	switch {
	case !isLoopbackRemote(r.RemoteAddr):
		return NewProblem(http.StatusForbidden, "loopback_only", "without a configured token only this machine is served")
	case !isLoopback(hostOf(r.Host)):
		// A page whose name was made to point here (DNS rebinding) still
		// sends its own name.
		return NewProblem(http.StatusForbidden, "host_not_allowed", "without a configured token the Host must be localhost or a loopback address")
	case !g.isFromHere(r):
		return NewProblem(http.StatusForbidden, "cross_site", "requests from pages of another site are refused")
	}
	return nil
}

// mayBeRead says whether the request reads an open path. Paths that need
// cleaning are not open.
func (g Guard) mayBeRead(r *http.Request) bool {
	return (r.Method == http.MethodGet || r.Method == http.MethodHead) && slices.Contains(g.Open, r.URL.Path)
}

// isFromHere says whether the request comes from no page, from a page on this
// machine, or from one that is allowed.
func (g Guard) isFromHere(r *http.Request) bool {
	origins := r.Header.Values("Origin")
	if len(origins) > 1 {
		return false
	}
	if len(origins) == 1 && g.isAllowed(origins[0]) {
		return true
	}
	if len(origins) == 1 && !isLoopbackOrigin(origins[0]) {
		return false
	}
	return !strings.EqualFold(r.Header.Get("Sec-Fetch-Site"), "cross-site")
}

func (g Guard) isAllowed(origin string) bool {
	return origin != "" && slices.Contains(g.AllowedOrigins, origin)
}

// shareWith lets the pages of an allowed origin read the answer.
func (g Guard) shareWith(h http.Header, r *http.Request) bool {
	if len(g.AllowedOrigins) == 0 {
		return false
	}
	h.Add("Vary", "Origin")
	origin := r.Header.Get("Origin")
	if !g.isAllowed(origin) {
		return false
	}
	h.Set("Access-Control-Allow-Origin", origin)
	h.Set("Access-Control-Expose-Headers", "X-Request-Id, Retry-After")
	return true
}

func isPreflight(r *http.Request) bool {
	return r.Method == http.MethodOptions && r.Header.Get("Access-Control-Request-Method") != ""
}

func answerPreflight(w http.ResponseWriter) {
	h := w.Header()
	h.Set("Access-Control-Allow-Methods", "GET, HEAD, POST, PUT, PATCH, DELETE")
	h.Set("Access-Control-Allow-Headers", "Authorization, Content-Type, Idempotency-Key, Last-Event-ID, X-Request-Id, Traceparent, Tracestate")
	h.Set("Access-Control-Max-Age", "600")
	w.WriteHeader(http.StatusNoContent)
}

// secure sets the headers of every answer. Nothing served is a page, so
// nothing may run, be framed, be embedded or be kept.
func secure(h http.Header) {
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Content-Security-Policy", "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Cache-Control", "no-store")
}

// hasToken compares digests, so that neither the time nor an early end of the
// comparison tells how much of a token was right, or which.
func hasToken(r *http.Request, tokens [][sha256.Size]byte) bool {
	headers := r.Header.Values("Authorization")
	if len(headers) != 1 {
		return false
	}
	scheme, given, _ := strings.Cut(headers[0], " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return false
	}
	sum := sha256.Sum256([]byte(strings.TrimSpace(given)))
	found := 0
	for _, t := range tokens {
		found |= subtle.ConstantTimeCompare(sum[:], t[:])
	}
	return found == 1
}

// hostOf cuts the port and an IPv6 address's brackets off.
func hostOf(hostport string) string {
	if host, _, err := net.SplitHostPort(hostport); err == nil {
		return host
	}
	if strings.HasPrefix(hostport, "[") && strings.HasSuffix(hostport, "]") {
		return hostport[1 : len(hostport)-1]
	}
	return hostport
}

func isLoopback(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.Unmap().IsLoopback()
}

func isLoopbackRemote(remote string) bool {
	addr, err := netip.ParseAddrPort(remote)
	return err == nil && addr.Addr().Unmap().IsLoopback()
}

func isLoopbackOrigin(origin string) bool {
	u, err := url.Parse(origin)
	return err == nil && (u.Scheme == "http" || u.Scheme == "https") && isLoopback(u.Hostname())
}
