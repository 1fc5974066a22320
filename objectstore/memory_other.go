//go:build !linux

package objectstore

import (
	"errors"
	"os"
)

// systemMemory is the heap where there is no memfd.
func systemMemory() memory { return heapMemory{} }

// defaultMaxSegments is without bound: heap segments take no descriptor.
func defaultMaxSegments() int { return 1 << 30 }

// duplicate is not reached: without memfds no window is made.
func duplicate(int) (*os.File, error) { return nil, errors.ErrUnsupported }

func copyToFile([]byte) (*os.File, error) { return nil, errors.ErrUnsupported }
