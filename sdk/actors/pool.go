package actors

import (
	"context"
	"errors"
	"iter"
	"slices"

	"github.com/wray-project/wray/sdk"
)

// Pool spreads calls of one method over actors, each of which has one at a
// time. It belongs to one goroutine.
type Pool[S, A, R any] struct {
	method  sdk.MethodOf1[S, A, R]
	idle    []sdk.Handle[S]
	runs    []run[S, R] // the oldest first
	waiting []A         // for an actor
}

type run[S, R any] struct {
	actor sdk.Handle[S]
	ref   sdk.Ref[R]
	done  bool // and its actor has been given something else
}

// NewPool returns a pool that calls method of actors.
func NewPool[S, A, R any](method sdk.MethodOf1[S, A, R], actors ...sdk.Handle[S]) *Pool[S, A, R] {
	return &Pool[S, A, R]{method: method, idle: slices.Clone(actors)}
}

// ErrNoMore is what Next and NextUnordered give when every result was given.
var ErrNoMore = errors.New("the pool has no more results")

// Submit has the method called with a by the next actor that is free.
func (p *Pool[S, A, R]) Submit(ctx context.Context, a A) {
	p.waiting = append(p.waiting, a)
	p.start(ctx)
}

// Push adds an actor.
func (p *Pool[S, A, R]) Push(ctx context.Context, actor sdk.Handle[S]) {
	p.idle = append(p.idle, actor)
	p.start(ctx)
}

// Pop takes an actor out that is free. False: none is.
func (p *Pool[S, A, R]) Pop() (actor sdk.Handle[S], ok bool) {
	if len(p.idle) == 0 {
		return actor, false
	}
	actor = p.idle[len(p.idle)-1]
	p.idle = p.idle[:len(p.idle)-1]
	return actor, true
}

// Len returns how many results are to be given yet.
func (p *Pool[S, A, R]) Len() int { return len(p.runs) + len(p.waiting) }

func (p *Pool[S, A, R]) start(ctx context.Context) {
	for len(p.waiting) > 0 && len(p.idle) > 0 {
		actor, _ := p.Pop()
		p.runs = append(p.runs, run[S, R]{actor: actor, ref: p.method.Remote(ctx, actor, p.waiting[0])})
		p.waiting = p.waiting[1:]
	}
}

// Next waits for the result of the oldest call whose result was not given. The
// others go on meanwhile.
func (p *Pool[S, A, R]) Next(ctx context.Context) (R, error) {
	return p.next(ctx, func() int {
		if p.runs[0].done {
			return 0
		}
		return -1
	})
}

// NextUnordered waits for any result.
func (p *Pool[S, A, R]) NextUnordered(ctx context.Context) (R, error) {
	return p.next(ctx, func() int {
		return slices.IndexFunc(p.runs, func(r run[S, R]) bool { return r.done })
	})
}

// next waits until which says the result of which run is to be given.
func (p *Pool[S, A, R]) next(ctx context.Context, which func() int) (r R, err error) {
	if len(p.runs) == 0 {
		if len(p.waiting) > 0 {
			return r, errors.New("the pool has no actors")
		}
		return r, ErrNoMore
	}
	for {
		if i := which(); i >= 0 {
			ref := p.runs[i].ref
			p.runs = slices.Delete(p.runs, i, i+1)
			return ref.Get(ctx)
		}
		var refs []sdk.Ref[R]
		for _, r := range p.runs {
			if !r.done {
				refs = append(refs, r.ref)
			}
		}
		ready, _, err := sdk.Wait(ctx, refs, 1, -1)
		if err != nil {
			return r, err
		}
		for i := range p.runs {
			if run := &p.runs[i]; !run.done && slices.Contains(ready, run.ref) {
				run.done = true
				p.idle = append(p.idle, run.actor)
			}
		}
		p.start(ctx)
	}
}

// Map calls the method with each of args, as many at once as there are actors,
// and gives the results in their order. It stops at the first error. What was
// submitted before, or left by a loop that ended early, is given first: use a
// new Pool then, or read until Len is 0.
func (p *Pool[S, A, R]) Map(ctx context.Context, args iter.Seq[A]) iter.Seq2[R, error] {
	return p.all(ctx, args, p.Next)
}

// MapUnordered is Map that gives the results as they come.
func (p *Pool[S, A, R]) MapUnordered(ctx context.Context, args iter.Seq[A]) iter.Seq2[R, error] {
	return p.all(ctx, args, p.NextUnordered)
}

func (p *Pool[S, A, R]) all(ctx context.Context, args iter.Seq[A], next func(context.Context) (R, error)) iter.Seq2[R, error] {
	return func(yield func(R, error) bool) {
		for a := range args {
			p.Submit(ctx, a)
		}
		for p.Len() > 0 {
			if r, err := next(ctx); !yield(r, err) || err != nil {
				return
			}
		}
	}
}
