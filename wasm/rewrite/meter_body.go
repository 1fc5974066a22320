package rewrite

// bodyMeter is the state of the meter pass while one body is written.
type bodyMeter struct {
	plan   *meterPlan
	index  uint32 // own function
	blocks []block
	debt   int32 // at this point; dead where it cannot be reached
	unpaid int32 // the largest debt at an exit
	chain  int32 // the most that this function and its callees have outstanding
	loop   uint32
	nest   int // open loops

	entry   uint32 // bytes charged at the entry, 0 none
	patchAt int    // where the entry's fuel charge stands in out, or -1

	cached   int    // index in blocks of the loop whose counter is in local, or -1
	local    uint32 // holds the counter in a cached loop
	hasLocal bool
	spare    uint32 // an i32 local, once there is one
	hasSpare bool

	jump   dispatch
	origin origins

	// For carried.
	scan          walker
	read, written []uint32
	looked        int
}

// block is the meter's part of an open block.
type block struct {
	op    opcode
	debt  int32 // of a loop: at its beginning; else the largest at a jump to its end
	other int32 // of an if: where its condition is false
	// target is, for a block that a dispatch leads to, 1 + its number.
	target int
	from   int // of a loop: the byte at which its text begins
}

const dead = -1

// limit returns the debt above which a check is due. Outside of loops it is
// lower, so that a loop begins with room for a round of its own and need not
// have a check inside that pays for the code before it.
func (b *bodyMeter) limit() int32 {
	return regionLimit - regionLimit/2>>min(b.nest, 10)
}

// beginMeter writes what stands before the body of own function i.
func (e *emitter) beginMeter(i int) {
	b := &e.meter
	p := e.r.meter
	*b = bodyMeter{plan: p, index: uint32(i), blocks: append(b.blocks[:0], block{op: opBlock, debt: dead}),
		loop: p.firstLoop[i], entry: p.stack.entry[i], patchAt: -1, cached: -1, jump: b.jump, origin: b.origin,
		scan: b.scan, read: b.read, written: b.written}
	b.jump.reset()
	b.origin.open(e.w.locals)
	if p.head[i] {
		e.ins1(opGlobalGet, p.fuel)
		e.ins(opI64Const)
		b.patchAt = len(e.out)
		e.out = append(e.out, 0x80, 0x80, 0x80, 0x80, 0) // see patchEntry
		e.ins(opI64Sub)
		e.ins1(opGlobalSet, p.fuel)
	}
	if b.entry > 0 {
		e.takeDepth(b.entry)
		e.testDepth(p.head[i])
		// All jumps to the function's own label now lead to the end of this
		// block, where endMeter gives the depth back.
		_, results := e.r.m.blockTypes(blockType(e.r.m.funcs[i]))
		e.ins(opBlock)
		e.out = append(e.out, e.r.resultType(results)...)
	} else if p.head[i] {
		e.testFuel()
	}
}

// endMeter writes what stands behind the body, whose last end was not copied.
func (e *emitter) endMeter() {
	b := &e.meter
	p := b.plan
	if b.entry > 0 {
		e.ins(opEnd)
		e.giveDepth(b.entry)
	}
	e.ins(opEnd)
	if p.head[b.index] {
		// The entry pays for everything up to the exit, and for what this
		// function and those on the way to the next head have outstanding: calls
		// of heads leave nothing behind, on the way down or on the way up.
		e.patchEntry(max(b.unpaid, b.chain, 0) + costMinimum)
		b.unpaid, b.chain = 0, 0
	}
	p.unpaid[b.index] = uint32(max(b.unpaid, 0))
	p.chain[b.index] = uint32(b.chain)
}

// patchEntry writes the charge into the five bytes that were left for it.
func (e *emitter) patchEntry(charge int32) {
	at := e.out[e.meter.patchAt:]
	for i := range 4 {
		at[i] = byte(charge>>(7*i))&0x7f | 0x80
	}
	at[4] = byte(charge >> 28)
}

func (e *emitter) i64Const(v int64) { e.out = appendS64(append(e.out, byte(opI64Const)), v) }
func (e *emitter) i32Const(v int32) { e.out = appendS64(append(e.out, byte(opI32Const)), int64(v)) }
func (e *emitter) ifEmpty()         { e.out = append(e.out, byte(opIf), 0x40) }

func (e *emitter) takeDepth(n uint32) {
	d := e.r.meter.depth
	e.ins1(opGlobalGet, d)
	e.i64Const(int64(n))
	e.ins(opI64Sub)
	e.ins1(opGlobalSet, d)
}

func (e *emitter) giveDepth(n uint32) {
	d := e.r.meter.depth
	e.ins1(opGlobalGet, d)
	e.i64Const(int64(n))
	e.ins(opI64Add)
	e.ins1(opGlobalSet, d)
}

// testDepth calls the check function when the depth, or with fuel either
// counter, is below zero.
func (e *emitter) testDepth(fuel bool) {
	p := e.r.meter
	e.ins1(opGlobalGet, p.depth)
	if fuel {
		e.ins1(opGlobalGet, p.fuel)
		e.ins(opI64Or)
	}
	e.callCheckIfNegative()
}

func (e *emitter) testFuel() {
	e.ins1(opGlobalGet, e.r.meter.fuel)
	e.callCheckIfNegative()
}

func (e *emitter) callCheckIfNegative() {
	e.i64Const(0)
	e.ins(opI64LtS)
	e.ifEmpty()
	e.ins1(opCall, e.r.meter.check)
	e.ins(opEnd)
}

// takeFuel takes a charge from the counter, wherever it is held, and leaves
// what is left on the stack.
func (e *emitter) takeFuel(charge int32) {
	b := &e.meter
	f := b.plan.fuel
	if b.cached >= 0 {
		// The global is kept in step. That costs a store but no wait for a
		// load, and the counter is right wherever the loop is left.
		e.ins1(opLocalGet, b.local)
		e.i64Const(int64(charge))
		e.ins(opI64Sub)
		e.ins1(opLocalTee, b.local)
		e.ins1(opGlobalSet, f)
		e.ins1(opLocalGet, b.local)
		return
	}
	e.ins1(opGlobalGet, f)
	e.i64Const(int64(charge))
	e.ins(opI64Sub)
	e.ins1(opGlobalSet, f)
	e.ins1(opGlobalGet, f)
}

// refill calls the host for the next value of the counter.
func (e *emitter) refill() {
	b := &e.meter
	if b.cached >= 0 {
		e.ins1(opLocalGet, b.local)
		e.ins1(opCall, b.plan.tick)
		e.ins1(opLocalTee, b.local)
		e.ins1(opGlobalSet, b.plan.fuel)
		return
	}
	e.ins1(opCall, b.plan.check)
}

// pay writes a check that charges at least the debt.
func (e *emitter) pay(charge int32) {
	e.takeFuel(max(charge, costMinimum))
	e.i64Const(0)
	e.ins(opI64LtS)
	e.ifEmpty()
	e.refill()
	e.ins(opEnd)
}

// payJump writes a check and a jump back to the loop at label depth. While
// there is fuel left the jump is the check's own branch.
func (e *emitter) payJump(charge int32, depth uint32, vars []uint32) {
	e.takeFuel(max(charge, costMinimum))
	e.i64Const(0)
	e.ins(opI64GeS)
	e.ins1(opBrIf, depth)
	e.refillCarrying(vars)
	e.ins1(opBr, depth)
}

// add adds the cost of what was just passed to the debt and pays where that is
// due.
func (e *emitter) add(cost int32) {
	b := &e.meter
	if b.debt == dead {
		return
	}
	b.debt += cost
	if b.debt > b.limit() {
		e.flush(e.w.pos)
		e.pay(b.debt)
		b.debt = 0
	}
}

// addBefore is add for an instruction that control leaves: a check stands before
// it.
func (e *emitter) addBefore(cost int32) {
	b := &e.meter
	if b.debt == dead {
		return
	}
	b.debt += cost
	if b.debt > b.limit() {
		e.flush(e.w.start)
		e.pay(b.debt)
		b.debt = 0
	}
}

// metered follows the instruction that w read and writes the checks it needs.
func (e *emitter) metered() {
	w, b := &e.w, &e.meter
	switch w.op {
	case opBlock, opIf, opLoop:
		e.openBlock()
	case opElse:
		top := &b.blocks[len(b.blocks)-1]
		top.debt = max(top.debt, b.debt)
		b.debt, top.other = top.other, dead
	case opEnd:
		e.closeBlock()
	case opBr, opBrIf:
		e.branch()
	case opBrTable:
		e.branchTable()
	case opReturn:
		e.payExit()
		if b.entry > 0 {
			e.replace()
			e.ins1(opBr, uint32(len(w.ctrl)-1))
		}
		b.exit(b.debt)
		b.debt = dead
	case opUnreachable:
		b.debt = dead
	case opCall, opReturnCall:
		e.directCall()
	case opCallIndirect, opReturnCallInd:
		e.tableCall()
	case opMemoryInit, opMemoryCopy, opMemoryFill, opTableInit, opTableCopy, opTableFill, opTableGrow:
		e.bulk()
		e.add(int32(opCosts[w.op]))
	default:
		e.common()
		if c := b.origin.cost(w); c > 0 {
			e.add(c)
		}
		b.jump.note(w)
		return
	}
	b.origin.forget()
	b.jump.note(w)
}

// payExit writes a check before the instruction that w read, which may leave the
// function, where that would leave too much unpaid.
func (e *emitter) payExit() {
	if b := &e.meter; b.debt > exitLimit {
		e.flush(e.w.start)
		e.pay(b.debt)
		b.debt = 0
	}
}

// exit records the debt at a way out of the function.
func (b *bodyMeter) exit(debt int32) { b.unpaid = max(b.unpaid, debt) }

func (e *emitter) openBlock() {
	w, b := &e.w, &e.meter
	switch w.op {
	case opIf:
		e.addBefore(costBranch)
		b.blocks = append(b.blocks, block{op: opIf, debt: dead, other: b.debt})
	case opLoop:
		if b.debt != dead && b.plan.quiet[b.loop] && b.cached < 0 {
			if !b.hasLocal {
				b.local, b.hasLocal = e.local(i64), true
			}
			e.flush(w.start)
			e.ins1(opGlobalGet, b.plan.fuel)
			e.ins1(opLocalSet, b.local)
			b.cached = len(b.blocks)
		}
		b.loop++
		b.nest++
		b.blocks = append(b.blocks, block{op: opLoop, debt: b.debt, from: w.pos})
	default:
		b.blocks = append(b.blocks, block{op: opBlock, debt: dead})
	}
}

func (e *emitter) closeBlock() {
	b := &e.meter
	last := len(b.blocks) - 1
	top := b.blocks[last]
	b.blocks = b.blocks[:last]
	if top.op == opLoop {
		b.nest--
		if b.cached == last {
			b.cached = -1
		}
		if b.jump.active && b.jump.loop == last {
			b.jump.reset()
		}
	} else {
		b.debt = max(b.debt, top.debt)
		if top.op == opIf {
			b.debt = max(b.debt, top.other)
		}
	}
	if top.target > 0 {
		b.jump.ended(top.target-1, b.debt, e.w.pos, len(b.blocks))
	}
	if last == 0 {
		e.payExit()
		b.exit(b.debt)
		e.replace()
		e.endMeter()
	}
}

// to returns the block that a label names.
func (b *bodyMeter) to(label uint32) *block { return &b.blocks[len(b.blocks)-1-int(label)] }

func (e *emitter) branch() {
	w, b := &e.w, &e.meter
	if b.debt == dead {
		return
	}
	e.addBefore(costBranch)
	to := b.to(w.x)
	switch {
	case to.op != opLoop:
		to.debt = max(to.debt, b.debt)
	case w.op == opBr:
		if e.dispatched() {
			break
		}
		e.replace()
		e.payJump(b.debt-to.debt, w.x, e.carried(to.from, len(b.blocks)-int(w.x)))
	default:
		e.branchBackIf(to)
	}
	if w.op == opBr {
		b.debt = dead
	}
}

// branchBackIf writes a conditional jump back to a loop.
func (e *emitter) branchBackIf(to *block) {
	w, b := &e.w, &e.meter
	e.replace()
	if params, _ := e.r.m.blockTypes(w.ctrl[len(w.ctrl)-1-int(w.x)].bt); len(params) > 0 {
		// The loop's parameters lie below the condition, out of an if's reach.
		if !b.hasSpare {
			b.spare, b.hasSpare = e.local(i32), true
		}
		e.ins1(opLocalSet, b.spare)
		e.pay(b.debt - to.debt)
		e.ins1(opLocalGet, b.spare)
		e.ins1(opBrIf, w.x)
		return
	}
	e.ifEmpty()
	e.payJump(b.debt-to.debt, w.x+1, e.carried(to.from, len(b.blocks)-int(w.x)))
	e.ins(opEnd)
}

func (e *emitter) branchTable() {
	w, b := &e.w, &e.meter
	if b.debt == dead {
		return
	}
	e.addBefore(costSwitch)
	charge, back := int32(0), false
	each := func(label uint32) {
		to := b.to(label)
		if to.op == opLoop {
			back = true
			charge = max(charge, b.debt-to.debt)
		} else {
			to.debt = max(to.debt, b.debt)
		}
	}
	for _, label := range w.targets {
		each(label)
	}
	each(w.x)
	if back {
		e.flush(w.start)
		e.pay(charge)
	}
	b.jump.begin(b, w)
	b.debt = dead
}

// directCall follows a call of a function by its index.
func (e *emitter) directCall() {
	w, b := &e.w, &e.meter
	m, p := e.r.m, b.plan
	imported := uint32(len(m.importedFuncs))
	tail := w.op == opReturnCall
	cost, chain := int32(costCall), int32(0)
	if w.x < imported {
		cost = costHost
	} else {
		callee := w.x - imported
		chain = int32(p.chain[callee])
		cost += int32(p.unpaid[callee])
	}
	if b.debt != dead {
		if b.debt+chain > chainLimit {
			e.flush(w.start)
			e.pay(b.debt)
			b.debt = 0
		}
		if w.x >= imported {
			b.chain = max(b.chain, b.debt+chain)
		}
		if tail && b.debt+cost > exitLimit {
			e.flush(w.start)
			e.pay(b.debt + cost)
			b.debt = -cost
		}
	}
	e.callInstruction(m.funcType(w.x), func(op opcode) { e.ins1(op, e.r.names.function(w.x)) })
	if !tail {
		e.add(cost)
		return
	}
	if b.debt != dead {
		b.exit(b.debt + cost)
		b.debt = dead
	}
}

// callInstruction writes the call that w read, with the same immediates behind
// it but for the opcode. A tail call leaves the function, so depth is given back
// before it. Where its arguments or results do not fit into registers the engine
// makes it a plain call, so here it becomes one, and the stack is accounted for.
func (e *emitter) callInstruction(t *funcType, write func(op opcode)) {
	w, b := &e.w, &e.meter
	e.replace()
	op := w.op
	if op == opReturnCall || op == opReturnCallInd {
		if inRegisters(t.params) && inRegisters(t.results) {
			if b.entry > 0 {
				e.giveDepth(b.entry)
			}
			write(op)
			return
		}
		write(op - opReturnCall + opCall)
		if b.entry > 0 {
			e.ins1(opBr, uint32(len(w.ctrl)-1))
		} else {
			e.ins(opReturn)
		}
		return
	}
	write(op)
}

// inRegisters reports whether the engine passes values of these types in
// registers: on amd64 it has nine for integers, two of which it needs itself,
// and eight for the rest.
func inRegisters(types []byte) bool {
	ints, rest := 0, 0
	for _, t := range types {
		switch valType(t) {
		case f32, f64, v128:
			rest++
		default:
			ints++
		}
	}
	return ints <= 7 && rest <= 8
}

// tableCall follows a call through a table. What is called is unknown and may
// leave exitLimit unpaid; that is paid beforehand.
func (e *emitter) tableCall() {
	w, b := &e.w, &e.meter
	p := b.plan
	site := p.stack.site[b.index]
	if b.debt == dead {
		return
	}
	charge := b.debt + costTable + exitLimit
	t := &e.r.m.types[w.x]
	if w.op == opReturnCallInd && inRegisters(t.params) && inRegisters(t.results) {
		site = 0
	}
	e.flush(w.start)
	if site > 0 {
		e.takeFuel(charge)
		e.ins(opDrop)
		e.takeDepth(site)
		e.testDepth(true)
	} else {
		e.pay(charge)
	}
	b.debt = 0
	table := w.y
	if w.op == opCallIndirect {
		e.flush(w.pos)
		if site > 0 {
			e.giveDepth(site)
		}
		return
	}
	e.callInstruction(t, func(op opcode) {
		e.out = appendU32(appendU32(append(e.out, byte(op)), w.x), table)
		if op == opCallIndirect && site > 0 { // a tail call that became a plain one
			e.giveDepth(site)
		}
	})
	b.exit(0)
	b.debt = dead
}
