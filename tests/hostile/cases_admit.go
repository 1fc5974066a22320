package hostile

import (
	"fmt"
	"strings"

	"github.com/wray-project/wray"
)

// countCases are modules of a few bytes that promise billions of something.
// A decoder that allocates for what is promised dies, and takes its process
// with it: running out of memory cannot be recovered from.
func countCases() []Case {
	const many = 0xffffffff
	var cases []Case
	for _, s := range []struct {
		id   byte
		name string
	}{
		{secType, "types"}, {secImport, "imports"}, {secFunction, "functions"}, {secTable, "tables"},
		{secMemory, "memories"}, {secGlobal, "globals"}, {secExport, "exports"}, {secElement, "elements"},
		{secCode, "bodies"}, {secData, "datas"},
	} {
		cases = append(cases, Case{
			Name: "count-" + s.name,
			Wasm: always(raw(section(s.id, uleb(many)))),
			Want: wray.CodeInvalidModule,
			Doc:  "15 bytes that promise 4,294,967,295 " + s.name + " and hold none",
		})
	}
	funcs := func(body ...any) []byte {
		c := cat(body...)
		return raw(section(secType, 1, 0x60, 0, 0), section(secFunction, 1, 0), section(secCode, 1, uleb(uint64(len(c))), c))
	}
	names := func(content ...any) []byte {
		return raw(section(secCustom, str("name"), cat(content...)))
	}
	return append(cases, []Case{
		{Name: "count-locals", Wasm: always(funcs(1, uleb(4_000_000_000), i64, opEnd)), Want: wray.CodeLimitExceeded,
			Doc: "a function of four billion locals, in one group"},
		{Name: "count-locals-sum", Wasm: always(funcs(3, uleb(many), i64, uleb(many), i64, uleb(many), i64, opEnd)), Want: wray.CodeLimitExceeded,
			Doc: "groups of locals whose sum passes 32 bits"},
		{Name: "count-local-groups", Wasm: always(funcs(uleb(many), opEnd)), Want: wray.CodeInvalidModule,
			Doc: "four billion groups of locals in a body of six bytes"},
		{Name: "count-params", Wasm: always(raw(section(secType, 1, 0x60, uleb(many)))), Want: wray.CodeInvalidModule,
			Doc: "a type of four billion parameters"},
		{Name: "count-results", Wasm: always(raw(section(secType, 1, 0x60, 0, uleb(many)))), Want: wray.CodeInvalidModule,
			Doc: "a type of four billion results"},
		{Name: "count-br-table", Wasm: always(funcs(0, 0x0e, uleb(many), opEnd)), Want: wray.CodeInvalidModule,
			Doc: "a br_table of four billion labels"},
		{Name: "count-select-types", Wasm: always(funcs(0, 0x1c, uleb(many), opEnd)), Want: wray.CodeInvalidModule,
			Doc: "a select of four billion types"},
		{Name: "count-element-items", Wasm: always(raw(section(secElement, 1, 1, 0, uleb(many)))), Want: wray.CodeInvalidModule,
			Doc: "an element segment of four billion items"},
		{Name: "count-element-exprs", Wasm: always(raw(section(secElement, 1, 5, funcref, uleb(many)))), Want: wray.CodeInvalidModule,
			Doc: "an element segment of four billion expressions"},
		{Name: "count-data-bytes", Wasm: always(raw(section(secData, 1, 1, uleb(many)))), Want: wray.CodeInvalidModule,
			Doc: "a data segment of four billion bytes"},
		{Name: "count-function-names", Wasm: always(names(1, 5, uleb(many))), Want: wray.CodeInvalidModule,
			Doc: "a name section, which is no part of the program, with four billion names"},
		{Name: "count-local-names", Wasm: always(names(2, 5, uleb(many))), Want: wray.CodeInvalidModule,
			Doc: "a name section with the locals of four billion functions"},
		{Name: "count-named-locals", Wasm: always(names(2, 7, 1, 0, uleb(many))), Want: wray.CodeInvalidModule,
			Doc: "a name section with four billion locals of one function"},
		{Name: "count-module-name", Wasm: always(names(0, 5, uleb(many))), Want: wray.CodeInvalidModule,
			Doc: "a module whose name has four billion bytes"},
		{Name: "count-data-count", Wasm: always(raw(section(secDataCount, uleb(many)))), Want: wray.CodeInvalidModule,
			Doc: "four billion data segments announced, none there"},
		{Name: "count-body-size", Wasm: always(raw(section(secType, 1, 0x60, 0, 0), section(secFunction, 1, 0), section(secCode, 1, uleb(many), 0, opEnd))),
			Want: wray.CodeInvalidModule, Doc: "a body that claims four billion bytes"},
		{Name: "count-import-name", Wasm: always(raw(section(secImport, 1, uleb(many), 0, 0, 0))), Want: wray.CodeInvalidModule,
			Doc: "an import whose name has four billion bytes"},
	}...)
}

// formatCases are no modules, or damaged ones.
func formatCases() []Case {
	sound := sampleModule()
	bad := func(name string, wasm []byte, doc string) Case {
		return Case{Name: "format-" + name, Wasm: always(wasm), Want: wray.CodeInvalidModule, Doc: doc}
	}
	types := section(secType, 1, 0x60, 0, 0)
	fns := section(secFunction, 1, 0)
	code := section(secCode, 1, 2, 0, opEnd)
	body := func(b ...any) []byte {
		c := cat(0, cat(b...))
		return raw(types, fns, section(secCode, 1, uleb(uint64(len(c))), c))
	}
	cases := []Case{
		bad("empty", nil, "no bytes at all"),
		bad("magic", []byte("\x7fELF\x02\x01\x01\x00"), "another kind of file"),
		bad("version", []byte("\x00asm\x02\x00\x00\x00"), "a version that does not exist"),
		bad("component", []byte("\x00asm\x0d\x00\x01\x00"), "a component, which is no core module"),
		bad("text", []byte("(module)"), "the text format"),
		bad("header", header[:6], "half a header"),
		bad("section-size", raw(secType, uleb(1000), 0), "a section longer than the file"),
		bad("section-short", raw(secType, 1, 1, 0x60), "a section shorter than its content"),
		bad("section-long", raw(section(secType, 1, 0x60, 0, 0, 0xff)), "a section longer than its content"),
		bad("section-unknown", raw(section(99, 0)), "a section that does not exist"),
		bad("section-twice", raw(types, types), "two type sections"),
		bad("section-order", raw(types, code, fns), "bodies before the functions they belong to"),
		bad("section-data-count", raw(types, fns, code, section(secDataCount, 0)), "a data count after the code that needs it"),
		bad("leb-long", raw(secType, []byte{0x86, 0x80, 0x80, 0x80, 0x80, 0x00}, 1, 0x60, 0, 0, 0, 0), "a number of six bytes"),
		bad("leb-bits", raw(secType, []byte{0x84, 0x80, 0x80, 0x80, 0x10}, 1, 0x60, 0, 0), "a number with a 33rd bit"),
		bad("leb-const", body(0x41, []byte{0x80, 0x80, 0x80, 0x80, 0x80, 0x00}, opDrop, opEnd), "a constant of six bytes"),
		bad("leb-const-sign", body(0x41, []byte{0xff, 0xff, 0xff, 0xff, 0x0f}, opDrop, opEnd), "a constant whose unused bits deny its sign"),
		bad("bodies-missing", raw(types, fns), "a function without a body"),
		bad("bodies-extra", raw(types, code), "a body without a function"),
		bad("body-no-end", body(opNop), "a body that does not end"),
		bad("body-open", body(opBlock, void, opEnd), "a block that does not end"),
		bad("body-tail", body(opEnd, opNop), "code behind the end of a body"),
		bad("body-cut", body(0x41), "a body that ends within an instruction"),
		bad("opcode", body(0xff, opEnd), "an opcode that does not exist"),
		bad("opcode-misc", body(0xfc, 0x7f, opEnd), "an opcode behind 0xfc that does not exist"),
		bad("opcode-vector", body(0xfd, 0x9a, 1, opEnd), "an opcode behind 0xfd that does not exist"),
		bad("utf8", raw(section(secExport, 1, 1, 0xff, 0, 0)), "an export whose name is no text"),
		bad("type-form", raw(section(secType, 1, 0x61, 0, 0)), "a type that is none of a function"),
		bad("value-type", raw(section(secType, 1, 0x60, 1, 0x01, 0)), "a parameter of an unknown type"),
		bad("data-kind", raw(section(secData, 1, 3)), "an unknown kind of data segment"),
		bad("element-kind", raw(section(secElement, 1, 8, 0, 0)), "an unknown kind of element segment"),
		bad("global-expr", raw(section(secGlobal, 1, i32, 0, 0x10, 0, opEnd)), "a global that calls a function for its value"),
		bad("names", raw(section(secCustom, str("name"), 1, 100, 0)), "a name section whose part is longer than itself"),
	}
	// Cut at ever greater distance from the end: each must be noticed.
	for _, keep := range []int{9, 11, len(sound) / 3, len(sound) / 2, len(sound) * 2 / 3, len(sound) - 1} {
		cases = append(cases, bad(fmt.Sprintf("cut-%d", keep), sound[:keep], "a sound module, cut off"))
	}
	return cases
}

// sampleModule is a sound module with something in every section.
func sampleModule() []byte {
	b := &builder{dataCount: true}
	b.wasi("sched_yield", "")
	b.table(2, 2)
	b.global(1)
	f := b.proc(manyLocals(3), get(0), cond(call(0), opDrop), gget(0), set(1))
	b.mem(1, 2)
	b.export("_start", f)
	b.elem(f, f)
	b.data(8, "hello")
	return append(b.bytes(), section(secCustom, str("name"), 0, 5, str("test"))...)
}

// refusedCases use what wray does not run, or need what no host has.
func refusedCases() []Case {
	refused := func(name string, wasm []byte, doc string) Case {
		return Case{Name: "refused-" + name, Wasm: always(wasm), Want: wray.CodeInvalidModule, Doc: doc}
	}
	unknown := func(name string, wasm []byte, doc string) Case {
		return Case{Name: "import-" + name, Wasm: always(wasm), Want: wray.CodeUnknownImport, Doc: doc}
	}
	types := section(secType, 1, 0x60, 0, 0)
	imp := func(module, name string, desc ...any) []byte {
		return raw(types, section(secImport, 1, str(module), str(name), cat(desc...)))
	}
	return []Case{
		refused("shared-memory", raw(section(secMemory, 1, 3, 1, 1)), "shared memory: threads, and a clock finer than granted"),
		refused("atomics", command(nil, i32c(0), 0xfe, 0x10, 2, 0, opDrop), "an atomic load"),
		refused("tag", raw(types, section(secTag, 1, 0, 0)), "exception handling: a tag"),
		refused("throw", command(nil, 0x08, 0), "exception handling: throw"),
		refused("try-table", command(nil, 0x1f, void, 0, opEnd), "exception handling: try_table"),
		refused("legacy-try", command(nil, 0x06, void, opEnd), "exception handling: the older try"),
		refused("exnref", command([]local{{1, 0x69}}), "exception handling: a local of an exception's type"),
		refused("memory64", raw(section(secMemory, 1, 4, 1)), "a memory of 64-bit addresses"),
		refused("two-memories", raw(section(secMemory, 2, 0, 1, 0, 1)), "two memories"),
		refused("memory-1", command(nil, 0x3f, 1, opDrop), "an instruction on memory 1"),
		refused("typed-refs", raw(section(secType, 1, 0x60, 1, 0x64, 0, 0)), "a typed function reference"),
		refused("gc-struct", raw(section(secType, 1, 0x5f, 0)), "a garbage-collected structure"),
		refused("gc-op", command(nil, 0xfb, 0, 0), "an instruction on garbage-collected types"),
		refused("relaxed-simd", command(nil, 0xfd, 0x80, 0x02), "relaxed SIMD, whose results differ between machines"),
		refused("extended-const", raw(section(secGlobal, 1, i32, 0, i32c(1), i32c(1), opI32Add, opEnd)), "arithmetic in a global's value"),
		unknown("env", imp("env", "emscripten_run_script", 0, 0), "a function of a JavaScript host"),
		unknown("meter", imp("wray_meter", "tick", 0, 0), "the function that the metering pass imports: a guest that calls it makes its own time"),
		unknown("memory", imp("wray_v1", "memory", 2, 0, 1), "a memory of the host"),
		unknown("table", imp("wray_v1", "table", 1, funcref, 0, 1), "a table of the host"),
		unknown("global", imp("wray_v1", "global", 3, i32, 1), "a mutable global of the host"),
		unknown("old-wasi", imp("wasi_unstable", "fd_write", 0, 0), "an older WASI"),
	}
}

// limitCases are well formed and too large.
func limitCases() []Case {
	over := func(name, doc string, build func() []byte) Case {
		return Case{Name: "limit-" + name, Wasm: build, Want: wray.CodeLimitExceeded, Doc: doc}
	}
	return []Case{
		over("size", "a module of 65 MiB, nearly all of it a custom section", func() []byte {
			return raw(section(secCustom, str("padding"), make([]byte, 65<<20)))
		}),
		over("types", "100,001 types", func() []byte {
			return raw(section(secType, uleb(100_001), rep(100_001, 0x60, 0, 0)))
		}),
		over("functions", "1,000,001 functions", func() []byte {
			return raw(section(secType, 1, 0x60, 0, 0), section(secFunction, uleb(1_000_001), rep(1_000_001, 0)))
		}),
		over("params", "a type of 1,001 parameters", func() []byte {
			return raw(section(secType, 1, 0x60, uleb(1001), rep(1001, i32), 0))
		}),
		over("tables", "101 tables", func() []byte {
			return raw(section(secTable, 101, rep(101, funcref, 0, 0)))
		}),
		over("table-size", "a table of 100,000,000 entries from the start", func() []byte {
			return raw(section(secTable, 1, funcref, limits(100_000_000)))
		}),
		over("tables-size", "tables that are too large together", func() []byte {
			return raw(section(secTable, 20, rep(20, funcref, limits(60_000))))
		}),
		over("memory", "a memory of 65,537 pages", func() []byte {
			return raw(section(secMemory, 1, limits(65_537)))
		}),
		over("datas", "100,001 data segments, one more than Go's linker emits", func() []byte {
			return raw(section(secData, uleb(100_001), rep(100_001, 1, 0)))
		}),
		over("name", "an export's name of 100,001 bytes", func() []byte {
			return raw(section(secExport, 1, str(strings.Repeat("x", 100_001)), 0, 0))
		}),
		over("custom-sections", "1,001 custom sections", func() []byte {
			return raw(rep(1001, section(secCustom, str("x"))))
		}),
		over("locals", "5,001 locals", func() []byte { return bombLocals(5001) }),
		over("all-locals", "1,000 functions of 4,500 locals each: 36 MB of decoded types from 9 KB", func() []byte {
			b := &builder{}
			for range 1000 {
				b.proc(manyLocals(4500))
			}
			return b.bytes()
		}),
		over("body", "a body of more than 2 MiB", func() []byte { return command(nil, rep(2<<20, opNop)) }),
		over("nesting-blocks", "blocks nested 16,385 deep", func() []byte { return bombNest(opBlock, 16_385) }),
		over("nesting-ifs", "ifs nested 100,000 deep", func() []byte { return bombNest(opIf, 100_000) }),
		over("nesting-loops", "loops nested 300 deep", func() []byte { return bombNest(opLoop, 300) }),
		over("br-table", "a br_table of 100,000 labels, 9 s of compiling and 237 MB", func() []byte { return bombTable(100_000, 1) }),
		over("br-tables", "1,000 br_tables of 1,000 labels, 25 s and 2.6 GB", func() []byte { return bombTables(1000, 1000, 10) }),
		over("loops-locals", "600 locals changed in 600 nested loops, up to 35 s from 9 KB", func() []byte { return bombLoops(600, 600) }),
		over("loops-row", "8,000 loops in a row with 1,000 locals", func() []byte { return bombLoopRow(1000, 8000) }),
		over("ifs-locals", "22,000 ifs with 1,000 locals, 46 s and 3.8 GB from 330 KB", func() []byte { return bombIfs(1000, 22_000) }),
		over("ifs-small", "1,000 ifs with 1,000 locals, 1.2 s from 22 KB", func() []byte { return bombIfs(1000, 1000) }),
		over("results", "1,000 ifs that take and give 1,000 values", func() []byte { return bombResults(1000, 1000) }),
		over("calls", "1,000 calls with 1,000 arguments and results, 800 MB from 15 KB", func() []byte { return bombCalls(1000, 1000) }),
		over("branches", "500,000 branches in one function", func() []byte { return bombBranches(100, 500_000) }),
	}
}
