package rewrite

// encode writes m as a module. Numbers come out in their shortest form, so a
// module that was written by a usual tool and not changed comes out as it was.
func (m *module) encode() []byte {
	size := len(preamble)
	for i := range m.bodies {
		size += len(m.bodies[i].locals) + len(m.bodies[i].code) + 5
	}
	for i := range m.datas {
		size += len(m.datas[i].data) + len(m.datas[i].offset) + 8
	}
	for i := range m.elems {
		size += len(m.elems[i].vec) + 32
	}
	for i := range m.customs {
		size += len(m.customs[i].data) + len(m.customs[i].name) + 16
	}
	size += 16*(len(m.types)+len(m.globals)) + 4*len(m.funcs) + 32*(len(m.imports)+len(m.exports)) + 256
	e := encoder{m: m, out: append(make([]byte, 0, size), preamble...)}
	e.customSections(0)
	for _, id := range sectionOrder {
		e.section(id)
		e.customSections(id)
	}
	return e.out
}

type encoder struct {
	m   *module
	out []byte
}

func (e *encoder) customSections(after byte) {
	for i := range e.m.customs {
		if c := &e.m.customs[i]; c.after == after {
			e.out = append(e.out, secCustom)
			e.sized(func() {
				e.out = appendName(e.out, c.name)
				e.out = append(e.out, c.data...)
			})
		}
	}
}

// sized writes what f appends, behind its length. The length takes the room it
// needs: what f wrote moves by the bytes that one was too few.
func (e *encoder) sized(f func()) {
	at := len(e.out)
	e.out = append(e.out, 0)
	f()
	n := len(e.out) - at - 1
	var buf [5]byte
	l := appendU32(buf[:0], uint32(n))
	if extra := len(l) - 1; extra > 0 {
		e.out = append(e.out, buf[:extra]...)
		copy(e.out[at+len(l):], e.out[at+1:at+1+n])
	}
	copy(e.out[at:], l)
}

// vec writes a section of n elements, unless there are none.
func (e *encoder) vec(id byte, n int, f func(i int)) {
	if n == 0 {
		return
	}
	e.out = append(e.out, id)
	e.sized(func() {
		e.u32(uint32(n))
		for i := range n {
			f(i)
		}
	})
}

func (e *encoder) u32(v uint32) { e.out = appendU32(e.out, v) }

func (e *encoder) bytes(b []byte) {
	e.u32(uint32(len(b)))
	e.out = append(e.out, b...)
}

func (e *encoder) limits(l limits) {
	if l.hasMax {
		e.out = append(e.out, 1)
		e.u32(l.min)
		e.u32(l.max)
		return
	}
	e.out = append(e.out, 0)
	e.u32(l.min)
}

func (e *encoder) table(t tableType) {
	e.out = append(e.out, byte(t.elem))
	e.limits(t.limits)
}

func (e *encoder) global(t globalType) {
	mut := byte(0)
	if t.mutable {
		mut = 1
	}
	e.out = append(e.out, byte(t.typ), mut)
}

func (e *encoder) section(id byte) {
	m := e.m
	switch id {
	case secType:
		e.vec(id, len(m.types), func(i int) {
			e.out = append(e.out, 0x60)
			e.bytes(m.types[i].params)
			e.bytes(m.types[i].results)
		})
	case secImport:
		e.vec(id, len(m.imports), func(i int) { e.importEntry(&m.imports[i]) })
	case secFunction:
		e.vec(id, len(m.funcs), func(i int) { e.u32(m.funcs[i]) })
	case secTable:
		e.vec(id, len(m.tables), func(i int) { e.table(m.tables[i]) })
	case secMemory:
		e.vec(id, len(m.mems), func(i int) { e.limits(m.mems[i]) })
	case secGlobal:
		e.vec(id, len(m.globals), func(i int) {
			e.global(m.globals[i].globalType)
			e.out = append(e.out, m.globals[i].init...)
		})
	case secExport:
		e.vec(id, len(m.exports), func(i int) {
			x := &m.exports[i]
			e.out = appendName(e.out, x.name)
			e.out = append(e.out, byte(x.kind))
			e.u32(x.index)
		})
	case secStart:
		if m.start >= 0 {
			e.out = append(e.out, id)
			e.sized(func() { e.u32(uint32(m.start)) })
		}
	case secElement:
		e.vec(id, len(m.elems), func(i int) { e.elem(&m.elems[i]) })
	case secDataCount:
		if m.dataCount {
			e.out = append(e.out, id)
			e.sized(func() { e.u32(uint32(len(m.datas))) })
		}
	case secCode:
		e.vec(id, len(m.bodies), func(i int) {
			b := &m.bodies[i]
			e.u32(uint32(len(b.locals) + len(b.code)))
			e.out = append(e.out, b.locals...)
			e.out = append(e.out, b.code...)
		})
	case secData:
		e.vec(id, len(m.datas), func(i int) {
			d := &m.datas[i]
			if d.passive {
				e.out = append(e.out, 1)
			} else {
				e.out = append(append(e.out, 0), d.offset...)
			}
			e.bytes(d.data)
		})
	}
}

func (e *encoder) importEntry(x *importEntry) {
	e.out = appendName(e.out, x.module)
	e.out = appendName(e.out, x.name)
	e.out = append(e.out, byte(x.kind))
	switch x.kind {
	case kindFunc:
		e.u32(x.typ)
	case kindTable:
		e.table(x.table)
	case kindMemory:
		e.limits(x.mem)
	case kindGlobal:
		e.global(x.global)
	}
}

func (e *encoder) elem(s *elemSegment) {
	e.u32(s.flags)
	if s.active() {
		if s.flags&2 != 0 {
			e.u32(s.table)
		}
		e.out = append(e.out, s.offset...)
	}
	if s.flags&3 != 0 {
		if s.flags&4 != 0 {
			e.out = append(e.out, byte(s.elem))
		} else {
			e.out = append(e.out, 0)
		}
	}
	e.u32(s.n)
	e.out = append(e.out, s.vec...)
}
