package rewrite

// origins follows where addresses come from, to tell loads that can miss the
// cache each time from those that cannot. Compiled code reads many fields
// through one pointer, and above all its own stack frame: once a pointer was
// used, further accesses near it are cheap until it changes. It looks at
// straight-line code only and forgets everything at a branch or a label.
type origins struct {
	stack []uint32 // of the operands seen since the last label, what they came from
	near  []uint32 // by local, then global: generation in which it was last used as an address
	gen   uint32
	split uint32 // number of locals
}

const (
	unknownOrigin = 1<<32 - 1
	// nearOffset bounds the constant offsets that count as near: a pointer's
	// accesses then stay within one page, or two.
	nearOffset = 2048
	// trackedOrigins bounds the table of a function with very many locals.
	trackedOrigins = 4096
)

func (o *origins) open(locals uint32) {
	o.stack = o.stack[:0]
	o.split = locals
	o.gen++
}

// forget begins another stretch of straight-line code.
func (o *origins) forget() {
	o.stack = o.stack[:0]
	o.gen++
}

func (o *origins) pop(n int) { o.stack = o.stack[:max(len(o.stack)-n, 0)] }

func (o *origins) push(from uint32) { o.stack = append(o.stack, from) }

// at returns the origin of the operand below n others.
func (o *origins) at(n int) uint32 {
	if i := len(o.stack) - 1 - n; i >= 0 {
		return o.stack[i]
	}
	return unknownOrigin
}

// variable numbers locals and globals together.
func (o *origins) variable(w *walker) uint32 {
	if w.op == opGlobalGet || w.op == opGlobalSet {
		return o.split + w.x
	}
	return w.x
}

func (o *origins) changed(v uint32) {
	if int(v) < len(o.near) {
		o.near[v] = 0
	}
	for i, from := range o.stack {
		if from == v {
			o.stack[i] = unknownOrigin
		}
	}
}

// use records an access through v and reports whether it is near an earlier one.
func (o *origins) use(v uint32) bool {
	if v >= trackedOrigins {
		return false
	}
	for int(v) >= len(o.near) {
		o.near = append(o.near, 0)
	}
	near := o.near[v] == o.gen
	o.near[v] = o.gen
	return near
}

// cost returns the cost of the instruction that w read, which is neither a
// branch nor a call, and follows it.
func (o *origins) cost(w *walker) int32 {
	switch w.op {
	case opLocalGet, opGlobalGet:
		o.push(o.variable(w))
		return int32(opCosts[w.op])
	case opLocalSet, opGlobalSet:
		o.pop(1)
		o.changed(o.variable(w))
		return int32(opCosts[w.op])
	case opLocalTee:
		o.pop(1)
		o.changed(w.x)
		o.push(w.x)
		return int32(opCosts[w.op])
	case opI32WrapI64:
		return int32(opCosts[w.op]) // the address that Go computes with 64 bits
	}
	d := &ops[w.op]
	cost := int32(opCosts[w.op])
	if d.imm == immMemarg {
		from := o.at(int(d.pop) - 1)
		if from != unknownOrigin && w.y < nearOffset && o.use(from) {
			cost = costNear
		}
	}
	o.pop(int(d.pop))
	for range d.push {
		o.push(unknownOrigin)
	}
	return cost
}
