package config

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/pelletier/go-toml/v2"
)

func TestSecretNeverShows(t *testing.T) {
	t.Parallel()
	const word = "sesame"
	c := Default()
	c.API.Token = NewSecret(word)
	c.API.Tokens = []Secret{NewSecret(word)}
	hidden := struct{ inner Config }{c} // fmt calls no methods below an unexported field

	var shown []string
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%p"} {
		for _, value := range []any{c, &c, hidden, c.API.Token, &c.API.Token, c.API.Tokens} {
			shown = append(shown, fmt.Sprintf(verb, value))
		}
	}
	shown = append(shown, c.API.Token.GoString(), c.API.Token.String())
	asJSON, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	asTOML, err := toml.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	shown = append(shown, string(asJSON), string(asTOML))
	for _, text := range shown {
		for _, trace := range []string{word, fmt.Sprintf("%x", word), fmt.Sprintf("%X", word)} {
			if strings.Contains(text, trace) {
				t.Errorf("the secret shows in %s", text)
			}
		}
	}
	if c.API.Token.Reveal() != word || c.API.Token.String() != "***" || (Secret{}).String() != "" || NewSecret("").String() != "" {
		t.Error("a set secret shows as *** and an empty one as nothing")
	}
}

func TestSecretStaysOutOfErrorsAndPrints(t *testing.T) {
	t.Parallel()
	const word = "sesame"
	for _, text := range []string{
		"api.token = '" + word + " " + word + "'",
		"api.tokens = ['" + word + "', 5]",
		"api.token = ['" + word + "']",
		"api.token = { x = '" + word + "' }",
		"api.token = " + word,
		"api.token = '" + word,
		"api.token = '''" + word,
		"app.port = '" + word + "'",
		"queue.lease = '" + word + "'",
		"paths.database = 'libsql://u:" + word + "@host'",
		"paths.database = 'libsql://host?authToken=" + word + "'",
		"paths.database = 'https://host?x=%zz" + word + "'",
		"paths.database = 'https://%zz" + word + "'",
		"telemetry.otlp_endpoint = 'http://u:" + word + "@host'",
		"app.env = 'env:HIDDEN'",
		"app.port = 'env:HIDDEN'",
		"queue.queues = ['env:HIDDEN', 'env:HIDDEN']",
	} {
		_, err := Load(Options{Path: write(t, text), Lookup: env("HIDDEN", word)})
		if err == nil || strings.Contains(err.Error(), word) {
			t.Errorf("%s: %v", text, err)
		}
	}

	l := load(t, "api.token = '"+word+"'\napi.tokens = ['env:HIDDEN']\nmodel.api_key = '"+word+"'",
		"HIDDEN", word, "DISCORD_BOT_TOKEN", word)
	var out bytes.Buffer
	if err := l.Print(&out); err != nil {
		t.Fatal(err)
	}
	if err := l.PrintJSON(&out); err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(&out, l.Reserved(), l.Origin("api.token"))
	if strings.Contains(out.String(), word) || strings.Count(out.String(), `"***"`) != 8 {
		t.Errorf("printed:\n%s", &out)
	}
}

func TestDuration(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"60s": "1m", "90s": "1m30s", "24h": "24h", "720h": "720h", "1h10m": "1h10m", "0": "0s", "10m": "10m", "1h0m1s": "1h0m1s", "5ms": "5ms", "100m": "1h40m", "-10m": "-10m",
	} {
		var d Duration
		if err := d.UnmarshalText([]byte(in)); err != nil {
			t.Errorf("%s: %v", in, err)
		}
		got, _ := d.MarshalText()
		var again Duration
		if err := again.UnmarshalText(got); err != nil || string(got) != want || again != d {
			t.Errorf("%s became %s, want %s (%v)", in, got, want, err)
		}
	}
	for _, in := range []string{"", "5", "1d", "9999999h"} {
		if err := new(Duration).UnmarshalText([]byte(in)); err == nil || in != "" && strings.Contains(err.Error(), in) {
			t.Errorf("%q: %v", in, err)
		}
	}
}
