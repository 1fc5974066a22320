package wasi_test

import (
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"strings"
	"testing"

	"github.com/wray-project/wray/host/wasi"
)

func TestStdio(t *testing.T) {
	var out, errs strings.Builder
	m := newMachine(t, func(c *wasi.Config) {
		c.Stdin = wasi.NewBytes([]byte("hello"))
		c.Stdout, c.Stderr = out.Write, errs.Write
	})
	if s, e := m.read(0, 3); s != "hel" || e != wasi.Success {
		t.Errorf("read %q, %v", s, e)
	}
	if s, e := m.read(0, 100); s != "lo" || e != wasi.Success {
		t.Errorf("read %q, %v", s, e)
	}
	if s, e := m.read(0, 100); s != "" || e != wasi.Success {
		t.Errorf("at the end: read %q, %v", s, e)
	}
	m.write(1, "one ")
	m.write(1, "two")
	m.write(2, "oops")
	if out.String() != "one two" || errs.String() != "oops" {
		t.Errorf("stdout %q, stderr %q", out.String(), errs.String())
	}
	for fd, e := range map[uint64]wasi.Errno{1: wasi.EBADF, 2: wasi.EBADF, 3: wasi.EBADF, math.MaxUint32: wasi.EBADF} {
		if _, got := m.read(fd, 1); got != e {
			t.Errorf("read of %d: %v, want %v", fd, got, e)
		}
	}
	if _, e := m.write(0, "x"); e != wasi.EBADF {
		t.Errorf("write to stdin: %v", e)
	}
	// Not a terminal: no character device. And none can be made one by rights.
	st := m.alloc(24)
	for fd := uint64(0); fd < 3; fd++ {
		m.ok("fd_fdstat_get", fd, st)
		if m.mem[st] != byte(wasi.FiletypeUnknown) {
			t.Errorf("descriptor %d has type %d", fd, m.mem[st])
		}
		m.ok("fd_filestat_get", fd, m.alloc(64))
		m.ok("fd_fdstat_set_flags", fd, uint64(wasi.FdNonblock))
		m.ok("fd_fdstat_get", fd, st)
		if m.u16(st+2) != uint16(wasi.FdNonblock) {
			t.Errorf("descriptor %d has flags %d", fd, m.u16(st+2))
		}
	}
	if _, e := m.seek(1, 0, 0); e != wasi.ESPIPE {
		t.Errorf("seek of stdout: %v", e)
	}
	m.want(wasi.ESPIPE, "fd_tell", 1, m.alloc(8))
	m.want(wasi.ESPIPE, "fd_pwrite", 1, m.first(m.iovStr("x")), 1, 0, m.alloc(4))
	m.want(wasi.EINVAL, "fd_sync", 1)
	m.want(wasi.EINVAL, "fd_allocate", 1, 0, 1)
	m.want(wasi.EINVAL, "fd_filestat_set_size", 1, 0)
	m.want(wasi.ESPIPE, "fd_advise", 1, 0, 0, 0)
	m.want(wasi.ENOTCAPABLE, "fd_filestat_set_times", 1, 0, 0, 0)
	m.want(wasi.EBADF, "fd_readdir", 1, 0, 0, 0, m.alloc(4))
	if e := m.path("path_unlink_file", 1, "x"); e != wasi.ENOTDIR {
		t.Errorf("unlink in stdout: %v", e)
	}
}

func (m *machine) first(p, _ uint64) uint64 { return p }

func TestStdinIsEmptyAndOutputDroppedByDefault(t *testing.T) {
	m := newMachine(t)
	if s, e := m.read(0, 10); s != "" || e != wasi.Success {
		t.Errorf("read %q, %v", s, e)
	}
	if n, e := m.write(1, "into the void"); n != 13 || e != wasi.Success {
		t.Errorf("wrote %d, %v", n, e)
	}
}

func TestStdinReader(t *testing.T) {
	r, w := io.Pipe()
	m := newMachine(t, func(c *wasi.Config) { c.Stdin = wasi.NewReader(r) })
	go func() {
		w.Write([]byte("abc"))
		w.Close()
	}()
	if s, e := m.read(0, 10); s != "abc" || e != wasi.Success {
		t.Errorf("read %q, %v", s, e)
	}
	if s, e := m.read(0, 10); s != "" || e != wasi.Success {
		t.Errorf("read %q, %v", s, e)
	}
	m.sys.Close()
	if _, err := r.Read(make([]byte, 1)); err != io.ErrClosedPipe {
		t.Errorf("the reader was not closed: %v", err)
	}
}

func TestOutputShortAndFailing(t *testing.T) {
	var got []string
	answer := func(n int, err error) func(*wasi.Config) {
		return func(c *wasi.Config) {
			c.Stdout = func(p []byte) (int, error) {
				got = append(got, string(p))
				return min(n, len(p)), err
			}
		}
	}
	m := newMachine(t, answer(2, nil))
	if n, e := m.write(1, "hello"); n != 2 || e != wasi.Success {
		t.Errorf("wrote %d, %v", n, e)
	}
	m = newMachine(t, answer(2, io.ErrShortWrite))
	if n, e := m.write(1, "hello"); n != 2 || e != wasi.Success {
		t.Errorf("wrote %d, %v", n, e)
	}
	for _, tc := range []struct {
		err  error
		want wasi.Errno
	}{
		{wasi.ENOSPC, wasi.ENOSPC}, {fmt.Errorf("log: %w", wasi.EDQUOT), wasi.EDQUOT},
		{os.ErrClosed, wasi.EBADF}, {errors.New("?"), wasi.EIO}, {io.ErrClosedPipe, wasi.EPIPE},
	} {
		m = newMachine(t, answer(0, tc.err))
		if _, e := m.write(1, "hello"); e != tc.want {
			t.Errorf("%v: %v, want %v", tc.err, e, tc.want)
		}
	}
}

func TestVectors(t *testing.T) {
	var out strings.Builder
	m, _ := onDir(t)
	m.cfg.Stdout = out.Write
	m.cfg.Limits.MaxReadWrite = 10
	if err := m.sys.Reset(m.cfg); err != nil {
		t.Fatal(err)
	}
	res := m.alloc(4)
	p, n := m.iov(4, 0, 3, 8)
	for i := uint64(0); i < n; i++ {
		b := m.mem[m.u32(p+8*i):][:m.u32(p+8*i+4)]
		for j := range b {
			b[j] = 'a' + byte(i)
		}
	}
	// Cut at MaxReadWrite, in the middle of a buffer.
	m.ok("fd_write", 1, p, n, res)
	if m.u32(res) != 10 || out.String() != "aaaacccddd" {
		t.Errorf("wrote %d: %q", m.u32(res), out.String())
	}
	// No buffers.
	m.ok("fd_write", 1, p, 0, res)
	if m.u32(res) != 0 {
		t.Errorf("wrote %d of nothing", m.u32(res))
	}
	// Bad ones: the list, the count, the result, a buffer.
	end := uint64(len(m.mem))
	m.want(wasi.EFAULT, "fd_write", 1, end-7, 1, res)
	m.want(wasi.EFAULT, "fd_write", 1, p, 1, end-3)
	m.want(wasi.EINVAL, "fd_write", 1, p, 1025, res)
	m.want(wasi.EINVAL, "fd_write", 1, p, math.MaxUint32, res)
	m.want(wasi.EINVAL, "fd_read", 0, p, 1<<29, res) // times 8 is 0 in 32 bits
	q := m.alloc(16)
	m.put32(q, uint32(end)-1)
	m.put32(q+4, 2)
	m.want(wasi.EFAULT, "fd_write", 1, q, 1, res)
	m.put32(q, math.MaxUint32)
	m.put32(q+4, math.MaxUint32)
	m.want(wasi.EFAULT, "fd_write", 1, q, 1, res)
	// A bad buffer after a good one: what went before counts.
	out.Reset()
	s, size := m.str("good")
	m.put32(q, uint32(s))
	m.put32(q+4, uint32(size))
	m.put32(q+8, uint32(end))
	m.put32(q+12, 1)
	m.ok("fd_write", 1, q, 2, res)
	if m.u32(res) != 4 || out.String() != "good" {
		t.Errorf("wrote %d: %q", m.u32(res), out.String())
	}
}

func TestFileReadWriteSeek(t *testing.T) {
	m, dir := onDir(t)
	fd := m.mustOpen(3, "f", creat, rw)
	if n, e := m.write(fd, "0123456789"); n != 10 || e != wasi.Success {
		t.Fatalf("wrote %d, %v", n, e)
	}
	for _, tc := range []struct {
		off    int64
		whence uint64
		want   int64
		e      wasi.Errno
	}{
		{3, 0, 3, 0}, {2, 1, 5, 0}, {-1, 2, 9, 0}, {-1, 0, 0, wasi.EINVAL}, {-100, 1, 0, wasi.EINVAL},
		{0, 3, 0, wasi.EINVAL}, {0, 1 << 20, 0, wasi.EINVAL}, {0, 1, 9, 0}, {5, 0, 5, 0},
	} {
		if got, e := m.seek(fd, tc.off, tc.whence); e != tc.e || e == 0 && got != tc.want {
			t.Errorf("seek %d from %d: %d, %v", tc.off, tc.whence, got, e)
		}
	}
	out := m.alloc(8)
	m.ok("fd_tell", fd, out)
	if m.u64(out) != 5 {
		t.Errorf("tell %d", m.u64(out))
	}
	if s, e := m.read(fd, 3); s != "567" || e != 0 {
		t.Errorf("read %q, %v", s, e)
	}
	p, n := m.iov(2, 2)
	m.ok("fd_pread", fd, p, n, 8, out)
	if m.u32(out) != 2 || string(m.mem[m.u32(p):][:2]) != "89" {
		t.Errorf("pread %d", m.u32(out))
	}
	m.want(wasi.EINVAL, "fd_pread", fd, p, n, math.MaxUint64, out)
	m.want(wasi.EINVAL, "fd_pwrite", fd, p, n, 1<<63, out)
	q, k := m.iovStr("ab")
	m.ok("fd_pwrite", fd, q, k, 1, out)
	if s, e := m.read(fd, 3); s != "89" || e != 0 {
		t.Errorf("pread and pwrite moved the offset: read %q, %v", s, e)
	}
	m.ok("fd_sync", fd)
	m.ok("fd_datasync", fd)
	m.ok("fd_advise", fd, 0, 0, 3)
	m.want(wasi.EINVAL, "fd_advise", fd, 0, 0, 6)
	m.want(wasi.EINVAL, "fd_advise", fd, 1<<63, 0, 0)
	m.ok("fd_filestat_set_size", fd, 4)
	m.want(wasi.EINVAL, "fd_filestat_set_size", fd, 1<<63)
	m.ok("fd_close", fd)
	m.want(wasi.EBADF, "fd_close", fd)
	if b, _ := os.ReadFile(dir + "/f"); string(b) != "0ab3" {
		t.Errorf("the file holds %q", b)
	}
}

func TestAllocate(t *testing.T) {
	m, _ := onDir(t)
	m.cfg.Limits.MaxAllocate = 1 << 16
	if err := m.sys.Reset(m.cfg); err != nil {
		t.Fatal(err)
	}
	fd := m.mustOpen(3, "f", creat, rw)
	m.ok("fd_allocate", fd, 100, 50)
	if _, size, _ := m.stat(3, "f", 0); size != 150 {
		t.Errorf("size %d", size)
	}
	m.ok("fd_allocate", fd, 0, 1)
	if _, size, _ := m.stat(3, "f", 0); size != 150 {
		t.Errorf("size %d", size)
	}
	m.want(wasi.EFBIG, "fd_allocate", fd, 0, 1<<16+1)
	m.want(wasi.EFBIG, "fd_allocate", fd, math.MaxInt64, math.MaxInt64)
	m.want(wasi.EINVAL, "fd_allocate", fd, 0, 0)
	m.want(wasi.EINVAL, "fd_allocate", fd, math.MaxUint64, 1)
	m.want(wasi.EBADF, "fd_allocate", 3, 0, 1)
	ro := m.mustOpen(3, "f", 0, readRight)
	m.want(wasi.EINVAL, "fd_allocate", ro, 0, 1)
	m.want(wasi.EINVAL, "fd_filestat_set_size", ro, 0)
}

func TestAppend(t *testing.T) {
	m, dir := onDir(t)
	fd, e := m.open(3, "f", 0, creat, rw, uint64(wasi.FdAppend))
	if e != 0 {
		t.Fatal(e)
	}
	m.write(fd, "abc")
	m.seek(fd, 0, 0)
	m.write(fd, "def")
	m.ok("fd_fdstat_set_flags", fd, 0)
	m.seek(fd, 0, 0)
	m.write(fd, "X")
	m.ok("fd_fdstat_set_flags", fd, uint64(wasi.FdAppend|wasi.FdNonblock))
	m.write(fd, "Y")
	m.want(wasi.EINVAL, "fd_fdstat_set_flags", fd, 1<<5)
	m.want(wasi.EINVAL, "fd_fdstat_set_flags", fd, 1<<16|1)
	m.want(wasi.ENOTSUP, "fd_fdstat_set_flags", fd, uint64(wasi.FdSync))
	if b, _ := os.ReadFile(dir + "/f"); string(b) != "XbcdefY" {
		t.Errorf("the file holds %q", b)
	}
	st := m.alloc(24)
	m.ok("fd_fdstat_get", fd, st)
	if m.u16(st+2) != uint16(wasi.FdAppend|wasi.FdNonblock) || m.mem[st] != byte(wasi.FiletypeRegular) {
		t.Errorf("flags %d, type %d", m.u16(st+2), m.mem[st])
	}
}

func TestRenumber(t *testing.T) {
	m, dir := onDir(t)
	a := m.mustOpen(3, "a", creat, rw)
	b := m.mustOpen(3, "b", creat, rw)
	m.ok("fd_renumber", a, b)
	m.want(wasi.EBADF, "fd_close", a)
	m.write(b, "x")
	if c, _ := os.ReadFile(dir + "/a"); string(c) != "x" {
		t.Errorf("a holds %q", c)
	}
	m.ok("fd_renumber", b, b)
	m.want(wasi.EBADF, "fd_renumber", b, a)
	m.want(wasi.EBADF, "fd_renumber", a, b)
	m.want(wasi.EBADF, "fd_renumber", b, math.MaxUint32)
	m.ok("fd_renumber", b, 1) // over standard output
	m.write(1, "y")
	if c, _ := os.ReadFile(dir + "/a"); string(c) != "xy" {
		t.Errorf("a holds %q", c)
	}
	m.ok("fd_renumber", 3, 0) // a preopened directory over standard input
	if fd, e := m.open(0, "a", 0, 0, readRight, 0); e != 0 || fd != 3 {
		t.Errorf("open in the moved directory: %d, %v", fd, e)
	}
}

// TestMaxFiles holds the bound on descriptors, and that closing gives back.
func TestMaxFiles(t *testing.T) {
	m, _ := onDir(t)
	m.cfg.Limits.MaxFiles = 5
	if err := m.sys.Reset(m.cfg); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		var fds []uint64
		for {
			fd, e := m.open(3, ".", 0, 0, 0, 0)
			if e == wasi.EMFILE {
				break
			}
			if e != 0 {
				t.Fatal(e)
			}
			fds = append(fds, fd)
		}
		if len(fds) != 5 {
			t.Fatalf("opened %d", len(fds))
		}
		// The host's own files have room of their own, of 8.
		for i := range 9 {
			fd, e := m.sys.Install(wasi.Stream{}, 0)
			if (e == wasi.EMFILE) != (i == 8) {
				t.Fatalf("install %d: %d, %v", i, fd, e)
			}
			fds = append(fds, uint64(fd))
		}
		for _, fd := range fds[:13] {
			m.ok("fd_close", fd)
		}
	}
}
