package guest

import (
	"unsafe"

	"github.com/wray-project/wray/wasm/abi"
)

// Prepared is a Spec that is submitted many times: most of what the host is
// told of a task is the same each time.
type Prepared struct {
	spec   rawSpec
	args   [4]rawArg
	result uint32
	done   uint32
	keep   Spec // what spec points to
}

// Prepare describes t, which has one result and is no actor's creation, but for
// its arguments and the actor that is called.
func Prepare(t *Spec) *Prepared {
	p := &Prepared{keep: *t}
	p.keep.Args, p.keep.Actor, p.keep.NumResults = nil, nil, 1
	s := takeScratch()
	err := s.setSpec(&p.keep)
	p.spec = s.spec
	s.give()
	if err != nil {
		return nil
	}
	p.spec.argsPtr = addr(unsafe.Pointer(&p.args))
	p.spec.resultsPtr = addr(unsafe.Pointer(&p.result))
	return p
}

// Submit submits the task with args, which the caller keeps. It returns nil
// where that is not so simple, or was refused, and then has done nothing:
// package function Submit does it all, and says why not. From its beginning to
// the host's answer it makes no other call, so no goroutine comes between.
func (p *Prepared) Submit(args []Arg, actor *Ref) *Ref {
	if len(args) > len(p.args) {
		return nil
	}
	for i := range args {
		a, raw := &args[i], &p.args[i]
		if r := a.Ref; r != nil {
			if r.flags&(refKept|refFailed) != 0 || r.handle == 0 || r.task != taskNumber {
				return nil
			}
			raw.kind, raw.handle = abi.ArgKindHandle, r.handle
			continue
		}
		v := &a.Value
		if len(v.Refs) > 0 || len(v.Data) >= mapMin {
			return nil
		}
		raw.kind, raw.handle = abi.ArgKindValue, 0
		raw.value = rawValue{encoding: uint32(v.Encoding), meta: uint32(v.Elem),
			ptr: uint32(uintptr(unsafe.Pointer(unsafe.SliceData(v.Data)))), len: uint32(len(v.Data))}
	}
	p.spec.nargs, p.spec.actor = uint32(len(args)), 0
	if r := actor; r != nil {
		if r.flags&(refKept|refFailed) != 0 || r.handle == 0 || r.task != taskNumber {
			return nil
		}
		p.spec.actor = r.handle
	}
	if !ok(importSubmit(&p.spec, 1, &p.done)) {
		return nil
	}
	return newRef(p.result, refResult)
}
