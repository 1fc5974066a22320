package jail

import (
	"fmt"
	"os"
	"sync"
	"time"
)

// Config says how a process is started.
type Config struct {
	// Args follow the program's name: a hidden verb and what it needs.
	Args []string
	// Path is the executable; empty means this one, which may have been
	// replaced or deleted since.
	Path string
	// Files become descriptors 3, 4, … of the child. They are borrowed.
	Files []*os.File
	// Stderr receives the child's standard error. nil keeps its last
	// StderrBytes (default 16 KiB) for Process.Stderr.
	Stderr      *os.File
	StderrBytes int
	// Env is added to an environment that is otherwise empty but for what the
	// Go runtime and this package need.
	Env []string
	// MaxProcs is the child's GOMAXPROCS; zero is that of this process.
	MaxProcs int
	// Cgroup, if not nil, is joined before the child does anything.
	Cgroup *Cgroup
}

const defaultStderrBytes = 16 << 10

// Process is a child started by Spawn. Its methods may be called concurrently.
// It dies with this process. Whoever started it waits for it.
type Process struct {
	proc       *os.Process
	namespaces []string
	limit      int
	done       chan struct{} // closed when exit is set
	exit       Exit          // read after done

	mu     sync.Mutex
	stderr []byte // guarded by mu
}

// Exit is how a process ended.
type Exit struct {
	Code   int           // exit status; -1 after a signal
	Signal string        // the signal that ended it, such as "killed"; empty if none
	CPU    time.Duration // processor time it used
	MaxRSS int64         // most memory it had, in bytes
	Err    error         // waiting failed; nothing else is known

	killed bool
}

// Killed reports whether SIGKILL ended the process: by Process.Kill, by a
// resource limit, or by a kernel out of memory.
func (e Exit) Killed() bool { return e.killed }

// String says how the process ended.
func (e Exit) String() string {
	switch {
	case e.Err != nil:
		return fmt.Sprintf("lost: %v", e.Err)
	case e.Signal != "":
		return fmt.Sprintf("ended by signal %s after %v of processor time", e.Signal, e.CPU.Round(time.Millisecond))
	}
	return fmt.Sprintf("exit status %d after %v of processor time", e.Code, e.CPU.Round(time.Millisecond))
}

// Pid returns the process id, as this process sees it.
func (p *Process) Pid() int { return p.proc.Pid }

// Namespaces returns the new namespaces that the child is in.
func (p *Process) Namespaces() []string { return p.namespaces }

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Wait waits until the process has ended and says how.
func (p *Process) Wait() Exit {
	<-p.done
	return p.exit
}

// Kill ends the process at once. It does not wait. Killing one that has ended
// does nothing.
func (p *Process) Kill() {
	// The only error is that it has ended; a handle, not a number, names it, so
	// no other process can be hit.
	_ = p.proc.Kill()
}

// Stderr returns the last bytes of the child's standard error so far.
func (p *Process) Stderr() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return string(p.stderr)
}
