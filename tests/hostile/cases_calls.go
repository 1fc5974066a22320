package hostile

import "github.com/wray-project/wray"

// Places in the memory of the guests of callCases: what is shorter lies below
// low, the lists of a million handles or of arguments at list, payloads at
// bulk. All is zero but what a guest writes.
const (
	callFn    = 128 // the number of the guest's own function
	callSpec  = 256 // a struct task_spec
	callValue = 512 // a struct value
	callOut   = 768 // handles and results
	callSome  = 1024
	callList  = 1 << 20
	callBulk  = 16 << 20
	callPages = 3000 // 196 MB: with the snapshot below the limit of TestHostile
	callRefs  = 1 << 19
)

// callGuest is a guest that speaks wray_v1: its driver runs a body for ever, its
// tasks give an empty value.
type callGuest struct {
	*builder
	funcs map[string]uint32
}

// do calls an import of wray_v1 and drops its errno. An argument is a constant, or
// the code that leaves it.
func (g *callGuest) do(name string, args ...any) []byte {
	var b []byte
	for _, a := range args {
		switch a := a.(type) {
		case int:
			b = append(b, i32c(int32(a))...)
		case int64:
			b = append(b, i64c(a)...)
		case []byte:
			b = append(b, a...)
		}
	}
	return dropped(b, call(g.funcs[name]))
}

// handleAt reads a handle, or another number.
func handleAt(at int32) []byte { return cat(i32c(at), i32load(0)) }

// put32 writes a number.
func put32(at, v int32) []byte { return cat(i32c(at), i32c(v), i32store(0)) }

// fill32 writes the number that value leaves to n places from at on, so many
// bytes apart. Locals 2 and 3 are its own.
func fill32(at, n, apart int32, value []byte) []byte {
	return cat(i32c(at), set(2), value, set(3),
		loop(get(2), get(3), i32store(0), get(2), i32c(apart), opI32Add, 0x22, 2, i32c(at+n*apart), opI32LtS, brIf(0)))
}

// callCases call the functions of wray_v1 rightly, for ever, each with as much
// as it takes. Whatever a call does, it must be charged for and be cut short
// where the guest is stopped.
func callCases() []Case {
	// spin is a guest whose driver runs once and then again and again what build
	// returns.
	spin := func(name, doc string, build func(g *callGuest) (once, again []byte)) Case {
		return Case{Name: "call-" + name, Doc: doc, Want: wray.CodeTimeout, Or: []wray.Code{wray.CodeStoreFull, wray.CodeLimitExceeded},
			Wasm: func() []byte {
				g := &callGuest{builder: &builder{}, funcs: map[string]uint32{}}
				for _, f := range wrayFunctions {
					var types []byte
					for _, c := range f.params {
						types = append(types, map[rune]byte{'i': i32, 'I': i64}[c])
					}
					g.funcs[f.name] = g.imp("wray_v1", f.name, types, []byte{i32})
				}
				g.funcs["fd_read"] = g.wasi("fd_read", "iiii")
				g.mem(1)
				g.data(64, "f")
				once, again := build(g)
				g.export("_initialize", g.proc(nil, g.do("declare", 64, 1, 7, 0)))
				g.export("wray_call", g.fn([]byte{i32, i32}, []byte{i32}, manyLocals(2),
					put32(callValue, 1), // RAW
					get(0), i32c(4), opI32Sub, opI32Eqz, cond(g.do("task_return", 0, callValue)),
					get(0), i32c(3), opI32Sub, opI32Eqz, cond(
						dropped(i32c(callPages), memGrow()),
						g.do("function", 0, 0, 64, 1, callFn),
						i32c(callSpec), handleAt(callFn), i32store(0),
						put32(callSpec+8, callList), put32(callSpec+16, callOut), put32(callSpec+20, 1),
						once, forever(again)),
					i32c(0)))
				return g.bytes()
			}}
	}
	// args describes n arguments, each a value of so many bytes.
	args := func(n, size int32) []byte {
		return cat(put32(callSpec+12, n),
			fill32(callList, n, 32, i32c(0)), fill32(callList+8, n, 32, i32c(1)),
			fill32(callList+16, n, 32, i32c(callBulk)), fill32(callList+20, n, 32, i32c(size)))
	}
	// value describes one of n bytes.
	value := func(n int32) []byte { return cat(put32(callValue+8, callBulk), put32(callValue+12, n)) }
	submit := func(g *callGuest) []byte {
		return cat(g.do("submit", callSpec, 1, callSome), g.do("handle_drop", callOut, 1))
	}
	return []Case{
		spin("submit-small", "tasks without arguments", func(g *callGuest) (once, again []byte) { return nil, submit(g) }),
		spin("submit-same", "tasks of 32,768 arguments that are all the same 65,535 bytes, 2 GiB each", func(g *callGuest) (once, again []byte) {
			return args(1<<15, 65_535), submit(g)
		}),
		spin("submit-empty", "tasks of 65,536 empty arguments", func(g *callGuest) (once, again []byte) {
			return args(1<<16, 0), submit(g)
		}),
		spin("submit-large", "tasks of 64 arguments of a megabyte", func(g *callGuest) (once, again []byte) {
			return args(64, 1<<20), submit(g)
		}),
		spin("put", "values of 128 MiB", func(g *callGuest) (once, again []byte) {
			return value(128 << 20), cat(g.do("object_put", callValue, callOut), g.do("handle_drop", callOut, 1))
		}),
		spin("put-tiny", "values of a byte, kept", func(g *callGuest) (once, again []byte) {
			return value(1), g.do("object_put", callValue, callOut)
		}),
		spin("put-refs", "values of 524,288 references", func(g *callGuest) (once, again []byte) {
			return cat(value(8), g.do("object_put", callValue, callOut+4), fill32(callList, callRefs, 4, handleAt(callOut+4)),
					put32(callValue+16, callList), put32(callValue+20, callRefs)),
				cat(g.do("object_put", callValue, callOut), g.do("handle_drop", callOut, 1))
		}),
		spin("refs", "handles for 524,288 references", func(g *callGuest) (once, again []byte) {
			return cat(value(8), g.do("object_put", callValue, callOut+4), fill32(callList, callRefs, 4, handleAt(callOut+4)),
					put32(callValue+16, callList), put32(callValue+20, callRefs), g.do("object_put", callValue, callOut)),
				cat(g.do("object_refs", handleAt(callOut), callList, callRefs), g.do("handle_drop", callList, callRefs))
		}),
		spin("get", "copies of 128 MiB", func(g *callGuest) (once, again []byte) {
			return cat(value(128<<20), g.do("object_put", callValue, callOut)),
				g.do("object_get", handleAt(callOut), callBulk, 128<<20, callSome, 0)
		}),
		spin("read", "copies of 64 KiB", func(g *callGuest) (once, again []byte) {
			return cat(value(1<<20), g.do("object_put", callValue, callOut)),
				g.do("object_read", handleAt(callOut), int64(100_000), callBulk, 64<<10, callSome)
		}),
		spin("buffers", "buffers of 128 MiB, mapped, filled, sealed and unmapped", func(g *callGuest) (once, again []byte) {
			return nil, cat(g.do("buffer_open", int64(128<<20), callOut), g.do("object_map", handleAt(callOut), callBulk, 128<<20, int64(0)),
				i32c(callBulk), i32c(1), i32c(128<<20), memFill(),
				g.do("buffer_seal", handleAt(callOut), 1, 0, int64(128<<20), callOut+4),
				i32c(callBulk), i32c(2), i32c(128<<20), memFill(),
				g.do("object_unmap", callBulk, 128<<20), g.do("handle_drop", callOut+4, 1), g.do("handle_drop", callOut, 1))
		}),
		spin("buffers-short", "buffers of 64 KiB, mapped, sealed and unmapped", func(g *callGuest) (once, again []byte) {
			return nil, cat(g.do("buffer_open", int64(64<<10), callOut), g.do("object_map", handleAt(callOut), callBulk, 64<<10, int64(0)),
				g.do("buffer_seal", handleAt(callOut), 1, 0, int64(64<<10), callOut+4),
				g.do("object_unmap", callBulk, 64<<10), g.do("handle_drop", callOut+4, 1), g.do("handle_drop", callOut, 1))
		}),
		spin("buffers-open", "buffers of 128 MiB, dropped", func(g *callGuest) (once, again []byte) {
			return nil, cat(g.do("buffer_open", int64(128<<20), callOut), g.do("handle_drop", callOut, 1))
		}),
		spin("windows", "1,000 windows, mapped and unmapped", func(g *callGuest) (once, again []byte) {
			return cat(value(128<<20), g.do("object_put", callValue, callOut)), cat(
				i32c(0), set(2), loop(
					g.do("object_map", handleAt(callOut), cat(i32c(callBulk), get(2), opI32Add), 64<<10, int64(0)),
					get(2), i32c(128<<10), opI32Add, 0x22, 2, i32c(1000*128<<10), opI32LtS, brIf(0)),
				i32c(0), set(2), loop(
					g.do("object_unmap", cat(i32c(callBulk), get(2), opI32Add), 64<<10),
					get(2), i32c(128<<10), opI32Add, 0x22, 2, i32c(1000*128<<10), opI32LtS, brIf(0)))
		}),
		spin("windows-written", "a window of 128 MiB over pages that were written, and written itself", func(g *callGuest) (once, again []byte) {
			return cat(value(128<<20), g.do("object_put", callValue, callOut)), cat(
				i32c(callBulk), i32c(1), i32c(128<<20), memFill(),
				g.do("object_map", handleAt(callOut), callBulk, 128<<20, int64(0)),
				i32c(callBulk), i32c(2), i32c(128<<20), memFill(),
				g.do("object_unmap", callBulk, 128<<20))
		}),
		spin("events", "4,096 events asked for and read", func(g *callGuest) (once, again []byte) {
			return cat(value(8), g.do("object_put", callValue, callOut), fill32(callList, 4096, 4, handleAt(callOut)),
					g.do("event_open", callOut+4), put32(callSome, callBulk), put32(callSome+4, 4096*16)),
				cat(g.do("object_watch", callList, 4096), g.do("fd_read", handleAt(callOut+4), callSome, 1, callSome+8))
		}),
		spin("events-unread", "events asked for and not read", func(g *callGuest) (once, again []byte) {
			return cat(value(8), g.do("object_put", callValue, callOut), fill32(callList, 1<<18, 4, handleAt(callOut))),
				g.do("object_watch", callList, 1<<18)
		}),
		spin("wait", "65,536 objects looked at", func(g *callGuest) (once, again []byte) {
			return cat(value(8), g.do("object_put", callValue, callOut), fill32(callList, 1<<16, 4, handleAt(callOut))),
				g.do("object_wait", callList, 1<<16, 1<<16, int64(0), callBulk)
		}),
		spin("names", "functions, actors and objects looked up", func(g *callGuest) (once, again []byte) {
			return cat(value(8), g.do("object_put", callValue, callOut)),
				cat(g.do("function", 0, 0, 64, 1, callSome), g.do("actor", 64, 1, callSome), g.do("object_stat", handleAt(callOut), callSome, 256, callSome+256),
					g.do("refusal", callBulk, 1<<20, callSome), g.do("cancel", handleAt(callOut)), g.do("kill", handleAt(callOut), 0))
		}),
		spin("actors", "calls of an actor", func(g *callGuest) (once, again []byte) {
			return cat(put32(callSpec+4, 32), g.do("submit", callSpec, 1, callSome), put32(callSpec+4, 0),
				i32c(callSpec+68), handleAt(callOut), i32store(0), put32(callSpec+16, callOut+4)), cat(g.do("submit", callSpec, 1, callSome), g.do("handle_drop", callOut+4, 1))
		}),
		spin("actors-new", "actors that nobody holds", func(g *callGuest) (once, again []byte) {
			return put32(callSpec+4, 32), submit(g)
		}),
		spin("streams", "streams that are watched and dropped", func(g *callGuest) (once, again []byte) {
			return put32(callSpec+4, 2), cat(g.do("submit", callSpec, 1, callSome), g.do("stream_next", handleAt(callOut), callSome, 1), g.do("handle_drop", callOut, 1))
		}),
	}
}
