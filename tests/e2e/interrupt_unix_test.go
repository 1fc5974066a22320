//go:build unix

package e2e

import (
	"bytes"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestInterrupt holds that ^C ends a job that computes, and all its processes.
func TestInterrupt(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), wray, "run", program(t, shell), "--", "spin")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line := make([]byte, 64)
	if n, err := out.Read(line); err != nil || !strings.HasPrefix(string(line[:n]), "spinning") {
		t.Fatalf("%q, %v\n%s", line[:n], err, errs.String())
	}
	group := cmd.Process.Pid
	_ = cmd.Process.Signal(os.Interrupt)
	ended := time.AfterFunc(30*time.Second, func() { _ = syscall.Kill(-group, syscall.SIGKILL) })
	err = cmd.Wait()
	if !ended.Stop() || err == nil || cmd.ProcessState.ExitCode() != 130 || !strings.HasSuffix(errs.String(), "wray: interrupted\n") {
		t.Errorf("%v\n%s", err, errs.String())
	}
	if err := syscall.Kill(-group, 0); err != syscall.ESRCH {
		t.Errorf("processes are left: %v", err)
	}
}
