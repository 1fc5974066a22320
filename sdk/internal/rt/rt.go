// Package rt is what package sdk runs on. In a guest (GOOS=wasip1) it is the
// binding wasm/guest; elsewhere it is an in-process runtime with the same
// functions, so that a program with tasks can be tested and debugged as an
// ordinary Go program. There, tasks are goroutines: nothing is sandboxed, CPU,
// memory and custom resources are not accounted, and a task that ignores its context runs on
// after it was canceled or timed out. What a caller sees is the same: values
// are encoded and copied, failures carry the same codes, retries and streams
// follow the same rules.
package rt

import "github.com/wray-project/wray/wasm/abi"

// A Payload is a type with an encoding of its own: a pointer to a value of it
// has these methods.
type Payload interface {
	// MarshalPayload writes the value into memory of alloc.
	MarshalPayload(alloc func(n int) ([]byte, error)) (abi.Encoding, []byte, error)
	// UnmarshalPayload reads p, which it may keep, and which may come from
	// anybody. Its encoding is that of the type.
	UnmarshalPayload(p []byte) error
}
