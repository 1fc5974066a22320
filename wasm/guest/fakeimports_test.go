package guest_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/wray-project/wray/wasm/abi"
)

type hostFunc struct {
	name   string
	params string
	f      func(sb *sandbox, s []uint64) abi.Errno
}

func (f hostFunc) export(b wazero.HostModuleBuilder) {
	var params []api.ValueType
	for _, c := range f.params {
		params = append(params, map[rune]api.ValueType{'i': api.ValueTypeI32, 'I': api.ValueTypeI64}[c])
	}
	b.NewFunctionBuilder().WithGoModuleFunction(api.GoModuleFunc(func(ctx context.Context, m api.Module, s []uint64) {
		sb := ctx.Value(sandboxKey{}).(*sandbox)
		if sb.mem == nil {
			sb.mem = m.Memory()
		}
		for i, t := range params {
			if t == api.ValueTypeI32 {
				s[i] = uint64(uint32(s[i])) // the upper half is anything
			}
		}
		if sb.host.null && f.null(sb, s) {
			return
		}
		sb.host.mu.Lock()
		defer sb.host.mu.Unlock()
		s[0] = uint64(f.f(sb, s))
	}), params, []api.ValueType{api.ValueTypeI32}).Export(f.name)
}

// null answers the calls that BenchmarkGuest measures.
func (f *hostFunc) null(sb *sandbox, s []uint64) bool {
	switch f.name {
	case "object_put":
		sb.next++
		sb.put32(s[1], sb.next&0xffff|1)
	case "submit":
		sb.next++
		p := uint32(s[0])
		for i := range sb.u32(p + abi.SpecNresults) {
			sb.put32(uint64(sb.u32(p+abi.SpecResultsPtr)+4*i), sb.next&0xffff|1)
		}
	case "object_get":
		b := sb.bytes(uint32(s[3]), abi.InfoSize)
		clear(b)
		b[0], b[8] = byte(abi.EncodingCBOR), 1
		sb.mem.WriteByte(uint32(s[1]), 0)
	case "task_return":
	case "task_next":
		s[0] = uint64(abi.ENOENT)
		return true
	case "task_input":
		if sb.input == nil {
			sb.host.mu.Lock()
			taskInput(sb, s)
			sb.input = bytes.Clone(sb.bytes(uint32(s[0]), sb.u32(uint32(s[2]))))
			sb.host.mu.Unlock()
		}
		sb.mem.Write(uint32(s[0]), sb.input)
		sb.put32(s[2], uint32(len(sb.input)))
	case "handle_drop":
		sb.dropped += int(s[1])
	default:
		return false
	}
	s[0] = uint64(abi.Success)
	return true
}

func (sb *sandbox) u32(p uint32) uint32 { v, _ := sb.mem.ReadUint32Le(p); return v }

func (sb *sandbox) put32(p uint64, v uint32) { sb.mem.WriteUint32Le(uint32(p), v) }

func (sb *sandbox) bytes(p, n uint32) []byte { b, _ := sb.mem.Read(p, n); return b }

// value reads a struct value; the object holds its references.
func (sb *sandbox) value(p uint32) *object {
	o := &object{encoding: sb.u32(p), meta: sb.u32(p + 4), data: bytes.Clone(sb.bytes(sb.u32(p+8), sb.u32(p+12)))}
	for i := range sb.u32(p + abi.ValueRefsLen) {
		r := sb.handles[sb.u32(sb.u32(p+abi.ValueRefsPtr)+4*i)]
		r.refcount++
		o.refs = append(o.refs, r)
	}
	return o
}

func (sb *sandbox) full(n int) bool {
	h := sb.host
	if h.capacity == 0 || h.stored+n <= h.capacity {
		return false
	}
	h.waiting = append(h.waiting, sb)
	sb.watches++
	return true
}

const (
	eventFD      = 100
	maxExecutors = 40 // more than tasks of the tests wait for one another
)

func (h *fakeHost) wasi() []hostFunc {
	return []hostFunc{
		{"fd_fdstat_get", "ii", func(sb *sandbox, s []uint64) abi.Errno {
			fd, b := uint32(s[0]), sb.bytes(uint32(s[1]), 24)
			clear(b)
			switch {
			case fd == eventFD:
				b[0], b[2] = 6, 4 // a stream socket, non-blocking
			case fd <= 2:
				b[0] = 2 // a character device
			default:
				return abi.EBADF
			}
			return abi.Success
		}},
		{"fd_read", "iiii", func(sb *sandbox, s []uint64) abi.Errno {
			if s[0] != eventFD {
				return abi.EBADF
			}
			if len(sb.events) == 0 {
				return abi.EAGAIN
			}
			iov := uint32(s[1])
			n := uint32(0)
			for p := sb.u32(iov); n+abi.EventSize <= sb.u32(iov+4) && len(sb.events) > 0; n += abi.EventSize {
				sb.put32(uint64(p+n), sb.events[0].kind)
				sb.put32(uint64(p+n+4), sb.events[0].handle)
				sb.events = sb.events[1:]
			}
			sb.put32(s[3], n)
			return abi.Success
		}},
		{"poll_oneoff", "iiii", pollOneoff},
	}
}

func pollOneoff(sb *sandbox, s []uint64) abi.Errno {
	in, out, n := uint32(s[0]), uint32(s[1]), uint32(s[2])
	var clock, read uint64
	timeout := int64(-1)
	var hasClock, hasRead bool
	for i := range n {
		p := in + 48*i
		user, _ := sb.mem.ReadUint64Le(p)
		if b, _ := sb.mem.ReadByte(p + 8); b == 0 {
			v, _ := sb.mem.ReadUint64Le(p + 24)
			clock, timeout, hasClock = user, int64(v), true
		} else {
			read, hasRead = user, true
		}
	}
	var timer *time.Timer
	over := timeout == 0
	if timeout > 0 {
		timer = time.AfterFunc(time.Duration(timeout), func() {
			sb.host.mu.Lock()
			over = true
			sb.cond.Broadcast()
			sb.host.mu.Unlock()
		})
		defer timer.Stop()
	}
	if sb.told && hasClock { // it waits on, for being canceled
		sb.told = false
		sb.event(abi.EventCancel, 0)
	}
	for len(sb.events) == 0 && !over {
		if !hasClock && sb.watches == 0 && !(sb.task != nil && sb.host.patient) {
			if sb.told {
				panic("deadlock after the guest was told")
			}
			sb.told = true
			sb.event(abi.EventDeadlock, 0)
			break
		}
		if !hasClock && sb.watches == 0 {
			sb.host.deaf = append(sb.host.deaf, sb)
		}
		sb.cond.Wait()
	}
	count := uint32(0)
	give := func(user uint64, kind byte) {
		b := sb.bytes(out+32*count, 32)
		clear(b)
		binary.LittleEndian.PutUint64(b, user)
		b[10] = kind
		count++
	}
	if hasRead && len(sb.events) > 0 {
		give(read, 1)
	} else if hasClock {
		give(clock, 0)
	}
	sb.put32(s[3], count)
	return abi.Success
}

func (h *fakeHost) imports() []hostFunc {
	return []hostFunc{
		{"version", "", func(*sandbox, []uint64) abi.Errno { return abi.Version }},
		{"declare", "iiii", func(sb *sandbox, s []uint64) abi.Errno {
			h.declared[string(sb.bytes(uint32(s[0]), uint32(s[1])))] = uint32(s[2])
			return abi.Success
		}},
		{"function", "iiiii", func(sb *sandbox, s []uint64) abi.Errno {
			i, ok := h.declared[string(sb.bytes(uint32(s[2]), uint32(s[3])))]
			if !ok || s[1] != 0 {
				return abi.ENOENT
			}
			sb.put32(s[4], i)
			return abi.Success
		}},
		{"submit", "iii", submit},
		{"cancel", "i", func(sb *sandbox, s []uint64) abi.Errno { return abi.Success }},
		{"call_select", "I", func(*sandbox, []uint64) abi.Errno { return abi.EPERM }},
		{"call_end", "", func(*sandbox, []uint64) abi.Errno { return abi.EPERM }},
		{"task_input", "iii", taskInput},
		{"task_next", "iiii", func(sb *sandbox, s []uint64) abi.Errno {
			if s[0] != 0 {
				h.seal(sb.task.results[0], sb.value(uint32(s[0])))
			}
			return abi.ENOENT
		}},
		{"task_return", "ii", func(sb *sandbox, s []uint64) abi.Errno {
			h.seal(sb.task.results[s[0]], sb.value(uint32(s[1])))
			return abi.Success
		}},
		{"task_fail", "i", func(sb *sandbox, s []uint64) abi.Errno {
			if sb.task == nil {
				return abi.EPERM
			}
			sb.task.failed = sb.value(uint32(s[0])).data
			return abi.Success
		}},
		{"task_yield", "i", func(sb *sandbox, s []uint64) abi.Errno {
			st := sb.task.results[0]
			switch {
			case st.refcount == 0:
				return abi.ECANCELED
			case len(st.items)-st.next >= st.window:
				if !st.roomless {
					st.roomless = true
					sb.watches++
				}
				return abi.EAGAIN
			}
			v := sb.value(uint32(s[0]))
			v.ready, v.refcount = true, 1
			st.items = append(st.items, v)
			h.wakeReaders(st)
			return abi.Success
		}},
		{"object_put", "ii", func(sb *sandbox, s []uint64) abi.Errno {
			o := sb.value(uint32(s[0]))
			if sb.full(len(o.data)) {
				return abi.EAGAIN
			}
			o.ready = true
			h.stored += len(o.data)
			sb.put32(s[1], sb.add(o))
			return abi.Success
		}},
		{"object_get", "iiiii", func(sb *sandbox, s []uint64) abi.Errno {
			o := sb.handles[uint32(s[0])]
			if o == nil {
				return abi.EBADF
			}
			if !o.ready {
				if s[4] != 0 {
					o.watchers = append(o.watchers, watcher{sb, uint32(s[0])})
					sb.watches++
				}
				return abi.EAGAIN
			}
			b := sb.bytes(uint32(s[3]), abi.InfoSize)
			binary.LittleEndian.PutUint32(b, o.encoding)
			binary.LittleEndian.PutUint32(b[4:], o.meta)
			binary.LittleEndian.PutUint64(b[8:], uint64(len(o.data)))
			binary.LittleEndian.PutUint32(b[16:], uint32(len(o.refs)))
			binary.LittleEndian.PutUint32(b[20:], b2u(len(o.data) >= 64<<10))
			if len(o.data) > int(s[2]) {
				return abi.EOVERFLOW
			}
			copy(sb.bytes(uint32(s[1]), uint32(s[2])), o.data)
			return abi.Success
		}},
		{"object_take", "iiiiii", func(sb *sandbox, s []uint64) abi.Errno {
			at, taken := uint32(s[3]), uint32(0)
			for i := range s[1] {
				n := sb.u32(uint32(s[0] + 4*i))
				o := sb.handles[n]
				if o == nil || !o.ready || len(o.data) > int(s[2]) || len(o.refs) > 0 || o.encoding == uint32(abi.EncodingError) {
					break
				}
				size := uint32(abi.InfoSize+len(o.data)+7) &^ 7
				if at+size > uint32(s[3]+s[4]) {
					break
				}
				b := sb.bytes(at, size)
				clear(b)
				binary.LittleEndian.PutUint32(b, o.encoding)
				binary.LittleEndian.PutUint32(b[4:], o.meta)
				binary.LittleEndian.PutUint64(b[8:], uint64(len(o.data)))
				copy(b[abi.InfoSize:], o.data)
				delete(sb.handles, n)
				h.handles--
				h.release(o)
				at, taken = at+size, taken+1
			}
			sb.put32(s[5], taken)
			return abi.Success
		}},
		{"object_refs", "iii", func(sb *sandbox, s []uint64) abi.Errno {
			for i, r := range sb.handles[uint32(s[0])].refs {
				sb.put32(s[1]+4*uint64(i), sb.add(r))
			}
			return abi.Success
		}},
		{"object_watch", "ii", func(sb *sandbox, s []uint64) abi.Errno {
			for i := range s[1] {
				n := sb.u32(uint32(s[0] + 4*i))
				o := sb.handles[n]
				if o.ready {
					sb.event(abi.EventReady, n)
				} else {
					o.watchers = append(o.watchers, watcher{sb, n})
					sb.watches++
				}
			}
			return abi.Success
		}},
		{"object_wait", "iiiIi", func(*sandbox, []uint64) abi.Errno { return abi.ENOSYS }},
		{"object_map", "iiiI", func(sb *sandbox, s []uint64) abi.Errno {
			if s[1]%abi.MapAlign != 0 {
				return abi.EINVAL
			}
			w := sb.bytes(uint32(s[1]), uint32(s[2]))
			clear(w)
			copy(w, sb.handles[uint32(s[0])].data)
			return abi.Success
		}},
		{"object_unmap", "ii", func(sb *sandbox, s []uint64) abi.Errno {
			clear(sb.bytes(uint32(s[0]), uint32(s[1])))
			return abi.Success
		}},
		{"object_read", "iIiii", func(*sandbox, []uint64) abi.Errno { return abi.ENOSYS }},
		{"object_free", "i", func(*sandbox, []uint64) abi.Errno { return abi.ENOSYS }},
		{"object_stat", "iiii", func(*sandbox, []uint64) abi.Errno { return abi.ENOSYS }},
		{"buffer_open", "Ii", func(*sandbox, []uint64) abi.Errno { return abi.ENOTSUP }},
		{"buffer_seal", "iiiIi", func(*sandbox, []uint64) abi.Errno { return abi.EBADF }},
		{"handle_dup", "ii", func(sb *sandbox, s []uint64) abi.Errno {
			sb.put32(s[1], sb.add(sb.handles[uint32(s[0])]))
			return abi.Success
		}},
		{"handle_drop", "ii", func(sb *sandbox, s []uint64) abi.Errno {
			for i := range s[1] {
				n := sb.u32(uint32(s[0] + 4*i))
				o := sb.handles[n]
				if o == nil {
					h.tb.Errorf("handle %d is dropped twice", n)
					return abi.EBADF
				}
				delete(sb.handles, n)
				h.handles--
				h.release(o)
				if o.roomless && o.maker != nil {
					o.roomless = false
					o.maker.watches--
					o.maker.event(abi.EventRoom, 0)
				}
			}
			return abi.Success
		}},
		{"stream_next", "iii", func(sb *sandbox, s []uint64) abi.Errno {
			st := sb.handles[uint32(s[0])]
			switch {
			case st.next < len(st.items):
				n := sb.add(st.items[st.next])
				st.items[st.next].refcount--
				st.next++
				sb.put32(s[1], n)
				if st.roomless {
					st.roomless = false
					st.maker.watches--
					st.maker.event(abi.EventRoom, 0)
				}
			case st.ended:
				sb.put32(s[1], 0)
			default:
				if s[2] != 0 {
					st.watchers = append(st.watchers, watcher{sb, uint32(s[0])})
					sb.watches++
				}
				return abi.EAGAIN
			}
			return abi.Success
		}},
		{"event_open", "i", func(sb *sandbox, s []uint64) abi.Errno { sb.put32(s[0], eventFD); return abi.Success }},
		{"refusal", "iii", func(*sandbox, []uint64) abi.Errno { return abi.ENOENT }},
	}
}

func b2u(b bool) uint32 {
	if b {
		return 1
	}
	return 0
}

func submit(sb *sandbox, s []uint64) abi.Errno {
	p := uint32(s[0])
	t := &task{fn: sb.u32(p), stream: sb.u32(p+abi.SpecFlags)&abi.SpecStream != 0, attempt: 1}
	for i := range sb.u32(p + abi.SpecNargs) {
		a := sb.u32(p+abi.SpecArgsPtr) + abi.ArgSize*i
		var o *object
		if sb.u32(a) == abi.ArgKindHandle {
			o = sb.handles[sb.u32(a+abi.ArgHandle)]
		} else {
			o = sb.value(a + abi.ArgValue)
			o.ready = true
			sb.host.stored += len(o.data)
		}
		o.refcount++
		t.args = append(t.args, o)
	}
	for i := range sb.u32(p + abi.SpecNresults) {
		o := &object{window: int(sb.u32(p + abi.SpecWindow))}
		if o.window == 0 {
			o.window = 16
		}
		t.results = append(t.results, o)
		sb.put32(uint64(sb.u32(p+abi.SpecResultsPtr)+4*i), sb.add(o))
	}
	sb.host.start(t)
	return abi.Success
}

func taskInput(sb *sandbox, s []uint64) abi.Errno {
	t := sb.task
	b := binary.LittleEndian.AppendUint32(nil, t.fn)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(t.args)))
	b = binary.LittleEndian.AppendUint32(b, uint32(len(t.results)))
	b = binary.LittleEndian.AppendUint32(b, b2u(t.stream))
	b = binary.LittleEndian.AppendUint32(b, t.attempt)
	b = append(b, make([]byte, abi.CallSize-len(b)+abi.CallArgSize*len(t.args))...)
	for i, a := range t.args {
		d := abi.CallSize + abi.CallArgSize*i
		binary.LittleEndian.PutUint32(b[d:], a.encoding)
		binary.LittleEndian.PutUint32(b[d+4:], a.meta)
		binary.LittleEndian.PutUint64(b[d+8:], uint64(len(a.data)))
		binary.LittleEndian.PutUint32(b[d+abi.CallArgNrefs:], uint32(len(a.refs)))
		if len(a.data) < 4<<10 {
			binary.LittleEndian.PutUint32(b[d+abi.CallArgOffset:], uint32(len(b)))
			b = append(b, a.data...)
		} else {
			binary.LittleEndian.PutUint32(b[d+abi.CallArgOffset:], abi.NoOffset)
		}
	}
	sb.put32(s[2], uint32(len(b)))
	if len(b) > int(s[1]) {
		return abi.EOVERFLOW
	}
	for i, a := range t.args {
		if len(a.data) >= 4<<10 || len(a.refs) > 0 {
			binary.LittleEndian.PutUint32(b[abi.CallSize+abi.CallArgSize*i+abi.CallArgHandle:], sb.add(a))
		}
	}
	copy(sb.bytes(uint32(s[0]), uint32(s[1])), b)
	return abi.Success
}
