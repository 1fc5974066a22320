//go:build !linux

package link

import (
	"errors"
	"fmt"
	"os"
	"runtime"
)

// errPlatform says why there is no link here: workers pass descriptors of
// sealed shared memory, which Linux alone has.
var errPlatform = fmt.Errorf("links between processes need Linux, this is %s: %w", runtime.GOOS, errors.ErrUnsupported)

// Pair returns an error that wraps errors.ErrUnsupported.
func Pair(Options) (parent *Conn, child *os.File, err error) { return nil, nil, errPlatform }

// FromFile closes file and returns an error that wraps errors.ErrUnsupported.
func FromFile(file *os.File, _ Options) (*Conn, error) {
	file.Close()
	return nil, errPlatform
}
