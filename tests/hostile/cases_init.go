package hostile

// initCases call every function of wray_v1 where it has no business: within
// _initialize, before there is a snapshot, a job or a task, and again as driver,
// with the same numbers as handles, which by then are nobody's.
func initCases() []Case {
	each := func(name, doc string, numbers ...int) Case {
		return Case{Name: "init-" + name, Doc: doc, Wasm: func() []byte {
			g := &callGuest{builder: &builder{}, funcs: map[string]uint32{}}
			for _, f := range wrayFunctions {
				var types []byte
				for _, c := range f.params {
					types = append(types, map[rune]byte{'i': i32, 'I': i64}[c])
				}
				g.funcs[f.name] = g.imp("wray_v1", f.name, types, []byte{i32})
			}
			g.mem(1)
			g.data(64, "f")
			var all []byte
			for range 2 { // what is done is done again
				for _, f := range wrayFunctions {
					for _, n := range numbers {
						var args []any
						for _, c := range f.params {
							if c == 'I' {
								args = append(args, int64(0)) // times: waits that end at once
							} else {
								args = append(args, n)
							}
						}
						all = append(all, g.do(f.name, args...)...)
					}
				}
			}
			spec := cat(put32(callValue, 1), put32(callValue+8, callBulk&0xffff), put32(callValue+12, 8),
				i32c(callSpec), i32c(1), i32store(0), put32(callSpec+16, callOut), put32(callSpec+20, 1))
			rightly := cat(spec, g.do("function", 0, 0, 64, 1, callFn), g.do("submit", callSpec, 1, callSome),
				g.do("object_put", callValue, callOut), g.do("object_get", handleAt(callOut), callSome, 64, callSome+64, 1),
				g.do("handle_dup", handleAt(callOut), callOut+4), g.do("handle_drop", callOut, 1), g.do("handle_drop", callOut, 1))
			g.export("_initialize", g.proc(nil, cat(g.do("declare", 64, 1, 7, 0), all, rightly)))
			g.export("wray_call", g.fn([]byte{i32, i32}, []byte{i32}, nil, cat(
				get(0), i32c(3), opI32Sub, opI32Eqz, cond(all, rightly), i32c(0))))
			return g.bytes()
		}}
	}
	return []Case{
		each("zero", "every function with nothing", 0),
		each("small", "every function with small numbers", 1, 2, 3),
		each("places", "every function with places in memory", 64, callSpec, callValue, callOut),
		each("edges", "every function with numbers at the edges", -1, -2147483648, 65535, 65532),
	}
}
