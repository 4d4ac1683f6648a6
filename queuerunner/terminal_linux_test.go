package main

import (
	"fmt"
	"io"
	"os"
	"syscall"
	"testing"
	"unsafe"
)

// openTerminal returns the program's side of a terminal, and what comes out on
// the other when that is closed.
func openTerminal(t *testing.T) (program *os.File, screen <-chan string) {
	t.Helper()
	master, program := openPTY(t)
	out := make(chan string, 1)
	go func() {
		raw, _ := io.ReadAll(master) // it ends with an error when the program's side is closed
		_ = master.Close()
		out <- string(raw)
	}()
	return program, out
}

// openPTY returns both sides of a terminal.
func openPTY(t *testing.T) (master, program *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("there are no terminals here: %v", err)
	}
	var number, unlocked int32
	for request, value := range map[uintptr]*int32{syscall.TIOCGPTN: &number, syscall.TIOCSPTLCK: &unlocked} {
		if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, master.Fd(), request, uintptr(unsafe.Pointer(value))); errno != 0 {
			t.Fatal(errno)
		}
	}
	program, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("there are no terminals here: %v", err)
	}
	return master, program
}
