package guest

import (
	"context"
	"time"
	"unsafe"

	"github.com/wray-project/wray/wasm/abi"
)

// Spec is a task to submit.
type Spec struct {
	Fn         uint32 // from Lookup
	Flags      uint32 // Fresh, StreamTask, RetryErrors, HasCPU, HasRetries
	Args       []Arg
	NumResults int
	Name       string // empty: the function's
	CPU        uint32 // with HasCPU, ten-thousandths of a core
	Retries    int32  // with HasRetries; -1: without end
	Memory     uint64 // bytes; 0: the job's default
	Timeout    time.Duration
	RetryOn    []byte // names of registered errors, a zero byte after each
	Window     uint32 // of a stream; 0: the default
	Custom     []byte // custom resources: of each the name, a zero byte, the amount in decimal, a zero byte
	Place      []byte // which nodes it runs on, as wray.Placement.Append writes it; empty: the default
	Key        string // of a call of a durable actor: what tells a repeated call; of a task and an actor its grants; "": nothing

	Actor       *Ref          // of a call: the actor that is called
	CallTries   int32         // with Actor set in Flags: how often a call is run again; -1: without end
	MaxPending  uint32        // likewise: calls that may wait; 0: no bound
	Idle        time.Duration // likewise: how long it rests before it gives its sandbox up; 0: the default
	Concurrency uint32        // likewise: calls that may be under way at once; 0: one

	CheckpointCalls uint32        // likewise: a checkpoint after so many calls; 0: none for that
	CheckpointEvery time.Duration // likewise: a checkpoint when the last is so old; 0: none for that
}

// Arg is an argument: the object behind Ref, or else Value.
type Arg struct {
	Ref   *Ref
	Value Value
}

// Lookup returns the number of a function for Spec.Fn. module is empty for the
// program's own.
func Lookup(module, name string) (uint32, error) {
	s := takeScratch()
	defer s.give()
	e := importFunction(unsafe.Pointer(unsafe.StringData(module)), uint32(len(module)),
		unsafe.Pointer(unsafe.StringData(name)), uint32(len(name)), &s.out)
	if !ok(e) {
		return 0, Errno(e)
	}
	return s.out, nil
}

// Submit submits a task and appends a Ref for each result to into. It waits
// while the job's queue or the store is full.
func Submit(ctx context.Context, t *Spec, into []*Ref) ([]*Ref, error) {
	s := takeScratch()
	into, err := s.submit(ctx, t, into)
	s.give()
	return into, err
}

func (s *scratch) submit(ctx context.Context, t *Spec, into []*Ref) ([]*Ref, error) {
	if err := s.setSpec(t); err != nil {
		return into, err
	}
	if e := importSubmit(&s.spec, 1, &s.out); !ok(e) {
		if err := again(ctx, e, func() uint32 { return importSubmit(&s.spec, 1, &s.out) }); err != nil {
			return into, err
		}
	}
	flags := refResult
	if t.Flags&(StreamTask|NewActor|abi.SpecGroup) != 0 {
		flags = 0
	}
	for _, h := range s.resultHandles(t.NumResults) {
		into = append(into, newRef(h, flags))
	}
	return into, nil
}

// resultHandles is where the host writes n handles.
func (s *scratch) resultHandles(n int) []uint32 {
	if n <= len(s.results) {
		return s.results[:n]
	}
	if cap(s.more) < n {
		s.more = make([]uint32, n)
	}
	return s.more[:n]
}

// setSpec describes t to the host. The payloads stay where they are: t, which
// s keeps, keeps them.
func (s *scratch) setSpec(t *Spec) error {
	s.keep = t
	if cap(s.args) < len(t.Args) {
		s.args = make([]rawArg, len(t.Args))
	}
	s.args = s.args[:len(t.Args)]
	nrefs := 0
	for i := range t.Args {
		nrefs += len(t.Args[i].Value.Refs)
	}
	if cap(s.handles) < nrefs {
		s.handles = make([]uint32, 0, nrefs) // set stores its address, so it must not grow
	}
	s.handles = s.handles[:0]
	for i := range t.Args {
		a, raw := &t.Args[i], &s.args[i]
		if a.Ref == nil {
			if h := sealed(&a.Value); h != 0 {
				a.Ref = newRef(h, refReady)
				*raw = rawArg{kind: abi.ArgKindHandle, handle: h}
				continue
			}
			raw.kind, raw.handle = abi.ArgKindValue, 0
			if err := s.set(&raw.value, &a.Value); err != nil {
				return err
			}
			continue
		}
		if r := a.Ref; r.flags&refKept != 0 {
			a.Value = Value{Encoding: abi.Encoding(r.encoding), Elem: abi.Elem(r.elem), Data: r.payload()}
			raw.kind, raw.handle = abi.ArgKindValue, 0
			_ = s.set(&raw.value, &a.Value)
			continue
		}
		if err := a.Ref.Err(); err != nil {
			return err
		}
		*raw = rawArg{kind: abi.ArgKindHandle, handle: a.Ref.handle}
	}
	results := s.resultHandles(t.NumResults)
	p := &s.spec
	p.fn, p.flags = t.Fn, t.Flags
	p.argsPtr, p.nargs = uint32(uintptr(unsafe.Pointer(unsafe.SliceData(s.args)))), uint32(len(s.args))
	p.resultsPtr, p.nresults = uint32(uintptr(unsafe.Pointer(unsafe.SliceData(results)))), uint32(len(results))
	p.namePtr, p.nameLen = uint32(uintptr(unsafe.Pointer(unsafe.StringData(t.Name)))), uint32(len(t.Name))
	p.cpu, p.retries, p.memory = t.CPU, t.Retries, t.Memory
	p.timeout = uint64(max(0, t.Timeout))
	p.retryOnPtr, p.retryOnLn = bytesAddr(t.RetryOn), uint32(len(t.RetryOn))
	p.window = t.Window
	p.customPtr, p.customLen = bytesAddr(t.Custom), uint32(len(t.Custom))
	p.placePtr, p.placeLen = bytesAddr(t.Place), uint32(len(t.Place))
	p.keyPtr, p.keyLen = uint32(uintptr(unsafe.Pointer(unsafe.StringData(t.Key)))), uint32(len(t.Key))
	p.actor, p.callTries, p.maxPending, p.idle = 0, t.CallTries, t.MaxPending, uint64(max(0, t.Idle))
	p.concurrency = t.Concurrency
	p.checkpointCalls, p.checkpointEvery = t.CheckpointCalls, uint64(max(0, t.CheckpointEvery))
	if r := t.Actor; r != nil {
		if err := r.Err(); err != nil {
			return err
		}
		p.actor = r.handle
	}
	return nil
}
