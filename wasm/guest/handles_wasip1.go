package guest

import (
	"context"
	"math/bits"
	"runtime"
	"unsafe"

	"github.com/wray-project/wray/wasm/abi"
)

const dropBatch = 64 // handles given back in one host call

var handles struct {
	// owned is the set of handles that the guest holds and has not put into
	// dropping: what the end of a task gives back.
	owned []uint64
	count int

	dropping *dropBuffer // nil, or the one being filled
	spare    *dropBuffer
}

type dropBuffer struct {
	n       int
	handles [dropBatch]uint32
}

// own notes that the guest holds handle.
func own(handle uint32) {
	for int(handle/64) >= len(handles.owned) {
		handles.owned = append(handles.owned, 0)
	}
	handles.owned[handle/64] |= 1 << (handle % 64)
	handles.count++
}

// ownAll is own for each of hs.
func ownAll(hs []uint32) {
	most := uint32(0)
	for _, h := range hs {
		most = max(most, h)
	}
	for int(most/64) >= len(handles.owned) {
		handles.owned = append(handles.owned, 0)
	}
	for _, h := range hs {
		handles.owned[h/64] |= 1 << (h % 64)
	}
	handles.count += len(hs)
}

// drop gives handle back, with others, soon: no later than the next wait.
func drop(handle uint32) {
	if !disown(handle) {
		return
	}
	b := handles.dropping
	if b == nil {
		b, handles.spare = handles.spare, nil
		if b == nil {
			b = new(dropBuffer)
			if handles.dropping != nil { // another goroutine was as far, during new
				b = handles.dropping
			}
		}
		handles.dropping = b
	}
	b.handles[b.n] = handle // no call from here to the end, so nobody comes between
	b.n++
	if b.n == dropBatch {
		handles.dropping = nil
		b.send()
	}
}

// disown forgets a handle that the host took back, or that the caller gives back
// at once. It reports whether the guest held it.
func disown(handle uint32) bool {
	i, bit := int(handle/64), uint64(1)<<(handle%64)
	if i >= len(handles.owned) || handles.owned[i]&bit == 0 {
		return false
	}
	handles.owned[i] &^= bit
	handles.count--
	return true
}

// flushDrops gives back now what drop collected.
func flushDrops() {
	if b := handles.dropping; b != nil {
		handles.dropping = nil // the import reads b; other goroutines fill another
		b.send()
	}
}

func (b *dropBuffer) send() {
	importHandleDrop(&b.handles[0], uint32(b.n)) // EBADF tells nothing new
	b.n = 0
	handles.spare = b
}

// dropAll gives back every handle: the task that got them has ended.
func dropAll() {
	if handles.count > 0 {
		for i := range handles.owned {
			for handles.owned[i] != 0 {
				drop(uint32(i*64 + bits.TrailingZeros64(handles.owned[i])))
			}
		}
	}
	flushDrops()
	forgetRefs()
}

// Reclaim collects garbage and gives back the handles of Refs that are
// unreachable. It reports whether it gave any back.
func Reclaim() bool {
	before := handles.count
	collect()
	sweepRefs()
	trimWindows()
	flushDrops()
	return handles.count < before
}

// collect collects garbage and lets finalizers run.
func collect() {
	runtime.GC() // sweeps to the end, so sweepRefs finds all that is dead
	for range 3 {
		runtime.Gosched() // the finalizers' goroutine runs
	}
}

// again calls an import anew for as long as it answers EAGAIN, ENOSPC or
// ENOMEM (which is no room for handles), the first such answer being e, and
// room can be made: by collecting garbage at first, and where the answer is
// EAGAIN then by waiting for the event SPACE. The import is always called
// between the two: the event that follows an EAGAIN may come while the
// collector runs, and must find somebody who waits.
func again(ctx context.Context, e uint32, call func() uint32) error {
	reclaimed := false
	for {
		switch {
		case ok(e):
			return nil
		case abi.Errno(e) != abi.EAGAIN && abi.Errno(e) != abi.ENOSPC && abi.Errno(e) != abi.ENOMEM:
			return refused(e)
		case !reclaimed && handles.count > 0:
			reclaimed = true
			why := refused(e)
			if !Reclaim() && abi.Errno(e) != abi.EAGAIN {
				return why
			}
		case abi.Errno(e) != abi.EAGAIN:
			return refused(e)
		default:
			reclaimed = false // what becomes garbage meanwhile counts again
			if err := parkSingle(ctx, newWaiter(), &events.space); err != nil {
				return err
			}
		}
		e = call()
	}
}

// refused is the error of a call that the host answered with e. It is to be
// called before the next call.
func refused(e uint32) error {
	switch abi.Errno(e) {
	case abi.E2BIG, abi.ENOMEM, abi.ENOSPC, abi.EIO, abi.EPERM:
	default:
		return Errno(e)
	}
	buf := make([]byte, 512)
	for {
		var n uint32
		switch abi.Errno(importRefusal(unsafe.Pointer(&buf[0]), uint32(len(buf)), &n)) {
		case abi.Success:
			return &Refusal{Errno(e), buf[:n]}
		case abi.EOVERFLOW:
			buf = make([]byte, n)
		default:
			return Errno(e)
		}
	}
}
