//go:build !linux

package jail

import (
	"errors"
	"fmt"
	"runtime"
)

// ErrWeak means that this machine lacks a part of the jail without which a
// process does not run unless Profile.AllowWeak is set.
var ErrWeak = errors.New("this machine cannot confine a process")

var errPlatform = fmt.Errorf("jails need Linux, this is %s: %w", runtime.GOOS, errors.ErrUnsupported)

// Spawn returns an error that wraps errors.ErrUnsupported.
func Spawn(Config) (*Process, error) { return nil, errPlatform }

// Nice returns an error that wraps errors.ErrUnsupported.
func (*Process) Nice(int) error { return errPlatform }

// Enter returns an error that wraps ErrWeak, unless a weak jail is allowed: then
// it applies nothing and says so.
func Enter(p Profile) (Applied, error) {
	a := Applied{Profile: p.Name, Missing: []string{"everything: " + errPlatform.Error()}}
	if !p.AllowWeak {
		return a, fmt.Errorf("%w: %w", ErrWeak, errPlatform)
	}
	return a, nil
}

// LandlockABI returns an error that wraps errors.ErrUnsupported.
func LandlockABI() (int, error) { return 0, errPlatform }
