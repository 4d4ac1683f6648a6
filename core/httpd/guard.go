package httpd

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/postroom/postroom/core/token"
)

// CookieName is the cookie in which a browser that has logged in sends its
// token.
const CookieName = "postroom_token"

// Guard says who may call a listener. With tokens everybody who has one; with
// none only callers on this machine, and no page of another site in their
// browser. It is used by pointer: it counts failures.
type Guard struct {
	Tokens         *token.Keyring // any of them opens
	AllowedOrigins []string       // scheme://host[:port] whose pages may call from a browser
	// Open is what needs no token: paths that may be read, with all below them
	// where they end in a slash, and "METHOD PATH" for other calls.
	Open []string

	failures failures
}

type callerKey struct{}

// CallerOf returns who makes the request that ctx belongs to: nobody outside
// of one, and in one that needed no token where there are tokens.
func CallerOf(ctx context.Context) token.Caller {
	c, _ := ctx.Value(callerKey{}).(token.Caller)
	return c
}

// cookieLife is how long a browser stays logged in.
const cookieLife = 12 * time.Hour

// SetCookie gives a browser the token to come back with, or takes it away
// where secret is empty.
func SetCookie(w http.ResponseWriter, r *http.Request, secret string) {
	life := int(cookieLife.Seconds())
	if secret == "" {
		life = -1
	}
	http.SetCookie(w, &http.Cookie{
		Name: CookieName, Value: url.QueryEscape(secret), Path: "/", MaxAge: life, HttpOnly: true, SameSite: http.SameSiteStrictMode,
		Secure: r.TLS != nil || strings.EqualFold(r.Header.Get("X-Forwarded-Proto"), "https"),
	})
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
func (g *Guard) Wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		secure(w.Header())
		caller, p := g.judge(r)
		if p != nil {
			if p.Status == http.StatusUnauthorized {
				w.Header().Set("WWW-Authenticate", `Bearer realm="postroom"`)
				if len(r.CookiesNamed(CookieName)) > 0 {
					SetCookie(w, r, "") // or a browser would get its old token wrong again and again
				}
			}
			g.shareWith(w.Header(), r)
			WriteProblem(w, r, p)
			return
		}
		if g.shareWith(w.Header(), r) && isPreflight(r) {
			answerPreflight(w)
			return
		}
		named := r.WithContext(context.WithValue(r.Context(), callerKey{}, caller))
		defer func() { r.Pattern = named.Pattern }() // which the log and the span read
		next.ServeHTTP(w, named)
	})
}

// judge returns who calls, or what is against the request.
func (g *Guard) judge(r *http.Request) (token.Caller, *Problem) {
	nobody := token.Caller{}
	if !g.Tokens.IsEmpty() {
		if g.isOpen(r) || isPreflight(r) && g.isAllowed(r.Header.Get("Origin")) { // a browser sends no token with that
			return nobody, nil
		}
		secret, fromCookie, p := secretOf(r)
		if p != nil {
			return nobody, p
		}
		if fromCookie && crossOrigin.Check(r) != nil { // a browser sends a cookie for whoever asks it to
			return nobody, NewProblem(http.StatusForbidden, "cross_site", "changes from pages of another site are refused")
		}
		return g.Identify(r, secret)
	}
	switch {
	case !isLoopbackRemote(r.RemoteAddr):
		return nobody, NewProblem(http.StatusForbidden, "loopback_only", "without a configured token only this machine is served")
	case !isLoopback(hostOf(r.Host)):
		// A page whose name was made to point here (DNS rebinding) still
		// sends its own name.
		return nobody, NewProblem(http.StatusForbidden, "host_not_allowed", "without a configured token the Host must be localhost or a loopback address")
	case !g.isFromHere(r):
		return nobody, NewProblem(http.StatusForbidden, "cross_site", "requests from pages of another site are refused")
	}
	return token.Caller{Name: token.Loopback, Role: token.Admin}, nil
}

// crossOrigin tells a browser's requests for pages of another origin.
var crossOrigin = http.NewCrossOriginProtection()

// IsSameOrigin says whether a request comes from no page, from one of this
// very origin, or changes nothing.
func IsSameOrigin(r *http.Request) bool { return crossOrigin.Check(r) == nil }

// Identify returns whose secret it is, or why the caller is not let in. It
// counts failures by the caller's address.
func (g *Guard) Identify(r *http.Request, secret string) (token.Caller, *Problem) {
	caller, known := g.Tokens.Find(secret)
	wait := g.failures.wait(r.RemoteAddr)
	switch {
	case known && (wait == 0 || caller.Name != token.Configured):
		return caller, nil
	case wait > 0:
		return token.Caller{}, tooManyFailures(wait)
	}
	g.failures.add(r.RemoteAddr)
	return token.Caller{}, unauthorized()
}

func unauthorized() *Problem {
	return NewProblem(http.StatusUnauthorized, "unauthorized", "a valid token is needed: Authorization: Bearer TOKEN")
}

// secretOf returns the token that a request carries: in the header or, from a
// browser that has logged in, in the cookie.
func secretOf(r *http.Request) (secret string, fromCookie bool, p *Problem) {
	headers, cookies := r.Header.Values("Authorization"), r.CookiesNamed(CookieName)
	switch {
	case len(headers) == 1:
		scheme, given, _ := strings.Cut(headers[0], " ")
		secret = strings.TrimSpace(given)
		if !strings.EqualFold(scheme, "Bearer") {
			secret = ""
		}
	case len(headers) == 0 && len(cookies) == 1:
		fromCookie = true
		secret, _ = url.QueryUnescape(cookies[0].Value)
	}
	if secret == "" { // which is no guess
		return "", false, unauthorized()
	}
	return secret, fromCookie, nil
}

// isOpen says whether the request needs no token. Paths that need cleaning are
// not open.
func (g *Guard) isOpen(r *http.Request) bool {
	asked := r.URL.Path
	if cleaned := path.Clean(asked); asked != cleaned && asked != cleaned+"/" {
		return false
	}
	reads := r.Method == http.MethodGet || r.Method == http.MethodHead
	return slices.ContainsFunc(g.Open, func(open string) bool {
		if method, rest, has := strings.Cut(open, " "); has {
			return r.Method == method && asked == rest
		}
		return reads && (asked == open || strings.HasSuffix(open, "/") && strings.HasPrefix(asked, open))
	})
}

// isFromHere says whether the request comes from no page, from a page on this
// machine, or from one that is allowed.
func (g *Guard) isFromHere(r *http.Request) bool {
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

func (g *Guard) isAllowed(origin string) bool {
	return origin != "" && slices.Contains(g.AllowedOrigins, origin)
}

// shareWith lets the pages of an allowed origin read the answer.
func (g *Guard) shareWith(h http.Header, r *http.Request) bool {
	if len(g.AllowedOrigins) == 0 {
		return false
	}
	h.Add("Vary", "Origin")
	origin := r.Header.Get("Origin")
	if !g.isAllowed(origin) {
		return false
	}
	h.Set("Access-Control-Allow-Origin", origin)
	h.Set("Access-Control-Expose-Headers", "X-Request-Id, Retry-After, Idempotent-Replayed")
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
