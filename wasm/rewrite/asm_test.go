package rewrite

import "fmt"

// A small assembler for test modules: the model of a module is its source, and
// asm writes instructions.

// s is a signed immediate, raw are bytes as they are.
type s int64
type raw []byte

// asm joins opcodes and immediates: an opcode is written with its prefix, an
// int as unsigned LEB128, an s as signed.
func asm(parts ...any) []byte {
	var b []byte
	for _, p := range parts {
		switch p := p.(type) {
		case opcode:
			switch {
			case p >= opFD:
				b = appendU32(append(b, prefixFD), uint32(p-opFD))
			case p >= opFC:
				b = appendU32(append(b, prefixFC), uint32(p-opFC))
			default:
				b = append(b, byte(p))
			}
		case int:
			b = appendU32(b, uint32(p))
		case uint32:
			b = appendU32(b, p)
		case s:
			b = appendS64(b, int64(p))
		case valType:
			b = append(b, byte(p))
		case raw:
			b = append(b, p...)
		case []byte:
			b = append(b, p...)
		default:
			panic(fmt.Sprintf("asm: %T", p))
		}
	}
	return b
}

const empty = valType(0x40) // block type without values

// build is a module under construction.
type build struct{ module }

func newBuild() *build { return &build{module{start: -1}} }

func typesOf(ts ...valType) []byte {
	b := make([]byte, len(ts))
	for i, t := range ts {
		b[i] = byte(t)
	}
	return b
}

func (b *build) typ(params []byte, results ...valType) uint32 {
	return b.typeIndex(params, typesOf(results...))
}

// importFunc adds an imported function; it must come before any fn.
func (b *build) importFunc(module, name string, t uint32) uint32 {
	b.imports = append(b.imports, importEntry{module: module, name: name, kind: kindFunc, typ: t})
	b.importedFuncs = append(b.importedFuncs, t)
	return uint32(len(b.importedFuncs) - 1)
}

// fn adds a function with locals and instructions, to which end is added, and
// exports it unless name is empty.
func (b *build) fn(name string, t uint32, locals []valType, code ...any) uint32 {
	index := b.numFuncs()
	b.funcs = append(b.funcs, t)
	decl := appendU32(nil, uint32(len(locals)))
	for _, l := range locals {
		decl = append(decl, 1, byte(l))
	}
	b.bodies = append(b.bodies, body{locals: decl, nlocals: uint32(len(locals)), code: append(asm(code...), byte(opEnd))})
	if name != "" {
		b.export(name, kindFunc, index)
	}
	return index
}

func (b *build) export(name string, k kind, index uint32) {
	b.exports = append(b.exports, exportEntry{name, k, index})
}

func (b *build) memory(minPages, maxPages uint32) {
	b.mems = append(b.mems, limits{min: minPages, max: maxPages, hasMax: maxPages > 0})
	b.export("memory", kindMemory, 0)
}

// global adds a global that begins as the constant expression init, to which
// end is added.
func (b *build) newGlobal(t valType, mutable bool, init ...any) uint32 {
	b.globals = append(b.globals, globalEntry{globalType{t, mutable}, append(asm(init...), byte(opEnd))})
	return b.numGlobals() - 1
}

// tableOf adds a table that holds the functions.
func (b *build) tableOf(funcs ...uint32) uint32 {
	b.tables = append(b.tables, tableType{funcref, limits{min: uint32(len(funcs))}})
	t := b.numTables() - 1
	var vec []byte
	for _, f := range funcs {
		vec = appendU32(vec, f)
	}
	b.elems = append(b.elems, elemSegment{flags: 2, table: t, offset: asm(opI32Const, s(0), opEnd), elem: funcref, n: uint32(len(funcs)), vec: vec})
	return t
}

func (b *build) data(offset int, data string) {
	b.datas = append(b.datas, dataSegment{offset: asm(opI32Const, s(offset), opEnd), data: []byte(data)})
}

func (b *build) passive(data string) {
	b.datas = append(b.datas, dataSegment{passive: true, data: []byte(data)})
	b.dataCount = true
}
