package config

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
)

// masked stands for a secret wherever one would be shown.
const masked = "***"

// Secret is a string that shows itself as *** in every textual form. The zero
// value is an unset secret and shows as nothing.
type Secret struct {
	// A pointer, because fmt ignores our methods when a Secret sits below an
	// unexported field, and then prints an address instead of the value.
	value *string
}

// NewSecret wraps s.
func NewSecret(s string) Secret {
	if s == "" {
		return Secret{}
	}
	return Secret{&s}
}

// Reveal returns the secret itself. Call it where the secret is used, not
// before.
func (s Secret) Reveal() string {
	if s.value == nil {
		return ""
	}
	return *s.value
}

// String returns *** or, for an unset secret, the empty string.
func (s Secret) String() string {
	if s.Reveal() == "" {
		return ""
	}
	return masked
}

// GoString is String.
func (s Secret) GoString() string { return s.String() }

// Format writes String whatever the verb.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, s.String()) }

// MarshalText returns String.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// MarshalJSON returns String as a JSON string.
func (s Secret) MarshalJSON() ([]byte, error) { return json.Marshal(s.String()) }

// UnmarshalText takes text as the secret.
func (s *Secret) UnmarshalText(text []byte) error {
	*s = NewSecret(string(text))
	return nil
}

// Duration is a time.Duration whose text is Go's: "3s", "1m30s".
type Duration struct{ time.Duration }

var errDuration = errors.New("not a duration")

// UnmarshalText parses text. Its errors never contain the text.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	if err != nil {
		return errDuration
	}
	d.Duration = v
	return nil
}

// MarshalText returns the shortest text: "1m" rather than "1m0s".
func (d Duration) MarshalText() ([]byte, error) {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return []byte(s), nil
}
