//go:build unix

package main

import (
	"os/exec"
	"syscall"
)

// apart gives a tool a process group of its own. ^C reaches the whole foreground
// group: so it ends by its context alone, and is not taken for one that failed.
// Interrupted, the Go tool removes what it has made so far.
func apart(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGINT) }
}
