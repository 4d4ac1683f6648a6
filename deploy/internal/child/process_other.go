//go:build !linux

package child

import "syscall"

// Attributes puts a process into a group of its own.
func Attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true}
}
