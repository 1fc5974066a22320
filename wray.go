// Package wray is the vocabulary that every part of wray speaks: identities,
// resources and errors. It imports the standard library alone and builds for
// guests (GOOS=wasip1) and hosts alike, so that a component can name a task
// or explain a failure without importing another component.
package wray

import (
	"encoding/hex"
	"fmt"
	"strings"
)

// ID names a task, an object or a job for ever. Owner is drawn once per worker
// incarnation, Seq counts within it, so IDs need no coordination and never
// repeat. The zero ID names nothing.
type ID struct {
	Owner uint64 // the worker incarnation that made the ID
	Seq   uint64 // its counter, from 1
}

// IsZero reports whether id names nothing.
func (id ID) IsZero() bool { return id == ID{} }

// String returns the ID as 32 hexadecimal digits.
func (id ID) String() string {
	var b [16]byte
	for i := range 8 {
		b[i] = byte(id.Owner >> (56 - 8*i))
		b[8+i] = byte(id.Seq >> (56 - 8*i))
	}
	return hex.EncodeToString(b[:])
}

// CPU is an amount of processor time in ten-thousandths of one core, the
// resolution at which Ray counts resources. OneCPU is one core.
type CPU int64

// OneCPU is the CPU that one core gives.
const OneCPU CPU = 10_000

// CPUs returns the CPU for n cores, rounded to the resolution of CPU.
func CPUs(n float64) CPU { return CPU(n*float64(OneCPU) + 0.5) }

// Cores returns c in cores.
func (c CPU) Cores() float64 { return float64(c) / float64(OneCPU) }

// String returns c in cores, such as "0.5".
func (c CPU) String() string {
	return strings.TrimRight(strings.TrimRight(fmt.Sprintf("%d.%04d", c/OneCPU, c%OneCPU), "0"), ".")
}

// Resources is what a task holds while it runs. The zero value holds nothing.
type Resources struct {
	CPU    CPU
	Memory int64 // bytes of linear memory the sandbox may grow to
}

// Add returns the sum of r and s.
func (r Resources) Add(s Resources) Resources {
	return Resources{CPU: r.CPU + s.CPU, Memory: r.Memory + s.Memory}
}

// Sub returns r less s.
func (r Resources) Sub(s Resources) Resources {
	return Resources{CPU: r.CPU - s.CPU, Memory: r.Memory - s.Memory}
}

// Fits reports whether r can be taken out of free.
func (r Resources) Fits(free Resources) bool {
	return r.CPU <= free.CPU && r.Memory <= free.Memory
}
