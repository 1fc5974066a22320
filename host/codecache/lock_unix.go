//go:build unix

package codecache

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
	"time"

	"github.com/wray-project/wray/internal/fd"
)

// filePermissions says that modes keep others out.
const filePermissions = true

// lockFile takes a lock that processes share, and returns what gives it back.
// It waits until ctx ends, and tries once in any case.
func lockFile(ctx context.Context, path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the code cache: %w", err)
	}
	// A blocking flock could not be given up, so it is tried, ever less often:
	// what is waited for takes from milliseconds to minutes.
	for wait := time.Millisecond; ; wait = min(2*wait, 50*time.Millisecond) {
		err := fd.TryLock(f)
		if err == nil {
			return func() { f.Close() }, nil
		}
		if !errors.Is(err, fd.ErrLocked) {
			f.Close()
			return nil, fmt.Errorf("lock the code cache: %w", err)
		}
		select {
		case <-ctx.Done():
			f.Close()
			return nil, ctx.Err()
		case <-time.After(wait):
		}
	}
}

// checkOwner refuses a directory of another user.
func checkOwner(dir string, st fs.FileInfo) error {
	if sys, ok := st.Sys().(*syscall.Stat_t); ok && int(sys.Uid) != os.Geteuid() {
		return fmt.Errorf("the code cache %s belongs to user %d, not to this one: set WRAY_CACHE to a directory of your own", dir, sys.Uid)
	}
	return nil
}
