// Package archtest holds the rules about who may import whom, each with its
// reason, and checks them. It imports the standard library only, and only its
// own test imports it.
package archtest

import (
	"fmt"
	"slices"
	"strings"
)

const (
	root = "github.com/postroom/postroom/"
	core = root + "core/"
)

// Package is what the rules look at in one package of the workspace.
type Package struct {
	Path        string
	Imports     []string // of the package itself
	TestImports []string // of its tests, external ones included
	DocComments int      // files with a package comment
}

// Rule forbids imports.
type Rule struct {
	Who     []string // packages it binds, each with everything below it; none means all
	Except  []string // packages it does not bind, each alone
	Allow   []string // all that may be imported; Std stands for the standard library
	Forbid  []string // what may not be imported, each with everything below it
	Through bool     // Forbid counts through other packages of the workspace as well
	Tests   bool     // binds tests as well
	Why     string
}

// Std stands for the standard library in Rule.Allow.
const Std = "std"

// Rules are Postroom's.
var Rules = []Rule{
	{
		Who: []string{root + "migrations"}, Allow: []string{"embed"}, Tests: true,
		Why: "every module reads the schema without taking on a dependency",
	},
	{
		Who: []string{core + "job", core + "system"}, Allow: []string{Std},
		Why: "both services and every package build on what a job is and on the door to time and chance",
	},
	{
		Who: []string{core + "cron"}, Allow: []string{Std, "github.com/robfig/cron/v3"},
		Why: "a calendar knows no jobs, no database and not the time",
	},
	{
		Except: []string{core + "cron"}, Forbid: []string{"github.com/robfig/cron"}, Tests: true,
		Why: "its own search of a calendar skips and repeats times where clocks are changed",
	},
	{
		Except: []string{core + "libsql/internal/native"}, Forbid: []string{"github.com/tursodatabase", "github.com/libsql"}, Tests: true,
		Why: "the driver crashes when a connection is closed and has other traps, which only core/libsql handles",
	},
	{
		Except: []string{core + "telemetry", core + "telemetry/otlptest"},
		Forbid: []string{"go.opentelemetry.io/otel/sdk", "go.opentelemetry.io/otel/exporters"},
		Why:    "everybody else uses OpenTelemetry's API, so that how telemetry leaves the process is decided in one place",
	},
	{
		Who: []string{root + "apiserver"}, Forbid: []string{core + "worker", core + "debugjobs", core + "mail/agent"}, Through: true, Tests: true,
		Why: "the apiserver stores jobs and never runs one",
	},
	{
		Who: []string{root + "apiserver"}, Forbid: []string{root + "queuerunner"}, Through: true, Tests: true,
		Why: "the services are built and deployed apart",
	},
	{
		Who: []string{root + "queuerunner"}, Forbid: []string{root + "apiserver"}, Through: true, Tests: true,
		Why: "the services are built and deployed apart",
	},
	{
		Who: []string{root + "core"}, Forbid: []string{root + "apiserver", root + "queuerunner"}, Tests: true,
		Why: "the core knows nothing of the services built on it",
	},
	{
		Who: []string{root + "core"}, Except: []string{core + "wiring"}, Forbid: []string{core + "fault", core + "wiring"},
		Why: "faults are put on where a service is wired together, so that no package behaves differently in a rehearsal",
	},
	{
		Forbid: []string{core + "internal/dbtest", core + "internal/exampletest", core + "internal/sim", core + "queuetest"},
		Why:    "helpers of tests stay out of what is shipped",
	},
	{
		Forbid: []string{"github.com/rs/zerolog/log"}, Tests: true,
		Why: "a global logger escapes the configuration and the tests",
	},
}

// Check returns what is wrong, one sentence each.
func Check(rules []Rule, pkgs []Package) []string {
	byPath := map[string]Package{}
	for _, p := range pkgs {
		byPath[p.Path] = p
	}
	var wrong []string
	for _, p := range pkgs {
		if p.DocComments != 1 {
			wrong = append(wrong, fmt.Sprintf("%s has %d package comments, want one: it says what the package is for and what it may import", p.Path, p.DocComments))
		}
		for _, r := range rules {
			if slices.Contains(r.Except, p.Path) || len(r.Who) > 0 && !slices.ContainsFunc(r.Who, func(w string) bool { return within(p.Path, w) }) {
				continue
			}
			for _, chain := range chains(byPath, p, r) {
				if r.breaks(chain[len(chain)-1]) {
					wrong = append(wrong, fmt.Sprintf("%s imports %s: %s", p.Path, strings.Join(chain, ", which imports "), r.Why))
				}
			}
		}
	}
	return wrong
}

// chains lists how p comes to each of its imports, the shortest way.
func chains(byPath map[string]Package, p Package, r Rule) [][]string {
	direct := slices.Clone(p.Imports)
	if r.Tests {
		direct = append(direct, p.TestImports...)
	}
	seen := map[string]bool{p.Path: true}
	var out [][]string
	var next [][]string
	for _, path := range direct {
		next = append(next, []string{path})
	}
	for len(next) > 0 {
		chain := next[0]
		next = next[1:]
		last := chain[len(chain)-1]
		if seen[last] {
			continue
		}
		seen[last] = true
		out = append(out, chain)
		if r.Through {
			for _, path := range byPath[last].Imports {
				next = append(next, append(slices.Clone(chain), path))
			}
		}
	}
	return out
}

func (r Rule) breaks(path string) bool {
	if slices.ContainsFunc(r.Forbid, func(f string) bool { return within(path, f) }) {
		return true
	}
	if len(r.Allow) == 0 || slices.Contains(r.Allow, path) {
		return false
	}
	first, _, _ := strings.Cut(path, "/")
	return !slices.Contains(r.Allow, Std) || strings.Contains(first, ".")
}

// within says whether path is tree or below it.
func within(path, tree string) bool {
	return path == tree || strings.HasPrefix(path, tree+"/")
}
