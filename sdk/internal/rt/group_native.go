//go:build !wasip1

package rt

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/wasm/abi"
)

// group is a placement group. Nothing is set aside, as nothing is held: what is
// left of it is who runs in it, and that it ends. All fields but spec are guarded
// by state.
type group struct {
	name    string
	spec    *wray.GroupSpec
	ref     *Ref
	removed bool
	tasks   map[*task]bool // that have not ended
}

// namedGroups holds the groups that have a name. Guarded by state.
var namedGroups = map[string]*group{}

// errGroupRemoved is the cause of a cancellation by the end of a group.
var errGroupRemoved = errors.New("the placement group was removed")

func groupRemoved() *wray.Error {
	return &wray.Error{Code: wray.CodeGroupRemoved, Message: "the placement group was removed", Hint: "remove a group when nothing runs in it any more"}
}

// newGroup makes the group that s describes, or finds the one of its name.
func newGroup(s *Spec) (*Ref, error) {
	spec, err := wray.ParseGroup(string(s.Place))
	if err != nil {
		return nil, &wray.Error{Code: wray.CodeBadArgument, Message: err.Error()}
	}
	failed := func(e *wray.Error) *Ref { return &Ref{object: &object{ready: true, value: encodeError(e)}} }
	if spec.Strategy == wray.GroupStrictSpread && len(spec.Bundles) > 1 {
		return failed(&wray.Error{Code: wray.CodeUnschedulable,
			Message: fmt.Sprintf("the placement group wants %d nodes, and one process is one", len(spec.Bundles)),
			Hint:    "one process (go run) is a cluster of one; wray run has nodes"}), nil
	}
	state.Lock()
	defer state.Unlock()
	if s.Flags&Named != 0 {
		if g := namedGroups[s.Name]; g != nil {
			if s.Flags&GetIfExists != 0 {
				return g.ref, nil
			}
			return failed(&wray.Error{Code: wray.CodeBadArgument, Message: fmt.Sprintf("there is a placement group of the name %q", s.Name),
				Hint: "give it another name, or use the option GetIfExists"}), nil
		}
	}
	g := &group{name: s.Name, spec: spec, tasks: map[*task]bool{}}
	g.ref = &Ref{object: &object{ready: true, value: Value{Encoding: abi.EncodingCBOR, Data: []byte{0xa0}, Owned: true}}, group: g}
	if s.Flags&Named != 0 {
		namedGroups[s.Name] = g
	}
	return g.ref, nil
}

// join enters t into the group behind r, which it is to run in.
func (t *task) join(r *Ref) error {
	if r == nil || r.group == nil {
		if r != nil && r.object != nil && r.Ready() {
			if v := r.object.read(); v.Encoding == abi.EncodingError {
				return &wray.Error{Code: wray.CodeDependencyFailed, Message: "its placement group failed", Cause: decodeError(v.Data)}
			}
		}
		return Errno(abi.EBADF)
	}
	g := r.group
	if len(t.spec.Place) > 0 {
		if n, err := strconv.Atoi(string(t.spec.Place)); err != nil || n >= len(g.spec.Bundles) {
			return wray.Errorf(wray.CodeBadArgument, "bundle %s of the placement group is wanted: it has %d, from 0 on", t.spec.Place, len(g.spec.Bundles))
		}
	}
	state.Lock()
	defer state.Unlock()
	if g.removed {
		return groupRemoved()
	}
	g.tasks[t] = true
	t.group = g
	return nil
}

// leaveLocked is called when t has ended.
func (t *task) leaveLocked() {
	if t.group != nil {
		delete(t.group.tasks, t)
	}
}

// remove ends a group, and what runs in it.
func (g *group) remove() {
	state.Lock()
	g.removed = true
	if namedGroups[g.name] == g {
		delete(namedGroups, g.name)
	}
	var tasks []*task
	for t := range g.tasks {
		tasks = append(tasks, t)
		if a := t.actor; a != nil {
			if a.ending == nil {
				a.ending = groupRemoved()
			}
			a.final = true
			a.unnameLocked()
		}
	}
	broadcastLocked()
	state.Unlock()
	for _, t := range tasks {
		if t.actor == nil {
			t.cancel(errGroupRemoved)
		}
	}
}

// lookupGroupLocked returns the group of a name as LookupActor is given it. False:
// it is no group's.
func lookupGroupLocked(name string) (*Ref, bool) {
	name, yes := strings.CutPrefix(name, abi.GroupName)
	if g := namedGroups[name]; yes && g != nil {
		return g.ref, true
	}
	return nil, yes
}
