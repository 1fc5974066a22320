package rewrite

import (
	"fmt"
	"strconv"

	"github.com/wray-project/wray"
)

// snapshotPlan is what the snapshot pass changes in bodies.
type snapshotPlan struct {
	// high holds, for a mutable v128 global, the i64 global with its upper
	// half; its lower half takes the old index. The engine's interface reads
	// and writes 64 bits of a global and no more.
	high map[uint32]uint32
	// data maps indexes of data segments, when that is needed.
	data []uint32
	// kept are the data segments of the new module.
	kept []dataSegment
}

// planSnapshot takes the active data segments out and decides on globals.
func (r *rewriter) planSnapshot() error {
	if err := r.takeSegments(); err != nil {
		return err
	}
	m := r.m
	split := map[uint32]uint32{}
	next := m.numGlobals()
	for i := range m.globals {
		if g := &m.globals[i]; g.mutable && g.typ == v128 {
			index := uint32(len(m.importedGlobals) + i)
			if g.init[0] != prefixFD {
				return refused(0, "a mutable v128 global that begins as an imported one",
					"it cannot be saved in halves", "begin with a constant")
			}
			split[index] = next
			next++
		}
	}
	for i := range m.exports {
		x := &m.exports[i]
		if _, is := split[x.index]; is && x.kind == kindGlobal {
			return refused(0, fmt.Sprintf("an exported mutable v128 global, %q", x.name),
				"the engine's interface reads half of it", "do not export it")
		}
	}
	if len(split) > 0 {
		r.snap.high, r.code = split, true
	}
	return nil
}

// takeSegments moves active data segments to the artifact.
func (r *rewriter) takeSegments() error {
	m := r.m
	const none = 1<<32 - 1
	empty := uint32(none) // a passive segment without bytes
	remap := make([]uint32, len(m.datas))
	var size uint64
	mem := m.memory()
	if mem != nil {
		size = uint64(mem.min) << 16
	}
	for i := range m.datas {
		d := &m.datas[i]
		if d.passive {
			remap[i] = uint32(len(r.snap.kept))
			r.snap.kept = append(r.snap.kept, *d)
			continue
		}
		if opcode(d.offset[0]) != opI32Const {
			return refused(0, fmt.Sprintf("data segment %d whose place is an imported global", i),
				"a snapshot needs to know where it lies", "link the module at a fixed address")
		}
		v, _ := sleb(d.offset[1:], 32)
		offset := uint32(v)
		if end := uint64(offset) + uint64(len(d.data)); end > size && len(m.importedMems) == 0 {
			return &wray.Error{Code: wray.CodeTrap,
				Message: fmt.Sprintf("data segment %d ends at byte %d of a memory of %d bytes: out of bounds", i, end, size),
				Hint:    "the module cannot be instantiated; raise its initial memory"}
		}
		r.art.Segments = append(r.art.Segments, Segment{offset, d.data})
		// Once instantiated, an active segment is an empty one that
		// instructions may still name.
		if r.uses.dataIndexes {
			if empty == none {
				empty = uint32(len(r.snap.kept))
				r.snap.kept = append(r.snap.kept, dataSegment{passive: true})
			}
			remap[i] = empty
		}
	}
	if r.uses.dataIndexes && len(r.art.Segments) > 0 {
		r.snap.data, r.code = remap, true
	}
	r.names.dataDropped = len(r.art.Segments) > 0
	return nil
}

// applySnapshot changes the parts of m that are no bodies.
func (r *rewriter) applySnapshot() {
	m := r.m
	m.datas = r.snap.kept
	own := len(m.globals) // the meter adds its globals later
	for i := range own {
		g := &m.globals[i]
		if !g.mutable || g.typ.isRef() {
			continue
		}
		index := uint32(len(m.importedGlobals) + i)
		if high, is := r.snap.high[index]; is {
			lo, hi := halves(g.init)
			*g = globalEntry{globalType{i64, true}, lo}
			m.globals = append(m.globals, globalEntry{globalType{i64, true}, hi})
			r.exportGlobal(index)
			r.exportGlobal(high)
			continue
		}
		r.exportGlobal(index)
	}
	if m.start >= 0 {
		m.exports = append(m.exports, exportEntry{StartExport, kindFunc, uint32(m.start)})
		m.start = -1
		r.art.StartExport = StartExport
	}
}

func (r *rewriter) exportGlobal(index uint32) {
	name := globalExport + strconv.FormatUint(uint64(index), 10)
	r.m.exports = append(r.m.exports, exportEntry{name, kindGlobal, index})
	r.art.Globals = append(r.art.Globals, Global{name, byte(r.m.global(index).typ)})
}

// halves splits v128.const into two constant expressions of i64.
func halves(init []byte) (lo, hi []byte) {
	_, n := leb32(init[1:])
	v := init[1+n:]
	half := func(b []byte) []byte {
		var x uint64
		for i := range 8 {
			x |= uint64(b[i]) << (8 * i)
		}
		return append(appendS64([]byte{byte(opI64Const)}, int64(x)), byte(opEnd))
	}
	return half(v), half(v[8:])
}
