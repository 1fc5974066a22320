package jail

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/wray-project/wray/internal/link"
	"github.com/wray-project/wray/internal/testenv"
)

// probe is one thing that code which broke out of its sandbox would try.
type probe struct {
	name string
	// free says that the same succeeds outside a jail, for this user on any
	// machine: the probe is then known to be a real one.
	free bool
	try  func(e probeEnv) error
}

type probeEnv struct {
	dir    string // the directory of the profile, with the file "entry"
	parent int    // process id of the test
}

func raw(nr uintptr, args ...uintptr) error {
	var a [6]uintptr
	copy(a[:], args)
	if _, _, errno := unix.Syscall6(nr, a[0], a[1], a[2], a[3], a[4], a[5]); errno != 0 {
		return errno
	}
	return nil
}

// fork makes a process that ends at once, if it can, with clone or clone3.
func fork(nr uintptr, args ...uintptr) error {
	var a [6]uintptr
	copy(a[:], args)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	pid, _, errno := unix.RawSyscall6(nr, a[0], a[1], a[2], a[3], a[4], a[5])
	if errno != 0 {
		return errno
	}
	if pid == 0 {
		for {
			unix.RawSyscall(unix.SYS_EXIT_GROUP, 0, 0, 0)
		}
	}
	return nil
}

func open(path string, flags int) error {
	fd, err := unix.Open(path, flags|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	return unix.Close(fd)
}

var cstr = func(s string) uintptr {
	p, err := unix.BytePtrFromString(s)
	if err != nil {
		panic(err)
	}
	keep = append(keep, p)
	return uintptr(unsafe.Pointer(p))
}

var keep []*byte // what cstr returned stays allocated

// sixteen is 16 KiB of zeroes for calls that want a structure.
var sixteen = make([]byte, 16<<10)

func zeroes() uintptr {
	clear(sixteen)
	return uintptr(unsafe.Pointer(&sixteen[0]))
}

var probes = []probe{
	{"open /etc/passwd", true, func(probeEnv) error { return open("/etc/passwd", unix.O_RDONLY) }},
	{"open /proc/self/mem", true, func(probeEnv) error { return open("/proc/self/mem", unix.O_RDWR) }},
	{"read /proc/self/maps", true, func(probeEnv) error { return open("/proc/self/maps", unix.O_RDONLY) }},
	{"read the parent's environment", true, func(e probeEnv) error {
		return open(fmt.Sprintf("/proc/%d/environ", e.parent), unix.O_RDONLY)
	}},
	{"list /", true, func(probeEnv) error { return open("/", unix.O_RDONLY|unix.O_DIRECTORY) }},
	{"open above the directory", true, func(e probeEnv) error { return open(e.dir+"/../outside", unix.O_RDONLY) }},
	{"follow a link out of the directory", true, func(e probeEnv) error { return open(e.dir+"/link", unix.O_RDONLY) }},
	{"open /dev/kmsg", false, func(probeEnv) error { return open("/dev/kmsg", unix.O_RDONLY) }},
	{"open own executable", true, func(probeEnv) error { return open("/proc/self/exe", unix.O_RDONLY) }},

	{"execve", false, func(probeEnv) error {
		argv := []*byte{nil}
		return raw(unix.SYS_EXECVE, cstr("/bin/sh-which-is-missing"), uintptr(unsafe.Pointer(&argv[0])), uintptr(unsafe.Pointer(&argv[0])))
	}},
	{"execveat", false, func(probeEnv) error { return raw(unix.SYS_EXECVEAT, 0, cstr("/missing"), 0, 0, 0) }},
	{"fork", true, func(probeEnv) error { return fork(unix.SYS_CLONE, uintptr(unix.SIGCHLD)) }},
	// 10 is mprotect on amd64: see filter_linux.go.
	{"fork with signal 10", true, func(probeEnv) error { return fork(unix.SYS_CLONE, 10) }},
	{"new user namespace", false, func(probeEnv) error { return fork(unix.SYS_CLONE, unix.CLONE_NEWUSER|uintptr(unix.SIGCHLD)) }},
	{"thread in a new namespace", false, func(probeEnv) error { return raw(unix.SYS_UNSHARE, unix.CLONE_NEWNS) }},
	{"clone3", false, func(probeEnv) error { return fork(unix.SYS_CLONE3, zeroes(), 88) }},
	{"setns", false, func(probeEnv) error { return raw(unix.SYS_SETNS, 0, 0) }},

	{"kill the parent", true, func(e probeEnv) error { return raw(unix.SYS_KILL, uintptr(e.parent), 0) }},
	{"kill itself by kill", true, func(probeEnv) error { return raw(unix.SYS_KILL, uintptr(os.Getpid()), 0) }},
	{"tgkill the parent", true, func(e probeEnv) error { return raw(unix.SYS_TGKILL, uintptr(e.parent), uintptr(e.parent), 0) }},
	{"pidfd_open", true, func(e probeEnv) error { return raw(unix.SYS_PIDFD_OPEN, uintptr(e.parent), 0) }},
	{"pidfd_send_signal", false, func(probeEnv) error { return raw(unix.SYS_PIDFD_SEND_SIGNAL, 0, 0, 0, 0) }},
	{"ptrace the parent", false, func(e probeEnv) error { return raw(unix.SYS_PTRACE, unix.PTRACE_SEIZE, uintptr(e.parent), 0, 0) }},
	{"process_vm_readv", false, func(e probeEnv) error {
		local := unix.Iovec{Base: &sixteen[0], Len: 1}
		remote := unix.RemoteIovec{Base: uintptr(unsafe.Pointer(&sixteen[0])), Len: 1}
		_, err := unix.ProcessVMReadv(e.parent, []unix.Iovec{local}, []unix.RemoteIovec{remote}, 0)
		return err
	}},
	{"process_vm_writev", false, func(e probeEnv) error { return raw(unix.SYS_PROCESS_VM_WRITEV, uintptr(e.parent), 0, 0, 0, 0, 0) }},
	{"own a descriptor's signals", true, func(e probeEnv) error {
		_, err := unix.FcntlInt(0, unix.F_SETOWN, e.parent)
		return err
	}},

	{"tcp socket", true, func(probeEnv) error { return raw(unix.SYS_SOCKET, unix.AF_INET, unix.SOCK_STREAM, 0) }},
	{"unix socket", true, func(probeEnv) error { return raw(unix.SYS_SOCKET, unix.AF_UNIX, unix.SOCK_STREAM, 0) }},
	{"netlink socket", true, func(probeEnv) error { return raw(unix.SYS_SOCKET, unix.AF_NETLINK, unix.SOCK_RAW, 0) }},
	{"socketpair", true, func(probeEnv) error { return raw(unix.SYS_SOCKETPAIR, unix.AF_UNIX, unix.SOCK_STREAM, 0, zeroes()) }},
	{"connect", false, func(probeEnv) error { return raw(unix.SYS_CONNECT, 3, zeroes(), 16) }},
	{"bind", false, func(probeEnv) error { return raw(unix.SYS_BIND, 3, zeroes(), 16) }},
	{"accept", false, func(probeEnv) error { return raw(unix.SYS_ACCEPT4, 3, 0, 0, 0) }},

	{"create a file in the directory", true, func(e probeEnv) error { return open(e.dir+"/new", unix.O_WRONLY|unix.O_CREAT) }},
	{"write the cache", true, func(e probeEnv) error { return open(e.dir+"/entry", unix.O_WRONLY) }},
	{"open the cache read-write", true, func(e probeEnv) error { return open(e.dir+"/entry", unix.O_RDWR) }},
	{"truncate the cache by open", true, func(e probeEnv) error { return open(e.dir+"/entry", unix.O_RDONLY|unix.O_TRUNC) }},
	{"truncate the cache", true, func(e probeEnv) error { return raw(unix.SYS_TRUNCATE, cstr(e.dir+"/entry"), 0) }},
	{"chmod the cache", true, func(e probeEnv) error { return raw(unix.SYS_FCHMODAT, atCwd, cstr(e.dir+"/entry"), 0o666) }},
	{"chmod a descriptor", false, func(probeEnv) error { return raw(unix.SYS_FCHMOD, 0, 0o666) }},
	{"rename the cache", true, func(e probeEnv) error {
		return raw(unix.SYS_RENAMEAT2, atCwd, cstr(e.dir+"/entry"), atCwd, cstr(e.dir+"/entry2"), 0)
	}},
	{"unlink the cache", true, func(e probeEnv) error { return raw(unix.SYS_UNLINKAT, atCwd, cstr(e.dir+"/victim"), 0) }},
	{"hard link", false, func(e probeEnv) error {
		return raw(unix.SYS_LINKAT, atCwd, cstr("/etc/passwd"), atCwd, cstr(e.dir+"/hard"), 0)
	}},
	{"symbolic link", true, func(e probeEnv) error {
		return raw(unix.SYS_SYMLINKAT, cstr("/etc/passwd"), atCwd, cstr(e.dir+"/soft"))
	}},
	{"mkdir", true, func(e probeEnv) error { return raw(unix.SYS_MKDIRAT, atCwd, cstr(e.dir+"/sub"), 0o700) }},
	{"mknod", false, func(e probeEnv) error {
		return raw(unix.SYS_MKNODAT, atCwd, cstr(e.dir+"/fifo"), unix.S_IFIFO|0o600, 0)
	}},
	{"chdir", true, func(probeEnv) error { return raw(unix.SYS_CHDIR, cstr("/")) }},
	{"chroot", false, func(e probeEnv) error { return raw(unix.SYS_CHROOT, cstr(e.dir)) }},
	{"open by handle", false, func(probeEnv) error { return raw(unix.SYS_OPEN_BY_HANDLE_AT, atCwd, zeroes(), 0) }},
	{"openat2", false, func(probeEnv) error { return raw(unix.SYS_OPENAT2, atCwd, cstr("/etc/passwd"), zeroes(), 24) }},

	{"mount", false, func(probeEnv) error { return raw(unix.SYS_MOUNT, cstr("none"), cstr("/tmp"), cstr("tmpfs"), 0, 0) }},
	{"move_mount", false, func(probeEnv) error { return raw(unix.SYS_FSOPEN, cstr("tmpfs"), 0) }},
	{"pivot_root", false, func(probeEnv) error { return raw(unix.SYS_PIVOT_ROOT, cstr("/tmp"), cstr("/tmp")) }},
	{"bpf", false, func(probeEnv) error { return raw(unix.SYS_BPF, 0, zeroes(), 128) }},
	{"io_uring_setup", false, func(probeEnv) error { return raw(unix.SYS_IO_URING_SETUP, 1, zeroes()) }},
	{"perf_event_open", false, func(probeEnv) error { return raw(unix.SYS_PERF_EVENT_OPEN, zeroes(), 0, uptr(-1), uptr(-1), 0) }},
	{"userfaultfd", false, func(probeEnv) error { return raw(unix.SYS_USERFAULTFD, unix.O_CLOEXEC) }},
	{"keyctl", false, func(probeEnv) error { return raw(unix.SYS_KEYCTL, 0, uptr(-3), 0) }},
	{"init_module", false, func(probeEnv) error { return raw(unix.SYS_FINIT_MODULE, 0, cstr(""), 0) }},
	{"setuid", true, func(probeEnv) error { return raw(unix.SYS_SETUID, uintptr(os.Getuid())) }},
	{"capset", true, func(probeEnv) error {
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		return raw(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&header)), zeroes())
	}},
	{"raise a limit", true, func(probeEnv) error { return raw(unix.SYS_PRLIMIT64, 0, unix.RLIMIT_CORE, 0, zeroes()) }},
	{"become dumpable", true, func(probeEnv) error { return raw(unix.SYS_PRCTL, unix.PR_SET_DUMPABLE, 1) }},
	{"another filter", false, func(probeEnv) error { return raw(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, 0) }},
	{"ioctl", false, func(probeEnv) error { return raw(unix.SYS_IOCTL, 0, unix.TIOCSTI, zeroes()) }},
	{"shared memory segment", false, func(probeEnv) error { return raw(unix.SYS_SHMGET, 0, 4096, 0o1600) }},
	{"affinity", true, func(probeEnv) error {
		var set unix.CPUSet
		if err := unix.SchedGetaffinity(0, &set); err != nil {
			return nil // not what is asked here
		}
		return unix.SchedSetaffinity(0, &set)
	}},

	{"map writable code", true, func(probeEnv) error {
		b, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_WRITE|unix.PROT_EXEC, unix.MAP_ANON|unix.MAP_PRIVATE)
		if err == nil {
			unix.Munmap(b)
		}
		return err
	}},
	{"make writable code", true, func(probeEnv) error {
		b, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
		if err != nil {
			return nil
		}
		defer unix.Munmap(b)
		return unix.Mprotect(b, unix.PROT_READ|unix.PROT_WRITE|unix.PROT_EXEC)
	}},
	{"memfd of huge pages", false, func(probeEnv) error {
		fd, err := unix.MemfdCreate("x", unix.MFD_HUGETLB)
		if err == nil {
			unix.Close(fd)
		}
		return err
	}},
}

var atCwd = uptr(unix.AT_FDCWD)

// uptr returns a negative int as a system call takes it.
func uptr(n int) uintptr { return uintptr(n) }

// result is what one probe gave: the errno, or zero if it succeeded.
type result struct {
	Name  string
	Errno int
}

// probeChild enters p (unless it has no name), tries everything, on a thread
// that was there before the jail and on a new one, and sends what happened.
func probeChild(p Profile, args []string) error {
	parent, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	signal.Ignore(unix.SIGUSR1) // what "fork with signal 10" sends
	e := probeEnv{dir: args[0], parent: parent}
	run := func() (rs []result) {
		runtime.LockOSThread() // and never unlocked: the thread ends with this goroutine
		for _, pr := range probes {
			r := result{Name: pr.name}
			if err := pr.try(e); err != nil {
				var errno unix.Errno
				if !errors.As(err, &errno) {
					errno = 999
				}
				r.Errno = int(errno)
			}
			rs = append(rs, r)
		}
		return rs
	}
	ready, entered, out := make(chan bool), make(chan bool), make(chan []result)
	go func() {
		runtime.LockOSThread()
		ready <- true
		<-entered
		out <- run()
	}()
	<-ready
	var conn *link.Conn
	if p.Name != "" {
		conn, _, err = enter(p)
	} else {
		conn, err = link.FromFile(os.NewFile(3, "link"), link.Options{})
	}
	if err != nil {
		return err
	}
	close(entered)
	old := <-out
	if p.Name == "" {
		return send(conn, [][]result{old})
	}
	go func() { out <- run() }()
	return send(conn, [][]result{old, <-out})
}

// probeDir makes the directory that a probing child may use, with what the
// probes expect in it.
func probeDir(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	dir := filepath.Join(root, "cache")
	for _, err := range []error{
		os.Mkdir(dir, 0o700),
		os.WriteFile(filepath.Join(dir, "entry"), []byte("entry"), 0o600),
		os.WriteFile(filepath.Join(dir, "victim"), nil, 0o600),
		os.WriteFile(filepath.Join(root, "outside"), nil, 0o600),
		os.Symlink("/etc/passwd", filepath.Join(dir, "link")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func runProbes(t *testing.T, verb string) [][]result {
	t.Helper()
	p, conn := start(t, Config{Args: []string{verb, probeDir(t), strconv.Itoa(os.Getpid())}})
	var rs [][]result
	receive(t, p, conn, &rs)
	return rs
}

// TestWorkerCanDoNothing holds that everything a process could do to the
// machine is refused inside a worker's jail, on every thread.
func TestWorkerCanDoNothing(t *testing.T) {
	if len(probes) < 15 {
		t.Fatal("too few probes")
	}
	refused, tried := 0, 0
	for i, rs := range runProbes(t, "_probe_worker") {
		if len(rs) != len(probes) {
			t.Errorf("thread %d: %d of %d probes ran", i, len(rs), len(probes))
		}
		for _, r := range rs {
			tried++
			switch unix.Errno(r.Errno) {
			case unix.EPERM, unix.EACCES:
				refused++
			case unix.ENOSYS:
				if r.Name == "clone3" {
					refused++
				} else {
					t.Errorf("thread %d: %s: %v", i, r.Name, unix.Errno(r.Errno))
				}
			default:
				t.Errorf("thread %d: %s: got %v, want EPERM or EACCES", i, r.Name, unix.Errno(r.Errno))
			}
		}
	}
	testenv.Bar(t, 14, refused, fmt.Sprintf("of %d tries are refused: %d forbidden things, on two threads; at least 15", tried, len(probes)), refused == tried && len(probes) >= 15)
}

// TestNoNetwork holds that a worker's network has nobody on it: no interface but
// the loopback one, which is down, and no route.
func TestNoNetwork(t *testing.T) {
	p, conn := start(t, Config{Args: []string{"_work", workDir(t), "hold"}})
	var failed []string
	receive(t, p, conn, &failed)
	if !slices.Contains(p.Namespaces(), "net") {
		testenv.BarSkip(t, 13, "network of a worker", "this machine permits no namespaces: the filter of system calls alone keeps a worker from the network")
		return
	}
	file := func(name string) string {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/%s", p.Pid(), name))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	devices, up := 0, 0
	for line := range strings.Lines(file("dev")) {
		if name, rest, ok := strings.Cut(line, ":"); ok {
			devices++
			// Bytes that were received: a loopback interface that is down has none.
			if got := strings.Fields(rest); strings.TrimSpace(name) != "lo" || got[0] != "0" {
				up++
			}
		}
	}
	routes := max(0, strings.Count(file("route"), "\n")-1) // less the heading
	testenv.Bar(t, 13, up+routes, fmt.Sprintf("routes, and interfaces that are in use, of %d in a worker's network", devices), devices == 1 && up+routes == 0)
}

// TestCompilerCanWriteOneDirectory holds that a compiler's jail differs from a
// worker's in its own directory alone.
func TestCompilerCanWriteOneDirectory(t *testing.T) {
	may := map[string]bool{
		"create a file in the directory": true, "write the cache": true, "open the cache read-write": true,
		"truncate the cache by open": true, "unlink the cache": true, "mkdir": true,
	}
	rs := runProbes(t, "_probe_compiler")[0]
	for _, r := range rs {
		denied := unix.Errno(r.Errno) == unix.EPERM || unix.Errno(r.Errno) == unix.EACCES || r.Name == "clone3"
		if may[r.Name] == denied {
			t.Errorf("%s: %v", r.Name, unix.Errno(r.Errno))
		}
	}
}

// TestProbesAreReal holds that what the jail refuses works outside it.
func TestProbesAreReal(t *testing.T) {
	withNamespaces(t, [][]namespace{{}}) // inside, the parent cannot even be named
	rs := runProbes(t, "_probe_free")[0]
	works := 0
	for i, r := range rs {
		if probes[i].free {
			if r.Errno != 0 {
				t.Errorf("%s fails outside the jail, too: %v", r.Name, unix.Errno(r.Errno))
			}
			works++
		}
	}
	t.Logf("%d probes, %d of them succeed outside the jail", len(rs), works)
	if works < 15 {
		t.Error("too few")
	}
}

// withNamespaces makes Spawn try other sets while the test runs.
func withNamespaces(t testing.TB, sets [][]namespace) {
	old := namespaceSets
	namespaceSets = sets
	firstSet.Store(0)
	t.Cleanup(func() { namespaceSets = old; firstSet.Store(0) })
}

func TestProbeNames(t *testing.T) {
	seen := map[string]bool{}
	for _, p := range probes {
		if seen[p.name] {
			t.Errorf("two probes named %q", p.name)
		}
		seen[p.name] = true
	}
}

// within waits for an event that must come.
func within(t *testing.T, what string, c <-chan struct{}) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(20 * time.Second):
		t.Fatalf("%s has not happened", what)
	}
}
