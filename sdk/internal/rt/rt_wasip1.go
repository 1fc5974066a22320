package rt

import (
	"context"
	"time"

	"github.com/wray-project/wray/wasm/abi"
	"github.com/wray-project/wray/wasm/guest"
)

// Sandboxed tells whether tasks run in sandboxes.
const Sandboxed = true

// The types and flags are the binding's.
type (
	Value = guest.Value
	Ref   = guest.Ref
	Spec  = guest.Spec
	Arg   = guest.Arg
	Call  = guest.Call
	Errno = guest.Errno
)

// Flags of a Spec.
const (
	Fresh       = abi.SpecFresh
	StreamTask  = abi.SpecStream
	RetryErrors = abi.SpecRetryErrors
	HasCPU      = abi.SpecHasCPU
	HasRetries  = abi.SpecHasRetries
)

// Errors of the binding.
var (
	ErrStale         = guest.ErrStale
	ErrStreamDropped = guest.ErrStreamDropped
)

// Declare says that f runs the task called name.
func Declare(name string, f func(*Call)) error { return guest.Declare(name, f) }

// Lookup returns the number of a function.
func Lookup(module, name string) (uint32, error) { return guest.Lookup(module, name) }

// Submit submits a task and appends a Ref for each result to into.
func Submit(ctx context.Context, t *Spec, into []*Ref) ([]*Ref, error) {
	return guest.Submit(ctx, t, into)
}

// Put stores a value.
func Put(ctx context.Context, v *Value) (*Ref, error) { return guest.Put(ctx, v) }

// Wait waits until n of refs are ready.
func Wait(ctx context.Context, refs []*Ref, n int, timeout time.Duration) (int, error) {
	return guest.Wait(ctx, refs, n, timeout)
}

// Failed returns a Ref that stands for no object, because of err.
func Failed(err error) *Ref { return guest.Failed(err) }

// Group returns a Ref that stands for several objects.
func Group(parts []*Ref) *Ref { return guest.Group(parts) }

// Context returns the context of the driver.
func Context() context.Context { return guest.Context() }

// SetExitCode says what the driver ends with.
func SetExitCode(code int) { guest.ExitCode = code }
