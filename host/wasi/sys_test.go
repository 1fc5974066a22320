package wasi_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"
	"testing"

	"github.com/wray-project/wray/host/wasi"
)

// machine calls functions as an engine does, on a memory of its own. Offsets
// below 64 KiB are for structures the tests lay out; alloc hands out the rest.
type machine struct {
	t     testing.TB
	sys   wasi.System
	cfg   *wasi.Config
	poll  *sleeper
	mem   []byte
	free  uint32
	stack [16]uint64
	funcs map[string]wasi.Func
}

func newMachine(t testing.TB, change ...func(*wasi.Config)) *machine {
	t.Helper()
	m := &machine{t: t, mem: make([]byte, 1<<20), free: 64, funcs: map[string]wasi.Func{}}
	m.cfg, m.poll = config()
	for _, f := range change {
		f(m.cfg)
	}
	for _, f := range wasi.Functions() {
		m.funcs[f.Name] = f
	}
	if err := m.sys.Reset(m.cfg); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.sys.Close)
	return m
}

// onDir returns a machine with a fresh directory granted as descriptor 3.
func onDir(t testing.TB) (*machine, string) {
	t.Helper()
	dir := t.TempDir()
	return newMachine(t, func(c *wasi.Config) { c.Dirs = []wasi.Dir{grant(t, "/", dir)} }), dir
}

func (m *machine) call(name string, args ...uint64) wasi.Errno {
	m.t.Helper()
	f, ok := m.funcs[name]
	if !ok || len(args) != len(f.Params) {
		m.t.Fatalf("%s%v: no such function, or not so many parameters", name, args)
	}
	copy(m.stack[:], args)
	f.Call(&m.sys, m.mem, m.stack[:max(len(args), 1)])
	return wasi.Errno(m.stack[0])
}

func (m *machine) want(e wasi.Errno, name string, args ...uint64) {
	m.t.Helper()
	if got := m.call(name, args...); got != e {
		m.t.Errorf("%s%v: %v, want %v", name, args, got, e)
	}
}

func (m *machine) ok(name string, args ...uint64) {
	m.t.Helper()
	if e := m.call(name, args...); e != wasi.Success {
		m.t.Fatalf("%s%v: %v", name, args, e)
	}
}

// alloc returns the address of n fresh bytes.
func (m *machine) alloc(n int) uint64 {
	m.t.Helper()
	p := m.free
	m.free += uint32(n+7) &^ 7
	if int(m.free) > len(m.mem) {
		m.t.Fatal("the test's memory is full")
	}
	return uint64(p)
}

// str puts a string in memory and returns its address and length.
func (m *machine) str(s string) (p, n uint64) {
	p = m.alloc(len(s) + 1)
	copy(m.mem[p:], s)
	return p, uint64(len(s))
}

// iov makes a list of buffers of the given sizes.
func (m *machine) iov(sizes ...int) (p, n uint64) {
	p = m.alloc(8 * len(sizes))
	for i, size := range sizes {
		m.put32(p+uint64(8*i), uint32(m.alloc(size)))
		m.put32(p+uint64(8*i)+4, uint32(size))
	}
	return p, uint64(len(sizes))
}

// iovStr makes a list of one buffer that holds s.
func (m *machine) iovStr(s string) (p, n uint64) {
	b, size := m.str(s)
	p = m.alloc(8)
	m.put32(p, uint32(b))
	m.put32(p+4, uint32(size))
	return p, 1
}

func (m *machine) put32(p uint64, v uint32) { binary.LittleEndian.PutUint32(m.mem[p:], v) }
func (m *machine) put64(p uint64, v uint64) { binary.LittleEndian.PutUint64(m.mem[p:], v) }
func (m *machine) u16(p uint64) uint16      { return binary.LittleEndian.Uint16(m.mem[p:]) }
func (m *machine) u32(p uint64) uint32      { return binary.LittleEndian.Uint32(m.mem[p:]) }
func (m *machine) u64(p uint64) uint64      { return binary.LittleEndian.Uint64(m.mem[p:]) }

const (
	follow = 1

	creat     = 1
	directory = 2
	excl      = 4
	trunc     = 8

	readRight  = uint64(wasi.RightFdRead)
	writeRight = uint64(wasi.RightFdWrite)
	rw         = readRight | writeRight
)

// open opens a path, or returns the errno.
func (m *machine) open(dirfd uint64, path string, lookup, oflags, rights, fdflags uint64) (fd uint64, e wasi.Errno) {
	m.t.Helper()
	out := m.alloc(4)
	p, n := m.str(path)
	e = m.call("path_open", dirfd, lookup, p, n, oflags, rights, 0, fdflags, out)
	return uint64(m.u32(out)), e
}

func (m *machine) mustOpen(dirfd uint64, path string, oflags, rights uint64) uint64 {
	m.t.Helper()
	fd, e := m.open(dirfd, path, 0, oflags, rights, 0)
	if e != wasi.Success {
		m.t.Fatalf("open %s: %v", path, e)
	}
	return fd
}

// path calls a function of one path: name(fd, path).
func (m *machine) path(name string, dirfd uint64, path string) wasi.Errno {
	m.t.Helper()
	p, n := m.str(path)
	return m.call(name, dirfd, p, n)
}

// write writes s to fd.
func (m *machine) write(fd uint64, s string) (int, wasi.Errno) {
	m.t.Helper()
	out := m.alloc(4)
	p, n := m.iovStr(s)
	e := m.call("fd_write", fd, p, n, out)
	return int(m.u32(out)), e
}

// read reads up to n bytes from fd.
func (m *machine) read(fd uint64, n int) (string, wasi.Errno) {
	m.t.Helper()
	out := m.alloc(4)
	p, c := m.iov(n)
	if e := m.call("fd_read", fd, p, c, out); e != wasi.Success {
		return "", e
	}
	b := m.u32(p)
	return string(m.mem[b : b+m.u32(out)]), wasi.Success
}

func (m *machine) seek(fd uint64, off int64, whence uint64) (int64, wasi.Errno) {
	out := m.alloc(8)
	e := m.call("fd_seek", fd, uint64(off), whence, out)
	return int64(m.u64(out)), e
}

// stat returns type and size of a path.
func (m *machine) stat(dirfd uint64, path string, lookup uint64) (typ wasi.Filetype, size uint64, e wasi.Errno) {
	m.t.Helper()
	out := m.alloc(64)
	p, n := m.str(path)
	e = m.call("path_filestat_get", dirfd, lookup, p, n, out)
	return wasi.Filetype(m.mem[out+16]), m.u64(out + 32), e
}

func (m *machine) symlink(target string, dirfd uint64, path string) wasi.Errno {
	m.t.Helper()
	p, n := m.str(target)
	q, k := m.str(path)
	return m.call("path_symlink", p, n, dirfd, q, k)
}

func (m *machine) rename(fd uint64, from string, fd2 uint64, to string) wasi.Errno {
	m.t.Helper()
	p, n := m.str(from)
	q, k := m.str(to)
	return m.call("path_rename", fd, p, n, fd2, q, k)
}

func (m *machine) link(fd uint64, from string, fd2 uint64, to string) wasi.Errno {
	m.t.Helper()
	p, n := m.str(from)
	q, k := m.str(to)
	return m.call("path_link", fd, 0, p, n, fd2, q, k)
}

func TestArgsAndEnviron(t *testing.T) {
	for name, tc := range map[string]struct {
		get, sizes string
		set        func(*wasi.Config, []string)
	}{
		"args":    {"args_get", "args_sizes_get", func(c *wasi.Config, s []string) { c.Args = s }},
		"environ": {"environ_get", "environ_sizes_get", func(c *wasi.Config, s []string) { c.Env = s }},
	} {
		t.Run(name, func(t *testing.T) {
			list := []string{"prog", "", "a=b", "ü"}
			m := newMachine(t, func(c *wasi.Config) { tc.set(c, list) })
			out := m.alloc(8)
			m.ok(tc.sizes, out, out+4)
			if m.u32(out) != 4 || m.u32(out+4) != 5+1+4+3 {
				t.Fatalf("sizes %d, %d", m.u32(out), m.u32(out+4))
			}
			ptrs, buf := m.alloc(16), m.alloc(13)
			m.ok(tc.get, ptrs, buf)
			for i, s := range list {
				p := m.u32(ptrs + uint64(4*i))
				if got := string(m.mem[p : int(p)+len(s)+1]); got != s+"\x00" {
					t.Errorf("%d: %q", i, got)
				}
			}
			end := uint64(len(m.mem))
			m.want(wasi.EFAULT, tc.get, end-15, buf)
			m.want(wasi.EFAULT, tc.get, ptrs, end-12)
			m.want(wasi.EFAULT, tc.sizes, end-3, out)
			m.want(wasi.EFAULT, tc.sizes, out, math.MaxUint32)
		})
	}
}

func TestResetRefuses(t *testing.T) {
	good := func() *wasi.Config { c, _ := config(); return c }
	for name, change := range map[string]func(*wasi.Config){
		"random":      func(c *wasi.Config) { c.Random = nil },
		"wall":        func(c *wasi.Config) { c.WallClock = nil },
		"mono":        func(c *wasi.Config) { c.MonoClock = nil },
		"poller":      func(c *wasi.Config) { c.Poller = nil },
		"exit":        func(c *wasi.Config) { c.Exit = nil },
		"zero byte":   func(c *wasi.Config) { c.Args = []string{"a\x00b"} },
		"long env":    func(c *wasi.Config) { c.Env = []string{string(make([]byte, wasi.MaxArgs))} },
		"no fs":       func(c *wasi.Config) { c.Dirs = []wasi.Dir{{GuestPath: "/"}} },
		"no guestdir": func(c *wasi.Config) { c.Dirs = []wasi.Dir{{FS: wasi.ReadOnly(nil)}} },
	} {
		var s wasi.System
		cfg := good()
		change(cfg)
		if err := s.Reset(cfg); err == nil {
			t.Errorf("%s: Reset accepted it", name)
		}
	}
}

func TestClocks(t *testing.T) {
	var wall, mono, cpu int64 = 1_700_000_000_123_456_789, 5_000_000_999, 7_777
	m := newMachine(t, func(c *wasi.Config) {
		c.Resolution = 1000
		c.WallClock = func() int64 { return wall }
		c.MonoClock = func() int64 { return mono }
		c.CPUClock = func() int64 { return cpu }
	})
	out := m.alloc(8)
	get := func(id uint64) uint64 {
		m.ok("clock_time_get", id, 1, out)
		return m.u64(out)
	}
	for id, want := range []uint64{1_700_000_000_123_456_000, 5_000_000_000, 7_000, 7_000} {
		if got := get(uint64(id)); got != want {
			t.Errorf("clock %d: %d, want %d", id, got, want)
		}
		m.ok("clock_res_get", uint64(id), out)
		if m.u64(out) != 1000 {
			t.Errorf("clock %d: resolution %d", id, m.u64(out))
		}
	}
	mono -= 1e9
	if got := get(1); got != 5_000_000_000 {
		t.Errorf("the monotonic clock went back to %d", got)
	}
	m.want(wasi.EINVAL, "clock_time_get", 4, 0, out)
	m.want(wasi.EINVAL, "clock_res_get", 4, out)
	m.want(wasi.EFAULT, "clock_time_get", 0, 0, uint64(len(m.mem))-7)
	m.want(wasi.EFAULT, "clock_res_get", 0, math.MaxUint32)
}

func TestRandom(t *testing.T) {
	var chunks []int
	yields := 0
	m := newMachine(t, func(c *wasi.Config) {
		c.Limits.MaxRandom = 3 << 20
		c.Yield = func() { yields++ }
		c.Random = func(b []byte) {
			chunks = append(chunks, len(b))
			for i := range b {
				b[i] = 0xA5
			}
		}
	})
	m.mem = make([]byte, 4<<20)
	m.ok("random_get", 16, 5)
	if string(m.mem[15:22]) != "\x00\xa5\xa5\xa5\xa5\xa5\x00" {
		t.Errorf("memory: %x", m.mem[15:22])
	}
	m.ok("random_get", 0, 3<<20)
	if fmt.Sprint(chunks) != "[5 1048576 1048576 1048576]" || yields != 2 {
		t.Errorf("chunks %v, %d yields", chunks, yields)
	}
	m.want(wasi.EINVAL, "random_get", 0, 3<<20+1)
	m.want(wasi.EINVAL, "random_get", 0, math.MaxUint32)
	m.want(wasi.EFAULT, "random_get", 4<<20-1, 2)
	if n := m.sys.TakeMoved(); n != 3<<20+5 {
		t.Errorf("moved %d", n)
	}
}

func TestProc(t *testing.T) {
	m := newMachine(t)
	exits := func(f func()) (code uint32, ended bool) {
		defer func() {
			var e *exitError
			if err, ok := recover().(error); ok && errors.As(err, &e) {
				code, ended = e.code, true
			}
		}()
		f()
		return 0, false
	}
	if code, ended := exits(func() { m.call("proc_exit", 42) }); !ended || code != 42 {
		t.Errorf("proc_exit: %d, %v", code, ended)
	}
	if code, ended := exits(func() { m.call("proc_raise", 6) }); !ended || code != 134 {
		t.Errorf("proc_raise of abort: %d, %v", code, ended)
	}
	m.ok("proc_raise", 0)
	m.ok("proc_raise", 16)
	m.want(wasi.ENOTSUP, "proc_raise", 18)
	m.want(wasi.EINVAL, "proc_raise", 31)
	m.ok("sched_yield")
}

func TestSockets(t *testing.T) {
	m, _ := onDir(t)
	for _, fd := range []uint64{0, 1, 2, 3} {
		m.want(wasi.ENOTSOCK, "sock_shutdown", fd, 1)
		m.want(wasi.ENOTSOCK, "sock_accept", fd, 0, 0)
		m.want(wasi.ENOTSOCK, "sock_recv", fd, 0, 0, 0, 0, 0)
		m.want(wasi.ENOTSOCK, "sock_send", fd, 0, 0, 0, 0)
	}
	m.want(wasi.EBADF, "sock_shutdown", 4, 1)
}

func TestClosedSystem(t *testing.T) {
	m, dir := onDir(t)
	fd := m.mustOpen(3, "f", creat, rw)
	if err := m.sys.Reset(m.cfg); err != nil {
		t.Fatal(err)
	}
	m.want(wasi.EBADF, "fd_close", fd)
	if _, e := m.open(3, "f", 0, 0, rw, 0); e != wasi.Success {
		t.Error(e)
	}
	m.sys.Close()
	for name, f := range m.funcs {
		if f.Result {
			m.want(wasi.ECANCELED, name, make([]uint64, len(f.Params))...)
		}
	}
	if _, e := m.sys.Install(wasi.Stream{}, 0); e != wasi.ECANCELED {
		t.Error(e)
	}
	if _, err := os.Stat(dir + "/f"); err != nil {
		t.Error(err)
	}
}
