package rewrite

import (
	"fmt"
	"unicode/utf8"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/wasm/abi"
)

// AdmitLimits bounds what a module may ask of the parts that come after
// [Admit]. A zero field means the default. Counts include what is imported.
type AdmitLimits struct {
	// Modules are the names that functions may be imported from. Nil means
	// wray_v1 and WASI preview 1. "*" lets everything in, and imports of
	// memories, tables and globals too, which no host module has.
	Modules []string

	Size            int // bytes of the module
	Types           int
	Imports         int
	Functions       int
	Globals         int
	Exports         int
	Tables          int
	TableEntries    int // least sizes of all tables and items of all element segments
	ElementSegments int
	DataSegments    int
	MemoryPages     int // least size of the memory, in pages of 64 KiB
	CustomSections  int
	NameLength      int // bytes of one name
	NameEntries     int // functions and locals that the name section names
	AllLocals       int // locals of all functions, parameters included
	Params          int // of one function type
	Results         int // of one function type

	// Of one function. They bound what an optimizing compiler may be made to
	// spend on it; what they let pass, the compiler's own CPU and memory
	// limits stop.
	Body        int // bytes
	Locals      int // parameters included
	Blocks      int // blocks, loops and ifs, branches, and labels of br_tables
	Joins       int // see JoinsPerByte
	Nesting     int // of blocks
	LoopNesting int // of loops alone
	BrTable     int // labels of one br_table

	// JoinsPerByte bounds, with Joins, the values that a compiler must tell
	// apart where paths meet: each local at each block, and each value that a
	// block or a call takes or gives. A function may have 100,000 of them, and
	// JoinsPerByte more for each byte of its body, but never more than Joins.
	JoinsPerByte int
}

// joinsOfAny is how many joins a function may have whatever its size.
const joinsOfAny = 100_000

// DefaultAdmitLimits returns the limits that hold for tenants. The ceilings of
// counts are those that engines agreed on (wasmparser's limits.rs) or stricter.
// The limits of one function stand above what a corpus of large real modules
// has (Go's toolchain, DuckDB, Ruby, SQLite, QuickJS, Rust compilers; the
// most that any of them has is given beside each), and below where the time
// that wazero's compiler takes for made-up functions leaves the straight line.
func DefaultAdmitLimits() AdmitLimits {
	return AdmitLimits{
		Size:            64 << 20,
		Types:           100_000, // 662
		Imports:         100_000,
		Functions:       1_000_000, // 62,171
		Globals:         100_000,
		Exports:         100_000,
		Tables:          100,
		TableEntries:    1_000_000, // 84,340
		ElementSegments: 100_000,
		DataSegments:    100_000, // 100,000: Go's linker stops there
		MemoryPages:     65_536,
		CustomSections:  1_000,
		NameLength:      100_000,
		NameEntries:     2_000_000, // 35,881
		AllLocals:       4_000_000, // 419,071
		Params:          1_000,     // 91
		Results:         1_000,     // 4
		Body:            2 << 20,   // 905,582
		Locals:          5_000,     // 1,537
		Blocks:          131_072,   // 32,611
		Joins:           8_000_000, // 4,238,268
		JoinsPerByte:    24,        // 15.3
		Nesting:         16_384,    // 8,467
		LoopNesting:     256,       // 12
		BrTable:         32_768,    // 12,048
	}
}

// orDefaults replaces what is zero.
func (l AdmitLimits) orDefaults() AdmitLimits {
	d := DefaultAdmitLimits()
	for _, f := range [...]struct{ have, def *int }{
		{&l.Size, &d.Size}, {&l.Types, &d.Types}, {&l.Imports, &d.Imports}, {&l.Functions, &d.Functions},
		{&l.Globals, &d.Globals}, {&l.Exports, &d.Exports}, {&l.Tables, &d.Tables},
		{&l.TableEntries, &d.TableEntries}, {&l.ElementSegments, &d.ElementSegments},
		{&l.DataSegments, &d.DataSegments}, {&l.MemoryPages, &d.MemoryPages},
		{&l.CustomSections, &d.CustomSections}, {&l.NameLength, &d.NameLength},
		{&l.NameEntries, &d.NameEntries}, {&l.AllLocals, &d.AllLocals}, {&l.Params, &d.Params}, {&l.Results, &d.Results},
		{&l.Body, &d.Body}, {&l.Locals, &d.Locals}, {&l.Blocks, &d.Blocks}, {&l.Joins, &d.Joins},
		{&l.Nesting, &d.Nesting}, {&l.LoopNesting, &d.LoopNesting}, {&l.BrTable, &d.BrTable},
		{&l.JoinsPerByte, &d.JoinsPerByte},
	} {
		if *f.have == 0 {
			*f.have = *f.def
		}
	}
	l.Nesting = min(l.Nesting, admitMaxNesting)
	return l
}

// admitMaxNesting is the deepest nesting that the walker has room for.
const admitMaxNesting = 1<<16 - 1

// Admit decides in one pass over wasm whether anything else may look at it. It
// checks the structure of the binary format down to the last immediate, that
// no count promises more than its bytes can hold, and l. It does not check
// types; the engine does. Its memory does not grow with what the module claims:
// it allocates four bytes for each function type and function that is there.
//
// The error is a *[wray.Error] that says what was found and where:
// CodeInvalidModule for what is malformed or uses a proposal that is refused,
// CodeLimitExceeded with the Limit, CodeUnknownImport.
func Admit(wasm []byte, l AdmitLimits) error {
	a := admitter{b: wasm, end: len(wasm), l: l.orDefaults(), fn: -1}
	if a.l.Modules == nil {
		a.l.Modules = admitModules
	}
	if a.module(); a.err != nil {
		return a.err
	}
	return nil
}

var admitModules = []string{abi.Module, abi.WASI}

// admitter is one run of Admit. The first failure sticks: it empties what is
// left to read, so that loops need not look at err to end, only before they
// believe what they read.
type admitter struct {
	b   []byte
	pos int
	end int // of the section, or of the part of it that is read now
	l   AdmitLimits
	err *wray.Error

	sec string // name of the section, for messages
	fn  int    // index of the function whose body is read, or -1

	types        []uint32 // parameters and results of each type, packed
	funcs        []uint32 // type of each function, imported ones first
	importedFns  int
	tables       int
	tableEntries int
	memories     int
	globals      int
	dataCount    int // -1 when there is no such section
	datas        int
	bodies       int
	customs      int
	names        int // entries of the name section
	allLocals    int
	cost         admitCost // of the body that is read now
	hasNames     bool

	loops [(admitMaxNesting + 1) / 64]uint64 // bit i: the block at depth i is a loop

	onBody func(fn int, c *admitCost) // what each body costs, for measurements
}

func (a *admitter) fail(e *wray.Error) {
	if a.err == nil {
		a.err = e
	}
	a.pos = a.end
}

// where says at which byte of which section, and in which function.
func (a *admitter) where(at int) string {
	switch {
	case a.fn >= 0:
		return fmt.Sprintf("%s section, function %d, byte %#x", a.sec, a.fn, at)
	case a.sec != "":
		return fmt.Sprintf("%s section, byte %#x", a.sec, at)
	}
	return fmt.Sprintf("byte %#x", at)
}

// bad refuses a module that is malformed.
func (a *admitter) bad(at int, format string, args ...any) {
	if a.err != nil {
		return
	}
	a.fail(&wray.Error{
		Code:    wray.CodeInvalidModule,
		Message: fmt.Sprintf("%s: %s", a.where(at), fmt.Sprintf(format, args...)),
		Hint:    "the file is damaged or not WebAssembly; build it again",
	})
}

// refuse refuses a module that uses a proposal that wray does not run.
func (a *admitter) refuse(at int, p admitProposal) {
	if a.err != nil {
		return
	}
	a.fail(&wray.Error{
		Code:    wray.CodeInvalidModule,
		Message: fmt.Sprintf("%s: the module uses %s, which is refused: %s", a.where(at), p.name, p.why),
		Hint:    p.hint,
	})
}

// over refuses a module that passes a limit.
func (a *admitter) over(at int, name string, n uint64, limit int, unit, hint string) {
	if a.err != nil {
		return
	}
	a.fail(&wray.Error{
		Code:    wray.CodeLimitExceeded,
		Message: fmt.Sprintf("%s: %s: %d", a.where(at), name, n),
		Limit:   &wray.Limit{Name: name, Value: int64(limit), Unit: unit},
		Hint:    hint,
	})
}

func (a *admitter) truncated() { a.bad(a.end, "the data ends too early") }

func (a *admitter) byte() byte {
	if a.pos >= a.end {
		a.truncated()
		return 0
	}
	c := a.b[a.pos]
	a.pos++
	return c
}

func (a *admitter) u32() uint32 {
	if a.pos < a.end {
		if c := a.b[a.pos]; c < 0x80 {
			a.pos++
			return uint32(c)
		}
	}
	v, n := admitU32(a.b[a.pos:a.end])
	if n <= 0 {
		a.badNumber(a.pos, n)
		return 0
	}
	a.pos += n
	return v
}

func (a *admitter) badNumber(at, n int) {
	if n == 0 {
		a.truncated()
		return
	}
	a.bad(at, "a number is longer than its type allows")
}

// take skips n bytes and returns them.
func (a *admitter) take(n uint32) []byte {
	if uint64(n) > uint64(a.end-a.pos) {
		a.bad(a.pos, "%d bytes cannot follow, %d are left", n, a.end-a.pos)
		return nil
	}
	p := a.b[a.pos : a.pos+int(n)]
	a.pos += int(n)
	return p
}

// count reads how many items follow, each at least least bytes long. It
// returns what can be believed: that many fit into the bytes that are left,
// and with the have before them they stay within limit.
func (a *admitter) count(what string, least, have, limit int) int {
	at := a.pos
	n := a.u32()
	if a.err != nil {
		return 0
	}
	if uint64(n)*uint64(least) > uint64(a.end-a.pos) {
		a.bad(at, "%d %s cannot follow in %d bytes", n, what, a.end-a.pos)
		return 0
	}
	if uint64(have)+uint64(n) > uint64(limit) {
		a.over(at, what, uint64(have)+uint64(n), limit, "", "split the program into smaller modules")
		return 0
	}
	return int(n)
}

// name reads a name that must be UTF-8.
func (a *admitter) name(what string) []byte {
	at := a.pos
	n := a.u32()
	if a.err != nil {
		return nil
	}
	if uint64(n) > uint64(a.end-a.pos) {
		a.bad(at, "%s of %d bytes cannot follow in %d bytes", what, n, a.end-a.pos)
		return nil
	}
	if int(n) > a.l.NameLength {
		a.over(at, "length of "+what, uint64(n), a.l.NameLength, "bytes", "shorten the name or strip the module")
		return nil
	}
	p := a.take(n)
	if !utf8.Valid(p) {
		a.bad(at, "%s is not UTF-8", what)
	}
	return p
}
