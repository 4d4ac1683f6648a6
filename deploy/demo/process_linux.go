package main

import "syscall"

// processAttributes also asks the kernel to stop a service when the thread
// that started it ends: a demo that is killed leaves nothing running.
func processAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
}
