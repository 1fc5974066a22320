package guest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"
	"unsafe"

	"github.com/wray-project/wray/wasm/abi"
)

// Call is the task that the guest runs.
type Call struct {
	head  rawCall
	ctx   *taskContext
	name  []byte       // in buf, until the task ends
	args  []rawCallArg // in buf
	buf   []byte       // of task_input
	owned bool         // buf is this call's alone, for as long as anything refers to it
	input *scratch     // whose buf is, or nil
	items uint64       // given so far, those of earlier attempts included

	finished bool   // see Finish
	follows  uint32 // what the host then said of the next task

	number uint64 // among calls under way at once, where served
	served bool   // see serve
	at     int    // in serving.calls
}

// Name returns the task's name.
func (c *Call) Name() string { return string(c.name) }

// Context returns the task's context.
func (c *Call) Context() context.Context { return c.ctx }

// Attempt returns which attempt this is, from 1.
func (c *Call) Attempt() int { return int(c.head.attempt) }

// NumArgs returns the number of arguments.
func (c *Call) NumArgs() int { return len(c.args) }

// NumResults returns the number of results that the caller wants.
func (c *Call) NumResults() int { return int(c.head.nresults) }

// Stream reports whether the caller wants a stream.
func (c *Call) Stream() bool { return c.head.flags&abi.CallStream != 0 }

// Arg describes argument i in v, which the caller releases before the task
// ends. It is an error of the guest's program to ask for an argument twice.
func (c *Call) Arg(i int, v *Value) error {
	a := &c.args[i]
	*v = Value{Encoding: abi.Encoding(a.encoding), Elem: abi.Elem(a.meta)}
	if a.offset == abi.NoOffset {
		return newRef(a.handle, refReady).Get(c.ctx, v, nil)
	}
	if uint64(a.offset)+a.len > uint64(len(c.buf)) {
		return Errno(abi.EFAULT)
	}
	v.Data = c.buf[a.offset : uint64(a.offset)+a.len : uint64(a.offset)+a.len]
	v.Owned = c.owned
	if a.nrefs > 0 {
		return newRef(a.handle, refReady).refs(v, a.nrefs)
	}
	return nil
}

// inputMax bounds what is read into the scratch, whose memory the next task
// uses again; a larger input gets memory of its own, which arguments may keep.
const inputMax = scratchSize

// call is used by one task after another. Tasks with streams have one of their
// own, since a goroutine may keep it.
var call Call

// runTask runs a task on the calling goroutine, and then those that the host
// has besides.
func runTask() uint32 {
	s := takeScratch()
	call = Call{}
	e := call.read(s, importTaskInput(unsafe.Pointer(&s.buf), inputMax, &s.out))
	for ok(e) {
		c := &call
		if c.Stream() {
			own := *c
			c = &own
		}
		isActor = isActor || c.Actor()
		begin(c, time.Duration(c.head.timeout))
		s.out = 0 // the host is told: what comes now is this task's
		c.invoke()
		end()
		finished, follows := c.finished, c.follows
		c.buf, c.args, c.name = nil, nil, nil
		if isActor {
			break
		}
		call = Call{}
		if e = follows; !finished {
			e = importTaskNext(nil, unsafe.Pointer(&s.buf), inputMax, &s.out)
		}
		if abi.Errno(e) == abi.ENOENT {
			e = uint32(abi.Success)
			break
		}
		e = call.read(s, e)
	}
	call.buf, call.args, call.name = nil, nil, nil
	s.give()
	return e
}

// invoke calls the function that c names.
func (c *Call) invoke() {
	if int(c.head.index) < len(functions) {
		functions[c.head.index](c)
	} else {
		c.fail(codeUnknownFunction, fmt.Sprintf("the module declares %d functions, number %d is wanted", len(functions), c.head.index), "", "")
	}
}

// read reads what is to be done, of which the host has copied to s what fits, and
// said e.
func (c *Call) read(s *scratch, e uint32) uint32 {
	c.buf, c.input = s.buf[:min(s.out, inputMax)], s
	for abi.Errno(e) == abi.EOVERFLOW {
		n := s.out
		c.buf, c.input, c.owned = allocate(int(n)), nil, true
		e = importTaskInput(unsafe.Pointer(&c.buf[0]), n, &s.out)
		if e == uint32(abi.EOVERFLOW) && s.out <= n {
			break
		}
		c.buf = c.buf[:min(s.out, n)]
	}
	if ok(e) && !c.parse() {
		return uint32(abi.EINVAL)
	}
	return e
}

// parse reads the head, the name and the arguments' descriptions out of buf.
func (c *Call) parse() bool {
	if len(c.buf) < abi.CallSize {
		return false
	}
	c.head = *(*rawCall)(unsafe.Pointer(&c.buf[0]))
	n, rest := int(c.head.nargs), c.buf[abi.CallSize:]
	if n > len(rest)/abi.CallArgSize {
		return false
	}
	if n > 0 {
		c.args = unsafe.Slice((*rawCallArg)(unsafe.Pointer(&rest[0])), n)
	}
	rest = rest[n*abi.CallArgSize:]
	if int(c.head.nameLen) > len(rest) {
		return false
	}
	c.name = rest[:c.head.nameLen]
	return true
}

// Abandon ends the guest in a task that called runtime.Goexit, after it said so
// by Fail. The goroutine that runs all tasks is ending, and the host would wait
// for ever for this call. One of several calls has a goroutine of its own.
func (c *Call) Abandon() {
	if !c.served {
		os.Exit(2)
	}
}

// returning describes a result to the host; between that and the host's answer
// no goroutine comes.
var returning rawValue

// Return gives result i.
func (c *Call) Return(i int, v *Value) error {
	if len(v.Data) < mapMin && len(v.Refs) == 0 {
		c.pick()
		returning = rawValue{encoding: uint32(v.Encoding), meta: uint32(v.Elem),
			ptr: uint32(uintptr(unsafe.Pointer(unsafe.SliceData(v.Data)))), len: uint32(len(v.Data))}
		if ok(importTaskReturn(uint32(i), &returning)) {
			return nil
		}
	}
	s := takeScratch()
	err := s.setWhole(v)
	if err == nil {
		c.pick()
		if e := importTaskReturn(uint32(i), &s.value); !ok(e) {
			err = again(c.ctx, e, func() uint32 { c.pick(); return importTaskReturn(uint32(i), &s.value) })
		}
	}
	s.done()
	s.give()
	return err
}

// Finish gives the only result of a task, which has nothing else to do than to
// return, together with asking for the next task. It reports false where that
// cannot be: Return does it, and says why not. From its beginning to the host's
// answer it makes no other call.
func (c *Call) Finish(v *Value) bool {
	s := c.input
	if s == nil || c.served || isActor || c.head.nresults != 1 || c.head.flags&abi.CallStream != 0 || len(v.Data) >= mapMin || len(v.Refs) > 0 {
		return false
	}
	returning = rawValue{encoding: uint32(v.Encoding), meta: uint32(v.Elem),
		ptr: uint32(uintptr(unsafe.Pointer(unsafe.SliceData(v.Data)))), len: uint32(len(v.Data))}
	// v may lie in the input, which the host has read by the time it writes the next.
	e := importTaskNext(&returning, unsafe.Pointer(&s.buf), inputMax, &s.out)
	switch abi.Errno(e) {
	case abi.Success, abi.EOVERFLOW, abi.ENOENT:
		c.finished, c.follows = true, e
	}
	return c.finished
}

// ErrStreamDropped is the failure of a Yield whose reader has gone.
var ErrStreamDropped = errors.New("the stream was dropped")

// Yield gives the next item of a stream, and waits while its window is full.
// Items that an earlier attempt gave are skipped.
func (c *Call) Yield(ctx context.Context, v *Value) error {
	if c.items < c.head.itemsDone {
		c.items++
		return nil
	}
	s := takeScratch()
	defer s.give()
	if err := s.setWhole(v); err != nil {
		return err
	}
	defer s.done()
	for {
		c.pick()
		switch e := importTaskYield(&s.value); abi.Errno(e) {
		case abi.Success:
			c.items++
			return nil
		case abi.ECANCELED:
			return ErrStreamDropped
		case abi.EAGAIN:
			// Full is the window, or the store; either event may follow.
			if err := parkRoom(ctx); err != nil {
				return err
			}
		case abi.ENOSPC:
			if why := refused(e); !Reclaim() {
				return why
			}
		default:
			return refused(e)
		}
	}
}

// Fail ends the task with v, of encoding ERROR.
func (c *Call) Fail(v *Value) error {
	s := takeScratch()
	defer s.give()
	if err := s.set(&s.value, v); err != nil {
		return err
	}
	c.pick()
	if e := importTaskFail(&s.value); !ok(e) {
		return Errno(e)
	}
	return nil
}

// The codes of wray.Code that the binding itself gives.
const (
	codeDeadlock        = 10
	codeUnknownFunction = 16
)

// fail ends the task with a failure of the binding's own.
func (c *Call) fail(code byte, message, trace, hint string) {
	_ = c.Fail(&Value{Encoding: abi.EncodingError, Data: encodeFailure(code, message, c.Name(), int(c.head.attempt), trace, hint)})
}

// encodeFailure is wray.Error in CBOR (RFC 8949): a map with integer keys. The
// binding writes these few itself so as not to need a CBOR package.
func encodeFailure(code byte, message, task string, attempt int, trace, hint string) []byte {
	b := []byte{0xa0, 1} // the number of pairs is added as they come
	pairs := byte(1)
	b = appendUint(b, 0, uint64(code))
	text := func(key byte, s string) {
		if s != "" {
			pairs++
			b = append(appendUint(append(b, key), 0x60, uint64(len(s))), s...)
		}
	}
	text(2, message)
	text(3, task)
	if attempt > 0 {
		pairs++
		b = appendUint(append(b, 4), 0, uint64(attempt))
	}
	text(6, trace)
	text(7, hint)
	b[0] |= pairs
	return b
}

// appendUint appends the head of a CBOR item: its major type, in the upper
// three bits, and its number.
func appendUint(b []byte, major byte, n uint64) []byte {
	switch {
	case n < 24:
		return append(b, major|byte(n))
	case n < 1<<8:
		return append(b, major|24, byte(n))
	case n < 1<<16:
		return append(b, major|25, byte(n>>8), byte(n))
	default:
		return append(b, major|26, byte(n>>24), byte(n>>16), byte(n>>8), byte(n))
	}
}
