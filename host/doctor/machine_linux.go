package doctor

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/wray-project/wray/host/jail"
)

// machine makes the checks that only Linux has.
func machine() []Check {
	return []Check{
		kernel(), memfd(), landlock(), seccomp(), userNamespaces(), cgroups(),
		maxMapCount(), openFiles(), memory(), hugePages(), populate(), gpus("/dev"),
	}
}

func kernel() Check {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return warn("kernel", "report this to whoever runs the machine", "uname: %v", err)
	}
	return ok("kernel", "Linux %s, %s", unix.ByteSliceToString(u.Release[:]), unix.ByteSliceToString(u.Machine[:]))
}

// memfd makes a shared memory object as the object store does, and one as
// snapshots are, and seals both.
func memfd() Check {
	const name = "memfd"
	const remedy = "use Linux 5.1 or later, and a container profile that permits memfd_create(2) and its seals"
	for _, seals := range []int{
		unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_FUTURE_WRITE | unix.F_SEAL_SEAL, // objects
		unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE | unix.F_SEAL_SEAL,        // snapshots
	} {
		fd, err := unix.MemfdCreate("wray-doctor", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
		if err != nil {
			return fail(name, remedy, "memfd_create: %v", err)
		}
		err = unix.Ftruncate(fd, 4096)
		if err == nil {
			_, err = unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, seals)
		}
		unix.Close(fd)
		if err != nil {
			return fail(name, remedy, "seal a memfd: %v", err)
		}
	}
	return ok(name, "shared memory objects can be made and sealed")
}

func landlock() Check {
	const name = "landlock"
	abi, err := jail.LandlockABI()
	if err != nil {
		return fail(name, "enable landlock (Linux 5.13 or later, lsm=landlock,… on the kernel's command line), or run programs that you trust with --allow-weak-jail", "%v", err)
	}
	return ok(name, "ABI %d", abi)
}

// seccomp asks for the action that ends a process at a forbidden call. Asking
// needs no filter to be put on.
func seccomp() Check {
	const name = "seccomp"
	const getActionAvail = 2 // SECCOMP_GET_ACTION_AVAIL of seccomp(2)
	action := uint32(unix.SECCOMP_RET_KILL_PROCESS)
	if _, _, errno := unix.Syscall(unix.SYS_SECCOMP, getActionAvail, 0, uintptr(unsafe.Pointer(&action))); errno != 0 {
		return fail(name, "use Linux 4.14 or later, built with CONFIG_SECCOMP_FILTER, or run programs that you trust with --allow-weak-jail", "seccomp(2): %v", errno)
	}
	return ok(name, "filters that end a process")
}

// userNamespaces starts a program that does not exist in new namespaces: the kernel
// makes the namespaces first and looks for the program then, so that ENOENT
// means they were made.
func userNamespaces() Check {
	const name = "namespaces"
	try := func(flags uintptr) error {
		attr := &syscall.ProcAttr{Dir: "/", Sys: &syscall.SysProcAttr{Cloneflags: flags}}
		if flags&unix.CLONE_NEWUSER != 0 {
			attr.Sys.UidMappings = []syscall.SysProcIDMap{{ContainerID: 65534, HostID: os.Geteuid(), Size: 1}}
			attr.Sys.GidMappings = []syscall.SysProcIDMap{{ContainerID: 65534, HostID: os.Getegid(), Size: 1}}
		}
		pid, err := syscall.ForkExec("/proc/self/wray-doctor", []string{"wray-doctor"}, attr)
		switch {
		case err == nil: // cannot be: there is no such program
			_, _ = syscall.Wait4(pid, nil, 0, nil)
			return nil
		case errors.Is(err, syscall.ENOENT):
			return nil
		}
		return err
	}
	userErr := try(unix.CLONE_NEWUSER | unix.CLONE_NEWNET)
	if userErr == nil {
		return ok(name, "user and network")
	}
	const remedy = "permit user namespaces (sysctl kernel.unprivileged_userns_clone=1, kernel.apparmor_restrict_unprivileged_userns=0, user.max_user_namespaces above 0, or the container's profile)"
	if try(unix.CLONE_NEWNET) == nil {
		return warn(name, remedy, "network alone; a user namespace: %v", userErr)
	}
	return warn(name, remedy, "none (%v): workers share the machine's network namespace, and only seccomp keeps them off it", userErr)
}

func cgroups() Check {
	const name = "cgroups"
	v, detail, err := jail.CgroupSupport()
	if err != nil {
		return warn(name, "run as root, or in a unit with Delegate=yes (systemd-run --user --scope -p Delegate=yes wray …); without control groups a tenant's memory and quota of cores are bounded by wray alone, and tenants share the processors by how nice their workers are", "%v", err)
	}
	if strings.HasSuffix(detail, "cpu in (not available)") {
		return warn(name, "hand down the cpu controller, as systemd does with Delegate=yes", "v%d, %s: tenants share the processors by how nice their workers are, and a quota of cores is kept by wray alone", v, detail)
	}
	return ok(name, "v%d, %s", v, detail)
}

// Mappings of a worker: each live sandbox has two (its memory over the
// snapshot, and the part it has written or grown into), and the program, its
// heap and the object store have the rest.
const (
	mapsPerSandbox = 2
	mapsOther      = 10_000
	sandboxesAim   = 20_000
)

func maxMapCount() Check {
	const name = "vm.max_map_count"
	n, err := readInt("/proc/sys/vm/max_map_count")
	if err != nil {
		return warn(name, "mount /proc", "%v", err)
	}
	room := max(0, n-mapsOther) / mapsPerSandbox
	if room < sandboxesAim {
		need := sandboxesAim*mapsPerSandbox + mapsOther
		return warn(name, fmt.Sprintf("run sysctl -w vm.max_map_count=%d for %d sandboxes", need, sandboxesAim), "%d: about %d live sandboxes in one worker", n, room)
	}
	return ok(name, "%d: about %d live sandboxes in one worker", n, room)
}

// workerFiles is the descriptor limit that a worker asks for.
var workerFiles = uint64(jail.Worker("/").Limits.OpenFiles)

func openFiles() Check {
	const name = "open files"
	var r unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &r); err != nil {
		return warn(name, "report this to whoever runs the machine", "getrlimit: %v", err)
	}
	if r.Max < workerFiles {
		return warn(name, fmt.Sprintf("raise the hard limit (ulimit -Hn %d, or LimitNOFILE= of a systemd unit)", workerFiles),
			"at most %d: each large object takes one", r.Max)
	}
	return ok(name, "at most %s", limit(r.Max))
}

func limit(n uint64) string {
	if n == unix.RLIM_INFINITY {
		return "unlimited"
	}
	return strconv.FormatUint(n, 10)
}

// leastMemory is what a small job and its build need.
const leastMemory = 1 << 30

func memory() Check {
	const name = "memory"
	text, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return warn(name, "mount /proc", "%v", err)
	}
	total, free := meminfo(string(text), "MemTotal"), meminfo(string(text), "MemAvailable")
	if free < leastMemory {
		return warn(name, "end other programs, or give --memory and --object-store-memory smaller values",
			"%s available of %s", gib(free), gib(total))
	}
	return ok(name, "%s available of %s", gib(free), gib(total))
}

// meminfo returns a value of /proc/meminfo in bytes, or 0.
func meminfo(text, key string) int64 {
	for line := range strings.Lines(text) {
		rest, found := strings.CutPrefix(line, key+":")
		if !found {
			continue
		}
		f := strings.Fields(rest)
		if len(f) == 0 {
			return 0
		}
		kib, err := strconv.ParseInt(f[0], 10, 64)
		if err != nil || kib < 0 || kib > 1<<50 {
			return 0
		}
		return kib << 10
	}
	return 0
}

func gib(n int64) string { return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30)) }

// hugePages says whether large objects can lie in huge pages.
func hugePages() Check {
	const name = "huge pages"
	const file = "/sys/kernel/mm/transparent_hugepage/shmem_enabled"
	const remedy = "as root: echo advise > " + file
	b, err := os.ReadFile(file)
	if err != nil {
		return warn(name, "use a kernel built with transparent huge pages; large objects are slower to fill without them", "%v", err)
	}
	switch mode := selected(string(b)); mode {
	case "always", "within_size", "advise", "force":
		return ok(name, "%s, for shared memory", mode)
	default:
		return warn(name, remedy+"; large objects are slower to fill without it", "%q, for shared memory", mode)
	}
}

// selected returns the word in brackets of a setting such as "always [never]".
func selected(s string) string {
	_, s, _ = strings.Cut(s, "[")
	s, _, found := strings.Cut(s, "]")
	if !found {
		return ""
	}
	return s
}

// populate maps pages and has the kernel fill them in one call.
func populate() Check {
	const name = "populate"
	mem, err := unix.Mmap(-1, 0, 2*os.Getpagesize(), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return fail(name, "raise the limit of address space (ulimit -v unlimited)", "mmap: %v", err)
	}
	err = errors.Join(unix.Madvise(mem, unix.MADV_POPULATE_WRITE), unix.Munmap(mem))
	if err != nil {
		return warn(name, "use Linux 5.14 or later; new objects are slower to fill without it", "MADV_POPULATE_WRITE: %v", err)
	}
	return ok(name, "MADV_POPULATE_WRITE")
}

func readInt(file string) (int, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(b)))
}
