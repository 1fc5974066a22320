package jail

import (
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// Nice sets how nice the process is: all its threads, whose own threads will be
// as nice (setpriority(2)). Only root makes a process less nice.
func (p *Process) Nice(n int) error {
	dir := fmt.Sprintf("/proc/%d/task", p.Pid())
	done := map[string]bool{}
	for range 10 { // threads may be begun meanwhile, by ones that are not done yet
		entries, err := os.ReadDir(dir)
		if err != nil {
			return fmt.Errorf("setting a priority: %w", err)
		}
		more := false
		for _, e := range entries {
			if done[e.Name()] {
				continue
			}
			done[e.Name()], more = true, true
			tid, err := strconv.Atoi(e.Name())
			if err != nil {
				continue
			}
			if err := unix.Setpriority(unix.PRIO_PROCESS, tid, n); err != nil && !errors.Is(err, unix.ESRCH) {
				return fmt.Errorf("setting a priority: %w", err)
			}
		}
		if !more {
			return nil
		}
	}
	return nil
}
