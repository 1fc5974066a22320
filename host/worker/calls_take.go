package worker

import (
	"github.com/wray-project/wray/objectstore"
	"github.com/wray-project/wray/wasm/abi"
)

// objectTake copies small values, each behind its struct info, and takes their
// handles back. It ends at the first object that is not there or is no such value.
func objectTake(g *guest, v view, s []uint64) abi.Errno {
	hs, ok := v.array(uint32(s[0]), uint32(s[1]), 4)
	if !ok {
		return abi.EFAULT
	}
	buf, ok := v.bytes(uint32(s[3]), uint32(s[4]))
	if !ok {
		return abi.EFAULT
	}
	out, ok := v.bytes(uint32(s[5]), 4)
	if !ok {
		return abi.EFAULT
	}
	most := min(int64(uint32(s[2])), inlineArg-1) // such values are never on disk
	n := uint32(0)
	for i := 0; i < len(hs); i += 4 {
		if i%(4*objectstore.Ahead) == 0 {
			for j := i; j < min(i+4*objectstore.Ahead, len(hs)); j += 4 {
				if o, ok := g.handles.Object(u32(hs, j)); ok {
					o.References()
				}
			}
		}
		o, ok := g.handles.Object(u32(hs, i))
		if !ok || !o.Ready() {
			break
		}
		info := o.Info()
		if info.Len > most || info.Refs > 0 || info.Encoding == abi.EncodingError {
			break
		}
		payload := o.Bytes()
		size := align8(abi.InfoSize + len(payload))
		if int64(len(payload)) != info.Len || size > len(buf) { // it was freed in between
			break
		}
		putInfo(buf, &info)
		g.copied(copy(buf[abi.InfoSize:], payload))
		clear(buf[abi.InfoSize+len(payload) : size])
		buf = buf[size:]
		g.letGo(o)
		g.handles.Drop(u32(hs, i))
		n++
		g.looked(1)
		putU32(out, 0, n) // the guest may be stopped here
		g.pause()
	}
	putU32(out, 0, n)
	return abi.Success
}

// putInfo writes a struct info.
func putInfo(b []byte, i *objectstore.Info) {
	putU32(b, abi.InfoEncoding, uint32(i.Encoding))
	putU32(b, abi.InfoMeta, i.Meta)
	putU64(b, abi.InfoLen, uint64(i.Len))
	putU32(b, abi.InfoNrefs, uint32(i.Refs))
	flags := uint32(0)
	if i.Mappable {
		flags = abi.InfoMappable
	}
	putU32(b, abi.InfoFlags, flags)
	putU64(b, abi.InfoFlags+4, 0)
}
