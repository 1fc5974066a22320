package worker

import (
	"errors"
	"sync/atomic"
	"time"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/host/sandbox"
	"github.com/wray-project/wray/host/wasi"
	"github.com/wray-project/wray/objectstore"
	"github.com/wray-project/wray/wasm/abi"
)

// HostModule returns the imports of wray_v1. docs/ABI.md says what each does.
func HostModule() sandbox.HostModule {
	m := sandbox.HostModule{Name: abi.Module}
	add := func(name, params, capability string, payload int64, cost wasi.Cost, blocks bool, f func(g *guest, v view, s []uint64) abi.Errno) {
		m.Funcs = append(m.Funcs, sandbox.HostFunc{
			Name: name, Params: params, Results: "i", Capability: capability, MaxPayload: payload, Cost: cost, Blocks: blocks,
			Call: func(sb *sandbox.Sandbox, mem []byte, stack []uint64) {
				g := sb.Host.(*guest)
				if g.refused != nil && name != "refusal" {
					g.refused = nil
				}
				g.work = 0
				stack[0] = uint64(f(g, mem, stack))
				if g.work > 0 {
					sb.Charge(g.work)
				}
			},
		})
	}
	const (
		always, tasks, objects = "always", "tasks", "objects"
		none                   = wasi.NoPayload
	)
	cheap := wasi.Cost{Base: 100}
	object := wasi.Cost{Base: 300, PerKiB: perKiB}
	task := wasi.Cost{Base: 2_000, PerKiB: perKiB}
	mapping := wasi.Cost{Base: mappingCost}

	add("version", "", always, none, cheap, false, func(*guest, view, []uint64) abi.Errno { return abi.Version })
	add("declare", "iiii", tasks, maxName, cheap, false, declare)
	add("function", "iiiii", tasks, 2*maxName, cheap, false, lookupFunction)
	add("submit", "iii", tasks, maxSubmit, task, false, submitTasks)
	add("cancel", "i", tasks, none, task, false, cancelTask)
	add("call_select", "I", tasks, none, cheap, false, callSelect)
	add("call_end", "", tasks, none, object, false, callEnd)
	add("task_input", "iii", tasks, maxInput, object, false, taskInput)
	add("task_next", "iiii", tasks, maxValue, object, false, taskNext)
	add("task_return", "ii", tasks, maxValue, object, false, taskReturn)
	add("task_fail", "i", tasks, maxValue, object, false, taskFail)
	add("task_yield", "i", tasks, maxValue, object, false, taskYield)
	add("object_put", "ii", objects, maxValue, object, false, objectPut)
	add("object_get", "iiiii", objects, maxValue, object, false, objectGet)
	add("object_take", "iiiiii", objects, maxValue, object, false, objectTake)
	add("object_refs", "iii", objects, maxValue, object, false, objectRefs)
	add("object_watch", "ii", objects, maxValue, object, false, objectWatch)
	add("object_wait", "iiiIi", objects, maxValue, object, true, objectWait)
	add("object_map", "iiiI", objects, none, mapping, false, objectMap)
	add("object_unmap", "ii", objects, none, mapping, false, objectUnmap)
	add("object_read", "iIiii", objects, maxValue, object, false, objectRead)
	add("object_free", "i", objects, none, cheap, false, objectFree)
	add("object_stat", "iiii", objects, maxName, cheap, false, objectStat)
	add("buffer_open", "Ii", objects, none, task, false, bufferOpen)
	add("buffer_seal", "iiiIi", objects, none, mapping, false, bufferSeal)
	add("handle_dup", "ii", objects, none, cheap, false, handleDup)
	add("handle_drop", "ii", objects, maxValue, object, false, handleDrop)
	add("stream_next", "iii", objects, none, object, false, streamNext)
	add("event_open", "i", always, none, cheap, false, eventOpen)
	add("actor", "iii", tasks, maxName, task, false, findActor)
	add("kill", "ii", tasks, none, task, false, killActor)
	add("http_fetch", "ii", "egress", maxFetchText, task, false, httpFetch)
	add("refusal", "iii", always, 64<<10, object, false, refusal)
	return m
}

// What a guest is charged for the length of what it passes, in nanoseconds.
// Lengths are the guest's, so every function that copies or looks through what
// it is given counts what it did.
const (
	perKiB    = 100
	perHandle = 100
	perTask   = 2_000
	perActor  = 100_000 // a sandbox of its own, made and thrown away
	// perPage is that of giving a page back.
	perPage = 100
	// mappingCost is that of a change of mappings.
	mappingCost = 3_000
)

// copied counts n bytes that were copied for the guest.
func (g *guest) copied(n int) { g.work += int64(n) >> 10 * perKiB }

// looked counts n handles, or the like, that were looked at.
func (g *guest) looked(n int) { g.work += int64(n) * perHandle }

// step charges for what was done so far. Long work is cut into steps, between
// which a guest can be stopped and others have their turns; there it must hold
// nothing that somebody would have to give back.
func (g *guest) step() {
	ns := g.work
	g.work = 0
	if g.sb != nil { // a client has a processor's time of its own
		g.sb.Charge(ns)
	}
}

// pause is step where much was done since the last.
func (g *guest) pause() {
	if g.work >= stepWork {
		g.step()
	}
}

// copyStep is the step of a copy into the store. The call has not stored
// anything yet, so that it may end here.
func (g *guest) copyStep() {
	g.copied(objectstore.StepBytes)
	g.step()
}

// steps has the copy of a long value be made in steps.
func (g *guest) steps(v *objectstore.Value) {
	if len(v.Payload) > objectstore.StepBytes {
		v.Step = g.copyStep
	}
}

const (
	stepBytes   = 1 << 20
	stepHandles = 1 << 10
	stepWork    = stepBytes >> 10 * perKiB // ns
)

// copyOut copies src to the guest's memory, in steps.
func (g *guest) copyOut(dst, src []byte) {
	for len(src) > stepBytes {
		copy(dst, src[:stepBytes])
		dst, src = dst[stepBytes:], src[stepBytes:]
		g.copied(stepBytes)
		g.step()
	}
	g.copied(copy(dst, src))
}

// Bounds on what one call may carry.
const (
	maxName   = 4 << 10
	maxSubmit = 4096 // tasks in one submit
	maxArgs   = 64 << 10
	maxInput  = 64 << 20
	maxValue  = 1<<32 - 1
	// inlineArg is the payload up to which an argument or a result travels
	// with its task and has no handle.
	inlineArg = objectstore.InlineMax
)

func (v view) str(p, n uint32) (string, abi.Errno) {
	if n > maxName {
		return "", abi.EMSGSIZE
	}
	b, ok := v.bytes(p, n)
	if !ok {
		return "", abi.EFAULT
	}
	return string(b), abi.Success
}

func declare(g *guest, v view, s []uint64) abi.Errno {
	name, e := v.str(uint32(s[0]), uint32(s[1]))
	if e != abi.Success {
		return e
	}
	return g.module.declare(name, uint32(s[2]), uint32(s[3]), g.sb.Initialising())
}

// declare notes a function that the module offers. Only the initialisation may
// declare: what it says holds for every sandbox made from the snapshot.
func (m *module) declare(name string, index, flags uint32, initialising bool) abi.Errno {
	if m.prepared || !initialising {
		// A module that cannot be reset initialises each sandbox anew.
		if i, ok := m.declByName[name]; ok && m.prepared && m.declared[i].index == index {
			return abi.Success
		}
		return abi.EPERM
	}
	if name == "" {
		return abi.EINVAL
	}
	if _, ok := m.declByName[name]; ok {
		return abi.EEXIST
	}
	if len(m.declared) >= 1<<16 {
		return abi.E2BIG
	}
	m.declByName[name] = uint32(len(m.declared))
	m.declared = append(m.declared, declared{name: name, index: index, flags: flags})
	return abi.Success
}

func lookupFunction(g *guest, v view, s []uint64) abi.Errno {
	mod, e := v.str(uint32(s[0]), uint32(s[1]))
	if e != abi.Success {
		return e
	}
	name, e := v.str(uint32(s[2]), uint32(s[3]))
	if e != abi.Success {
		return e
	}
	if mod == "" {
		mod = g.module.name
	}
	n, e := g.job.lookup(mod, name)
	if e != abi.Success {
		return e
	}
	if !v.putU32(uint32(s[4]), n) {
		return abi.EFAULT
	}
	return abi.Success
}

func eventOpen(g *guest, v view, s []uint64) abi.Errno {
	if _, ok := v.bytes(uint32(s[0]), 4); !ok {
		return abi.EFAULT
	}
	fd, e := g.sb.OpenEvents()
	if e != wasi.Success {
		return abi.Errno(e)
	}
	v.putU32(uint32(s[0]), fd)
	return abi.Success
}

// refs returns the objects that a guest's value names. The references are the
// handles': they last for the host call.
func (g *guest) refs(b []byte) ([]*objectstore.Object, abi.Errno) {
	if len(b) == 0 {
		return nil, abi.Success
	}
	if n := len(b) / 4; n > objectstore.MaxRefs {
		return nil, g.tooMany("references in a value", uint32(n), objectstore.MaxRefs)
	}
	refs := make([]*objectstore.Object, len(b)/4)
	for i := range refs {
		g.looked(1)
		g.pause()
		o, ok := g.handles.Object(u32(b, 4*i))
		if !ok {
			return nil, abi.EBADF
		}
		refs[i] = o
	}
	return refs, abi.Success
}

// storable makes a value for the store out of a guest's.
func (g *guest) storable(gv guestValue) (objectstore.Value, abi.Errno) {
	refs, e := g.refs(gv.refs)
	g.copied(len(gv.payload))
	return objectstore.Value{Encoding: gv.encoding, Meta: gv.meta, Payload: gv.payload, Refs: refs}, e
}

// storeErrno tells a guest how a put went. Where there is no room now, an event
// SPACE follows when there is.
func (g *guest) storeErrno(err error, size objectstore.Size) abi.Errno {
	switch {
	case err == nil:
		return abi.Success
	case errors.Is(err, objectstore.ErrFull):
		if g.fullFor.Swap(0) == g.epoch()+1 { // it has waited for long
			return g.refuse(g.w.store.FullError(size), abi.ENOSPC)
		}
		g.awaitSpace(size)
		return abi.EAGAIN
	case errors.Is(err, objectstore.ErrSealed):
		return abi.EEXIST
	}
	var e *wray.Error
	if errors.As(err, &e) {
		switch e.Code {
		case wray.CodeStoreFull:
			return g.refuse(e, abi.ENOSPC)
		case wray.CodeBadArgument:
			return abi.EINVAL
		case wray.CodeLimitExceeded:
			return g.refuse(e, abi.E2BIG)
		}
	}
	return abi.EIO
}

// awaitSpace sends SPACE when the store has room for size. The room is not
// kept: the guest asks again, and may find that another was faster.
func (g *guest) awaitSpace(size objectstore.Size) {
	if g.wantsRoom {
		return // one SPACE is on its way
	}
	if cancel := g.cancelSpace; cancel != nil && cancel() {
		g.unexpect(g.out.epoch) // of a call before; only this goroutine changes epochs
	}
	g.wantsRoom = true
	epoch := g.expect()
	var over atomic.Bool
	var w atomic.Pointer[roomWait]
	cancel := g.w.store.OnSpace(size, func(r *objectstore.Reservation, err error) {
		if r != nil {
			r.Cancel()
		}
		over.Store(true)
		g.w.room.remove(w.Load())
		g.event(epoch, abi.EventSpace, 0)
	})
	wait := g.w.room.add(g, func() {
		if cancel() {
			g.fullFor.Store(epoch + 1)
			g.event(epoch, abi.EventSpace, 0)
		}
	})
	if w.Store(wait); over.Load() {
		g.w.room.remove(wait)
	}
	g.cancelSpace = func() bool {
		g.w.room.remove(wait)
		return cancel()
	}
}

func objectPut(g *guest, v view, s []uint64) abi.Errno {
	g.wantsRoom = false
	gv, e := v.valueAt(uint32(s[0]))
	if e != abi.Success {
		return e
	}
	out, ok := v.bytes(uint32(s[1]), 4)
	if !ok {
		return abi.EFAULT
	}
	val, e := g.storable(gv)
	if e != abi.Success {
		return e
	}
	g.steps(&val)
	o, err := g.w.store.TryPut(g.w.newID(), val)
	if err != nil {
		return g.storeErrno(err, val.Size())
	}
	return g.give(o, out)
}

// place makes a handle for r and takes over the caller's reference. A guest
// finds the handle's number in out afterwards; a client has written there which
// one it wants. On an error the reference stays the caller's.
func (g *guest) place(r objectstore.Ref, out []byte) error {
	if g.client != nil {
		return g.handles.Set(u32(out, 0), r)
	}
	h, err := g.handles.Add(r)
	if err == nil {
		putU32(out, 0, h)
	}
	return err
}

// give makes a handle for o, whose reference it takes over.
func (g *guest) give(o *objectstore.Object, out []byte) abi.Errno {
	if o.Origin() == 0 {
		o.SetOrigin(g.origin())
	}
	if err := g.place(o, out); err != nil {
		o.Release()
		return g.refuse(err, abi.ENOMEM)
	}
	return abi.Success
}

func objectGet(g *guest, v view, s []uint64) abi.Errno {
	h := uint32(s[0])
	info, ok := v.bytes(uint32(s[3]), abi.InfoSize)
	if !ok {
		return abi.EFAULT
	}
	buf, ok := v.bytes(uint32(s[1]), uint32(s[2]))
	if !ok {
		return abi.EFAULT
	}
	o, ok := g.handles.Object(h)
	if !ok {
		return abi.EBADF
	}
	kind := uint32(0)
	if s[4]&abi.FlagWatch != 0 {
		kind = abi.EventReady
		if e := g.mayWatch(1); e != abi.Success {
			return e
		}
	}
	if !o.Ready() {
		if kind != 0 {
			g.watchObject(o, h)
		}
		return abi.EAGAIN
	}
	// Who has no buffer and does not wait wants to know what it is, no more.
	if len(buf) > 0 || kind != 0 {
		if e := g.fetch(o, kind, h); e != abi.Success {
			return e
		}
	}
	i := o.Info()
	putInfo(info, &i)
	if i.Len > int64(len(buf)) {
		return abi.EOVERFLOW
	}
	p, err := o.View()
	if err != nil { // it was moved out in between
		return g.fetch(o, kind, h)
	}
	defer p.Close() // also where the guest is stopped in a step
	g.copyOut(buf, p.Bytes())
	g.letGo(o)
	return abi.Success
}

func objectRead(g *guest, v view, s []uint64) abi.Errno {
	buf, ok := v.bytes(uint32(s[2]), uint32(s[3]))
	if !ok {
		return abi.EFAULT
	}
	out, ok := v.bytes(uint32(s[4]), 4)
	if !ok {
		return abi.EFAULT
	}
	o, ok := g.handles.Object(uint32(s[0]))
	switch {
	case !ok:
		return abi.EBADF
	case !o.Ready():
		return abi.EAGAIN
	}
	p, err := o.View()
	if err != nil {
		return g.fetch(o, 0, 0)
	}
	defer p.Close()
	if err := o.Err(); err != nil && o.State() == objectstore.Sealed { // what is there is the error's
		return g.refuse(err, abi.EIO)
	}
	payload, off := p.Bytes(), int64(s[1])
	if off < 0 || off > int64(len(payload)) {
		return abi.EINVAL
	}
	n := min(len(buf), len(payload)-int(off))
	g.copyOut(buf, payload[off:][:n])
	putU32(out, 0, uint32(n))
	return abi.Success
}

func objectRefs(g *guest, v view, s []uint64) abi.Errno {
	o, ok := g.handles.Object(uint32(s[0]))
	if !ok {
		return abi.EBADF
	}
	if !o.Ready() {
		return abi.EAGAIN
	}
	refs := o.Refs()
	if len(refs) > int(uint32(s[2])) {
		return abi.EOVERFLOW
	}
	out, ok := v.array(uint32(s[1]), uint32(len(refs)), 4)
	if !ok {
		return abi.EFAULT
	}
	if g.client == nil && g.handles.Room() < len(refs) {
		return g.giveAll(refs, out) // which says what there is no room for
	}
	// A guest that is stopped in between has its handles, and loses them as all
	// others.
	for len(refs) > stepHandles {
		if e := g.giveAll(refs[:stepHandles], out); e != abi.Success {
			return e
		}
		refs, out = refs[stepHandles:], out[4*stepHandles:]
		g.looked(stepHandles)
		g.step()
	}
	g.looked(len(refs))
	return g.giveAll(refs, out)
}

// giveAll makes a handle for each of refs, retaining them, or for none.
func (g *guest) giveAll(refs []*objectstore.Object, out []byte) abi.Errno {
	if g.client == nil {
		if err := g.handles.AddAll(refs, func(i int, h uint32) { putU32(out, 4*i, h) }); err != nil {
			return g.refuse(err, abi.ENOMEM)
		}
		return abi.Success
	}
	for i, r := range refs {
		r.Retain()
		if err := g.place(r, out[4*i:]); err != nil {
			r.Release()
			for j := range i {
				g.handles.Drop(u32(out, 4*j))
			}
			return g.refuse(err, abi.ENOMEM)
		}
	}
	return abi.Success
}

func objectWatch(g *guest, v view, s []uint64) abi.Errno {
	hs, ok := v.array(uint32(s[0]), uint32(s[1]), 4)
	if !ok {
		return abi.EFAULT
	}
	for i := 0; i < len(hs); i += 4 {
		if _, ok := g.handles.Object(u32(hs, i)); !ok {
			return abi.EBADF
		}
		g.looked(1)
		g.pause()
	}
	if e := g.mayWatch(len(hs) / 4); e != abi.Success {
		return e
	}
	for i := 0; i < len(hs); i += 4 {
		h := u32(hs, i)
		o, _ := g.handles.Object(h)
		g.watchObject(o, h)
		if g.looked(2); i%(4*stepHandles) == 4*(stepHandles-1) {
			g.step()
		}
	}
	return abi.Success
}

// maxWait bounds the handles of one object_wait.
const maxWait = 1 << 16

func objectWait(g *guest, v view, s []uint64) abi.Errno {
	n, least, timeout := uint32(s[1]), uint32(s[2]), int64(s[3])
	hs, ok := v.array(uint32(s[0]), n, 4)
	if !ok {
		return abi.EFAULT
	}
	ready, ok := v.bytes(uint32(s[4]), n)
	if !ok {
		return abi.EFAULT
	}
	if n > maxWait || least > n {
		return abi.EINVAL
	}
	objects := make([]*objectstore.Object, n)
	for i := range objects {
		if objects[i], ok = g.handles.Object(u32(hs, 4*i)); !ok {
			return abi.EBADF
		}
		g.looked(2) // and counted
		g.pause()
	}
	count := func() uint32 {
		var c uint32
		for i, o := range objects {
			ready[i] = 0
			if o.Ready() {
				ready[i] = 1
				c++
			}
		}
		return c
	}
	have := count()
	if have >= least || timeout == 0 {
		return abi.Success
	}
	var watches []*objectstore.Watch
	var came atomic.Uint32 // of those that were not there; each counts once
	came.Store(have)
	defer func() {
		for _, w := range watches {
			if w.Cancel() {
				g.unexpect(g.out.epoch) // only this goroutine changes it
			}
		}
	}()
	for i, o := range objects {
		g.looked(4) // and withdrawn
		g.pause()
		if ready[i] == 0 {
			epoch := g.expect()
			watches = append(watches, o.Watch(objectstore.WatcherFunc(func(*objectstore.Object) {
				if came.Add(1); g.unexpect(epoch) {
					g.sb.Signal()
				}
			})))
		}
	}
	g.sb.Block(time.Duration(timeout), func() bool { return came.Load() >= least })
	count()
	return abi.Success
}

func handleDup(g *guest, v view, s []uint64) abi.Errno {
	out, ok := v.bytes(uint32(s[1]), 4)
	if !ok {
		return abi.EFAULT
	}
	h, ok, err := g.handles.Dup(uint32(s[0]))
	switch {
	case !ok:
		return abi.EBADF
	case err != nil:
		return g.refuse(err, abi.ENOMEM)
	}
	putU32(out, 0, h)
	return abi.Success
}

func handleDrop(g *guest, v view, s []uint64) abi.Errno {
	hs, ok := v.array(uint32(s[0]), uint32(s[1]), 4)
	if !ok {
		return abi.EFAULT
	}
	e := abi.Success
	var numbers [objectstore.Ahead]uint32
	var refs [objectstore.Ahead]objectstore.Ref
	for since := 0; len(hs) > 0; {
		n := min(len(hs)/4, len(numbers))
		for i := range n {
			numbers[i] = u32(hs, 4*i)
		}
		hs = hs[4*n:]
		taken := g.handles.TakeAll(numbers[:n], refs[:0])
		if len(taken) < n {
			e = abi.EBADF // the others are dropped all the same
		}
		g.letGoOf(taken)
		for _, r := range taken {
			r.Release()
		}
		g.looked(n)
		if since += n; since >= stepHandles {
			since = 0
			g.step()
		}
	}
	return e
}
