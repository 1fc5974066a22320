package worker

import (
	"fmt"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/scheduler"
	"github.com/wray-project/wray/wasm/abi"
)

// What workers say to each other of actors that live away from the job's node:
// parts of lendBody, and what a guest asks its job's worker.

// makeBody is what there is to know of an actor beside the task that makes it.
type makeBody struct {
	Width      int      `cbor:"1,keyasint,omitempty"` // calls at once; 0: one
	Idle       int64    `cbor:"2,keyasint,omitempty"`
	Calls      uint32   `cbor:"3,keyasint,omitempty"` // between two checkpoints
	Every      int64    `cbor:"4,keyasint,omitempty"` // likewise
	Flags      uint32   `cbor:"5,keyasint,omitempty"` // of an askBody, as are those below
	Restarts   int      `cbor:"6,keyasint,omitempty"`
	Tries      int      `cbor:"7,keyasint,omitempty"`
	MaxPending int      `cbor:"8,keyasint,omitempty"`
	RetryOn    []string `cbor:"9,keyasint,omitempty"`
	Place      []byte   `cbor:"10,keyasint,omitempty"` // as wray.Placement.Append writes it
	Last       *argBody `cbor:"11,keyasint,omitempty"` // the checkpoint that it begins from
}

// callBody says whose call a lent task is. Calls of one caller are run in the
// order in which they were sent.
type callBody struct {
	// Actor is an object of the receiver's that stands for the actor, or, with
	// an Attempt, the task that made the actor which the sender has placed there.
	Actor   idBody `cbor:"1,keyasint"`
	Attempt int    `cbor:"2,keyasint,omitempty"`
	From    uint64 `cbor:"3,keyasint"` // the caller, as the mailbox tells them apart
	Flags   uint32 `cbor:"4,keyasint,omitempty"`
	Key     string `cbor:"5,keyasint,omitempty"` // that the caller chose, for a durable actor
}

// askBody is what a guest asks the worker of its job, and waits for: one of
// Find, Kill and Make.
type askBody struct {
	N    uint64    `cbor:"1,keyasint"` // that the answer has
	Job  idBody    `cbor:"2,keyasint"`
	Find *string   `cbor:"3,keyasint,omitempty"` // the actor of that name
	Kill *killBody `cbor:"4,keyasint,omitempty"`
	Make *lendBody `cbor:"5,keyasint,omitempty"` // an actor
}

// killBody is an actor that is to end.
type killBody struct {
	Actor   idBody `cbor:"1,keyasint"`
	Restart bool   `cbor:"2,keyasint,omitempty"`
}

// answerBody is what came of an askBody.
type answerBody struct {
	N   uint64   `cbor:"1,keyasint"`
	Err []byte   `cbor:"2,keyasint,omitempty"` // objectstore.EncodeFailure
	Ref *refBody `cbor:"3,keyasint,omitempty"` // the actor; neither: there is none, or it is done
}

// callFlags and makeFlags are those of a task_spec that travel with a call, and
// with an actor that is asked for.
const (
	callFlags = abi.SpecCheckpoint | abi.SpecStream
	makeFlags = abi.SpecNamed | abi.SpecGetIfExists | abi.SpecDetached | abi.SpecRetryErrors | abi.SpecInGroup | abi.SpecCapture
)

// check checks what can be checked without knowing more than the message, and
// counts references; value checks values.
func (b *lendBody) check(value func(*valueBody) error) (refs int, err error) {
	if b.Attempt < 1 || b.CPU < 0 || b.Memory < 0 || b.Memory > maxMemory || b.Timeout < 0 || len(b.Args) > maxArgs ||
		b.Results < 0 || b.Results > maxPeerResults || len(b.Name) > maxName || len(b.Module) > maxName || len(b.Func) > maxName || len(b.Custom) > wray.MaxCustom {
		return 0, fmt.Errorf("a lent task that makes no sense: %d arguments, %d results", len(b.Args), b.Results)
	}
	if m := b.Make; m != nil && (b.Call != nil || b.Results != 1 || m.Flags&^makeFlags != 0 || m.Width < 0 || m.Width > maxConcurrency ||
		m.Idle < 0 || m.Every < 0 || m.MaxPending < 0 || m.Restarts < scheduler.Forever || len(m.RetryOn) > maxName) {
		return 0, fmt.Errorf("an actor that makes no sense: %+v", m)
	}
	if m := b.Make; m != nil {
		if _, err := wray.ParsePlacement(string(m.Place)); err != nil {
			return 0, err
		}
		if l := m.Last; l != nil {
			if l.Ref == nil || l.Value.Encoding != uint32(abi.EncodingRaw) {
				return 0, fmt.Errorf("an actor that begins from nothing")
			}
			refs++
			if err := value(&l.Value); err != nil {
				return 0, err
			}
		}
	}
	if c := b.Call; c != nil && (c.Attempt < 0 || c.Flags&^callFlags != 0 || len(c.Key) > maxName || b.CPU|b.Memory != 0 || len(b.Custom) > 0) {
		return 0, fmt.Errorf("a call that makes no sense: %+v", c)
	}
	if b.Group != nil {
		if refs++; b.Call != nil || b.Bundle < wray.AnyBundle || b.Bundle >= wray.MaxBundles {
			return 0, fmt.Errorf("bundle %d of a placement group", b.Bundle)
		}
	}
	for i := range b.Args {
		a := &b.Args[i]
		v := &a.Value
		if err := value(v); err != nil {
			return 0, err
		}
		follows := v.Encoding == 0 && v.Away == 0 && len(v.Refs)+len(v.Payload) == 0
		switch {
		case a.Ref != nil:
			refs++
			if v.Encoding == 0 && (b.Call == nil && b.Make == nil || !follows) {
				return 0, fmt.Errorf("argument %d has no value", i)
			}
		case v.Away != 0, len(v.Refs) > 0, v.Encoding == uint32(abi.EncodingError), v.Encoding == 0:
			return 0, fmt.Errorf("argument %d has no object to be", i)
		}
	}
	return refs, nil
}

func (b *askBody) check(value func(*valueBody) error) (refs int, err error) {
	n := 0
	if b.Find != nil {
		if n++; len(*b.Find) > maxName {
			return 0, fmt.Errorf("an actor's name of %d bytes", len(*b.Find))
		}
	}
	if b.Kill != nil {
		n++
	}
	if m := b.Make; m != nil {
		if n++; m.Make == nil || m.Make.Last != nil {
			return 0, fmt.Errorf("a task in place of an actor")
		}
		if refs, err = m.check(value); err != nil {
			return 0, err
		}
	}
	if n != 1 {
		return 0, fmt.Errorf("%d questions in one", n)
	}
	return refs, nil
}
