//go:build !unix

package fd

import (
	"errors"
	"os"
)

// TryLock returns errors.ErrUnsupported: there are no such locks here.
func TryLock(*os.File) error { return errors.ErrUnsupported }
