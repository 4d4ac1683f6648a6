// Package version says which build this is. It imports the standard library
// only.
package version

import "runtime/debug"

// version is set by the build:
//
//	-ldflags "-X github.com/postroom/postroom/core/version.version=1.2.3"
var version string

// Version is the version that was stamped in, or what the build information
// knows.
func Version() string {
	if version != "" {
		return version
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	return fromBuild(info)
}

// fromBuild reads a version out of the build information. A main module in a
// subfolder of its repository is called "(devel)"; the commit tells more.
func fromBuild(info *debug.BuildInfo) string {
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	const short = 12
	revision, modified := "", ""
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision" && len(s.Value) >= short:
			revision = "-" + s.Value[:short]
		case s.Key == "vcs.modified" && s.Value == "true":
			modified = "-modified"
		}
	}
	if revision == "" {
		return "devel"
	}
	return "devel" + revision + modified
}
