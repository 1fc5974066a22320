package sdk

import (
	"fmt"
	"math"
	"time"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/sdk/internal/rt"
)

// An Option changes how a task is run; see the With methods.
type Option func(*options)

type options struct {
	flags   uint32
	cpu     uint32
	retries int32
	memory  uint64
	timeout time.Duration
	window  uint32
	name    string
	retryOn []byte
	custom  []wray.Custom
	claim   []byte // custom, as rt.Spec has it
	place   wray.Placement
	places  []byte // place, as rt.Spec has it
	key     string
	grants  string // as rt.Spec has them; "": all

	in       *rt.Ref // the placement group that it runs in
	bundle   []byte  // of that; empty: any
	strategy wray.GroupStrategy
	making   bool // they are those of a placement group

	actorFlags  uint32 // Named apart
	restarts    int32
	hasRestarts bool
	callTries   int32
	maxPending  uint32
	idle        time.Duration
	concurrency uint32

	checkpointCalls uint32
	checkpointEvery time.Duration

	err error // of an option that makes no sense; the task fails with it
}

func (o *options) apply(s *rt.Spec) {
	s.Flags = o.flags
	s.CPU, s.Retries, s.Memory, s.Timeout = o.cpu, o.retries, o.memory, o.timeout
	s.Window, s.Name, s.RetryOn, s.Custom = o.window, o.name, o.retryOn, o.claim
	s.Key, s.Place = o.key+o.grants, o.places // no declaration has both
	if o.in != nil {
		s.Place = o.bundle
	}
	s.Actor, s.CallTries, s.MaxPending, s.Idle, s.Concurrency = o.in, o.callTries, o.maxPending, o.idle, o.concurrency
	s.CheckpointCalls, s.CheckpointEvery = o.checkpointCalls, o.checkpointEvery
}

// check finds options that are of no use for what is declared.
func (o *options) check(k declKind) {
	ofActors := o.actorFlags != 0 || o.hasRestarts || o.callTries != 0 || o.maxPending != 0 || o.idle != 0 || o.concurrency != 0 ||
		o.checkpointCalls != 0 || o.checkpointEvery != 0
	ofTasks := o.flags&(rt.Fresh|rt.RetryErrors|rt.HasRetries) != 0 || o.retryOn != nil
	if o.key != "" && k != declMethod {
		o.bad("CallKey(%q) is an option of methods", o.key)
	}
	if o.grants != "" && (k == declMethod || o.flags&rt.Durable != 0 || o.actorFlags&rt.Durable != 0) {
		o.bad("Grants is an option of tasks and of actors that are not durable: a method has those of its actor")
	}
	o.checkGroup(k)
	switch {
	case k == declTask && ofActors:
		o.bad("GetIfExists, Detached, Durable, MaxRestarts, MaxTaskRetries, MaxPendingCalls, MaxConcurrency, Idle, CheckpointEvery and CheckpointInterval are options of actors, not of tasks")
	case k == declClass && (ofTasks || o.window != 0 || o.timeout != 0):
		o.bad("Fresh, Retries, RetryOn, Window and Timeout are options of tasks; an actor has MaxRestarts and MaxTaskRetries")
	case k == declMethod && (ofActors || ofTasks || o.memory != 0 || o.flags&rt.HasCPU != 0 || o.custom != nil || o.places != nil):
		o.bad("a method has the options Name, Timeout, Window and CallKey; what its actor has is given when that is made")
	}
}

func (o *options) bad(format string, args ...any) {
	if o.err == nil {
		o.err = wray.Errorf(wray.CodeBadArgument, format, args...)
	}
}

// CPU sets how many processor cores the task holds while it runs, in steps of
// a ten-thousandth. The default is 1. It is a share in scheduling: a task of
// 0.5 does not run at half speed, but two of them run where one of 1 would.
func CPU(cores float64) Option {
	return func(o *options) {
		if !(cores >= 0 && cores <= math.MaxUint32/float64(wray.OneCPU)) {
			o.bad("CPU(%v): a number of cores is wanted", cores)
			return
		}
		o.cpu = uint32(wray.CPUs(cores))
		o.flags |= rt.HasCPU
	}
}

// Memory sets the bytes of linear memory that the task's sandbox may grow to,
// 4 GiB at most. The default is the job's.
func Memory(bytes int64) Option {
	return func(o *options) {
		if bytes <= 0 {
			o.bad("Memory(%d): a number of bytes is wanted", bytes)
			return
		}
		o.memory = uint64(bytes)
	}
}

// Resource sets how much of a resource the task holds while it runs, or the
// actor as long as it lives, in steps of a ten-thousandth. The name means what
// you make of it: a device, a licence, a share of a link; the node is told how
// much it has with wray run --resource or wray start --resource. A task that asks for
// more than that fails with wray.ErrUnschedulable. While it waits for others it
// keeps the resource, unlike its CPU. Several options name several resources, of
// the same name the last one counts, and 0 is none. In one process (go run)
// nothing is held.
func Resource(name string, amount float64) Option {
	return func(o *options) {
		if !(amount >= 0 && amount <= float64(wray.MaxAmount/wray.OneUnit)) || amount > 0 && wray.CPUs(amount) == 0 {
			o.bad("Resource(%q, %v): an amount from 0.0001 to %v is wanted, or 0", name, amount, wray.MaxAmount)
			return
		}
		list, err := wray.SetCustom(o.custom, wray.Custom{Name: name, Amount: wray.Amount(wray.CPUs(amount))})
		if err != nil {
			o.bad("Resource(%q, %v): %v", name, amount, err)
			return
		}
		if len(list) > wray.MaxCustom {
			o.bad("Resource(%q, %v): it would be one of %d resources, the most are %d", name, amount, len(list), wray.MaxCustom)
			return
		}
		o.custom, o.claim = list, nil
		for _, c := range list {
			if c.Amount > 0 {
				o.claim = append(append(append(append(o.claim, c.Name...), 0), c.Amount.String()...), 0)
			}
		}
	}
}

// Retries sets how often a task is run again after a failure that is to be
// retried: one of the system, and, with [RetryOn], of the task. The default is
// 3; 0 is never, and -1 without end.
func Retries(n int) Option {
	return func(o *options) {
		if n < -1 || n > math.MaxInt32 {
			o.bad("Retries(%d): a number from -1 is wanted", n)
			return
		}
		o.retries = int32(n)
		o.flags |= rt.HasRetries
	}
}

// RetryOn has the task retried when it fails with one of errs, which have been
// registered with [RegisterError], or, without errs, however it fails: with an
// error, a panic, a trap or a timeout.
func RetryOn(errs ...error) Option {
	return func(o *options) {
		if len(errs) == 0 {
			o.flags |= rt.RetryErrors
			return
		}
		var names []byte
		sentinels.RLock()
		defer sentinels.RUnlock()
	next:
		for _, err := range errs {
			for i, s := range sentinels.errors {
				if s == err {
					names = append(append(names, sentinels.names[i]...), 0)
					continue next
				}
			}
			o.bad("RetryOn: the error %q is not registered with RegisterError", fmt.Sprint(err))
		}
		o.retryOn = append(o.retryOn[:len(o.retryOn):len(o.retryOn)], names...)
	}
}

// Timeout bounds how long one attempt of the task may run. After it the task
// is stopped and fails with wray.ErrTimeout alone. A Get that the deadline of the
// caller's own context cuts short matches both wray.ErrTimeout and
// context.DeadlineExceeded, and the task goes on: ask for the latter to tell them
// apart. The default is no bound.
func Timeout(d time.Duration) Option {
	return func(o *options) {
		if d <= 0 {
			o.bad("Timeout(%v): a positive duration is wanted", d)
			return
		}
		o.timeout = d
	}
}

// Fresh runs the task in a sandbox that no other task has used.
func Fresh() Option { return func(o *options) { o.flags |= rt.Fresh } }

// Name sets the name under which the task is shown in logs and errors. The
// default is the name it was declared with. An actor is found by it, see Lookup,
// and a placement group, see [LookupGroup].
func Name(name string) Option { return func(o *options) { o.name = name } }

// Window sets how many items of a stream may be there unread before its
// producer waits.
func Window(n int) Option {
	return func(o *options) {
		if n <= 0 || n > math.MaxInt32 {
			o.bad("Window(%d): a positive number is wanted", n)
			return
		}
		o.window = uint32(n)
	}
}

// CallKey names a call of a [Durable] actor, so that it may be made again by one
// who does not know whether it was answered, such as a program that was killed
// and is run again:
//
//	transfer.With(sdk.CallKey("order 4711")).Remote(ctx, alice, order)
//
// The actor runs the first call of a key, and gives every later one of the same
// method and arguments that one's answer, an error included. It remembers the
// latest 4096 keys. With another method or other arguments the call fails with
// wray.ErrBadArgument. A key has at most 256 bytes. Actors that are not durable
// do not look at it, and nothing does in one process (go run).
func CallKey(key string) Option {
	return func(o *options) {
		if key == "" || len(key) > maxKey {
			o.bad("CallKey of %d bytes: 1 to %d are wanted", len(key), maxKey)
			return
		}
		o.key = key
	}
}

const maxKey = 256
