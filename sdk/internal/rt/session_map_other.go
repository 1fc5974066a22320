//go:build !linux && !wasip1

package rt

import (
	"errors"
	"os"
	"weak"
)

// Sessions need Linux: no node elsewhere takes clients.

func mapFile(*os.File, int, func()) ([]byte, weak.Pointer[byte], error) {
	return nil, weak.Pointer[byte]{}, errors.ErrUnsupported
}

func windowBytes(*byte, int) []byte { return nil }

func sealedFile([]byte) (*os.File, error) { return nil, errors.ErrUnsupported }

func newFile() (*os.File, error) { return nil, errors.ErrUnsupported }

func seal(*os.File, int64) error { return errors.ErrUnsupported }

func newBuffer(int) []byte { return nil }

func takeBuffer([]byte) *os.File { return nil }

func collect() {}
