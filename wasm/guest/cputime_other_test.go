//go:build !unix

package guest_test

import "time"

var began = time.Now()

// cpuTime stands in for the processor time that the process has used.
func cpuTime() time.Duration { return time.Since(began) }
