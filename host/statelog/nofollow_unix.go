//go:build unix

package statelog

import "syscall"

// noFollow has a link in the place of a file be an error.
const noFollow = syscall.O_NOFOLLOW
