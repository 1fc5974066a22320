package hostile

import "github.com/wray-project/wray"

// entryCases export what a host calls with other types than it calls it with: a
// host that does not look passes a number where the guest has a reference, which
// the engine then follows.
func entryCases() []Case {
	entry := func(name, export string, params, results []byte, doc string, body ...any) Case {
		return Case{Name: "entry-" + name, Doc: doc, Want: wray.CodeInvalidModule, Wasm: func() []byte {
			b := &builder{}
			b.mem(1)
			b.table(1)
			b.export(export, b.fn(params, results, nil, body...))
			if export == "_initialize" {
				b.export("_start", b.proc(nil))
			}
			return b.bytes()
		}}
	}
	const opTableSet = 0x26
	cases := []Case{
		entry("call-references", "wray_call", []byte{funcref, funcref}, []byte{i32},
			"wray_call takes references, and calls the one that the host made of the operation's number",
			i32c(0), get(0), opTableSet, uleb(0), i32c(0), 0x25, uleb(0), 0xd1), // table.get, ref.is_null
		entry("call-returns-reference", "wray_call", []byte{i32, i32}, []byte{funcref},
			"wray_call gives a reference, which is an address of the host's, as its result", 0xd2, uleb(0)),
		entry("call-nothing", "wray_call", nil, nil, "wray_call takes and returns nothing: what lay there is taken for its result"),
		entry("call-wide", "wray_call", []byte{i64, i64}, []byte{i32}, "wray_call takes 64 bits", i32c(0)),
		entry("call-float", "wray_call", []byte{f32, f64}, []byte{i32}, "wray_call takes floats", i32c(0)),
		entry("call-many", "wray_call", []byte{i32, i32, i32, i32, i32, i32, i32, i32, i32, i32}, []byte{i32}, "wray_call takes more than it is given", i32c(0)),
		entry("call-two", "wray_call", []byte{i32, i32}, []byte{i32, i32}, "wray_call returns more than there is room for", i32c(0), i32c(0)),
		entry("start-takes", "_start", []byte{i32}, nil, "_start takes a parameter that nobody gives"),
		entry("start-returns", "_start", nil, []byte{extref}, "_start returns a reference", 0xd0, extref),
		entry("init-takes", "_initialize", []byte{i64, i32}, nil, "_initialize takes parameters that nobody gives"),
		entry("init-returns", "_initialize", nil, []byte{i32}, "_initialize returns something", i32c(0)),
	}
	again := func(name, export, module, fn string, params []byte) Case {
		return Case{Name: "entry-" + name, Doc: "exports a function of the host's as its own " + export, Want: wray.CodeInvalidModule, Wasm: func() []byte {
			b := &builder{}
			b.export(export, b.imp(module, fn, params, []byte{i32}))
			b.mem(1)
			return b.bytes()
		}}
	}
	return append(cases,
		again("call-of-the-host", "wray_call", "wray_v1", "handle_dup", []byte{i32, i32}),
		again("call-of-wasi", "wray_call", "wasi_snapshot_preview1", "random_get", []byte{i32, i32}))
}
