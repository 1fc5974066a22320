//go:build unix

package doctor

import (
	"io/fs"
	"os"
	"syscall"
)

// foreign fails when another user owns the directory, and so could replace
// native code in it.
func foreign(name, dir string, st fs.FileInfo) (Check, bool) {
	if sys, known := st.Sys().(*syscall.Stat_t); known && int(sys.Uid) != os.Geteuid() {
		return fail(name, "set WRAY_CACHE to a directory of your own", "%s belongs to user %d, not to user %d", dir, sys.Uid, os.Geteuid()), true
	}
	return Check{}, false
}
