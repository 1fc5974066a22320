package rewrite

// opcode names an instruction: the byte itself, or opFC or opFD plus the
// number behind those prefixes.
type opcode uint16

const (
	opFC opcode = 0x100
	opFD opcode = 0x200
)

// The instructions that a pass looks at by name.
const (
	opUnreachable   opcode = 0x00
	opNop           opcode = 0x01
	opBlock         opcode = 0x02
	opLoop          opcode = 0x03
	opIf            opcode = 0x04
	opElse          opcode = 0x05
	opEnd           opcode = 0x0b
	opBr            opcode = 0x0c
	opBrIf          opcode = 0x0d
	opBrTable       opcode = 0x0e
	opReturn        opcode = 0x0f
	opCall          opcode = 0x10
	opCallIndirect  opcode = 0x11
	opReturnCall    opcode = 0x12
	opReturnCallInd opcode = 0x13
	opDrop          opcode = 0x1a
	opSelect        opcode = 0x1b
	opSelectT       opcode = 0x1c
	opLocalGet      opcode = 0x20
	opLocalSet      opcode = 0x21
	opLocalTee      opcode = 0x22
	opGlobalGet     opcode = 0x23
	opGlobalSet     opcode = 0x24
	opTableGet      opcode = 0x25
	opTableSet      opcode = 0x26
	opMemorySize    opcode = 0x3f
	opMemoryGrow    opcode = 0x40
	opI32Const      opcode = 0x41
	opI64Const      opcode = 0x42
	opI32Eqz        opcode = 0x45
	opI32Eq         opcode = 0x46
	opI32Ne         opcode = 0x47
	opI32LtS        opcode = 0x48
	opI32LtU        opcode = 0x49
	opI32GtS        opcode = 0x4a
	opI32GtU        opcode = 0x4b
	opI32LeS        opcode = 0x4c
	opI32LeU        opcode = 0x4d
	opI64LtS        opcode = 0x53
	opI64LtU        opcode = 0x54
	opI64GtU        opcode = 0x56
	opI64GeS        opcode = 0x59
	opI32Add        opcode = 0x6a
	opI32Sub        opcode = 0x6b
	opI32ShrU       opcode = 0x76
	opI64Add        opcode = 0x7c
	opI64Sub        opcode = 0x7d
	opI64Or         opcode = 0x84
	opI64Shl        opcode = 0x86
	opI64ShrU       opcode = 0x88
	opI32WrapI64    opcode = 0xa7
	opI64ExtendI32U opcode = 0xad
	opRefNull       opcode = 0xd0
	opRefFunc       opcode = 0xd2
	opMemoryInit    opcode = opFC + 8
	opDataDrop      opcode = opFC + 9
	opMemoryCopy    opcode = opFC + 10
	opMemoryFill    opcode = opFC + 11
	opTableInit     opcode = opFC + 12
	opElemDrop      opcode = opFC + 13
	opTableCopy     opcode = opFC + 14
	opTableGrow     opcode = opFC + 15
	opTableSize     opcode = opFC + 16
	opTableFill     opcode = opFC + 17
	opI64x2Splat    opcode = opFD + 18
	opI64x2Extract  opcode = opFD + 29
	opI64x2Replace  opcode = opFD + 30
)

// immediate is the shape of what follows an opcode.
type immediate uint8

const (
	immInvalid immediate = iota // no such instruction
	immNone
	immBlock        // block type
	immLabel        // label
	immBrTable      // vector of labels, default label
	immFunc         // function
	immCallIndirect // type, table
	immSelect       // vector of types
	immLocal
	immGlobal
	immTable
	immMemarg // alignment, offset
	immMemory // memory
	immI32
	immI64
	imm4       // f32
	imm8       // f64
	imm16      // v128
	immShuffle // 16 lanes
	immLane
	immMemargLane
	immRefType
	immMemoryInit // data segment, memory
	immData
	immMemoryCopy // memory, memory
	immTableInit  // element segment, table
	immElem
	immTableCopy // table, table
	immRefused   // a feature that is refused, see walker.refuse
)

// opInfo describes an instruction. pop and push count operands of those whose
// number does not depend on a type or a label.
type opInfo struct {
	imm       immediate
	pop, push uint8
}

// opTable describes every opcode.
type opTable [opFD + 0x100]opInfo

var ops = describeOps()

// set describes the instructions from first to last.
func (t *opTable) set(first, last opcode, imm immediate, pop, push uint8) {
	for op := first; op <= last; op++ {
		t[op] = opInfo{imm: imm, pop: pop, push: push}
	}
}

func describeOps() *opTable {
	ops := new(opTable)
	set := ops.set
	set(0x00, 0x01, immNone, 0, 0)
	set(opBlock, opIf, immBlock, 0, 0)
	set(opElse, opElse, immNone, 0, 0)
	set(0x06, 0x0a, immRefused, 0, 0) // try, catch, throw, rethrow, throw_ref
	set(opEnd, opEnd, immNone, 0, 0)
	set(opBr, opBrIf, immLabel, 0, 0)
	set(opBrTable, opBrTable, immBrTable, 1, 0)
	set(opReturn, opReturn, immNone, 0, 0)
	set(opCall, opCall, immFunc, 0, 0)
	set(opCallIndirect, opCallIndirect, immCallIndirect, 0, 0)
	set(opReturnCall, opReturnCall, immFunc, 0, 0)
	set(opReturnCallInd, opReturnCallInd, immCallIndirect, 0, 0)
	set(0x14, 0x19, immRefused, 0, 0) // call_ref, return_call_ref, delegate, catch_all
	set(opDrop, opDrop, immNone, 1, 0)
	set(opSelect, opSelect, immNone, 3, 1)
	set(opSelectT, opSelectT, immSelect, 3, 1)
	set(0x1f, 0x1f, immRefused, 0, 0) // try_table
	set(opLocalGet, opLocalGet, immLocal, 0, 1)
	set(opLocalSet, opLocalSet, immLocal, 1, 0)
	set(opLocalTee, opLocalTee, immLocal, 1, 1)
	set(opGlobalGet, opGlobalGet, immGlobal, 0, 1)
	set(opGlobalSet, opGlobalSet, immGlobal, 1, 0)
	set(opTableGet, opTableGet, immTable, 1, 1)
	set(opTableSet, opTableSet, immTable, 2, 0)
	set(0x28, 0x35, immMemarg, 1, 1) // loads
	set(0x36, 0x3e, immMemarg, 2, 0) // stores
	set(opMemorySize, opMemorySize, immMemory, 0, 1)
	set(opMemoryGrow, opMemoryGrow, immMemory, 1, 1)
	set(opI32Const, opI32Const, immI32, 0, 1)
	set(opI64Const, opI64Const, immI64, 0, 1)
	set(0x43, 0x43, imm4, 0, 1)
	set(0x44, 0x44, imm8, 0, 1)
	set(0x45, 0x45, immNone, 1, 1) // i32.eqz
	set(0x46, 0x4f, immNone, 2, 1) // comparisons of i32
	set(0x50, 0x50, immNone, 1, 1) // i64.eqz
	set(0x51, 0x66, immNone, 2, 1) // comparisons of i64, f32, f64
	set(0x67, 0x69, immNone, 1, 1) // clz, ctz, popcnt
	set(0x6a, 0x78, immNone, 2, 1)
	set(0x79, 0x7b, immNone, 1, 1)
	set(0x7c, 0x8a, immNone, 2, 1)
	set(0x8b, 0x91, immNone, 1, 1) // f32 with one operand
	set(0x92, 0x98, immNone, 2, 1)
	set(0x99, 0x9f, immNone, 1, 1) // f64 with one operand
	set(0xa0, 0xa6, immNone, 2, 1)
	set(0xa7, 0xc4, immNone, 1, 1) // conversions, sign extensions
	set(opRefNull, opRefNull, immRefType, 0, 1)
	set(0xd1, 0xd1, immNone, 1, 1) // ref.is_null
	set(opRefFunc, opRefFunc, immFunc, 0, 1)
	set(0xd3, 0xd6, immRefused, 0, 0) // typed references
	set(0xfb, 0xfb, immRefused, 0, 0) // GC
	set(0xfe, 0xfe, immRefused, 0, 0) // threads

	set(opFC, opFC+7, immNone, 1, 1) // saturating conversions
	set(opMemoryInit, opMemoryInit, immMemoryInit, 3, 0)
	set(opDataDrop, opDataDrop, immData, 0, 0)
	set(opMemoryCopy, opMemoryCopy, immMemoryCopy, 3, 0)
	set(opMemoryFill, opMemoryFill, immMemory, 3, 0)
	set(opTableInit, opTableInit, immTableInit, 3, 0)
	set(opElemDrop, opElemDrop, immElem, 0, 0)
	set(opTableCopy, opTableCopy, immTableCopy, 3, 0)
	set(opTableGrow, opTableGrow, immTable, 2, 1)
	set(opTableSize, opTableSize, immTable, 0, 1)
	set(opTableFill, opTableFill, immTable, 3, 0)

	ops.describeSIMD()
	return ops
}

// describeSIMD describes the vector instructions by their number behind 0xfd.
func (t *opTable) describeSIMD() {
	const d = opFD
	set := t.set
	set(d+0, d+10, immMemarg, 1, 1)
	set(d+11, d+11, immMemarg, 2, 0)
	set(d+12, d+12, imm16, 0, 1)
	set(d+13, d+13, immShuffle, 2, 1)
	set(d+14, d+14, immNone, 2, 1) // swizzle
	set(d+15, d+20, immNone, 1, 1) // splat
	set(d+21, d+34, immLane, 1, 1) // extract_lane, and below replace_lane
	for _, op := range []opcode{23, 26, 28, 30, 32, 34} {
		t[d+op].pop = 2
	}
	set(d+35, d+76, immNone, 2, 1) // comparisons
	set(d+77, d+77, immNone, 1, 1) // not
	set(d+78, d+81, immNone, 2, 1)
	set(d+82, d+82, immNone, 3, 1) // bitselect
	set(d+83, d+83, immNone, 1, 1) // any_true
	set(d+84, d+87, immMemargLane, 2, 1)
	set(d+88, d+91, immMemargLane, 2, 0)
	set(d+92, d+93, immMemarg, 1, 1)
	set(d+94, d+255, immNone, 2, 1)
	for _, r := range [][2]opcode{ // those with one operand
		{94, 100}, {103, 106}, {116, 117}, {122, 122}, {124, 129}, {131, 132}, {135, 138}, {148, 148},
		{160, 161}, {163, 164}, {167, 170}, {192, 193}, {195, 196}, {199, 202}, {224, 225}, {227, 227},
		{236, 237}, {239, 239}, {248, 255},
	} {
		set(d+r[0], d+r[1], immNone, 1, 1)
	}
	for _, op := range []opcode{154, 162, 165, 166, 175, 176, 178, 179, 180, 187, 194, 197, 198, 207, 208,
		210, 211, 212, 226, 238} {
		t[d+op] = opInfo{}
	}
}
