package worker

import (
	"errors"
	"fmt"
	"sync"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/host/sandbox"
	"github.com/wray-project/wray/objectstore"
	"github.com/wray-project/wray/wasm/abi"
)

// window is an object, or a buffer, that lies in the guest's memory.
type window struct {
	len uint64
	off int64               // in the object
	pin *objectstore.Window // of an object
	of  wray.ID             // that object
	buf *buffer             // with one reference; nil for an object
}

// Bounds of the mappings. A process may have vm.max_map_count of them, 65,530
// unless somebody raised it. A window takes up to two: itself, and what it cuts
// in two. A quarter of all is for objects (see package objectstore), a half for
// sandboxes (see DefaultResidents), an eighth for windows.
const (
	// DefaultWindows bounds the windows of one sandbox where a job says nothing.
	DefaultWindows = 1024
	// WindowsFlag is the flag that raises it.
	WindowsFlag = "--max-windows"

	defaultMappings = 65530
	mappingsPerSlot = 16 // mappings of the process for each window of the worker
)

// Mappings is how many mappings the process may have. It is to be called once
// before a jail closes the file that says it.
var Mappings = sync.OnceValue(maxMappings)

// takeWindow counts a window of the worker's and the guest's, unless that would
// be one too many.
func (g *guest) takeWindow() abi.Errno {
	if most := g.maxWindows(); len(g.windows) >= most {
		return g.refuse(&wray.Error{
			Code:    wray.CodeLimitExceeded,
			Message: fmt.Sprintf("the sandbox has %d mapped objects", len(g.windows)),
			Limit:   &wray.Limit{Name: "mapped objects", Value: int64(most), Flag: WindowsFlag},
			Hint:    "hold fewer large values at once, or raise the limit with " + WindowsFlag,
		}, abi.E2BIG)
	}
	if n := g.w.windows.Add(1); n > g.w.maxWindows {
		g.w.windows.Add(-1)
		return g.refuse(&wray.Error{
			Code:    wray.CodeLimitExceeded,
			Message: fmt.Sprintf("the sandboxes of this worker have %d mapped objects", n-1),
			Limit:   &wray.Limit{Name: "mapped objects of a worker", Value: g.w.maxWindows},
			Hint:    "hold fewer large values at once, or raise vm.max_map_count, of which a sixteenth is for them",
		}, abi.E2BIG)
	}
	return abi.Success
}

func (g *guest) maxWindows() int {
	if n := g.job.spec.Limits.Windows; n > 0 {
		return n
	}
	return DefaultWindows
}

// freeRange checks that n bytes at at are the guest's, whole units, and not
// mapped over.
func (g *guest) freeRange(v view, at uint32, n uint64, off int64) abi.Errno {
	if at%abi.MapAlign != 0 || off < 0 || off%abi.MapAlign != 0 || n == 0 {
		return abi.EINVAL
	}
	if uint64(at)+n > uint64(len(v)) {
		return abi.EFAULT
	}
	for have, w := range g.windows {
		if uint64(at) < uint64(have)+w.len && uint64(have) < uint64(at)+n {
			return abi.EEXIST
		}
	}
	return abi.Success
}

func objectMap(g *guest, v view, s []uint64) abi.Errno {
	h, at, n, off := uint32(s[0]), uint32(s[1]), roundUp(uint64(uint32(s[2]))), int64(s[3])
	w := &window{len: n, off: off}
	var length int64
	var o *objectstore.Object
	if w.buf = g.bufferOf(h); w.buf != nil {
		length = int64(len(w.buf.b.Memory()))
	} else {
		var ok bool
		o, ok = g.handles.Object(h)
		switch {
		case !ok:
			return abi.EBADF
		case !o.Ready():
			return abi.EAGAIN
		case !o.Info().Mappable:
			return abi.ENOTSUP
		}
		w.of = o.ID()
		var err error
		if w.pin, err = o.Pin(); err != nil {
			if errors.Is(err, objectstore.ErrSpilled) {
				return g.fetch(o, 0, 0)
			}
			return abi.ENOTSUP
		}
		length = w.pin.MapLen()
	}
	e := g.freeRange(v, at, n, off)
	if e == abi.Success && (off > length || int64(n) > length-off) {
		e = abi.EINVAL
	}
	if e == abi.Success && n > stepPages {
		// The pages that go may be the guest's own, which takes long. The pin is
		// given back where the guest is stopped meanwhile.
		if pin := w.pin; pin != nil {
			w.pin = nil
			defer func() {
				if w.pin == nil {
					pin.Unpin()
				}
			}()
			e = g.clearPages(at, n)
			w.pin = pin
		} else {
			e = g.clearPages(at, n)
		}
	}
	if e == abi.Success {
		e = g.takeWindow()
	}
	if e == abi.Success && w.lay(g.sb, at) != nil {
		g.w.windows.Add(-1)
		e = abi.ENOTSUP
	}
	if e != abi.Success {
		if w.pin != nil {
			w.pin.Unpin()
		}
		return e
	}
	if w.buf != nil {
		w.buf.Retain()
	} else {
		g.letGo(o)
	}
	g.windows[at] = w
	return abi.Success
}

func objectUnmap(g *guest, _ view, s []uint64) abi.Errno {
	at := uint32(s[0])
	w := g.windows[at]
	if w == nil || w.len != roundUp(uint64(uint32(s[1]))) {
		return abi.EINVAL
	}
	if e := g.clearPages(at, w.len); e != abi.Success {
		return e
	}
	return g.unmap(at)
}

// stepPages is how much of a guest's memory is given back between two steps,
// some milliseconds' work where all of it was written to.
const stepPages = 16 << 20

// clearPages puts fresh pages over all of n bytes at at but for the last
// stepPages, in steps, so that what is done to the whole range next is short.
// Where few pages are mapped, as in a window that is used again, that is short
// already.
func (g *guest) clearPages(at uint32, n uint64) abi.Errno {
	if n > stepPages && g.sb.Sparse(uint64(at), n, stepPages>>12) {
		g.work += int64(n>>21) * perPage // of the tables that were looked at
		return abi.Success
	}
	for from := uint64(0); n-from > stepPages; from += stepPages {
		if err := g.sb.Unwindow(uint64(at)+from, stepPages); err != nil {
			return abi.EIO
		}
		g.work += stepPages >> 12 * perPage
		g.step()
	}
	return abi.Success
}

// unmap puts fresh pages over a window and lets the object go.
func (g *guest) unmap(at uint32) abi.Errno {
	if err := g.sb.Unwindow(uint64(at), g.windows[at].len); err != nil {
		// The object's pages are still in the guest: they must not be reused.
		return abi.EIO
	}
	g.forgetWindow(at)
	return abi.Success
}

// forgetWindow lets go of what is mapped nowhere any more.
func (g *guest) forgetWindow(at uint32) {
	w := g.windows[at]
	delete(g.windows, at)
	g.w.windows.Add(-1)
	if w.buf != nil {
		w.buf.Release()
	} else {
		w.pin.Unpin()
	}
}

// lay maps what the window shows into sb's memory.
func (w *window) lay(sb *sandbox.Sandbox, at uint32) error {
	if w.buf != nil {
		return sb.Lend(w.buf.b.Memory()[w.off:][:w.len], uint64(at))
	}
	return layPrivate(sb, w.pin.FD(), at, w.off, w.len, w.pin.MapLen())
}

// layPrivate maps n bytes of a file from offset off, as far as its first length
// bytes go.
func layPrivate(sb *sandbox.Sandbox, fd int, at uint32, off int64, n uint64, length int64) error {
	if n = min(n, uint64(max(length-off, 0))); n == 0 {
		return nil
	}
	return sb.Window(fd, off, uint64(at), n)
}

// seclude takes a buffer's pages out of the guest's memory and shows it the
// first length bytes of the buffer's file instead, private and copy-on-write.
// step is called between parts of it.
func (w *window) seclude(sb *sandbox.Sandbox, fd int, at uint32, length int64, step func()) error {
	for from := uint64(0); from < w.len; from += stepPages {
		if from > 0 {
			step()
		}
		at, off, n := at+uint32(from), w.off+int64(from), min(stepPages, w.len-from)
		if off+int64(n) > length {
			if err := sb.Unwindow(uint64(at), n); err != nil {
				return err
			}
		}
		if err := layPrivate(sb, fd, at, off, n, length); err != nil {
			return err
		}
	}
	return nil
}

// base is what the guest's memory holds where the window lies, if the guest did
// not write to a private one.
func (w *window) base(at uint32) sandbox.Base {
	b := sandbox.Base{At: uint64(at), Len: w.len}
	if w.buf != nil {
		b.Bytes = w.buf.b.Memory()[w.off:][:w.len]
	} else {
		b.Bytes = w.pin.Bytes(w.off, int64(w.len))
	}
	return b
}

func roundUp(n uint64) uint64 { return (n + abi.MapAlign - 1) &^ (abi.MapAlign - 1) }
