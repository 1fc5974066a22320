// Package actors has what programs with actors often need: a pool of them, a
// queue, a signal, a semaphore. All of it is written on package sdk alone, as a
// program could do it for itself.
package actors

import (
	"context"

	"github.com/wray-project/wray/sdk"
)

// most is how many calls may wait inside a queue, a signal or a semaphore.
// Beyond, calls wait before it, those that would let others go on too.
const most = 10_000

// await gets a result whose call has effects: one that a done ctx gives up is
// canceled, and when it has come through all the same its result counts.
func await[T any](ctx context.Context, r sdk.Ref[T]) (T, error) {
	v, err := r.Get(ctx)
	if err == nil || ctx.Err() == nil {
		return v, err
	}
	_ = r.Cancel()
	if v, late := r.Get(context.WithoutCancel(ctx)); late == nil {
		return v, nil
	}
	return v, err
}
