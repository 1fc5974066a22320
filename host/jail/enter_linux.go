package jail

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"
	"unsafe"

	"github.com/landlock-lsm/go-landlock/landlock"
	ll "github.com/landlock-lsm/go-landlock/landlock/syscall"
	"golang.org/x/sys/unix"
	"kernel.org/pub/linux/libs/security/libcap/psx"
)

// oomScoreAdj makes the kernel kill a worker before the node and before most
// of the user's other processes.
const oomScoreAdj = "600"

// Enter takes away from this process what p does not grant, on every thread and
// for ever. It must run before the process reads anything that a stranger wrote
// and before it opens files of its own (they would be closed). On an error the
// process is in no defined state and must exit.
func Enter(p Profile) (Applied, error) {
	a := Applied{Profile: p.Name}
	newUser := false
	if ns := os.Getenv(envNamespaces); ns != "" {
		a.Namespaces = strings.Split(ns, ",")
		newUser = slices.Contains(a.Namespaces, "user")
	} else {
		a.Missing = append(a.Missing, "namespaces: not permitted to this user")
	}

	// Files by path come first: landlock and the limits forbid them.
	if err := os.WriteFile("/proc/self/oom_score_adj", []byte(oomScoreAdj), 0); err != nil {
		a.Missing = append(a.Missing, fmt.Sprintf("oom_score_adj: %v", err))
	}
	var err error
	if a.ClosedFiles, err = closeOthers(p.Keep); err != nil {
		return a, enterError(p, "closing inherited descriptors", err)
	}
	for _, l := range rlimits(p.Limits, newUser) {
		if err := l.set(); err != nil {
			return a, enterError(p, "limiting "+l.name, err)
		}
		a.Limits = append(a.Limits, l.String())
	}
	if err := dropCapabilities(); err != nil {
		return a, enterError(p, "dropping capabilities", err)
	}
	a.Capabilities = true
	if err := psxCall(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1); err != nil {
		return a, enterError(p, "setting no_new_privs", err)
	}
	a.NoNewPrivs = true
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return a, enterError(p, "becoming undumpable", err)
	}
	a.Undumpable = true

	if a.Landlock, err = enterLandlock(p); err != nil {
		if !p.AllowWeak {
			return a, weakError(p, "landlock, which limits the files a process can open,", err)
		}
		a.Missing = append(a.Missing, fmt.Sprintf("landlock: %v", err))
	}
	rules := workerCalls(os.Getpid())
	if len(p.WriteDirs) > 0 {
		rules = compilerCalls(os.Getpid())
	}
	if err := install(rules); err != nil {
		if !p.AllowWeak {
			return a, weakError(p, "seccomp, which limits the system calls of a process,", err)
		}
		a.Missing = append(a.Missing, err.Error())
		return a, nil
	}
	a.Seccomp = allowed(rules)
	return a, nil
}

func allowed(rules []rule) (n int) {
	for _, r := range rules {
		if r.errno == 0 {
			n++
		}
	}
	return n
}

func enterError(p Profile, doing string, err error) error {
	return fmt.Errorf("entering the jail of a %s: %s: %w", p.Name, doing, err)
}

// ErrWeak means that this machine lacks a part of the jail without which a
// process does not run unless Profile.AllowWeak is set.
var ErrWeak = errors.New("this machine cannot confine a process")

func weakError(p Profile, what string, err error) error {
	return fmt.Errorf("entering the jail of a %s: %w: it lacks %s: %w", p.Name, ErrWeak, what, err)
}

// closeOthers closes every descriptor but the standard ones, those in keep and
// those of the Go runtime, and returns how many there were. Children of Spawn
// inherit none by the runtime's rules; the rest are what somebody left open
// without close-on-exec.
func closeOthers(keep []int) (closed int, err error) {
	dir, err := os.Open("/proc/self/fd")
	if err != nil {
		return 0, err
	}
	names, err := dir.Readdirnames(-1)
	dir.Close()
	if err != nil {
		return 0, err
	}
	for _, name := range names {
		fd, err := strconv.Atoi(name)
		if err != nil || fd <= 2 || slices.Contains(keep, fd) {
			continue
		}
		target, err := os.Readlink("/proc/self/fd/" + name)
		if err != nil { // the directory read above
			continue
		}
		switch target {
		case "anon_inode:[eventpoll]", "anon_inode:[eventfd]": // the netpoller's
			continue
		}
		unix.Close(fd)
		closed++
	}
	return closed, nil
}

type rlimit struct {
	name     string
	resource int
	value    uint64
}

func (l rlimit) String() string { return l.name + "=" + strconv.FormatUint(l.value, 10) }

// set lowers the limit, soft and hard. A hard limit that is lower stays.
func (l rlimit) set() error {
	var old unix.Rlimit
	if err := unix.Prlimit(0, l.resource, nil, &old); err != nil {
		return err
	}
	v, most := min(l.value, old.Max), min(l.value, old.Max)
	if l.resource == unix.RLIMIT_CPU { // SIGXCPU comes first
		most = min(v+cpuGrace, old.Max)
	}
	return unix.Prlimit(0, l.resource, &unix.Rlimit{Cur: v, Max: most}, nil)
}

// cpuGrace is how many seconds of processor time a process has after SIGXCPU.
const cpuGrace = 1

func rlimits(l Limits, newUser bool) []rlimit {
	ls := []rlimit{{"CORE", unix.RLIMIT_CORE, 0}}
	add := func(name string, resource int, v int64) {
		if v > 0 {
			ls = append(ls, rlimit{name, resource, uint64(v)})
		}
	}
	if !raceDetector {
		add("AS", unix.RLIMIT_AS, l.AddressSpace)
	}
	add("NOFILE", unix.RLIMIT_NOFILE, l.OpenFiles)
	add("FSIZE", unix.RLIMIT_FSIZE, l.FileSize)
	// Whole seconds. The kernel sends SIGXCPU, which Go's runtime ignores unless
	// somebody waits for it, and kills who does not end by it a little later.
	add("CPU", unix.RLIMIT_CPU, int64((l.CPU+time.Second-1)/time.Second))
	if newUser {
		add("NPROC", unix.RLIMIT_NPROC, l.Threads)
	}
	return ls
}

// psxCall makes a system call on every thread of the process.
func psxCall(nr, a, b uintptr) error {
	if _, _, errno := psx.Syscall6(nr, a, b, 0, 0, 0, 0); errno != 0 {
		return errno
	}
	return nil
}

// dropCapabilities empties the capability sets of every thread. In a user
// namespace made by Spawn they are empty since the exec; root outside one has
// them all.
func dropCapabilities() error {
	header := &unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	data := new([2]unix.CapUserData)
	if err := unix.Capget(header, &data[0]); err != nil {
		return err
	}
	if *data == [2]unix.CapUserData{} {
		return nil
	}
	*data = [2]unix.CapUserData{}
	err := psxCall(unix.SYS_CAPSET, uintptr(unsafe.Pointer(header)), uintptr(unsafe.Pointer(&data[0])))
	runtime.KeepAlive(header)
	runtime.KeepAlive(data)
	return err
}

// LandlockABI returns the version of landlock that the kernel has, or why there
// is none.
func LandlockABI() (int, error) {
	abi, err := ll.LandlockGetABIVersion()
	switch {
	case err == unix.ENOSYS:
		return 0, errors.New("the kernel was built without landlock (Linux 5.13 and later have it)")
	case err == unix.EOPNOTSUPP:
		return 0, errors.New("landlock is not enabled (add landlock to the lsm= boot parameter)")
	case err != nil:
		return 0, err
	case abi < 1:
		return 0, errors.New("the kernel names no version of landlock")
	}
	return abi, nil
}

const (
	readAccess = ll.AccessFSReadFile | ll.AccessFSReadDir
	// writeAccess has no device nodes, sockets, fifos or symbolic links.
	writeAccess = readAccess | ll.AccessFSWriteFile | ll.AccessFSTruncate |
		ll.AccessFSMakeReg | ll.AccessFSMakeDir | ll.AccessFSRemoveFile | ll.AccessFSRemoveDir
)

// enterLandlock leaves the process the files of p's directories, and nothing of
// what else the kernel's version of landlock can take: execution, network
// ports, signals and abstract sockets of others.
func enterLandlock(p Profile) (abi int, err error) {
	if abi, err = LandlockABI(); err != nil {
		return 0, err
	}
	var rules []landlock.Rule
	for _, dirs := range []struct {
		access landlock.AccessFSSet
		paths  []string
	}{{readAccess, p.ReadDirs}, {writeAccess, p.WriteDirs}} {
		for _, d := range dirs.paths {
			if !filepath.IsAbs(d) {
				return 0, fmt.Errorf("BUG: relative directory %q", d)
			}
			rules = append(rules, landlock.PathAccess(dirs.access, d))
		}
	}
	// Best effort over what newer kernels added; that there is any was checked.
	if err := landlock.V11.BestEffort().Restrict(rules...); err != nil {
		return 0, err
	}
	return abi, nil
}
