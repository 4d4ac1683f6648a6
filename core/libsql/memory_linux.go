package libsql

// #include <malloc.h>
//
// // The C library would give each of a program's many threads a heap of its own,
// // and each would grow to what the largest batch takes, for the writer goroutine
// // runs on any of them. It must be told before there are threads.
// static void __attribute__((constructor)) few_heaps(void) { mallopt(M_ARENA_MAX, 2); }
import "C"

import "runtime/debug"

// giveMemoryBack returns what a burst of work left behind to the system. Go
// does so by itself, but only minutes later, and the C library, whose memory
// the driver uses, keeps what many threads have freed for good.
func giveMemoryBack() {
	debug.FreeOSMemory()
	C.malloc_trim(0)
}
