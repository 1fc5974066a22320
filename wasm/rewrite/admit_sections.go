package rewrite

import (
	"bytes"
	"fmt"
	"slices"

	"github.com/wray-project/wray"
)

var admitPreamble = []byte{0, 'a', 's', 'm', 1, 0, 0, 0}

// admitSections gives each section's name and its place in the order; 0 is
// for those that may stand anywhere or nowhere.
var admitSections = [...]struct {
	name string
	rank int
}{
	0: {"custom", 0}, 1: {"type", 1}, 2: {"import", 2}, 3: {"function", 3}, 4: {"table", 4}, 5: {"memory", 5},
	6: {"global", 6}, 7: {"export", 7}, 8: {"start", 8}, 9: {"element", 9}, 12: {"data count", 10},
	10: {"code", 11}, 11: {"data", 12}, 13: {"tag", 0},
}

func (a *admitter) module() {
	a.dataCount = -1
	if len(a.b) > a.l.Size {
		a.over(0, "module size", uint64(len(a.b)), a.l.Size, "bytes",
			"strip debug information (Go: -ldflags='-s -w') or split the program into smaller modules")
		return
	}
	if !bytes.HasPrefix(a.b, admitPreamble) {
		a.preamble()
		return
	}
	a.pos = len(admitPreamble)
	rank := 0
	for a.err == nil && a.pos < len(a.b) {
		at := a.pos
		a.sec, a.fn, a.end = "", -1, len(a.b)
		id := a.byte()
		if int(id) >= len(admitSections) {
			a.bad(at, "there is no section %d", id)
			return
		}
		s := admitSections[id]
		a.sec = s.name
		size := a.u32()
		if a.err != nil {
			return
		}
		if uint64(size) > uint64(a.end-a.pos) {
			a.bad(at, "the section claims %d bytes, %d are left", size, a.end-a.pos)
			return
		}
		if s.rank != 0 && s.rank <= rank {
			a.bad(at, "the section stands twice or in the wrong order")
			return
		}
		rank = max(rank, s.rank)
		a.end = a.pos + int(size)
		a.section(id)
		if a.err == nil && a.pos != a.end {
			a.bad(a.pos, "%d bytes are left over at the section's end", a.end-a.pos)
		}
	}
	if a.err != nil {
		return
	}
	a.sec, a.fn, a.end = "", -1, len(a.b)
	if own := len(a.funcs) - a.importedFns; a.bodies != own {
		a.bad(a.pos, "%d functions are declared and %d have bodies", own, a.bodies)
	}
	if a.dataCount >= 0 && a.dataCount != a.datas {
		a.bad(a.pos, "%d data segments are announced and %d follow", a.dataCount, a.datas)
	}
}

// preamble says what the file is, if not a module.
func (a *admitter) preamble() {
	switch {
	case len(a.b) == 0:
		a.bad(0, "the file is empty")
	case bytes.HasPrefix(a.b, []byte("\x00asm\x0d\x00\x01\x00")):
		a.refuse(0, admitProposal{"the component model", "the engine runs core modules",
			"build a core module for wasip1, or take the core module out of the component"})
	case bytes.HasPrefix(a.b, []byte("\x00asm")):
		a.bad(4, "the version of the format is not 1")
	case bytes.HasPrefix(bytes.TrimLeft(a.b, " \t\r\n"), []byte("(module")):
		a.fail(&wray.Error{Code: wray.CodeInvalidModule, Message: "the file is WebAssembly text",
			Hint: "translate it to the binary format, such as with wat2wasm"})
	default:
		a.bad(0, "the file does not start as a module does, with \\0asm")
	}
}

func (a *admitter) section(id byte) {
	switch id {
	case 0:
		a.custom()
	case 1:
		n := a.count("types", 3, 0, a.l.Types)
		a.types = make([]uint32, 0, n)
		a.each(n, a.funcType)
	case 2:
		a.each(a.count("imports", 4, 0, a.l.Imports), a.importEntry)
	case 3:
		n := a.count("functions", 1, a.importedFns, a.l.Functions)
		a.funcs = slices.Grow(a.funcs, n)
		a.each(n, func() { a.funcs = append(a.funcs, a.u32()) })
	case 4:
		a.each(a.count("tables", 3, a.tables, a.l.Tables), a.table)
	case 5:
		a.each(a.count("memories", 2, 0, 100), a.memory)
	case 6:
		a.each(a.count("globals", 4, a.globals, a.l.Globals), func() { a.globalType(); a.constExpr() })
	case 7:
		a.each(a.count("exports", 3, 0, a.l.Exports), a.exportEntry)
	case 8:
		a.u32()
	case 9:
		a.each(a.count("element segments", 3, 0, a.l.ElementSegments), a.elements)
	case 10:
		n := a.count("function bodies", 3, 0, a.l.Functions)
		if own := len(a.funcs) - a.importedFns; a.err == nil && n != own {
			a.bad(a.pos, "%d functions are declared and %d bodies follow", own, n)
		}
		a.each(n, a.body)
	case 11:
		a.datas = a.count("data segments", 2, 0, a.l.DataSegments)
		a.each(a.datas, a.data)
	case 12:
		a.dataCount = int(a.u32())
	case 13:
		a.refuse(a.pos, noExceptions)
	}
}

// each reads n items, or as many as there are before the first failure.
func (a *admitter) each(n int, item func()) {
	for ; n > 0 && a.err == nil; n-- {
		item()
	}
}

// funcType reads a type and keeps how many values it takes and gives.
func (a *admitter) funcType() {
	at := a.pos
	switch form := a.byte(); form {
	case 0x60:
	case 0x4e, 0x4f, 0x50, 0x5e, 0x5f:
		a.refuse(at, noGC)
		return
	default:
		a.bad(at, "%#x starts no function type", form)
		return
	}
	params := a.count("parameters of a type", 1, 0, a.l.Params)
	a.valTypes(params)
	results := a.count("results of a type", 1, 0, a.l.Results)
	a.valTypes(results)
	a.types = append(a.types, uint32(params)<<16|uint32(results))
}

func (a *admitter) valTypes(n int) {
	for range n {
		a.valType()
	}
}

// valType reads a value type. Its order follows how often types occur.
func (a *admitter) valType() {
	at := a.pos
	switch t := a.byte(); t {
	case 0x7f, 0x7e, 0x7d, 0x7c, 0x7b, 0x70, 0x6f:
	default:
		a.badType(at, t)
	}
}

func (a *admitter) badType(at int, t byte) {
	switch t {
	case 0x63, 0x64:
		a.refuse(at, noTypedRefs)
	case 0x69, 0x74:
		a.refuse(at, noExceptions)
	case 0x6a, 0x6b, 0x6c, 0x6d, 0x6e, 0x71, 0x72, 0x73:
		a.refuse(at, noGC)
	default:
		a.bad(at, "%#x is no value type", t)
	}
}

func (a *admitter) refType() {
	at := a.pos
	switch t := a.byte(); t {
	case 0x70, 0x6f:
	case 0x7f, 0x7e, 0x7d, 0x7c, 0x7b:
		a.bad(at, "%#x is no reference type", t)
	default:
		a.badType(at, t)
	}
}

func (a *admitter) importEntry() {
	at := a.pos
	module := a.name("an import's module name")
	name := a.name("an import's name")
	kind := a.byte()
	if a.err != nil {
		return
	}
	any := slices.Contains(a.l.Modules, "*")
	if !any && !slices.ContainsFunc(a.l.Modules, func(m string) bool { return m == string(module) }) {
		a.unknownImport(at, module, name)
		return
	}
	if !any && 1 <= kind && kind <= 3 {
		a.fail(&wray.Error{
			Code:    wray.CodeUnknownImport,
			Message: fmt.Sprintf("%s: the module imports a %s, %.200q.%.200q; hosts have functions only", a.where(at), [...]string{"", "table", "memory", "global"}[kind], module, name),
			Hint:    "define it in the module and export it (wasm-ld: leave out --import-memory and --import-table)",
		})
		return
	}
	switch kind {
	case 0:
		a.importedFns++
		a.funcs = append(a.funcs, a.u32())
	case 1:
		a.table()
	case 2:
		a.memory()
	case 3:
		a.globals++
		a.globalType()
	case 4:
		a.refuse(at, noExceptions)
	default:
		a.bad(a.pos-1, "%#x is no kind of import", kind)
	}
}

func (a *admitter) unknownImport(at int, module, name []byte) {
	hint := "a module may import functions from wray_v1 and wasi_snapshot_preview1; link everything else in"
	switch string(module) {
	case "wasi_unstable":
		hint = "the module was built for an older WASI; build it with a toolchain for wasm32-wasip1"
	case "env", "a":
		hint = "the linker left symbols to a JavaScript host; build for wasm32-wasip1, or with emcc -sSTANDALONE_WASM"
	case "go", "gojs", "wbg", "__wbindgen_placeholder__":
		hint = "the module was built for browsers; build it for wasip1 (Go: GOOS=wasip1, Rust: --target wasm32-wasip1)"
	}
	a.fail(&wray.Error{
		Code:    wray.CodeUnknownImport,
		Message: fmt.Sprintf("%s: the module needs %.200q.%.200q, and no host has a module of that name", a.where(at), module, name),
		Hint:    hint,
	})
}

func (a *admitter) table() {
	a.tables++
	if a.pos < a.end && a.b[a.pos] == 0x40 {
		a.refuse(a.pos, noTypedRefs)
		return
	}
	a.refType()
	at := a.pos
	least := a.limits()
	a.addEntries(at, uint64(least))
}

func (a *admitter) addEntries(at int, n uint64) {
	if sum := uint64(a.tableEntries) + n; sum > uint64(a.l.TableEntries) {
		a.over(at, "table entries", sum, a.l.TableEntries, "", "split the program into smaller modules")
		return
	}
	a.tableEntries += int(n)
}

func (a *admitter) memory() {
	at := a.pos
	if a.memories++; a.memories > 1 {
		a.refuse(at, noMultiMemory)
		return
	}
	if least := a.limits(); uint64(least) > uint64(a.l.MemoryPages) {
		a.over(at, "memory at the start", uint64(least), a.l.MemoryPages, "pages of 64 KiB", "start with less memory and grow it")
	}
}

// limits reads the least and greatest size of a table or memory.
func (a *admitter) limits() (least uint32) {
	at := a.pos
	flags := a.byte()
	if a.err != nil {
		return 0
	}
	switch {
	case flags > 7:
		a.bad(at, "%#x are no limits", flags)
		return 0
	case flags&4 != 0:
		a.refuse(at, noMemory64)
		return 0
	case flags&2 != 0:
		a.refuse(at, noThreads)
		return 0
	}
	least = a.u32()
	if flags == 1 {
		a.u32()
	}
	return least
}

func (a *admitter) globalType() {
	a.valType()
	at := a.pos
	switch m := a.byte(); {
	case m == 2 || m == 3:
		a.refuse(at, noThreads)
	case m > 3:
		a.bad(at, "%#x is no mutability", m)
	}
}

func (a *admitter) exportEntry() {
	a.name("an export's name")
	at := a.pos
	switch kind := a.byte(); {
	case kind == 4:
		a.refuse(at, noExceptions)
	case kind > 4:
		a.bad(at, "%#x is no kind of export", kind)
	}
	a.u32()
}

// elements reads an element segment; its first number says in bits whether it
// is not active, whether it names a table or is declarative, and whether its
// items are expressions.
func (a *admitter) elements() {
	at := a.pos
	flags := a.u32()
	if a.err == nil && flags > 7 {
		a.bad(at, "%#x is no kind of element segment", flags)
		return
	}
	if flags&1 == 0 {
		if flags&2 != 0 {
			a.u32()
		}
		a.constExpr()
	}
	if flags&3 != 0 {
		at := a.pos
		if flags&4 != 0 {
			a.refType()
		} else if k := a.byte(); k != 0 {
			a.bad(at, "%#x is no kind of element", k)
		}
	}
	least := 1
	if flags&4 != 0 {
		least = 2
	}
	at = a.pos
	n := a.count("items of an element segment", least, 0, a.l.TableEntries)
	a.addEntries(at, uint64(n))
	for i := 0; i < n && a.err == nil; i++ {
		if flags&4 != 0 {
			a.constExpr()
		} else {
			a.u32()
		}
	}
}

func (a *admitter) data() {
	at := a.pos
	flags := a.u32()
	if a.err == nil && flags > 2 {
		a.bad(at, "%#x is no kind of data segment", flags)
		return
	}
	if flags == 2 {
		if m := a.u32(); m != 0 {
			a.refuse(at, noMultiMemory)
			return
		}
	}
	if flags != 1 {
		a.constExpr()
	}
	a.take(a.u32())
}

// custom looks into the name section, since the engine decodes it too, and
// skips the others.
func (a *admitter) custom() {
	at := a.pos
	if a.customs++; a.customs > a.l.CustomSections {
		a.over(at, "custom sections", uint64(a.customs), a.l.CustomSections, "", "strip the module")
		return
	}
	name := a.name("a custom section's name")
	if string(name) != "name" || a.err != nil {
		a.pos = a.end
		return
	}
	if a.hasNames {
		a.bad(at, "there is a second name section")
		return
	}
	a.hasNames = true
	a.sec = "name"
	end := a.end
	for a.pos < end && a.err == nil {
		a.end = end
		id := a.byte()
		size := a.u32()
		if uint64(size) > uint64(end-a.pos) {
			a.bad(a.pos, "a part claims %d bytes, %d are left", size, end-a.pos)
		}
		if a.err != nil {
			break
		}
		a.end = a.pos + int(size)
		switch id {
		case 0:
			a.take(a.u32())
		case 1:
			a.nameMap()
		case 2:
			a.each(a.count("functions with named locals", 2, 0, a.l.NameEntries), func() { a.u32(); a.nameMap() })
		default:
			a.pos = a.end
		}
		if a.err == nil && a.pos != a.end {
			a.bad(a.pos, "%d bytes are left over", a.end-a.pos)
		}
	}
	a.end = end
}

func (a *admitter) nameMap() {
	n := a.count("names", 2, a.names, a.l.NameEntries)
	a.names += n
	for i := 0; i < n && a.err == nil; i++ {
		a.u32()
		a.take(a.u32())
	}
}
