//go:build !wasip1

package rt

import (
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"runtime"
	"time"
	"weak"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/internal/clientwire"
	"github.com/wray-project/wray/wasm/abi"
)

// handle is a reference to an object, or a stream, in a session. There is one
// Ref for it, with which it goes.
type handle struct {
	s      *Session
	n      uint32
	stream bool

	// Guarded by s.mu.
	dropped bool
	ready   bool
	watched bool
	reading *request           // that somebody makes, or made and has not taken
	taking  *request           // likewise, of a stream's next item
	kept    *Value             // small, without references
	window  weak.Pointer[byte] // of the value, while anybody has it
	meta    Value              // of window, without Data
	size    int
}

// keepMax is the length of values that are kept with their reference.
const keepMax = 4 << 10

func newSessionRef(h *handle) *Ref {
	r := &Ref{h: h}
	runtime.AddCleanup(r, func(h *handle) { h.drop() }, h)
	return r
}

func (h *handle) drop() {
	s := h.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if h.dropped || s.closing || s.dead != nil {
		return
	}
	h.dropped = true
	s.drops = append(s.drops, h.n)
	if len(s.drops) >= 256 {
		s.soonLocked()
	} else if len(s.drops) == 1 {
		// Alone it is worth a message too, but not at once.
		time.AfterFunc(dropDelay, func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			if len(s.drops) > 0 {
				s.soonLocked()
			}
		})
	}
}

// dropDelay is how long a handle that nobody needs may stay.
const dropDelay = 2 * time.Millisecond

// appendValue appends a struct value and what it points to, as the memory of a
// record that begins at start.
func appendValue(out []byte, start, at int, v *Value) []byte {
	base := start + clientwire.HeaderSize
	b := out[base+at:]
	binary.LittleEndian.PutUint32(b[abi.ValueEncoding:], uint32(v.Encoding))
	binary.LittleEndian.PutUint32(b[abi.ValueMeta:], uint32(v.Elem))
	binary.LittleEndian.PutUint32(b[abi.ValuePtr:], uint32(len(out)-base))
	binary.LittleEndian.PutUint32(b[abi.ValueLen:], uint32(len(v.Data)))
	out = append(out, v.Data...)
	if len(v.Refs) > 0 {
		b = out[base+at:]
		binary.LittleEndian.PutUint32(b[abi.ValueRefsPtr:], uint32(len(out)-base))
		binary.LittleEndian.PutUint32(b[abi.ValueRefsLen:], uint32(len(v.Refs)))
		for _, r := range v.Refs {
			out = binary.LittleEndian.AppendUint32(out, r.h.n)
		}
	}
	return out
}

var zeros [abi.SpecSize]byte

// submit submits a task.
func (s *Session) submit(ctx context.Context, t *Spec, into []*Ref) ([]*Ref, error) {
	if err := ctx.Err(); err != nil {
		return into, err
	}
	if t.Actor != nil {
		if err := s.mine(t.Actor); err != nil {
			return into, err
		}
	}
	// What is large, or names objects, is put first.
	args := t.Args
	inline := 0
	for i := range args {
		a := &args[i]
		if a.Ref != nil {
			if err := s.mine(a.Ref); err != nil {
				return into, err
			}
			continue
		}
		if len(a.Value.Data) < clientwire.MaxInline && len(a.Value.Refs) == 0 && inline+len(a.Value.Data) < 1<<20 {
			inline += len(a.Value.Data)
			continue
		}
		r, err := s.put(ctx, &a.Value)
		if err != nil {
			return into, err
		}
		a.Ref = r
	}
	first := len(into)
	handles := make([]*handle, t.NumResults)
	err := s.say(func() error {
		for i := range handles {
			n, err := s.number()
			if err != nil {
				for _, h := range handles[:i] {
					s.free = append(s.free, h.n)
				}
				return err
			}
			handles[i] = &handle{s: s, n: n, stream: t.Flags&StreamTask != 0}
		}
		s.out = appendSpec(s.out, t, args, handles)
		return nil
	})
	runtime.KeepAlive(t)
	if err != nil {
		return into, err
	}
	for _, h := range handles {
		into = append(into, newSessionRef(h))
	}
	return into[:first+len(handles)], nil
}

// appendSpec appends an OpSubmit.
func appendSpec(out []byte, t *Spec, args []Arg, results []*handle) []byte {
	start := len(out)
	base := start + clientwire.HeaderSize
	out = append(clientwire.Begin(out, clientwire.OpSubmit, 0, 0), zeros[:]...)
	argsAt := len(out) - base
	for range args {
		out = append(out, zeros[:abi.ArgSize]...)
	}
	resultsAt := len(out) - base
	for _, h := range results {
		out = binary.LittleEndian.AppendUint32(out, h.n)
	}
	nameAt := len(out) - base
	out = append(out, t.Name...)
	retryAt := len(out) - base
	out = append(out, t.RetryOn...)
	customAt := len(out) - base
	out = append(out, t.Custom...)
	keyAt := len(out) - base
	out = append(out, t.Key...)
	placeAt := len(out) - base
	out = append(out, t.Place...)
	for i := range args {
		at := argsAt + i*abi.ArgSize
		if r := args[i].Ref; r != nil {
			binary.LittleEndian.PutUint32(out[base+at+abi.ArgKind:], abi.ArgKindHandle)
			binary.LittleEndian.PutUint32(out[base+at+abi.ArgHandle:], r.h.n)
			continue
		}
		out = appendValue(out, start, at+abi.ArgValue, &args[i].Value)
	}
	b := out[base:]
	u32 := func(off int, x uint32) { binary.LittleEndian.PutUint32(b[off:], x) }
	u64 := func(off int, x uint64) { binary.LittleEndian.PutUint64(b[off:], x) }
	u32(abi.SpecFn, t.Fn)
	u32(abi.SpecFlags, t.Flags)
	u32(abi.SpecArgsPtr, uint32(argsAt))
	u32(abi.SpecNargs, uint32(len(args)))
	u32(abi.SpecResultsPtr, uint32(resultsAt))
	u32(abi.SpecNresults, uint32(len(results)))
	u32(abi.SpecNamePtr, uint32(nameAt))
	u32(abi.SpecNameLen, uint32(len(t.Name)))
	u32(abi.SpecCPU, t.CPU)
	u32(abi.SpecRetries, uint32(t.Retries))
	u64(abi.SpecMemory, t.Memory)
	u64(abi.SpecTimeout, uint64(max(0, t.Timeout)))
	u32(abi.SpecRetryOnPtr, uint32(retryAt))
	u32(abi.SpecRetryOnLen, uint32(len(t.RetryOn)))
	u32(abi.SpecWindow, t.Window)
	u32(abi.SpecCustomPtr, uint32(customAt))
	u32(abi.SpecCustomLen, uint32(len(t.Custom)))
	u32(abi.SpecKeyPtr, uint32(keyAt))
	u32(abi.SpecKeyLen, uint32(len(t.Key)))
	u32(abi.SpecPlacePtr, uint32(placeAt))
	u32(abi.SpecPlaceLen, uint32(len(t.Place)))
	if t.Actor != nil {
		u32(abi.SpecActorRef, t.Actor.h.n)
	}
	u32(abi.SpecCallTries, uint32(t.CallTries))
	u32(abi.SpecMaxPending, t.MaxPending)
	u32(abi.SpecConcurrency, t.Concurrency)
	u64(abi.SpecIdle, uint64(max(0, t.Idle)))
	u32(abi.SpecCheckpointCalls, t.CheckpointCalls)
	u64(abi.SpecCheckpointEvery, uint64(max(0, t.CheckpointEvery)))
	return clientwire.End(out, start)
}

// put stores a value.
func (s *Session) put(ctx context.Context, v *Value) (*Ref, error) {
	if err := s.mine(v.Refs...); err != nil {
		return nil, err
	}
	if len(v.Data) >= clientwire.MaxInline {
		return s.putLarge(ctx, v)
	}
	if n := len(v.Refs); n > clientwire.MaxBatch/8 {
		return nil, &wray.Error{Code: wray.CodeLimitExceeded, Message: fmt.Sprintf("a value refers to %d objects", n),
			Limit: &wray.Limit{Name: "references in a value", Value: clientwire.MaxBatch / 8}}
	}
	if err := s.await(ctx, func() bool { return !s.full }); err != nil {
		return nil, err
	}
	h := &handle{s: s, ready: true}
	err := s.say(func() (err error) {
		if h.n, err = s.number(); err != nil {
			return err
		}
		start := len(s.out)
		out := append(clientwire.Begin(s.out, clientwire.OpPut, h.n, 0), zeros[:abi.ValueSize]...)
		s.out = clientwire.End(appendValue(out, start, 0, v), start)
		return nil
	})
	runtime.KeepAlive(v.Refs)
	if err != nil {
		return nil, err
	}
	return newSessionRef(h), nil
}

// putLarge stores a value by giving away a file of it: the one that it was made
// in, or a copy.
func (s *Session) putLarge(ctx context.Context, v *Value) (*Ref, error) {
	f := takeBuffer(v.Data)
	if f == nil {
		var err error
		if f, err = sealedFile(v.Data); err != nil {
			return nil, noMemory(len(v.Data), err)
		}
	}
	defer f.Close()
	return s.putFile(ctx, v, int64(len(v.Data)), f)
}

func noMemory(n int, err error) error {
	return &wray.Error{Code: wray.CodeOutOfMemory, Message: fmt.Sprintf("write a value of %d bytes: %v", n, err)}
}

// putFile stores a value whose payload of n bytes is a sealed file.
func (s *Session) putFile(ctx context.Context, v *Value, n int64, f *os.File) (*Ref, error) {
	h := &handle{s: s, ready: true}
	r := &request{done: make(chan struct{})}
	var failed error
	s.send(func() {
		if failed = s.dead; failed != nil {
			return
		}
		if h.n, failed = s.number(); failed != nil {
			return
		}
		b, err := s.request(r)
		if err != nil {
			s.free = append(s.free, h.n)
			failed = err
			return
		}
		start := len(s.out)
		out := append(clientwire.Begin(s.out, clientwire.OpPutFile, h.n, b), zeros[:abi.ValueSize]...)
		out = appendValue(out, start, 0, &Value{Encoding: v.Encoding, Elem: v.Elem, Refs: v.Refs})
		mem := out[start+clientwire.HeaderSize:]
		binary.LittleEndian.PutUint32(mem[abi.ValuePtr:], uint32(n))
		binary.LittleEndian.PutUint32(mem[abi.ValueLen:], uint32(uint64(n)>>32))
		s.out = clientwire.End(out, start)
	}, f)
	if failed != nil {
		return nil, failed
	}
	ref := newSessionRef(h)
	runtime.KeepAlive(v.Refs)
	return ref, s.wait(ctx, r)
}

// readLocked asks for h's value unless that is under way.
func (h *handle) readLocked() (*request, error) {
	if h.reading != nil {
		return h.reading, nil
	}
	s := h.s
	r := &request{done: make(chan struct{}), h: h}
	n, err := s.request(r)
	if err != nil {
		return nil, err
	}
	s.out = clientwire.Append(s.out, clientwire.OpGet, h.n, n, nil)
	h.reading = r
	return r, nil
}

// ahead is how many of the references that a caller will get next are asked for
// with the first.
const ahead = 256

// get reads the value of r.
func (h *handle) get(ctx context.Context, v *Value, next []*Ref) error {
	s := h.s
	if h.stream {
		return Errno(abi.EINVAL)
	}
	s.mu.Lock()
	if h.has(v) {
		s.mu.Unlock()
		return nil
	}
	if s.dead != nil || h.dropped {
		defer s.mu.Unlock()
		if s.dead != nil {
			return s.dead
		}
		return ErrStale
	}
	asked := h.reading == nil
	r, err := h.readLocked()
	if err != nil {
		s.mu.Unlock()
		return err
	}
	if asked {
		for _, n := range next[:min(len(next), ahead)] {
			if n.h != nil && n.h.s == s && !n.h.stream && !n.h.dropped && n.h.kept == nil {
				if _, err := n.h.readLocked(); err != nil {
					break
				}
			}
		}
	}
	s.mu.Unlock()
	if asked {
		s.flush()
	}
	if err := s.wait(ctx, r); err != nil {
		if ctx.Err() == nil {
			s.mu.Lock()
			h.reading = nil
			s.mu.Unlock()
		}
		return err
	}
	*v = r.value
	if r.nrefs > 0 {
		return h.nested(v, r.nrefs)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if h.reading == r {
		h.reading = nil
		switch {
		case len(v.Data) <= keepMax:
			kept := v.clone()
			h.kept = &kept
		case h.window.Value() != nil:
			h.meta, h.size = Value{Encoding: v.Encoding, Elem: v.Elem, Owned: true}, len(v.Data)
		}
	} else if h.window.Value() == nil {
		*v = v.clone() // others who waited have the same
	}
	return nil
}

// has gives what is there already. s.mu is held.
func (h *handle) has(v *Value) bool {
	if h.kept != nil {
		*v = h.kept.clone()
		return true
	}
	if base := h.window.Value(); base != nil && h.size > 0 {
		*v = h.meta
		v.Data = windowBytes(base, h.size)
		return true
	}
	return false
}

// nested makes Refs for the objects that a value names.
func (h *handle) nested(v *Value, n uint32) error {
	s := h.s
	numbers := make([]uint32, n)
	err := s.say(func() error {
		h.reading = nil
		for i := range numbers {
			var err error
			if numbers[i], err = s.number(); err != nil {
				s.free = append(s.free, numbers[:i]...)
				return err
			}
		}
		s.out = appendNumbers(s.out, clientwire.OpRefs, h.n, numbers)
		return nil
	})
	if err != nil {
		return err
	}
	v.Refs = make([]*Ref, n)
	for i, n := range numbers {
		v.Refs[i] = newSessionRef(&handle{s: s, n: n})
	}
	return nil
}

// next waits for the next item of a stream.
func (h *handle) next(ctx context.Context) (*Ref, error) {
	s := h.s
	s.mu.Lock()
	r := h.taking // of a caller that waited no longer: the item is the next one's
	h.taking = nil
	s.mu.Unlock()
	var err error
	if r != nil {
		err = s.wait(ctx, r)
	} else {
		r = &request{}
		err = s.ask(ctx, r, func(b uint32) {
			r.number, _ = s.number() // 0 where there is none, which ends the session
			s.out = clientwire.Append(s.out, clientwire.OpNext, h.n, b, binary.LittleEndian.AppendUint32(nil, r.number))
		})
	}
	if err != nil {
		if r.number != 0 && ctx.Err() != nil {
			s.mu.Lock()
			h.taking = r
			s.mu.Unlock()
		}
		return nil, err
	}
	if r.result == 0 {
		s.mu.Lock()
		s.free = append(s.free, r.number)
		s.mu.Unlock()
		return nil, nil
	}
	return newSessionRef(r.h), nil
}

func (h *handle) isReady() bool {
	h.s.mu.Lock()
	defer h.s.mu.Unlock()
	return h.ready || h.s.dead != nil
}

func (h *handle) cancel() error {
	return h.s.say(func() error {
		h.s.out = clientwire.Append(h.s.out, clientwire.OpCancel, h.n, 0, nil)
		return nil
	})
}

func (h *handle) kill(restart bool) error {
	flags := uint32(0)
	if restart {
		flags = abi.KillRestart
	}
	return h.s.ask(context.Background(), &request{}, func(b uint32) {
		h.s.out = clientwire.Append(h.s.out, clientwire.OpKill, h.n, b, binary.LittleEndian.AppendUint32(nil, flags))
	})
}

// free drops the value for everybody.
func (h *handle) free() error {
	s := h.s
	err := s.ask(context.Background(), &request{}, func(b uint32) {
		s.out = clientwire.Append(s.out, clientwire.OpFree, h.n, b, nil)
	})
	if err == nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		h.kept, h.window, h.reading = nil, weak.Pointer[byte]{}, nil
	}
	return err
}

// stat says what is known of the object.
func (h *handle) stat() (Stat, error) {
	s, r := h.s, &request{}
	err := s.ask(context.Background(), r, func(b uint32) {
		s.out = clientwire.Append(s.out, clientwire.OpStat, h.n, b, nil)
	})
	if err != nil {
		return Stat{}, err
	}
	b := r.value.Data
	u32 := func(at int) uint32 { return binary.LittleEndian.Uint32(b[at:]) }
	name := b[abi.StatSize:]
	return Stat{
		State: u32(abi.StatState), Encoding: abi.Encoding(u32(abi.StatEncoding)), Elem: abi.Elem(u32(abi.StatMeta)),
		Len: int64(binary.LittleEndian.Uint64(b[abi.StatLen:])), References: int64(binary.LittleEndian.Uint64(b[abi.StatReferences:])),
		Away: u32(abi.StatFlags)&abi.StatAway != 0, Task: string(name[:min(uint64(len(name)), uint64(u32(abi.StatNameLen)))]),
	}, nil
}

// waitFor waits until n of refs are ready.
func (s *Session) waitFor(ctx context.Context, refs []*Ref, n int, timeout time.Duration) (have int, err error) {
	limited := ctx
	if timeout > 0 {
		var cancel context.CancelFunc
		limited, cancel = context.WithTimeout(ctx, timeout)
		defer cancel()
	}
	n = min(n, len(refs))
	count := func() bool {
		have = 0
		for _, r := range refs {
			if r.err != nil || r.h.ready {
				have++
			}
		}
		return have >= n
	}
	// The answer to a ping comes after what the worker knows already.
	ping := &request{}
	err = s.ask(limited, ping, func(b uint32) {
		start := len(s.out)
		out := clientwire.Begin(s.out, clientwire.OpWatch, 0, 0)
		for _, r := range refs {
			if r.err != nil || r.h.ready || r.h.watched || r.h.dropped {
				continue
			}
			w, err := s.request(&request{h: r.h})
			if err != nil {
				break
			}
			r.h.watched = true
			out = binary.LittleEndian.AppendUint32(out, r.h.n)
			out = binary.LittleEndian.AppendUint32(out, w)
		}
		out = clientwire.End(out, start)
		s.out = clientwire.Append(out, clientwire.OpPing, 0, b, nil)
	})
	if err == nil {
		if timeout == 0 {
			s.mu.Lock()
			count()
			s.mu.Unlock()
			return have, nil
		}
		err = s.await(limited, count)
	}
	runtime.KeepAlive(refs)
	return have, ctxError(ctx, err)
}
