package rewrite

import "bytes"

var preamble = []byte{0, 'a', 's', 'm', 1, 0, 0, 0}

// parse decodes a module and checks its structure: section order and sizes,
// every index and type outside of function bodies. Bodies are checked by
// walker. Types of instructions are left to the engine, which validates what
// comes out. The result aliases b.
func parse(b []byte) (*module, error) {
	if len(b) > maxModule {
		return nil, tooMany(0, "bytes of module", uint64(len(b)), maxModule)
	}
	if !bytes.HasPrefix(b, preamble) {
		switch {
		case len(b) >= 8 && string(b[:4]) == "\x00asm" && b[6] == 1:
			return nil, refused(4, "the component model", "the engine runs core modules only",
				"submit the core module inside the component")
		case len(b) >= 8 && string(b[:4]) == "\x00asm":
			return nil, invalid(4, "unknown version")
		}
		return nil, invalid(0, "no WebAssembly: it does not begin with \\0asm and version 1")
	}
	m := &module{start: -1}
	p := parser{m: m, reader: reader{b: b, pos: len(preamble)}}
	rank, after := 0, byte(0)
	codeOff := len(b)
	for p.left() > 0 && p.err == nil {
		off := p.off()
		id := p.byte()
		size := p.u32()
		content := p.bytes(size)
		if p.err != nil {
			break
		}
		s := parser{m: m, reader: reader{b: content, base: p.off() - len(content)}, codeCount: p.codeCount, dataCount: p.dataCount}
		if id == secCustom {
			name := s.name("custom section name")
			if s.err != nil {
				return nil, s.err
			}
			m.customs = append(m.customs, customSection{after, name, content[s.pos:]})
			continue
		}
		if id == secTag {
			return nil, refuseExceptions(off)
		}
		r := sectionRank(id)
		if r == 0 {
			return nil, invalid(off, "unknown section %d", id)
		}
		if r <= rank {
			return nil, invalid(off, "section %d is out of order or there twice", id)
		}
		rank, after = r, id
		if id == secCode {
			codeOff = off
		}
		s.section(id)
		if s.err == nil && s.left() > 0 {
			s.fail(invalid(s.off(), "%d bytes too many in section %d", s.left(), id))
		}
		if s.err != nil {
			return nil, s.err
		}
		p.codeCount, p.dataCount = s.codeCount, s.dataCount
	}
	if p.err != nil {
		return nil, p.err
	}
	if len(m.bodies) != len(m.funcs) {
		return nil, invalid(codeOff, "%d functions and %d bodies", len(m.funcs), len(m.bodies))
	}
	if m.dataCount && int(p.dataCount) != len(m.datas) {
		return nil, invalid(len(b), "%d data segments where the data count section says %d", len(m.datas), p.dataCount)
	}
	return m, nil
}

// parser decodes sections into m.
type parser struct {
	reader
	m         *module
	codeCount int
	dataCount uint32
}

func (p *parser) section(id byte) {
	m := p.m
	switch id {
	case secType:
		n := p.count("types", 3, maxTypes)
		m.types = make([]funcType, 0, n)
		for i := 0; i < n && p.err == nil; i++ {
			m.types = append(m.types, p.funcType())
		}
	case secImport:
		n := p.count("imports", 4, maxTypes)
		m.imports = make([]importEntry, 0, min(n, 1024))
		for i := 0; i < n && p.err == nil; i++ {
			p.importEntry()
		}
	case secFunction:
		n := p.count("functions", 1, maxTypes)
		m.funcs = make([]uint32, n)
		for i := range m.funcs {
			m.funcs[i] = p.index("type", uint32(len(m.types)))
		}
	case secTable:
		n := p.count("tables", 3, maxTables)
		for i := 0; i < n && p.err == nil; i++ {
			m.tables = append(m.tables, p.tableType())
		}
	case secMemory:
		n := p.count("memories", 2, maxTables)
		for i := 0; i < n && p.err == nil; i++ {
			m.mems = append(m.mems, p.memType())
		}
	case secGlobal:
		n := p.count("globals", 4, maxTypes)
		m.globals = make([]globalEntry, 0, n)
		for i := 0; i < n && p.err == nil; i++ {
			t := p.globalType()
			m.globals = append(m.globals, globalEntry{t, p.constExpr(t.typ)})
		}
	case secExport:
		p.exports()
	case secStart:
		off := p.off()
		f := p.index("function", m.numFuncs())
		if p.err == nil && (len(m.funcType(f).params) > 0 || len(m.funcType(f).results) > 0) {
			p.fail(invalid(off, "the start function takes or gives values"))
		}
		m.start = int64(f)
	case secElement:
		n := p.count("element segments", 2, maxSegments)
		m.elems = make([]elemSegment, 0, n)
		for i := 0; i < n && p.err == nil; i++ {
			m.elems = append(m.elems, p.elemSegment())
		}
	case secDataCount:
		m.dataCount, p.dataCount = true, p.u32()
	case secCode:
		n := p.count("function bodies", 4-1, maxTypes)
		m.bodies = make([]body, 0, n)
		for i := 0; i < n && p.err == nil; i++ {
			m.bodies = append(m.bodies, p.body())
		}
	case secData:
		n := p.count("data segments", 2, maxSegments)
		m.datas = make([]dataSegment, 0, n)
		for i := 0; i < n && p.err == nil; i++ {
			m.datas = append(m.datas, p.dataSegment())
		}
	}
}

// index reads an index into a space of n entries.
func (p *parser) index(what string, n uint32) uint32 {
	off := p.off()
	i := p.u32()
	if p.err == nil && i >= n {
		p.fail(invalid(off, "unknown %s %d of %d", what, i, n))
		return 0
	}
	return i
}

func (p *parser) valType() valType {
	off := p.off()
	t := valType(p.byte())
	if p.err == nil {
		if err := checkValType(t, off); err != nil {
			p.fail(err)
		}
	}
	return t
}

// checkValType returns nil for a value type that the engine has.
func checkValType(t valType, off int) error {
	switch t {
	case i32, i64, f32, f64, v128, funcref, externref:
		return nil
	case 0x69, 0x74: // exnref, noexn
		return refuseExceptions(off)
	case 0x63, 0x64:
		return refuseTypedRefs(off)
	case 0x6a, 0x6b, 0x6c, 0x6d, 0x6e, 0x71, 0x72, 0x73:
		return refuseGC(off)
	}
	return invalid(off, "unknown type 0x%02x", byte(t))
}

func (p *parser) refType() valType {
	off := p.off()
	t := p.valType()
	if p.err == nil && !t.isRef() {
		p.fail(invalid(off, "%s is no reference type", t))
	}
	return t
}

func (p *parser) funcType() funcType {
	off := p.off()
	switch form := p.byte(); form {
	case 0x60:
	case 0x4e, 0x4f, 0x50, 0x5e, 0x5f:
		p.fail(refuseGC(off))
	default:
		p.fail(invalid(off, "unknown form of type 0x%02x", form))
	}
	return funcType{p.typeVec("parameters"), p.typeVec("results")}
}

func (p *parser) typeVec(what string) []byte {
	n := p.count(what, 1, maxParams)
	start := p.pos
	for i := 0; i < n && p.err == nil; i++ {
		p.valType()
	}
	if p.err != nil {
		return nil
	}
	return p.b[start:p.pos:p.pos]
}

func (p *parser) importEntry() {
	m := p.m
	var e importEntry
	e.module = p.name("import module name")
	e.name = p.name("import name")
	off := p.off()
	k := p.byte()
	if p.err != nil {
		return
	}
	e.kind = kind(k)
	switch e.kind {
	case kindFunc:
		e.typ = p.index("type", uint32(len(m.types)))
		m.importedFuncs = append(m.importedFuncs, e.typ)
	case kindTable:
		e.table = p.tableType()
		m.importedTables = append(m.importedTables, e.table)
	case kindMemory:
		e.mem = p.memType()
		m.importedMems = append(m.importedMems, e.mem)
	case kindGlobal:
		e.global = p.globalType()
		m.importedGlobals = append(m.importedGlobals, e.global)
	case 4:
		p.fail(refuseExceptions(off))
	default:
		p.fail(invalid(off, "unknown kind of import %d", k))
	}
	if m.numTables() > maxTables {
		p.fail(tooMany(off, "tables", uint64(m.numTables()), maxTables))
	}
	m.imports = append(m.imports, e)
}

// limits reads limits of at most limit and refuses shared and 64-bit ones.
func (p *parser) limits(limit uint64) limits {
	off := p.off()
	flags := p.byte()
	switch {
	case p.err != nil:
	case flags > 7:
		p.fail(invalid(off, "unknown flags of limits 0x%02x", flags))
	case flags&4 != 0:
		p.fail(refuseMemory64(off))
	case flags&2 != 0:
		p.fail(refuseThreads(off))
	}
	l := limits{min: p.u32(), hasMax: flags&1 != 0}
	if l.hasMax {
		l.max = p.u32()
		if p.err == nil && l.max < l.min {
			p.fail(invalid(off, "limits whose maximum %d is below the minimum %d", l.max, l.min))
		}
	}
	if p.err == nil && (uint64(l.min) > limit || uint64(l.max) > limit) {
		p.fail(invalid(off, "limits above %d", limit))
	}
	return l
}

func (p *parser) tableType() tableType {
	off := p.off()
	if p.left() > 0 && p.b[p.pos] == 0x40 {
		p.fail(refuseTypedRefs(off)) // a table with an initial value
		return tableType{}
	}
	t := tableType{elem: p.refType(), limits: p.limits(1<<32 - 1)}
	if p.err == nil && t.min > maxTableSize {
		p.fail(tooMany(off, "table entries", uint64(t.min), maxTableSize))
	}
	return t
}

func (p *parser) memType() limits {
	off := p.off()
	l := p.limits(maxPages)
	if p.err == nil && int(p.m.numMems()) > 0 {
		p.fail(refuseMultiMemory(off))
	}
	return l
}

func (p *parser) globalType() globalType {
	t := p.valType()
	off := p.off()
	mut := p.byte()
	if p.err == nil && mut > 1 {
		if mut&2 != 0 && mut <= 3 {
			p.fail(refuseThreads(off))
		}
		p.fail(invalid(off, "unknown mutability 0x%02x", mut))
	}
	return globalType{t, mut == 1}
}

// constExpr reads a constant expression that gives a value of type want: one
// constant and an end.
func (p *parser) constExpr(want valType) []byte {
	start, off := p.pos, p.off()
	got := valType(0)
	switch op := p.byte(); op {
	case 0x41:
		p.signed(32)
		got = i32
	case 0x42:
		p.signed(64)
		got = i64
	case 0x43:
		p.bytes(4)
		got = f32
	case 0x44:
		p.bytes(8)
		got = f64
	case 0xfd:
		if sub := p.u32(); p.err == nil && sub != 12 {
			p.fail(invalid(off, "an instruction that is not constant"))
		}
		p.bytes(16)
		got = v128
	case 0x23:
		i := p.index("imported global", uint32(len(p.m.importedGlobals)))
		if p.err != nil {
			return nil
		}
		g := p.m.importedGlobals[i]
		if g.mutable {
			p.fail(invalid(off, "a constant expression reads a mutable global"))
		}
		got = g.typ
	case 0xd0:
		got = p.refType()
	case 0xd2:
		p.index("function", p.m.numFuncs())
		got = funcref
	default:
		p.fail(invalid(off, "an instruction that is not constant: 0x%02x", op))
	}
	if p.err != nil {
		return nil
	}
	if end := p.byte(); p.err == nil && end != 0x0b {
		switch end {
		case 0x6a, 0x6b, 0x6c, 0x7c, 0x7d, 0x7e, 0x41, 0x42, 0x23:
			p.fail(refuseExtendedConst(off))
		}
		p.fail(invalid(off, "a constant expression with more than one value"))
	}
	if p.err == nil && got != want {
		p.fail(invalid(off, "a constant expression of type %s where %s is due", got, want))
	}
	if p.err != nil {
		return nil
	}
	return p.b[start:p.pos:p.pos]
}

func (p *parser) exports() {
	m := p.m
	n := p.count("exports", 3, maxTypes)
	m.exports = make([]exportEntry, 0, min(n, 1024))
	seen := make(map[string]struct{}, min(n, 1024))
	for i := 0; i < n && p.err == nil; i++ {
		off := p.off()
		e := exportEntry{name: p.name("export name")}
		if _, twice := seen[e.name]; twice && p.err == nil {
			p.fail(invalid(off, "export %q is there twice", e.name))
		}
		seen[e.name] = struct{}{}
		off = p.off()
		k := p.byte()
		if p.err != nil {
			return
		}
		e.kind = kind(k)
		switch e.kind {
		case kindFunc:
			e.index = p.index("function", m.numFuncs())
		case kindTable:
			e.index = p.index("table", m.numTables())
		case kindMemory:
			e.index = p.index("memory", m.numMems())
		case kindGlobal:
			e.index = p.index("global", m.numGlobals())
		case 4:
			p.fail(refuseExceptions(off))
		default:
			p.fail(invalid(off, "unknown kind of export %d", k))
		}
		m.exports = append(m.exports, e)
	}
}

func (p *parser) elemSegment() elemSegment {
	m := p.m
	off := p.off()
	e := elemSegment{flags: p.u32(), elem: funcref}
	if e.flags > 7 {
		p.fail(invalid(off, "unknown flags of element segment %d", e.flags))
	}
	if p.err != nil {
		return e
	}
	if e.active() {
		if e.flags&2 != 0 {
			e.table = p.u32()
		}
		if p.err == nil && e.table >= m.numTables() {
			p.fail(invalid(off, "unknown table %d of %d", e.table, m.numTables()))
		}
		e.offset = p.constExpr(i32)
	}
	if e.flags&3 != 0 {
		if e.flags&4 != 0 {
			e.elem = p.refType()
		} else if k := p.byte(); p.err == nil && k != 0 {
			p.fail(invalid(p.off()-1, "unknown kind of elements 0x%02x", k))
		}
	}
	if p.err == nil && e.active() && m.table(e.table).elem != e.elem {
		p.fail(invalid(off, "elements of %s for a table of %s", e.elem, m.table(e.table).elem))
	}
	least := 1
	if e.flags&4 != 0 {
		least = 3
	}
	e.n = uint32(p.count("elements", least, maxTableSize))
	start := p.pos
	for i := uint32(0); i < e.n && p.err == nil; i++ {
		if e.flags&4 != 0 {
			p.constExpr(e.elem)
		} else {
			p.index("function", m.numFuncs())
		}
	}
	if p.err == nil {
		e.vec = p.b[start:p.pos:p.pos]
	}
	return e
}

func (p *parser) body() body {
	off := p.off()
	size := p.u32()
	if p.err == nil && size > maxBody {
		p.fail(tooMany(off, "bytes of a function body", uint64(size), maxBody))
		return body{}
	}
	content := p.bytes(size)
	if p.err != nil {
		return body{}
	}
	r := parser{m: p.m, reader: reader{b: content, base: p.off() - len(content)}}
	groups := r.count("groups of locals", 2, maxLocals)
	total := uint64(0)
	for i := 0; i < groups && r.err == nil; i++ {
		off := r.off()
		total += uint64(r.u32())
		r.valType()
		if total > maxLocals && r.err == nil {
			r.fail(tooMany(off, "locals", total, maxLocals))
		}
	}
	if r.err != nil {
		p.fail(r.err)
		return body{}
	}
	return body{
		locals:  content[:r.pos:r.pos],
		nlocals: uint32(total),
		code:    content[r.pos:],
		off:     r.off(),
	}
}

func (p *parser) dataSegment() dataSegment {
	off := p.off()
	flags := p.u32()
	d := dataSegment{passive: flags == 1}
	switch {
	case p.err != nil:
		return d
	case flags > 2:
		p.fail(invalid(off, "unknown flags of data segment %d", flags))
	case flags == 2:
		if mem := p.u32(); p.err == nil && mem != 0 {
			p.fail(refuseMultiMemory(off))
		}
	}
	if !d.passive {
		if p.err == nil && p.m.numMems() == 0 {
			p.fail(invalid(off, "a data segment without a memory"))
		}
		d.offset = p.constExpr(i32)
	}
	d.data = p.bytes(p.u32())
	return d
}
