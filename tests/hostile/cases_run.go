package hostile

import "github.com/wray-project/wray"

// start builds a command module: build adds what it needs and returns the
// body of _start.
func start(locals []local, build func(b *builder) []byte) func() []byte {
	return func() []byte {
		b := &builder{}
		b.mem(1)
		body := build(b)
		b.export("_start", b.proc(locals, body))
		return b.bytes()
	}
}

// plain is a command module that needs nothing but its body.
func plain(locals []local, body ...any) func() []byte {
	return func() []byte { return command(locals, body...) }
}

// loopCases never end. An engine that looks at the clock only in some places
// runs them for ever, and its host's collector waits with it.
func loopCases() []Case {
	spin := func(name, doc string, build func() []byte) Case {
		return Case{Name: "loop-" + name, Wasm: build, Want: wray.CodeTimeout, Doc: doc}
	}
	l := manyLocals(2)
	count := cat(get(0), i32c(1), opI32Add, set(0))
	return []Case{
		spin("tight", "an empty loop", plain(nil, forever())),
		spin("count", "a loop that counts", plain(l, forever(count))),
		spin("nested", "three loops in each other, the inner ones short", plain(l, forever(loop(loop(count, get(0), i32c(3), opI32RemU, brIf(0)), get(0), i32c(5), opI32RemU, brIf(0))))),
		spin("branch", "a loop closed by br_if on what is always true", plain(l, loop(count, i32c(1), brIf(0)))),
		spin("br-table", "a loop closed by a br_table", plain(l, loop(block(block(count, get(0), i32c(3), opI32RemU, brTable(0, 1, 2)), br(1)), br(0)))),
		spin("br-table-default", "a loop closed by a br_table's default alone", plain(l, loop(i32c(9), brTable(0)))),
		spin("if", "a loop closed from within an if", plain(l, loop(i32c(1), cond(br(1))))),
		spin("else", "a loop closed from within an else", plain(l, loop(i32c(0), opIf, void, opElse, br(1), opEnd))),
		spin("far", "a loop closed from below a thousand blocks", plain(l, loop(rep(1000, opBlock, void), count, br(1000), rep(1000, opEnd)))),
		spin("once", "an outer loop around a thousand loops that run once each", plain(l, forever(rep(1000, loop(count))))),
		spin("outer", "an inner loop that always leaves to the outer one's head", plain(l, loop(loop(count, br(1))))),
		spin("value", "a loop that hands itself a value", func() []byte {
			b := &builder{}
			b.mem(1)
			t := b.typ([]byte{i32}, []byte{i32})
			b.export("_start", b.proc(nil, i32c(1), opLoop, sleb(int64(t)), i32c(1), opI32Add, br(0), opEnd, opDrop))
			return b.bytes()
		}),
		spin("call", "a loop around a call", start(nil, func(b *builder) []byte {
			f := b.proc(nil, opNop)
			return forever(call(f))
		})),
		spin("call-indirect", "a loop around an indirect call", start(nil, func(b *builder) []byte {
			f := b.proc(nil, opNop)
			b.table(1)
			b.elem(f)
			return forever(i32c(0), callInd(b.typ(nil, nil)))
		})),
		spin("long-line", "a loop of 100,000 instructions without a branch", plain(l, forever(rep(25_000, count)))),
		spin("dead", "a loop behind code that cannot be reached", plain(l, block(br(0), rep(100, count), opUnreachable), forever(count))),
		spin("store", "a loop that writes all memory over and over", plain(l, forever(get(0), get(0), i32store(0), get(0), i32c(4), opI32Add, i32c(65_528), opI32RemU, set(0)))),
		spin("divide", "a loop of the slowest arithmetic", plain([]local{{2, f64}}, forever(get(0), f64c(1.1), 0xa3, 0x9f, set(0)))),
		spin("start", "a loop in the start function, before any export is called", func() []byte {
			b := &builder{}
			b.mem(1)
			f := b.proc(nil, forever())
			b.export("_start", b.proc(nil))
			b.start = uleb(uint64(f))
			return b.bytes()
		}),
	}
}

// recursionCases call and call. Without loops, an engine that checks at loop
// heads never checks; without a bound on depth, each takes 170 MB of stack.
func recursionCases() []Case {
	endless := func(name, doc string, build func() []byte) Case {
		return Case{Name: "recursion-" + name, Wasm: build, Want: wray.CodeStackOverflow, Doc: doc}
	}
	slow := func(name, doc string, build func() []byte) Case {
		return Case{Name: "recursion-" + name, Wasm: build, Want: wray.CodeTimeout, Doc: doc}
	}
	tail := func(name, doc string, build func() []byte) Case {
		return Case{Name: "tail-" + name, Wasm: build, Want: wray.CodeTimeout, TailCalls: true, Doc: doc}
	}
	ends := func(name, doc string, build func() []byte) Case {
		return Case{Name: "recursion-" + name, Wasm: build, Want: wray.CodeOK, Doc: doc}
	}
	i, one := []byte{i32}, i32c(1)
	return []Case{
		endless("self", "a function that calls itself", start(nil, func(b *builder) []byte {
			b.proc(nil, call(0))
			return call(0)
		})),
		endless("result", "recursion whose result is used, so that it is no tail call", start(nil, func(b *builder) []byte {
			b.fn(nil, i, nil, call(0), one, opI32Add)
			return dropped(call(0))
		})),
		endless("mutual", "two functions that call each other", start(nil, func(b *builder) []byte {
			b.proc(nil, call(1))
			b.proc(nil, call(0))
			return call(0)
		})),
		endless("ring", "a ring of a hundred functions", start(nil, func(b *builder) []byte {
			for n := range uint32(100) {
				b.proc(nil, call((n+1)%100))
			}
			return call(0)
		})),
		endless("indirect", "recursion through call_indirect", start(nil, func(b *builder) []byte {
			t := b.typ(nil, nil)
			f := b.proc(nil, i32c(0), callInd(t))
			b.table(1)
			b.elem(f)
			return call(f)
		})),
		endless("mixed", "a direct call and an indirect one by turns", start(nil, func(b *builder) []byte {
			t := b.typ(nil, nil)
			b.proc(nil, call(1))
			g := b.proc(nil, i32c(1), callInd(t))
			b.table(2)
			b.elem(g, 0)
			return call(0)
		})),
		endless("wide", "recursion with 1,000 live locals, so that few frames are many bytes", start(nil, func(b *builder) []byte {
			var load, store []byte
			for n := range 1000 {
				load = append(load, cat(i32c(int32(4*n)), i32load(0), set(n))...)
				store = append(store, cat(i32c(int32(4*n)), get(n), i32store(0))...)
			}
			b.proc(manyLocals(1000), load, call(0), store)
			return call(0)
		})),
		endless("arguments", "recursion with 500 arguments", start(nil, func(b *builder) []byte {
			var args []byte
			for n := range 500 {
				args = append(args, get(n)...)
			}
			b.fn(rep(500, i32), nil, nil, args, call(0))
			return cat(rep(500, one), call(0))
		})),
		endless("start", "recursion in the start function", func() []byte {
			b := &builder{}
			b.mem(1)
			f := b.proc(nil, call(0))
			b.export("_start", b.proc(nil))
			b.start = uleb(uint64(f))
			return b.bytes()
		}),
		endless("grow", "recursion that grows memory on its way down", start(nil, func(b *builder) []byte {
			b.proc(nil, dropped(i32c(0), memGrow()), call(0))
			return call(0)
		})),
		slow("fib", "fib(60): 10^12 calls, never deep", start(nil, func(b *builder) []byte {
			fib := b.fn(i, i, nil, get(0), i32c(2), opI32LtS, opIf, i32, get(0), opElse,
				get(0), one, opI32Sub, call(0), get(0), i32c(2), opI32Sub, call(0), opI32Add, opEnd)
			return dropped(i32c(60), call(fib))
		})),
		slow("tree", "60 functions, each calling the next one twice: 2^60 calls without a cycle", start(nil, func(b *builder) []byte {
			for n := range uint32(60) {
				b.proc(nil, call(n+1), call(n+1))
			}
			b.proc(nil)
			return call(0)
		})),
		slow("tree-indirect", "the same tree through a table", start(nil, func(b *builder) []byte {
			t := b.typ(nil, nil)
			var fs []uint32
			for n := range int32(60) {
				fs = append(fs, b.proc(nil, i32c(n+1), callInd(t), i32c(n+1), callInd(t)))
			}
			fs = append(fs, b.proc(nil))
			b.table(61)
			b.elem(fs...)
			return call(0)
		})),
		slow("mutual-fib", "two functions that call each other twice, 60 deep", start(nil, func(b *builder) []byte {
			for n := range uint32(2) {
				b.fn(i, nil, nil, get(0), cond(get(0), one, opI32Sub, call(1-n), get(0), one, opI32Sub, call(1-n)))
			}
			return cat(i32c(60), call(0))
		})),
		tail("self", "return_call to itself: no stack, no loop, no end", start(nil, func(b *builder) []byte {
			b.proc(nil, retCall(0))
			return call(0)
		})),
		tail("mutual", "return_call to and fro", start(nil, func(b *builder) []byte {
			b.proc(nil, retCall(1))
			b.proc(nil, retCall(0))
			return call(0)
		})),
		tail("indirect", "return_call_indirect to itself", start(nil, func(b *builder) []byte {
			t := b.typ(nil, nil)
			f := b.proc(nil, i32c(0), retCallInd(t))
			b.table(1)
			b.elem(f)
			return call(f)
		})),
		tail("arguments", "return_call to and fro between a function of no arguments and one of twenty; the engine makes a true call where the callee needs more room for them", start(nil, func(b *builder) []byte {
			b.proc(nil, rep(20, i32c(1)), retCall(1))
			b.fn(rep(20, i32), nil, nil, retCall(0))
			return call(0)
		})).or(wray.CodeStackOverflow),
		ends("legal", "recursion 50,000 deep that comes back: no attack, Go programs do it", start(nil, func(b *builder) []byte {
			b.fn(i, nil, nil, get(0), cond(get(0), one, opI32Sub, call(0)))
			return cat(i32c(50_000), call(0))
		})),
		ends("exits", "a million calls that leave by return, branch and end: a depth counter that misses one way out overflows", start(manyLocals(1), func(b *builder) []byte {
			f := b.fn(i, nil, nil,
				block(block(block(get(0), i32c(4), opI32RemU, brTable(0, 1, 2, 3)), opReturn), br(1)), get(0), cond(get(0), i32c(7), opI32RemU, brIf(1), opReturn))
			return loop(get(0), call(f), get(0), one, opI32Add, 0x22, 0, i32c(1_000_000), opI32LtS, brIf(0))
		})),
	}
}

// trapCases do what the specification answers with a trap, and exit.
func trapCases() []Case {
	trap := func(name, doc string, build func() []byte) Case {
		return Case{Name: "trap-" + name, Wasm: build, Want: wray.CodeTrap, Doc: doc}
	}
	exit := func(name string, code int, want wray.Code, doc string, build func() []byte) Case {
		return Case{Name: "exit-" + name, Wasm: build, Want: want, Exit: code, Doc: doc}
	}
	indirect := func(body ...any) func() []byte {
		return start(nil, func(b *builder) []byte {
			b.typ(nil, nil)
			f := b.fn(rep(12, i64), []byte{i64}, nil, get(0))
			b.table(2, 2)
			b.elem(f)
			return cat(body...)
		})
	}
	return []Case{
		trap("unreachable", "unreachable", plain(nil, opUnreachable)),
		trap("load", "a load beyond memory", plain(nil, dropped(i32c(-1), i32load(0)))),
		trap("load-offset", "a load whose address and offset add up beyond 32 bits", plain(nil, dropped(i32c(-4), i32load(0xffffffff)))),
		trap("load-edge", "a load of which the last byte is beyond memory", plain(nil, dropped(i32c(65_533), i32load(0)))),
		trap("store", "a store beyond memory", plain(nil, i32c(65_536), i32c(1), i32store(0))),
		trap("vector", "a vector load beyond memory", plain(nil, dropped(i32c(65_521), 0xfd, 0, 0, 0))),
		trap("fill", "memory.fill beyond memory", plain(nil, i32c(65_535), i32c(1), i32c(2), memFill())),
		trap("fill-wrap", "memory.fill whose end wraps around 32 bits", plain(nil, i32c(-1), i32c(1), i32c(-1), memFill())),
		trap("copy", "memory.copy from beyond memory", plain(nil, i32c(0), i32c(-2), i32c(4), memCopy())),
		trap("divide", "division by zero", plain(nil, dropped(i32c(1), i32c(0), opI32DivS))),
		trap("overflow", "the least integer divided by -1, on which the processor faults", plain(nil, dropped(i32c(-1<<31), i32c(-1), opI32DivS))),
		trap("convert", "a float too large for an integer", plain(nil, dropped(f64c(1e300), opI32TruncF64))),
		trap("null", "an indirect call of an empty table entry", indirect(i32c(1), callInd(0))),
		trap("table", "an indirect call beyond the table", indirect(i32c(2), callInd(0))),
		trap("signature", "a function of twelve parameters called as one of none", indirect(i32c(0), callInd(0))),
		trap("table-get", "table.get beyond the table", indirect(dropped(i32c(-1), 0x25, 0))),
		trap("table-fill", "table.fill beyond the table", indirect(i32c(1), refNull(), i32c(9), tableFill())),
		trap("deep", "unreachable below 10,000 calls", start(nil, func(b *builder) []byte {
			b.fn([]byte{i32}, nil, nil, get(0), opI32Eqz, cond(opUnreachable), get(0), i32c(1), opI32Sub, call(0))
			return cat(i32c(10_000), call(0))
		})),
		trap("start", "unreachable in the start function", func() []byte {
			b := &builder{}
			b.mem(1)
			f := b.proc(nil, opUnreachable)
			b.export("_start", b.proc(nil))
			b.start = uleb(uint64(f))
			return b.bytes()
		}),
		trap("segment", "a data segment beyond memory", start(nil, func(b *builder) []byte {
			b.data(65_535, "xx")
			return nil
		})),
		exit("7", 7, wray.CodeExit, "proc_exit(7)", start(nil, func(b *builder) []byte {
			return cat(i32c(7), call(b.wasi("proc_exit", "i")))
		})),
		exit("0", 0, wray.CodeOK, "proc_exit(0) out of a loop", start(nil, func(b *builder) []byte {
			return forever(i32c(0), call(b.wasi("proc_exit", "i")))
		})),
		exit("negative", -1, wray.CodeExit, "proc_exit(-1): some hosts keep 8 bits of it, some 32", start(nil, func(b *builder) []byte {
			return cat(i32c(-1), call(b.wasi("proc_exit", "i")))
		})),
		exit("deep", 3, wray.CodeExit, "proc_exit(3) below 1,000 calls", start(nil, func(b *builder) []byte {
			e := b.wasi("proc_exit", "i")
			f := b.fn([]byte{i32}, nil, nil, get(0), opI32Eqz, cond(i32c(3), call(e)), get(0), i32c(1), opI32Sub, call(e+1))
			return cat(i32c(1000), call(f))
		})),
	}
}
