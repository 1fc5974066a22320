//go:build linux && cgo

package jail

import "golang.org/x/sys/unix"

const usesCgo = true

// cgoCalls is what a process with a C library needs besides: its allocator (and
// the buffers that guests fill) and the set-up of its threads. Release builds have no cgo; builds with the race
// detector do.
func cgoCalls() []rule {
	return []rule{
		allow(unix.SYS_BRK), allow(unix.SYS_MREMAP),
		allow(unix.SYS_SET_ROBUST_LIST), allow(unix.SYS_RSEQ),
	}
}
