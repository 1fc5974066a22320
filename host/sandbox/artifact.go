package sandbox

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/fxamacker/cbor/v2"

	"github.com/wray-project/wray/wasm/rewrite"
)

// Artifact is a module ready to be loaded: the rewritten code and what the
// passes took out of it or learnt about it.
type Artifact struct {
	Wasm []byte // the rewritten module, which has no data segments and no start function
	// Data is the initial memory as runs of bytes in ascending order.
	Data []rewrite.Segment
	Meta Meta
}

// Meta is what the engine must know of a module beside its code.
type Meta struct {
	Globals       []string `cbor:"1,keyasint"` // exports to save and restore, in order
	StartExport   string   `cbor:"2,keyasint"` // the start function, "" for none
	Resettable    bool     `cbor:"3,keyasint"` // memory and globals are the whole state
	NotResettable string   `cbor:"4,keyasint"` // why not
	HasMemory     bool     `cbor:"5,keyasint"`
	MemoryMin     uint32   `cbor:"6,keyasint"` // pages
	MemoryMax     uint32   `cbor:"7,keyasint"` // pages
	Metered       bool     `cbor:"8,keyasint"`
	Exports       []string `cbor:"9,keyasint"` // names of exported functions
}

const artifactMagic = "wrayart1"

// artifactHeader is the CBOR part of an encoded artifact. Bytes follow it: the
// code, then each run of data.
type artifactHeader struct {
	Meta Meta     `cbor:"1,keyasint"`
	Wasm int      `cbor:"2,keyasint"` // length
	Offs []uint32 `cbor:"3,keyasint"` // where each run goes
	Lens []uint32 `cbor:"4,keyasint"`
}

// Encode returns the artifact as bytes.
func (a *Artifact) Encode() ([]byte, error) {
	h := artifactHeader{Meta: a.Meta, Wasm: len(a.Wasm)}
	size := len(a.Wasm)
	for _, s := range a.Data {
		h.Offs = append(h.Offs, s.Offset)
		h.Lens = append(h.Lens, uint32(len(s.Data)))
		size += len(s.Data)
	}
	head, err := cbor.Marshal(h)
	if err != nil {
		return nil, fmt.Errorf("encode artifact: %w", err)
	}
	out := make([]byte, 0, len(artifactMagic)+4+len(head)+size)
	out = append(out, artifactMagic...)
	out = binary.LittleEndian.AppendUint32(out, uint32(len(head)))
	out = append(out, head...)
	out = append(out, a.Wasm...)
	for _, s := range a.Data {
		out = append(out, s.Data...)
	}
	return out, nil
}

var errArtifact = errors.New("the artifact is damaged")

// DecodeArtifact reads what Encode wrote. The result aliases b.
func DecodeArtifact(b []byte) (*Artifact, error) {
	if len(b) < len(artifactMagic)+4 || string(b[:len(artifactMagic)]) != artifactMagic {
		return nil, errArtifact
	}
	b = b[len(artifactMagic):]
	n := binary.LittleEndian.Uint32(b)
	b = b[4:]
	if uint64(n) > uint64(len(b)) {
		return nil, errArtifact
	}
	mode, err := cbor.DecOptions{MaxArrayElements: 1 << 20, MaxNestedLevels: 8}.DecMode()
	if err != nil {
		return nil, err
	}
	var h artifactHeader
	if err := mode.Unmarshal(b[:n], &h); err != nil {
		return nil, fmt.Errorf("%w: %w", errArtifact, err)
	}
	b = b[n:]
	if h.Wasm < 0 || h.Wasm > len(b) || len(h.Offs) != len(h.Lens) {
		return nil, errArtifact
	}
	a := &Artifact{Meta: h.Meta, Wasm: b[:h.Wasm:h.Wasm]}
	b = b[h.Wasm:]
	a.Data = make([]rewrite.Segment, len(h.Offs))
	for i, off := range h.Offs {
		n := h.Lens[i]
		if uint64(n) > uint64(len(b)) {
			return nil, errArtifact
		}
		a.Data[i] = rewrite.Segment{Offset: off, Data: b[:n:n]}
		b = b[n:]
	}
	return a, nil
}
