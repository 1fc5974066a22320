package worker

import (
	"github.com/wray-project/wray/objectstore"
	"github.com/wray-project/wray/wasm/abi"
)

func objectFree(g *guest, _ view, s []uint64) abi.Errno {
	o, ok := g.handles.Object(uint32(s[0]))
	switch {
	case !ok || o.Attachment() != nil: // to free an actor would say nothing to it
		return abi.EBADF
	case !o.Ready():
		return abi.EAGAIN
	}
	o.Free()
	return abi.Success
}

func objectStat(g *guest, v view, s []uint64) abi.Errno {
	buf, ok := v.bytes(uint32(s[1]), uint32(s[2]))
	if !ok {
		return abi.EFAULT
	}
	out, ok := v.bytes(uint32(s[3]), 4)
	if !ok {
		return abi.EFAULT
	}
	o, ok := g.handles.Object(uint32(s[0]))
	if !ok {
		return abi.EBADF
	}
	name := g.w.makerName(o)
	putU32(out, 0, uint32(abi.StatSize+len(name)))
	if len(buf) < abi.StatSize+len(name) {
		return abi.EOVERFLOW
	}
	writeStat(buf, o, name)
	return abi.Success
}

// writeStat writes a struct stat of o and the name after it.
func writeStat(buf []byte, o *objectstore.Object, name string) {
	clear(buf[:abi.StatSize])
	if o.Ready() {
		i := o.Info()
		state, flags := uint32(abi.StateSealed), uint32(0)
		if i.Encoding == abi.EncodingError {
			state = abi.StateFailed
		}
		if i.Mappable {
			flags |= abi.InfoMappable
		}
		if o.Away() {
			flags |= abi.StatAway
		}
		putU32(buf, abi.StatState, state)
		putU32(buf, abi.StatEncoding, uint32(i.Encoding))
		putU32(buf, abi.StatMeta, i.Meta)
		putU32(buf, abi.StatNrefs, uint32(i.Refs))
		putU64(buf, abi.StatLen, uint64(i.Len))
		putU32(buf, abi.StatFlags, flags)
	}
	putU64(buf, abi.StatReferences, uint64(o.References()))
	putU32(buf, abi.StatNameLen, uint32(len(name)))
	copy(buf[abi.StatSize:], name)
}

// makerName returns the name of the task that makes an object, "" where no task
// does, or it is over.
func (w *Worker) makerName(o *objectstore.Object) string {
	id := makerOf(o.ID())
	if id.IsZero() {
		return ""
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if t, _ := w.sched.Value(id).(*task); t != nil {
		return t.name
	}
	return ""
}
