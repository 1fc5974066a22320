package sandbox

import (
	"errors"
	"fmt"
	"sort"

	"github.com/klauspost/compress/s2"

	"github.com/wray-project/wray"
)

// State is what a sandbox is between two calls: its memory, as that differs
// from the module's snapshot, its globals, its clock, and the events that it
// has not read. It belongs to the module and is immutable.
type State struct {
	size     uint64 // of memory
	diff     []byte // compressed where packed is set
	packed   int    // length of diff before compression; 0: not compressed
	holes    []span // what is not the image's any more; zero unless diff says otherwise
	globals  []uint64
	mono     int64
	restored bool
	timers   bool // the guest may have some
	events   []Event
	keep     *keep // that holds memory, of a checkpoint; diff is then of what lies in windows
}

// span is a range of linear memory.
type span struct{ at, n uint64 }

// Base says what a range of linear memory would hold if the guest had not
// written to it: a window's object. It starts and ends at multiples of
// abi.MapAlign.
type Base struct {
	At, Len uint64
	Bytes   []byte // shorter than Len: zeros follow
}

// Held returns the bytes of memory that the state takes, about.
func (s *State) Held() int {
	return cap(s.diff) + 8*len(s.globals) + 16*len(s.holes) + 16*len(s.events) + 128
}

// Changed returns the bytes of memory that differ from the snapshot's, with
// what it takes to say where they are.
func (s *State) Changed() int { return max(s.packed, len(s.diff)) }

// ErrNoState is the failure of Save where the module has no snapshot, so that
// there is nothing that a state could be a difference from.
var ErrNoState = errors.New("the module's sandboxes cannot be saved")

// packMax bounds what is compressed: more would hold up a call that comes
// meanwhile.
const packMax = 1 << 20

// Save returns the sandbox's state, which is not changed by that. windows are
// those that are laid over its memory: Load lays them nowhere, the caller does
// before it. Open files are no part of it. No call may be in flight.
func (sb *Sandbox) Save(windows []Base) (*State, error) {
	if sb.running || sb.spoilt || sb.closed {
		panic("BUG: a sandbox is saved that runs, or was stopped")
	}
	snap := sb.module.snap
	if snap == nil {
		return nil, ErrNoState
	}
	if sb.mem.keep != nil {
		panic("BUG: Save of a sandbox that has a file of checkpoints")
	}
	s := sb.record()
	s.holes = sb.mem.holesNow()
	w := diffWriter{last: -1}
	if err := sb.diffInto(&w, windows, nil); err != nil {
		return nil, fmt.Errorf("find what the guest changed: %w", err)
	}
	s.setDiff(w.out)
	return s, nil
}

// record returns a State with all but memory.
func (sb *Sandbox) record() *State {
	snap := sb.module.snap
	s := &State{size: sb.mem.size, mono: sb.engine.clock.now() + sb.monoBase, restored: sb.restored,
		timers: sb.next != 0 || sb.Stirred()}
	for i, g := range sb.globals {
		v := g.Get()
		if s.globals == nil && v != snap.globals[i] {
			s.globals = append(make([]uint64, 0, len(sb.globals)), snap.globals[:i]...) // not nil for the first either
		}
		if s.globals != nil {
			s.globals = append(s.globals, v)
		}
	}
	s.events = sb.events.copy()
	return s
}

// diffInto adds the pages that differ from what would be there had the guest
// not written; where only is not nil, those that lie in it.
func (sb *Sandbox) diffInto(w *diffWriter, windows, only []Base) error {
	mem, holes := sb.mem.bytes(), sb.mem.holesNow()
	return sb.mem.changed(func(from, to uint64) {
		for at := from; at < to; at += statePage {
			if only == nil || inWindow(only, at) != nil {
				w.page(int(at/statePage), mem[at:at+statePage], sb.baseOf(at, holes, windows))
			}
		}
	})
}

func (s *State) setDiff(diff []byte) {
	if len(diff) > 256 && len(diff) <= packMax {
		if packed := s2.EncodeBetter(nil, diff); len(packed) < len(diff)*7/8 {
			s.diff, s.packed = append([]byte(nil), packed...), len(diff)
			return
		}
	}
	s.diff = append([]byte(nil), diff...) // without room to grow
}

// baseOf returns what the page at would hold had the guest not written to it.
func (sb *Sandbox) baseOf(at uint64, holes []span, windows []Base) []byte {
	if w := inWindow(windows, at); w != nil {
		return w.Bytes[min(at-w.At, uint64(len(w.Bytes))):min(at-w.At+statePage, uint64(len(w.Bytes)))]
	}
	// holes are in order, and do not overlap.
	i := sort.Search(len(holes), func(i int) bool { return holes[i].at > at })
	if i > 0 && at < holes[i-1].at+holes[i-1].n {
		return nil
	}
	return sb.module.snap.image.page(at)
}

// Load makes the sandbox, which is as New or Reset leave it and may have its
// windows, what s is. On an error it must be closed.
func (sb *Sandbox) Load(s *State) error {
	snap := sb.module.snap
	if snap == nil {
		return ErrNoState
	}
	if s.globals != nil && len(s.globals) != len(sb.globals) {
		return errBadDiff
	}
	if err := sb.growTo(s); err != nil {
		return err
	}
	diff := s.diff
	if s.packed > 0 {
		var err error
		if n, err := s2.DecodedLen(diff); err != nil || n != s.packed {
			return errBadDiff
		}
		if diff, err = s2.Decode(make([]byte, s.packed), diff); err != nil {
			return errBadDiff
		}
	}
	if err := applyDiff(sb.mem.bytes(), diff); err != nil {
		return err
	}
	if s.globals != nil {
		for i, g := range sb.globals {
			g.Set(s.globals[i])
		}
	}
	sb.monoBase = s.mono - sb.engine.clock.now()
	sb.restored, sb.stirred, sb.next = s.restored, s.timers, 0
	for _, e := range s.events {
		sb.Notify(e)
	}
	return nil
}

// growTo makes the memory as large as the state's.
func (sb *Sandbox) growTo(s *State) error {
	if s.size < sb.mem.size {
		return errBadDiff
	}
	if more := (s.size - sb.mem.size) / wasmPage; more > 0 {
		if _, ok := sb.inst.Memory().Grow(uint32(more)); !ok {
			return &wray.Error{Code: wray.CodeOutOfMemory, Message: "the saved state needs more memory than the limit", Limit: sb.limits.memoryLimit()}
		}
	}
	return nil
}

// Dig makes memory as large as the state's, and puts zeros where the state's memory had lost the snapshot's pages to
// windows, or lays the file of a checkpoint under. It comes before the windows and Load.
func (sb *Sandbox) Dig(s *State) error {
	if err := sb.growTo(s); err != nil {
		return err
	}
	if s.keep != nil {
		return sb.mem.layKeep(s.keep)
	}
	for _, h := range s.holes {
		if h.at >= sb.mem.length || h.n > sb.mem.length-h.at {
			return errBadDiff
		}
		if err := sb.mem.unwindow(h.at, h.n); err != nil {
			return err
		}
	}
	return nil
}
