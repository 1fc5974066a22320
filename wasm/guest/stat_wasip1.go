package guest

import (
	"encoding/binary"
	"errors"
	"unsafe"

	"github.com/wray-project/wray/wasm/abi"
)

// ErrFreed is the failure of a Ref whose object was freed by it.
var ErrFreed = errors.New("the value was freed")

// Free drops the value of r's object, which must be there, for everybody.
func (r *Ref) Free() error {
	for _, p := range r.Parts() {
		if err := p.Free(); err != nil {
			return err
		}
	}
	if r.Parts() != nil {
		return nil
	}
	if r.flags&refKept == 0 {
		if err := r.Err(); err != nil {
			return err
		}
		if e := importObjectFree(r.handle); !ok(e) {
			return Errno(e)
		}
	}
	if r.flags&refWatched != 0 {
		takeWatched(r.handle)
		r.flags &^= refWatched
	}
	r.release()
	r.flags = r.flags&^refKept | refFailed | refReady
	r.setMore(&refMore{err: ErrFreed})
	r.signal()
	return nil
}

// Stat is what is known of an object.
type Stat struct {
	State      uint32
	Encoding   abi.Encoding
	Elem       abi.Elem
	Len        int64
	References int64 // 0: not known
	Away       bool  // it is on disk
	Task       string
}

// Stat says what is known of r's object, without waiting for it.
func (r *Ref) Stat() (Stat, error) {
	if r.flags&refKept != 0 {
		return Stat{State: abi.StateSealed, Encoding: abi.Encoding(r.encoding), Elem: abi.Elem(r.elem), Len: int64(len(r.payload()))}, nil
	}
	if err := r.Err(); err != nil {
		return Stat{}, err
	}
	s := takeScratch()
	defer s.give()
	if e := importObjectStat(r.handle, unsafe.Pointer(&s.buf), scratchSize, &s.out); !ok(e) {
		return Stat{}, Errno(e)
	}
	b := s.buf[:s.out]
	u32 := func(at int) uint32 { return binary.LittleEndian.Uint32(b[at:]) }
	return Stat{
		State: u32(abi.StatState), Encoding: abi.Encoding(u32(abi.StatEncoding)), Elem: abi.Elem(u32(abi.StatMeta)),
		Len: int64(binary.LittleEndian.Uint64(b[abi.StatLen:])), References: int64(binary.LittleEndian.Uint64(b[abi.StatReferences:])),
		Away: u32(abi.StatFlags)&abi.StatAway != 0, Task: string(b[abi.StatSize:]),
	}, nil
}
