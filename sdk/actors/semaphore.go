package actors

import (
	"context"
	"errors"
	"fmt"

	"github.com/wray-project/wray/sdk"
)

// A Semaphore gives out as many permits as it has, and has others wait. It may
// be sent to tasks and actors, and lives as long as somebody has it.
type Semaphore struct {
	Handle sdk.Handle[semaphore]
}

type semaphore struct{ taken chan struct{} } // holds a token for each permit that is out

var (
	semaphores = sdk.Actor("wray.semaphore", func(_ context.Context, n int) (*semaphore, error) {
		if n <= 0 || n > 1<<20 {
			return nil, fmt.Errorf("a semaphore of %d permits: a number from 1 to 1,048,576 is wanted", n)
		}
		return &semaphore{make(chan struct{}, n)}, nil
	}).With(sdk.MaxConcurrency(most))
	acquire = sdk.Method(semaphores, "acquire", (*semaphore).acquire)
	release = sdk.Method0(semaphores, "release", (*semaphore).release)
)

// NewSemaphore makes a semaphore with n permits.
func NewSemaphore(ctx context.Context, n int) Semaphore { return Semaphore{semaphores.New(ctx, n)} }

// Acquire waits for a permit.
func (s Semaphore) Acquire(ctx context.Context) error {
	_, err := await(ctx, acquire.Remote(ctx, s.Handle, true))
	return err
}

// TryAcquire takes a permit if there is one now.
func (s Semaphore) TryAcquire(ctx context.Context) (bool, error) {
	return await(ctx, acquire.Remote(ctx, s.Handle, false))
}

// Release gives a permit back.
func (s Semaphore) Release(ctx context.Context) error {
	_, err := release.Remote(ctx, s.Handle).Get(ctx)
	return err
}

func (s *semaphore) acquire(ctx context.Context, wait bool) (bool, error) {
	select {
	case s.taken <- struct{}{}:
		return true, nil
	default:
	}
	if !wait {
		return false, nil
	}
	select {
	case s.taken <- struct{}{}:
		return true, nil
	case <-ctx.Done():
		return false, ctx.Err()
	}
}

func (s *semaphore) release(context.Context) (struct{}, error) {
	select {
	case <-s.taken:
		return struct{}{}, nil
	default:
		return struct{}{}, errors.New("the semaphore has all its permits: there is none to be released")
	}
}
