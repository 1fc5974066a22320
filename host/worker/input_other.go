//go:build !linux

package worker

import "os"

// newWaiter returns one that does not wait: a read then holds up the closing of
// the input until it returns. Only tests run a worker here, since links need
// Linux.
func newWaiter(*os.File) (waiter, error) { return noWaiter{}, nil }

type noWaiter struct{}

func (noWaiter) wait() bool { return true }
func (noWaiter) stop()      {}
func (noWaiter) close()     {}
