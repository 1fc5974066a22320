//go:build !linux

package worker

import (
	"errors"
	"os"
)

// dupFile is not reached: native clients need Linux.
func dupFile(*os.File) (*os.File, error) { return nil, errors.ErrUnsupported }
