// Package program is random programs of tasks, actors, values and references,
// and the model that says what each of their steps must give. The guest in
// tests/random/guest runs the same programs for real.
package program

import (
	"fmt"
	"hash/fnv"
	"math/rand/v2"
)

// Op is one step of a program. Steps name what they make, and what they use, by
// slots; a step whose slots do not hold what it needs does nothing, so that any
// subset of a program's steps is a program.
type Op struct {
	Kind string
	Out  int    `json:",omitempty"` // the slot that it fills
	A, B int    `json:",omitempty"` // slots that it uses
	N    int    `json:",omitempty"` // a length, a depth, an index
	Key  uint64 `json:",omitempty"`
	Step int    // its place in the program, set by Model
}

// The kinds of steps.
const (
	Put     = "put"     // Out: a value of N bytes made from Key
	Mix     = "mix"     // Out: a task's result from the values A and B
	Nest    = "nest"    // Out: a task's result, by a tree of tasks N deep
	Fail    = "fail"    // Out: a task that fails
	Block   = "block"   // Out: a task that runs until it is canceled
	Cancel  = "cancel"  // cancel the task of A, a Block
	Box     = "box"     // Out: a task's result that holds references to A and B
	Unbox   = "unbox"   // Out: reference N out of the box A
	Actor   = "actor"   // Out: an actor whose state begins with Key
	Call    = "call"    // Out: the actor A's state after the value B was mixed in
	Hold    = "hold"    // Out: the actor A keeps a reference to B; its state
	Read    = "read"    // Out: the actor A's state after what it holds was mixed in
	Kill    = "kill"    // kill the actor A
	Restart = "restart" // end the sandbox of the actor A, shared or not, which starts again
	Drop    = "drop"    // forget A
	Build   = "build"   // Out: a value of N bytes made from Key, written piece by piece
	Fill    = "fill"    // Out: the same, filled in place
	Free    = "free"    // Out: a value that is freed at once
	Via     = "via"     // Out: as Call, by a task that was given the actor A and the value B
	Relay   = "relay"   // Out: the actor A's state after what its call of the actor B gave was mixed in
	Named   = "named"   // Out: the actor of the name N, which is made with Key where there is none
	Stream  = "stream"  // read N%8 items of the actor A's stream of N/8
	Shared  = "shared"  // Out: an actor that has several calls under way
	Add     = "add"     // Out: what the shared actor A makes of B, which it adds to its state
	Total   = "total"   // Out: the shared actor A's state when all its calls are over
	Arm     = "arm"     // Out: the actor A's state, which sets a timer of N ms that counts Key when it goes off
	Rung    = "rung"    // Out: what the actor A's timers have counted, when all have gone off
	Get     = "get"     // read A

	CancelAll = "cancel all" // cancel every Block; only Model makes these
)

// Slots is how many slots a program has.
const Slots = 24

// Generate returns a program of n steps. restarts says whether actors may be
// restarted, which is for those that keep their state when they are.
func Generate(rng *rand.Rand, n int, restarts bool) []Op {
	kinds := []string{Put, Put, Put, Mix, Mix, Mix, Mix, Nest, Fail, Block, Cancel, Box, Box, Unbox, Unbox,
		Actor, Actor, Call, Call, Call, Call, Call, Hold, Hold, Read, Read, Kill, Drop, Drop, Get, Get, Get, Get,
		Build, Fill, Free, Via, Via, Relay, Relay, Named, Named, Stream, Stream, Shared, Add, Add, Add, Total,
		Arm, Arm, Rung}
	if restarts {
		kinds = append(kinds, Restart, Restart, Restart)
	}
	ops := make([]Op, n)
	for i := range ops {
		o := Op{Kind: kinds[rng.IntN(len(kinds))], Out: rng.IntN(Slots), A: rng.IntN(Slots), B: rng.IntN(Slots), Key: rng.Uint64() >> 1}
		switch o.Kind {
		case Put, Build, Fill, Free:
			o.N = rng.IntN(200)
			if rng.IntN(3) == 0 {
				o.N = rng.IntN(300 << 10) // some with memory of their own
			}
		case Nest:
			o.N = rng.IntN(4)
		case Unbox:
			o.N = rng.IntN(2)
		case Named:
			o.N = rng.IntN(3)
		case Stream:
			o.N = rng.IntN(64)
		case Arm:
			o.N = rng.IntN(5)
		}
		ops[i] = o
	}
	return ops
}

// Bytes returns the value of n bytes made from key.
func Bytes(key uint64, n int) []byte {
	b := make([]byte, n)
	x := key | 1
	for i := range b {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		b[i] = byte(x)
	}
	return b
}

// Sum is what a value counts as when it is mixed.
func Sum(b []byte) uint64 {
	h := fnv.New64a()
	h.Write(b)
	return h.Sum64()
}

// Mixed returns the value that mixing makes of two sums.
func Mixed(a, b uint64) []byte {
	k := a*0x9e3779b97f4a7c15 ^ (b + 0x7f4a7c15)
	k ^= k >> 29
	n := int(k % 300)
	if k%5 == 0 {
		n = int(k % (200 << 10))
	}
	return Bytes(k, n)
}

// Nested returns the result of a tree of tasks.
func Nested(key uint64, depth int) []byte {
	if depth == 0 {
		return Mixed(key, 1)
	}
	return Mixed(Sum(Nested(key*3, depth-1)), Sum(Nested(key*5, depth-1)))
}

// Value and Failed are how outcomes are written.
func Value(b []byte) string { return fmt.Sprintf("%d bytes %016x", len(b), Sum(b)) }

// Failed is the outcome of something that failed with a code.
func Failed(code string) string { return "failed: " + code }

// Outcome is what step Step, a Get, gave; steps beyond the program's are the
// reads of all slots at its end.
type Outcome struct {
	Step int
	Got  string
	Or   string `json:",omitempty"` // what it may give as well, of those that Model wants
}

// Check compares what a program gave with what the model says.
func Check(want, got []Outcome) error {
	for i := range max(len(want), len(got)) {
		switch {
		case i >= len(got):
			return fmt.Errorf("step %d gave nothing, want %q", want[i].Step, want[i].Got)
		case i >= len(want):
			return fmt.Errorf("step %d gave %q, want nothing", got[i].Step, got[i].Got)
		case got[i].Step != want[i].Step || got[i].Got != want[i].Got && (want[i].Or == "" || got[i].Got != want[i].Or):
			return fmt.Errorf("step %d gave %q, want step %d with %q", got[i].Step, got[i].Got, want[i].Step, want[i].Got)
		}
	}
	return nil
}

// RelayValue is what one actor calls another with.
var RelayValue = []byte("of an actor")

// Item is item i of an actor's stream.
func Item(state uint64, i int) []byte { return Mixed(state, uint64(i)) }
