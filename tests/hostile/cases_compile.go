package hostile

import "github.com/wray-project/wray"

// invalidCases are well formed, so that Admit lets them pass, and not valid.
func invalidCases() []Case {
	invalid := func(name string, wasm []byte, doc string) Case {
		return Case{Name: "invalid-" + name, Wasm: always(wasm), Want: wray.CodeInvalidModule, Doc: doc}
	}
	unknown := func(name string, build func(b *builder), doc string) Case {
		b := &builder{}
		build(b)
		b.mem(1)
		b.export("_start", b.proc(nil))
		return Case{Name: "import-" + name, Wasm: always(b.bytes()), Want: wray.CodeUnknownImport, Doc: doc}
	}
	with := func(build func(b *builder)) []byte {
		b := &builder{}
		build(b)
		return b.bytes()
	}
	return []Case{
		invalid("underflow", command(nil, opDrop), "an operand that is not there"),
		invalid("types", command(nil, i64c(1), f64c(1), opI64Add, opDrop), "a float added to an integer: type confusion"),
		invalid("leftover", command(nil, i32c(1)), "a value left on the stack"),
		invalid("local", command(nil, get(9), opDrop), "a local beyond the frame"),
		invalid("global", command(nil, gget(9), opDrop), "a global that does not exist"),
		invalid("call", command(nil, call(9)), "a function that does not exist"),
		invalid("branch", command(nil, br(9)), "a branch out of the function"),
		invalid("else", command(nil, opBlock, void, opElse, opEnd), "an else of a block"),
		invalid("if-result", command(manyLocals(1), get(0), opIf, i32, i32c(1), opEnd, opDrop), "an if that may have no result"),
		invalid("alignment", command(nil, i32c(0), 0x28, 3, 0, opDrop), "an alignment greater than the load"),
		invalid("lane", command(nil, 0xfd, 0x0c, rep(16, 0), 0xfd, 0x15, 200, opDrop), "a lane beyond the vector"),
		invalid("no-memory", with(func(b *builder) { b.export("_start", b.proc(nil, i32c(0), i32load(0), opDrop)) }), "a load without a memory"),
		invalid("no-table", with(func(b *builder) { b.mem(1); b.export("_start", b.proc(nil, i32c(0), callInd(0))) }), "an indirect call without a table"),
		invalid("no-data-count", with(func(b *builder) {
			b.mem(1)
			b.data(0, "x")
			b.export("_start", b.proc(nil, i32c(0), i32c(0), i32c(1), memInit(0)))
		}), "memory.init without a data count"),
		invalid("ref-func", with(func(b *builder) { b.export("_start", b.proc(nil, 0xd2, 1, opDrop)); b.proc(nil) }), "a reference to a function that is not declared"),
		invalid("start", with(func(b *builder) { b.fn([]byte{i32}, nil, nil); b.start = uleb(0) }), "a start function that takes a parameter"),
		invalid("exports", with(func(b *builder) { f := b.proc(nil); b.export("x", f); b.export("x", f) }), "one name exported twice"),
		invalid("export", with(func(b *builder) { b.export("x", 7) }), "an export of nothing"),
		invalid("segment", with(func(b *builder) { b.data(0, "x") }), "data without a memory"),
		invalid("limits", with(func(b *builder) { b.mem(2, 1) }), "a memory whose least size is above its greatest"),
		invalid("reserved-fuel", with(func(b *builder) {
			b.mem(1)
			b.global(0)
			b.exports = append(b.exports, cat(str("wray:fuel"), 3, 0))
			b.export("_start", b.proc(nil))
		}), "an export under the name of the meter's counter, which the host would set"),
		invalid("reserved-depth", with(func(b *builder) {
			b.mem(1)
			b.global(0)
			b.exports = append(b.exports, cat(str("wray:depth"), 3, 0))
			b.export("_start", b.proc(nil))
		}), "an export under the name of the meter's stack depth"),
		unknown("wasi-function", func(b *builder) { b.imp("wasi_snapshot_preview1", "proc_exec", nil, nil) }, "a function that WASI does not have"),
		unknown("wray-function", func(b *builder) { b.imp("wray_v1", "host_read", []byte{i32, i32}, []byte{i32}) }, "a function that wray_v1 does not have"),
		unknown("wasi-signature", func(b *builder) { b.imp("wasi_snapshot_preview1", "fd_write", []byte{i64}, []byte{i64}) },
			"a function of WASI with other parameters: an engine that does not check reads a wrong stack"),
	}
}

// bombCases are valid modules that no bound on their structure tells from
// real code. What stops them is the limit on the compiler's CPU time, which
// grows with the module (codecache.Budget). The seconds are those of
// wazero 1.12.0 on one core of a shared machine.
func bombCases() []Case {
	bomb := func(name, doc string, build func() []byte) Case {
		return Case{Name: "bomb-" + name, Wasm: build, Want: wray.CodeLimitExceeded, Doc: doc}
	}
	return []Case{
		bomb("branches", "30,000 branches out of 1,000 blocks: 25 s from 156 KB", func() []byte { return bombBranches(1000, 30_000) }),
		bomb("ifs", "40,000 ifs in a row: 30 s from 480 KB", func() []byte { return bombIfs(10, 40_000) }),
		bomb("stack", "3,000 operands kept over 20,000 ifs: 50 s from 240 KB", func() []byte { return bombStack(3000, 20_000) }),
	}
}
