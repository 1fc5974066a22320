//go:build unix

package codecache

import (
	"os"
	"os/signal"
	"runtime"
	"syscall"
	"time"
)

// endOverBudget has this process, a compiler, end with exitBudget when it has
// used budget of processor time: so whoever started it can tell that from a kill
// that came from outside. The jail's limit, which is of whole seconds and holds
// whatever this process does, comes after it.
func endOverBudget(budget time.Duration) {
	over := make(chan os.Signal, 1)
	signal.Notify(over, syscall.SIGXCPU)
	go func() { // as long as the process
		for left := budget - processorTime(); left > 0; left = budget - processorTime() {
			// No sooner can it be used up.
			wait := left / time.Duration(runtime.NumCPU())
			select {
			case <-over:
				os.Exit(exitBudget)
			case <-time.After(max(wait, time.Millisecond)):
			}
		}
		os.Exit(exitBudget)
	}()
}

// processorTime returns how much of it this process has used.
func processorTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0 // the jail's limit holds
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
