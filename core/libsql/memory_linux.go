package libsql

// #include <malloc.h>
import "C"

import "runtime/debug"

// giveMemoryBack returns what a burst of work left behind to the system. Go
// does so by itself, but only minutes later, and the C library, whose memory
// the driver uses, keeps what many threads have freed for good.
func giveMemoryBack() {
	debug.FreeOSMemory()
	C.malloc_trim(0)
}
