package child

import "syscall"

// Attributes puts a process into a group of its own, and also asks the kernel to stop a service when the thread
// that started it ends: a parent that is killed leaves nothing running.
func Attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
}
