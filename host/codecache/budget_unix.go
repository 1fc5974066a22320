//go:build unix

package codecache

import (
	"os"
	"os/signal"
	"syscall"
)

// endOverBudget has this process, a compiler, end with exitBudget when it has
// used the processor time that its jail grants. So whoever started it can tell
// that from a kill that came from outside.
func endOverBudget() {
	over := make(chan os.Signal, 1)
	signal.Notify(over, syscall.SIGXCPU)
	go func() { // as long as the process
		<-over
		os.Exit(exitBudget)
	}()
}
