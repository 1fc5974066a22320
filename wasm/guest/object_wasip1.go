package guest

import (
	"context"
	"runtime"
	"unsafe"
	"weak"

	"github.com/wray-project/wray/wasm/abi"
)

// Value is a value on its way out of the guest or into it.
//
// On the way out, Data and Refs belong to the caller, who leaves Data alone
// until the call that was given the Value returns. On the way in, Data is
// valid until Release, and for good where Owned is true; Refs are the caller's.
type Value struct {
	Encoding abi.Encoding
	Elem     abi.Elem
	Owned    bool
	Data     []byte
	Refs     []*Ref

	scratch *scratch
}

// Release ends the use of Data that is not owned. The zero Value may be
// released.
func (v *Value) Release() {
	if s := v.scratch; s != nil {
		v.scratch = nil
		if !v.Owned {
			v.Data = nil
		}
		s.give()
	}
}

const scratchSize = 8 << 10

// A scratch holds what an import reads and writes: memory that does not move
// and that no other goroutine uses meanwhile.
type scratch struct {
	next    *scratch
	value   rawValue
	info    rawInfo
	out     uint32
	data    []byte   // keeps the payload in the heap, and alive
	handles []uint32 // of a value's references
	spec    rawSpec
	args    []rawArg
	results [4]uint32
	waits   [lingerMax]uint32
	more    []uint32 // results beyond four
	keep    *Spec
	whole   uint32 // see setWhole
	buf     [scratchSize]byte
}

var freeScratch *scratch

func takeScratch() *scratch {
	s := freeScratch
	if s == nil {
		return new(scratch)
	}
	freeScratch = s.next // no call lies between, so no goroutine does
	return s
}

func (s *scratch) give() {
	s.data, s.keep = nil, nil
	s.next, freeScratch = freeScratch, s
}

// set describes v to the host. Handles of v's references lie in s.handles, to
// which set adds.
func (s *scratch) set(raw *rawValue, v *Value) error {
	s.data = v.Data
	*raw = rawValue{
		encoding: uint32(v.Encoding),
		meta:     uint32(v.Elem),
		ptr:      bytesAddr(v.Data),
		len:      uint32(len(v.Data)),
	}
	if len(v.Refs) > 0 {
		first := len(s.handles)
		for _, r := range v.Refs {
			h, err := r.live()
			if err != nil {
				return err
			}
			s.handles = append(s.handles, h)
		}
		raw.refsPtr, raw.refsLen = addr(unsafe.Pointer(&s.handles[first])), uint32(len(v.Refs))
	}
	return nil
}

// Put stores a value. Where the store is full it collects garbage, gives back
// what that frees, and waits.
func Put(ctx context.Context, v *Value) (*Ref, error) {
	s := takeScratch()
	r, err := s.put(ctx, v)
	s.give()
	return r, err
}

func (s *scratch) put(ctx context.Context, v *Value) (*Ref, error) {
	if h := sealed(v); h != 0 {
		return newRef(h, refReady), nil
	}
	s.handles = s.handles[:0]
	if err := s.set(&s.value, v); err != nil {
		return nil, err
	}
	if e := importObjectPut(&s.value, &s.out); !ok(e) {
		err := again(ctx, e, func() uint32 { return importObjectPut(&s.value, &s.out) })
		if err != nil {
			return nil, err
		}
	}
	return newRef(s.out, refReady), nil
}

// Get waits for r's object and describes it in v, which the caller releases.
// An object of encoding ERROR is a value like any other. next are Refs that the
// caller will get after r; may be nil.
func (r *Ref) Get(ctx context.Context, v *Value, next []*Ref) error {
	var flag uint32
	lingered := false
	for {
		if r.flags&refKept != 0 {
			*v = Value{Encoding: abi.Encoding(r.encoding), Elem: abi.Elem(r.elem), Data: r.payload()}
			return nil
		}
		if data := r.mapped(); data != nil {
			info := &r.more().info
			*v = Value{Encoding: abi.Encoding(info.encoding), Elem: abi.Elem(info.meta), Data: data, Owned: true}
			return r.refs(v, info.nrefs)
		}
		if err := r.Err(); err != nil {
			return err
		}
		s := takeScratch()
		if len(next) > 0 && flag == 0 && s.takeMany(r, next) {
			s.give()
			continue
		}
		e := abi.Errno(importObjectGet(r.handle, unsafe.Pointer(&s.buf), scratchSize, &s.info, flag))
		switch {
		case e == abi.Success:
			*v = Value{Encoding: abi.Encoding(s.info.encoding), Elem: abi.Elem(s.info.meta), Data: s.buf[:s.info.len], scratch: s}
			r.flags |= refReady
			if s.info.nrefs == 0 {
				r.keep(&s.info, v.Data)
				return nil
			}
			return r.refs(v, s.info.nrefs)
		case e == abi.EOVERFLOW:
			r.flags |= refReady
			info := s.info
			s.give()
			if err := r.large(&info, v); err != Errno(abi.EAGAIN) {
				return err
			}
			flag, lingered = 0, false // it has gone to disk meanwhile
		case e == abi.EAGAIN && flag == 0 && !lingered && nothingElse():
			s.linger(r, next)
			s.give()
			lingered = true
		case e == abi.EAGAIN && flag == 0 && r.flags&refWatched == 0:
			s.give()
			flag = abi.FlagWatch // is asked for with the next try
		case e == abi.EAGAIN:
			s.give()
			if flag != 0 {
				watch(r)
			}
			r.flags &^= refReady
			if err := parkSingle(ctx, newWaiter(), &r.besides().waiters); err != nil {
				return err
			}
			flag, lingered = 0, false
		default:
			s.give()
			return refused(uint32(e))
		}
	}
}

// takeable reports whether r may become a Ref that holds its bytes, for all that
// the guest knows.
func (r *Ref) takeable() bool {
	return r.flags&(refResult|refKept|refFailed|refWatched|refLate) == refResult && r.handle != 0 && r.task == taskNumber
}

// takeAfter is how many Gets do not try takeMany, since it has been in vain.
var takeAfter int

// takeMany reads r, and those of next that follow at once and are there, in one
// host call, as far as they are small results. It reports whether it has read r.
func (s *scratch) takeMany(r *Ref, next []*Ref) bool {
	if takeAfter > 0 {
		takeAfter--
		return false
	}
	if !r.takeable() || !next[0].takeable() {
		return false
	}
	s.waits[0] = r.handle
	n := 1
	for _, o := range next[:min(len(next), lingerMax-1)] {
		if !o.takeable() {
			break
		}
		s.waits[n] = o.handle
		n++
	}
	// What is longer has to be allocated, and then another goroutine could see a Ref
	// that has neither handle nor bytes.
	if !ok(importObjectTake(&s.waits[0], uint32(n), smallMax, unsafe.Pointer(&s.buf), scratchSize, &s.out)) || s.out == 0 {
		takeAfter = lingerMax / 4
		return false
	}
	at := uint32(0)
	for i := range int(s.out) {
		o := r
		if i > 0 {
			o = next[i-1]
		}
		info := (*rawInfo)(unsafe.Pointer(&s.buf[at]))
		end := at + abi.InfoSize + uint32(info.len)
		o.taken(info, s.buf[at+abi.InfoSize:end])
		at = (end + 7) &^ 7
	}
	return true
}

const (
	// lingerTime bounds a wait inside the host, in ns. It is what a timer of the
	// guest may be late by; the guest's clock is no finer.
	lingerTime = 1_000_000
	lingerMax  = 64 // Refs waited for at once
)

// nothingElse reports whether the goroutine that asks is the program's only
// one: it and the dispatcher are all there are, those of the runtime aside.
func nothingElse() bool { return events.open && runtime.NumGoroutine() == 2 }

// linger waits in the host for r and those of next that the guest does not
// know to be ready, for a short time. It is called when there is nothing else
// to do, so nobody is held up; to park the last goroutine and to wake it again
// takes Go's scheduler longer than many a task takes.
func (s *scratch) linger(r *Ref, next []*Ref) {
	flushDrops()
	s.waits[0] = r.handle
	n := 1
	for _, o := range next {
		if o.handle != 0 && o.flags&refReady == 0 && o.task == taskNumber {
			s.waits[n] = o.handle
			if n++; n == lingerMax {
				break
			}
		}
	}
	// Whether they came or not, the caller asks again.
	_ = importObjectWait(&s.waits[0], uint32(n), uint32(n), lingerTime, unsafe.Pointer(&s.buf))
}

// large reads an object that does not fit into a scratch: in place where the
// host can map it, else into memory of its own.
func (r *Ref) large(info *rawInfo, v *Value) error {
	*v = Value{Encoding: abi.Encoding(info.encoding), Elem: abi.Elem(info.meta), Owned: true}
	if info.flags&abi.InfoMappable != 0 && info.len >= mapMin {
		data, err := mapRange(r.handle, 0, info.len)
		if err != nil {
			return err
		}
		if data != nil {
			r.setMore(&refMore{window: weak.Make(unsafe.SliceData(data)), info: *info})
			v.Data = data
			return r.refs(v, info.nrefs)
		}
	}
	n, err := intLen(info.len)
	if err != nil {
		return err
	}
	data := allocate(n)
	var again rawInfo
	s := takeScratch()
	e := importObjectGet(r.handle, unsafe.Pointer(unsafe.SliceData(data)), uint32(n), &s.info, 0)
	again = s.info
	s.give()
	if !ok(e) {
		return Errno(e)
	}
	// What disk has lost meanwhile is an ERROR value now, and shorter.
	v.Encoding, v.Elem, v.Data = abi.Encoding(again.encoding), abi.Elem(again.meta), data[:again.len]
	return r.refs(v, again.nrefs)
}

// mapped returns the payload that Get has mapped before, where somebody still
// holds a slice of it, or nil. It does not hold the payload by itself: a program
// may keep references to more than the store has memory for.
func (r *Ref) mapped() []byte {
	m := r.more()
	if m == nil {
		return nil
	}
	first := m.window.Value()
	if first == nil {
		return nil
	}
	return unsafe.Slice(first, m.info.len)[:m.info.len:m.info.len]
}

// refs fills in v's references, which r's object holds.
func (r *Ref) refs(v *Value, n uint32) error {
	if n == 0 {
		return nil
	}
	handles := make([]uint32, n)
	v.Refs = make([]*Ref, n)
	if e := importObjectRefs(r.handle, &handles[0], n); !ok(e) {
		if err := again(context.Background(), e, func() uint32 { return importObjectRefs(r.handle, &handles[0], n) }); err != nil {
			v.Release()
			return err
		}
	}
	newRefs(handles, v.Refs)
	return nil
}

// intLen is the length of an object that has to fit into linear memory.
func intLen(n uint64) (int, error) {
	if n > 1<<32-1 {
		return 0, Errno(abi.ENOMEM)
	}
	return int(n), nil
}

// Next waits for the next item of the stream r and returns it, or nil at the
// end of the stream. An item of encoding ERROR is the producer's failure, and
// the last.
func (r *Ref) Next(ctx context.Context) (*Ref, error) {
	for {
		if err := r.Err(); err != nil {
			return nil, err
		}
		s := takeScratch()
		var flag uint32
		if r.flags&refWatched == 0 {
			flag = abi.FlagWatch
		}
		e := importStreamNext(r.handle, &s.out, flag)
		h := s.out
		s.give()
		switch abi.Errno(e) {
		case abi.Success:
			if h == 0 {
				return nil, nil
			}
			return newRef(h, refReady|refResult), nil
		case abi.EAGAIN:
			if flag != 0 {
				watch(r)
			}
			r.flags &^= refReady
			if err := parkSingle(ctx, newWaiter(), &r.besides().waiters); err != nil {
				return nil, err
			}
		case abi.ENOMEM:
			if why := refused(e); !Reclaim() {
				return nil, why
			}
		default:
			return nil, refused(e)
		}
	}
}

// Range returns n bytes of r's payload from offset off on, fewer at its end, and
// the payload's length. It waits for r's object. Large ranges are mapped. The
// caller releases the result.
func (r *Ref) Range(ctx context.Context, off, n int64, v *Value) (length int64, err error) {
	info, err := r.describe(ctx)
	if err != nil {
		return 0, err
	}
	length = int64(info.len)
	if off < 0 || off > length || n < 0 {
		return length, Errno(abi.EINVAL)
	}
	n = min(n, length-off)
	*v = Value{Encoding: abi.Encoding(info.encoding), Elem: abi.Elem(info.meta), Owned: true}
	if data := r.mapped(); data != nil && v.Encoding != abi.EncodingError {
		v.Data = data[off : off+n : off+n]
		return length, nil
	}
	switch {
	case v.Encoding == abi.EncodingError || r.flags&refKept != 0:
		// All of it: it is small.
		if err := r.Get(ctx, v, nil); err != nil || v.Encoding == abi.EncodingError {
			return length, err
		}
		v.Data = v.Data[off : off+n : off+n]
		return length, nil
	case n >= mapMin && info.flags&abi.InfoMappable != 0:
		first := off &^ (abi.MapAlign - 1)
		data, err := mapRange(r.handle, first, uint64(off-first+n))
		for err == Errno(abi.EAGAIN) { // it is on disk
			if err = r.comeBack(ctx); err == nil {
				data, err = mapRange(r.handle, first, uint64(off-first+n))
			}
		}
		if err != nil {
			return length, err
		}
		if data != nil {
			v.Data = data[off-first:]
			return length, nil
		}
	}
	count, err := intLen(uint64(n))
	if err != nil {
		return length, err
	}
	v.Data = allocate(count)
	read, err := r.readInto(ctx, v.Data, off)
	v.Data = v.Data[:read]
	return length, err
}

// ReadAt copies the payload from offset off on into p, as far as both go.
func (r *Ref) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	info, err := r.describe(ctx)
	if err != nil {
		return 0, err
	}
	switch {
	case off < 0:
		return 0, Errno(abi.EINVAL)
	case uint64(off) >= info.len:
		return 0, nil
	case r.flags&refKept != 0:
		return copy(p, r.payload()[off:]), nil
	}
	return r.readInto(ctx, p, off)
}

// Hold returns nil: what ReadAt copies is in the store.
func (r *Ref) Hold(context.Context) ([]byte, error) { return nil, nil }

func (r *Ref) readInto(ctx context.Context, p []byte, off int64) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if err := r.Err(); err != nil {
		return 0, err
	}
	s := takeScratch()
	defer s.give()
	s.data = p
	for {
		e := importObjectRead(r.handle, off, unsafe.Pointer(unsafe.SliceData(p)), uint32(min(len(p), 1<<31)), &s.out)
		switch {
		case ok(e):
			return int(s.out), nil
		case abi.Errno(e) != abi.EAGAIN:
			return 0, refused(e)
		}
		if err := r.comeBack(ctx); err != nil {
			return 0, err
		}
	}
}

// comeBack waits until r's object, which the host has moved to disk, was read
// back.
func (r *Ref) comeBack(ctx context.Context) error {
	for {
		var flag uint32
		if r.flags&refWatched == 0 {
			flag = abi.FlagWatch
		}
		s := takeScratch()
		e := importObjectGet(r.handle, unsafe.Pointer(&s.buf), 1, &s.info, flag)
		s.give()
		switch abi.Errno(e) {
		case abi.Success, abi.EOVERFLOW:
			return nil
		case abi.EAGAIN:
		default:
			return refused(e)
		}
		if flag != 0 {
			watch(r)
		}
		if err := parkSingle(ctx, newWaiter(), &r.besides().waiters); err != nil {
			return err
		}
	}
}

// describe waits for r's object and says what it is.
func (r *Ref) describe(ctx context.Context) (rawInfo, error) {
	if r.flags&refKept != 0 {
		return rawInfo{encoding: uint32(r.encoding), meta: uint32(r.elem), len: uint64(len(r.payload()))}, nil
	}
	if _, err := Wait(ctx, []*Ref{r}, 1, -1); err != nil {
		return rawInfo{}, err
	}
	if err := r.Err(); err != nil {
		return rawInfo{}, err
	}
	s := takeScratch()
	defer s.give()
	e := abi.Errno(importObjectGet(r.handle, unsafe.Pointer(&s.buf), 0, &s.info, 0))
	if e != abi.Success && e != abi.EOVERFLOW {
		return rawInfo{}, refused(uint32(e))
	}
	return s.info, nil
}
