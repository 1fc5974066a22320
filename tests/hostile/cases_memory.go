package hostile

import "github.com/wray-project/wray"

// growAll grows the memory for as long as it grows, by halves, using local n.
func growAll(n int) []byte {
	return cat(i32c(32_768), set(n), loop(
		get(n), memGrow(), i32c(-1), 0x46, cond(get(n), i32c(1), 0x76, set(n)),
		get(n), brIf(0)))
}

// lastPage is the address of the memory's last page.
var lastPage = cat(0x3f, 0, i32c(1), opI32Sub, i32c(16), 0x74)

// memoryCases want more memory or tables than there are, or keep the
// processor in instructions that work on gigabytes at once.
func memoryCases() []Case {
	oom := func(name, doc string, build func() []byte) Case {
		return Case{Name: "memory-" + name, Wasm: build, Want: wray.CodeOutOfMemory, Doc: doc}
	}
	bulk := func(name, doc string, build func() []byte) Case {
		return Case{Name: "bulk-" + name, Wasm: build, Want: wray.CodeTimeout, Or: []wray.Code{wray.CodeOutOfMemory}, Doc: doc}
	}
	failed := cat(i32c(-1), 0x46, cond(opUnreachable))
	l := manyLocals(2)
	passive := func(size int, body ...any) func() []byte {
		return func() []byte {
			b := &builder{dataCount: true}
			b.mem(uint32(size>>16)+1, uint32(size>>16)+1)
			b.datas = append(b.datas, cat(1, str(string(make([]byte, size)))))
			b.export("_start", b.proc(l, body...))
			return b.bytes()
		}
	}
	tables := func(body func(t uint32) []byte) func() []byte {
		return start(l, func(b *builder) []byte {
			b.table(900_000)
			return body(0)
		})
	}
	return []Case{
		oom("grow", "memory grown a page at a time until that fails, then a trap, as allocators do", plain(nil, forever(i32c(1), memGrow(), failed))),
		oom("grow-touch", "memory grown by 16 MiB at a time, each page written", plain(l, forever(
			lastPage, set(0), i32c(256), memGrow(), failed,
			loop(get(0), i32c(1), i32store(0), get(0), i32c(4096), opI32Add, 0x22, 0, lastPage, 0x49, brIf(0))))),
		{Name: "memory-grow-on", Wasm: plain(nil, forever(dropped(i32c(1), memGrow()))), Want: wray.CodeTimeout, Or: []wray.Code{wray.CodeOutOfMemory},
			Doc: "memory grown by a page for ever, whether it grows or not"},
		{Name: "memory-grow-zero", Wasm: plain(nil, forever(dropped(i32c(0), memGrow()))), Want: wray.CodeTimeout,
			Doc: "memory grown by nothing for ever: a loop in which each turn leaves the guest's code"},
		{Name: "memory-declared", Wasm: func() []byte {
			b := &builder{}
			b.mem(65_536)
			b.export("_start", b.proc(nil, i32c(-4), i32c(1), i32store(0)))
			return b.bytes()
		}, Want: wray.CodeOutOfMemory, Or: []wray.Code{wray.CodeLimitExceeded}, Doc: "4 GiB of memory from the start"},
		{Name: "memory-maximum", Wasm: func() []byte {
			b := &builder{}
			b.mem(1, 65_536)
			b.export("_start", b.proc(nil))
			return b.bytes()
		}, Want: wray.CodeOK, Doc: "4 GiB as the greatest size, never used: a host that reserves by it runs out"},

		bulk("fill", "memory.fill of all memory for ever: 1.2 s an instruction at 2 GiB", plain(l, growAll(0), forever(i32c(0), i32c(1), lastPage, memFill()))),
		bulk("copy", "memory.copy of all memory onto itself, one byte on", plain(l, growAll(0), forever(i32c(1), i32c(0), lastPage, memCopy()))),
		bulk("copy-back", "memory.copy of all memory, one byte back", plain(l, growAll(0), forever(i32c(0), i32c(1), lastPage, memCopy()))),
		bulk("fill-calls", "fills of 16 MiB at the bottom of a tree of calls, without a loop", start(nil, func(b *builder) []byte {
			for n := range uint32(60) {
				b.proc(nil, call(n+1), call(n+1))
			}
			b.proc(nil, i32c(0), i32c(1), i32c(16<<20), memFill())
			return cat(dropped(i32c(256), memGrow()), call(0))
		})),
		bulk("fill-empty", "memory.fill of nothing for ever", plain(nil, forever(i32c(0), i32c(0), i32c(0), memFill()))),
		bulk("init", "memory.init of 4 MiB for ever", passive(4<<20, forever(i32c(0), i32c(0), i32c(4<<20), memInit(0)))),
		bulk("table-fill", "table.fill of 900,000 entries for ever", tables(func(uint32) []byte {
			return forever(i32c(0), refNull(), i32c(900_000), tableFill())
		})),
		bulk("table-copy", "table.copy of 900,000 entries for ever", tables(func(uint32) []byte {
			return forever(i32c(1), i32c(0), i32c(899_999), tableCopy())
		})),
		bulk("table-init", "table.init of 100,000 entries for ever", func() []byte {
			b := &builder{}
			b.mem(1)
			b.table(100_000)
			b.elems = append(b.elems, cat(1, 0, uleb(100_000), rep(100_000, 0)))
			b.export("_start", b.proc(nil, forever(i32c(0), i32c(0), i32c(100_000), 0xfc, 12, 0, 0)))
			return b.bytes()
		}),

		{Name: "table-grow", Wasm: start(nil, func(b *builder) []byte {
			exit := b.wasi("proc_exit", "i")
			b.table(1)
			return cat(refNull(), i32c(100_000_000), tableGrow(), i32c(-1), 0x47, cond(i32c(Escaped), call(exit)))
		}), Want: wray.CodeOK, Doc: "a table grown by 100,000,000 entries, 770 MB that no memory limit counts: it must not grow"},
		{Name: "table-grow-maximum", Wasm: start(nil, func(b *builder) []byte {
			exit := b.wasi("proc_exit", "i")
			b.table(1, 0xffffffff)
			return cat(refNull(), i32c(500_000_000), tableGrow(), i32c(-1), 0x47, cond(i32c(Escaped), call(exit)))
		}), Want: wray.CodeOK, Doc: "the same, with a maximum that allows it"},
		{Name: "table-grow-on", Wasm: start(nil, func(b *builder) []byte {
			b.table(0)
			return forever(dropped(refNull(), i32c(1000), tableGrow()))
		}), Want: wray.CodeTimeout, Or: []wray.Code{wray.CodeOutOfMemory, wray.CodeLimitExceeded}, Doc: "a table grown by 1,000 entries for ever"},
		{Name: "table-grow-ten", Wasm: start(nil, func(b *builder) []byte {
			exit := b.wasi("proc_exit", "i")
			var body []byte
			for t := range 10 {
				b.tables = append(b.tables, cat(extref, 0, 0))
				body = append(body, cat(0xd0, extref, i32c(50_000_000), 0xfc, 15, t, i32c(-1), 0x47, cond(i32c(Escaped), call(exit)))...)
			}
			return body
		}), Want: wray.CodeOK, Doc: "ten tables of another type, each grown by 50,000,000 entries"},
	}
}
