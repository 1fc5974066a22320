package jail

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// envNamespaces tells the child which namespaces it is in.
const envNamespaces = "WRAY_JAIL_NAMESPACES"

type namespace struct {
	name string
	flag uintptr
}

// namespaceSets are tried in order; the first that the machine permits is used.
// Without a user namespace the others need root, and then are worth having
// alone.
//
// With cgo there is no pid namespace: libpsx, which reaches the threads of such
// a process, looks for them in /proc under the number that the process has in
// its own namespace, and /proc shows another one. Release builds have no cgo.
var namespaceSets = withoutPID([][]namespace{
	{
		{"user", unix.CLONE_NEWUSER}, {"net", unix.CLONE_NEWNET}, {"ipc", unix.CLONE_NEWIPC},
		{"pid", unix.CLONE_NEWPID}, {"mnt", unix.CLONE_NEWNS}, {"uts", unix.CLONE_NEWUTS},
	},
	{{"user", unix.CLONE_NEWUSER}, {"net", unix.CLONE_NEWNET}, {"ipc", unix.CLONE_NEWIPC}},
	{{"net", unix.CLONE_NEWNET}, {"ipc", unix.CLONE_NEWIPC}, {"pid", unix.CLONE_NEWPID}},
	{},
})

func withoutPID(sets [][]namespace) [][]namespace {
	if usesCgo {
		for i, set := range sets {
			sets[i] = slices.DeleteFunc(set, func(ns namespace) bool { return ns.flag == unix.CLONE_NEWPID })
		}
	}
	return sets
}

// firstSet is the index of the first set that has not failed yet on this
// machine.
var firstSet atomic.Int32

// nobody is the user and group that the child is inside its user namespace.
// Not 0: an exec by another user than root clears all capabilities.
const nobody = 65534

// Spawn starts a process of this executable.
func Spawn(cfg Config) (*Process, error) {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("starting a process: %w", err)
	}
	defer null.Close()
	p := &Process{done: make(chan struct{}), limit: cfg.StderrBytes}
	stderr := cfg.Stderr
	var pipe *os.File
	if stderr == nil {
		if pipe, stderr, err = os.Pipe(); err != nil {
			return nil, fmt.Errorf("starting a process: %w", err)
		}
		defer stderr.Close()
	}
	attr := &os.ProcAttr{
		Dir:   "/",
		Files: append([]*os.File{null, null, stderr}, cfg.Files...),
	}
	name := "/proc/self/exe"
	if cfg.Path != "" {
		name = cfg.Path
	}
	argv := append([]string{"wray"}, cfg.Args...)

	started := make(chan error)
	go p.run(name, argv, attr, cfg, pipe, started)
	if err := <-started; err != nil {
		if pipe != nil {
			pipe.Close()
		}
		return nil, fmt.Errorf("starting a process: %w", err)
	}
	return p, nil
}

// run starts the process and waits for it, on one thread: the kernel sends the
// parent-death signal when the thread that started the child ends, and an idle
// thread of Go's may end at any time.
func (p *Process) run(name string, argv []string, attr *os.ProcAttr, cfg Config, pipe *os.File, started chan<- error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()

	err := p.start(name, argv, attr, cfg)
	if err == nil && cfg.Cgroup != nil {
		// Before the child has done any work: it waits for its first message.
		if err = cfg.Cgroup.add(p.proc.Pid); err != nil {
			p.proc.Kill()
			p.proc.Wait()
		}
	}
	started <- err
	if err != nil {
		return
	}
	var tail sync.WaitGroup
	if pipe != nil {
		tail.Go(func() { p.readStderr(pipe) })
	}
	state, err := p.proc.Wait()
	if pipe != nil {
		// The child has no children, so its stderr ends with it, unless it gave
		// the descriptor to somebody over its link.
		pipe.SetReadDeadline(time.Now().Add(time.Second))
	}
	tail.Wait()
	p.exit = exitOf(state, err)
	close(p.done)
}

// start tries one set of namespaces after the other.
func (p *Process) start(name string, argv []string, attr *os.ProcAttr, cfg Config) error {
	for i := int(firstSet.Load()); ; i++ {
		set := namespaceSets[i]
		attr.Env = environment(cfg, set)
		attr.Sys = sysProcAttr(set)
		var err error
		if p.proc, err = os.StartProcess(name, argv, attr); err == nil {
			for _, ns := range set {
				p.namespaces = append(p.namespaces, ns.name)
			}
			return nil
		}
		last := i == len(namespaceSets)-1
		if last || !refused(err) {
			return err
		}
		// What the machine refuses once it refuses always.
		firstSet.CompareAndSwap(int32(i), int32(i+1))
	}
}

// refused reports whether err can mean that namespaces are not permitted:
// forbidden (EPERM, EACCES), used up (ENOSPC, EUSERS) or not built in (EINVAL).
func refused(err error) bool {
	for _, e := range []error{unix.EPERM, unix.EACCES, unix.ENOSPC, unix.EUSERS, unix.EINVAL} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

func sysProcAttr(set []namespace) *syscall.SysProcAttr {
	sys := &syscall.SysProcAttr{
		Pdeathsig: unix.SIGKILL,
		Setpgid:   true, // a terminal's Ctrl-C is for the node, which ends its processes in order
	}
	for _, ns := range set {
		sys.Cloneflags |= ns.flag
		if ns.flag == unix.CLONE_NEWUSER {
			sys.UidMappings = []syscall.SysProcIDMap{{ContainerID: nobody, HostID: os.Getuid(), Size: 1}}
			sys.GidMappings = []syscall.SysProcIDMap{{ContainerID: nobody, HostID: os.Getgid(), Size: 1}}
		}
	}
	return sys
}

// environment is all that a child learns from its environment.
func environment(cfg Config, set []namespace) []string {
	procs := cfg.MaxProcs
	if procs <= 0 {
		procs = runtime.GOMAXPROCS(0)
	}
	names := make([]string, len(set))
	for i, ns := range set {
		names[i] = ns.name
	}
	return append([]string{
		"GOMAXPROCS=" + strconv.Itoa(procs),
		// The runtime would keep cgroup files open and reread them, and would
		// name its mappings with prctl; the jail permits neither.
		"GODEBUG=containermaxprocs=0,updatemaxprocs=0,decoratemappings=0",
		envNamespaces + "=" + strings.Join(names, ","),
	}, cfg.Env...)
}

// readStderr keeps the last bytes of the child's standard error.
func (p *Process) readStderr(pipe *os.File) {
	defer pipe.Close()
	limit := p.limit
	if limit <= 0 {
		limit = defaultStderrBytes
	}
	buf := make([]byte, 4096)
	for {
		n, err := pipe.Read(buf)
		p.mu.Lock()
		p.stderr = append(p.stderr, buf[:n]...)
		if over := len(p.stderr) - limit; over > 0 {
			p.stderr = append(p.stderr[:0], p.stderr[over:]...)
		}
		p.mu.Unlock()
		if err != nil {
			return
		}
	}
}

func exitOf(state *os.ProcessState, err error) Exit {
	if err != nil {
		return Exit{Code: -1, Err: err}
	}
	e := Exit{Code: state.ExitCode(), CPU: state.UserTime() + state.SystemTime()}
	if ws, ok := state.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		e.Signal = ws.Signal().String()
		e.killed = ws.Signal() == unix.SIGKILL
	}
	if ru, ok := state.SysUsage().(*syscall.Rusage); ok {
		e.MaxRSS = ru.Maxrss << 10
	}
	return e
}
