//go:build !unix

package fd

import (
	"errors"
	"os"
)

// Limit returns 0: how many files a process may have open is not known here.
func Limit() int { return 0 }

// TryLock returns errors.ErrUnsupported: there are no such locks here.
func TryLock(*os.File) error { return errors.ErrUnsupported }
