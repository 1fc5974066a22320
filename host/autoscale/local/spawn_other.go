//go:build !linux

package local

import (
	"os"
	"os/exec"
)

func spawn(list <-chan starting) {
	for s := range list {
		s.err <- s.cmd.Start()
	}
}

func own(*exec.Cmd) {}

// terminate ends a node at once where there are no signals.
func terminate(p *os.Process) error { return interrupt(p) }

func interrupt(p *os.Process) error {
	if err := p.Signal(os.Interrupt); err == nil {
		return nil
	}
	return kill(p)
}
