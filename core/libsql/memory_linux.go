package libsql

// #include <malloc.h>
import "C"

import "runtime/debug"

// fewArenas keeps the C library from giving each of a program's many threads a
// heap of its own, of which each grows to what the largest batch takes: the
// writer goroutine runs on any of them. It must come before the first connection.
func fewArenas() { C.mallopt(C.M_ARENA_MAX, 2) }

// giveMemoryBack returns what a burst of work left behind to the system. Go
// does so by itself, but only minutes later, and the C library, whose memory
// the driver uses, keeps what many threads have freed for good.
func giveMemoryBack() {
	debug.FreeOSMemory()
	C.malloc_trim(0)
}
