package jail

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tetratelabs/wazero"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"github.com/wray-project/wray/internal/link"
	"github.com/wray-project/wray/internal/testenv"
)

func TestEnterReports(t *testing.T) {
	p, conn := start(t, Config{Args: []string{"_enter", t.TempDir()}})
	var a Applied
	receive(t, p, conn, &a)
	t.Log(a)
	testenv.Bar(t, 14, a.Seccomp, "system calls are allowed to a worker, at most 60", a.Seccomp > 0 && a.Seccomp <= 60)
	if !a.NoNewPrivs || !a.Capabilities || !a.Undumpable || a.Landlock == 0 {
		t.Errorf("not applied: %+v", a)
	}
	if e := p.Wait(); e.Code != 0 || e.Signal != "" {
		t.Errorf("%v: %s", e, p.Stderr())
	}
}

// TestEveryThreadIsJailed reads the kernel's view of a jailed process, in its
// namespaces and where there are none.
func TestEveryThreadIsJailed(t *testing.T) {
	for _, set := range [][]namespace{namespaceSets[0], {}} {
		t.Run(fmt.Sprint(len(set)), func(t *testing.T) {
			withNamespaces(t, [][]namespace{set, {}})
			testEveryThread(t)
		})
	}
}

func testEveryThread(t *testing.T) {
	p, conn := start(t, Config{Args: []string{"_work", workDir(t), "hold"}})
	var out []string
	receive(t, p, conn, &out)
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", p.Pid()))
	if err != nil || len(tasks) < 3 {
		t.Fatalf("%d threads, %v", len(tasks), err)
	}
	for _, file := range tasks {
		b, err := os.ReadFile(file)
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ESRCH) {
			continue // the thread has ended
		}
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{"NoNewPrivs:\t1", "Seccomp:\t2", "CapEff:\t0000000000000000", "CapPrm:\t0000000000000000"} {
			if !strings.Contains(string(b), want) {
				t.Errorf("%s has no %q", file, want)
			}
		}
	}
	for _, ns := range p.Namespaces() {
		here, _ := os.Readlink("/proc/self/ns/" + ns)
		there, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", p.Pid(), ns))
		if err != nil || here == there {
			t.Errorf("namespace %s: %s here, %s there, %v", ns, here, there, err)
		}
	}
}

// workDir is a code directory with one entry.
func workDir(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "entry"), []byte("code"), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestWorkerCanWork holds that the jail leaves what a worker lives by.
func TestWorkerCanWork(t *testing.T) {
	p, conn := start(t, Config{Args: []string{"_work", workDir(t)}})
	var failed []string
	receive(t, p, conn, &failed)
	for _, f := range failed {
		t.Error(f)
	}
	testenv.Bar(t, 14, len(failed), "of what a worker lives by is refused, such as to map code to read and execute that it has written", len(failed) == 0)
	if e := p.Wait(); e.Code != 0 {
		t.Errorf("%v: %s", e, p.Stderr())
	}
}

// workChild does what a worker does and reports what failed.
func workChild(args []string) error {
	conn, _, err := enter(Worker(args[0], 3))
	if err != nil {
		return err
	}
	var failed []string
	check := func(what string, err error) {
		if err != nil {
			failed = append(failed, fmt.Sprintf("%s: %v", what, err))
		}
	}
	// More threads than there are processors, each in a blocking call.
	var wg sync.WaitGroup
	for range 32 {
		wg.Go(func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			ts := unix.Timespec{Nsec: int64(5 * time.Millisecond)}
			check("nanosleep", unix.Nanosleep(&ts, nil))
		})
	}
	wg.Wait()
	// The collector, on much memory, and timers.
	var hold [][]byte
	for range 64 {
		hold = append(hold, make([]byte, 1<<20))
	}
	runtime.GC()
	runtime.KeepAlive(hold)
	<-time.After(time.Millisecond)
	// Preemption of a loop without calls, which is a signal.
	var sum int
	wg.Go(func() {
		for i := range 1 << 27 {
			sum += i
		}
	})
	runtime.GC()
	wg.Wait()
	// Shared memory.
	fd, err := unix.MemfdCreate("object", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	check("memfd", err)
	check("ftruncate", unix.Ftruncate(fd, 1<<20))
	check("fdatasync", unix.Fdatasync(fd))
	check("fadvise", unix.Fadvise(fd, 0, 4096, unix.FADV_NORMAL))
	b, err := unix.Mmap(fd, 0, 1<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	check("mmap", err)
	if err := unix.Madvise(b, unix.MADV_POPULATE_WRITE); err != unix.EINVAL { // since Linux 5.14
		check("populate", err)
	}
	check("munmap", unix.Munmap(b))
	_, err = unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_WRITE)
	check("seal", err)
	private, err := unix.Mmap(fd, 0, 1<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE)
	check("private mmap", err)
	private[0] = 1
	check("reset", unix.Madvise(private, unix.MADV_DONTNEED))
	check("fallocate", ignore(unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, 4096), unix.EPERM)) // sealed
	// Code, written and then made executable.
	code, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	check("mmap for code", err)
	check("mprotect to execute", unix.Mprotect(code, unix.PROT_READ|unix.PROT_EXEC))
	// Its code cache.
	text, err := os.ReadFile(filepath.Join(args[0], "entry"))
	check("read the cache", err)
	if string(text) != "code" {
		check("read the cache", fmt.Errorf("got %q", text))
	}
	_, err = os.ReadDir(args[0])
	check("list the cache", err)
	_, err = os.Stat(args[0])
	check("stat the cache", err)
	random := make([]byte, 8)
	_, err = unix.Getrandom(random, 0)
	check("getrandom", err)
	var ru unix.Rusage
	check("getrusage", unix.Getrusage(unix.RUSAGE_THREAD, &ru))
	// Descriptors over the link.
	body, err := link.Marshal(failed)
	if err != nil {
		return err
	}
	if err := conn.Send(link.Message{Body: body, Files: []*os.File{os.NewFile(uintptr(fd), "object")}}); err != nil {
		return err
	}
	if len(args) > 1 {
		_, _ = conn.Recv() // until the test has looked, and closes the link
	}
	return nil
}

func ignore(err error, which error) error {
	if err == which {
		return nil
	}
	return err
}

// wasmModule is a module that exports f: () -> i32, which returns 42.
var wasmModule = []byte{
	0, 'a', 's', 'm', 1, 0, 0, 0,
	1, 5, 1, 0x60, 0, 1, 0x7f,
	3, 2, 1, 0,
	7, 5, 1, 1, 'f', 0, 0,
	10, 6, 1, 4, 0, 0x41, 42, 0x0b,
}

// TestCompileThenLoad holds that one jail suffices to compile a module and the
// other to load and run it, without compiling: that would need to write.
func TestCompileThenLoad(t *testing.T) {
	dir := t.TempDir()
	for _, verb := range []string{"_load", "_compile", "_load"} {
		p, conn := start(t, Config{Args: []string{verb, dir}})
		if verb == "_load" {
			if ents, _ := os.ReadDir(dir); len(ents) == 0 { // nothing is compiled yet
				if e := p.Wait(); e.Code != 1 || !strings.Contains(p.Stderr(), "not permitted") {
					t.Errorf("a worker compiled: %v, %s", e, p.Stderr())
				}
				if err := os.Remove(filepath.Join(dir, "x")); !errors.Is(err, os.ErrNotExist) {
					t.Error(err)
				}
				continue
			}
		}
		var got uint64
		receive(t, p, conn, &got)
		if got != 42 {
			t.Errorf("%s: f() = %d, want 42", verb, got)
		}
	}
}

func compileChild(args []string) error {
	return runWasm(Compiler(args[0], time.Minute, 4<<30, 3), args[0])
}

func loadChild(args []string) error { return runWasm(Worker(args[0], 3), args[0]) }

func runWasm(p Profile, dir string) error {
	conn, _, err := enter(p)
	if err != nil {
		return err
	}
	ctx := context.Background()
	cache, err := wazero.NewCompilationCacheWithDir(dir)
	if err != nil {
		return err
	}
	rt := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfigCompiler().WithCompilationCache(cache))
	compiled, err := rt.CompileModule(ctx, wasmModule)
	if err != nil {
		return err
	}
	mod, err := rt.InstantiateModule(ctx, compiled, wazero.NewModuleConfig())
	if err != nil {
		return err
	}
	out, err := mod.ExportedFunction("f").Call(ctx)
	if err != nil {
		return err
	}
	return send(conn, out[0])
}

// TestClosesWhatItInherits holds that a descriptor somebody left open reaches
// neither the jail nor, if marked close-on-exec, the child.
func TestClosesWhatItInherits(t *testing.T) {
	left, err := unix.Open("/etc/passwd", unix.O_RDONLY, 0) // without O_CLOEXEC
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(left)
	p, conn := start(t, Config{Args: []string{"_leak", t.TempDir()}})
	var l leaks
	receive(t, p, conn, &l)
	// Besides the link, whatever this test's own parent left open.
	if l.Closed != len(l.Before)-1-poller(l.Before) || l.Closed < 1 {
		t.Errorf("%d closed of %q", l.Closed, l.Before)
	}
	if len(l.After) > 0 {
		t.Errorf("still open: %v", l.After)
	}
	for _, fd := range l.Before {
		if strings.Contains(fd, "cgroup") {
			t.Errorf("the runtime keeps %s open", fd)
		}
	}
}

func poller(fds []string) (n int) {
	for _, fd := range fds {
		if strings.Contains(fd, "anon_inode:[event") {
			n++
		}
	}
	return n
}

func TestCPULimitKills(t *testing.T) {
	p, _ := start(t, Config{Args: []string{"_spin", t.TempDir()}})
	e := p.Wait()
	if !e.Killed() || e.CPU < 500*time.Millisecond || e.CPU > 3*time.Second {
		t.Errorf("%v", e)
	}
}

func TestExitAndStderr(t *testing.T) {
	p, _ := start(t, Config{Args: []string{"_die"}, StderrBytes: 10})
	if e := p.Wait(); e.Code != 3 || e.Killed() || p.Stderr() != "last words" {
		t.Errorf("%v, stderr %q", e, p.Stderr())
	}
	p.Kill()
	p, _ = start(t, Config{Args: []string{"_wait"}})
	p.Kill()
	p.Kill()
	if e := p.Wait(); !e.Killed() || e.Signal != "killed" {
		t.Errorf("%v", e)
	}
	if _, err := Spawn(Config{Path: "/missing"}); err == nil {
		t.Error("started a missing executable")
	}
}

// TestDiesWithParent holds that a worker does not outlive its node, however
// that ends.
func TestDiesWithParent(t *testing.T) {
	// The parent in the middle needs a /proc that shows its own children.
	withNamespaces(t, [][]namespace{{}})
	p, conn := start(t, Config{Args: []string{"_parent"}})
	var s string
	receive(t, p, conn, &s) // from the grandchild
	p.Kill()
	p.Wait()
	// The link ends when the grandchild has.
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if _, err := conn.Recv(); !errors.Is(err, link.ErrClosed) {
			t.Error(err)
		}
	}()
	within(t, "the grandchild's death", ended)
}

// TestSpawnFallsBack holds that a machine without namespaces still gets a jail.
func TestSpawnFallsBack(t *testing.T) {
	// CLONE_THREAD alone is EINVAL.
	withNamespaces(t, [][]namespace{{{"bad", unix.CLONE_THREAD}}, {}})
	p, conn := start(t, Config{Args: []string{"_enter", t.TempDir()}})
	var a Applied
	receive(t, p, conn, &a)
	if len(a.Namespaces) != 0 || len(a.Missing) == 0 || !strings.Contains(a.String(), "missing: namespaces") {
		t.Errorf("%+v", a)
	}
	if a.Seccomp == 0 || a.Landlock == 0 || !a.Capabilities {
		t.Errorf("the rest is missing: %v", a)
	}
	if firstSet.Load() != 1 {
		t.Error("the refused set would be tried again")
	}
}

func TestCgroup(t *testing.T) {
	version, detail, err := CgroupSupport()
	if errors.Is(err, ErrNoCgroup) {
		t.Skipf("SKIP: this machine lends no cgroup: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("cgroup v%d: %s", version, detail)
	c, err := NewCgroup("test", CgroupLimits{Memory: 256 << 20, CPUWeight: 50})
	if err != nil {
		t.Fatal(err)
	}
	t.Log(c)
	p, conn := start(t, Config{Args: []string{"_wait"}, Cgroup: c})
	var s string
	receive(t, p, conn, &s)
	for _, dir := range c.dirs() {
		b, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
		if err != nil || strings.TrimSpace(string(b)) != strconv.Itoa(p.Pid()) {
			t.Errorf("%s holds %q, want %d; %v", dir, b, p.Pid(), err)
		}
	}
	if err := c.Set(CgroupLimits{Memory: 512 << 20, CPUWeight: 200}); err != nil {
		t.Error(err)
	}
	p.Kill()
	p.Wait()
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if err := c.Close(); err != nil {
		t.Error("second close:", err)
	}
}

// TestFilter runs the assembled program on every system call number and on
// argument values at the edges, against the rules read plainly.
func TestFilter(t *testing.T) {
	const pid = 1234
	for name, rules := range map[string][]rule{"worker": workerCalls(pid), "compiler": compilerCalls(pid)} {
		vm := newFilterVM(t, rules)
		edges := []uint64{
			0, 1, 2, 3, 4, 5, 7, 10, 17, pid, pid + 1, cloneGo, cloneGoTLS, cloneC, cloneGo | unix.CLONE_NEWUSER, cloneGo &^ unix.CLONE_THREAD,
			cloneGo | 1<<32, unix.O_CREAT, unix.O_WRONLY, unix.O_CLOEXEC, unix.F_SETOWN, unix.F_ADD_SEALS, 1 << 31, 1<<32 | 5, 1<<64 - 1,
		}
		for nr := uint32(0); nr < 600; nr++ {
			for arg := range 6 {
				for _, v := range edges {
					var args [6]uint64
					args[arg] = v
					want := verdict(rules, nr, args)
					if got := vm.run(nr, args); got != want {
						t.Fatalf("%s: call %d, arguments %x: verdict %#x, want %#x", name, nr, args, got, want)
					}
				}
			}
		}
		if got := vm.run(x32Bit|unix.SYS_GETPID, [6]uint64{}); runtime.GOARCH == "amd64" && got != refused32 {
			t.Errorf("%s: an x32 call gets %#x", name, got)
		}
		vm.arch = unix.AUDIT_ARCH_I386
		if got := vm.run(unix.SYS_GETPID, [6]uint64{}); got != unix.SECCOMP_RET_KILL_PROCESS {
			t.Errorf("%s: an i386 call gets %#x", name, got)
		}
	}
}

// TestWorkerRules names what matters most, whatever the lists say.
func TestWorkerRules(t *testing.T) {
	const pid = 1234
	for _, c := range []struct {
		name  string
		rules []rule
		nr    uint32
		args  [6]uint64
		allow bool
	}{
		{"read by path", workerCalls(pid), unix.SYS_OPENAT, [6]uint64{0, 0, unix.O_CLOEXEC}, true},
		{"write by path", workerCalls(pid), unix.SYS_OPENAT, [6]uint64{0, 0, unix.O_WRONLY}, false},
		{"create", workerCalls(pid), unix.SYS_OPENAT, [6]uint64{0, 0, unix.O_CREAT}, false},
		{"nameless file", workerCalls(pid), unix.SYS_OPENAT, [6]uint64{0, 0, unix.O_TMPFILE}, false},
		{"compiler creates", compilerCalls(pid), unix.SYS_OPENAT, [6]uint64{0, 0, unix.O_CREAT | unix.O_RDWR}, true},
		{"compiler renames", compilerCalls(pid), unix.SYS_RENAMEAT, [6]uint64{}, true},
		{"worker renames", workerCalls(pid), unix.SYS_RENAMEAT, [6]uint64{}, false},
		{"thread", workerCalls(pid), unix.SYS_CLONE, [6]uint64{cloneGo}, true},
		{"process", workerCalls(pid), unix.SYS_CLONE, [6]uint64{uint64(unix.SIGCHLD)}, false},
		{"process like mprotect", workerCalls(pid), unix.SYS_CLONE, [6]uint64{unix.SYS_MPROTECT}, false},
		{"own thread", workerCalls(pid), unix.SYS_TGKILL, [6]uint64{pid}, true},
		{"other process", workerCalls(pid), unix.SYS_TGKILL, [6]uint64{pid + 1}, false},
		{"executable", workerCalls(pid), unix.SYS_MPROTECT, [6]uint64{0, 0, unix.PROT_READ | unix.PROT_EXEC}, true},
		{"writable and executable", workerCalls(pid), unix.SYS_MPROTECT, [6]uint64{0, 0, unix.PROT_WRITE | unix.PROT_EXEC}, false},
		{"map executable", workerCalls(pid), unix.SYS_MMAP, [6]uint64{0, 0, unix.PROT_READ | unix.PROT_EXEC}, false},
		{"map once more", workerCalls(pid), unix.SYS_MREMAP, [6]uint64{0, 0, 4096, unix.MREMAP_MAYMOVE | unix.MREMAP_FIXED}, true},
		{"move a mapping", workerCalls(pid), unix.SYS_MREMAP, [6]uint64{0, 4096, 4096, unix.MREMAP_MAYMOVE | unix.MREMAP_FIXED}, usesCgo},
		{"execve", workerCalls(pid), unix.SYS_EXECVE, [6]uint64{}, false},
		{"socket", compilerCalls(pid), unix.SYS_SOCKET, [6]uint64{}, false},
	} {
		if got := newFilterVM(t, c.rules).run(c.nr, c.args) == retAllow; got != c.allow {
			t.Errorf("%s: allowed %v, want %v", c.name, got, c.allow)
		}
	}
}

const refused32 = retErrno | uint32(unix.EPERM)

// verdict says what rules mean, without a program.
func verdict(rules []rule, nr uint32, args [6]uint64) uint32 {
	for _, r := range rules {
		if uint32(r.nr) != nr {
			continue
		}
		if r.errno != 0 {
			return retErrno | uint32(r.errno)
		}
		if len(r.any) == 0 {
			return retAllow
		}
		for _, all := range r.any {
			ok := true
			for _, c := range all {
				v := args[c.arg]
				ok = ok && uint32(v)&c.mask == c.equal && (c.wide || v>>32 == 0)
			}
			if ok {
				return retAllow
			}
		}
	}
	return refused32
}

type filterVM struct {
	vm   *bpf.VM
	arch uint32
}

func newFilterVM(t *testing.T, rules []rule) *filterVM {
	t.Helper()
	prog, err := assemble(rules)
	if err != nil {
		t.Fatal(err)
	}
	insts, ok := bpf.Disassemble(prog)
	if !ok {
		t.Fatal("the program does not disassemble")
	}
	vm, err := bpf.NewVM(insts)
	if err != nil {
		t.Fatal(err)
	}
	return &filterVM{vm, auditArch[runtime.GOARCH]}
}

// run gives the program struct seccomp_data. The VM loads big-endian, as from a
// packet, where the kernel loads native words.
func (f *filterVM) run(nr uint32, args [6]uint64) uint32 {
	words := []uint32{nr, f.arch, 0, 0}
	for _, a := range args {
		words = append(words, uint32(a), uint32(a>>32))
	}
	var b bytes.Buffer
	for _, w := range words {
		b.Write([]byte{byte(w >> 24), byte(w >> 16), byte(w >> 8), byte(w)})
	}
	n, err := f.vm.Run(b.Bytes())
	if err != nil {
		panic(err)
	}
	return uint32(n)
}

func TestEnterRefusesRelativeDirectory(t *testing.T) {
	if _, err := enterLandlock(Profile{ReadDirs: []string{"relative"}}); err == nil {
		t.Error("accepted")
	}
}

// BenchmarkSpawn is the cost of a jailed process, from Spawn to the first
// message it sends from inside its jail.
func BenchmarkSpawn(b *testing.B) {
	dir := b.TempDir()
	for _, set := range namespaceSets {
		var names []string
		for _, ns := range set {
			names = append(names, ns.name)
		}
		b.Run("namespaces="+orNone(names), func(b *testing.B) {
			withNamespaces(b, [][]namespace{set})
			for b.Loop() {
				conn, file, err := link.Pair(link.Options{})
				if err != nil {
					b.Fatal(err)
				}
				p, err := Spawn(Config{Args: []string{"_enter", dir}, Files: []*os.File{file}})
				file.Close()
				if err != nil {
					b.Fatal(err)
				}
				if _, err := conn.Recv(); err != nil {
					b.Fatal(err, p.Stderr())
				}
				b.StopTimer()
				p.Wait()
				conn.Close()
				b.StartTimer()
			}
		})
	}
}
