package engine

import (
	"bufio"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// newMemory returns n bytes outside the collector's heap, and what frees them.
func newMemory(n int) ([]byte, func(), error) {
	b, err := unix.Mmap(-1, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return nil, nil, fmt.Errorf("map %d bytes: %w", n, err)
	}
	return b, func() { _ = unix.Munmap(b) }, nil
}

// writeNew writes b into a new memfd and returns the time of the writes.
func writeNew(b []byte) (time.Duration, error) {
	fd, err := unix.MemfdCreate("wray-bench", unix.MFD_CLOEXEC)
	if err != nil {
		return 0, fmt.Errorf("create a memfd: %w", err)
	}
	f := os.NewFile(uintptr(fd), "wray-bench")
	defer f.Close()
	begin := time.Now()
	if _, err := f.Write(b); err != nil {
		return 0, err
	}
	return time.Since(begin), nil
}

// cpuTime returns the processor time of the calling thread, so that other
// processes do not disturb a measurement.
func cpuTime() time.Duration {
	var ts unix.Timespec
	if unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ts) != nil {
		return time.Duration(time.Now().UnixNano())
	}
	return time.Duration(ts.Nano())
}

// processMemory returns the bytes of memory that are this process's: its
// resident pages, those it shares by their share (proc(5), Pss), and its page
// tables (VmPTE).
func processMemory() (int64, error) {
	pss, err := kilobytes("/proc/self/smaps_rollup", "Pss:")
	if err != nil {
		return 0, err
	}
	pte, err := kilobytes("/proc/self/status", "VmPTE:")
	return pss + pte, err
}

// kilobytes reads a field in kB, and returns bytes.
func kilobytes(file, field string) (int64, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == field {
			n, err := strconv.ParseInt(f[1], 10, 64)
			return n << 10, err
		}
	}
	return 0, fmt.Errorf("%s has no %s", file, field)
}

// mapsLeft returns how many more mappings the process may have, some kept for
// the runtime, and the bound.
func mapsLeft() (left, bound int, err error) {
	b, err := os.ReadFile("/proc/sys/vm/max_map_count")
	if err != nil {
		return 0, 0, err
	}
	if bound, err = strconv.Atoi(strings.TrimSpace(string(b))); err != nil {
		return 0, 0, err
	}
	f, err := os.Open("/proc/self/maps")
	if err != nil {
		return 0, 0, err
	}
	defer f.Close()
	used := 0
	for sc := bufio.NewScanner(f); sc.Scan(); {
		used++
	}
	const runtimes = 2_000
	return max(0, bound-used-runtimes), bound, nil
}
