package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"unicode/utf8"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/postroom/postroom/core/httpd"
	"github.com/postroom/postroom/core/job"
)

// drainBound is how much of a body that is too large is read and thrown away,
// because many clients look for an answer only when they have sent all.
const drainBound = 64 << 20

// firstRoom is the most that is set aside on a client's word alone.
const firstRoom = 1 << 20

// jsonBody is the part of an input that is a JSON object in the body. huma
// calls Resolve before the handler; its own reading of bodies has no place for
// the rules of this API (strict fields, UTF-8, 413).
type jsonBody[T any] struct{ value T }

// Resolve implements huma.Resolver.
func (b *jsonBody[T]) Resolve(ctx huma.Context) []error {
	data, err := readBody(ctx, "application/json")
	if err == nil {
		err = decodeObject(data, &b.value)
	}
	return asList(err)
}

// rawBody is the part of an input that is the body as it came.
type rawBody struct{ bytes []byte }

// Resolve implements huma.Resolver.
func (b *rawBody) Resolve(ctx huma.Context) []error {
	data, err := readBody(ctx, "message/rfc822")
	if err == nil && len(data) == 0 {
		err = &job.Invalid{Field: "body", Code: "invalid", Reason: "is empty: it must be a message"}
	}
	b.bytes = data
	return asList(err)
}

func asList(err error) []error {
	if err == nil {
		return nil
	}
	return []error{httpd.ProblemOf(err)}
}

// readBody reads a body of one media type, up to the operation's bound.
func readBody(ctx huma.Context, mediaType string) ([]byte, error) {
	r, w := humago.Unwrap(ctx)
	if err := checkMediaType(r, mediaType); err != nil {
		return nil, err
	}
	limit := ctx.Operation().MaxBodyBytes
	if r.ContentLength > limit {
		drop(r)
		return nil, tooLarge(limit)
	}
	var buf bytes.Buffer
	buf.Grow(int(min(max(r.ContentLength, 0), firstRoom)) + bytes.MinRead)
	_, err := buf.ReadFrom(io.LimitReader(r.Body, limit+1))
	var timeout net.Error
	switch {
	case errors.As(err, &timeout) && timeout.Timeout():
		return nil, httpd.NewProblem(http.StatusRequestTimeout, "timeout", "the body did not arrive in time")
	case err != nil:
		return nil, httpd.NewProblem(http.StatusBadRequest, "invalid", "the body did not arrive whole", httpd.FieldError{Field: "body", Message: "is cut off"})
	case int64(buf.Len()) > limit:
		drop(r)
		w.Header().Set("Connection", "close")
		return nil, tooLarge(limit)
	}
	if c := changeOf(ctx.Context()); c != nil && c.sum != nil {
		_, _ = c.sum.Write(buf.Bytes()) // never fails
	}
	return buf.Bytes(), nil
}

// drop takes in what a client is still sending, unless it waits to be asked.
func drop(r *http.Request) {
	if r.Header.Get("Expect") == "" {
		_, _ = io.CopyN(io.Discard, r.Body, drainBound) // the answer is the same whatever comes
	}
}

func tooLarge(limit int64) error {
	return httpd.NewProblem(http.StatusRequestEntityTooLarge, "too_large", fmt.Sprintf("the body is larger than %d bytes", limit))
}

// checkMediaType refuses a body that says it is something else, or nothing.
func checkMediaType(r *http.Request, want string) error {
	if given := r.Header.Values("Content-Type"); len(given) == 1 && isMediaType(given[0], want) {
		return nil
	}
	return httpd.NewProblem(http.StatusUnsupportedMediaType, "unsupported_media_type", "the Content-Type must be "+want)
}

// isMediaType compares without parameters, but refuses text in another
// encoding than UTF-8.
func isMediaType(given, want string) bool {
	got, params, err := mime.ParseMediaType(given)
	if err != nil || got != want {
		return false
	}
	charset, has := params["charset"]
	return want != "application/json" || !has || bytes.EqualFold([]byte(charset), []byte("utf-8"))
}

// checkUTF8 refuses JSON that is not UTF-8 before anything repairs it.
func checkUTF8(data []byte) error {
	if utf8.Valid(data) {
		return nil
	}
	return &job.Invalid{Field: "body", Code: "invalid_utf8", Reason: "is not valid UTF-8"}
}
