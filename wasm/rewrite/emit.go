package rewrite

const (
	prefixFC = 0xfc
	prefixFD = 0xfd
)

// emitter writes the changed form of one body after another. What is not
// changed is copied in runs: copied is how far.
type emitter struct {
	r      *rewriter
	w      walker
	out    []byte
	copied int
	extra  []valType // locals added to the function
	vector uint32    // an added v128 local, once there is one
	meter  bodyMeter
}

// rewriteBodies applies every change to the bodies of m. Bodies are replaced
// one by one while later ones are walked against m: the index spaces of m must
// not have changed yet.
func (r *rewriter) rewriteBodies() error {
	e := &emitter{r: r}
	e.w.tailCalls = r.o.TailCalls
	changed := make([]body, len(r.m.bodies))
	for k := range r.m.bodies {
		i := k
		if r.meter != nil {
			// What a call costs depends on the callee.
			i = int(r.meter.order[len(changed)-1-k])
		}
		e.body(i)
		if e.w.err != nil {
			return e.w.err
		}
		b := &r.m.bodies[i]
		changed[i] = body{locals: e.locals(b.locals), code: e.out}
		e.out = nil
	}
	r.m.bodies = changed
	return nil
}

// locals returns the declarations with the added ones at the end.
func (e *emitter) locals(decl []byte) []byte {
	if len(e.extra) == 0 {
		return decl
	}
	n, l := leb32(decl)
	out := appendU32(make([]byte, 0, len(decl)+2*len(e.extra)+1), n+uint32(len(e.extra)))
	out = append(out, decl[l:]...)
	for _, t := range e.extra {
		out = append(out, 1, byte(t))
	}
	return out
}

// local adds a local of type t to the function and returns its index.
func (e *emitter) local(t valType) uint32 {
	e.extra = append(e.extra, t)
	return e.w.locals + uint32(len(e.extra)) - 1
}

// flush copies what stands before byte upto.
func (e *emitter) flush(upto int) {
	e.out = append(e.out, e.w.b[e.copied:upto]...)
	e.copied = upto
}

// replace copies what stands before the instruction and drops it.
func (e *emitter) replace() {
	e.flush(e.w.start)
	e.copied = e.w.pos
}

func (e *emitter) ins(op opcode)            { e.out = append(e.out, byte(op)) }
func (e *emitter) ins1(op opcode, x uint32) { e.out = appendU32(append(e.out, byte(op)), x) }

// insFD writes a vector instruction without immediates but a lane.
func (e *emitter) insFD(op opcode, lane ...byte) {
	e.out = append(appendU32(append(e.out, prefixFD), uint32(op-opFD)), lane...)
}

func (e *emitter) body(i int) {
	w := &e.w
	w.open(e.r.m, i)
	e.out = make([]byte, 0, len(w.b)+len(w.b)/8+16)
	e.copied, e.extra, e.vector = 0, e.extra[:0], 0
	if e.r.meter != nil {
		e.beginMeter(i)
		for w.next() {
			e.metered()
		}
	} else {
		for w.next() {
			e.common()
		}
	}
	if w.err == nil {
		e.flush(len(w.b))
	}
}

// common makes the changes that no flow of control depends on: indexes that
// moved and globals that were split.
func (e *emitter) common() {
	w, r := &e.w, e.r
	switch w.op {
	case opCall, opReturnCall, opRefFunc:
		if to := r.names.function(w.x); to != w.x {
			e.replace()
			e.ins1(w.op, to)
		}
	case opGlobalGet:
		if high, is := r.snap.high[w.x]; is {
			e.replace()
			e.ins1(opGlobalGet, w.x)
			e.insFD(opI64x2Splat)
			e.ins1(opGlobalGet, high)
			e.insFD(opI64x2Replace, 1)
		}
	case opGlobalSet:
		if high, is := r.snap.high[w.x]; is {
			if e.vector == 0 {
				e.vector = e.local(v128)
			}
			t := e.vector
			e.replace()
			e.ins1(opLocalTee, t)
			e.insFD(opI64x2Extract, 0)
			e.ins1(opGlobalSet, w.x)
			e.ins1(opLocalGet, t)
			e.insFD(opI64x2Extract, 1)
			e.ins1(opGlobalSet, high)
		}
	case opMemoryInit:
		if r.snap.data != nil {
			e.replace()
			e.out = append(e.out, prefixFC, byte(opMemoryInit-opFC))
			e.out = append(appendU32(e.out, r.snap.data[w.x]), 0)
		}
	case opDataDrop:
		if r.snap.data != nil {
			e.replace()
			e.out = append(e.out, prefixFC, byte(opDataDrop-opFC))
			e.out = appendU32(e.out, r.snap.data[w.x])
		}
	}
}
