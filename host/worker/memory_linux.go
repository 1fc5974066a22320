package worker

import "golang.org/x/sys/unix"

// DefaultMemory returns the bytes that tasks may reserve together: what the
// machine has.
func DefaultMemory() int64 {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return fallbackMemory
	}
	return int64(uint64(info.Totalram) * uint64(info.Unit))
}
