// Package rewrite reads, checks and rewrites WebAssembly modules before an
// engine sees them. It has one reader, one writer and two passes.
//
// The meter pass bounds the time between two calls of the host, whatever the
// guest does, and the depth of its stack. The snapshot pass takes apart what
// a sandbox restored from a snapshot must not do again: it hands out the active
// data segments and the start function, and exports every mutable global. What
// the module computes stays the same.
package rewrite

import (
	"fmt"
	"strings"

	"github.com/wray-project/wray"
)

// Version names what the passes make of a module. It changes whenever the same
// module would come out differently, or a host has learned to refuse it, and is part of the identity of compiled
// code in caches.
const Version = 3

// Names that a rewritten module imports and exports and that no guest may use
// itself: exports that begin with ReservedPrefix, imports of MeterModule.
const (
	ReservedPrefix = "wray:"
	MeterModule    = "wray_meter"

	// Tick is the import (i64) -> i64 that a metered guest calls when its
	// counter has gone below zero. The argument is the counter, the result is
	// its next value. Nothing else ever sets the counter.
	Tick = "tick"
	// Overflow is the import () -> () that a metered guest calls when its stack
	// is used up. It should not return; if it does, the guest traps.
	Overflow = "overflow"

	// FuelExport is the mutable i64 global that holds the counter.
	FuelExport = "wray:fuel"
	// DepthExport is the mutable i64 global that holds the bytes of native
	// stack that are left. The host sets it at each outermost entry.
	DepthExport = "wray:depth"
	// StartExport is the export of what was the start function.
	StartExport = "wray:start"
	// globalExport begins the export name of a mutable global.
	globalExport = "wray:g"
)

// DefaultMaxTable is the number of entries that a table may grow to unless
// Options say otherwise.
const DefaultMaxTable = 1 << 20

// Options say what Rewrite does. The zero value checks the module and writes it
// as it was.
type Options struct {
	// Meter injects the counter and bounds stack and tables.
	Meter bool
	// Snapshot takes active data segments and the start function out and
	// exports mutable globals.
	Snapshot bool
	// TailCalls admits the instructions return_call and return_call_indirect.
	TailCalls bool
	// MaxTable bounds the entries of each table with Meter. A table whose
	// minimum is larger may keep that, and grow no further. 0 is
	// DefaultMaxTable.
	MaxTable uint32
}

// Artifact is a rewritten module and what its host must know about it.
type Artifact struct {
	// Wasm is the rewritten module. It shares no bytes with the input.
	Wasm []byte

	// Segments are, with Snapshot, the active data segments that were taken
	// out, in order. All lie inside the minimum of the module's own memory.
	// The host copies them before it calls StartExport.
	Segments []Segment
	// StartExport is, with Snapshot, the export to call once after the
	// segments were copied, or empty when the module has no start function.
	StartExport string
	// Globals are, with Snapshot, the mutable globals to save and restore, in
	// order. The meter's own are not among them.
	Globals []Global
	// Resettable says that memory and Globals are all the state that a sandbox
	// of this module has. If not, NotResettable is the reason.
	Resettable    bool
	NotResettable string

	// What the module was before it was rewritten.
	Imports   []Import
	Exports   []Export
	Tables    []Table
	Functions int // of its own, imports not counted
	HasMemory bool
	// MemoryMin and MemoryMax are in pages of 64 KiB. MemoryMax is 65536 for a
	// memory without a maximum.
	MemoryMin, MemoryMax uint32

	// Dropped names the custom sections that were left out because they speak
	// of offsets in code that has moved.
	Dropped []string
}

// Segment is data to copy to Offset of the memory. Data aliases the input of
// Rewrite.
type Segment struct {
	Offset uint32
	Data   []byte
}

// Global is a mutable global under a reserved name.
type Global struct {
	Name string
	Type byte // as in the binary format: 0x7f i32, 0x7e i64, 0x7d f32, 0x7c f64
}

// Import is what a module asks of its host.
type Import struct {
	Module, Name string
	Kind         string // func, table, memory or global
	Type         string // such as "(i32) -> i64", "funcref 1..", "mut i32"
}

// Export is what a module offers.
type Export struct {
	Name string `json:"name"`
	Kind string `json:"kind"`
	Type string `json:"type"`
	// Imported says that it is an import that is given on.
	Imported bool `json:"imported,omitempty"`
}

// Table is a table's element type and size.
type Table struct {
	Elem     string `json:"elem"`
	Min      uint32 `json:"min"`
	Max      uint32 `json:"max"` // 2^32-1 for a table without a maximum
	Imported bool   `json:"imported"`
}

// Rewrite checks a module and runs the passes that o asks for. Failures are
// *wray.Error. Bytes that are not WebAssembly, or use a feature that wray
// refuses, are CodeInvalidModule; a module whose instantiation would trap is
// CodeTrap. Types inside function bodies are not checked; the engine does when
// it compiles Artifact.Wasm, and a body is ill-typed after the passes if it was
// before. Input and result of the same options are the same on every machine.
func Rewrite(wasm []byte, o Options) (*Artifact, error) {
	m, err := parse(wasm)
	if err != nil {
		return nil, err
	}
	if o.MaxTable == 0 {
		o.MaxTable = DefaultMaxTable
	}
	if o.Meter || o.Snapshot {
		if err := checkReserved(m); err != nil {
			return nil, err
		}
	}
	r := &rewriter{m: m, o: o, art: describe(m)}
	if err := r.run(); err != nil {
		return nil, err
	}
	r.art.Wasm = m.encode()
	return r.art, nil
}

// checkReserved refuses a module that uses the names of the passes: it could
// fill its own counter.
func checkReserved(m *module) error {
	const hint = "rename it; names with this beginning belong to the sandbox"
	for i := range m.imports {
		if x := &m.imports[i]; x.module == MeterModule {
			return &wray.Error{Code: wray.CodeInvalidModule, Hint: hint,
				Message: fmt.Sprintf("the module imports %s.%s, a reserved name", x.module, x.name)}
		}
	}
	for i := range m.exports {
		if x := &m.exports[i]; strings.HasPrefix(x.name, ReservedPrefix) {
			return &wray.Error{Code: wray.CodeInvalidModule, Hint: hint,
				Message: fmt.Sprintf("the module exports %q, a reserved name", x.name)}
		}
	}
	return nil
}

// describe returns an Artifact with what m is before any pass.
func describe(m *module) *Artifact {
	a := &Artifact{Functions: len(m.funcs)}
	for i := range m.imports {
		x := &m.imports[i]
		d := Import{Module: x.module, Name: x.name, Kind: x.kind.String()}
		switch x.kind {
		case kindFunc:
			d.Type = m.types[x.typ].signature()
		case kindTable:
			d.Type = x.table.String()
		case kindMemory:
			d.Type = x.mem.String()
		case kindGlobal:
			d.Type = x.global.String()
		}
		a.Imports = append(a.Imports, d)
	}
	for i := range m.exports {
		x := &m.exports[i]
		d := Export{Name: x.name, Kind: x.kind.String()}
		switch x.kind {
		case kindFunc:
			d.Type = m.funcType(x.index).signature()
			d.Imported = x.index < uint32(len(m.importedFuncs))
		case kindTable:
			d.Type = m.table(x.index).String()
		case kindMemory:
			d.Type = m.memory().String()
		case kindGlobal:
			d.Type = m.global(x.index).String()
		}
		a.Exports = append(a.Exports, d)
	}
	for i := range m.numTables() {
		t := m.table(i)
		d := Table{Elem: t.elem.String(), Min: t.min, Max: 1<<32 - 1, Imported: i < uint32(len(m.importedTables))}
		if t.hasMax {
			d.Max = t.max
		}
		a.Tables = append(a.Tables, d)
	}
	if mem := m.memory(); mem != nil {
		a.HasMemory, a.MemoryMin, a.MemoryMax = true, mem.min, maxPages
		if mem.hasMax {
			a.MemoryMax = mem.max
		}
	}
	return a
}

func (l limits) String() string {
	if l.hasMax {
		return fmt.Sprintf("%d..%d", l.min, l.max)
	}
	return fmt.Sprintf("%d..", l.min)
}

func (t tableType) String() string { return t.elem.String() + " " + t.limits.String() }

func (t globalType) String() string {
	if t.mutable {
		return "mut " + t.typ.String()
	}
	return t.typ.String()
}
