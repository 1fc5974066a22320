package sandbox

import (
	"crypto/rand"
	"time"

	"github.com/wray-project/wray"
)

// Limits bound one sandbox. A zero field takes its default.
type Limits struct {
	Memory      int64 // bytes of linear memory; default 1 GiB, at most 4 GiB
	Stack       int32 // estimated bytes of native stack; default 32 MiB
	Files       int   // open descriptors; default 64
	HeapReserve int64 // bytes of heap a Go guest reserves before its snapshot; default 8 MiB

	// Init bounds the time of each step of a module's initialisation; default
	// 20 s.
	Init time.Duration
}

const (
	maxMemory    = 4 << 30
	defaultStack = 32 << 20 // legal Go recursion is 100,000 frames deep
)

// tickPeriod is the fuel between two ticks, in instructions: some 50 µs.
const tickPeriod = 100_000

// chargePeriod is the host work between two ticks, in nanoseconds.
const chargePeriod = 100_000

func (l Limits) withDefaults() Limits {
	if l.Memory <= 0 {
		l.Memory = 1 << 30
	}
	l.Memory = min(l.Memory, maxMemory)
	if l.Stack <= 0 {
		l.Stack = defaultStack
	}
	if l.Files <= 0 {
		l.Files = 64
	}
	if l.HeapReserve <= 0 {
		l.HeapReserve = 8 << 20
	}
	if l.Init <= 0 {
		l.Init = 20 * time.Second
	}
	return l
}

func (l Limits) memoryLimit() *wray.Limit {
	return &wray.Limit{Name: "memory", Value: l.Memory, Unit: "bytes", Flag: "--memory"}
}

// pageAlign is what lengths and offsets of windows are multiples of.
const pageAlign = 4096

func randomBytes(b []byte) { _, _ = rand.Read(b) } // never fails
