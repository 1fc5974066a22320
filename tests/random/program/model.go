package program

// Codes of failures, as wray.Code names them.
const (
	userError  = "UserError"
	canceled   = "Canceled"
	dependency = "DependencyFailed"
	actorDied  = "ActorDied"
	objectLost = "ObjectLost"
)

// kind is what a slot holds.
type kind uint8

const (
	bytesRef kind = iota + 1
	boxRef
	actorRef
	sharedRef
)

// slot is what a reference stands for.
type slot struct {
	kind  kind
	value []byte   // of a bytesRef
	box   [2]*slot // of a boxRef
	actor *actor   // of an actorRef or a sharedRef
	fails string   // the code that it fails with, "" where it does not
	or    string   // another that it may fail with, which comes first being open
	none  bool     // no object stands behind it
	block *blocked // the task that it is made by, or waits for; nil where it comes by itself
}

// blocked is a task that runs until it is canceled.
type blocked struct{ canceled bool }

type actor struct {
	key   uint64 // what it was made with
	state uint64
	rung  uint64 // by its timers, when they have all gone off
	held  []*slot
	dead  bool
}

// waits reports whether s cannot come before a task is canceled.
func (s *slot) waits() bool { return s.block != nil && !s.block.canceled }

// sendable reports whether s may be sent inside a value. What the program has
// freed itself may not, nor what it made of that: there is no object.
func (s *slot) sendable() bool { return s != nil && !s.none }

// uses makes s depend on args: it fails when one of them does.
func (s *slot) uses(args ...*slot) *slot {
	for _, a := range args {
		s.none = s.none || a.none
		switch {
		case a.waits():
			s.block = a.block
			s.fails = dependency
		case a.fails != "":
			s.fails = dependency
		}
	}
	return s
}

// outcome is what reading s in a step gives.
func (s *slot) outcome(step int) Outcome {
	o := Outcome{Step: step, Got: Value(s.value)}
	switch {
	case s.fails != "":
		o.Got = Failed(s.fails)
		if s.or != "" {
			o.Or = Failed(s.or)
		}
	case s.kind == boxRef:
		o.Got = "a box"
	}
	return o
}

// Model runs a program in memory. It returns the steps that do something, with
// what a run for real has to add to them, and what its reads give.
func Model(ops []Op) (plan []Op, want []Outcome) {
	var slots [Slots]*slot
	var blocks []*blocked
	named := map[int]*actor{}
	at := func(i int, k kind) *slot {
		if s := slots[i]; s != nil && s.kind == k {
			return s
		}
		return nil
	}
	for i, o := range ops {
		a, b, act, other, shared := at(o.A, bytesRef), at(o.B, bytesRef), at(o.A, actorRef), at(o.B, actorRef), at(o.A, sharedRef)
		var made *slot
		does := true
		switch o.Kind {
		case Put, Build, Fill:
			made = &slot{kind: bytesRef, value: Bytes(o.Key, o.N)}
		case Mix:
			if does = a != nil && b != nil; does {
				made = (&slot{kind: bytesRef, value: Mixed(Sum(a.value), Sum(b.value))}).uses(a, b)
			}
		case Nest:
			made = &slot{kind: bytesRef, value: Nested(o.Key, o.N)}
		case Free:
			made = &slot{kind: bytesRef, fails: objectLost, none: true}
		case Fail:
			made = &slot{kind: bytesRef, fails: userError}
		case Block:
			made = &slot{kind: bytesRef, block: &blocked{}, fails: canceled}
			blocks = append(blocks, made.block)
		case Cancel:
			if does = a != nil && a.waits() && a.fails == canceled; does {
				a.block.canceled = true
			}
		case Box:
			if does = a.sendable() && b.sendable(); does {
				made = &slot{kind: boxRef, box: [2]*slot{a, b}}
			}
		case Unbox:
			s := at(o.A, boxRef)
			if does = s != nil; does {
				made = s.box[o.N]
			}
		case Actor:
			made = &slot{kind: actorRef, actor: &actor{key: o.Key, state: o.Key}}
		case Named:
			if n := named[o.N]; n == nil || n.dead {
				named[o.N] = &actor{key: o.Key, state: o.Key}
			}
			made = &slot{kind: actorRef, actor: named[o.N]}
		case Shared:
			made = &slot{kind: sharedRef, actor: &actor{key: o.Key}}
		case Add, Total:
			if does = shared != nil && (o.Kind == Total || b.sendable() && !b.waits()); does {
				made = shared.actor.share(o.Kind, b)
			}
		case Via:
			if does = act != nil && b.sendable() && !b.waits() && !(act.actor.dead && b.fails != ""); does {
				made = act.actor.call(Call, b)
				if made.fails != "" {
					made.value, made.fails = []byte(Failed(made.fails)), ""
				}
			}
		case Relay:
			if does = act != nil && other != nil && act.actor != other.actor; does {
				made = act.actor.relay(other.actor)
			}
		case Stream:
			if does = act != nil; does {
				want = append(want, act.actor.stream(o.N, i))
			}
		case Arm:
			if does = act != nil; does {
				made = act.actor.call(o.Kind, nil)
				act.actor.rung += o.Key
			}
		case Rung:
			if does = act != nil; does {
				made = act.actor.call(o.Kind, nil)
			}
		case Call, Hold, Read:
			if does = act != nil && (o.Kind == Read || b.sendable() && !b.waits()); does {
				made = act.actor.call(o.Kind, b)
			}
		case Kill:
			if act == nil {
				act = shared
			}
			if does = act != nil; does {
				act.actor.dead = true
			}
		case Restart:
			if act == nil {
				act = shared
			}
			does = act != nil && !act.actor.dead
		case Drop:
			slots[o.A] = nil
		case Get:
			s := slots[o.A]
			if does = s != nil && s.kind != actorRef && s.kind != sharedRef && !s.waits(); does {
				want = append(want, s.outcome(i))
			}
		}
		if made != nil {
			slots[o.Out] = made
		}
		if does {
			o.Step = i
			plan = append(plan, o)
		}
	}
	plan = append(plan, Op{Kind: CancelAll})
	for _, b := range blocks {
		b.canceled = true
	}
	for i, s := range slots {
		if s != nil && s.kind != actorRef && s.kind != sharedRef {
			plan = append(plan, Op{Kind: Get, A: i, Step: len(ops) + i})
			want = append(want, s.outcome(len(ops)+i))
		}
	}
	return plan, want
}

// call returns the result of a call of a, which b, where it is not nil, does
// not keep waiting.
func (a *actor) call(kind string, b *slot) *slot {
	s := &slot{kind: bytesRef}
	switch {
	case a.dead:
		if kind == Call && b.fails != "" {
			s.or, s.none = dependency, b.none
		}
		s.fails = actorDied
	case kind == Call:
		if s.uses(b); s.fails == "" {
			a.state = Sum(Mixed(a.state, Sum(b.value)))
		}
	case kind == Hold:
		a.held = append(a.held, b)
	case kind == Read:
		for _, h := range a.held {
			if h.fails == "" {
				a.state = Sum(Mixed(a.state, Sum(h.value)))
			}
		}
	}
	s.value = Bytes(a.state, 16)
	if kind == Rung {
		s.value = Bytes(a.rung, 16)
	}
	return s
}

// relay returns the result of a's calling b.
func (a *actor) relay(b *actor) *slot {
	if a.dead {
		return &slot{kind: bytesRef, fails: actorDied}
	}
	got := b.call(Call, &slot{kind: bytesRef, value: RelayValue})
	if got.fails != "" {
		got.value = []byte(Failed(got.fails))
	}
	a.state = Sum(Mixed(a.state, Sum(got.value)))
	return &slot{kind: bytesRef, value: Bytes(a.state, 16)}
}

// share returns the result of a call of a, which takes several at once.
func (a *actor) share(kind string, b *slot) *slot {
	s := &slot{kind: bytesRef}
	switch {
	case a.dead:
		s.fails = actorDied
	case kind == Total:
		s.value = Bytes(a.state, 16)
	case b.fails != "":
		s.value = Bytes(a.key, 16)
	default:
		a.state += Sum(b.value)
		s.value = Mixed(a.key, Sum(b.value))
	}
	return s
}

// stream is what reading a stream of a gives in a step.
func (a *actor) stream(n, step int) Outcome {
	if a.dead && n%8 > 0 { // who reads no item is told nothing
		return Outcome{Step: step, Got: Failed(actorDied)}
	}
	var sum uint64
	for i := range min(n%8, n/8) {
		sum = Sum(Mixed(sum, Sum(Item(a.state, i))))
	}
	return Outcome{Step: step, Got: Value(Bytes(sum, 8))}
}
