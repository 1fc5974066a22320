//go:build !linux

package worker

// DefaultMemory returns a guess: the machine does not say.
func DefaultMemory() int64 { return fallbackMemory }
