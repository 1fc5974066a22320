//go:build !linux

package spill

import (
	"errors"
	"os"
)

func unnamed(dir string) (*os.File, error) { return brief(dir) }

func punch(*os.File, int64, int64) error { return errors.ErrUnsupported }

// InMemory reports whether dir lies in memory, as far as is known.
func InMemory(string) bool { return false }

// Free returns the bytes that are free where dir is.
func Free(string) (int64, error) { return 0, errors.ErrUnsupported }
