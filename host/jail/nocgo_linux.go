//go:build linux && !cgo

package jail

import "golang.org/x/sys/unix"

const usesCgo = false

// cgoCalls is what a process without a C library needs of what one with it may
// do. mremap with an old length of 0 maps once more what is mapped shared, for
// the buffers that guests fill: nothing is moved, and its protection stays.
func cgoCalls() []rule {
	return []rule{allow(unix.SYS_MREMAP, []check{word(1, 0), word(3, unix.MREMAP_MAYMOVE|unix.MREMAP_FIXED)})}
}
