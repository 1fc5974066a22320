package sandbox

import (
	"encoding/binary"

	"github.com/fxamacker/cbor/v2"
	"github.com/klauspost/compress/s2"
)

// A large state is kept in parts, each of what differs in one range of memory:
// from one state to the next most of them are the same bytes.

// partPages is how many pages of memory a part is of.
const partPages = 16

// partsFrom is how long a difference is that is cut into parts.
const partsFrom = 64 << 10

// Part is what differs in a range of memory, in order.
type Part struct {
	Index uint32 // of the range
	Diff  []byte
}

// EncodeParts is Encode for a state whose large part is put where it need not be
// written again: head says the rest. There are no parts where little differs.
func (m *Module) EncodeParts(s *State) (head []byte, parts []Part, err error) {
	diff := s.diff
	if s.packed > 0 {
		if diff, err = s2.Decode(nil, s.diff); err != nil {
			return nil, nil, err
		}
	}
	if len(diff) < partsFrom || s.keep != nil {
		head, err = m.Encode(s)
		return head, nil, err
	}
	if parts, err = splitDiff(diff); err != nil {
		return nil, nil, err
	}
	small := *s
	small.diff, small.packed = nil, 0
	head, err = m.Encode(&small)
	return head, parts, err
}

// DecodeParts reads what EncodeParts returned. The bytes may be anything, as with
// DecodeState.
func DecodeParts(head []byte, parts []Part) (*State, error) {
	s, err := DecodeState(head)
	if err != nil || len(parts) == 0 {
		return s, err
	}
	if len(s.diff) > 0 {
		return nil, errBadDiff
	}
	s.diff, err = joinDiff(parts)
	return s, err
}

// pageRecord returns the length of the record that diff begins with, what it says
// of its place, and how long that number is.
func pageRecord(diff []byte) (length, skip, skipLen int, err error) {
	at := 0
	next := func() int {
		v, n := binary.Uvarint(diff[at:])
		if n <= 0 || v > 1<<32 {
			err = errBadDiff
			return 0
		}
		at += n
		return int(v)
	}
	skip = next()
	skipLen = at
	for range next() {
		next()
		n := next()
		if err != nil || n > len(diff)-at {
			return 0, 0, 0, errBadDiff
		}
		at += n
	}
	return at, skip, skipLen, err
}

// splitDiff cuts a diff. In each part pages are counted from the range's first.
func splitDiff(diff []byte) (parts []Part, err error) {
	page, last := -1, -1
	for len(diff) > 0 {
		length, skip, skipLen, err := pageRecord(diff)
		if err != nil {
			return nil, err
		}
		page += skip + 1
		index := uint32(page / partPages)
		if n := len(parts); n == 0 || parts[n-1].Index != index {
			parts = append(parts, Part{Index: index})
			last = int(index)*partPages - 1
		}
		p := &parts[len(parts)-1]
		p.Diff = binary.AppendUvarint(p.Diff, uint64(page-last-1))
		p.Diff = append(p.Diff, diff[skipLen:length]...)
		last = page
		diff = diff[length:]
	}
	return parts, nil
}

// joinDiff puts parts together again.
func joinDiff(parts []Part) (diff []byte, err error) {
	last := -1
	for _, p := range parts {
		page := int(p.Index)*partPages - 1
		for d := p.Diff; len(d) > 0; {
			length, skip, skipLen, err := pageRecord(d)
			if err != nil {
				return nil, err
			}
			page += skip + 1
			if page <= last || page >= (int(p.Index)+1)*partPages {
				return nil, errBadDiff
			}
			diff = binary.AppendUvarint(diff, uint64(page-last-1))
			diff = append(diff, d[skipLen:length]...)
			last = page
			d = d[length:]
		}
	}
	return diff, nil
}

// packedPart is a part as bytes.
type packedPart struct {
	_     struct{} `cbor:",toarray"`
	Index uint32
	Diff  []byte // compressed (s2)
}

// Pack returns p as bytes.
func (p Part) Pack() ([]byte, error) {
	return cbor.Marshal(packedPart{Index: p.Index, Diff: s2.Encode(nil, p.Diff)})
}

// UnpackPart reads what Pack returned, which may be anything.
func UnpackPart(b []byte) (p Part, err error) {
	var packed packedPart
	if err := stateMode.Unmarshal(b, &packed); err != nil {
		return p, errBadDiff
	}
	// A page has no more runs than half its bytes, each with two numbers.
	if n, err := s2.DecodedLen(packed.Diff); err != nil || n > 16*partPages*statePage {
		return p, errBadDiff
	}
	p.Index = packed.Index
	if p.Diff, err = s2.Decode(nil, packed.Diff); err != nil {
		return p, errBadDiff
	}
	return p, nil
}
