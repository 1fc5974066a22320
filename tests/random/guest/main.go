// Command guest runs random programs, which come as JSON on standard input, a
// line each, and prints what each gave on a line. After each it drops all that
// it holds, says "dropped", and waits for a line before it goes on: then the
// test looks whether anything is left.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime"

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
}

func (s *state) result() ([]byte, error) { return program.Bytes(s.sum, 16), nil }

var (
	actors = sdk.Actor("actor", func(_ context.Context, key uint64) (*state, error) { return &state{sum: key}, nil })
	call   = sdk.Method(actors, "call", func(s *state, _ context.Context, b []byte) ([]byte, error) {
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

// slot is what a step made: one of its fields.
type slot struct {
	bytes sdk.Ref[[]byte]
	box   sdk.Ref[box]
	actor *handle
}

type handle struct {
	sdk.Handle[state]
	calls []sdk.Ref[[]byte] // that nobody has waited for
}

// settle waits for the calls that are under way.
func (h *handle) settle(ctx context.Context) {
	for _, r := range h.calls {
		_, _ = r.Get(ctx)
	}
	h.calls = nil
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
func play(ctx context.Context, ops []program.Op, class sdk.Class1[uint64, state]) ([]program.Outcome, error) {
	var slots [program.Slots]slot
	var blocks []sdk.Ref[[]byte]
	var got []program.Outcome
	for _, o := range ops {
		a, b := slots[o.A], slots[o.B]
		var made *slot
		var err error
		switch o.Kind {
		case program.Put:
			made = &slot{}
			made.bytes, err = sdk.Put(ctx, program.Bytes(o.Key, o.N))
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
			made = &slot{actor: &handle{Handle: class.New(ctx, o.Key)}}
		case program.Call, program.Hold, program.Read:
			h := a.actor
			var r sdk.Ref[[]byte]
			switch o.Kind {
			case program.Call:
				r = call.RemoteArgs(ctx, h.Handle, b.bytes)
			case program.Hold:
				r = hold.Remote(ctx, h.Handle, box{[]sdk.Ref[[]byte]{b.bytes}})
			default:
				r = read.Remote(ctx, h.Handle)
			}
			h.calls = append(h.calls, r)
			made = &slot{bytes: r}
		case program.Kill:
			a.actor.settle(ctx)
			err = a.actor.Kill()
		case program.Restart:
			a.actor.settle(ctx)
			err = a.actor.Restart()
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

func main() { sdk.Main(run) }

func run(ctx context.Context) error {
	class := actors
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
		got, err := play(ctx, ops, class)
		if err != nil {
			got = append(got, program.Outcome{Step: -1, Got: err.Error()})
		}
		if err := json.NewEncoder(os.Stdout).Encode(got); err != nil {
			return err
		}
		for again := true; again; {
			runtime.GC()
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
