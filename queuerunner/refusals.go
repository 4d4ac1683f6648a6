package main

import (
	"errors"
	"net"

	"github.com/postroom/postroom/core/config"
	"github.com/postroom/postroom/core/httpd"
	"github.com/postroom/postroom/core/wiring"
)

// The keys of the addresses on which the services listen.
const (
	listenKey = "queue.http_addr"
	apiKey    = "app.host"
)

// runProblems lists what is well-formed and still keeps a runner from
// starting.
func runProblems(cfg *config.Loaded, lookup func(string) (string, bool)) []config.Problem {
	var list []config.Problem
	var database *config.Problems
	if _, err := wiring.DatabaseOptions(cfg, lookup); errors.As(err, &database) {
		list = append(list, database.List...)
	}
	if cfg.Queue.HTTPAddr != "" {
		host, _, _ := net.SplitHostPort(cfg.Queue.HTTPAddr) // config.Load checked it
		list = append(list, bindProblems(cfg, listenKey, host)...)
	}
	return list
}

// bindProblems reports an address that would serve other machines without a
// token.
func bindProblems(cfg *config.Loaded, key, host string) []config.Problem {
	if err := httpd.CheckBind(host, len(cfg.API.Accepted()) > 0); err != nil {
		return []config.Problem{{Where: cfg.Origin(key), Key: key, What: err.Error()}}
	}
	return nil
}

// refused is the error of a list of problems; nil for none.
func refused(list []config.Problem) error {
	if len(list) == 0 {
		return nil
	}
	return &config.Problems{List: list}
}
