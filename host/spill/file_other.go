//go:build !linux

package spill

import (
	"errors"
	"os"
)

func unnamed(dir string) (*os.File, error) { return brief(dir) }

// reading and again have no way without a descriptor's path.
func reading(*os.File) (*os.File, error) { return nil, errors.ErrUnsupported }

func again(*os.File) (*os.File, error) { return nil, errors.ErrUnsupported }

func checkMemory(*os.File) error { return errors.ErrUnsupported }

func allocate(*os.File, int64) error { return nil }

// allocated does not know, so that what was written counts.
func allocated(*os.File) int64 { return 1 << 62 }

func punch(*os.File, int64, int64) error { return errors.ErrUnsupported }

func transfer(dst *os.File, at int64, src *os.File, off, n int64) error {
	return copyRange(dst, at, src, off, n)
}

// InMemory reports whether dir lies in memory, as far as is known.
func InMemory(string) bool { return false }

// Free returns the bytes that are free where dir is.
func Free(string) (int64, error) { return 0, errors.ErrUnsupported }
