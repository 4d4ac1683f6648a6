//go:build !linux

package libsql

import "runtime/debug"

// giveMemoryBack returns what a burst of work left behind to the system.
func giveMemoryBack() { debug.FreeOSMemory() }
