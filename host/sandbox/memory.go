package sandbox

import (
	"encoding/binary"

	"github.com/tetratelabs/wazero/experimental"
)

// wasmPage is the unit in which WebAssembly memory grows.
const wasmPage = 64 << 10

// handOver gives wazero a memory that was made for the instance about to be
// created. It is good for one instantiation.
type handOver struct{ m *linearMemory }

// Allocate implements experimental.MemoryAllocator.
func (h handOver) Allocate(_, _ uint64) experimental.LinearMemory { return h.m }

func isZero(b []byte) bool {
	for len(b) >= 8 {
		if binary.NativeEndian.Uint64(b) != 0 {
			return false
		}
		b = b[8:]
	}
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}
