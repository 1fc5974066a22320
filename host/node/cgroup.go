package node

import (
	"sync/atomic"

	"github.com/wray-project/wray/host/jail"
	"github.com/wray-project/wray/host/worker"
)

// spawned counts the workers of this process, to name their control groups.
var spawned atomic.Uint64

// cgroupLimits is what the kernel holds a worker to, where control groups can
// be made: what its own accounting should hold it to, and room for what that
// does not count. A worker that passes it is killed, in place of something else
// of the machine.
func (n *Node) cgroupLimits() jail.CgroupLimits {
	machine := worker.DefaultMemory()
	memory := n.cfg.Capacity.Memory
	if memory <= 0 {
		memory = machine
	}
	store := n.cfg.StoreBytes
	if store <= 0 {
		store = worker.DefaultStore(memory)
	}
	return jail.CgroupLimits{
		Memory: min(memory+store+memory/8+workerOverhead, machine/100*95),
		// Under contention the node and the user's other programs go first.
		CPUWeight: 50,
	}
}

// workerOverhead is memory of a worker beside sandboxes and objects: compiled
// code, the collector's slack, queues.
const workerOverhead = 512 << 20

func closeGroup(g *jail.Cgroup) {
	if g != nil {
		_ = g.Close() // a group that cannot be removed is empty
	}
}
