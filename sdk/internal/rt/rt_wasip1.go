package rt

import (
	"context"
	"errors"
	"time"

	"github.com/wray-project/wray/wasm/abi"
	"github.com/wray-project/wray/wasm/guest"
)

// Sandboxed tells whether tasks run in sandboxes.
const Sandboxed = true

// RefsOwned tells whether the Refs of a Value that was read are its reader's alone.
const RefsOwned = true

// The types and flags are the binding's.
type (
	Value = guest.Value
	Ref   = guest.Ref
	Spec  = guest.Spec
	Arg   = guest.Arg
	Call  = guest.Call
	Errno = guest.Errno

	Builder  = guest.Builder
	Stat     = guest.Stat
	Prepared = guest.Prepared
)

// Flags of a Spec.
const (
	Fresh       = abi.SpecFresh
	StreamTask  = abi.SpecStream
	RetryErrors = abi.SpecRetryErrors
	HasCPU      = abi.SpecHasCPU
	HasRetries  = abi.SpecHasRetries
	NewActor    = abi.SpecActor
	Named       = abi.SpecNamed
	GetIfExists = abi.SpecGetIfExists
	Detached    = abi.SpecDetached
	Durable     = abi.SpecDurable
	Checkpoint  = abi.SpecCheckpoint
	NewGroup    = abi.SpecGroup
	InGroup     = abi.SpecInGroup
	Capture     = abi.SpecCapture
)

// Errors of the binding.
var (
	ErrStale         = guest.ErrStale
	ErrStreamDropped = guest.ErrStreamDropped
	ErrTooLong       = guest.ErrTooLong
	ErrFreed         = guest.ErrFreed
)

// Declare says that f runs the task called name.
func Declare(name string, f func(*Call)) error { return guest.Declare(name, f) }

// Known reports whether numbers of functions are the same for each submission.
func Known(context.Context, *Ref) bool { return true }

// Lookup returns the number of a function.
func Lookup(_ context.Context, _ *Ref, module, name string) (uint32, error) {
	return guest.Lookup(module, name)
}

// Submit submits a task and appends a Ref for each result to into.
func Submit(ctx context.Context, t *Spec, into []*Ref) ([]*Ref, error) {
	return guest.Submit(ctx, t, into)
}

// Prepare describes a task that is submitted many times.
func Prepare(t *Spec) *Prepared { return guest.Prepare(t) }

// Put stores a value.
func Put(ctx context.Context, v *Value) (*Ref, error) { return guest.Put(ctx, v) }

// Alloc returns n zero bytes, which become an object without being copied.
func Alloc(ctx context.Context, n int) ([]byte, error) { return guest.Alloc(ctx, n) }

// NewBuilder returns a builder for an object of size bytes at most.
func NewBuilder(ctx context.Context, size int64) (*Builder, error) {
	return guest.NewBuilder(ctx, size)
}

// Wait waits until n of refs are ready.
func Wait(ctx context.Context, refs []*Ref, n int, timeout time.Duration) (int, error) {
	return guest.Wait(ctx, refs, n, timeout)
}

// LookupActor returns the actor of a name.
func LookupActor(name string) (*Ref, error) { return guest.LookupActor(name) }

// Kill ends an actor. With restart it may start again.
func Kill(r *Ref, restart bool) error { return guest.Kill(r, restart) }

// CheckpointHere has the actor that calls take a checkpoint before it answers.
func CheckpointHere(context.Context) error { return guest.CheckpointHere() }

// Failed returns a Ref that stands for no object, because of err.
func Failed(err error) *Ref { return guest.Failed(err) }

// Group returns a Ref that stands for several objects.
func Group(parts []*Ref) *Ref { return guest.Group(parts) }

// Why is what the host says of why it refused a call that failed with err: a
// wray.Error in CBOR, or nil.
func Why(err error) []byte {
	var r *guest.Refusal
	if errors.As(err, &r) {
		return r.Why
	}
	return nil
}

// HTTPRequest is what a server is asked.
type HTTPRequest = guest.HTTPRequest

// Fetch asks a server, and returns the stream of its answer.
func Fetch(ctx context.Context, r *HTTPRequest) (*Ref, error) { return guest.Fetch(ctx, r) }

// Context returns the context of the driver.
func Context() context.Context { return guest.Context() }

// SetExitCode says what the driver ends with.
func SetExitCode(code int) { guest.ExitCode = code }
