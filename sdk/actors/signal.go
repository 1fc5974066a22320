package actors

import (
	"context"
	"sync"

	"github.com/wray-project/wray/sdk"
)

// A Signal lets those go on who wait for it. It may be sent to tasks and
// actors, and lives as long as somebody has it.
type Signal struct {
	Handle sdk.Handle[signal]
}

type signal struct {
	mu  sync.Mutex
	set chan struct{} // guarded by mu; closed when it is set
}

var (
	signals = sdk.Actor0("wray.signal", func(context.Context) (*signal, error) {
		return &signal{set: make(chan struct{})}, nil
	}).With(sdk.MaxConcurrency(most))
	setSignal  = sdk.Method(signals, "set", (*signal).change)
	waitSignal = sdk.Method0(signals, "wait", (*signal).wait)
)

// NewSignal makes a signal that is not set.
func NewSignal(ctx context.Context) Signal { return Signal{signals.New(ctx)} }

// Set lets all go on who wait, and who will wait until [Signal.Clear].
func (s Signal) Set(ctx context.Context) error {
	_, err := setSignal.Remote(ctx, s.Handle, true).Get(ctx)
	return err
}

// Clear has those wait who come from now on.
func (s Signal) Clear(ctx context.Context) error {
	_, err := setSignal.Remote(ctx, s.Handle, false).Get(ctx)
	return err
}

// Wait waits until the signal is set.
func (s Signal) Wait(ctx context.Context) error {
	_, err := await(ctx, waitSignal.Remote(ctx, s.Handle))
	return err
}

func (s *signal) change(_ context.Context, on bool) (struct{}, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-s.set:
		if !on {
			s.set = make(chan struct{})
		}
	default:
		if on {
			close(s.set)
		}
	}
	return struct{}{}, nil
}

func (s *signal) wait(ctx context.Context) (struct{}, error) {
	s.mu.Lock()
	set := s.set
	s.mu.Unlock()
	select {
	case <-set:
		return struct{}{}, nil
	case <-ctx.Done():
		return struct{}{}, ctx.Err()
	}
}
