package sdk

import (
	"context"
	"math"
	"time"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/sdk/internal/rt"
	"github.com/wray-project/wray/wasm/abi"
)

// CheckpointEvery has the actor take a checkpoint after every n calls, before
// the last of them is answered. A checkpoint is all that its sandbox holds; an
// actor that starts again does so from its last one, if it has any, and not from
// its constructor. Callers whose calls were answered after it are told so, once,
// with wray.ErrActorRestarted, in place of their next call's result. With 1 no
// call that was answered is ever lost. The default is to take none.
func CheckpointEvery(n int) Option {
	return func(o *options) {
		if n <= 0 || n > math.MaxInt32 {
			o.bad("CheckpointEvery(%d): a positive number is wanted", n)
			return
		}
		o.checkpointCalls = uint32(n)
	}
}

// CheckpointInterval has the actor take a checkpoint, between two calls, when
// one that it has answered is not in a checkpoint for d. See [CheckpointEvery],
// which it may be used with.
func CheckpointInterval(d time.Duration) Option {
	return func(o *options) {
		if d <= 0 {
			o.bad("CheckpointInterval(%v): a positive duration is wanted", d)
			return
		}
		o.checkpointEvery = d
	}
}

// Checkpoint, called in a method, has the actor take a checkpoint when that has
// returned, before its result is given. Elsewhere it is an error.
func Checkpoint(ctx context.Context) error {
	err := rt.CheckpointHere(ctx)
	switch errno, _ := err.(rt.Errno); abi.Errno(errno) {
	case abi.EPERM:
		return &wray.Error{Code: wray.CodeBadArgument, Message: "Checkpoint was called outside of an actor's method",
			Hint: "ask another actor for one with Handle.Checkpoint"}
	case abi.ENOTSUP:
		return errConcurrent
	}
	return local("checkpoint", err)
}

var errConcurrent = &wray.Error{Code: wray.CodeBadArgument, Message: "in a native build an actor with MaxConcurrency takes no checkpoints"}

// Checkpoint has the actor take a checkpoint when it has run the calls that came
// before, and waits for it.
func (h Handle[S]) Checkpoint(ctx context.Context) error {
	if h.p == nil {
		return errZeroHandle
	}
	refs, err := rt.Submit(ctx, &rt.Spec{Flags: rt.Checkpoint, Actor: h.p, NumResults: 1, Name: "checkpoint"}, nil)
	if errno, ok := err.(rt.Errno); ok && abi.Errno(errno) == abi.ENOTSUP {
		return errConcurrent
	}
	if err != nil {
		return local("checkpoint", err)
	}
	_, err = Ref[struct{}]{refs[0]}.Get(ctx)
	return err
}
