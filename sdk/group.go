package sdk

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/sdk/internal/rt"
	"github.com/wray-project/wray/wasm/abi"
)

// Bundle is what a placement group sets aside on one node. What it says nothing
// of it has nothing of: tasks hold one CPU by default, and actors none.
type Bundle struct {
	CPU       float64            // cores, in steps of a ten-thousandth
	Memory    int64              // bytes, of what tasks ask for with the option Memory
	Resources map[string]float64 // custom resources, see [Resource]
	Labels    []string           // selectors of its node's labels, see [Labels]
}

// Group is a placement group: resources that are set aside on one node or
// several, all of them or none, for tasks and actors that are to run together, or
// apart. It may be copied, and sent to tasks and actors inside arguments and
// results, as a [Ref] is. The zero Group is none.
type Group struct{ p *rt.Ref }

// AnyBundle is in place of a bundle's number: the bundle that has room.
const AnyBundle = wray.AnyBundle

// PlacementGroup sets bundles aside and returns at once; [Group.Ready] waits until
// they are:
//
//	pg := sdk.PlacementGroup(ctx, []sdk.Bundle{{CPU: 1}, {CPU: 1}}, sdk.StrictSpread())
//	defer pg.Remove()
//	ref := work.With(sdk.InGroup(pg, 0)).Remote(ctx, x)
//
// How bundles lie on nodes is said by one of [Pack], which is the default,
// [Spread], [StrictPack] and [StrictSpread]. What is submitted to the group waits
// for it. Where a node dies the bundles that were there are set aside elsewhere,
// and what ran in them is run again as the option Retries, or MaxRestarts, says.
//
// The group is there until [Group.Remove], until nobody holds a handle to it and
// nothing is to run in it, or until its job ends. With [Name] it is found by
// [LookupGroup], and with [Detached] it stays when nobody holds a handle. Where no
// nodes could ever hold it, it fails with wray.ErrUnschedulable, in a cluster
// after ten seconds: nodes may be on their way. A task of a job that does not run
// on the job's node makes it there: it is run again there first.
//
// In one process (go run) nothing is set aside, and a group that would need
// several nodes fails.
func PlacementGroup(ctx context.Context, bundles []Bundle, opts ...Option) Group {
	o := options{making: true}
	for _, opt := range opts {
		opt(&o)
	}
	return Group{o.group(ctx, bundles)}
}

func (o *options) group(ctx context.Context, bundles []Bundle) *rt.Ref {
	spec := wray.GroupSpec{Strategy: o.strategy}
	if o.place.Spread {
		if spec.Strategy != wray.GroupPack {
			o.bad("a placement group has one strategy: %v and Spread are two", spec.Strategy)
		}
		spec.Strategy = wray.GroupSpread
	}
	place := o.place
	place.Spread = false
	if o.flags != 0 || o.memory != 0 || o.timeout != 0 || o.window != 0 || o.retryOn != nil || o.custom != nil || o.key != "" || o.in != nil ||
		!place.IsZero() || o.actorFlags&^(rt.Detached|rt.GetIfExists) != 0 || o.hasRestarts || o.callTries != 0 || o.maxPending != 0 || o.idle != 0 ||
		o.concurrency != 0 || o.checkpointCalls != 0 || o.checkpointEvery != 0 {
		o.bad("a placement group has the options Pack, Spread, StrictPack, StrictSpread, Name, GetIfExists and Detached")
	}
	for i := range bundles {
		b, err := bundles[i].wray()
		if err != nil {
			o.bad("bundle %d: %v", i, err)
			break
		}
		spec.Bundles = append(spec.Bundles, b)
	}
	if err := spec.Check(); err != nil {
		o.bad("%v", err)
	}
	if o.err != nil {
		return rt.Failed(o.err)
	}
	s := rt.Spec{Flags: rt.NewGroup | o.actorFlags, NumResults: 1, Name: o.name, Place: spec.Append(nil)}
	if o.name != "" {
		s.Flags |= rt.Named
	}
	refs, err := rt.Submit(ctx, &s, nil)
	if err != nil {
		return rt.Failed(local("make the placement group", err))
	}
	return refs[0]
}

func (b *Bundle) wray() (wray.Bundle, error) {
	w := wray.Bundle{Resources: wray.Resources{Memory: b.Memory}}
	if !(b.CPU >= 0 && b.CPU <= math.MaxUint32/float64(wray.OneCPU)) || b.CPU > 0 && wray.CPUs(b.CPU) == 0 {
		return w, fmt.Errorf("%v CPUs: a number of cores is wanted", b.CPU)
	}
	w.CPU = wray.CPUs(b.CPU)
	for name, amount := range b.Resources {
		if !(amount >= 0 && amount <= float64(wray.MaxAmount/wray.OneUnit)) || amount > 0 && wray.CPUs(amount) == 0 {
			return w, fmt.Errorf("%v of resource %q: an amount from 0.0001 to %v is wanted, or 0", amount, name, wray.MaxAmount)
		}
		if amount > 0 {
			w.Custom = append(w.Custom, wray.Custom{Name: name, Amount: wray.Amount(wray.CPUs(amount))})
		}
	}
	slices.SortFunc(w.Custom, func(a, b wray.Custom) int { return strings.Compare(a.Name, b.Name) })
	for _, text := range b.Labels {
		s, err := wray.ParseSelector(text)
		if err != nil {
			return w, err
		}
		w.Where = append(w.Where, s)
	}
	return w, nil
}

// Pack has the bundles of a [PlacementGroup] lie on as few nodes as it goes. It is
// the default.
func Pack() Option { return strategy(wray.GroupPack) }

// StrictPack has all bundles of a [PlacementGroup] lie on one node.
func StrictPack() Option { return strategy(wray.GroupStrictPack) }

// StrictSpread has each bundle of a [PlacementGroup] lie on a node of its own.
func StrictSpread() Option { return strategy(wray.GroupStrictSpread) }

func strategy(g wray.GroupStrategy) Option {
	return func(o *options) {
		if !o.making {
			o.bad("%v is an option of placement groups", g)
		}
		o.strategy = g
	}
}

// InGroup has the task, or the actor, run in a bundle of a placement group, by the
// bundle's number from 0 on; [AnyBundle] is whichever has room. It holds what it
// asks for of the bundle, and fails with wray.ErrUnschedulable where that has not
// so much, and with wray.ErrGroupRemoved when the group is removed. It does not
// go with other options about nodes.
func InGroup(pg Group, bundle int) Option {
	return func(o *options) {
		switch {
		case pg.p == nil:
			o.bad("InGroup: the zero Group is no placement group")
		case bundle < AnyBundle || bundle >= wray.MaxBundles:
			o.bad("InGroup: bundle %d: a number from 0 on, or AnyBundle, is wanted", bundle)
		}
		o.in, o.bundle = pg.p, nil
		if bundle != AnyBundle {
			o.bundle = strconv.AppendInt(nil, int64(bundle), 10)
		}
		o.flags |= rt.InGroup
	}
}

// CaptureTasks has what a task or an actor with [InGroup] submits run in the same
// group, in any bundle, unless it has options about nodes of its own.
func CaptureTasks() Option { return func(o *options) { o.flags |= rt.Capture } }

// checkGroup finds options about groups that do not go with others.
func (o *options) checkGroup(k declKind) {
	switch {
	case o.flags&rt.Capture != 0 && o.in == nil:
		o.bad("CaptureTasks goes with InGroup")
	case o.in != nil && k == declMethod:
		o.bad("InGroup is an option of tasks and actors: a method runs where its actor is")
	case o.in != nil && o.places != nil:
		o.bad("InGroup does not go with Spread, OnNode, PreferNode and Labels: where the task runs was said when the group was made")
	}
}

// Ready waits until all bundles are set aside, and returns why they cannot be.
func (pg Group) Ready(ctx context.Context) error {
	_, err := pg.Ref().Get(ctx)
	return err
}

// Ref returns a reference to a value that is there when all bundles are set aside,
// to be waited for together with others.
func (pg Group) Ref() Ref[struct{}] { return Ref[struct{}](pg) }

func (pg Group) ref() *rt.Ref { return pg.p }

// IsZero reports whether pg is the zero Group.
func (pg Group) IsZero() bool { return pg.p == nil }

// Remove gives back what the group has set aside. What runs in it is ended, and
// fails with wray.ErrGroupRemoved, as does what waits for it. To remove it twice
// is no error.
func (pg Group) Remove() error {
	if pg.p == nil {
		return errZeroGroup
	}
	return local("remove the placement group", rt.Kill(pg.p, false))
}

// LookupGroup returns the placement group that a job made with the option [Name];
// the error is wray.ErrGroupRemoved where there is none, or none any more.
func LookupGroup(name string) (Group, error) {
	r, err := rt.LookupActor(abi.GroupName + name)
	if errno, ok := err.(rt.Errno); ok && abi.Errno(errno) == abi.ENOENT {
		return Group{}, &wray.Error{Code: wray.CodeGroupRemoved, Message: fmt.Sprintf("there is no placement group of the name %q", name),
			Hint: "groups get names by sdk.Name, and lose them when they are removed"}
	}
	if err != nil {
		return Group{}, local("look up the placement group", err)
	}
	return Group{r}, nil
}

// MarshalCBOR encodes pg inside a value; it is called by the sdk.
func (pg Group) MarshalCBOR() ([]byte, error) { return Ref[struct{}](pg).MarshalCBOR() }

// UnmarshalCBOR decodes a Group inside a value; it is called by the sdk.
func (pg *Group) UnmarshalCBOR(b []byte) error { return (*Ref[struct{}])(pg).UnmarshalCBOR(b) }

var errZeroGroup = &wray.Error{Code: wray.CodeBadArgument, Message: "the zero Group is no placement group"}
