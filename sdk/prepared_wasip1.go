package sdk

import (
	"context"

	"github.com/wray-project/wray/sdk/internal/rt"
)

// prepared is how a task is submitted without being described anew each time.
type prepared struct {
	p    *rt.Prepared
	made bool // where p is nil: it cannot be had
}

// quick submits t with args, of the actor if not nil, or returns nil: send has
// to do it.
func (t *task) quick(ctx context.Context, args []rt.Arg, actor *rt.Ref) *rt.Ref {
	if !t.prepared.made {
		t.prepare(ctx)
	}
	if p := t.prepared.p; p != nil {
		return p.Submit(args, actor)
	}
	return nil
}

func (t *task) prepare(ctx context.Context) {
	if t.opts.err != nil || t.opts.in != nil || t.d.stream || t.d.parts != 1 || t.d.kind == declClass {
		t.prepared.made = true
		return
	}
	fn, err := t.d.lookup(ctx, nil)
	if err != nil {
		return // send says so
	}
	s := &rt.Spec{Fn: fn}
	t.opts.apply(s)
	t.prepared = prepared{p: rt.Prepare(s), made: true}
}
