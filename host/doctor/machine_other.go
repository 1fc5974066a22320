//go:build !linux

package doctor

import "runtime"

// machine says that there is no jail here.
func machine() []Check {
	return []Check{
		warn("platform", "run with --allow-weak-jail programs that you trust, or run wray on Linux",
			"%s/%s: wray confines its processes on Linux only", runtime.GOOS, runtime.GOARCH),
		gpus("/dev"),
	}
}
