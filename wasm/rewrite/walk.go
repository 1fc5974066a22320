package rewrite

// walker steps through the instructions of one body. It checks that every
// instruction is known and not refused, that its indexes lie in the spaces of
// m as it was read, that blocks nest, and that the body ends where its size
// says. It does not check types; the engine does.
type walker struct {
	reader
	m         *module
	tailCalls bool
	locals    uint32  // parameters and declared locals
	ctrl      []label // open blocks; the first is the function itself

	// The instruction that next read: its opcode, the place of its first byte,
	// and its immediates, in x and y in the order of the format. For br_table x
	// is the default label. pos is behind the instruction.
	op      opcode
	start   int
	x, y    uint32
	val     int64     // of i32.const and i64.const
	bt      blockType // of block, loop and if
	targets []uint32  // labels of br_table, without the default
	done    bool      // the last end was read
}

// label is an open block.
type label struct {
	op opcode // opBlock, opLoop, opIf, opElse; opBlock for the function
	bt blockType
}

// blockType is the immediate of a block: an index of a type, or below zero a
// value type or emptyBlock.
type blockType int64

const emptyBlock blockType = -64

// types returns the parameters and results of a block of type bt.
func (m *module) blockTypes(bt blockType) (params, results []byte) {
	switch {
	case bt >= 0:
		return m.types[bt].params, m.types[bt].results
	case bt == emptyBlock:
		return nil, nil
	}
	i := byte(bt) & 0x7f
	return nil, oneType[i : i+1 : i+1]
}

// oneType holds every byte once, to slice single types from.
var oneType = func() (b [128]byte) {
	for i := range b {
		b[i] = byte(i)
	}
	return
}()

// open begins the walk of m's own function i.
func (w *walker) open(m *module, i int) {
	b := &m.bodies[i]
	w.m = m
	w.reader = reader{b: b.code, base: b.off}
	w.locals = uint32(len(m.types[m.funcs[i]].params)) + b.nlocals
	w.ctrl = append(w.ctrl[:0], label{opBlock, blockType(m.funcs[i])})
	w.done = false
}

// next reads an instruction. It returns false at the end of the body and after
// a failure, which err then holds. After an opEnd or opElse the walker's ctrl
// is that behind the instruction.
func (w *walker) next() bool {
	if w.done {
		if w.err == nil && w.left() > 0 {
			w.fail(invalid(w.off(), "instructions after the end of a function"))
		}
		return false
	}
	w.start = w.pos
	c := w.byte()
	w.op = opcode(c)
	if c >= 0xfc && c <= 0xfd {
		sub := w.u32()
		switch {
		case c == 0xfc && sub < 0x100:
			w.op = opFC + opcode(sub)
		case c == 0xfd && sub < 0x100:
			w.op = opFD + opcode(sub)
		case c == 0xfd && sub < 0x130:
			w.fail(refuseRelaxedSIMD(w.base + w.start))
		default:
			w.unknown()
		}
	}
	if w.err != nil {
		return false
	}
	w.immediates(ops[w.op].imm)
	return w.err == nil
}

func (w *walker) unknown() {
	w.fail(invalid(w.base+w.start, "unknown instruction 0x%02x", w.b[w.start]))
}

// index reads an index into a space of n entries.
func (w *walker) index(what string, n uint32) uint32 {
	i := w.u32()
	if i >= n && w.err == nil {
		w.fail(invalid(w.base+w.start, "unknown %s %d of %d", what, i, n))
		return 0
	}
	return i
}

func (w *walker) memory() {
	i := w.u32()
	switch {
	case w.err != nil:
	case i != 0:
		w.fail(refuseMultiMemory(w.base + w.start))
	case w.m.numMems() == 0:
		w.fail(invalid(w.base+w.start, "the module has no memory"))
	}
}

// memarg reads the alignment and the offset of a load or a store.
func (w *walker) memarg() {
	align := w.u32()
	w.y = w.u32()
	switch {
	case w.err != nil:
	case align >= 64 && align < 128:
		w.fail(refuseMultiMemory(w.base + w.start))
	case align > 4:
		w.fail(invalid(w.base+w.start, "alignment of 2^%d", align))
	case w.m.numMems() == 0:
		w.fail(invalid(w.base+w.start, "the module has no memory"))
	}
	w.x = align
}

func (w *walker) immediates(imm immediate) {
	m := w.m
	switch imm {
	case immNone:
		switch w.op {
		case opEnd:
			w.ctrl = w.ctrl[:len(w.ctrl)-1]
			w.done = len(w.ctrl) == 0
		case opElse:
			top := &w.ctrl[len(w.ctrl)-1]
			if top.op != opIf {
				w.fail(invalid(w.base+w.start, "else without if"))
				return
			}
			top.op = opElse
		}
	case immLocal:
		w.x = w.index("local", w.locals)
	case immI32:
		w.val = w.signed(32)
	case immI64:
		w.val = w.signed(64)
	case immMemarg:
		w.memarg()
	case immBlock:
		w.bt = w.blockType()
		w.ctrl = append(w.ctrl, label{w.op, w.bt})
	case immLabel:
		w.x = w.index("label", uint32(len(w.ctrl)))
	case immBrTable:
		n := w.count("labels", 1, maxBody)
		w.targets = w.targets[:0]
		for i := 0; i < n && w.err == nil; i++ {
			w.targets = append(w.targets, w.index("label", uint32(len(w.ctrl))))
		}
		w.x = w.index("label", uint32(len(w.ctrl)))
	case immFunc:
		w.x = w.index("function", m.numFuncs())
		if w.op == opReturnCall && !w.tailCalls {
			w.fail(refuseTailCalls(w.base + w.start))
		}
	case immCallIndirect:
		w.x = w.index("type", uint32(len(m.types)))
		w.y = w.index("table", m.numTables())
		if w.op == opReturnCallInd && !w.tailCalls {
			w.fail(refuseTailCalls(w.base + w.start))
		}
		if w.err == nil && m.table(w.y).elem != funcref {
			w.fail(invalid(w.base+w.start, "an indirect call through a table of %s", m.table(w.y).elem))
		}
	case immGlobal:
		w.x = w.index("global", m.numGlobals())
	case immTable:
		w.x = w.index("table", m.numTables())
	case immMemory:
		w.memory()
	case imm4:
		w.bytes(4)
	case imm8:
		w.bytes(8)
	case imm16:
		w.bytes(16)
	case immShuffle:
		for _, lane := range w.bytes(16) {
			if lane >= 32 {
				w.fail(invalid(w.base+w.start, "unknown lane %d", lane))
			}
		}
	case immLane:
		w.x = uint32(w.byte())
	case immMemargLane:
		w.memarg()
		w.byte()
	default:
		w.rareImmediates(imm)
	}
}

func (w *walker) rareImmediates(imm immediate) {
	m := w.m
	switch imm {
	case immSelect:
		n := w.count("types", 1, maxParams)
		for i := 0; i < n && w.err == nil; i++ {
			w.valType()
		}
	case immRefType:
		if t := w.valType(); w.err == nil && !t.isRef() {
			w.fail(invalid(w.base+w.start, "%s is no reference type", t))
		}
	case immMemoryInit:
		w.dataIndex()
		w.memory()
	case immData:
		w.dataIndex()
	case immMemoryCopy:
		w.memory()
		w.memory()
	case immTableInit:
		w.x = w.index("element segment", uint32(len(m.elems)))
		w.y = w.index("table", m.numTables())
	case immElem:
		w.x = w.index("element segment", uint32(len(m.elems)))
	case immTableCopy:
		w.x = w.index("table", m.numTables())
		w.y = w.index("table", m.numTables())
	case immRefused:
		off := w.base + w.start
		switch w.b[w.start] {
		case 0xfe:
			w.fail(refuseThreads(off))
		case 0xfb:
			w.fail(refuseGC(off))
		case 0x14, 0x15, 0xd3, 0xd4, 0xd5, 0xd6:
			w.fail(refuseTypedRefs(off))
		default:
			w.fail(refuseExceptions(off))
		}
	default:
		w.unknown()
	}
}

func (w *walker) dataIndex() {
	w.x = w.index("data segment", uint32(len(w.m.datas)))
	if w.err == nil && !w.m.dataCount {
		w.fail(invalid(w.base+w.start, "a data segment is named without a data count section"))
	}
}

func (w *walker) valType() valType {
	t := valType(w.byte())
	if w.err == nil {
		if err := checkValType(t, w.base+w.start); err != nil {
			w.fail(err)
		}
	}
	return t
}

func (w *walker) blockType() blockType {
	if w.pos < len(w.b) {
		// The common one-byte forms.
		switch c := w.b[w.pos]; valType(c) {
		case 0x40, i32, i64, f32, f64, v128, funcref, externref:
			w.pos++
			return blockType(c) - 0x80
		}
	}
	bt := blockType(w.s33())
	switch {
	case w.err != nil:
	case bt < 0:
		if err := checkValType(valType(byte(bt)&0x7f), w.base+w.start); err != nil && bt >= -64 {
			w.fail(err)
			break
		}
		w.fail(invalid(w.base+w.start, "unknown block type"))
	case bt >= blockType(len(w.m.types)):
		w.fail(invalid(w.base+w.start, "unknown type %d of %d", bt, len(w.m.types)))
	}
	return bt
}
