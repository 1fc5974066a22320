package wasi_test

import (
	"encoding/binary"
	"errors"
	"flag"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/wray-project/wray/host/wasi"
	"github.com/wray-project/wray/host/wasi/wasitest"
)

var (
	randomCalls = flag.Int("wasi.calls", 50_000, "calls of TestRandomCalls")
	randomSeed  = flag.Uint64("wasi.seed", 0, "seed of TestRandomCalls; 0: by the clock")
)

// hostile is a sandbox whose guest does anything. Its memory ends in a guard
// that no function may touch: one that slices past the end it was given would.
type hostile struct {
	t     testing.TB
	sys   wasi.System
	cfg   *wasi.Config
	funcs []wasi.Func
	whole []byte // memory and guard
	mem   []byte
	out   string // must not change
	was   string
	waits int
}

const (
	hostileMem   = 1 << 16
	hostileGuard = 1 << 12
	pathsAt      = 1 << 12 // where the paths lie, 64 bytes each
)

func newHostile(t testing.TB) *hostile {
	t.Helper()
	dir, out := wasitest.Outside(t)
	h := &hostile{t: t, funcs: wasi.Functions(), out: out, was: wasitest.Describe(t, out)}
	h.cfg, _ = config()
	mono := int64(1e9)
	h.cfg.MonoClock = func() int64 { mono += 1e6; return mono }
	h.cfg.Poller = pollFunc(func(int64, []wasi.Interest) wasi.Errno {
		if h.waits++; h.waits > 2 {
			h.waits = 0
			return wasi.ECANCELED
		}
		return 0
	})
	h.cfg.Limits = wasi.Limits{MaxAllocate: 1 << 16, MaxRandom: 1 << 15, MaxFiles: 16, MaxReadWrite: 1 << 14}
	h.cfg.Args, h.cfg.Env = []string{"a", "bc"}, []string{"d=e"}
	rw, ro := grant(t, "/", dir), grant(t, "/ro", dir)
	ro.ReadOnly = true
	h.cfg.Dirs = []wasi.Dir{rw, ro}
	h.whole = make([]byte, hostileMem+hostileGuard)
	h.mem = h.whole[:hostileMem:hostileMem]
	for i := range h.whole[hostileMem:] {
		h.whole[hostileMem+i] = 0xEE
	}
	for i, p := range hostilePaths(out) {
		copy(h.mem[pathsAt+64*i:], p)
	}
	h.reset()
	return h
}

func hostilePaths(out string) []string {
	return append(wasitest.Ways(out), ".", "", "d/..", "f/", "/", "a\x00b", "f", "d", "d/x", "new", "g")
}

const harmless = 5 // paths at the end of hostilePaths that lead to files

func (h *hostile) reset() {
	if err := h.sys.Reset(h.cfg); err != nil {
		h.t.Fatal(err)
	}
	h.sys.Install(&queue{}, wasi.FdNonblock)
}

// call calls a function and reports whether the guest goes on. Any panic but
// that of proc_exit is a failure.
func (h *hostile) call(f wasi.Func, stack []uint64) (alive bool) {
	defer func() {
		if r := recover(); r != nil {
			var exit *exitError
			if err, ok := r.(error); ok && errors.As(err, &exit) {
				return
			}
			h.t.Fatalf("%s%v: panic: %v", f.Name, stack, r)
		}
	}()
	f.Call(&h.sys, h.mem, stack)
	return true
}

func (h *hostile) check() {
	h.t.Helper()
	for i, b := range h.whole[hostileMem:] {
		if b != 0xEE {
			h.t.Fatalf("byte %d past the end of memory was written", i)
		}
	}
	if after := wasitest.Describe(h.t, h.out); after != h.was {
		h.t.Fatalf("outside changed:\n%s\nto:\n%s", h.was, after)
	}
	for i := 0; i+len(wasitest.Secret) <= len(h.mem); i++ {
		if h.mem[i] == wasitest.Secret[0] && string(h.mem[i:i+len(wasitest.Secret)]) == wasitest.Secret {
			h.t.Fatal("the secret is in the guest's memory")
		}
	}
}

var edges = []uint64{
	0, 1, 2, 3, 4, 5, 6, 7, 8, 16, 24, 32, 48, 64, 255, 256, 1024, 4096, hostileMem - 64, hostileMem - 8, hostileMem - 4,
	hostileMem - 1, hostileMem, hostileMem + 1, 1 << 29, 0x5555_5556, 1 << 31, math.MaxInt32, math.MaxUint32 - 7,
	math.MaxUint32, 1 << 32, math.MaxInt64, 1 << 63, math.MaxUint64,
}

// FuzzCalls makes calls out of bytes: each a function and, for every
// parameter, an edge, a path, a small number or any number.
func FuzzCalls(f *testing.F) {
	names := map[string]byte{}
	for i, fn := range wasi.Functions() {
		names[fn.Name] = byte(i)
	}
	edge := func(v uint64) []byte {
		for i, e := range edges {
			if e == v {
				return []byte{0, byte(i)}
			}
		}
		panic("no such edge")
	}
	seed := func(name string, args ...[]byte) []byte {
		b := []byte{names[name]}
		for _, a := range args {
			b = append(b, a...)
		}
		return b
	}
	f.Add(seed("poll_oneoff", edge(0), edge(64), edge(0x5555_5556), edge(0)))
	f.Add(seed("fd_read", edge(0), edge(0), edge(1<<29), edge(8)))
	f.Add(seed("path_open", edge(3), edge(1), []byte{1, 0}, edge(16), edge(1), edge(math.MaxUint64), edge(0), edge(0), edge(8)))
	f.Add(append(seed("fd_renumber", edge(3), edge(0)), seed("fd_readdir", edge(0), edge(64), edge(4096), edge(0), edge(8))...))
	f.Add(seed("random_get", edge(hostileMem-1), edge(math.MaxUint32)))
	f.Add(seed("args_get", edge(hostileMem-4), edge(hostileMem-4)))
	f.Fuzz(func(t *testing.T, data []byte) {
		h := newHostile(t)
		defer h.sys.Close()
		next := func(n int) uint64 {
			var b [8]byte
			data = data[copy(b[:n], data):]
			return binary.LittleEndian.Uint64(b[:])
		}
		for calls := 0; calls < 64 && len(data) > 0; calls++ {
			fn := h.funcs[int(next(1))%len(h.funcs)]
			stack := make([]uint64, max(len(fn.Params), 1))
			for i := range fn.Params {
				switch next(1) % 6 {
				case 0:
					stack[i] = edges[next(1)%uint64(len(edges))]
				case 1:
					stack[i] = pathsAt + 64*(next(1)%48)
				case 2, 3:
					stack[i] = next(1)
				case 4:
					stack[i] = next(2)
				case 5:
					stack[i] = next(8)
				}
				if fn.Params[i] == 'i' {
					stack[i] = uint64(uint32(stack[i]))
				}
			}
			if !h.call(fn, stack) {
				h.reset()
			}
		}
		h.check()
	})
}

// shapes are the parameters that must fit together for a call to get far.
var shapes = map[string]struct{ fds, paths, small []int }{
	"path_create_directory":   {fds: []int{0}, paths: []int{1}},
	"path_filestat_get":       {fds: []int{0}, paths: []int{2}},
	"path_filestat_set_times": {fds: []int{0}, paths: []int{2}, small: []int{1, 6}},
	"path_link":               {fds: []int{0, 4}, paths: []int{2, 5}, small: []int{1}},
	"path_open":               {fds: []int{0}, paths: []int{2}, small: []int{1}},
	"path_readlink":           {fds: []int{0}, paths: []int{1}},
	"path_remove_directory":   {fds: []int{0}, paths: []int{1}},
	"path_rename":             {fds: []int{0, 3}, paths: []int{1, 4}},
	"path_symlink":            {fds: []int{2}, paths: []int{0, 3}},
	"path_unlink_file":        {fds: []int{0}, paths: []int{1}},
	"fd_advise":               {fds: []int{0}, small: []int{1, 2, 3}},
	"fd_allocate":             {fds: []int{0}, small: []int{1, 2}},
	"fd_filestat_set_size":    {fds: []int{0}, small: []int{1}},
	"fd_filestat_set_times":   {fds: []int{0}, small: []int{1, 2, 3}},
	"fd_seek":                 {fds: []int{0}, small: []int{1, 2}},
	"fd_tell":                 {fds: []int{0}},
	"fd_read":                 {fds: []int{0}, small: []int{2}},
	"fd_write":                {fds: []int{0}, small: []int{2}},
	"fd_pread":                {fds: []int{0}, small: []int{2, 3}},
	"fd_pwrite":               {fds: []int{0}, small: []int{2, 3}},
}

// TestRandomCalls calls every function with arguments drawn so that many
// calls succeed: descriptors that are open, paths that are there, memory that
// is the guest's; and every now and then with anything.
func TestRandomCalls(t *testing.T) {
	seed := *randomSeed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("seed %d: go test -run TestRandomCalls -wasi.seed %d -wasi.calls %d", seed, seed, *randomCalls)
	r := rand.New(rand.NewPCG(seed, seed))
	h := newHostile(t)
	succeeded := map[string]int{}
	for n := range *randomCalls {
		paths := hostilePaths(h.out)
		fn := h.funcs[r.IntN(len(h.funcs))]
		if fn.Name == "fd_close" && r.IntN(4) > 0 {
			continue // else nothing stays open
		}
		stack := make([]uint64, max(len(fn.Params), 1))
		for i := range fn.Params {
			switch k := r.IntN(16); {
			case k < 4:
				stack[i] = uint64(r.IntN(16)) // a descriptor, a flag, a count
			case k < 8:
				stack[i] = pathsAt + 64*uint64(r.IntN(len(paths)))
			case k < 10:
				stack[i] = uint64(r.IntN(hostileMem))
			case k < 14:
				stack[i] = edges[r.IntN(len(edges))]
			default:
				stack[i] = r.Uint64()
			}
			if fn.Params[i] == 'i' {
				stack[i] = uint64(uint32(stack[i]))
			}
		}
		if sh, ok := shapes[fn.Name]; ok && r.IntN(8) > 0 {
			if fn.Name == "path_open" && r.IntN(2) == 0 {
				stack[4], stack[5], stack[7] = 0, rw, 0
			}
			for _, i := range sh.fds {
				stack[i] = uint64(3 + r.IntN(8))
			}
			for _, i := range sh.small {
				stack[i] = uint64(r.IntN(4) * r.IntN(4))
			}
			for _, i := range sh.paths {
				k := r.IntN(len(paths))
				if r.IntN(2) == 0 { // one of the harmless ones, which come last
					k = len(paths) - 1 - r.IntN(harmless)
				}
				stack[i], stack[i+1] = uint64(pathsAt+64*k), uint64(len(paths[k]))
			}
		}
		if r.IntN(64) == 0 { // the guest writes to its own memory
			at := r.IntN(hostileMem - 64)
			for i := range 64 {
				h.mem[at+i] = byte(r.Uint32())
			}
			for i, p := range paths {
				copy(h.mem[pathsAt+64*i:][:64], p)
			}
		}
		alive := h.call(fn, stack)
		if alive && fn.Result && stack[0] == 0 {
			succeeded[fn.Name]++
		}
		if !alive || n%500 == 499 { // the table is full, the descriptors bare
			h.reset()
		}
		if n%5000 == 4999 {
			h.check()
		}
		if n%20_000 == 19_999 { // the guest has taken the tree apart
			h.sys.Close()
			h = newHostile(t)
		}
	}
	h.check()
	h.sys.Close()
	never := 0
	for _, fn := range h.funcs {
		if fn.Result && fn.Capability != wasi.CapNone && succeeded[fn.Name] == 0 {
			never++
			if *randomCalls >= 1_000_000 {
				t.Logf("%s never succeeded", fn.Name)
			}
		}
	}
	t.Logf("%d functions never succeeded", never)
	if _, err := os.Stat(filepath.Join(h.out, "secret")); err != nil {
		t.Error(err)
	}
}
