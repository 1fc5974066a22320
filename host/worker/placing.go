package worker

import (
	"time"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/scheduler"
	"github.com/wray-project/wray/wasm/abi"
)

// patience is how long what no node could ever hold waits for one, where the
// worker may have peers: those that there are have said what they have long
// before, when they begin together, and a node is started again in it.
const patience = 10 * time.Second

// maxPlacement bounds the bytes of a placement.
const maxPlacement = int64(wray.MaxPlacementText)

// readWants reads what a struct task_spec says of what t holds and of the nodes
// that it runs on.
func (g *guest) readWants(v view, b []byte, t *task, spec *scheduler.Spec) (e abi.Errno) {
	if spec.Custom, e = g.readCustom(v, u32(b, abi.SpecCustomPtr), u32(b, abi.SpecCustomLen)); e != abi.Success {
		return e
	}
	if t.flags&abi.SpecInGroup == 0 { // else it is a bundle: see readGroup
		if t.place, e = g.readPlace(v, u32(b, abi.SpecPlacePtr), u32(b, abi.SpecPlaceLen)); e != abi.Success {
			return e
		}
	}
	if t.actor != nil || t.far != nil && t.far.call != nil {
		if len(spec.Custom) > 0 || t.place != nil {
			return abi.EINVAL // its actor holds what there is to hold, and is somewhere
		}
	}
	if t.place != nil {
		spec.Place = g.job.placeOf(t)
	}
	return abi.Success
}

// readPlace reads which nodes a task is to run on; nil: the default.
func (g *guest) readPlace(v view, p, n uint32) (*wray.Placement, abi.Errno) {
	if n == 0 {
		return nil, abi.Success
	}
	if int64(n) > maxPlacement {
		return nil, g.tooMany("bytes of a placement", n, maxPlacement)
	}
	b, ok := v.bytes(p, n)
	if !ok {
		return nil, abi.EFAULT
	}
	g.looked(wray.MaxSelectors)
	g.copied(int(n))
	place, err := wray.ParsePlacement(string(b))
	if err != nil {
		return nil, abi.EINVAL
	}
	return place, abi.Success
}

// LabelBodies returns labels as messages have them.
func LabelBodies(labels []wray.Label) []LabelBody {
	list := make([]LabelBody, 0, len(labels))
	for _, l := range labels {
		list = append(list, LabelBody(l))
	}
	return list
}

func labelsOf(bodies []LabelBody) []wray.Label {
	list := make([]wray.Label, 0, len(bodies))
	for _, b := range bodies {
		list = append(list, wray.Label(b))
	}
	return list
}
