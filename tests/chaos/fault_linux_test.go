package chaos

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"syscall"
	"time"
)

// fault is something that goes wrong, on and on.
type fault struct {
	name  string
	every time.Duration // from one to the next
	// lossy: what a node owned may be gone with it.
	lossy bool
	// givesUp: a node that lives may be called dead, and ends then.
	givesUp bool
	// plan draws one.
	plan func(c *cluster, rng *rand.Rand) blow
}

// blow is one fault, once.
type blow struct {
	what  string
	at    time.Duration // since the first round
	lasts time.Duration
	begin func() (end func())
	gone  *node // whom others are to find gone; or nil
}

// faults are those of the matrix. The node of the driver is not killed: its job
// ends with it.
var faults = []fault{
	{name: "baseline"},
	{name: "worker kill", every: 10 * time.Second, lossy: true, plan: func(c *cluster, rng *rand.Rand) blow {
		n := pick(rng, append([]*node{c.head}, c.others...))
		return blow{what: "the worker of " + n.name + " is killed", lasts: time.Second, begin: func() func() {
			if pid := n.worker(); pid != 0 {
				_ = syscall.Kill(pid, syscall.SIGKILL)
			}
			return func() {}
		}}
	}},
	{name: "node kill", every: 25 * time.Second, lossy: true, plan: func(c *cluster, rng *rand.Rand) blow {
		return kill(pick(rng, c.others), span(rng, time.Second, 15*time.Second))
	}},
	{name: "head kill", every: 30 * time.Second, lossy: true, plan: func(c *cluster, rng *rand.Rand) blow {
		return kill(c.head, span(rng, time.Second, 15*time.Second))
	}},
	{name: "blackout", every: time.Minute, plan: func(c *cluster, rng *rand.Rand) blow {
		n := pick(rng, c.nodes)
		return blow{what: n.name + " is without its cable", lasts: 5 * time.Second, begin: n.host.unplug}
	}},
	{name: "asymmetric partition", every: 30 * time.Second, lossy: true, givesUp: true, plan: func(c *cluster, rng *rand.Rand) blow {
		from := pick(rng, c.nodes)
		to := pick(rng, c.nodes)
		for to == from {
			to = pick(rng, c.nodes)
		}
		lasts := span(rng, 2*time.Second, 20*time.Second)
		if (from == c.driver || to == c.driver) && (from == c.head || to == c.head) {
			lasts = 4 * time.Second // longer, and the driver's node is called dead
		}
		return blow{what: from.name + " hears " + to.name + " and is not heard by it", lasts: lasts, begin: func() func() { return from.host.mute(to.host) }}
	}},
}

// kill kills a node, which is started again a time later.
func kill(n *node, lasts time.Duration) blow {
	return blow{what: "node " + n.name + " is killed", lasts: lasts, gone: n, begin: func() func() {
		n.stop(syscall.SIGKILL)
		return n.start
	}}
}

func pick[T any](rng *rand.Rand, of []T) T { return of[rng.IntN(len(of))] }

func span(rng *rand.Rand, from, to time.Duration) time.Duration {
	return from + time.Duration(rng.Int64N(int64(to-from))).Round(100*time.Millisecond)
}

// schedule draws what goes wrong in so much time: at least one, if any.
func (f fault) schedule(c *cluster, rng *rand.Rand, of time.Duration) (all []blow) {
	if f.plan == nil {
		return nil
	}
	for at := time.Second; len(all) == 0 || at+5*time.Second < of; at += f.every {
		b := f.plan(c, rng)
		b.at = at
		if of == 0 { // among all other tests
			b.lasts = min(b.lasts, 5*time.Second)
		}
		all = append(all, b)
	}
	return all
}

func describe(all []blow) string {
	var b strings.Builder
	for _, x := range all {
		fmt.Fprintf(&b, "\n  at %v, for %v: %s", x.at, x.lasts, x.what)
	}
	return b.String()
}
