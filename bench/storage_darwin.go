package main

import (
	"os"
	"syscall"
)

// disk cannot tell here what a folder lies on: macOS has no file system in
// memory unless somebody makes one.
func disk(dir string) (string, error) {
	_, err := os.Stat(dir)
	return "unknown", err
}

// memory is the largest resident size that a process had, in MB.
func memory(s *os.ProcessState) float64 {
	usage, ok := s.SysUsage().(*syscall.Rusage)
	if !ok {
		return 0
	}
	return float64(usage.Maxrss) / (1 << 20)
}
