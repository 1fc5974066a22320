package worker

import (
	"fmt"
	"time"
	"unicode/utf8"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/objectstore"
	"github.com/wray-project/wray/scheduler"
	"github.com/wray-project/wray/wasm/abi"
)

const (
	actorFlags = abi.SpecActor | abi.SpecNamed | abi.SpecGetIfExists | abi.SpecDetached | abi.SpecDurable
	knownFlags = abi.SpecGroup | abi.SpecInGroup | abi.SpecCapture | abi.SpecCheckpoint | abi.SpecFresh | abi.SpecStream | abi.SpecRetryErrors | abi.SpecHasCPU | abi.SpecHasRetries | actorFlags
)

// actorOf returns the actor that a handle stands for, or nil.
func (g *guest) actorOf(h uint32) *actor {
	o, ok := g.handles.Object(h)
	if !ok {
		return nil
	}
	a, _ := o.Attachment().(*actor)
	return a
}

// readActor reads what a struct task_spec says of actors: whether t creates
// one, or is a call of one.
func (g *guest) readActor(b []byte, t *task) abi.Errno {
	h := u32(b, abi.SpecActorRef)
	if t.flags&abi.SpecInGroup != 0 {
		h = 0 // it is the group's: see readGroup
	}
	switch {
	case t.flags&abi.SpecActor != 0:
		if h != 0 || t.flags&(abi.SpecStream|abi.SpecFresh|abi.SpecCheckpoint) != 0 || t.fn.command || u32(b, abi.SpecNresults) != 1 {
			return abi.EINVAL
		}
		g.work += perActor
		t.makes = newActor(t)
		t.makes.tries = int(int32(u32(b, abi.SpecCallTries)))
		if n := u32(b, abi.SpecMaxPending); n > 0 {
			t.makes.maxPending = int(min(n, 1<<30))
		}
		n := u32(b, abi.SpecConcurrency)
		if n > maxConcurrency {
			return g.tooMany("calls at once", n, maxConcurrency)
		}
		t.makes.box.Width = int(n)
		if d := u64(b, abi.SpecIdle); d > 0 {
			t.makes.idle = time.Duration(min(d, uint64(100*365*24*time.Hour)))
		}
		t.makes.dur.calls = u32(b, abi.SpecCheckpointCalls)
		t.makes.dur.every = time.Duration(min(u64(b, abi.SpecCheckpointEvery), uint64(100*365*24*time.Hour)))
		if t.flags&abi.SpecDurable != 0 {
			if g.job.mirror != nil {
				return g.notHere("a durable actor was made")
			}
			if e := g.readDurable(t); e != abi.Success {
				return e
			}
		}
		if t.flags&abi.SpecHasCPU == 0 {
			t.resources.CPU = 0 // it holds none between calls, where it mostly is
		}
	case h != 0:
		if t.flags&abi.SpecCheckpoint != 0 && (u32(b, abi.SpecNresults) != 1 || u32(b, abi.SpecNargs) != 0 || t.flags&abi.SpecStream != 0) {
			return abi.EINVAL
		}
		a := g.actorOf(h)
		if a == nil {
			if o := g.farActorOf(h); o != nil {
				return g.readFarCall(t, o)
			}
			return abi.EBADF
		}
		if a.durable {
			if e := g.mayCallDurable(t); e != abi.Success {
				return e
			}
		}
		if a.create.fn.module != t.fn.module || t.flags&actorFlags != 0 || t.fn.command {
			return abi.EINVAL
		}
		t.actor, t.tries = a, a.tries
		t.letter = &scheduler.Letter[*task]{Value: t}
		if g.holder != nil {
			t.from = g.holder.id.Seq
		}
	case t.flags&(actorFlags|abi.SpecCheckpoint) != 0:
		return abi.EINVAL
	}
	return abi.Success
}

// declare makes result i of t.
func (w *Worker) declare(t *task, i int) (*objectstore.Object, error) {
	var a objectstore.Attachment
	if t.makes != nil {
		a = t.makes
	}
	o, err := w.store.DeclareFor(resultID(t.id, i), a)
	if err == nil {
		o.SetOrigin(t.job.id.Seq)
	}
	return o, err
}

// reserveName gives the actor that t makes its name. EAGAIN: the actor is to be
// made. Otherwise t has been released.
func (g *guest) reserveName(t *task, out []byte) abi.Errno {
	if t.flags&abi.SpecNamed == 0 {
		return abi.EAGAIN
	}
	j := g.job
	if t.makes.durable {
		j.opening.Lock()
		defer j.opening.Unlock()
	}
	have := j.takeName(t)
	if have == nil {
		return abi.EAGAIN
	}
	if t.flags&abi.SpecGetIfExists != 0 {
		t.release()
		return g.give(have, out)
	}
	have.Release()
	// The name is told by the handle, as what is wrong with a task is.
	o, err := g.w.store.Declare(resultID(t.id, 0))
	if err != nil {
		t.release()
		return abi.EIO
	}
	_ = o.Fail(t.job.named(nameTaken(t.name), t.name, 0))
	t.release()
	return g.give(o, out)
}

func nameTaken(name string) *wray.Error {
	return &wray.Error{Code: wray.CodeBadArgument, Message: fmt.Sprintf("there is an actor of the name %q", name),
		Hint: "give it another name, or use the option GetIfExists"}
}

// takeName gives the actor that t makes its name. Where another has it, takeName
// returns the object that stands for that, with a reference for the caller.
func (j *job) takeName(t *task) *objectstore.Object {
	j.mu.Lock()
	defer j.mu.Unlock()
	have := j.actorLocked(t.name)
	if have == nil {
		if j.actors == nil {
			j.actors = map[string]*actor{}
		}
		j.actors[t.name] = t.makes
		t.makes.named = true
	}
	return have
}

// actorLocked returns the object of the actor called name, with a reference
// for the caller, or nil.
func (j *job) actorLocked(name string) *objectstore.Object {
	a := j.actors[name]
	if a == nil {
		return nil
	}
	return j.w.store.Lookup(a.object)
}

// callActor posts t. On an errno t has been released.
func (g *guest) callActor(t *task, out []byte) abi.Errno {
	if t.actor == nil {
		return g.callFar(t, out)
	}
	if err := t.actor.post(t); err != nil {
		return g.notTaken(t, out, err)
	}
	g.hold(t)
	return abi.Success
}

// findActor is the import that gives a handle of a named actor.
func findActor(g *guest, v view, s []uint64) abi.Errno {
	name, e := v.str(uint32(s[0]), uint32(s[1]))
	if e != abi.Success {
		return e
	}
	out, ok := v.bytes(uint32(s[2]), 4)
	if !ok {
		return abi.EFAULT
	}
	if g.job.mirror != nil {
		if !utf8.ValidString(name) { // no actor that travels has it
			return abi.ENOENT
		}
		return g.ask(&askBody{Find: &name}).give(g, out, abi.ENOENT)
	}
	o, err := g.job.findActor(name)
	if err != nil {
		return g.refuse(err, abi.EPERM)
	}
	if o == nil {
		return abi.ENOENT
	}
	return g.give(o, out)
}

// killActor is the import that ends an actor, or has the one that calls take a
// checkpoint.
func killActor(g *guest, _ view, s []uint64) abi.Errno {
	a, flags := g.actorOf(uint32(s[0])), uint32(s[1])
	if e, yes := g.killGroup(uint32(s[0]), flags); yes {
		return e
	}
	switch {
	case flags == abi.KillCheckpoint && uint32(s[0]) == 0:
		if g.task == nil || g.task.actor == nil {
			return abi.EPERM
		}
		g.task.actor.dur.asked = true // its own goroutine's
		return abi.Success
	case flags&^abi.KillRestart != 0 && (a != nil || g.farActorOf(uint32(s[0])) != nil):
		return abi.EINVAL
	case a == nil:
		o := g.farActorOf(uint32(s[0]))
		if o == nil {
			return abi.EBADF
		}
		if g.job.mirror == nil {
			return abi.EPERM
		}
		return g.ask(&askBody{Kill: &killBody{bodyOf(o.ID()), flags&abi.KillRestart != 0}}).give(g, nil, abi.Success)
	}
	a.kill(flags&abi.KillRestart != 0)
	a.forgetLate()
	return abi.Success
}
