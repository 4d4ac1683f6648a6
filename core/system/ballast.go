package system

import "os"

// ballastSize is about how much more than Go's own rule lets it a program may
// allocate before garbage is collected. A runner at work has some 10 MB of live
// data and is collected dozens of times a second by that rule, which takes a
// sixth of its time; a larger ballast saves hardly any more.
const ballastSize = 32 << 20

var ballast []byte

// Ballast makes collections of garbage rarer: it is never touched, so it is not
// resident, but counts as live data. A higher GOGC would multiply a large heap
// as well. Whoever has set GOGC or GOMEMLIMIT knows better and gets none.
func Ballast() {
	if os.Getenv("GOGC") == "" && os.Getenv("GOMEMLIMIT") == "" {
		ballast = make([]byte, ballastSize)
	}
}
