package worker

import (
	"errors"
	"fmt"
	"os"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/internal/clientwire"
	"github.com/wray-project/wray/internal/link"
	"github.com/wray-project/wray/objectstore"
	"github.com/wray-project/wray/wasm/abi"
)

// What commands of clients do. c.mu is held. An error ends the session.

var errBadCommand = fmt.Errorf("%w: a command that makes no sense", link.ErrProtocol)

// command carries out one command.
func (c *client) command(r clientwire.Record) error {
	g, mem := c.g, view(r.Mem)
	g.refused = nil
	switch r.Op {
	case clientwire.OpSubmit:
		return c.submit(mem)
	case clientwire.OpPut:
		return c.put(r)
	case clientwire.OpGet:
		o, ok := g.handles.Object(r.A)
		if !ok {
			return errBadCommand
		}
		c.owed.Add(1)
		o.Retain()
		a := answer{op: clientwire.OpValue, b: r.B, object: o}
		if o.Ready() {
			c.enqueue(a)
		} else {
			c.await(o, a)
		}
		return nil
	case clientwire.OpWatch:
		for ; len(mem) >= 8; mem = mem[8:] {
			o, ok := g.handles.Object(u32(mem, 0))
			if !ok {
				return errBadCommand
			}
			c.owed.Add(1)
			c.await(o, answer{op: clientwire.OpReady, b: u32(mem, 4)})
		}
		return nil
	case clientwire.OpRefs:
		o, ok := g.handles.Object(r.A)
		out, fits := mem.array(0, r.B, 4)
		if !ok || !fits || !o.Ready() || len(o.Refs()) != int(r.B) || g.giveAll(o.Refs(), out) != abi.Success {
			return errBadCommand
		}
		return nil
	case clientwire.OpDrop:
		hs, ok := mem.array(0, r.B, 4)
		for ; ok && len(hs) > 0; hs = hs[4:] {
			ok = g.handles.Drop(u32(hs, 0))
		}
		if !ok {
			return errBadCommand
		}
		return nil
	case clientwire.OpUnmap:
		return c.unmap(r)
	case clientwire.OpNext:
		st, ok := g.handles.Stream(r.A)
		if !ok || len(mem) < 4 {
			return errBadCommand
		}
		c.owed.Add(1)
		st.Retain()
		return c.next(answer{op: clientwire.OpItem, a: u32(mem, 0), b: r.B, stream: st})
	case clientwire.OpCancel:
		if cancelTask(g, nil, []uint64{uint64(r.A)}) != abi.Success {
			return errBadCommand
		}
		return nil
	case clientwire.OpKill:
		if len(mem) < 4 {
			return errBadCommand
		}
		c.done(r.B, 0, killActor(g, nil, []uint64{uint64(r.A), uint64(u32(mem, 0))}), nil)
		return nil
	case clientwire.OpFree:
		c.done(r.B, 0, objectFree(g, nil, []uint64{uint64(r.A)}), nil)
		return nil
	case clientwire.OpStat:
		o, ok := g.handles.Object(r.A)
		if !ok {
			c.done(r.B, 0, abi.EBADF, nil)
			return nil
		}
		c.owed.Add(1)
		o.Retain()
		c.enqueue(answer{op: clientwire.OpStatus, b: r.B, object: o})
		return nil
	case clientwire.OpFunction:
		return c.function(r)
	case clientwire.OpActor:
		return c.actor(r)
	case clientwire.OpPing:
		c.done(r.B, 0, abi.Success, nil)
		return nil
	}
	return fmt.Errorf("%w: command %d", link.ErrProtocol, r.Op)
}

// done answers a command with a result or an errno, and why.
func (c *client) done(b, result uint32, e abi.Errno, why *wray.Error) {
	c.owed.Add(1)
	c.enqueue(answer{op: clientwire.OpDone, a: result, b: b, errno: e, err: why})
}

// submit submits a task. What is wrong with it is told by its results.
func (c *client) submit(mem view) error {
	g := c.g
	spec, ok := mem.bytes(0, abi.SpecSize)
	if !ok {
		return errBadCommand
	}
	n := u32(spec, abi.SpecNresults)
	out, ok := mem.array(u32(spec, abi.SpecResultsPtr), n, 4)
	if !ok || n == 0 || n > maxResults {
		return errBadCommand
	}
	for {
		g.wantsSpace, g.wantsRoom, g.refused = false, false, nil
		e := g.submitOne(mem, spec)
		switch e {
		case abi.Success:
			return nil
		case abi.EAGAIN:
			if err := c.awaitSpace(); err != nil {
				return err
			}
			continue
		}
		why := g.refused
		if why == nil {
			why = refusalOf("submit", e)
		}
		for ; len(out) > 0; out = out[4:] {
			if err := c.giveFailure(out, u32(spec, abi.SpecFlags)&abi.SpecStream != 0, why); err != nil {
				return err
			}
		}
		return nil
	}
}

// refusalOf says what an errno means to a client.
func refusalOf(doing string, e abi.Errno) *wray.Error {
	switch e {
	case abi.EBADF:
		return wray.Errorf(wray.CodeBadArgument, "%s: a reference that is not of the kind that is wanted", doing)
	case abi.ENOENT:
		return wray.Errorf(wray.CodeUnknownFunction, "%s: there is no such function", doing)
	case abi.E2BIG, abi.EMSGSIZE:
		return wray.Errorf(wray.CodeLimitExceeded, "%s: too large", doing)
	}
	return wray.Errorf(wray.CodeBadArgument, "%s: errno %d", doing, e)
}

// giveFailure makes the handle in out one of a result that failed.
func (c *client) giveFailure(out []byte, stream bool, why *wray.Error) error {
	g := c.g
	why = g.job.named(why, why.Task, why.Attempt)
	if stream {
		st := objectstore.NewStream(g.w.newID(), 1, nil)
		_ = g.w.store.FailStream(st, g.w.newID(), why)
		if err := g.place(st, out); err != nil {
			st.Release()
			return errBadCommand
		}
		return nil
	}
	o, err := g.w.store.Declare(g.w.newID())
	if err != nil {
		return err
	}
	_ = o.Fail(why)
	if err := g.place(o, out); err != nil {
		o.Release()
		return errBadCommand
	}
	return nil
}

// put stores a small value. Where there is no room it is there later.
func (c *client) put(r clientwire.Record) error {
	g := c.g
	gv, e := view(r.Mem).valueAt(0)
	if e != abi.Success || len(gv.payload) >= inlineArg || gv.encoding == abi.EncodingError {
		return errBadCommand
	}
	v, e := g.storable(gv)
	if e != abi.Success {
		return errBadCommand
	}
	o, err := g.w.store.TryPut(g.w.newID(), v)
	late := errors.Is(err, objectstore.ErrFull)
	if err != nil {
		if o, err = g.w.store.Declare(g.w.newID()); err != nil {
			return err
		}
		if !late {
			_ = o.Fail(g.job.named(err, "", 0))
		}
	}
	defer o.Release()
	if err := g.nameObject(r.A, o); err != nil {
		return err
	}
	if !late {
		return nil
	}
	v.Payload = append([]byte(nil), v.Payload...)
	c.putLater(&latePut{c: c, object: o, value: v, size: v.Size()})
	for c.heldBytes() > maxHeld {
		if err := c.awaitSpace(); err != nil {
			return err
		}
	}
	return nil
}

func (c *client) heldBytes() int64 {
	c.out.Lock()
	defer c.out.Unlock()
	return c.out.held
}

// maxLateFiles bounds the files of values of a client that wait for room in the
// store, each of which takes a descriptor. Who puts a thousand large values at
// once has more goroutines wait than most programs have.
const maxLateFiles = 1 << 10

// lateFiles returns how many there are.
func (c *client) lateFiles() int {
	c.out.Lock()
	defer c.out.Unlock()
	return c.out.files
}

// putFile stores a value whose payload is a file.
func (c *client) putFile(r clientwire.Record, f *os.File) error {
	g, mem := c.g, view(r.Mem)
	b, ok := mem.bytes(0, abi.ValueSize)
	if !ok {
		return errBadCommand
	}
	n := uint64(u32(b, abi.ValuePtr)) | uint64(u32(b, abi.ValueLen))<<32
	refs, ok := mem.array(u32(b, abi.ValueRefsPtr), u32(b, abi.ValueRefsLen), 4)
	encoding, meta := abi.Encoding(u32(b, abi.ValueEncoding)), u32(b, abi.ValueMeta)
	if !ok || n < clientwire.MaxInline || n > objectstore.MaxPayload || encoding == abi.EncodingError || !validShape(encoding, meta, n) {
		return errBadCommand
	}
	objects, e := g.refs(refs)
	if e != abi.Success {
		return errBadCommand
	}
	o, err := g.w.store.Declare(g.w.newID())
	if err != nil {
		return err
	}
	defer o.Release()
	if err := g.nameObject(r.A, o); err != nil {
		return err
	}
	if c.lateFiles() >= maxLateFiles {
		why := &wray.Error{Code: wray.CodeLimitExceeded, Message: "too many large values of this client wait for room in the object store",
			Limit: &wray.Limit{Name: "large values that wait", Value: maxLateFiles, Unit: "values"},
			Hint:  "wait for some to be there before putting more"}
		_ = o.Fail(g.job.named(why, "", 0))
		c.done(r.B, 0, abi.EIO, g.job.named(why, "", 0))
		return nil
	}
	own, err := dupFile(f)
	if err != nil {
		_ = o.Fail(g.job.named(err, "", 0))
		c.done(r.B, 0, abi.EIO, nil)
		return nil
	}
	c.owed.Add(1)
	c.putLater(&latePut{c: c, object: o, file: own, answer: r.B,
		value: objectstore.Value{Encoding: encoding, Meta: meta, Refs: objects},
		size:  objectstore.Size{Payload: int64(n), Refs: len(objects)}})
	return nil
}

// latePut is a value that waits for room in the store. It has a reference on
// the object and on those that the value names.
type latePut struct {
	c      *client
	object *objectstore.Object
	value  objectstore.Value
	size   objectstore.Size
	file   *os.File // with the payload; answered by OpDone
	answer uint32
	cancel func() bool
}

// putLater seals p's object when there is room, which may be at once.
func (c *client) putLater(p *latePut) {
	p.object.Retain()
	for _, r := range p.value.Refs {
		r.Retain()
	}
	c.out.Lock()
	first := p.file == nil && c.out.held == 0
	c.out.held += int64(len(p.value.Payload))
	c.out.later[p] = struct{}{}
	if p.file != nil {
		c.out.files++
	}
	c.out.Unlock()
	if first {
		c.enqueue(answer{op: clientwire.OpFull, a: 1})
	}
	cancel := c.g.w.store.OnSpace(p.size, p.room)
	c.out.Lock()
	p.cancel = cancel
	c.out.Unlock()
}

// room takes the room that p waited for. It is a callback of the store.
func (p *latePut) room(r *objectstore.Reservation, err error) {
	switch {
	case err != nil:
	case p.file != nil:
		err = r.Adopt(p.object, p.value, p.file)
	default:
		err = r.Seal(p.object, p.value)
	}
	p.end(err)
}

// abandon ends a put whose client has gone.
func (p *latePut) abandon() {
	p.c.out.Lock()
	cancel := p.cancel
	p.c.out.Unlock()
	if cancel != nil && cancel() {
		p.end(wray.Errorf(wray.CodeCanceled, "the client that put it has gone"))
	}
}

// end lets go of what p holds.
func (p *latePut) end(err error) {
	c := p.c
	var why *wray.Error
	e := abi.Success
	if err != nil {
		why, e = c.g.job.named(err, "", 0), abi.EIO
		if errors.Is(err, objectstore.ErrNotSealed) {
			why.Code = wray.CodeBadArgument
		}
		_ = p.object.Fail(why)
	}
	for _, r := range p.value.Refs {
		r.Release()
	}
	p.object.Release()
	c.out.Lock()
	delete(c.out.later, p)
	if p.file != nil {
		c.out.files--
	}
	held := c.out.held
	c.out.held -= int64(len(p.value.Payload))
	last := held > 0 && c.out.held == 0
	c.out.Unlock()
	if p.file != nil {
		p.file.Close()
		c.enqueue(answer{op: clientwire.OpDone, b: p.answer, errno: e, err: why})
	}
	if last {
		c.enqueue(answer{op: clientwire.OpFull})
	}
	c.hasSpace()
}

// unmap takes back what the client had mapped.
func (c *client) unmap(r clientwire.Record) error {
	ns, ok := view(r.Mem).array(0, r.B, 4)
	for ; ok && len(ns) > 0; ns = ns[4:] {
		n := u32(ns, 0)
		w := c.mapped[n]
		if w == nil {
			return errBadCommand
		}
		delete(c.mapped, n)
		w.Unpin()
	}
	if !ok {
		return errBadCommand
	}
	return nil
}

// next gives the client the next item of a's stream, whose reference it takes
// over, now or when it is there.
func (c *client) next(a answer) error {
	st := a.stream
	o, err := st.Next()
	switch {
	case err == nil:
		var out [4]byte
		putU32(out[:], 0, a.a)
		o.Retain()
		if err := c.g.place(o, out[:]); err != nil {
			o.Release()
			o.Release()
			st.Release()
			return errBadCommand
		}
		st.Release()
		c.enqueue(answer{op: clientwire.OpItem, a: 1, b: a.b, object: o})
	case errors.Is(err, objectstore.ErrNotReady):
		c.await(nil, a)
	default:
		st.Release()
		c.enqueue(answer{op: clientwire.OpItem, b: a.b})
	}
	return nil
}

func (c *client) function(r clientwire.Record) error {
	mod, rest, ok := clientwire.Text(r.Mem)
	name, _, ok2 := clientwire.Text(rest)
	if !ok || !ok2 || len(mod) > maxName || len(name) > maxName {
		return errBadCommand
	}
	n, e := c.g.job.lookup(string(mod), string(name))
	c.done(r.B, n, e, nil)
	return nil
}

func (c *client) actor(r clientwire.Record) error {
	name, _, ok := clientwire.Text(r.Mem)
	if !ok || len(name) > maxName {
		return errBadCommand
	}
	j := c.g.job
	o := j.namedObject(string(name))
	e := abi.ENOENT
	if o != nil {
		var out [4]byte
		putU32(out[:], 0, r.A)
		if e = c.g.give(o, out[:]); e != abi.Success {
			return errBadCommand
		}
	}
	c.done(r.B, 0, e, nil)
	return nil
}

// nameObject makes h, which the client chose, a handle of o, which is new. The
// reference that the caller has stays its own.
func (g *guest) nameObject(h uint32, o *objectstore.Object) error {
	o.SetOrigin(g.origin())
	o.Retain()
	if err := g.handles.Set(h, o); err != nil {
		o.Release()
		return errBadCommand
	}
	return nil
}
