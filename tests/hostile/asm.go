package hostile

import (
	"encoding/binary"
	"math"
)

// This file is a small assembler: enough of the binary format of WebAssembly
// to write every module of the corpus by hand, valid or not. It checks
// nothing, for half of what it writes is wrong on purpose.

// Value types and the empty block type.
const (
	i32     = 0x7f
	i64     = 0x7e
	f32     = 0x7d
	f64     = 0x7c
	v128    = 0x7b
	funcref = 0x70
	extref  = 0x6f
	void    = 0x40
)

// Section numbers.
const (
	secCustom    = 0
	secType      = 1
	secImport    = 2
	secFunction  = 3
	secTable     = 4
	secMemory    = 5
	secGlobal    = 6
	secExport    = 7
	secStart     = 8
	secElement   = 9
	secCode      = 10
	secData      = 11
	secDataCount = 12
	secTag       = 13
)

// Opcodes without immediates, and those whose immediates are written inline.
const (
	opUnreachable = 0x00
	opNop         = 0x01
	opBlock       = 0x02
	opLoop        = 0x03
	opIf          = 0x04
	opElse        = 0x05
	opEnd         = 0x0b
	opReturn      = 0x0f
	opDrop        = 0x1a
	opSelect      = 0x1b
	opI32Eqz      = 0x45
	opI32LtS      = 0x48
	opI32Add      = 0x6a
	opI32Sub      = 0x6b
	opI32Mul      = 0x6c
	opI32DivS     = 0x6d
	opI32RemU     = 0x70
	opI64Add      = 0x7c
	opI32TruncF64 = 0xaa
)

var header = []byte{0, 'a', 's', 'm', 1, 0, 0, 0}

// cat joins pieces of code: bytes, slices of bytes, and numbers below 256.
func cat(parts ...any) []byte {
	var b []byte
	for _, p := range parts {
		switch p := p.(type) {
		case []byte:
			b = append(b, p...)
		case byte:
			b = append(b, p)
		case int:
			if p < 0 || p > 255 {
				panic("BUG: not a byte")
			}
			b = append(b, byte(p))
		default:
			panic("BUG: cannot assemble this")
		}
	}
	return b
}

// rep repeats p n times.
func rep(n int, p ...any) []byte {
	one := cat(p...)
	b := make([]byte, 0, n*len(one))
	for range n {
		b = append(b, one...)
	}
	return b
}

// uleb and sleb write numbers in LEB128.
func uleb(v uint64) []byte { return binary.AppendUvarint(nil, v) }

func sleb(v int64) []byte {
	var b []byte
	for {
		c := byte(v & 0x7f)
		v >>= 7
		if v == 0 && c&0x40 == 0 || v == -1 && c&0x40 != 0 {
			return append(b, c)
		}
		b = append(b, c|0x80)
	}
}

// str writes a length and the bytes of s.
func str(s string) []byte { return cat(uleb(uint64(len(s))), []byte(s)) }

// section writes a section with its true size.
func section(id byte, content ...any) []byte {
	c := cat(content...)
	return cat(id, uleb(uint64(len(c))), c)
}

// raw writes a module from whole sections.
func raw(sections ...any) []byte { return cat(header, cat(sections...)) }

// Instructions with immediates.
func i32c(v int32) []byte        { return cat(0x41, sleb(int64(v))) }
func i64c(v int64) []byte        { return cat(0x42, sleb(v)) }
func get(i int) []byte           { return cat(0x20, uleb(uint64(i))) }
func set(i int) []byte           { return cat(0x21, uleb(uint64(i))) }
func gget(i int) []byte          { return cat(0x23, uleb(uint64(i))) }
func call(f uint32) []byte       { return cat(0x10, uleb(uint64(f))) }
func retCall(f uint32) []byte    { return cat(0x12, uleb(uint64(f))) }
func callInd(t uint32) []byte    { return cat(0x11, uleb(uint64(t)), 0) }
func retCallInd(t uint32) []byte { return cat(0x13, uleb(uint64(t)), 0) }
func br(l int) []byte            { return cat(0x0c, uleb(uint64(l))) }
func brIf(l int) []byte          { return cat(0x0d, uleb(uint64(l))) }
func i32load(off uint32) []byte  { return cat(0x28, 2, uleb(uint64(off))) }
func i32store(off uint32) []byte { return cat(0x36, 2, uleb(uint64(off))) }
func memGrow() []byte            { return cat(0x40, 0) }
func memFill() []byte            { return cat(0xfc, 11, 0) }
func memCopy() []byte            { return cat(0xfc, 10, 0, 0) }
func memInit(seg int) []byte     { return cat(0xfc, 8, uleb(uint64(seg)), 0) }
func tableGrow() []byte          { return cat(0xfc, 15, 0) }
func tableFill() []byte          { return cat(0xfc, 17, 0) }
func tableCopy() []byte          { return cat(0xfc, 14, 0, 0) }
func refNull() []byte            { return cat(0xd0, funcref) }
func loop(body ...any) []byte    { return cat(opLoop, void, cat(body...), opEnd) }
func block(body ...any) []byte   { return cat(opBlock, void, cat(body...), opEnd) }
func cond(body ...any) []byte    { return cat(opIf, void, cat(body...), opEnd) }
func forever(body ...any) []byte { return loop(cat(body...), br(0)) }
func dropped(body ...any) []byte { return cat(cat(body...), opDrop) }
func brTable(labels ...int) []byte {
	b := cat(0x0e, uleb(uint64(len(labels)-1)))
	for _, l := range labels {
		b = append(b, uleb(uint64(l))...)
	}
	return b
}

func f64c(v float64) []byte {
	return binary.LittleEndian.AppendUint64([]byte{0x44}, math.Float64bits(v))
}

// local is one run of locals of a type.
type local struct {
	n uint32
	t byte
}

// builder collects the parts of a valid module.
type builder struct {
	types, imports, funcs, tables, mems, globals, exports, elems, codes, datas [][]byte

	start     []byte
	dataCount bool
	nextFunc  uint32
}

// typ declares a function type and returns its index.
func (b *builder) typ(params, results []byte) uint32 {
	t := cat(0x60, uleb(uint64(len(params))), params, uleb(uint64(len(results))), results)
	for i, have := range b.types {
		if string(have) == string(t) {
			return uint32(i)
		}
	}
	b.types = append(b.types, t)
	return uint32(len(b.types) - 1)
}

// imp imports a function; imports come before functions.
func (b *builder) imp(module, name string, params, results []byte) uint32 {
	if len(b.funcs) > 0 {
		panic("BUG: import after function")
	}
	t := b.typ(params, results)
	b.imports = append(b.imports, cat(str(module), str(name), 0, uleb(uint64(t))))
	b.nextFunc++
	return b.nextFunc - 1
}

// wasi imports a function of WASI whose parameters are given by one letter
// each, i for i32 and I for i64, and whose result is an errno.
func (b *builder) wasi(name, params string) uint32 {
	var p []byte
	for _, c := range params {
		if c == 'I' {
			p = append(p, i64)
		} else {
			p = append(p, i32)
		}
	}
	res := []byte{i32}
	if name == "proc_exit" {
		res = nil
	}
	return b.imp("wasi_snapshot_preview1", name, p, res)
}

// fn adds a function of the given type; the body's last end is added here.
func (b *builder) fn(params, results []byte, locals []local, body ...any) uint32 {
	b.funcs = append(b.funcs, uleb(uint64(b.typ(params, results))))
	l := uleb(uint64(len(locals)))
	for _, x := range locals {
		l = append(l, cat(uleb(uint64(x.n)), x.t)...)
	}
	c := cat(l, cat(body...), opEnd)
	b.codes = append(b.codes, cat(uleb(uint64(len(c))), c))
	b.nextFunc++
	return b.nextFunc - 1
}

// proc adds a function without parameters and results.
func (b *builder) proc(locals []local, body ...any) uint32 {
	return b.fn(nil, nil, locals, body...)
}

// mem declares the memory and exports it under the name WASI asks for.
func (b *builder) mem(pages ...uint32) {
	b.mems = append(b.mems, limits(pages...))
	b.exports = append(b.exports, cat(str("memory"), 2, 0))
}

// table declares a table of function references.
func (b *builder) table(size ...uint32) {
	b.tables = append(b.tables, cat(funcref, limits(size...)))
}

// elem fills table 0 from offset 0 with functions.
func (b *builder) elem(funcs ...uint32) {
	e := cat(0, i32c(0), opEnd, uleb(uint64(len(funcs))))
	for _, f := range funcs {
		e = append(e, uleb(uint64(f))...)
	}
	b.elems = append(b.elems, e)
}

// data puts bytes at an address.
func (b *builder) data(at int32, bytes string) {
	b.datas = append(b.datas, cat(0, i32c(at), opEnd, str(bytes)))
}

// global declares a mutable i32.
func (b *builder) global(init int32) {
	b.globals = append(b.globals, cat(i32, 1, i32c(init), opEnd))
}

// export exports a function.
func (b *builder) export(name string, f uint32) {
	b.exports = append(b.exports, cat(str(name), 0, uleb(uint64(f))))
}

// limits writes a minimum and, if given, a maximum.
func limits(l ...uint32) []byte {
	if len(l) == 1 {
		return cat(0, uleb(uint64(l[0])))
	}
	return cat(1, uleb(uint64(l[0])), uleb(uint64(l[1])))
}

// bytes writes the module.
func (b *builder) bytes() []byte {
	out := append([]byte(nil), header...)
	vec := func(id byte, items [][]byte) {
		if len(items) == 0 {
			return
		}
		c := uleb(uint64(len(items)))
		for _, it := range items {
			c = append(c, it...)
		}
		out = append(out, section(id, c)...)
	}
	vec(secType, b.types)
	vec(secImport, b.imports)
	vec(secFunction, b.funcs)
	vec(secTable, b.tables)
	vec(secMemory, b.mems)
	vec(secGlobal, b.globals)
	vec(secExport, b.exports)
	if b.start != nil {
		out = append(out, section(secStart, b.start)...)
	}
	vec(secElement, b.elems)
	if b.dataCount {
		out = append(out, section(secDataCount, uleb(uint64(len(b.datas))))...)
	}
	vec(secCode, b.codes)
	vec(secData, b.datas)
	return out
}

// command is a module whose _start runs body, with one page of memory.
func command(locals []local, body ...any) []byte {
	b := &builder{}
	b.mem(1)
	b.export("_start", b.proc(locals, body...))
	return b.bytes()
}
