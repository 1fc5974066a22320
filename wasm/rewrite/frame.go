package rewrite

// frameMeter estimates, while a body is walked, how many bytes of native stack
// a call of the function takes in the engine's compiled code.
//
// The engine's frame is a fixed part (return address, frame pointer, saved
// registers), a slot for every value that is spilled, and the arguments and
// results of calls that do not fit into registers. Each spilled value has a slot
// of its own. Values are spilled where they live across a call, or where there
// are more of them than registers. The estimate counts a slot for each
// parameter and local, for the deepest operand stack, and for each value that
// is seen to live across a call. TestDepthShapes holds it against the engine.
type frameMeter struct {
	m       *module
	heights []height // parallel to walker.ctrl
	h       int      // operands on the stack
	deepest int
	across  int // values that live across a call
	counted int // operands below this height are counted in across
	epoch   uint32
	args    int // the most stack slots that a call's arguments and results need
	vector  bool
	locals  []localVersion // by local; entries of other functions are stale
	gen     uint32
}

// height is the operand stack at the beginning of a block.
type height struct{ base, params, results int }

type localVersion struct {
	gen   uint32
	epoch uint32 // calls seen when it was last set
	done  bool   // counted in across
}

const (
	frameFixed = 96
	slotSize   = 8
)

func (fm *frameMeter) open(m *module, typ *funcType) {
	fm.m = m
	fm.heights = append(fm.heights[:0], height{0, 0, len(typ.results)})
	fm.h, fm.deepest, fm.across, fm.counted, fm.epoch, fm.args = 0, 0, 0, 0, 0, 0
	fm.vector = false
	fm.gen++
}

func (fm *frameMeter) pop(n int) {
	base := fm.heights[len(fm.heights)-1].base
	fm.h = max(fm.h-n, base)
	fm.counted = min(fm.counted, fm.h)
}

func (fm *frameMeter) push(n int) {
	fm.h += n
	fm.deepest = max(fm.deepest, fm.h)
}

// unreachable drops what the current block has on the stack.
func (fm *frameMeter) unreachable() { fm.pop(fm.h) }

func (fm *frameMeter) local(i uint32) *localVersion {
	for int(i) >= len(fm.locals) {
		fm.locals = append(fm.locals, localVersion{})
	}
	v := &fm.locals[i]
	if v.gen != fm.gen {
		*v = localVersion{gen: fm.gen}
	}
	return v
}

func (fm *frameMeter) call(t *funcType) {
	fm.pop(len(t.params))
	fm.across += max(fm.h-fm.counted, 0)
	fm.counted = max(fm.counted, fm.h)
	fm.epoch++
	fm.push(len(t.results))
	fm.args = max(fm.args, len(t.params)+len(t.results))
}

// note takes the instruction that w read.
func (fm *frameMeter) note(w *walker) {
	switch w.op {
	case opBlock, opLoop, opIf:
		if w.op == opIf {
			fm.pop(1)
		}
		p, r := fm.m.blockTypes(w.bt)
		fm.pop(len(p))
		fm.heights = append(fm.heights, height{fm.h, len(p), len(r)})
		fm.push(len(p))
		if w.op == opLoop {
			fm.epoch++ // there may be a call later in the loop
		}
	case opElse:
		top := fm.heights[len(fm.heights)-1]
		fm.pop(fm.h)
		fm.push(top.params)
	case opEnd:
		top := fm.heights[len(fm.heights)-1]
		fm.pop(fm.h)
		fm.heights = fm.heights[:len(fm.heights)-1]
		fm.push(top.results)
	case opBrIf:
		fm.pop(1)
	case opBr, opBrTable, opReturn, opUnreachable:
		fm.unreachable()
	case opCall, opReturnCall:
		fm.call(fm.m.funcType(w.x))
		if w.op == opReturnCall {
			fm.unreachable()
		}
	case opCallIndirect, opReturnCallInd:
		fm.pop(1)
		fm.call(&fm.m.types[w.x])
		if w.op == opReturnCallInd {
			fm.unreachable()
		}
	case opLocalSet, opLocalTee:
		v := fm.local(w.x)
		v.epoch, v.done = fm.epoch, false
		if w.op == opLocalSet {
			fm.pop(1)
		}
	case opLocalGet:
		if v := fm.local(w.x); v.epoch != fm.epoch && !v.done {
			v.done = true
			fm.across++
		}
		fm.push(1)
	default:
		d := &ops[w.op]
		fm.vector = fm.vector || w.op >= opFD
		fm.pop(int(d.pop))
		fm.push(int(d.push))
	}
}

// size returns the estimate in bytes for a function with the given number of
// parameters and locals together.
func (fm *frameMeter) size(locals uint32) uint32 {
	slots := int(locals) + fm.deepest + fm.across + fm.args
	if fm.vector {
		slots *= 2
	}
	return uint32(frameFixed + slotSize*slots)
}
