package rewrite

import "slices"

// The call of the host in a loop is rare, but the engine's register allocator
// does not know: a loop's variables that live across it get a store in memory
// each time they are set, in every round. So a jump back hands the variables of
// a short loop to a function of the pass, which calls the host and returns them:
// they do not live across the call, and on the fast way stay in registers. Which
// locals are handed over changes nothing but speed.

const (
	// carriedRange bounds the bytes of code of a loop that is looked at, and
	// carriedBudget the bytes looked at in a body, as a multiple of its size.
	carriedRange  = 2 << 10
	carriedBudget = 4
	// carriedMost bounds what is handed over.
	carriedMost = 14
)

// carried returns the locals that the code from one byte up to the present
// instruction reads and later sets: the variables of a loop whose text that is.
// depth is the number of blocks open at its beginning.
func (e *emitter) carried(from, depth int) []uint32 {
	b := &e.meter
	to := e.w.start
	if to-from > carriedRange || b.looked > carriedBudget*len(e.w.b) {
		return nil
	}
	b.looked += to - from
	s := &b.scan
	s.m, s.tailCalls, s.locals, s.done = e.w.m, e.w.tailCalls, e.w.locals, false
	s.reader = reader{b: e.w.b[:to], pos: from}
	s.ctrl = s.ctrl[:0]
	for range depth {
		s.ctrl = append(s.ctrl, label{op: opBlock})
	}
	b.read, b.written = b.read[:0], b.written[:0]
	const most = 32 // a loop with more variables does not have them in registers
	for s.pos < to && s.next() {
		switch s.op {
		case opLocalGet:
			if len(b.read) < most && !slices.Contains(b.written, s.x) && !slices.Contains(b.read, s.x) {
				b.read = append(b.read, s.x)
			}
		case opLocalSet, opLocalTee:
			if len(b.written) < most && !slices.Contains(b.written, s.x) {
				b.written = append(b.written, s.x)
			}
		}
	}
	vars := b.read[:0]
	for _, x := range b.read {
		if slices.Contains(b.written, x) && len(vars) < carriedMost {
			vars = append(vars, x)
		}
	}
	return vars
}

// refillCarrying calls the host as refill does, and hands vars through.
func (e *emitter) refillCarrying(vars []uint32) {
	if len(vars) == 0 {
		e.refill()
		return
	}
	b := &e.meter
	types := make([]byte, len(vars))
	for i, x := range vars {
		types[i] = byte(e.localType(x))
		e.ins1(opLocalGet, x)
	}
	e.ins1(opCall, b.plan.helpers.get(helper{op: opNop, vars: string(types)}))
	for i := len(vars) - 1; i >= 0; i-- {
		e.ins1(opLocalSet, vars[i])
	}
	if b.cached >= 0 {
		e.ins1(opGlobalGet, b.plan.fuel)
		e.ins1(opLocalSet, b.local)
	}
}

// carry writes the function that refillCarrying calls.
func (b helperBody) carry() {
	b.ins1(opCall, b.r.meter.check)
	for i := range len(b.k.vars) {
		b.ins1(opLocalGet, uint32(i))
	}
	b.ins(opEnd)
}

// localType returns the type of a local of the function that is written.
func (e *emitter) localType(x uint32) valType {
	m, b := e.r.m, &e.meter
	params := m.types[m.funcs[b.index]].params
	if int(x) < len(params) {
		return valType(params[x])
	}
	x -= uint32(len(params))
	r := reader{b: m.bodies[b.index].locals}
	for range r.u32() {
		n, t := r.u32(), valType(r.byte())
		if x < n {
			return t
		}
		x -= n
	}
	panic("BUG: a local that is not declared")
}
