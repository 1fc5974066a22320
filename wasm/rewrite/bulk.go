package rewrite

// Bulk instructions do any amount of work at once. Short ones run in place for
// a fixed cost; longer ones in a function of the pass, one for each instruction
// and its immediates, that first checks the bounds of the whole range, as the
// instruction does, and then works in chunks with a check before each. Where
// the range is out of bounds it runs the instruction as it was, which traps
// before it writes anything.
const (
	bulkInline  = 4 << 10  // bytes that run in place
	bulkChunk   = 1 << 20  // bytes between two checks
	bulkShift   = 2        // a unit of cost is 1<<bulkShift bytes
	tableInline = 512      // the same for table entries
	tableChunk  = 64 << 10 //
	tableShift  = 1        //
)

// helpers are the functions for long bulk instructions.
type helpers struct {
	first uint32 // function index of the first
	index map[helper]uint32
	list  []helper
}

// helper names one: an instruction with its immediates.
type helper struct {
	op   opcode
	x, y uint32
	vars string // with opNop: types, see carried.go
}

func (h *helpers) get(k helper) uint32 {
	if i, ok := h.index[k]; ok {
		return i
	}
	if h.index == nil {
		h.index = map[helper]uint32{}
	}
	i := h.first + uint32(len(h.list))
	h.index[k] = i
	h.list = append(h.list, k)
	return i
}

// bulk replaces the bulk instruction that w read.
func (e *emitter) bulk() {
	w, r := &e.w, e.r
	k := helper{op: w.op, x: w.x, y: w.y}
	inline := int32(bulkInline)
	switch w.op {
	case opMemoryInit:
		if r.snap.data != nil {
			k.x = r.snap.data[k.x]
		}
		if n := len(r.m.datas[w.x].data); n <= bulkChunk {
			// The segment itself bounds the work.
			e.common()
			e.add(int32(n >> bulkShift))
			return
		}
	case opTableInit:
		inline = tableInline
		if n := r.m.elems[w.x].n; n <= tableChunk {
			e.add(int32(n >> tableShift))
			return
		}
	case opTableCopy, opTableFill, opTableGrow:
		inline = tableInline
	}
	b := &e.meter
	if !b.hasSpare {
		b.spare, b.hasSpare = e.local(i32), true
	}
	params, results := k.types(r.m)
	e.replace()
	e.ins1(opLocalTee, b.spare)
	e.ins1(opLocalGet, b.spare)
	e.i32Const(inline)
	e.ins(opI32GtU)
	e.ins(opIf)
	e.out = appendS64(e.out, int64(r.extraType(params, results)))
	e.ins1(opCall, r.meter.helpers.get(k))
	e.ins(opElse)
	e.instruction(k)
	e.ins(opEnd)
}

// types returns the operands and results of the instruction.
func (k helper) types(m *module) (params, results []byte) {
	switch k.op {
	case opNop:
		return []byte(k.vars), []byte(k.vars)
	case opTableFill:
		return []byte{byte(i32), byte(m.table(k.x).elem), byte(i32)}, nil
	case opTableGrow:
		return []byte{byte(m.table(k.x).elem), byte(i32)}, []byte{byte(i32)}
	}
	return []byte{byte(i32), byte(i32), byte(i32)}, nil
}

// instruction writes the instruction that k names.
func (e *emitter) instruction(k helper) {
	e.out = append(e.out, prefixFC, byte(k.op-opFC))
	switch k.op {
	case opMemoryInit:
		e.out = append(appendU32(e.out, k.x), 0)
	case opMemoryCopy:
		e.out = append(e.out, 0, 0)
	case opMemoryFill:
		e.out = append(e.out, 0)
	case opTableInit, opTableCopy:
		e.out = appendU32(appendU32(e.out, k.x), k.y)
	case opTableGrow, opTableFill:
		e.out = appendU32(e.out, k.x)
	}
}

// add appends the helpers' functions to m.
func (h *helpers) add(r *rewriter) {
	m := r.m
	for _, k := range h.list {
		params, results := k.types(m)
		hb := helperBody{emitter: &emitter{r: r}, k: k}
		hb.write()
		m.funcs = append(m.funcs, r.extraType(params, results))
		m.bodies = append(m.bodies, body{locals: []byte{0}, code: hb.out})
		r.names.added = append(r.names.added, indexName{h.index[k], ReservedPrefix + k.name()})
	}
}

func (k helper) name() string {
	switch k.op {
	case opNop:
		return "carry"
	case opMemoryInit:
		return "memory.init"
	case opMemoryCopy:
		return "memory.copy"
	case opMemoryFill:
		return "memory.fill"
	case opTableInit:
		return "table.init"
	case opTableCopy:
		return "table.copy"
	case opTableFill:
		return "table.fill"
	}
	return "table.grow"
}

// helperBody writes the body of one helper. Its parameters are, in the order of
// the instruction, to (0), from or the value (1), and n (2).
type helperBody struct {
	*emitter
	k helper
}

const (
	hTo   = 0
	hFrom = 1
	hN    = 2
)

func (b helperBody) write() {
	chunk, shift := int32(bulkChunk), int64(bulkShift)
	if b.k.op == opTableInit || b.k.op == opTableCopy || b.k.op == opTableFill {
		chunk, shift = tableChunk, tableShift
	}
	switch b.k.op {
	case opNop:
		b.carry()
		return
	case opTableGrow:
		b.grow()
		return
	case opMemoryFill, opTableFill:
		b.outOfBounds(hTo, func() { b.size(b.k.x) })
		b.loop(chunk, shift, true, false)
	case opMemoryInit, opTableInit:
		b.outOfBounds(hTo, func() { b.size(b.k.y) })
		b.outOfBounds(hFrom, func() { b.i64Const(int64(b.segment())) })
		// A dropped segment is empty. An instruction without length finds out.
		b.i32Const(0)
		b.sum(hFrom, hN)
		b.i32Const(0)
		b.instruction(b.k)
		b.loop(chunk, shift, true, true)
	case opMemoryCopy, opTableCopy:
		b.outOfBounds(hTo, func() { b.size(b.k.x) })
		b.outOfBounds(hFrom, func() { b.size(b.k.y) })
		// Where the ranges overlap, the direction matters, as in memmove.
		b.ins1(opLocalGet, hTo)
		b.ins1(opLocalGet, hFrom)
		b.ins(opI32LeU)
		b.ifEmpty()
		b.loop(chunk, shift, true, true)
		b.ins(opReturn)
		b.ins(opEnd)
		b.loop(chunk, shift, false, true)
	}
	b.ins(opEnd)
}

// segment returns the length of the segment that the instruction reads.
func (b helperBody) segment() int {
	if b.k.op == opMemoryInit {
		return len(b.r.m.datas[b.k.x].data)
	}
	return int(b.r.m.elems[b.k.x].n)
}

// size writes the size of the memory in bytes or of a table, as an i64.
func (b helperBody) size(table uint32) {
	switch b.k.op {
	case opTableInit, opTableCopy, opTableFill:
		b.out = appendU32(append(b.out, prefixFC, byte(opTableSize-opFC)), table)
		b.ins(opI64ExtendI32U)
	default:
		b.ins1(opMemorySize, 0)
		b.ins(opI64ExtendI32U)
		b.i64Const(16)
		b.ins(opI64Shl)
	}
}

func (b helperBody) sum(x, y uint32) {
	b.ins1(opLocalGet, x)
	b.ins1(opLocalGet, y)
	b.ins(opI32Add)
}

// operands writes the three operands.
func (b helperBody) operands() {
	b.ins1(opLocalGet, hTo)
	b.ins1(opLocalGet, hFrom)
	b.ins1(opLocalGet, hN)
}

// outOfBounds writes: where at + n > size, do as the instruction does.
func (b helperBody) outOfBounds(at uint32, size func()) {
	b.ins1(opLocalGet, at)
	b.ins(opI64ExtendI32U)
	b.ins1(opLocalGet, hN)
	b.ins(opI64ExtendI32U)
	b.ins(opI64Add)
	size()
	b.ins(opI64GtU)
	b.ifEmpty()
	b.operands()
	b.instruction(b.k)
	b.ins(opReturn)
	b.ins(opEnd)
}

// loop works through the range in chunks: upwards, or from its end downwards.
// With from, that moves too.
func (b helperBody) loop(chunk int32, shift int64, up, from bool) {
	advance := func(local uint32, op opcode) {
		b.ins1(opLocalGet, local)
		b.i32Const(chunk)
		b.ins(op)
		b.ins1(opLocalSet, local)
	}
	b.ins(opBlock)
	b.out = append(b.out, 0x40)
	b.ins(opLoop)
	b.out = append(b.out, 0x40)
	b.ins1(opLocalGet, hN)
	b.i32Const(chunk)
	b.ins(opI32LeU)
	b.ins1(opBrIf, 1)
	b.charge(func() { b.i64Const(int64(chunk) >> shift) })
	advance(hN, opI32Sub)
	if up {
		b.ins1(opLocalGet, hTo)
		b.ins1(opLocalGet, hFrom)
	} else {
		b.sum(hTo, hN)
		b.sum(hFrom, hN)
	}
	b.i32Const(chunk)
	b.instruction(b.k)
	if up {
		advance(hTo, opI32Add)
		if from {
			advance(hFrom, opI32Add)
		}
	}
	b.ins1(opBr, 0)
	b.ins(opEnd)
	b.ins(opEnd)
	b.charge(func() {
		b.ins1(opLocalGet, hN)
		b.ins(opI64ExtendI32U)
		b.i64Const(shift)
		b.ins(opI64ShrU)
	})
	b.operands()
	b.instruction(b.k)
}

// charge writes a check that takes what amount writes, an i64.
func (b helperBody) charge(amount func()) {
	f := b.r.meter.fuel
	b.ins1(opGlobalGet, f)
	amount()
	b.ins(opI64Sub)
	b.ins1(opGlobalSet, f)
	b.testFuel()
}

// grow writes the body for table.grow: parameters are the value (0) and n (1).
// A length that no table has fails at once and is not worth its charge.
func (b helperBody) grow() {
	b.ins1(opLocalGet, 1)
	b.i32Const(maxTableSize)
	b.ins(opI32LeU)
	b.ifEmpty()
	b.charge(func() {
		b.ins1(opLocalGet, 1)
		b.ins(opI64ExtendI32U)
		b.i64Const(tableShift)
		b.ins(opI64ShrU)
	})
	b.ins(opEnd)
	b.ins1(opLocalGet, 0)
	b.ins1(opLocalGet, 1)
	b.instruction(b.k)
	b.ins(opEnd)
}
