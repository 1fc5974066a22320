package wasi_test

import (
	"encoding/binary"
	"math"
	"strings"
	"testing"

	"github.com/wray-project/wray/host/wasi"
)

// queue is a non-blocking file of events, as a host installs one.
type queue struct {
	wasi.Stream
	b      []byte
	full   bool // not writable
	closed bool
}

func (q *queue) Read(p []byte) (int, wasi.Errno) {
	if len(q.b) == 0 {
		return 0, wasi.EAGAIN
	}
	n := copy(p, q.b)
	q.b = q.b[n:]
	return n, 0
}

func (q *queue) Write(p []byte) (int, wasi.Errno) {
	if q.full {
		return 0, wasi.EAGAIN
	}
	q.b = append(q.b, p...)
	return len(p), 0
}

func (q *queue) Ready() (read, write bool) { return len(q.b) > 0, !q.full }

func (q *queue) Close() wasi.Errno {
	q.closed = true
	return 0
}

// pollFunc is a Poller made of a function.
type pollFunc func(deadline int64, files []wasi.Interest) wasi.Errno

func (f pollFunc) Wait(deadline int64, files []wasi.Interest) wasi.Errno { return f(deadline, files) }

type sub struct {
	typ      byte
	fd       uint32 // or the clock
	timeout  uint64
	absolute bool
}

type event struct {
	userdata uint64
	e        wasi.Errno
	typ      byte
	nbytes   uint64
}

// polls lays out subscriptions with userdata 100, 101, … and polls.
func (m *machine) polls(subs ...sub) ([]event, wasi.Errno) {
	m.t.Helper()
	in, out, n := m.alloc(48*len(subs)), m.alloc(32*len(subs)), m.alloc(4)
	for i, s := range subs {
		p := in + uint64(48*i)
		m.put64(p, uint64(100+i))
		m.mem[p+8] = s.typ
		m.put32(p+16, s.fd)
		m.put64(p+24, s.timeout)
		if s.absolute {
			m.mem[p+40] = 1
		}
	}
	if e := m.call("poll_oneoff", in, out, uint64(len(subs)), n); e != 0 {
		return nil, e
	}
	var events []event
	for i := range uint64(m.u32(n)) {
		p := out + 32*i
		events = append(events, event{m.u64(p), wasi.Errno(m.u16(p + 8)), m.mem[p+10], m.u64(p + 16)})
	}
	return events, 0
}

func TestPollClock(t *testing.T) {
	var mono, wall int64 = 1_000_500, 2_000_000_700
	var deadlines []int64
	spurious := 0
	m := newMachine(t, func(c *wasi.Config) {
		c.Resolution = 1000
		c.MonoClock = func() int64 { return mono }
		c.WallClock = func() int64 { return wall }
		c.Poller = pollFunc(func(deadline int64, files []wasi.Interest) wasi.Errno {
			deadlines = append(deadlines, deadline)
			if len(files) != 0 || deadline < 0 {
				t.Fatalf("waits for %v until %d", files, deadline)
			}
			if spurious > 0 {
				spurious-- // woken for nothing
				return 0
			}
			wall += deadline - mono
			mono = deadline
			return 0
		})
	})
	for _, tc := range []struct {
		name     string
		subs     []sub
		spurious int
		events   []event
		deadline []int64
	}{
		{"zero is at once", []sub{{0, 1, 0, false}}, 0, []event{{100, 0, 0, 0}}, nil},
		{"relative", []sub{{0, 1, 5000, false}}, 0, []event{{100, 0, 0, 0}}, []int64{1_005_000}},
		{"between steps", []sub{{0, 1, 1, false}}, 0, []event{{100, 0, 0, 0}}, []int64{1_006_000}},
		{"woken early", []sub{{0, 1, 5000, false}}, 3, []event{{100, 0, 0, 0}}, []int64{1_011_000, 1_011_000, 1_011_000, 1_011_000}},
		{"the earliest", []sub{{0, 1, 9000, false}, {0, 1, 2000, false}, {0, 1, 1 << 63, false}}, 0,
			[]event{{101, 0, 0, 0}}, []int64{1_013_000}},
		{"two at once", []sub{{0, 1, 2000, false}, {0, 0, 2000, false}}, 0,
			[]event{{100, 0, 0, 0}, {101, 0, 0, 0}}, []int64{1_015_000}},
		{"absolute, past", []sub{{0, 1, 3, true}, {0, 0, 3, true}}, 0, []event{{100, 0, 0, 0}, {101, 0, 0, 0}}, nil},
		{"absolute", []sub{{0, 1, 1_020_000, true}}, 0, []event{{100, 0, 0, 0}}, []int64{1_020_000}},
		{"absolute wall", []sub{{0, 0, 2_000_025_000, true}}, 0, []event{{100, 0, 0, 0}}, []int64{1_025_000}},
		{"no such clock", []sub{{0, 2, 1, false}, {0, 77, 1, false}}, 0,
			[]event{{100, wasi.EINVAL, 0, 0}, {101, wasi.EINVAL, 0, 0}}, nil},
	} {
		deadlines, spurious = nil, tc.spurious
		events, e := m.polls(tc.subs...)
		if e != 0 || !equal(events, tc.events) || !equal(deadlines, tc.deadline) {
			t.Errorf("%s: %v, events %v, deadlines %v; want %v, %v", tc.name, e, events, deadlines, tc.events, tc.deadline)
		}
	}
}

func equal[T comparable](a, b []T) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

func TestPollFiles(t *testing.T) {
	m, dir := onDir(t)
	tree(t, dir, "file", "d/")
	q := &queue{}
	fd, e := m.sys.Install(q, wasi.FdNonblock)
	if e != 0 {
		t.Fatal(e)
	}
	file, d := m.mustOpen(3, "file", 0, rw), m.mustOpen(3, "d", directory, 0)
	wo := m.mustOpen(3, "file", 0, writeRight)
	events, e := m.polls(sub{1, uint32(file), 0, false}, sub{2, uint32(file), 0, false}, sub{1, fd, 0, false},
		sub{2, fd, 0, false}, sub{1, 99, 0, false}, sub{1, uint32(d), 0, false}, sub{1, uint32(wo), 0, false},
		sub{1, 0, 0, false}, sub{2, 1, 0, false}, sub{0, 1, 1e9, false})
	want := []event{
		{100, 0, 1, 4}, {101, 0, 2, 1}, {103, 0, 2, 1}, {104, wasi.EBADF, 1, 0}, {105, wasi.EBADF, 1, 0},
		{106, wasi.ENOTCAPABLE, 1, 0}, {107, 0, 1, 1}, {108, 0, 2, 1},
	}
	if e != 0 || !equal(events, want) {
		t.Errorf("%v, events %v,\nwant %v", e, events, want)
	}

	// Nothing is ready: wait, and be told of the file.
	q.full = true
	waits := 0
	m.cfg.Poller = pollFunc(func(deadline int64, files []wasi.Interest) wasi.Errno {
		waits++
		if len(files) != 2 || files[0] != (wasi.Interest{File: q}) || files[1] != (wasi.Interest{File: q, Write: true}) {
			t.Errorf("waits for %v", files)
		}
		switch waits {
		case 1:
			if deadline != -1 {
				t.Errorf("deadline %d", deadline)
			}
		case 2:
			q.b = []byte("ev")
		default:
			return wasi.ECANCELED
		}
		return 0
	})
	if err := m.sys.Reset(m.cfg); err != nil {
		t.Fatal(err)
	}
	if !q.closed {
		t.Error("Reset left a file open")
	}
	fd, _ = m.sys.Install(q, wasi.FdNonblock)
	events, e = m.polls(sub{1, fd, 0, false}, sub{2, fd, 0, false})
	if e != 0 || !equal(events, []event{{100, 0, 1, 1}}) || waits != 2 {
		t.Errorf("%v, events %v after %d waits", e, events, waits)
	}
	q.b = nil
	if _, e := m.polls(sub{1, fd, 0, false}, sub{2, fd, 0, false}); e != wasi.ECANCELED {
		t.Errorf("canceled: %v", e)
	}
}

func TestPollBounds(t *testing.T) {
	m := newMachine(t)
	end := uint64(len(m.mem))
	in, out, n := m.alloc(48), m.alloc(32), m.alloc(4)
	m.want(wasi.EINVAL, "poll_oneoff", in, out, 0, n)
	m.want(wasi.EINVAL, "poll_oneoff", in, out, 1025, n)
	// Times 48 is 32 in 32 bits.
	m.want(wasi.EINVAL, "poll_oneoff", in, out, 0x5555_5556, n)
	m.want(wasi.EINVAL, "poll_oneoff", in, out, math.MaxUint32, n)
	m.want(wasi.EFAULT, "poll_oneoff", end-47, out, 1, n)
	m.want(wasi.EFAULT, "poll_oneoff", in, end-31, 1, n)
	m.want(wasi.EFAULT, "poll_oneoff", in, out, 1, end-3)
	m.want(wasi.EFAULT, "poll_oneoff", in, math.MaxUint32, 1, n)
	m.mem[in+8] = 3
	m.want(wasi.EINVAL, "poll_oneoff", in, out, 1, n)
}

// TestBlockingMode holds that a file with nothing to read makes a guest wait
// that did not ask for non-blocking mode, and the other not.
func TestBlockingMode(t *testing.T) {
	q := &queue{}
	waits := 0
	m := newMachine(t, func(c *wasi.Config) {
		c.Stdin = q
		c.Poller = pollFunc(func(deadline int64, files []wasi.Interest) wasi.Errno {
			waits++
			if deadline != -1 || len(files) != 1 || files[0].File != wasi.File(q) {
				t.Errorf("waits for %v until %d", files, deadline)
			}
			switch {
			case waits == 2 && !files[0].Write:
				q.b = []byte("late")
			case waits == 4:
				q.full = false
			case waits > 4:
				return wasi.ECANCELED
			}
			return 0
		})
	})
	if s, e := m.read(0, 10); s != "late" || e != 0 || waits != 2 {
		t.Errorf("read %q, %v after %d waits", s, e, waits)
	}
	m.ok("fd_fdstat_set_flags", 0, uint64(wasi.FdNonblock))
	if _, e := m.read(0, 10); e != wasi.EAGAIN || waits != 2 {
		t.Errorf("non-blocking: %v after %d waits", e, waits)
	}
	m.ok("fd_fdstat_set_flags", 0, 0)
	q.full = true
	fd, _ := m.sys.Install(q, 0)
	if n, e := m.write(uint64(fd), "x"); n != 1 || e != 0 || waits != 4 {
		t.Errorf("wrote %d, %v after %d waits", n, e, waits)
	}
	q.b = nil
	if _, e := m.read(0, 10); e != wasi.ECANCELED {
		t.Errorf("canceled: %v", e)
	}
}

// TestNested holds that the guest may be called, and call, while it waits.
func TestNested(t *testing.T) {
	var m *machine
	q, depth := &queue{}, 0
	var fd uint32
	m = newMachine(t, func(c *wasi.Config) {
		c.Poller = pollFunc(func(_ int64, files []wasi.Interest) wasi.Errno {
			mine := files[0].File
			depth++
			if depth < 4 {
				if events, e := m.polls(sub{1, fd, 0, false}); e != 0 || len(events) != 1 {
					t.Errorf("nested poll: %v, %v", e, events)
				}
			} else {
				q.b = []byte("x")
			}
			if files[0].File != mine {
				t.Error("a nested poll took the list of the one around it")
			}
			return 0
		})
	})
	fd, _ = m.sys.Install(q, wasi.FdNonblock)
	if events, e := m.polls(sub{1, fd, 0, false}); e != 0 || len(events) != 1 || depth != 4 {
		t.Errorf("%v, %v, depth %d", e, events, depth)
	}
	// A descriptor that the nested guest closes is not read from again.
	m.cfg.Stdin = q
	q.b = nil
	m.cfg.Poller = pollFunc(func(int64, []wasi.Interest) wasi.Errno {
		m.ok("fd_close", 0)
		return 0
	})
	if err := m.sys.Reset(m.cfg); err != nil {
		t.Fatal(err)
	}
	if _, e := m.read(0, 1); e != wasi.EBADF {
		t.Errorf("read: %v", e)
	}
}

// TestNoAllocation holds that the hot functions, and Reset, allocate nothing.
func TestNoAllocation(t *testing.T) {
	var buf [64]byte
	q := &queue{b: buf[:]}
	m, _ := onDir(t)
	m.cfg.Args, m.cfg.Env = []string{"a", "b"}, []string{"c=d"}
	m.cfg.Stdout = func(p []byte) (int, error) { return len(p), nil }
	m.cfg.Poller = pollFunc(func(int64, []wasi.Interest) wasi.Errno {
		q.b = buf[:1]
		return 0
	})
	// Not m.ok, whose arguments are allocated for its messages.
	ok := func(name string, args ...uint64) {
		copy(m.stack[:], args)
		if m.funcs[name].Call(&m.sys, m.mem, m.stack[:]); m.stack[0] != 0 {
			t.Error(name, wasi.Errno(m.stack[0]))
		}
	}
	if err := m.sys.Reset(m.cfg); err != nil {
		t.Fatal(err)
	}
	fd, _ := m.sys.Install(q, wasi.FdNonblock)
	res, st := m.alloc(8), m.alloc(64)
	p, n := m.iovStr("hello")
	rp, rn := m.iov(16)
	in, out := m.alloc(96), m.alloc(64)
	m.mem[in+8] = 1
	m.put32(in+16, fd)
	m.mem[in+56] = 0
	m.put32(in+64, 1)
	m.put64(in+72, 1e15)
	for name, f := range map[string]func(){
		"fd_write":       func() { ok("fd_write", 1, p, n, res) },
		"fd_read":        func() { q.b = buf[:16]; ok("fd_read", uint64(fd), rp, rn, res) },
		"clock_time_get": func() { ok("clock_time_get", 1, 0, res) },
		"poll, ready":    func() { q.b = buf[:1]; ok("poll_oneoff", in, out, 1, res) },
		"poll, waiting":  func() { q.b = nil; ok("poll_oneoff", in, out, 2, res) },
		"random_get":     func() { ok("random_get", st, 8) },
		"fd_fdstat_get":  func() { ok("fd_fdstat_get", uint64(fd), st) },
		"args_get":       func() { ok("args_get", st, st+32) },
		"Reset": func() {
			if err := m.sys.Reset(m.cfg); err != nil {
				t.Fatal(err)
			}
			if fd, _ = m.sys.Install(q, wasi.FdNonblock); fd != 4 {
				t.Fatal(fd)
			}
		},
	} {
		if allocs := testing.AllocsPerRun(200, f); allocs != 0 {
			t.Errorf("%s: %v allocations", name, allocs)
		}
	}
}

func BenchmarkFunctions(b *testing.B) {
	q := &queue{b: make([]byte, 64)}
	m := newMachine(b, func(c *wasi.Config) {
		c.Stdout = func(p []byte) (int, error) { return len(p), nil }
		c.MonoClock = func() int64 { return 1e9 }
	})
	fd, _ := m.sys.Install(q, wasi.FdNonblock)
	res := m.alloc(8)
	p, n := m.iovStr(strings.Repeat("x", 64))
	in, out := m.alloc(48), m.alloc(32)
	m.mem[in+8] = 1
	binary.LittleEndian.PutUint32(m.mem[in+16:], fd)
	bench := func(name string, args ...uint64) {
		f := m.funcs[name].Call
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				q.b = q.b[:64]
				copy(m.stack[:], args)
				f(&m.sys, m.mem, m.stack[:])
				q.b = q.b[:0:cap(q.b)]
			}
			if m.stack[0] != 0 {
				b.Fatal(wasi.Errno(m.stack[0]))
			}
		})
		q.b = make([]byte, 64)
	}
	bench("clock_time_get", 1, 0, res)
	bench("fd_write", 1, p, n, res)
	bench("poll_oneoff", in, out, 1, res)
	b.Run("Reset", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			m.sys.Reset(m.cfg)
		}
	})
}
