package guest

import (
	"unsafe"

	"github.com/wray-project/wray/wasm/abi"
)

// isActor says that the sandbox is an actor's: what it holds at the end of a
// call is state, and stays.
var isActor bool

// state is what the actor's constructor made.
var state any

// State is where the state of the actor that c calls, or makes, is kept.
func (c *Call) State() *any { return &state }

// Actor reports whether c makes or calls an actor.
func (c *Call) Actor() bool { return c.head.flags&abi.CallActor != 0 }

// LookupActor returns the actor of a name.
func LookupActor(name string) (*Ref, error) {
	s := takeScratch()
	defer s.give()
	call := func() uint32 {
		return importActor(unsafe.Pointer(unsafe.StringData(name)), uint32(len(name)), &s.out)
	}
	if e := call(); !ok(e) {
		if err := again(Context(), e, call); err != nil {
			return nil, err
		}
	}
	return newRef(s.out, 0), nil
}

// CheckpointHere has the actor that calls take a checkpoint before it answers.
func CheckpointHere() error {
	if e := importKill(0, abi.KillCheckpoint); !ok(e) {
		return Errno(e)
	}
	return nil
}

// Kill ends the actor r. With restart it may start again.
func Kill(r *Ref, restart bool) error {
	if err := r.Err(); err != nil {
		return err
	}
	flags := uint32(0)
	if restart {
		flags = abi.KillRestart
	}
	if e := importKill(r.handle, flags); !ok(e) {
		return Errno(e)
	}
	return nil
}
