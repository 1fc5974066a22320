package rewrite

// The meter pass. Two counters are added to the module, both i64 globals.
//
// Fuel is what the guest may still spend before it must call Tick. Costs are
// charged in lumps, at checks. A check takes a constant from the counter, and
// where that leaves it below zero, calls the host. The pass puts checks such
// that
//
//   - every cycle of control flow has one: at every jump back to a loop, at the
//     entry of a set of functions that meets every cycle of direct calls, and
//     at every call through a table;
//   - no path costs more than regionLimit between two checks;
//   - whatever a path costs is charged, at the latest by the next check on it.
//
// The last is kept by giving each point of a body a debt: the most that any
// path to it has cost and no check has charged. An instruction adds its cost; a
// join takes the largest; a check charges the debt and leaves none. A jump back
// to a loop charges its debt less that at the loop's beginning, which is the
// cost of one round: debts behave as potentials, so code before a loop is not
// charged again by each of its rounds. A call adds what the callee leaves
// unpaid.
//
// Depth is what is left of the stack, see stack.go.

// The places of what the pass adds, relative to the end of the module's own.
const (
	addedTick     = 0 // imported functions
	addedOverflow = 1
	addedImports  = 2

	addedFuel  = 0 // globals
	addedDepth = 1
)

// meterPlan is what is known of a module before its bodies are metered.
type meterPlan struct {
	graph callGraph
	head  []bool
	order []uint32 // callers first
	stack stackPlan

	// Loops in the order of the code: whether the loop and all in it leave the
	// counter alone, so that it can be held in a local. firstLoop[i] is the
	// number of the first loop of function i.
	quiet     []bool
	firstLoop []uint32

	frame []uint32 // estimates
	sites []bool   // functions that call through tables

	// What is left behind by a function that returns (debt) and by those that
	// wait for it (chain); known once it is metered.
	unpaid []uint32
	chain  []uint32

	tick, overflow, check uint32 // functions, new indexes
	fuel, depth           uint32 // globals
	helpers               helpers
}

// surveyor collects a meterPlan while bodies are checked.
type surveyor struct {
	plan  *meterPlan
	m     *module
	frame frameMeter
	loops []uint32 // numbers of the open loops
	open  []bool   // parallel to walker.ctrl: is a loop
}

func newSurveyor(m *module) *surveyor {
	n := len(m.bodies)
	return &surveyor{m: m, plan: &meterPlan{
		graph:     callGraph{first: make([]uint32, 1, n+1)},
		firstLoop: make([]uint32, 0, n),
		frame:     make([]uint32, n),
		sites:     make([]bool, n),
	}}
}

func (s *surveyor) begin(i int) {
	s.frame.open(s.m, &s.m.types[s.m.funcs[i]])
	s.plan.firstLoop = append(s.plan.firstLoop, uint32(len(s.plan.quiet)))
	s.loops, s.open = s.loops[:0], append(s.open[:0], false)
}

func (s *surveyor) end(i int, locals uint32) {
	p := s.plan
	p.graph.first = append(p.graph.first, uint32(len(p.graph.callee)))
	p.frame[i] = s.frame.size(locals)
}

func (s *surveyor) note(i int, w *walker) {
	s.frame.note(w)
	switch w.op {
	case opBlock, opIf:
		s.open = append(s.open, false)
	case opLoop:
		s.open = append(s.open, true)
		s.loops = append(s.loops, uint32(len(s.plan.quiet)))
		s.plan.quiet = append(s.plan.quiet, true)
	case opEnd:
		last := len(s.open) - 1
		if s.open[last] {
			s.loops = s.loops[:len(s.loops)-1]
		}
		s.open = s.open[:last]
	case opCall, opReturnCall:
		s.loud()
		if imported := uint32(len(s.m.importedFuncs)); w.x >= imported {
			s.plan.graph.callee = append(s.plan.graph.callee, w.x-imported)
		}
	case opCallIndirect:
		s.loud()
		s.plan.sites[i] = true
	case opReturnCallInd, opMemoryInit, opMemoryCopy, opMemoryFill, opTableInit, opTableCopy, opTableFill, opTableGrow:
		s.loud()
	}
}

// loud marks the open loops as ones in which the counter changes elsewhere.
func (s *surveyor) loud() {
	// Outer loops of a loud one are marked already.
	for i := len(s.loops) - 1; i >= 0 && s.plan.quiet[s.loops[i]]; i-- {
		s.plan.quiet[s.loops[i]] = false
	}
}

// planMeter decides what is charged where, as far as it does not depend on
// costs.
func (r *rewriter) planMeter(s *surveyor) {
	m, p := r.m, s.plan
	head, component := p.graph.heads()
	p.head = head
	p.order = p.graph.callersFirst(head, component)
	p.stack = p.graph.planStack(p.order, head, component, p.frame, p.sites)
	p.unpaid = make([]uint32, len(m.bodies))
	p.chain = make([]uint32, len(m.bodies))

	imported := uint32(len(m.importedFuncs))
	p.tick, p.overflow = imported+addedTick, imported+addedOverflow
	p.check = m.numFuncs() + addedImports
	p.fuel = m.numGlobals() + uint32(len(r.snap.high)) + addedFuel
	p.depth = p.fuel + addedDepth - addedFuel
	p.helpers = helpers{first: p.check + 1}
	r.names.firstMoved, r.names.moved = imported, addedImports
	r.meter, r.code = p, true
}

// applyMeter adds to m what metered bodies use.
func (r *rewriter) applyMeter() {
	m, p := r.m, r.meter
	tickType := r.extraType(typesI64, typesI64)
	noType := r.extraType(nil, nil)
	m.imports = append(m.imports,
		importEntry{module: MeterModule, name: Tick, kind: kindFunc, typ: tickType},
		importEntry{module: MeterModule, name: Overflow, kind: kindFunc, typ: noType})
	m.importedFuncs = append(m.importedFuncs, tickType, noType)
	m.globals = append(m.globals,
		globalEntry{globalType{i64, true}, append(appendS64([]byte{byte(opI64Const)}, DefaultPeriod), byte(opEnd))},
		globalEntry{globalType{i64, true}, append(appendS64([]byte{byte(opI64Const)}, DefaultDepth), byte(opEnd))})
	m.exports = append(m.exports,
		exportEntry{FuelExport, kindGlobal, p.fuel}, exportEntry{DepthExport, kindGlobal, p.depth})

	m.funcs = append(m.funcs, noType)
	m.bodies = append(m.bodies, body{locals: []byte{0}, code: p.checkBody()})
	r.names.added = []indexName{{p.tick, MeterModule + "." + Tick}, {p.overflow, MeterModule + "." + Overflow},
		{p.check, ReservedPrefix + "check"}}
	p.helpers.add(r)

	for i := range m.tables {
		t := &m.tables[i]
		if limit := max(r.o.MaxTable, t.min); !t.hasMax || t.max > limit {
			t.hasMax, t.max = true, limit
		}
	}
}

var typesI64 = []byte{byte(i64)}

// checkBody is the function that is called when a counter is below zero.
func (p *meterPlan) checkBody() []byte {
	e := &emitter{}
	e.ins1(opGlobalGet, p.fuel)
	e.i64Const(0)
	e.ins(opI64LtS)
	e.ifEmpty()
	e.ins1(opGlobalGet, p.fuel)
	e.ins1(opCall, p.tick)
	e.ins1(opGlobalSet, p.fuel)
	e.ins(opEnd)
	e.ins1(opGlobalGet, p.depth)
	e.i64Const(0)
	e.ins(opI64LtS)
	e.ifEmpty()
	e.ins1(opCall, p.overflow)
	e.ins(opUnreachable)
	e.ins(opEnd)
	e.ins(opEnd)
	return e.out
}
