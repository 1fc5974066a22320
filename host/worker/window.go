package worker

import (
	"github.com/wray-project/wray/objectstore"
	"github.com/wray-project/wray/wasm/abi"
)

// window is an object that lies in the guest's memory.
type window struct {
	len uint64
	pin *objectstore.Window
}

// maxWindows bounds the mappings of one sandbox: a process has about 65,000.
const maxWindows = 1024

func objectMap(g *guest, v view, s []uint64) abi.Errno {
	at, n, off := uint32(s[1]), roundUp(uint64(uint32(s[2]))), int64(s[3])
	o, ok := g.handles.Object(uint32(s[0]))
	if !ok {
		return abi.EBADF
	}
	if !o.Ready() {
		return abi.EAGAIN
	}
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
	if len(g.windows) >= maxWindows {
		return abi.ENOMEM
	}
	pin, err := o.Pin()
	if err != nil {
		return abi.ENOTSUP
	}
	if off > pin.MapLen() || int64(n) > pin.MapLen()-off {
		pin.Unpin()
		return abi.EINVAL
	}
	if err := g.sb.Window(pin.FD(), off, uint64(at), n); err != nil {
		pin.Unpin()
		return abi.ENOTSUP
	}
	g.windows[at] = &window{len: n, pin: pin}
	return abi.Success
}

func objectUnmap(g *guest, _ view, s []uint64) abi.Errno {
	at := uint32(s[0])
	w := g.windows[at]
	if w == nil || w.len != roundUp(uint64(uint32(s[1]))) {
		return abi.EINVAL
	}
	return g.unmap(at)
}

// unmap puts fresh pages over a window and lets the object go.
func (g *guest) unmap(at uint32) abi.Errno {
	w := g.windows[at]
	if err := g.sb.Unwindow(uint64(at), w.len); err != nil {
		// The object's pages are still in the guest: they must not be reused.
		return abi.EIO
	}
	delete(g.windows, at)
	w.pin.Unpin()
	return abi.Success
}

func roundUp(n uint64) uint64 { return (n + abi.MapAlign - 1) &^ (abi.MapAlign - 1) }
