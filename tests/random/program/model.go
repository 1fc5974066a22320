package program

// Codes of failures, as wray.Code names them.
const (
	userError  = "UserError"
	canceled   = "Canceled"
	dependency = "DependencyFailed"
	actorDied  = "ActorDied"
)

// kind is what a slot holds.
type kind uint8

const (
	bytesRef kind = iota + 1
	boxRef
	actorRef
)

// slot is what a reference stands for.
type slot struct {
	kind  kind
	value []byte   // of a bytesRef
	box   [2]*slot // of a boxRef
	actor *actor   // of an actorRef
	fails string   // the code that it fails with, "" where it does not
	or    string   // another that it may fail with, which comes first being open
	block *blocked // the task that it is made by, or waits for; nil where it comes by itself
}

// blocked is a task that runs until it is canceled.
type blocked struct{ canceled bool }

type actor struct {
	state uint64
	held  []*slot
	dead  bool
}

// waits reports whether s cannot come before a task is canceled.
func (s *slot) waits() bool { return s.block != nil && !s.block.canceled }

// uses makes s depend on args: it fails when one of them does.
func (s *slot) uses(args ...*slot) *slot {
	for _, a := range args {
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
	at := func(i int, k kind) *slot {
		if s := slots[i]; s != nil && s.kind == k {
			return s
		}
		return nil
	}
	for i, o := range ops {
		a, b, act := at(o.A, bytesRef), at(o.B, bytesRef), at(o.A, actorRef)
		var made *slot
		does := true
		switch o.Kind {
		case Put:
			made = &slot{kind: bytesRef, value: Bytes(o.Key, o.N)}
		case Mix:
			if does = a != nil && b != nil; does {
				made = (&slot{kind: bytesRef, value: Mixed(Sum(a.value), Sum(b.value))}).uses(a, b)
			}
		case Nest:
			made = &slot{kind: bytesRef, value: Nested(o.Key, o.N)}
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
			if does = a != nil && b != nil; does {
				made = &slot{kind: boxRef, box: [2]*slot{a, b}}
			}
		case Unbox:
			s := at(o.A, boxRef)
			if does = s != nil; does {
				made = s.box[o.N]
			}
		case Actor:
			made = &slot{kind: actorRef, actor: &actor{state: o.Key}}
		case Call, Hold, Read:
			if does = act != nil && (o.Kind == Read || b != nil && !b.waits()); does {
				made = act.actor.call(o.Kind, b)
			}
		case Kill:
			if does = act != nil; does {
				act.actor.dead = true
			}
		case Restart:
			does = act != nil && !act.actor.dead
		case Drop:
			slots[o.A] = nil
		case Get:
			s := slots[o.A]
			if does = s != nil && s.kind != actorRef && !s.waits(); does {
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
		if s != nil && s.kind != actorRef {
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
			s.or = dependency
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
	return s
}
