package local

import (
	"os"
	"os/exec"
	"runtime"
	"syscall"
)

// spawn starts what it is given. A process is told when the thread that started
// it ends, not the process, so one thread starts all and stays.
func spawn(list <-chan starting) {
	runtime.LockOSThread() // and it is not unlocked: the thread ends with the goroutine
	for s := range list {
		s.err <- s.cmd.Start()
	}
}

// own has a process drain when this one dies, and keeps interrupts of the
// terminal from it, which are for this process to pass on.
func own(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM, Setpgid: true}
}

func terminate(p *os.Process) error { return gone(p.Signal(syscall.SIGTERM)) }

func interrupt(p *os.Process) error { return gone(p.Signal(os.Interrupt)) }
