package rewrite

// rewriter runs the passes over one module.
type rewriter struct {
	m    *module
	o    Options
	art  *Artifact
	uses moduleUses

	names renumbering
	snap  snapshotPlan
	meter *meterPlan
	extra []funcType // types that passes use, to stand behind the module's own
	refs  []bool     // functions that ref.func may name, once asked for
	code  bool       // bodies change
}

// moduleUses is what the bodies of a module do somewhere.
type moduleUses struct {
	tableWrites string // the first instruction seen that changes a table, else empty
	segments    string // the first one seen that drops a segment, else empty
	dataIndexes bool   // memory.init or data.drop
}

// run checks every body and applies the passes to m.
func (r *rewriter) run() error {
	var survey *surveyor
	if r.o.Meter {
		survey = newSurveyor(r.m)
	}
	if err := r.check(survey); err != nil {
		return err
	}
	r.resettable()
	if r.o.Snapshot {
		if err := r.planSnapshot(); err != nil {
			return err
		}
	}
	if survey != nil {
		r.planMeter(survey)
	}
	if r.code {
		if err := r.rewriteBodies(); err != nil {
			return err
		}
		r.renumber()
	}
	if r.o.Snapshot {
		r.applySnapshot()
	}
	if r.meter != nil {
		r.applyMeter()
	}
	r.m.types = append(r.m.types, r.extra...)
	r.art.Dropped = r.m.customSections(&r.names, r.code)
	return nil
}

// extraType returns the index that a function type will have. It may be asked
// while bodies are still checked against the module's own types.
func (r *rewriter) extraType(params, results []byte) uint32 {
	for i, t := range r.extra {
		if string(t.params) == string(params) && string(t.results) == string(results) {
			return uint32(len(r.m.types) + i)
		}
	}
	r.extra = append(r.extra, funcType{params, results})
	return uint32(len(r.m.types) + len(r.extra) - 1)
}

// resultType returns a block type, encoded, with the results and no parameters.
func (r *rewriter) resultType(results []byte) []byte {
	switch len(results) {
	case 0:
		return []byte{0x40}
	case 1:
		return results
	}
	return appendS64(nil, int64(r.extraType(nil, results)))
}

// check walks every body. survey may be nil.
func (r *rewriter) check(survey *surveyor) error {
	w := &walker{tailCalls: r.o.TailCalls}
	for i := range r.m.bodies {
		w.open(r.m, i)
		if survey != nil {
			survey.begin(i)
		}
		for w.next() {
			r.uses.note(w)
			if w.op == opRefFunc {
				r.declared(w)
			}
			if survey != nil {
				survey.note(i, w)
			}
		}
		if w.err != nil {
			return w.err
		}
		if survey != nil {
			survey.end(i, w.locals)
		}
	}
	return nil
}

// declared fails w unless the function that it refers to is named outside of
// bodies, as the format wants. Passes add exports, so that the engine's own
// check would come too late.
func (r *rewriter) declared(w *walker) {
	m := r.m
	if r.refs == nil {
		r.refs = make([]bool, m.numFuncs())
		for i := range m.exports {
			if m.exports[i].kind == kindFunc {
				r.refs[m.exports[i].index] = true
			}
		}
		note := func(i uint32) uint32 { r.refs[i] = true; return i }
		for i := range m.globals {
			mapConstExpr(m.globals[i].init, note)
		}
		for i := range m.elems {
			mapElements(&m.elems[i], note)
		}
	}
	if !r.refs[w.x] {
		w.fail(invalid(w.base+w.start, "a reference to function %d, which is declared nowhere", w.x))
	}
}

func (u *moduleUses) note(w *walker) {
	if w.op < opTableSet {
		return
	}
	switch w.op {
	case opTableSet:
		u.tableWrites = "table.set"
	case opTableGrow:
		u.tableWrites = "table.grow"
	case opTableFill:
		u.tableWrites = "table.fill"
	case opTableCopy:
		u.tableWrites = "table.copy"
	case opTableInit:
		u.tableWrites = "table.init"
	case opElemDrop:
		u.segments = "elem.drop"
	case opDataDrop:
		u.segments, u.dataIndexes = "data.drop", true
	case opMemoryInit:
		u.dataIndexes = true
	}
}

// resettable finds whether memory and globals are all the state of a sandbox.
func (r *rewriter) resettable() {
	m, why := r.m, ""
	switch {
	case r.uses.tableWrites != "":
		why = "it changes a table with " + r.uses.tableWrites
	case r.uses.segments != "":
		why = "it gives up a segment with " + r.uses.segments
	case len(m.importedTables) > 0:
		why = "it imports a table"
	case len(m.importedMems) > 0:
		why = "it imports its memory"
	}
	for _, g := range m.importedGlobals {
		if g.mutable {
			why = "it imports a mutable global"
		}
	}
	for i := range m.globals {
		if g := &m.globals[i]; g.mutable && g.typ.isRef() {
			why = "it has a mutable global of type " + g.typ.String()
		}
	}
	r.art.Resettable, r.art.NotResettable = why == "", why
}

// renumber moves function indexes outside of bodies.
func (r *rewriter) renumber() {
	m, n := r.m, &r.names
	if n.moved == 0 {
		return
	}
	for i := range m.exports {
		if x := &m.exports[i]; x.kind == kindFunc {
			x.index = n.function(x.index)
		}
	}
	if m.start >= 0 {
		m.start = int64(n.function(uint32(m.start)))
	}
	for i := range m.globals {
		m.globals[i].init = mapConstExpr(m.globals[i].init, n.function)
	}
	for i := range m.elems {
		m.elems[i].vec = mapElements(&m.elems[i], n.function)
	}
}

// mapConstExpr returns a constant expression with f applied to the function
// that it names, if any.
func mapConstExpr(b []byte, f func(uint32) uint32) []byte {
	if opcode(b[0]) != opRefFunc {
		return b
	}
	i, _ := leb32(b[1:])
	return append(appendU32([]byte{byte(opRefFunc)}, f(i)), byte(opEnd))
}

// mapElements returns the vector of an element segment with f applied to every
// function.
func mapElements(s *elemSegment, f func(uint32) uint32) []byte {
	r := reader{b: s.vec}
	out := make([]byte, 0, len(s.vec)+len(s.vec)/8+8)
	for range s.n {
		if s.flags&4 == 0 {
			out = appendU32(out, f(r.u32()))
			continue
		}
		start := r.pos
		switch opcode(r.byte()) {
		case opRefFunc, opGlobalGet:
			r.u32()
		default: // ref.null
			r.byte()
		}
		r.byte()
		out = append(out, mapConstExpr(s.vec[start:r.pos], f)...)
	}
	return out
}
