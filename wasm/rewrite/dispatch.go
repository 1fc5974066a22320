package rewrite

// dispatch recognizes how compilers without structured control flow, Go's above
// all, jump inside a function: the body is a loop that begins with blocks
// nested in each other and a br_table over a local, and a jump sets the local to
// a constant and branches to the loop. Such a jump leads to one known block.
// Where that lies ahead, the jump closes no cycle and needs no check.
type dispatch struct {
	active bool
	loop   int      // index in bodyMeter.blocks of the loop
	local  uint32   // that the br_table reads
	table  []uint32 // block numbers by value, the default last
	debts  []int32  // by block number: debt at its end, once it has ended
	ahead  []bool   // the block has not ended
	from   []int    // the byte behind its end
	depth  []int    // blocks open there

	// The instructions before the present one, as far as they matter.
	state  dispatchState
	opened int // blocks opened right behind the loop
	read   uint32
	value  int64
}

type dispatchState uint8

const (
	seenNothing dispatchState = iota
	seenLoop                  // a loop and opened blocks
	seenGet                   // behind those, a local.get
	seenConst                 // an i32.const
	seenSet                   // behind that, a local.set
)

func (d *dispatch) reset() {
	*d = dispatch{table: d.table[:0], debts: d.debts[:0], ahead: d.ahead[:0],
		from: d.from[:0], depth: d.depth[:0]}
}

// note takes the instruction that w read, after it was dealt with.
func (d *dispatch) note(w *walker) {
	switch w.op {
	case opLoop:
		d.opened = 0
		if w.bt == emptyBlock {
			d.state = seenLoop
		} else {
			d.state = seenNothing
		}
	case opBlock:
		if d.state != seenLoop || w.bt != emptyBlock {
			d.state = seenNothing
		}
		d.opened++
	case opLocalGet:
		if d.state == seenLoop {
			d.state, d.read = seenGet, w.x
		} else {
			d.state = seenNothing
		}
	case opI32Const:
		d.state, d.value = seenConst, w.val
	case opLocalSet:
		if d.state == seenConst && d.active && w.x == d.local {
			d.state = seenSet
		} else {
			d.state = seenNothing
		}
	default:
		d.state = seenNothing
	}
}

// begin takes the br_table that w read, before note does.
func (d *dispatch) begin(b *bodyMeter, w *walker) {
	if d.state != seenGet || d.active {
		return
	}
	// Label l is block number opened-1-l, counted from the outermost.
	number := func(label uint32) uint32 { return uint32(d.opened-1) - label }
	ok := int(w.x) < d.opened
	for _, label := range w.targets {
		ok = ok && int(label) < d.opened
	}
	if !ok {
		return
	}
	d.active, d.local = true, d.read
	d.loop = len(b.blocks) - 1 - d.opened
	for _, label := range w.targets {
		d.table = append(d.table, number(label))
	}
	d.table = append(d.table, number(w.x))
	for i := range d.opened {
		d.debts = append(d.debts, dead)
		d.ahead = append(d.ahead, true)
		d.from, d.depth = append(d.from, 0), append(d.depth, 0)
		b.blocks[d.loop+1+i].target = i + 1
	}
}

// ended takes the end of a block that the dispatch leads to.
func (d *dispatch) ended(number int, debt int32, from, depth int) {
	d.debts[number], d.ahead[number], d.from[number], d.depth[number] = debt, false, from, depth
}

// target returns the number of the block that a jump leads to whose value was
// just set.
func (d *dispatch) target() int {
	i := uint32(int32(d.value))
	return int(d.table[min(i, uint32(len(d.table)-1))])
}

// dispatched deals with a br to a loop that is a jump through a dispatch.
func (e *emitter) dispatched() bool {
	w, b := &e.w, &e.meter
	d := &b.jump
	if d.state != seenSet || !d.active || len(b.blocks)-1-int(w.x) != d.loop {
		return false
	}
	n := d.target()
	debt := b.debt + costSwitch
	if d.ahead[n] {
		// The block is still open: it is as if the jump led to its end.
		to := &b.blocks[d.loop+1+n]
		to.debt = max(to.debt, debt)
		e.replace()
		e.ins1(opBr, uint32(len(b.blocks)-1-(d.loop+1+n)))
		return true
	}
	e.replace()
	e.payJump(debt-d.debts[n], w.x, e.carried(d.from[n], d.depth[n]))
	return true
}
