package node

import (
	"math"
	"sync/atomic"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/host/control"
	"github.com/wray-project/wray/host/jail"
	"github.com/wray-project/wray/host/worker"
)

// spawned counts the workers of this process, to name their control groups.
var spawned atomic.Uint64

// cgroupLimits is what the kernel holds a worker to, where control groups can
// be made: what its own accounting should hold it to, and room for what that
// does not count. A worker that passes it is killed, in place of something else
// of the machine.
func (t *tenant) cgroupLimits() jail.CgroupLimits {
	n := t.n
	r := t.record()
	machine := worker.DefaultMemory()
	memory := n.cfg.Capacity.Memory
	if memory <= 0 {
		memory = machine
	}
	store := n.cfg.StoreBytes
	if store <= 0 {
		store = worker.DefaultStore(memory)
	}
	if q := r.Quota.Memory; q > 0 {
		memory = min(memory, q)
	}
	if q := r.Quota.ObjectBytes; q > 0 {
		store = min(store, q)
	}
	return jail.CgroupLimits{
		Memory: min(memory+store+memory/8+workerOverhead, machine/100*95),
		// Under contention the node and the user's other programs go first.
		CPUWeight: max(1, int(math.Round(ownWeight*weightOf(r)))),
		// What the worker does beside its tasks, such as collecting garbage, counts.
		CPUMax: int(r.Quota.CPU * 1000 / int64(wray.OneCPU)),
	}
}

// ownWeight is a worker's weight by control groups, where its tenant's is 1.
const ownWeight = 50

// weightOf is a tenant's share of what several want.
func weightOf(r control.Tenant) float64 {
	if r.Weight == 0 {
		return 1
	}
	return r.Weight
}

// reweigh has the kernel share the processors between the workers by the weights
// that their tenants have now.
func (n *Node) reweigh() {
	for _, t := range n.allTenants() {
		if w := t.current(); w != nil {
			w.weigh(t)
		}
	}
}

// weigh gives the worker its share: by its control group, or, where it has none
// with processors, by how nice it is, next to the heaviest tenant.
func (w *workerProcess) weigh(t *tenant) {
	if w.group != nil && w.group.SharesCPU() {
		_ = w.group.Set(t.cgroupLimits()) // as when it was made: doctor says what is missing
		return
	}
	if n := t.niceness(); n > 0 {
		_ = w.proc.Nice(n) // a worker that is nicer than it is to be stays so: only root may go back
	}
}

// niceness is how nice a worker is to be that the kernel gives a share by: each
// step is a quarter less (sched(7)).
func (t *tenant) niceness() int {
	n := t.n
	n.mu.Lock()
	own, _ := n.recordLocked(t.name)
	heaviest := 1.0
	for name := range n.tenants {
		r, _ := n.recordLocked(name)
		heaviest = max(heaviest, weightOf(r))
	}
	n.mu.Unlock()
	return min(19, int(math.Round(math.Log(heaviest/weightOf(own))/math.Log(1.25))))
}

// workerOverhead is memory of a worker beside sandboxes and objects: compiled
// code, the collector's slack, queues.
const workerOverhead = 512 << 20

func closeGroup(g *jail.Cgroup) {
	if g != nil {
		_ = g.Close() // a group that cannot be removed is empty
	}
}
