package worker

import (
	"errors"
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
				stack[0] = uint64(f(sb.Host.(*guest), mem, stack))
			},
		})
	}
	const (
		always, tasks, objects = "always", "tasks", "objects"
		none                   = wasi.NoPayload
	)
	cheap := wasi.Cost{Base: 100}
	object := wasi.Cost{Base: 300, PerKiB: 100}
	task := wasi.Cost{Base: 2_000, PerKiB: 100}
	mapping := wasi.Cost{Base: 3_000}

	add("version", "", always, none, cheap, false, func(*guest, view, []uint64) abi.Errno { return abi.Version })
	add("declare", "iiii", tasks, maxName, cheap, false, declare)
	add("function", "iiiii", tasks, 2*maxName, cheap, false, lookupFunction)
	add("submit", "iii", tasks, maxSubmit, task, false, submitTasks)
	add("cancel", "i", tasks, none, task, false, cancelTask)
	add("task_input", "iii", tasks, maxInput, object, false, taskInput)
	add("task_return", "ii", tasks, maxValue, object, false, taskReturn)
	add("task_fail", "i", tasks, maxValue, object, false, taskFail)
	add("task_yield", "i", tasks, maxValue, object, false, taskYield)
	add("object_put", "ii", objects, maxValue, object, false, objectPut)
	add("object_get", "iiiii", objects, maxValue, object, false, objectGet)
	add("object_refs", "iii", objects, maxValue, object, false, objectRefs)
	add("object_watch", "ii", objects, maxValue, object, false, objectWatch)
	add("object_wait", "iiiIi", objects, maxValue, object, true, objectWait)
	add("object_map", "iiiI", objects, none, mapping, false, objectMap)
	add("object_unmap", "ii", objects, none, mapping, false, objectUnmap)
	add("handle_dup", "ii", objects, none, cheap, false, handleDup)
	add("handle_drop", "ii", objects, maxValue, cheap, false, handleDrop)
	add("stream_next", "iii", objects, none, object, false, streamNext)
	add("event_open", "i", always, none, cheap, false, eventOpen)
	return m
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
	if len(b)/4 > objectstore.MaxRefs {
		return nil, abi.E2BIG
	}
	refs := make([]*objectstore.Object, len(b)/4)
	for i := range refs {
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
	return objectstore.Value{Encoding: gv.encoding, Meta: gv.meta, Payload: gv.payload, Refs: refs}, e
}

// storeErrno tells a guest how a put went. Where there is no room now, an event
// SPACE follows when there is.
func (g *guest) storeErrno(err error, size objectstore.Size) abi.Errno {
	switch {
	case err == nil:
		return abi.Success
	case errors.Is(err, objectstore.ErrFull):
		g.awaitSpace(size)
		return abi.EAGAIN
	case errors.Is(err, objectstore.ErrSealed):
		return abi.EEXIST
	}
	var e *wray.Error
	if errors.As(err, &e) {
		switch e.Code {
		case wray.CodeStoreFull:
			return abi.ENOSPC
		case wray.CodeBadArgument:
			return abi.EINVAL
		case wray.CodeLimitExceeded:
			return abi.E2BIG
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
	g.wantsRoom = true
	epoch := g.expect()
	cancel := g.w.store.OnSpace(size, func(r *objectstore.Reservation, err error) {
		if r != nil {
			r.Cancel()
		}
		g.event(epoch, abi.EventSpace, 0)
	})
	g.cancelSpace = cancel
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
	o, err := g.w.store.TryPut(g.w.newID(), val)
	if err != nil {
		return g.storeErrno(err, val.Size())
	}
	return g.give(o, out)
}

// give makes a handle for o, whose reference it takes over.
func (g *guest) give(o *objectstore.Object, out []byte) abi.Errno {
	h, err := g.handles.Add(o)
	if err != nil {
		o.Release()
		return abi.ENOMEM
	}
	putU32(out, 0, h)
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
	if !o.Ready() {
		if s[4]&abi.FlagWatch != 0 {
			g.watchObject(o, h)
		}
		return abi.EAGAIN
	}
	i := o.Info()
	putU32(info, abi.InfoEncoding, uint32(i.Encoding))
	putU32(info, abi.InfoMeta, i.Meta)
	putU64(info, abi.InfoLen, uint64(i.Len))
	putU32(info, abi.InfoNrefs, uint32(i.Refs))
	flags := uint32(0)
	if i.Mappable {
		flags = abi.InfoMappable
	}
	putU32(info, abi.InfoFlags, flags)
	putU64(info, abi.InfoFlags+4, 0)
	if i.Len > int64(len(buf)) {
		return abi.EOVERFLOW
	}
	copy(buf, o.Bytes())
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
	return g.giveAll(refs, out)
}

// giveAll makes a handle for each of refs, retaining them, or for none.
func (g *guest) giveAll(refs []*objectstore.Object, out []byte) abi.Errno {
	for i, r := range refs {
		r.Retain()
		h, err := g.handles.Add(r)
		if err != nil {
			r.Release()
			for j := range i {
				g.handles.Drop(u32(out, 4*j))
			}
			return abi.ENOMEM
		}
		putU32(out, 4*i, h)
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
	}
	for i := 0; i < len(hs); i += 4 {
		h := u32(hs, i)
		o, _ := g.handles.Object(h)
		g.watchObject(o, h)
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
	if count() >= least || timeout == 0 {
		return abi.Success
	}
	var watches []*objectstore.Watch
	for _, o := range objects {
		if !o.Ready() {
			epoch := g.expect()
			watches = append(watches, o.Watch(objectstore.WatcherFunc(func(*objectstore.Object) {
				if g.unexpect(epoch) {
					g.sb.Signal()
				}
			})))
		}
	}
	defer func() {
		for _, w := range watches {
			if w.Cancel() {
				g.unexpect(g.out.epoch) // only this goroutine changes it
			}
		}
	}()
	g.sb.Block(time.Duration(timeout), func() bool { return count() >= least })
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
		return abi.ENOMEM
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
	for i := 0; i < len(hs); i += 4 {
		if !g.handles.Drop(u32(hs, i)) {
			e = abi.EBADF // the others are dropped all the same
		}
	}
	return e
}
