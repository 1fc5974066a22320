// Package sim runs a cluster in one goroutine on virtual time: for each node the
// scheduler of its worker (package scheduler) and what it thinks of the others
// (package liveness), as they are, and between them a network and a control
// state that lose, cut and lapse by a plan that is drawn from a seed. What
// workers say to each other about lent attempts is what package worker says.
//
// It reads no clock: the same Config gives the same run. [Run] checks while it
// goes that every task is done once, and at the end that all resources are free
// again and that nobody was called dead but who had died.
package sim

import (
	"container/heap"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/scheduler"
)

// Config is a run. The zero values of all but Nodes and Tasks have defaults.
type Config struct {
	Nodes int
	Tasks int // that drivers submit; tasks submit more
	Seed  uint64

	// Load is the share of all processors that the drivers' tasks take: 0.7.
	Load float64
	// Quiet has no faults.
	Quiet bool

	// Clock, where it is not nil, is read before and after one of 16 steps of the
	// schedulers, for Report.Step. Nothing else depends on it.
	Clock func() time.Duration
}

// Report is what came of a run.
type Report struct {
	Nodes   int           `json:"nodes"`
	Drivers int           `json:"drivers"`
	Virtual time.Duration `json:"virtual_ns"` // that passed

	// Tasks done: of drivers, and of tasks.
	Roots  uint64 `json:"roots"`
	Nested uint64 `json:"nested"`

	Canceled    uint64 `json:"canceled"` // nested ones whose parent's attempt was lost
	Lent        uint64 `json:"lent"`     // attempts
	Refused     uint64 `json:"refused"`  // of those, by peers without room
	Again       uint64 `json:"again"`    // attempts lost with their node, and run again by one that lives
	Crashes     int    `json:"crashes"`
	Blackouts   int    `json:"blackouts"`  // of one node's links, or of one link, for 5 s
	Partitions  int    `json:"partitions"` // in one direction, between two groups
	Unreachable uint64 `json:"unreachable"`
	Condemned   int    `json:"condemned"` // incarnations called dead

	Steps uint64        `json:"steps"`   // of all schedulers: an event and the decisions about it
	Step  time.Duration `json:"step_ns"` // a step's mean, where there was a Clock
}

// Run runs a cluster. The error says what was not as it must be.
func Run(c Config) (Report, error) {
	if c.Nodes < 2 || c.Nodes > maxNodes || c.Tasks < 1 {
		return Report{}, fmt.Errorf("sim: %d nodes and %d tasks: want 2 to %d, and one at least", c.Nodes, c.Tasks, maxNodes)
	}
	if c.Load == 0 {
		c.Load = 0.7
	}
	w := newWorld(c)
	w.plan()
	err := w.loop()
	w.report.Virtual = time.Duration(w.now)
	if w.timed > 0 {
		w.report.Step = w.spent / time.Duration(w.timed)
	}
	if err != nil {
		return w.report, fmt.Errorf("seed %d, at %v: %w", c.Seed, time.Duration(w.now), err)
	}
	return w.report, nil
}

const (
	maxNodes = 10_000
	perOwner = 50 // nodes for each that has a driver
	cpus     = 4  // of a node
	duration = 200 * time.Millisecond

	latency   = int64(300 * time.Microsecond)
	heartbeat = int64(500 * time.Millisecond)
	ttl       = int64(8 * time.Second) // liveness.DefaultTTL, which the run checks
	renewal   = ttl / 8                // as package directory has it
	blackout  = int64(5 * time.Second)
	settle    = int64(60 * time.Second) // in which all must be free again
)

// world is a run.
type world struct {
	cfg    Config
	rng    *rand.Rand
	now    int64
	seq    uint64
	events events
	nodes  []*node
	byName map[string]int
	net    network
	ctl    control
	report Report

	left     int // of the drivers' tasks
	calm     int64
	failure  error
	timed    int64
	spent    time.Duration
	decision []scheduler.Decision
}

func newWorld(c Config) *world {
	w := &world{cfg: c, rng: rand.New(rand.NewPCG(c.Seed, 1)), byName: map[string]int{}, left: c.Tasks}
	w.report.Nodes = c.Nodes
	w.report.Drivers = max(1, c.Nodes/perOwner)
	w.net = newNetwork(c.Nodes)
	w.ctl = newControl(c.Nodes)
	for i := range c.Nodes {
		n := &node{w: w, index: i, name: fmt.Sprintf("n%d", i), driver: i < w.report.Drivers}
		w.nodes = append(w.nodes, n)
		w.byName[n.name] = i
	}
	for _, n := range w.nodes {
		w.ctl.register(w, n, 1)
	}
	for _, n := range w.nodes {
		n.boot(1)
	}
	return w
}

// event is something that happens at a time.
type event struct {
	at  int64
	seq uint64
	do  func()
}

type events []event

func (h events) Len() int { return len(h) }
func (h events) Less(i, k int) bool {
	return h[i].at < h[k].at || h[i].at == h[k].at && h[i].seq < h[k].seq
}
func (h events) Swap(i, k int) { h[i], h[k] = h[k], h[i] }

// Push is for container/heap.
func (h *events) Push(x any) { *h = append(*h, x.(event)) }

// Pop is for container/heap.
func (h *events) Pop() any {
	old := *h
	e := old[len(old)-1]
	old[len(old)-1] = event{}
	*h = old[:len(old)-1]
	return e
}

func (w *world) after(d int64, do func()) { w.at(w.now+d, do) }

func (w *world) at(t int64, do func()) {
	w.seq++
	heap.Push(&w.events, event{t, w.seq, do})
}

// fail notes the first thing that is wrong.
func (w *world) fail(format string, a ...any) {
	if w.failure == nil {
		w.failure = fmt.Errorf(format, a...)
	}
}

// loop runs events until the drivers' tasks are done, all faults are over and
// all is free again, or should be.
func (w *world) loop() error {
	var until int64
	for w.failure == nil {
		if len(w.events) == 0 {
			return fmt.Errorf("nothing happens any more, and %d tasks of drivers are not done", w.left)
		}
		e := heap.Pop(&w.events).(event)
		w.now = e.at
		e.do()
		if w.left == 0 && w.now >= w.calm {
			if until == 0 {
				until = w.now + settle
			}
			if w.free() == nil {
				break
			}
			if w.now > until {
				return w.free()
			}
		} else if w.now > w.calm+int64(time.Hour) {
			return fmt.Errorf("%d tasks of drivers are not done: %s", w.left, w.stuck())
		}
	}
	for _, n := range w.nodes {
		if n.up {
			w.report.Again += n.s.Stats(w.now).Retried
		}
	}
	if w.failure == nil {
		w.failure = w.deaths()
	}
	return w.failure
}

// free says what is held yet.
func (w *world) free() error {
	for _, n := range w.nodes {
		if !n.up {
			continue
		}
		if h := n.s.Held(); h.Held != (wray.Resources{}) || len(h.Custom) > 0 {
			return fmt.Errorf("%v after the last task node %s holds %+v", time.Duration(settle), n.name, h)
		}
		if len(n.runs) > 0 || len(n.guests) > 0 {
			return fmt.Errorf("node %s has %d attempts and %d of others", n.name, len(n.runs), len(n.guests))
		}
		if st := n.s.Stats(w.now); st.Waiting+st.Running+st.Blocked+st.Lent > 0 || st.Held != (wray.Resources{}) {
			return fmt.Errorf("node %s has tasks: %+v", n.name, st)
		}
	}
	return nil
}

// deaths holds that who died is dead, and nobody else is.
func (w *world) deaths() error {
	for _, n := range w.nodes {
		for inc := uint64(1); inc <= n.incarnation; inc++ {
			died := inc < n.incarnation || !n.up
			if dead := w.ctl.dead[n.index] >= inc; dead && !died {
				return fmt.Errorf("node %s, incarnation %d, was called dead and lives", n.name, inc)
			} else if !dead && died {
				return fmt.Errorf("node %s, incarnation %d, died and was not called dead", n.name, inc)
			}
		}
	}
	for _, n := range w.nodes {
		if !n.up {
			continue
		}
		for _, o := range w.nodes {
			if o == n || !o.up {
				continue
			}
			if st, inc := n.view.Status(o.name); inc != o.incarnation || st != alive {
				return fmt.Errorf("to node %s, node %s#%d is #%d, %v", n.name, o.name, o.incarnation, inc, st)
			}
		}
	}
	return nil
}

// stuck describes a task that is not done.
func (w *world) stuck() string {
	for _, n := range w.nodes {
		for _, t := range n.open {
			return fmt.Sprintf("of node %s, %v, which has %+v", n.name, t.id, n.s.Stats(w.now))
		}
	}
	return "none is known"
}
