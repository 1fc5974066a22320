//go:build !unix

package statelog

import (
	"errors"
	"os"
)

const noFollow = 0

func flock(*os.File) error { return errors.ErrUnsupported }
