package worker

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/objectstore"
	"github.com/wray-project/wray/scheduler"
	"github.com/wray-project/wray/wasm/abi"
)

// defaultRetries is how often a task is tried again after a system failure.
const defaultRetries = 3

func submitTasks(g *guest, v view, s []uint64) abi.Errno {
	g.wantsSpace, g.wantsRoom = false, false
	n := uint32(s[1])
	if n > maxSubmit {
		return g.tooMany("tasks", n, maxSubmit)
	}
	specs, ok := v.array(uint32(s[0]), n, abi.SpecSize)
	if !ok {
		return abi.EFAULT
	}
	done, ok := v.bytes(uint32(s[2]), 4)
	if !ok {
		return abi.EFAULT
	}
	for i := range n {
		putU32(done, 0, i)
		if e := g.submitOne(v, specs[i*abi.SpecSize:(i+1)*abi.SpecSize]); e != abi.Success {
			return e
		}
		g.work += perTask
		putU32(done, 0, i+1)
		g.pause()
	}
	putU32(done, 0, n)
	return abi.Success
}

// submitOne submits the task that a struct task_spec describes. Either the task
// is taken and the guest has handles for its results, or nothing is kept.
func (g *guest) submitOne(v view, b []byte) abi.Errno {
	flags := u32(b, abi.SpecFlags)
	if flags&^knownFlags != 0 {
		return abi.EINVAL
	}
	if flags&abi.SpecGroup != 0 {
		return g.makeGroup(v, b)
	}
	f := g.job.function(u32(b, abi.SpecFn))
	if flags&abi.SpecCheckpoint != 0 {
		// It runs none: the constructor's stands for it.
		if a := g.actorOf(u32(b, abi.SpecActorRef)); a != nil {
			f = a.create.fn
		} else if g.farActorOf(u32(b, abi.SpecActorRef)) != nil {
			f = &function{module: g.module} // the home knows the constructor
		}
	}
	if f == nil {
		return abi.ENOENT
	}
	name, e := v.str(u32(b, abi.SpecNamePtr), u32(b, abi.SpecNameLen))
	if e != abi.Success {
		return e
	}
	if name == "" {
		name = f.name
	}
	t := &task{
		id: g.w.newID(), job: g.job, fn: f, name: name, flags: flags,
		resources: wray.Resources{CPU: wray.OneCPU},
		timeout:   time.Duration(u64(b, abi.SpecTimeout)),
		memory:    int64(u64(b, abi.SpecMemory)),
	}
	if t.timeout < 0 || t.memory < 0 {
		return abi.EINVAL
	}
	if t.memory > maxMemory {
		return g.refuse(&wray.Error{
			Code: wray.CodeLimitExceeded, Message: fmt.Sprintf("the task asks for %d bytes of memory, more than a sandbox can have", t.memory),
			Limit: &wray.Limit{Name: "memory of a WebAssembly module", Value: maxMemory, Unit: "bytes"},
			Hint:  "ask for less: data beyond it goes into several tasks, or stays in objects that are read in parts",
		}, abi.E2BIG)
	}
	if flags&abi.SpecHasCPU != 0 {
		t.resources.CPU = wray.CPU(u32(b, abi.SpecCPU))
	}
	if e := g.readActor(b, t); e != abi.Success {
		return e
	}
	t.resources.Memory = t.memory
	if f.command {
		t.flags |= abi.SpecFresh
	}
	spec := scheduler.Spec{ID: t.id, Job: g.job.id, Name: name, Resources: t.resources,
		Retries: defaultRetries, Timeout: int64(t.timeout)}
	if flags&abi.SpecHasRetries != 0 {
		spec.Retries = max(int(int32(u32(b, abi.SpecRetries))), scheduler.Forever)
	} else if t.makes != nil {
		spec.Retries = 0
		if t.makes.durable {
			spec.Retries = scheduler.Forever // what it is, is not lost
		}
	}
	t.restarts = spec.Retries
	farCall := t.far != nil && t.far.call != nil
	if e := g.readWants(v, b, t, &spec); e != abi.Success {
		return e
	}
	if g.holder != nil {
		spec.Parent, spec.ParentAttempt = g.holder.id, g.holder.attempt
	}
	if t.makes != nil {
		spec.Parent, spec.ParentAttempt = wray.ID{}, 0 // it outlives its maker
	}
	if p, n := u32(b, abi.SpecRetryOnPtr), u32(b, abi.SpecRetryOnLen); n > 0 {
		list, e := v.str(p, n)
		if e != abi.Success {
			return e
		}
		t.retryOn = strings.Split(strings.TrimSuffix(list, "\x00"), "\x00")
	}
	if e := g.readArgs(v, t, u32(b, abi.SpecArgsPtr), u32(b, abi.SpecNargs)); e != abi.Success {
		return e
	}
	var err error
	if t.key, e = g.readKey(v, b, t); e != abi.Success {
		t.release()
		return e
	}
	if e := g.readGroup(v, b, t, &spec); e != abi.Success {
		t.release()
		return e
	}
	nresults := u32(b, abi.SpecNresults)
	g.looked(int(min(nresults, maxResults)))
	out, ok := v.array(u32(b, abi.SpecResultsPtr), nresults, 4)
	switch {
	case nresults > maxResults:
		t.release()
		return g.tooMany("results", nresults, maxResults)
	case !ok:
		t.release()
		return abi.EFAULT
	}
	if flags&abi.SpecStream != 0 {
		if nresults != 1 {
			t.release()
			return abi.EINVAL
		}
		t.stream = objectstore.NewStream(t.id, int(u32(b, abi.SpecWindow)), func() { g.w.cancelTask(t.id) })
	}
	if t.makes != nil {
		t.makes.custom = spec.Custom
	}
	if g.durable != nil && t.makes == nil && t.stream == nil {
		return g.durable.submit(t, &spec, out)
	}
	if t.key != "" {
		if t.digest, err = g.digestOf(t); err != nil {
			t.release()
			return g.refuse(err, abi.EIO)
		}
	}
	if t.makes != nil {
		if g.job.mirror != nil {
			return g.makeAtHome(t, &spec, out)
		}
		if e := g.reserveName(t, out); e != abi.EAGAIN {
			return e
		}
	}
	if e := g.declareResults(t, out); e != abi.Success {
		return e
	}
	if t.actor != nil || farCall {
		return g.callActor(t, out)
	}
	spec.Bytes = t.bytes()
	if g.w.peers != nil {
		spec.Place = g.job.placeOf(t) // its arguments are known now
		var root *task
		if h := g.holder; h != nil && h.far != nil {
			root = h.far.root // none where an actor submits, which cannot go home
		}
		if root != nil || len(spec.Custom) > 0 {
			t.far = &far{custom: spec.Custom, root: root}
		}
	}
	ids := g.ids[:0]
	for _, o := range t.results {
		ids = append(ids, o.ID())
	}
	spec.Results = ids
	if len(ids) <= idStep/16 {
		g.ids = ids
	}
	if err = g.w.submit(g, t, &spec); err != nil {
		return g.notTaken(t, out, err)
	}
	return abi.Success
}

// notTaken answers the submission of t, which ended with err. EAGAIN: there is
// no room now. Otherwise the task is refused for good, and its results say why,
// as those of one that ran and failed would.
func (g *guest) notTaken(t *task, out []byte, err error) abi.Errno {
	if errors.Is(err, scheduler.ErrQueueFull) {
		g.undoResults(t, out)
		g.awaitQueue()
		return abi.EAGAIN
	}
	typed := g.job.named(err, t.name, 0) // which makes a typed error of any
	if a := t.makes; a != nil {
		a.ended(typed) // else its calls wait for ever
	}
	t.fail(typed)
	t.release()
	return abi.Success
}

// maxResults bounds the results of one task.
const maxResults = idStep - 1

// maxInlineArgs bounds the bytes of small values that are copied into a task,
// which nobody counts before the task is queued: arguments may all point at the
// same bytes. What is more goes into the store, which counts first.
const maxInlineArgs = 1 << 20

// readArgs copies the arguments: small values into the task, large ones into
// the store, references as they are. On an errno, and where the guest is stopped
// meanwhile, the task has been released.
func (g *guest) readArgs(v view, t *task, p, n uint32) abi.Errno {
	read := false
	defer func() {
		if !read {
			t.release()
		}
	}()
	e := g.readAllArgs(v, t, p, n)
	read = e == abi.Success
	return e
}

func (g *guest) readAllArgs(v view, t *task, p, n uint32) abi.Errno {
	if n == 0 {
		return abi.Success
	}
	if n > maxArgs {
		return g.tooMany("arguments", n, maxArgs)
	}
	b, ok := v.array(p, n, abi.ArgSize)
	if !ok {
		return abi.EFAULT
	}
	t.args = make([]arg, 0, n)
	inline := 0
	for ; len(b) > 0; b = b[abi.ArgSize:] {
		g.looked(1)
		g.pause()
		switch u32(b, abi.ArgKind) {
		case abi.ArgKindHandle:
			o, ok := g.handles.Object(u32(b, abi.ArgHandle))
			if !ok {
				return abi.EBADF
			}
			o.Retain()
			t.args = append(t.args, arg{object: o})
		case abi.ArgKindValue:
			gv, e := v.value(b[abi.ArgValue:abi.ArgSize])
			if e != abi.Success {
				return e
			}
			if len(gv.payload) < inlineArg && len(gv.refs) == 0 && inline+len(gv.payload) <= maxInlineArgs {
				inline += len(gv.payload)
				g.copied(len(gv.payload))
				t.args = append(t.args, arg{encoding: gv.encoding, meta: gv.meta, payload: append([]byte(nil), gv.payload...)})
				continue
			}
			val, e := g.storable(gv)
			if e != abi.Success {
				return e
			}
			g.wantsRoom = false
			g.steps(&val)
			o, err := g.w.store.TryPut(g.w.newID(), val)
			if err != nil {
				return g.storeErrno(err, val.Size())
			}
			t.args = append(t.args, arg{object: o})
		default:
			return abi.EINVAL
		}
	}
	return abi.Success
}

// declareResults makes the task's results and gives the guest handles. On an
// errno the task has been released.
func (g *guest) declareResults(t *task, out []byte) abi.Errno {
	if t.stream != nil {
		if err := g.place(t.stream, out); err != nil {
			t.stream.Release()
			t.release()
			return g.refuse(err, abi.ENOMEM)
		}
		return abi.Success
	}
	t.results = t.one[:0]
	for i := 0; i < len(out)/4; i++ {
		o, err := g.w.declare(t, i)
		if err == nil {
			t.results = append(t.results, o)
			o.Retain()
			if err = g.place(o, out[4*i:]); err == nil {
				continue
			}
			o.Release()
		}
		for j := range i {
			g.handles.Drop(u32(out, 4*j))
		}
		t.release()
		return g.refuse(err, abi.ENOMEM)
	}
	return abi.Success
}

// undoResults takes back what declareResults gave, for a task that was not
// taken.
func (g *guest) undoResults(t *task, out []byte) {
	if t.stream != nil {
		_ = t.stream.End() // nobody makes it: dropping it cancels nothing
		t.stream = nil
	}
	for i := 0; i < len(out); i += 4 {
		g.handles.Drop(u32(out, i))
	}
	t.release()
}

// awaitQueue sends SPACE when the job's queue has room, once for all refusals
// until then: a guest may try again and again, and not wait.
func (g *guest) awaitQueue() {
	g.wantsSpace = true
	j := g.job
	j.mu.Lock()
	defer j.mu.Unlock()
	if g.queuedIn == g.epoch()+1 {
		return
	}
	epoch := g.expect()
	g.queuedIn = epoch + 1
	j.waiting = append(j.waiting, queued{g, epoch})
}

func cancelTask(g *guest, _ view, s []uint64) abi.Errno {
	h := uint32(s[0])
	if o, ok := g.handles.Object(h); ok {
		if id := makerOf(o.ID()); id.Owner != g.w.owner && g.w.peers != nil {
			g.w.peers.cancel(o.ID())
		} else if !id.IsZero() {
			g.w.cancelTask(id)
		}
		return abi.Success
	}
	if st, ok := g.handles.Stream(h); ok {
		g.w.cancelTask(st.Task())
		return abi.Success
	}
	return abi.EBADF
}

func taskInput(g *guest, v view, s []uint64) abi.Errno {
	t := g.task
	if t != nil && t.call.lost {
		return abi.ECANCELED // it is over already
	}
	if t == nil {
		return abi.ENOENT
	}
	outLen, ok := v.bytes(uint32(s[2]), 4)
	if !ok {
		return abi.EFAULT
	}
	head := abi.CallSize + abi.CallArgSize*len(t.args) + len(t.name)
	buf, ok := v.bytes(uint32(s[0]), uint32(s[1]))
	if !ok {
		return abi.EFAULT
	}
	putU32(outLen, 0, uint32(head))
	g.between.at = uint32(s[2])
	if len(buf) < head {
		return abi.EOVERFLOW
	}
	clear(buf[:head])
	g.looked(len(t.args))
	putU32(buf, abi.CallIndex, t.fn.index)
	putU32(buf, abi.CallNargs, uint32(len(t.args)))
	putU32(buf, abi.CallNresults, uint32(len(t.results)))
	if t.stream != nil {
		putU32(buf, abi.CallFlags, abi.CallStream)
		putU32(buf, abi.CallNresults, 1)
		putU64(buf, abi.CallItemsDone, t.stream.ItemsDone())
		t.items = t.stream.ItemsDone()
	}
	if t.makes != nil || t.actor != nil {
		putU32(buf, abi.CallFlags, u32(buf, abi.CallFlags)|abi.CallActor)
	}
	id, attempt := t.shown()
	putU32(buf, abi.CallAttempt, uint32(attempt))
	putU32(buf, abi.CallNameLen, uint32(len(t.name)))
	putU64(buf, abi.CallTimeout, uint64(t.timeout))
	putU64(buf, abi.CallTaskOwner, id.Owner)
	putU64(buf, abi.CallTaskSeq, id.Seq)
	at := abi.CallSize + abi.CallArgSize*len(t.args)
	copy(buf[at:], t.name)
	at = align8(at + len(t.name))
	for i := range t.args {
		g.pause()
		a := &t.args[i]
		d := buf[abi.CallSize+i*abi.CallArgSize:]
		payload, encoding, meta := a.payload, a.encoding, a.meta
		n := int64(len(payload))
		if o := a.object; o != nil {
			info := o.Info()
			n, encoding, meta = info.Len, info.Encoding, info.Meta
			if n < inlineArg { // never on disk
				payload = o.Bytes()
				n = int64(len(payload))
			}
			putU32(d, abi.CallArgNrefs, uint32(info.Refs))
			if n >= inlineArg || info.Refs > 0 {
				o.Retain()
				h, err := g.handles.Add(o)
				if err != nil {
					o.Release()
					g.dropInput(buf, i)
					return g.refuse(err, abi.ENOMEM)
				}
				putU32(d, abi.CallArgHandle, h)
			}
		}
		putU32(d, abi.CallArgEncoding, uint32(encoding))
		putU32(d, abi.CallArgMeta, meta)
		putU64(d, abi.CallArgLen, uint64(n))
		switch {
		case n < inlineArg && at+len(payload) <= len(buf):
			putU32(d, abi.CallArgOffset, uint32(at))
			g.copied(copy(buf[at:], payload))
			at = align8(at + len(payload))
		case u32(d, abi.CallArgHandle) == 0:
			// It has no handle and does not fit: the guest comes again with room
			// for everything.
			g.dropInput(buf, i)
			putU32(outLen, 0, uint32(t.inputLen()))
			return abi.EOVERFLOW
		default:
			putU32(d, abi.CallArgOffset, abi.NoOffset)
		}
	}
	putU32(outLen, 0, uint32(min(at, len(buf))))
	return abi.Success
}

// dropInput drops the handles that taskInput made for the first n arguments.
func (g *guest) dropInput(buf []byte, n int) {
	for i := range n {
		if h := u32(buf, abi.CallSize+i*abi.CallArgSize+abi.CallArgHandle); h != 0 {
			g.handles.Drop(h)
		}
	}
}

// inputLen returns the bytes that taskInput needs for everything.
func (t *task) inputLen() int {
	n := align8(abi.CallSize + abi.CallArgSize*len(t.args) + len(t.name))
	for i := range t.args {
		if l := t.args[i].len(); l < inlineArg {
			n = align8(n + int(l))
		}
	}
	return n
}

func align8(n int) int { return (n + 7) &^ 7 }

func taskReturn(g *guest, v view, s []uint64) abi.Errno {
	g.wantsRoom, g.between = false, between{} // who gives a result has begun
	t := g.task
	if t == nil || t.stream != nil {
		return abi.EPERM
	}
	if t.makes != nil && len(t.results) == 0 && uint32(s[0]) == 0 {
		return abi.Success // an actor that starts again
	}
	if uint32(s[0]) >= uint32(len(t.results)) {
		return abi.EINVAL
	}
	result := t.results[uint32(s[0])]
	if t.actor != nil && t.actor.holds() || t.makes != nil && t.makes.durable {
		return g.holdResult(v, int(uint32(s[0])), uint32(s[1]))
	}
	if o, e := g.valueOf(v, uint32(s[1])); o != nil || e != abi.Success {
		if e == abi.Success {
			err := result.SealAs(o)
			if errors.Is(err, objectstore.ErrSpilled) {
				return g.fetch(o, abi.EventSpace, 0)
			}
			g.letGo(o)
			e = g.resultErrno(err, objectstore.Size{Refs: o.Info().Refs})
		}
		return e
	}
	val, e := g.resultAt(v, uint32(s[1]))
	if e != abi.Success {
		return e
	}
	g.steps(&val)
	return g.resultErrno(result.TrySeal(val), val.Size())
}

// resultAt returns the struct value at p, which has a payload of its own, as a
// task's result.
func (g *guest) resultAt(v view, p uint32) (objectstore.Value, abi.Errno) {
	gv, e := v.valueAt(p)
	if e != abi.Success {
		return objectstore.Value{}, e
	}
	if gv.encoding == abi.EncodingError {
		return objectstore.Value{}, abi.EINVAL // that is what task_fail is for
	}
	return g.storable(gv)
}

// resultErrno tells how sealing a result went. One that was given stays given,
// even when the attempt then fails.
func (g *guest) resultErrno(err error, size objectstore.Size) abi.Errno {
	if errors.Is(err, objectstore.ErrSealed) {
		return abi.Success // by an earlier attempt
	}
	return g.storeErrno(err, size)
}

// valueOf returns the object whose value the struct value at p stands for. It
// returns nil and Success where that has a payload of its own.
func (g *guest) valueOf(v view, p uint32) (*objectstore.Object, abi.Errno) {
	b, ok := v.bytes(p, abi.ValueSize)
	if !ok {
		return nil, abi.EFAULT
	}
	if abi.Encoding(u32(b, abi.ValueEncoding)) != abi.EncodingObject {
		return nil, abi.Success
	}
	o, ok := g.handles.Object(u32(b, abi.ValuePtr))
	switch {
	case !ok:
		return nil, abi.EBADF
	case !o.Ready() || o.State() == objectstore.Failed || u32(b, abi.ValueMeta)|u32(b, abi.ValueLen)|u32(b, abi.ValueRefsLen) != 0:
		return nil, abi.EINVAL
	}
	return o, abi.Success
}

func taskFail(g *guest, v view, s []uint64) abi.Errno {
	g.between = between{}
	t := g.task
	if t == nil {
		return abi.EPERM
	}
	gv, e := v.valueAt(uint32(s[0]))
	if e != abi.Success {
		return e
	}
	if gv.encoding != abi.EncodingError {
		return abi.EINVAL
	}
	if n := len(gv.payload); n > abi.MaxFailure {
		t.failure = &wray.Error{Code: wray.CodeUserError, Message: fmt.Sprintf("the task failed with an error of %d bytes, of which nothing is read as it has more than %d", n, abi.MaxFailure),
			Hint: "have it say less, and print the rest"}
		return abi.Success
	}
	g.copied(10 * len(gv.payload)) // decoding takes longer
	err := objectstore.DecodeFailure(gv.payload)
	switch err.Code {
	case wray.CodeUserError, wray.CodePanic, wray.CodeBadArgument, wray.CodeDeadlock, wray.CodeCanceled,
		wray.CodeTimeout, wray.CodeDependencyFailed, wray.CodeUnknownFunction, wray.CodeStoreFull, wray.CodeOutOfMemory:
	default:
		// A guest does not speak for the platform.
		err.Code = wray.CodeUserError
	}
	t.failure = err
	return abi.Success
}

// maxMemory is where the addresses of a wasm32 module end.
const maxMemory = 4 << 30

func taskYield(g *guest, v view, s []uint64) abi.Errno {
	g.wantsRoom, g.between = false, between{}
	t := g.task
	if t == nil || t.stream == nil {
		return abi.EPERM
	}
	o, e := g.valueOf(v, uint32(s[0]))
	if e != abi.Success {
		return e
	}
	var err error
	var size objectstore.Size
	if o != nil {
		o.Retain()
		if err = t.stream.Append(t.items, o); err != nil {
			o.Release()
		}
	} else {
		gv, e := v.valueAt(uint32(s[0]))
		if e != abi.Success {
			return e
		}
		val, e := g.storable(gv)
		if e != abi.Success {
			return e
		}
		size = val.Size()
		g.steps(&val)
		err = g.w.store.PutItem(t.stream, g.w.newID(), t.items, val)
	}
	switch {
	case err == nil:
		t.items++
		return abi.Success
	case errors.Is(err, objectstore.ErrDropped):
		return abi.ECANCELED
	case errors.Is(err, objectstore.ErrEnded):
		return abi.EPERM
	case errors.Is(err, objectstore.ErrWindow):
		g.wantsRoom = true
		epoch := g.expect()
		t.stream.OnRoom(func() { g.event(epoch, abi.EventRoom, 0) })
		return abi.EAGAIN
	}
	return g.storeErrno(err, size)
}

func streamNext(g *guest, v view, s []uint64) abi.Errno {
	out, ok := v.bytes(uint32(s[1]), 4)
	if !ok {
		return abi.EFAULT
	}
	h := uint32(s[0])
	st, ok := g.handles.Stream(h)
	if !ok {
		return abi.EBADF
	}
	o, err := st.Next()
	switch {
	case err == nil:
		return g.give(o, out)
	case errors.Is(err, objectstore.ErrNotReady):
		if s[2]&abi.FlagWatch == 0 {
			return abi.EAGAIN
		}
		if e := g.mayWatch(1); e != abi.Success {
			return e
		}
		if g.watchStream(st) {
			epoch := g.expect()
			st.Watch(streamWatcher(func() {
				g.unwatchStream(st)
				g.event(epoch, abi.EventReady, h)
			}))
		}
		return abi.EAGAIN
	}
	putU32(out, 0, 0)
	return abi.Success
}
