package rewrite

// generator makes valid modules out of bytes, for tests that hold a rewritten
// module against the original. What it makes ends: every loop and every
// function takes from a counter of the module's own, the exported global
// "budget", and is unreachable once that is used up.
type generator struct {
	data []byte // what is decided, byte by byte; zeros once it is used up
	b    *build

	types   []uint32 // function types that are called
	funcs   int      // functions that are called, all defined
	log     uint32   // imported function (i32)
	budget  uint32   // globals
	globals []uint32 // mutable i32, i64, f64, v128
	first   uint32   // index of the first own function

	// The function that is written.
	params  []byte
	results []byte
	locals  []valType // of all, parameters first
	labels  []genLabel
	depth   int
	code    []byte
}

// genLabel is an open block: a jump to it needs operands of these types.
type genLabel struct {
	operands []byte
	loop     bool
}

const (
	genPages = 3
	genTable = 6
	// genBudget is what a call from outside may spend.
	genBudget = 1000
)

func (g *generator) byte() int {
	if len(g.data) == 0 {
		return 0
	}
	c := g.data[0]
	g.data = g.data[1:]
	return int(c)
}

// pick returns a number below n.
func (g *generator) pick(n int) int { return g.byte() % n }

func (g *generator) put(parts ...any) { g.code = append(g.code, asm(parts...)...) }

// generate returns a module.
func generate(data []byte) *build {
	g := &generator{data: data, b: newBuild()}
	b := g.b
	logType := b.typ(typesOf(i32))
	g.log = b.importFunc("env", "log", logType)
	g.first = b.numFuncs()
	g.types = []uint32{
		b.typ(nil, i32), b.typ(typesOf(i32), i32), b.typ(typesOf(i32, i64), i64, i32), b.typ(typesOf(f64, i32), f64),
		b.typ(typesOf(i32, i32, i32, i32, i32, i32, i32, i32, i32, i32), i32), b.typ(nil),
		b.typ(typesOf(i64, v128), v128),
	}
	b.memory(genPages, genPages+1)
	g.budget = b.newGlobal(i32, true, opI32Const, s(0))
	b.export("budget", kindGlobal, g.budget)
	g.globals = []uint32{
		b.newGlobal(i32, true, opI32Const, s(7)), b.newGlobal(i64, true, opI64Const, s(-7)),
		b.newGlobal(f64, true, opcode(0x44), raw("\x00\x00\x00\x00\x00\x00\xf8\x3f")),
		b.newGlobal(v128, true, opFD+12, raw("0123456789abcdef")),
	}
	g.funcs = 3 + g.pick(5)
	var table []uint32
	for i := range g.funcs {
		b.funcs = append(b.funcs, g.types[g.pick(len(g.types))])
		table = append(table, g.first+uint32(i))
	}
	b.tableOf(table[:min(len(table), genTable)]...)
	b.tables[0].min = genTable
	b.elems = append(b.elems, elemSegment{flags: 1, elem: funcref, n: 3, vec: []byte{byte(g.first), byte(g.first + 1), byte(g.first)}})
	b.data(16, "active data")
	b.passive("passive data")
	for i := range g.funcs {
		g.function(i)
	}
	return b
}

// function writes the body of own function i.
func (g *generator) function(i int) {
	t := g.b.types[g.b.funcs[i]]
	g.params, g.results = t.params, t.results
	g.locals = nil
	for _, p := range t.params {
		g.locals = append(g.locals, valType(p))
	}
	declared := []valType{i32, i64, f64, i32, i64, v128}
	g.locals = append(g.locals, declared...)
	g.labels = []genLabel{{operands: t.results}}
	g.code, g.depth = nil, 0
	g.spend()
	if g.pick(4) == 0 {
		g.dispatch()
	} else {
		g.statements(2 + g.pick(6))
	}
	g.operands(t.results)
	decl := appendU32(nil, uint32(len(declared)))
	for _, l := range declared {
		decl = append(decl, 1, byte(l))
	}
	g.b.bodies = append(g.b.bodies, body{locals: decl, nlocals: uint32(len(declared)), code: append(g.code, byte(opEnd))})
	name := []byte{'f', byte('0' + i)}
	g.b.export(string(name), kindFunc, g.first+uint32(i))
}

// spend takes from the budget.
func (g *generator) spend() {
	g.put(opGlobalGet, g.budget, opI32Const, s(1), opI32Sub, opGlobalSet, g.budget,
		opGlobalGet, g.budget, opI32Const, s(0), opI32LtS, opIf, empty, opUnreachable, opEnd)
}

func (g *generator) operands(types []byte) {
	for _, t := range types {
		g.expr(valType(t), 2)
	}
}

// local returns a local of type t; there is one of each but references.
func (g *generator) local(t valType) int {
	n := g.pick(len(g.locals))
	for i := range g.locals {
		if k := (n + i) % len(g.locals); g.locals[k] == t {
			return k
		}
	}
	return -1
}

func (g *generator) global(t valType) uint32 {
	return map[valType]uint32{i32: g.globals[0], i64: g.globals[1], f64: g.globals[2], v128: g.globals[3]}[t]
}

// expr writes an expression of type t.
func (g *generator) expr(t valType, depth int) {
	if depth == 0 || g.pick(3) == 0 {
		switch c := g.pick(4); {
		case c == 0 && t == i32:
			g.put(opI32Const, s(int8(g.byte())))
		case c == 0 && t == i64:
			g.put(opI64Const, s(int8(g.byte()))<<g.pick(50))
		case c == 1:
			g.put(opGlobalGet, g.global(t))
		case c == 2 && t == i32:
			g.put(opMemorySize, 0)
		default:
			g.put(opLocalGet, g.local(t))
		}
		return
	}
	sub := func(ts ...valType) {
		for _, t := range ts {
			g.expr(t, depth-1)
		}
	}
	switch t {
	case i32:
		switch g.pick(9) {
		case 0:
			sub(i32, i32)
			g.put([]opcode{opI32Add, opI32Sub, 0x6c, 0x71, 0x72, 0x73, 0x77, 0x46, 0x48, 0x6e}[g.pick(10)])
		case 1:
			sub(i64)
			g.put(opI32WrapI64)
		case 2:
			g.address()
			g.put([]opcode{0x28, 0x2c, 0x2d, 0x2f}[g.pick(4)], 0, g.byte())
		case 3:
			sub(i32, i32, i32)
			g.put(opSelect)
		case 4:
			g.block(opIf, []byte{byte(i32)}, depth)
		case 5:
			sub(i32)
			g.put(opLocalTee, g.local(i32))
		case 6:
			sub(v128)
			g.put(opFD+27, raw{byte(g.pick(4))})
		case 7:
			sub(i32)
			g.put([]opcode{0x45, 0x67, 0x69, 0xc0}[g.pick(4)])
		default:
			g.block(opBlock, []byte{byte(i32)}, depth)
		}
	case i64:
		switch g.pick(5) {
		case 0:
			sub(i64, i64)
			g.put([]opcode{opI64Add, opI64Sub, 0x7e, 0x83, 0x85, 0x89, 0x80}[g.pick(7)])
		case 1:
			sub(i32)
			g.put(opI64ExtendI32U)
		case 2:
			g.address()
			g.put(opcode(0x29), 0, g.byte())
		case 3:
			g.block(opBlock, []byte{byte(i64)}, depth)
		default:
			sub(i64)
			g.put(opLocalTee, g.local(i64))
		}
	case f64:
		if g.pick(2) == 0 {
			sub(i64)
			g.put(opcode(0xb9))
		} else {
			sub(f64, f64)
			g.put([]opcode{0xa0, 0xa1, 0xa2}[g.pick(3)])
		}
	case v128:
		if g.pick(2) == 0 {
			sub(i32)
			g.put(opFD + 17)
		} else {
			sub(v128, v128)
			g.put([]opcode{opFD + 0xae, opFD + 81}[g.pick(2)])
		}
	}
}

// address writes an address, mostly inside the memory.
func (g *generator) address() {
	g.expr(i32, 1)
	if g.pick(8) != 0 {
		g.put(opI32Const, s(0xffff), opcode(0x71))
	}
}

// block writes a block, loop or if with results.
func (g *generator) block(op opcode, results []byte, depth int) {
	if g.depth > 6 {
		g.operands(results)
		return
	}
	g.depth++
	defer func() { g.depth-- }()
	if op == opIf {
		g.expr(i32, max(depth-1, 0))
	}
	g.put(op)
	if len(results) == 0 {
		g.put(empty)
	} else {
		g.put(raw(results))
	}
	g.labels = append(g.labels, genLabel{operands: results})
	g.statements(g.pick(3))
	g.operands(results)
	if op == opIf {
		g.put(opElse)
		g.statements(g.pick(3))
		g.operands(results)
	}
	g.labels = g.labels[:len(g.labels)-1]
	g.put(opEnd)
}

func (g *generator) statements(n int) {
	for range n {
		if len(g.data) > 0 {
			g.statement()
		}
	}
}

func (g *generator) set(t valType) {
	g.expr(t, 3)
	if g.pick(3) == 0 {
		g.put(opGlobalSet, g.global(t))
	} else {
		g.put(opLocalSet, g.local(t))
	}
}

func (g *generator) statement() {
	switch g.pick(16) {
	case 0, 1, 2:
		g.set([]valType{i32, i64, f64, v128}[g.pick(4)])
	case 3:
		g.address()
		g.expr(i64, 2)
		g.put([]opcode{0x37, 0x3c, 0x3e}[g.pick(3)], 0, g.byte())
	case 4:
		g.expr(i32, 2)
		g.put(opCall, g.log)
	case 5, 6:
		g.call()
	case 7:
		g.block(opBlock, nil, 2)
	case 8:
		g.block(opIf, nil, 2)
	case 9, 10:
		g.loop()
	case 11, 12:
		g.branch()
	case 13:
		g.bulk()
	case 14:
		g.table()
	default:
		if g.pick(30) == 0 {
			g.put(opUnreachable)
			return
		}
		g.expr(i32, 1)
		g.put(opDrop)
	}
}

// take puts results into locals.
func (g *generator) take(results []byte) {
	for i := len(results) - 1; i >= 0; i-- {
		if l := g.local(valType(results[i])); l >= 0 {
			g.put(opLocalSet, l)
		} else {
			g.put(opDrop)
		}
	}
}

// plenty writes whether much of the budget is left, so that most of what is
// made returns.
func (g *generator) plenty(least int) {
	g.put(opGlobalGet, g.budget, opI32Const, s(least+g.pick(100)), opI32GtS)
}

func (g *generator) call() {
	if g.pick(20) != 0 {
		g.plenty(genBudget - 110)
		g.put(opIf, empty)
		g.labels = append(g.labels, genLabel{})
		defer func() {
			g.labels = g.labels[:len(g.labels)-1]
			g.put(opEnd)
		}()
	}
	if g.pick(3) == 0 {
		t := g.types[g.pick(len(g.types))]
		ft := g.b.types[t]
		g.operands(ft.params)
		g.expr(i32, 1)
		if g.pick(4) != 0 {
			g.put(opI32Const, s(3), opcode(0x71))
		}
		if g.pick(4) == 0 && string(ft.results) == string(g.results) {
			g.put(opReturnCallInd, t, 0)
			return
		}
		g.put(opCallIndirect, t, 0)
		g.take(ft.results)
		return
	}
	f := g.pick(g.funcs)
	ft := g.b.types[g.b.funcs[f]]
	g.operands(ft.params)
	if g.pick(4) == 0 && string(ft.results) == string(g.results) {
		g.put(opReturnCall, g.first+uint32(f))
		return
	}
	g.put(opCall, g.first+uint32(f))
	g.take(ft.results)
}

// loop writes a loop, with parameters at times.
func (g *generator) loop() {
	if g.depth > 5 {
		return
	}
	g.depth++
	defer func() { g.depth-- }()
	if g.pick(4) == 0 {
		pair := typesOf(i32, i64)
		g.operands(pair)
		g.put(opLoop, g.b.typ(pair, i32, i64))
		g.labels = append(g.labels, genLabel{operands: pair, loop: true})
		g.take(pair)
		g.spend()
		g.statements(g.pick(3))
		g.operands(pair)
		g.plenty(genBudget / 2)
		g.put(opBrIf, 0)
		g.labels = g.labels[:len(g.labels)-1]
		g.put(opEnd)
		g.take(pair)
		return
	}
	g.put(opLoop, empty)
	g.labels = append(g.labels, genLabel{loop: true})
	g.spend()
	g.statements(g.pick(4))
	if g.pick(2) == 0 {
		g.expr(i32, 2)
		g.plenty(genBudget / 2)
		g.put(opcode(0x71), opBrIf, 0)
	}
	g.labels = g.labels[:len(g.labels)-1]
	g.put(opEnd)
}

// branch writes a jump of any kind.
func (g *generator) branch() {
	n := g.pick(len(g.labels))
	to := g.labels[len(g.labels)-1-n]
	how := g.pick(5)
	if how == 2 && to.loop && g.pick(4) != 0 {
		how = 3
	}
	switch how {
	case 0:
		g.operands(to.operands)
		if to.loop && g.pick(8) != 0 {
			g.plenty(genBudget / 2)
			g.put(opBrIf, n)
			g.take(to.operands)
			return
		}
		g.put(opBr, n)
	case 1:
		g.operands(g.results)
		g.put(opReturn)
	case 2:
		// br_table over labels with the same operands as n.
		g.operands(to.operands)
		g.expr(i32, 1)
		if g.pick(2) == 0 {
			g.put(opI32Const, s(3), opcode(0x71))
		}
		labels := []int{}
		for i := range len(g.labels) {
			if l := g.labels[len(g.labels)-1-i]; string(l.operands) == string(to.operands) && (!l.loop || g.pick(5) == 0) {
				labels = append(labels, i)
			}
		}
		g.put(opBrTable, len(labels))
		for _, l := range labels {
			g.put(l)
		}
		g.put(n)
	default:
		g.operands(to.operands)
		g.expr(i32, 2)
		if to.loop {
			g.plenty(genBudget / 2)
			g.put(opcode(0x71))
		}
		g.put(opBrIf, n)
		g.take(to.operands)
	}
}

// length writes a length: short, around what runs in place, or anything.
func (g *generator) length(around int) {
	switch g.pick(4) {
	case 0:
		g.expr(i32, 2)
	case 1:
		g.put(opI32Const, s(around-2+g.pick(5)))
	case 2:
		g.put(opI32Const, s(around*4+g.pick(200)))
	default:
		g.put(opI32Const, s(g.pick(14)))
	}
}

func (g *generator) bulk() {
	g.address()
	switch g.pick(4) {
	case 0:
		g.expr(i32, 1)
		g.length(bulkInline)
		g.put(opMemoryFill, 0)
	case 1:
		g.put(opI32Const, s(g.pick(10)))
		g.length(8)
		g.put(opMemoryInit, 1, 0)
	case 2:
		g.address()
		g.length(bulkInline)
		g.put(opMemoryCopy, 0, 0)
	default:
		g.put(opDrop)
		if g.pick(8) == 0 {
			g.put(opDataDrop, 1)
			return
		}
		g.put(opI32Const, s(g.pick(2)), opMemoryGrow, 0, opLocalSet, g.local(i32))
	}
}

func (g *generator) table() {
	index := func() { g.put(opI32Const, s(g.pick(genTable+1))) }
	index()
	switch g.pick(6) {
	case 0:
		g.put(opTableGet, 0, opcode(0xd1), opLocalSet, g.local(i32))
	case 1:
		g.put(opRefFunc, g.first+uint32(g.pick(2)), opTableSet, 0)
	case 2:
		index()
		g.put(opI32Const, s(g.pick(4)), opTableCopy, 0, 0)
	case 3:
		g.put(opI32Const, s(g.pick(3)), opI32Const, s(g.pick(3)), opTableInit, 1, 0)
	case 4:
		g.put(opRefNull, funcref)
		g.length(4)
		g.put(opTableFill, 0)
	default:
		g.put(opDrop, opRefNull, funcref, opI32Const, s(g.pick(3)), opTableGrow, 0, opLocalSet, g.local(i32))
	}
}

// dispatch writes a function body as Go's compiler does: see dispatch.go.
func (g *generator) dispatch() {
	n := 2 + g.pick(4)
	pc := -1
	for i, t := range g.locals {
		if t == i32 {
			pc = i
		}
	}
	g.put(opI32Const, s(g.pick(n+1)), opLocalSet, pc)
	g.put(opLoop, empty)
	g.labels = append(g.labels, genLabel{loop: true})
	for range n {
		g.put(opBlock, empty)
		g.labels = append(g.labels, genLabel{})
	}
	g.put(opLocalGet, pc, opBrTable, n)
	for i := range n {
		g.put(min(i+g.pick(2), n-1))
	}
	g.put(n - 1)
	for i := range n {
		g.put(opEnd)
		g.labels = g.labels[:len(g.labels)-1]
		g.spend()
		g.statements(g.pick(3))
		if g.pick(2) == 0 {
			g.plenty(genBudget / 2)
			g.put(opIf, empty, opI32Const, s(g.pick(n+1)), opLocalSet, pc, opBr, n-i, opEnd)
		}
		if g.pick(3) == 0 && i < n-1 {
			g.put(opI32Const, s(i+1+g.pick(n)), opLocalSet, pc, opBr, n-i-1)
		}
	}
	g.labels = g.labels[:len(g.labels)-1]
	g.put(opEnd)
}
