package sandbox

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"

	"github.com/fxamacker/cbor/v2"
	"github.com/klauspost/compress/s2"
)

// A State is a difference from its module's snapshot, and no two processes take
// the same one: each draws seeds of its own. A state that is to outlive the
// process is kept with the image of memory that it differs from.

// Hash names the program, the same in all processes.
func (a *Artifact) Hash() string {
	h := sha256.New()
	h.Write(a.Wasm)
	for _, s := range a.Data {
		fmt.Fprintf(h, "%d %d ", s.Offset, len(s.Data))
		h.Write(s.Data)
	}
	return fmt.Sprintf("%x", h.Sum(nil))
}

// Image is what a module's states differ from, as bytes that DecodeImage
// reads, and its hash. It is ErrNoState where there is no snapshot.
func (m *Module) Image() (sum [sha256.Size]byte, packed []byte, err error) {
	if m.snap == nil {
		return sum, nil, ErrNoState
	}
	m.imageOnce.Do(func() {
		m.imagePacked = s2.EncodeBetter(nil, m.snap.image.all())
		m.imageSum = sha256.Sum256(m.imagePacked)
	})
	return m.imageSum, m.imagePacked, nil
}

// DecodeImage reads what Image returned, for the state s. The bytes may be
// anything.
func DecodeImage(packed []byte, s *State) ([]byte, error) {
	n, err := s2.DecodedLen(packed)
	if err != nil || uint64(n) > s.size {
		return nil, errBadDiff
	}
	b, err := s2.Decode(nil, packed)
	if err != nil {
		return nil, errBadDiff
	}
	return b, nil
}

// stateRecord is a State as bytes.
type stateRecord struct {
	Size     uint64   `cbor:"1,keyasint"`
	Diff     []byte   `cbor:"2,keyasint"`
	Packed   int      `cbor:"3,keyasint"`
	Holes    []uint64 `cbor:"4,keyasint"` // where and how long, in turn
	Globals  []uint64 `cbor:"5,keyasint"`
	Mono     int64    `cbor:"6,keyasint"`
	Restored bool     `cbor:"7,keyasint"`
	Events   []uint64 `cbor:"8,keyasint"` // kind, handle and argument, in turn
	Timers   bool     `cbor:"9,keyasint,omitempty"`
}

// Encode returns s, which the module made by Save, as bytes.
func (m *Module) Encode(s *State) ([]byte, error) {
	globals := s.globals
	if globals == nil {
		globals = m.snap.globals
	}
	return s.encode(globals)
}

// MarshalBinary returns s as bytes, from which UnmarshalState makes it again
// for sandboxes of the same Module in this process.
func (s *State) MarshalBinary() ([]byte, error) { return s.encode(s.globals) }

// EncodedMax returns the most bytes that MarshalBinary returns.
func (s *State) EncodedMax() int64 {
	return 128 + int64(len(s.diff)) + 9*int64(len(s.globals)+2*len(s.holes)+3*len(s.events))
}

func (s *State) encode(globals []uint64) ([]byte, error) {
	if s.keep != nil {
		return nil, errors.New("a state that lies in a file has no bytes")
	}
	r := stateRecord{Size: s.size, Diff: s.diff, Packed: s.packed, Globals: globals, Mono: s.mono, Restored: s.restored, Timers: s.timers}
	for _, h := range s.holes {
		r.Holes = append(r.Holes, h.at, h.n)
	}
	for _, e := range s.events {
		r.Events = append(r.Events, uint64(e.Kind), uint64(e.Handle), e.Arg)
	}
	return cbor.Marshal(r)
}

var stateMode = func() cbor.DecMode {
	m, err := cbor.DecOptions{MaxArrayElements: 1 << 24, MaxNestedLevels: 4, DupMapKey: cbor.DupMapKeyEnforcedAPF}.DecMode()
	if err != nil {
		panic("BUG: " + err.Error())
	}
	return m
}()

// DecodeState reads what Encode returned. The bytes may be anything: a state
// that no sandbox can take fails in Lay or Load.
func DecodeState(b []byte) (*State, error) {
	s, err := UnmarshalState(b)
	if err == nil && s.globals == nil {
		return nil, errBadDiff
	}
	return s, err
}

// UnmarshalState reads what MarshalBinary returned. The bytes may be anything,
// as with DecodeState.
func UnmarshalState(b []byte) (*State, error) {
	var r stateRecord
	if err := stateMode.Unmarshal(b, &r); err != nil {
		return nil, fmt.Errorf("%w: %v", errBadDiff, err)
	}
	if len(r.Holes)%2 != 0 || len(r.Events)%3 != 0 || r.Size > 4<<30 || r.Size%wasmPage != 0 || r.Packed < 0 || r.Packed > packMax {
		return nil, errBadDiff
	}
	s := &State{size: r.Size, diff: r.Diff, packed: r.Packed, globals: r.Globals, mono: r.Mono, restored: r.Restored, timers: r.Timers}
	for i := 0; i < len(r.Holes); i += 2 {
		h := span{r.Holes[i], r.Holes[i+1]}
		if h.at > r.Size || h.n > r.Size-h.at || h.at%statePage != 0 || h.n%statePage != 0 {
			return nil, errBadDiff
		}
		s.holes = append(s.holes, h)
	}
	for i := 0; i < len(r.Events); i += 3 {
		if r.Events[i] > 1<<32-1 || r.Events[i+1] > 1<<32-1 {
			return nil, errBadDiff
		}
		s.events = append(s.events, Event{Kind: uint32(r.Events[i]), Handle: uint32(r.Events[i+1]), Arg: r.Events[i+2]})
	}
	return s, nil
}

// Lay makes memory, of a clean sandbox, what image is, which s differs from, and
// at least as large as s has it. It is what Dig is for a state of this process: windows,
// and Load, come next.
func (sb *Sandbox) Lay(image []byte, s *State) error {
	if uint64(len(image)) > s.size {
		return errBadDiff
	}
	if len(s.globals) != len(sb.globals) {
		return errBadDiff
	}
	// How much memory a program has when it begins is not the same each time, and
	// memory does not shrink: what is above is zeros, as if the guest had grown.
	s.size = max(s.size, sb.mem.size)
	if err := sb.growTo(s); err != nil {
		return err
	}
	mem := sb.mem.bytes()
	page := make([]byte, statePage)
	for at := 0; at < len(mem); at += statePage {
		clear(page)
		if at < len(image) {
			copy(page, image[at:])
		}
		for _, h := range s.holes {
			if uint64(at) >= h.at && uint64(at) < h.at+h.n {
				clear(page)
				break
			}
		}
		if dst := mem[at : at+statePage]; !bytes.Equal(dst, page) { // else it stays the snapshot's
			copy(dst, page)
		}
	}
	return nil
}
