// Command guest runs random programs, which come as JSON on standard input, a
// line each, and prints what each gave on a line. After each it drops all that
// it holds, says "dropped", and waits for a line before it goes on: then the
// test looks whether anything is left.
//
// Built natively it is given a node's address and this module, and runs the
// programs from outside of the sandboxes; without, it runs all in itself.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/sdk"
	"github.com/wray-project/wray/tests/random/program"
)

// box is a value that holds references.
type box struct{ Refs []sdk.Ref[[]byte] }

var (
	mix = sdk.Func2("mix", func(_ context.Context, a, b []byte) ([]byte, error) {
		return program.Mixed(program.Sum(a), program.Sum(b)), nil
	})
	nest  sdk.Task2[uint64, int, []byte]
	fails = sdk.Func0("fails", func(context.Context) ([]byte, error) { return nil, errors.New("as it should") })
	block = sdk.Func0("block", func(ctx context.Context) ([]byte, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}).With(sdk.CPU(0)) // so that the others have theirs
	nothing = sdk.Func0("nothing", func(context.Context) (struct{}, error) { return struct{}{}, nil })
	pack    = sdk.Func("pack", func(_ context.Context, b box) (box, error) { return b, nil })
)

func init() {
	nest = sdk.Func2("nest", func(ctx context.Context, key uint64, depth int) ([]byte, error) {
		if depth == 0 {
			return program.Mixed(key, 1), nil
		}
		refs := []sdk.Ref[[]byte]{nest.Remote(ctx, key*3, depth-1), nest.Remote(ctx, key*5, depth-1)}
		parts, err := sdk.GetAll(ctx, refs)
		if err != nil {
			return nil, err
		}
		return program.Mixed(program.Sum(parts[0]), program.Sum(parts[1])), nil
	})
}

// state is an actor's.
type state struct {
	sum  uint64
	held []sdk.Ref[[]byte]

	timers sync.Mutex
	gone   sync.Cond // signaled when a timer has gone off
	armed  int       // guarded by timers, as is rung: timers that have not gone off
	rung   uint64
}

func newState(_ context.Context, key uint64) (*state, error) {
	s := &state{sum: key}
	s.gone.L = &s.timers
	return s, nil
}

// toArm is what arm is told.
type toArm struct {
	Key   uint64
	After time.Duration
}

// ring is what a timer does.
func (s *state) ring(key uint64) {
	s.timers.Lock()
	defer s.timers.Unlock()
	s.rung += key
	s.armed--
	s.gone.Broadcast()
}

func (s *state) result() ([]byte, error) { return program.Bytes(s.sum, 16), nil }

var (
	actors = sdk.Actor("actor", newState)
	arm    = sdk.Method(actors, "arm", func(s *state, _ context.Context, t toArm) ([]byte, error) {
		s.timers.Lock()
		s.armed++
		s.timers.Unlock()
		if t.Key%2 == 0 {
			time.AfterFunc(t.After, func() { s.ring(t.Key) })
		} else {
			go func() {
				time.Sleep(t.After)
				s.ring(t.Key)
			}()
		}
		return s.result()
	})
	rung = sdk.Method0(actors, "rung", func(s *state, _ context.Context) ([]byte, error) {
		s.timers.Lock()
		defer s.timers.Unlock()
		for s.armed > 0 {
			s.gone.Wait()
		}
		return program.Bytes(s.rung, 16), nil
	})
	call = sdk.Method(actors, "call", func(s *state, _ context.Context, b []byte) ([]byte, error) {
		s.sum = program.Sum(program.Mixed(s.sum, program.Sum(b)))
		return s.result()
	})
	hold = sdk.Method(actors, "hold", func(s *state, _ context.Context, b box) ([]byte, error) {
		s.held = append(s.held, b.Refs...)
		return s.result()
	})
	read = sdk.Method0(actors, "read", func(s *state, ctx context.Context) ([]byte, error) {
		for _, r := range s.held {
			if b, err := r.Get(ctx); err == nil {
				s.sum = program.Sum(program.Mixed(s.sum, program.Sum(b)))
			}
		}
		return s.result()
	})
)

// said is the result of something that may fail, as a value.
func said(b []byte, err error) []byte {
	if err != nil {
		return []byte(outcome("", err))
	}
	return b
}

// toRelay is what relay is told.
type toRelay struct{ To sdk.Handle[state] }

var (
	via = sdk.Func2("via", func(ctx context.Context, h toRelay, b box) ([]byte, error) {
		return said(call.RemoteArgs(ctx, h.To, b.Refs[0]).Get(ctx)), nil
	}).With(sdk.CPU(0))
	relay = sdk.Method(actors, "relay", func(s *state, ctx context.Context, h toRelay) ([]byte, error) {
		b := said(call.Remote(ctx, h.To, program.RelayValue).Get(ctx))
		s.sum = program.Sum(program.Mixed(s.sum, program.Sum(b)))
		return s.result()
	})
	items = sdk.StreamMethod(actors, "items", func(s *state, _ context.Context, n int, yield func([]byte) error) error {
		for i := range n {
			if err := yield(program.Item(s.sum, i)); err != nil {
				return err
			}
		}
		return nil
	})
)

// common is the state of an actor that has several calls under way.
type common struct{ key, sum uint64 }

var (
	shared = sdk.Actor("shared", func(_ context.Context, key uint64) (*common, error) { return &common{key: key}, nil }).
		With(sdk.MaxConcurrency(4))
	add = sdk.Method(shared, "add", func(s *common, ctx context.Context, b box) ([]byte, error) {
		v, err := b.Refs[0].Get(ctx)
		if err != nil {
			return program.Bytes(s.key, 16), nil
		}
		atomic.AddUint64(&s.sum, program.Sum(v)) // natively calls run in parallel
		return program.Mixed(s.key, program.Sum(v)), nil
	})
	total = sdk.Method0(shared, "total", func(s *common, _ context.Context) ([]byte, error) {
		return program.Bytes(atomic.LoadUint64(&s.sum), 16), nil
	})
)

// slot is what a step made: one of its fields.
type slot struct {
	bytes  sdk.Ref[[]byte]
	box    sdk.Ref[box]
	actor  *handle
	shared sdk.Handle[common]
	calls  *[]sdk.Ref[[]byte] // of shared, that nobody has waited for
}

type handle struct {
	sdk.Handle[state]
	calls *[]sdk.Ref[[]byte] // that nobody has waited for
}

// name is what was made under a name: handles, which keep the actors alive, and
// calls that nobody has waited for.
type name struct {
	handles []sdk.Handle[state]
	calls   []sdk.Ref[[]byte]
}

// names is how many names programs use.
const names = 3

func nameOf(i int) string { return fmt.Sprint("name ", i) }

// settle waits for the calls that are under way.
func (h *handle) settle(ctx context.Context) { settle(ctx, h.calls) }

func settle(ctx context.Context, calls *[]sdk.Ref[[]byte]) {
	for _, r := range *calls {
		_, _ = r.Get(ctx)
	}
	*calls = nil
}

// build makes a value in one of the ways there are.
func build(ctx context.Context, o program.Op) (r sdk.Ref[[]byte], err error) {
	b := program.Bytes(o.Key, o.N)
	switch o.Kind {
	case program.Build:
		w, err := sdk.NewBuilder(ctx, int64(o.N)+int64(o.Key%100))
		if err != nil {
			return r, err
		}
		for _, part := range [][]byte{b[:len(b)/3], b[len(b)/3:]} {
			if _, err := w.Write(part); err != nil {
				return r, err
			}
		}
		return w.Seal()
	case program.Fill:
		in, err := sdk.Make[byte](ctx, o.N)
		if err != nil {
			return r, err
		}
		copy(in, b)
		b = in
	}
	if r, err = sdk.Put(ctx, b); err == nil && o.Kind == program.Free {
		err = sdk.Free(r)
	}
	return r, err
}

// stream reads some of an actor's stream.
func stream(ctx context.Context, h sdk.Handle[state], n int) (string, error) {
	s := items.Remote(ctx, h, n/8)
	defer s.Close()
	var sum uint64
	for range n % 8 {
		b, err := s.Next(ctx)
		if errors.Is(err, wray.ErrEndOfStream) {
			break
		}
		if err != nil {
			return "", err
		}
		sum = program.Sum(program.Mixed(sum, program.Sum(b)))
	}
	return program.Value(program.Bytes(sum, 8)), nil
}

func outcome(s string, err error) string {
	var e *wray.Error
	switch {
	case err == nil:
		return s
	case errors.As(err, &e):
		return program.Failed(e.Code.String())
	}
	return "an error that is none of wray's: " + err.Error()
}

// play runs a program.
func play(ctx context.Context, ops []program.Op, class sdk.Class1[uint64, state], shared sdk.Class1[uint64, common]) ([]program.Outcome, error) {
	var slots [program.Slots]slot
	var blocks []sdk.Ref[[]byte]
	var got []program.Outcome
	var named [names]name
	for _, o := range ops {
		a, b := slots[o.A], slots[o.B]
		var made *slot
		var err error
		switch o.Kind {
		case program.Put, program.Build, program.Fill, program.Free:
			made = &slot{}
			made.bytes, err = build(ctx, o)
		case program.Mix:
			made = &slot{bytes: mix.RemoteArgs(ctx, a.bytes, b.bytes)}
		case program.Nest:
			made = &slot{bytes: nest.Remote(ctx, o.Key, o.N)}
		case program.Fail:
			made = &slot{bytes: fails.Remote(ctx)}
		case program.Block:
			made = &slot{bytes: block.Remote(ctx)}
			blocks = append(blocks, made.bytes)
		case program.Cancel:
			err = a.bytes.Cancel()
		case program.Box:
			made = &slot{box: pack.Remote(ctx, box{[]sdk.Ref[[]byte]{a.bytes, b.bytes}})}
		case program.Unbox:
			var v box
			if v, err = a.box.Get(ctx); err == nil {
				made = &slot{bytes: v.Refs[o.N]}
			}
		case program.Actor:
			made = &slot{actor: &handle{Handle: class.New(ctx, o.Key), calls: new([]sdk.Ref[[]byte])}}
		case program.Call, program.Hold, program.Read, program.Arm, program.Rung:
			h := a.actor
			var r sdk.Ref[[]byte]
			switch o.Kind {
			case program.Call:
				r = call.RemoteArgs(ctx, h.Handle, b.bytes)
			case program.Hold:
				r = hold.Remote(ctx, h.Handle, box{[]sdk.Ref[[]byte]{b.bytes}})
			case program.Arm:
				r = arm.Remote(ctx, h.Handle, toArm{o.Key, time.Duration(o.N) * time.Millisecond})
			case program.Rung:
				r = rung.Remote(ctx, h.Handle)
			default:
				r = read.Remote(ctx, h.Handle)
			}
			*h.calls = append(*h.calls, r)
			made = &slot{bytes: r}
		case program.Named:
			n := &named[o.N]
			h := class.With(sdk.Name(nameOf(o.N)), sdk.GetIfExists()).New(ctx, o.Key)
			n.handles = append(n.handles, h)
			made = &slot{actor: &handle{Handle: h, calls: &n.calls}}
		case program.Via, program.Relay:
			h := a.actor
			h.settle(ctx)
			var r sdk.Ref[[]byte]
			if o.Kind == program.Via {
				r = via.Remote(ctx, toRelay{h.Handle}, box{[]sdk.Ref[[]byte]{b.bytes}})
			} else {
				b.actor.settle(ctx)
				r = relay.Remote(ctx, h.Handle, toRelay{b.actor.Handle})
			}
			_, _ = r.Get(ctx) // so that the actors' calls have an order
			made = &slot{bytes: r}
		case program.Stream:
			var s string
			s, err = stream(ctx, a.actor.Handle, o.N)
			got, err = append(got, program.Outcome{Step: o.Step, Got: outcome(s, err)}), nil
		case program.Shared:
			made = &slot{shared: shared.New(ctx, o.Key), calls: new([]sdk.Ref[[]byte])}
		case program.Add:
			made = &slot{bytes: add.Remote(ctx, a.shared, box{[]sdk.Ref[[]byte]{b.bytes}})}
			*a.calls = append(*a.calls, made.bytes)
		case program.Total:
			settle(ctx, a.calls)
			made = &slot{bytes: total.Remote(ctx, a.shared)}
			*a.calls = append(*a.calls, made.bytes)
		case program.Kill:
			if a.actor == nil {
				settle(ctx, a.calls)
				err = a.shared.Kill()
				break
			}
			a.actor.settle(ctx)
			err = a.actor.Kill()
		case program.Restart:
			if a.actor == nil {
				err = a.shared.Restart()
			} else {
				err = a.actor.Restart()
			}
		case program.Drop:
			slots[o.A] = slot{}
		case program.CancelAll:
			for _, r := range blocks {
				if err = r.Cancel(); err != nil {
					break
				}
			}
		case program.Get:
			var s string
			if a.box.IsZero() {
				var v []byte
				v, err = a.bytes.Get(ctx)
				s = program.Value(v)
			} else {
				_, err = a.box.Get(ctx)
				s = "a box"
			}
			got, err = append(got, program.Outcome{Step: o.Step, Got: outcome(s, err)}), nil
		}
		if err != nil {
			return got, fmt.Errorf("step %d, %s: %w", o.Step, o.Kind, err)
		}
		if made != nil {
			slots[o.Out] = *made
		}
	}
	return got, nil
}

// alone says that all runs in this process, and no node counts what is left.
var alone bool

// unnamed waits, in a process that is alone, until no actor has a name any
// more: the next program makes its own. One that another one's state held takes
// a collection after that one's end.
func unnamed(class sdk.Class1[uint64, state]) {
	for i := 0; alone && i < names; i++ {
		for {
			if _, err := class.Lookup(nameOf(i)); err != nil {
				break
			}
			runtime.GC()
		}
	}
}

func run(ctx context.Context) error {
	class, shared := actors, shared
	if slices.Contains(os.Args, "checkpoints") {
		keeps := []sdk.Option{sdk.CheckpointEvery(1), sdk.MaxRestarts(-1), sdk.MaxTaskRetries(-1)}
		class, shared = class.With(keeps...), shared.With(keeps...)
	}
	in := bufio.NewReader(os.Stdin)
	for {
		line, err := in.ReadBytes('\n')
		if err != nil {
			return nil
		}
		var ops []program.Op
		if err := json.Unmarshal(line, &ops); err != nil {
			return err
		}
		got, err := play(ctx, ops, class, shared)
		if err != nil {
			got = append(got, program.Outcome{Step: -1, Got: err.Error()})
		}
		if err := json.NewEncoder(os.Stdout).Encode(got); err != nil {
			return err
		}
		for again := true; again; {
			runtime.GC()
			unnamed(class)
			// The collector's finds are given back with the next wait; what is
			// waited for here is given back with the one after it.
			if _, err := nothing.Remote(ctx).Get(ctx); err != nil {
				return err
			}
			fmt.Println("dropped")
			line, err := in.ReadString('\n')
			if err != nil {
				return err
			}
			again = line == "again\n"
		}
	}
}
