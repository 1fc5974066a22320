package rewrite

// admitCost is what a function body asks of a compiler.
type admitCost struct {
	size    int // bytes
	locals  int // parameters included
	blocks  int // blocks, loops and ifs; an else counts as one
	jumps   int // branches, and labels of br_tables
	carried int // values that blocks and calls take and give
	nesting int // deepest nest of blocks
	loops   int // deepest nest of loops
	table   int // labels of the largest br_table
}

// joins is how many values the compiler has to tell apart where paths meet.
func (c *admitCost) joins() uint64 {
	return uint64(c.blocks)*uint64(c.locals) + uint64(c.carried)
}

// What follows an opcode. The order is that of how often they occur.
const (
	admNone byte = iota
	admIndex
	admCall
	admMem
	admI32
	admI64
	admBlock
	admElse
	admEnd
	admJump
	admRare // the rest is told by opcode
)

// admitOps tells for each opcode what follows it.
var admitOps = func() (t [256]byte) {
	set := func(imm byte, from, to int) {
		for op := from; op <= to; op++ {
			t[op] = imm
		}
	}
	set(admRare, 0x00, 0xff)
	set(admNone, 0x00, 0x01) // unreachable, nop
	set(admBlock, 0x02, 0x04)
	set(admElse, 0x05, 0x05)
	set(admEnd, 0x0b, 0x0b)
	set(admJump, 0x0c, 0x0d)
	set(admNone, 0x0f, 0x0f)  // return
	set(admCall, 0x10, 0x10)  // call
	set(admCall, 0x12, 0x12)  // return_call
	set(admNone, 0x1a, 0x1b)  // drop, select
	set(admIndex, 0x20, 0x26) // locals, globals, table.get, table.set
	set(admMem, 0x28, 0x3e)   // loads, stores
	set(admI32, 0x41, 0x41)
	set(admI64, 0x42, 0x42)
	set(admNone, 0x45, 0xc4) // comparisons, arithmetic, conversions
	set(admNone, 0xd1, 0xd1) // ref.is_null
	set(admIndex, 0xd2, 0xd2)
	return t
}()

// admitVecHoles are the opcodes behind 0xfd, from 0x60 on, that mean nothing.
var admitVecHoles = func() (t [256]bool) {
	for _, op := range []byte{0x9a, 0xa2, 0xa5, 0xa6, 0xaf, 0xb0, 0xb2, 0xb3, 0xb4, 0xbb, 0xc2, 0xc5, 0xc6, 0xcf, 0xd0, 0xd2, 0xd3, 0xd4, 0xe2, 0xee} {
		t[op] = true
	}
	return t
}()

// body reads the body of the next function that has one.
func (a *admitter) body() {
	section := a.end
	a.fn = a.importedFns + a.bodies
	a.bodies++
	a.oneBody(section)
	a.fn, a.end = -1, section
}

// oneBody reads a body that lies within a section which ends at section.
func (a *admitter) oneBody(section int) {
	at := a.pos
	size := a.u32()
	if a.err != nil {
		return
	}
	if uint64(size) > uint64(section-a.pos) {
		a.bad(at, "the body claims %d bytes, %d are left", size, section-a.pos)
		return
	}
	if int(size) > a.l.Body {
		a.over(at, "function body", uint64(size), a.l.Body, "bytes", "split the function, or build with less inlining")
		return
	}
	a.end = a.pos + int(size)
	c := &a.cost
	*c = admitCost{size: int(size)}
	if a.locals(c); a.err != nil {
		return
	}
	if a.code(c); a.err != nil {
		return
	}
	switch {
	case c.blocks+c.jumps > a.l.Blocks:
		a.over(at, "blocks and branches of a function", uint64(c.blocks+c.jumps), a.l.Blocks, "", "split the function, or build with less inlining")
	case c.joins() > uint64(min(joinsOfAny+a.l.JoinsPerByte*c.size, a.l.Joins)):
		a.over(at, "locals times blocks of a function", c.joins(), min(joinsOfAny+a.l.JoinsPerByte*c.size, a.l.Joins), "",
			"split the function, or build with less inlining: a compiler spends time and memory on each local at each block")
	case a.onBody != nil:
		a.onBody(a.fn, c)
	}
}

// locals reads the declarations of locals and adds the parameters.
func (a *admitter) locals(c *admitCost) {
	at := a.pos
	if t := a.funcs[a.fn]; int(t) < len(a.types) {
		c.locals = int(a.types[t] >> 16)
	} else {
		a.bad(at, "the function's type %d does not exist", t)
		return
	}
	n := uint64(c.locals)
	for range a.count("groups of locals", 2, 0, a.end-a.pos) {
		at := a.pos
		n += uint64(a.u32())
		a.valType()
		if a.err != nil {
			return
		}
		if n > uint64(a.l.Locals) {
			a.over(at, "locals of a function", n, a.l.Locals, "", "split the function, or build with less inlining")
			return
		}
	}
	c.locals = int(n)
	if a.allLocals += c.locals; a.allLocals > a.l.AllLocals {
		a.over(at, "locals of all functions", uint64(a.allLocals), a.l.AllLocals, "", "split the program into smaller modules")
	}
}

// code walks the instructions of a body. The position is kept in a variable of
// its own, for speed; it goes back into a.pos before anything else looks.
func (a *admitter) code(c *admitCost) {
	b, pos := a.b[:a.end], a.pos
	depth, loops := 0, 0
	for pos < len(b) {
		at := pos
		op := b[pos]
		pos++
		switch admitOps[op] {
		case admNone:
		case admIndex:
			if pos < len(b) && b[pos] < 0x80 {
				pos++
				continue
			}
			a.pos = pos
			a.u32()
			pos = a.pos
		case admCall:
			a.pos = pos
			if f := a.u32(); int(f) < len(a.funcs) {
				c.carried += a.arity(a.funcs[f])
			}
			pos = a.pos
		case admMem:
			a.pos = pos
			a.memArg()
			pos = a.pos
		case admI32:
			if pos < len(b) && b[pos] < 0x80 {
				pos++
				continue
			}
			a.pos = pos
			a.signed(32)
			pos = a.pos
		case admI64:
			if pos < len(b) && b[pos] < 0x80 {
				pos++
				continue
			}
			a.pos = pos
			a.signed(64)
			pos = a.pos
		case admBlock:
			a.pos = pos
			a.blockType(c)
			pos = a.pos
			c.blocks++
			depth++
			if depth > a.l.Nesting {
				a.pos = at
				a.over(at, "nesting of blocks", uint64(depth), a.l.Nesting, "", "split the function")
				return
			}
			c.nesting = max(c.nesting, depth)
			bit := uint64(1) << (depth & 63)
			if op == 0x03 {
				a.loops[depth>>6] |= bit
				if loops++; loops > a.l.LoopNesting {
					a.over(at, "nesting of loops", uint64(loops), a.l.LoopNesting, "", "split the function")
					return
				}
				c.loops = max(c.loops, loops)
			} else {
				a.loops[depth>>6] &^= bit
			}
		case admElse:
			c.blocks++
			if depth == 0 {
				a.bad(at, "an else stands outside of an if")
				return
			}
		case admEnd:
			if depth == 0 {
				a.pos = pos
				if pos != len(b) {
					a.bad(pos, "%d bytes follow the end of the body", len(b)-pos)
				}
				return
			}
			if a.loops[depth>>6]>>(depth&63)&1 != 0 {
				loops--
			}
			depth--
		case admJump:
			c.jumps++
			a.pos = pos
			a.u32()
			pos = a.pos
		case admRare:
			a.pos = pos
			a.rare(op, c)
			pos = a.pos
		}
	}
	a.pos = pos
	a.bad(len(b), "the body does not end with end")
}

func (a *admitter) memArg() {
	at := a.pos
	if align := a.u32(); align >= 32 {
		if align&0x40 != 0 && align < 0x80 {
			a.refuse(at, noMultiMemory)
		} else {
			a.bad(at, "%#x is no alignment", align)
		}
		return
	}
	a.u32()
}

// signed skips a signed number of the given width.
func (a *admitter) signed(bits int) {
	if n := admitSigned(a.b[a.pos:a.end], bits); n > 0 {
		a.pos += n
	} else {
		a.badNumber(a.pos, n)
	}
}

func (a *admitter) blockType(c *admitCost) {
	if a.pos < a.end {
		switch t := a.b[a.pos]; t {
		case 0x40:
			a.pos++
			return
		case 0x7f, 0x7e, 0x7d, 0x7c, 0x7b, 0x70, 0x6f:
			a.pos++
			c.carried++
			return
		default:
			if t&0xc0 == 0x40 { // a negative number of one byte
				a.badType(a.pos, t)
				return
			}
		}
	}
	at := a.pos
	a.signed(33)
	if a.err != nil {
		return
	}
	t, n := admitU32(a.b[at:a.pos])
	if n <= 0 || int64(t) >= int64(len(a.types)) {
		a.bad(at, "the block's type does not exist")
		return
	}
	c.carried += a.arity(t)
}

// arity returns how many values a function of type t takes and gives. The
// engine refuses types that do not exist.
func (a *admitter) arity(t uint32) int {
	if int64(t) >= int64(len(a.types)) {
		return 0
	}
	return int(a.types[t]>>16 + a.types[t]&0xffff)
}

// rare reads what follows the opcodes that need more thought.
func (a *admitter) rare(op byte, c *admitCost) {
	at := a.pos - 1
	switch op {
	case 0x0e: // br_table
		n := a.count("labels of a br_table", 1, 0, a.l.BrTable)
		for i := 0; i <= n && a.err == nil; i++ {
			a.u32()
		}
		c.jumps += n + 1
		c.table = max(c.table, n)
	case 0x11, 0x13: // call_indirect, return_call_indirect
		c.carried += a.arity(a.u32())
		a.u32()
	case 0x1c: // select with types
		a.valTypes(a.count("types of a select", 1, 0, a.l.Results))
	case 0x3f, 0x40: // memory.size, memory.grow
		a.zero()
	case 0x43:
		a.take(4)
	case 0x44:
		a.take(8)
	case 0xd0: // ref.null
		a.heapType()
	case 0xfc:
		a.misc(at)
	case 0xfd:
		a.vector(at)
	case 0x06, 0x07, 0x08, 0x09, 0x0a, 0x18, 0x19, 0x1f:
		a.refuse(at, noExceptions)
	case 0xfe:
		a.refuse(at, noThreads)
	case 0x14, 0x15, 0xd4, 0xd5, 0xd6:
		a.refuse(at, noTypedRefs)
	case 0xd3, 0xfb:
		a.refuse(at, noGC)
	default:
		a.unknown(at, uint32(op))
	}
}

func (a *admitter) unknown(at int, op uint32) {
	a.bad(at, "no instruction of WebAssembly 2.0 or of tail calls has the opcode %#x", op)
}

// zero reads the byte that names memory 0.
func (a *admitter) zero() {
	at := a.pos
	if a.byte() != 0 {
		a.refuse(at, noMultiMemory)
	}
}

func (a *admitter) heapType() {
	at := a.pos
	switch t := a.byte(); t {
	case 0x70, 0x6f:
	case 0x7f, 0x7e, 0x7d, 0x7c, 0x7b:
		a.bad(at, "%#x is no reference type", t)
	default:
		if t < 0x40 || t >= 0x80 { // the index of a type
			a.refuse(at, noTypedRefs)
			return
		}
		a.badType(at, t)
	}
}

func (a *admitter) misc(at int) {
	switch op := a.u32(); op {
	case 0, 1, 2, 3, 4, 5, 6, 7: // saturating truncations
	case 8: // memory.init
		a.u32()
		a.zero()
	case 9, 13, 15, 16, 17: // data.drop, elem.drop, table.grow, .size, .fill
		a.u32()
	case 10: // memory.copy
		a.zero()
		a.zero()
	case 11: // memory.fill
		a.zero()
	case 12, 14: // table.init, table.copy
		a.u32()
		a.u32()
	case 19, 20, 21, 22:
		a.refuse(at, noWideArithmetic)
	default:
		a.unknown(at, 0xfc<<8|op)
	}
}

func (a *admitter) vector(at int) {
	switch op := a.u32(); {
	case op <= 0x0b || op == 0x5c || op == 0x5d: // loads, store
		a.memArg()
	case op == 0x0c || op == 0x0d: // v128.const, shuffle
		a.take(16)
	case 0x15 <= op && op <= 0x22: // lanes
		a.byte()
	case 0x54 <= op && op <= 0x5b: // loads and stores of lanes
		a.memArg()
		a.byte()
	case op > 0xff:
		if op < 0x120 {
			a.refuse(at, noRelaxedSIMD)
			return
		}
		a.unknown(at, 0xfd<<12|op)
	case admitVecHoles[op]:
		a.unknown(at, 0xfd<<8|op)
	}
}

// constExpr reads the expression that gives a global, an offset or an element
// its value.
func (a *admitter) constExpr() {
	for a.err == nil {
		at := a.pos
		switch op := a.byte(); op {
		case 0x0b:
			return
		case 0x41:
			a.signed(32)
		case 0x42:
			a.signed(64)
		case 0x43:
			a.take(4)
		case 0x44:
			a.take(8)
		case 0x23, 0xd2:
			a.u32()
		case 0xd0:
			a.heapType()
		case 0xfd:
			if op := a.u32(); a.err == nil && op != 0x0c {
				a.bad(at, "a constant expression contains an instruction that is not constant")
				return
			}
			a.take(16)
		case 0x6a, 0x6b, 0x6c, 0x7c, 0x7d, 0x7e:
			a.refuse(at, noExtendedConst)
		case 0xfb:
			a.refuse(at, noGC)
		default:
			a.bad(at, "a constant expression contains an instruction that is not constant")
		}
	}
}

// admitU32 decodes an unsigned LEB128 of 32 bits at the start of b. n is its
// length, 0 when b ends before it does, -1 when it is longer than its type.
func admitU32(b []byte) (v uint32, n int) {
	for i, c := range b {
		if i == 4 {
			if c > 0x0f {
				return 0, -1
			}
			return v | uint32(c)<<28, 5
		}
		v |= uint32(c&0x7f) << (7 * i)
		if c < 0x80 {
			return v, i + 1
		}
	}
	return 0, 0
}

// admitSigned returns the length of a signed LEB128 of the given width at the
// start of b, as admitU32 does. The bits of its last byte that the width has
// no room for must repeat the sign.
func admitSigned(b []byte, bits int) int {
	last := (bits+6)/7 - 1
	for i, c := range b {
		if i == last {
			// The value's own bits in this byte, its sign the highest of them.
			if own := bits - 7*last; c >= 0x80 || int8(c<<1)>>own != 0 && int8(c<<1)>>own != -1 {
				return -1
			}
			return i + 1
		}
		if c < 0x80 {
			return i + 1
		}
	}
	return 0
}
