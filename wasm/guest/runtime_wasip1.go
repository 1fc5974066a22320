package guest

import (
	"math/rand/v2"
	"runtime"
	"unsafe"
)

// The runtime's names that this package links to. They are among those that
// the Go project marks as used from outside, with the signatures below, so the
// linker allows them without a flag (https://go.dev/issue/67401). main.main is
// no part of the standard library, so it may be linked to as well.

//go:linkname mainMain main.main
func mainMain()

//go:linkname mallocgc runtime.mallocgc
func mallocgc(size uintptr, typ unsafe.Pointer, needzero bool) unsafe.Pointer

//go:linkname getm runtime.getm
func getm() uintptr

//go:linkname cheaprand runtime.cheaprand
func cheaprand() uint32

// The runtime draws its randomness once, when it starts, and a snapshot is
// taken after that: every sandbox made from it would see the same math/rand,
// maphash seeds and orders of maps. The state lies in the runtime's m, of
// which a wasip1 program has one: a ChaCha8 generator (internal/chacha8rand)
// and a small one for scheduling decisions. Their places in m differ between
// releases of Go, so findSeeds looks for the numbers that they just gave.

// chacha8 is the layout of chacha8rand.State, which is what
// (*ChaCha8).MarshalBinary depends on too.
type chacha8 struct {
	buf  [32]uint64
	seed [4]uint64
	i    uint32 // next of buf
	n    uint32 // how many of buf may be used
	c    uint32 // block counter
}

var seeds struct {
	chacha *chacha8
	cheap  *uint64
}

// mSearch is how much of m is searched. m is longer than 1 KiB in Go 1.26;
// what lies behind it is other data of the program, never the end of memory.
const mSearch = 4 << 10

// findSeeds finds the generators by their output. It reports whether both
// were found.
func findSeeds() bool {
	m := getm()
	word := func(off uintptr) *uint64 { return *(**uint64)(unsafe.Pointer(&[1]uintptr{m + off})) }
	for range 4 { // a draw may be the last of a block, which is then replaced
		a, b := rand.Uint64(), rand.Uint64()
		for off := uintptr(0); off < mSearch && seeds.chacha == nil; off += 8 {
			if *word(off) != a || *word(off + 8) != b {
				continue
			}
			// The state begins up to 30 words earlier; i says how many.
			for back := uintptr(0); back <= 30*8 && back <= off; back += 8 {
				c := (*chacha8)(unsafe.Pointer(word(off - back)))
				if uint64(c.i) == uint64(back/8)+2 && c.n <= 32 && c.i <= c.n && c.c < 16 {
					seeds.chacha = c
					break
				}
			}
		}
	}
	// cheaprand is xorshift64+ on wasm: its state is two words whose sum is
	// what it returned.
	for off := uintptr(0); off < mSearch && seeds.cheap == nil; off += 8 {
		p := word(off)
		hit := true
		for range 4 {
			v := cheaprand()
			s := *p
			hit = hit && uint32(s)+uint32(s>>32) == v
		}
		if hit {
			seeds.cheap = p
		}
	}
	return seeds.chacha != nil && seeds.cheap != nil
}

// reseed draws new state for the runtime's generators from the host. It
// reports whether it did.
func reseed() bool {
	var fresh [5]uint64
	if e := wasiRandomGet(unsafe.Pointer(&fresh), uint32(unsafe.Sizeof(fresh))); !ok(e) {
		return false
	}
	if seeds.chacha == nil || seeds.cheap == nil {
		return false
	}
	// With none of buf left, the next draw makes a block from the new seed.
	c := seeds.chacha
	c.seed = [4]uint64(fresh[:4])
	c.i, c.n, c.c = 0, 0, 0
	*seeds.cheap = fresh[4] | 1<<32 | 1 // neither half may be zero
	return true
}

// reserve makes the heap hold mib MiB that no object uses, without touching
// them, and leaves no garbage behind.
func reserve(mib int) {
	if mib > 0 {
		runtime.KeepAlive(allocate(mib << 20))
	}
	runtime.GC()
	runtime.GC()
}

// sizeClasses are the sizes up to 1 KiB in which the runtime allocates
// (internal/runtime/gc/sizeclasses.go).
var sizeClasses = [...]int{8, 16, 24, 32, 48, 64, 80, 96, 112, 128, 144, 160, 176, 192, 208, 224, 240, 256,
	288, 320, 352, 384, 416, 448, 480, 512, 576, 640, 704, 768, 896, 1024}

var primed any // keeps the compiler from leaving prime's allocations out

// prime allocates once of every small size class, with pointers and without, and
// what the first call would allocate of larger ones. The collector has just
// emptied the allocator's caches: without this the first task of every sandbox
// fills them again, which takes longer than the rest of a small task.
func prime() {
	primed = make([]byte, 1) // the allocator of tiny objects
	for _, n := range sizeClasses {
		primed = make([]byte, n)
		primed = make([]*byte, n/int(unsafe.Sizeof((*byte)(nil))))
	}
	primed = nil
	makeContexts()
}
