package controltest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/wray-project/wray"
	"github.com/wray-project/wray/host/control"
)

// Seed returns the seed of a test that does things at random, and logs it. The
// variable WRAY_SEED sets it, to do them again.
func Seed(t testing.TB) uint64 {
	seed := rand.Uint64()
	if v := os.Getenv("WRAY_SEED"); v != "" {
		n, err := strconv.ParseUint(v, 10, 64)
		if err != nil {
			t.Fatalf("WRAY_SEED=%q: %v", v, err)
		}
		seed = n
	}
	t.Logf("seed %d; WRAY_SEED=%d does it again", seed, seed)
	return seed
}

// Histories are of concurrent clients, each with a store of its own, which are
// views of the same state.
type Histories struct {
	Clients []control.Store
	Ops     int // of each client
	// Disturb is called meanwhile, and its end waited for, where it is set.
	Disturb func()
	// Patience is how long a client waits for a reply.
	Patience time.Duration
}

// Faulty returns n connections to a store, each of which loses some requests and
// some replies, and is slow at times.
func Faulty(t testing.TB, s control.Store, n int) (out []control.Store) {
	seed := Seed(t)
	for i := range n {
		l := NewLink(s)
		l.SetFaults(&Faults{Rand: rand.New(rand.NewPCG(seed, uint64(i))), DropRequest: 0.03, DropReply: 0.05,
			MaxDelay: 3 * time.Millisecond, GiveUp: 5 * time.Millisecond})
		out = append(out, l)
	}
	return out
}

// CheckHistories has clients read, write, compare-and-set and delete a few keys,
// and claim, move, find and release named actors, all at the same time, and
// checks that what they saw can be put into one order in which each request
// happens between its call and its return, and those whose reply was lost
// whenever, or not at all.
func CheckHistories(t *testing.T, h Histories) {
	seed := Seed(t)
	rec := &recorder{start: time.Now()}
	var wg sync.WaitGroup
	for i, s := range h.Clients {
		c := &client{rec: rec, id: i, s: s, actors: control.NewActors(s), patience: h.Patience, rnd: rand.New(rand.NewPCG(seed, uint64(i))),
			seen: map[string]control.Revision{}, epochs: map[string]control.Actor{}}
		wg.Go(func() {
			for n := range h.Ops {
				c.step(n)
			}
		})
	}
	if h.Disturb != nil {
		h.Disturb()
	}
	wg.Wait()
	kinds := map[string]int{}
	unknown := 0
	for _, o := range rec.ops {
		out := o.Output.(output)
		kinds[fmt.Sprintf("%s %v", o.Input.(input).op, out.result)]++
		if out.result == isUnknown {
			unknown++
		}
	}
	t.Logf("%d requests, %d of unknown end: %v", len(rec.ops), unknown, kinds)
	for key, ops := range byKey(rec.ops) {
		// A history that is right is checked in milliseconds. For one that is
		// wrong all orders of what was lost are tried, which may take for ever.
		res := porcupine.CheckOperationsTimeout(model, ops, 5*time.Second)
		if res != porcupine.Ok {
			t.Errorf("seed %d: what clients saw of %s cannot be put into one order: %v", seed, key, res)
			for _, o := range ops {
				t.Logf("%s: client %d, %v to %v: %s", key, o.ClientId, time.Duration(o.Call), time.Duration(o.Return), model.DescribeOperation(o.Input, o.Output))
			}
		}
	}
}

// input is a request about one key, or one name of an actor.
type input struct {
	op    string // get, put, cas, delete; find, claim, move, release
	key   string
	value string           // put, cas: what is written; actors: who and where
	rev   control.Revision // cas, delete: the condition; move: the epoch
}

type result int

const (
	isOK result = iota
	isAbsent
	isRefused
	isUnknown // it may have happened, or may yet
)

func (r result) String() string { return [...]string{"ok", "absent", "refused", "unknown"}[r] }

type output struct {
	result result
	value  string
	rev    control.Revision // of the record; of an actor the epoch
}

// state is what is under a key. Where it is vague a write whose reply was lost
// made it, and all that is known of its revision is that it is more than rev.
type state struct {
	there bool
	value string
	rev   control.Revision
	vague bool
}

// model says which answers may be given in a state, and which state follows.
var model = porcupine.Model{
	Partition: func(ops []porcupine.Operation) (out [][]porcupine.Operation) {
		for _, p := range byKey(ops) {
			out = append(out, p)
		}
		return out
	},
	Init: func() any { return state{} },
	Step: func(s, in, out any) (bool, any) { return step(s.(state), in.(input), out.(output)) },
	DescribeOperation: func(in, out any) string {
		i, o := in.(input), out.(output)
		return fmt.Sprintf("%s %q if %d: %v %q@%d", i.op, i.value, i.rev, o.result, o.value, o.rev)
	},
}

func byKey(ops []porcupine.Operation) map[string][]porcupine.Operation {
	out := map[string][]porcupine.Operation{}
	for _, o := range ops {
		k := o.Input.(input).key
		out[k] = append(out[k], o)
	}
	return out
}

func step(s state, in input, out output) (bool, state) {
	switch in.op {
	case "get":
		if out.result == isUnknown {
			return true, s
		}
		if out.result == isAbsent {
			return !s.there, s
		}
		if !s.there || s.value != out.value {
			return false, s
		}
		if s.vague {
			return out.rev > s.rev, state{there: true, value: s.value, rev: out.rev}
		}
		return out.rev == s.rev, s
	case "put", "cas", "delete":
		// A vague revision is not the condition's: whoever read that has made
		// it known.
		met := in.op == "put" || s.there && !s.vague && s.rev == in.rev
		after := state{there: in.op != "delete", value: in.value, rev: out.rev}
		if in.op == "delete" {
			after.value = ""
		}
		switch out.result {
		case isOK:
			return met && out.rev > s.rev, after
		case isRefused:
			return !met, s
		}
		if !met {
			return true, s
		}
		after.rev, after.vague = s.rev, true
		return true, after
	case "find":
		switch out.result {
		case isUnknown:
			return true, s
		case isAbsent:
			return !s.there, s
		}
		return s.there && s.value == out.value && s.rev == out.rev, s
	case "claim":
		// IDs are drawn once for each claim, so it is never its own rival.
		switch out.result {
		case isRefused:
			return s.there && s.value == out.value && s.rev == out.rev, s
		case isOK:
			return !s.there, state{there: true, value: in.value, rev: 1}
		}
		if s.there {
			return true, s
		}
		return true, state{there: true, value: in.value, rev: 1}
	case "move":
		// in.value is "ID node": the ID must be the one there.
		met := s.there && idOf(s.value) == idOf(in.value) && s.rev == in.rev
		after := state{there: true, value: in.value, rev: in.rev + 1}
		switch out.result {
		case isRefused:
			return !met, s
		case isOK:
			return met, after
		}
		if met {
			return true, after
		}
		return true, s
	case "release":
		if s.there && idOf(s.value) == in.value {
			return true, state{}
		}
		return true, s
	}
	panic("BUG: no such request: " + in.op)
}

func idOf(value string) string {
	for i := range value {
		if value[i] == ' ' {
			return value[:i]
		}
	}
	return value
}

// recorder keeps what clients did.
type recorder struct {
	start time.Time
	mu    sync.Mutex
	ops   []porcupine.Operation
}

// client does requests one after another.
type client struct {
	rec      *recorder
	id       int
	s        control.Store
	actors   control.Actors
	patience time.Duration
	rnd      *rand.Rand
	seen     map[string]control.Revision // the last that was read of each key
	epochs   map[string]control.Actor
}

// step does request n.
func (c *client) step(n int) {
	ctx, cancel := context.WithTimeout(context.Background(), c.patience)
	defer cancel()
	key := string(rune('a' + c.rnd.IntN(3)))
	in := input{key: "key " + key, value: fmt.Sprintf("%d.%d", c.id, n)}
	var do func() output
	switch r := c.rnd.IntN(20); {
	case r < 4:
		in.op = "get"
		do = func() output {
			r, err := c.s.Get(ctx, key)
			if err == nil {
				c.seen[key] = r.Modified
			}
			return output{result: resultOf(err), value: string(r.Value), rev: r.Modified}
		}
	case r < 6:
		in.op = "put"
		do = func() output { return c.commit(ctx, control.Txn{Do: []control.Op{control.Put(key, []byte(in.value))}}) }
	case r < 10 && c.seen[key] > 0:
		in.op, in.rev = "cas", c.seen[key]
		do = func() output {
			return c.commit(ctx, control.Txn{If: []control.Cond{control.At(key, in.rev)}, Do: []control.Op{control.Put(key, []byte(in.value))}})
		}
	case r < 11 && c.seen[key] > 0:
		in.op, in.rev = "delete", c.seen[key]
		do = func() output {
			return c.commit(ctx, control.Txn{If: []control.Cond{control.At(key, in.rev)}, Do: []control.Op{control.Delete(key)}})
		}
	default:
		in, do = c.actorStep(ctx, "actor "+key, n)
	}
	call := time.Since(c.rec.start)
	out := do()
	o := porcupine.Operation{ClientId: c.id, Input: in, Call: int64(call), Output: out, Return: int64(time.Since(c.rec.start))}
	if out.result == isUnknown && (in.op == "get" || in.op == "find") {
		return // says nothing, and each makes the search longer
	}
	c.rec.mu.Lock()
	defer c.rec.mu.Unlock()
	if out.result == isUnknown {
		// It may happen until the end of time, and its client goes on: to the
		// checker it is somebody else's.
		o.Return = 1 << 62
		o.ClientId = 1000 + len(c.rec.ops)
	}
	c.rec.ops = append(c.rec.ops, o)
}

func (c *client) commit(ctx context.Context, txn control.Txn) output {
	rev, err := c.s.Commit(ctx, txn)
	return output{result: resultOf(err), rev: rev}
}

func (c *client) actorStep(ctx context.Context, name string, n int) (input, func() output) {
	in := input{key: name}
	id := wray.ID{Owner: uint64(c.id + 1), Seq: uint64(n + 1)}
	know := func(e control.Entry[control.Actor], err error) output {
		if err == nil || errors.Is(err, control.ErrConflict) {
			c.epochs[name] = e.Value
		}
		return output{result: resultOf(err), value: e.Value.ID.String() + " " + e.Value.Node, rev: control.Revision(e.Value.Epoch)}
	}
	node := fmt.Sprintf("n%d.%d", c.id, n)
	known, some := c.epochs[name]
	switch r := c.rnd.IntN(8); {
	case r < 2 && some:
		in.op, in.value, in.rev = "move", known.ID.String()+" "+node, control.Revision(known.Epoch)
		return in, func() output { return know(c.actors.Move(ctx, "t", name, known.ID, known.Epoch, node)) }
	case r < 3 && some:
		in.op, in.value = "release", known.ID.String()
		return in, func() output { return output{result: resultOf(c.actors.Release(ctx, "t", name, known.ID))} }
	case r < 5:
		in.op = "find"
		return in, func() output { return know(c.actors.Get(ctx, "t", name)) }
	}
	in.op, in.value = "claim", id.String()+" "+node
	return in, func() output { return know(c.actors.Claim(ctx, "t", name, control.Actor{ID: id, Node: node})) }
}

func resultOf(err error) result {
	switch {
	case err == nil:
		return isOK
	case errors.Is(err, control.ErrConflict), errors.Is(err, control.ErrMoved):
		return isRefused
	case errors.Is(err, control.ErrNotFound):
		return isAbsent
	case errors.Is(err, control.ErrUnavailable):
		return isUnknown
	}
	panic(fmt.Sprintf("BUG: a client cannot tell what this is: %v", err))
}
