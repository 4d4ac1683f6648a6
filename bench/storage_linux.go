package main

import (
	"fmt"
	"os"
	"syscall"
)

// Magic numbers of statfs(2) for file systems that are memory.
const (
	tmpfs = 0x01021994
	ramfs = 0x858458f6
)

var known = map[int64]string{0xef53: "ext4", 0x9123683e: "btrfs", 0x58465342: "xfs", 0x794c7630: "overlayfs", 0x2fc12fc1: "zfs"}

// disk names the file system that a folder lies on and refuses one that is
// memory: what does not reach a disk is no durable queue.
func disk(dir string) (string, error) {
	var fs syscall.Statfs_t
	if err := syscall.Statfs(dir, &fs); err != nil {
		return "", fmt.Errorf("%s: %w", dir, err)
	}
	switch kind := int64(fs.Type); kind { //nolint:unconvert // 32 bits wide on some machines
	case tmpfs, ramfs:
		return "", fmt.Errorf("%s lies in memory (tmpfs), where nothing is durable: choose a folder on a disk with -dir", dir)
	default:
		if name, ok := known[kind]; ok {
			return name, nil
		}
		return fmt.Sprintf("%#x", kind), nil
	}
}

// memory is the largest resident size that a process had, in MB.
func memory(s *os.ProcessState) float64 {
	usage, ok := s.SysUsage().(*syscall.Rusage)
	if !ok {
		return 0
	}
	return float64(usage.Maxrss) / 1024
}
