package hostile

import "github.com/wray-project/wray"

// knownCases are shapes of modules that have led out of other engines and other
// hosts of WASI, by their published reports. Each does what led out there,
// compares with what the specification says, and exits with Escaped where that
// differs; or it does what must trap.
func knownCases() []Case {
	// holds is a command that ends well. expect wants code to leave an i32.
	holds := func(name, doc string, locals []local, build func(b *builder, expect func(want int32, code ...any) []byte) []byte) Case {
		return Case{Name: "known-" + name, Want: wray.CodeOK, Doc: doc, Wasm: start(locals, func(b *builder) []byte {
			exit := b.wasi("proc_exit", "i")
			return build(b, func(want int32, code ...any) []byte {
				return cat(cat(code...), i32c(want), 0x47, cond(i32c(Escaped), call(exit)))
			})
		})}
	}
	traps := func(name, doc string, build func() []byte) Case {
		return Case{Name: "known-" + name, Want: wray.CodeTrap, Doc: doc, Wasm: build}
	}
	l := manyLocals(4)
	at := func(align int, off uint32) []byte { return cat(align, uleb(uint64(off))) }
	const simd, end = 0xfd, 65_536

	// How an address is computed, where it wraps at 2^32, and how the bound of
	// memory is checked (CVE-2023-26489, -2026-34971, wasm3's CVE-2021-45929).
	cases := []Case{
		traps("index-top", "a load from 2^32-1 with an offset of 2^32-1", plain(nil, dropped(i32c(-1), 0x28, at(2, 1<<32-1)))),
		traps("index-half", "a load from 2^31-1 with an offset of 2^31", plain(nil, dropped(i32c(1<<31-1), 0x28, at(2, 1<<31)))),
		traps("index-sign", "a load from an address whose top bit is set, which as a signed number lies before memory",
			plain(nil, dropped(i32c(-1<<31), 0x28, at(2, 4)))),
		traps("index-end", "a load of 8 bytes of which the last is outside", plain(nil, dropped(i32c(end-7), 0x29, at(3, 0)))),
		traps("index-vector", "a load of 16 bytes of which the last is outside", plain(nil, dropped(i32c(end-15), simd, 0, at(4, 0)))),
		traps("index-store", "a store behind memory, at 2^32-4 with an offset of 8, which wraps to 4", plain(nil, i32c(-4), i32c(1), i32store(8))),
		holds("index-shift", "an address that a shift has made wrap: with 64 bits it would be 4 GiB further", l,
			func(b *builder, expect func(int32, ...any) []byte) []byte {
				return cat(i32c(8), i32c(77), i32store(0), i32c(0x20000001), set(0), expect(77, get(0), i32c(3), 0x74, i32load(0)))
			}),
		holds("index-sum", "an address that an addition has made wrap", l,
			func(b *builder, expect func(int32, ...any) []byte) []byte {
				return cat(i32c(8), i32c(77), i32store(0), i32c(-8), set(0), i32c(16), set(1), expect(77, get(0), get(1), opI32Add, i32load(0)))
			}),
		// Splats and lanes that are read as 16 bytes where 8, or 4, are there
		// (CVE-2026-24116, -34944).
		holds("index-splat", "splats of the last 8, 4, 2 and 1 bytes of memory", l,
			func(b *builder, expect func(int32, ...any) []byte) []byte {
				var body []byte
				for _, s := range []struct{ op, size int }{{7, 1}, {8, 2}, {9, 4}, {10, 8}, {92, 4}, {93, 8}} {
					body = append(body, cat(dropped(i32c(int32(end-s.size)), simd, s.op, at(0, 0)))...)
				}
				return cat(i32c(end-8), i32c(5), i32store(0), body,
					expect(5, i32c(end-8), simd, 93, at(3, 0), simd, 27, 0)) // i32x4.extract_lane 0 of v128.load64_zero
			}),
	}
	// What values are, where a compiler knows better (CVE-2021-32629, -2022-31169).
	cases = append(cases,
		holds("spill-extend", "forty numbers with the top bit set, kept over a call, extended without a sign", []local{{n: 40, t: i32}, {n: 1, t: i64}},
			func(b *builder, expect func(int32, ...any) []byte) []byte {
				f := b.fn([]byte{i32}, []byte{i32}, nil, get(0), i32c(-1<<31), 0x72)
				var body []byte
				for i := range 40 {
					body = append(body, cat(i32c(int32(i)), call(f), set(i))...)
				}
				body = append(body, cat(i64c(0), set(40))...)
				for i := range 40 {
					body = append(body, cat(get(40), get(i), 0xad, i64c(32), 0x88, opI64Add, set(40), dropped(get(i), call(f)))...)
				}
				return cat(body, expect(0, get(40), 0xa7))
			}),
		holds("divide", "divisions by constants, with and without a sign", l,
			func(b *builder, expect func(int32, ...any) []byte) []byte {
				x := cat(i32c(-7), set(0))
				return cat(x, expect(-3, get(0), i32c(2), opI32DivS), expect(3, get(0), i32c(-2), opI32DivS),
					expect(0x7ffffffc, get(0), i32c(2), 0x6e), expect(-1, get(0), i32c(2), 0x6f),
					expect(613566755, get(0), i32c(7), 0x6e), expect(-1, get(0), i32c(7), opI32DivS))
			}),
		traps("divide-overflow", "-2^31 divided by -1, which stops a processor that is not asked first", plain(l, i32c(-1<<31), set(0), dropped(get(0), i32c(-1), opI32DivS))),
		holds("shift", "shifts by constants of 32 and more, which count modulo 32", l,
			func(b *builder, expect func(int32, ...any) []byte) []byte {
				return cat(i32c(-3), set(0), expect(-3, get(0), i32c(32), 0x74), expect(-6, get(0), i32c(33), 0x74),
					expect(-2, get(0), i32c(97), 0x75), expect(0x7ffffffe, get(0), i32c(-31), 0x76))
			}),
		holds("select", "a choice between vectors by a number whose low byte is zero", l,
			func(b *builder, expect func(int32, ...any) []byte) []byte {
				splat := func(v int32) []byte { return cat(i32c(v), simd, 17) }
				return cat(i32c(256), set(0), expect(1, splat(1), splat(2), get(0), opSelect, simd, 27, 3),
					expect(2, splat(1), splat(2), i32c(0), opSelect, simd, 27, 3))
			}),
	)
	// What was there before: memory and tables are as the module says
	// (CVE-2022-39393, -2026-34945, -34988).
	cases = append(cases,
		holds("residue-memory", "the bytes of memory that has just grown: all are zero", l,
			func(b *builder, expect func(int32, ...any) []byte) []byte {
				const pages = 200
				return cat(dropped(i32c(pages-1), memGrow()),
					loop(get(1), get(0), i32load(0), 0x72, set(1), get(0), i32c(4), opI32Add, 0x22, 0, i32c(pages<<16), opI32LtS, brIf(0)), expect(0, get(1)))
			}),
		holds("residue-table", "the entries of a fresh table: none has a function", l,
			func(b *builder, expect func(int32, ...any) []byte) []byte {
				const n = 500_000
				b.table(n)
				return cat(loop(get(1), get(0), 0x25, 0, 0xd1, opI32Add, set(1), get(0), i32c(1), opI32Add, 0x22, 0, i32c(n), opI32LtS, brIf(0)), expect(n, get(1)))
			}),
		// Functions called as what they are not (RUSTSEC-2026-0222).
		traps("indirect-type", "a function of twelve parameters called as one of none", start(nil, func(b *builder) []byte {
			f := b.fn(rep(12, i64), []byte{i64}, nil, get(11))
			b.table(1)
			b.elem(f)
			return dropped(i32c(0), callInd(b.typ(nil, []byte{i64})))
		})),
		traps("indirect-index", "a call by an index of 2^32-1", start(nil, func(b *builder) []byte {
			f := b.proc(nil)
			b.table(1)
			b.elem(f)
			return cat(i32c(-1), callInd(b.typ(nil, nil)))
		})),
		traps("indirect-null", "a call of an entry that has no function", start(nil, func(b *builder) []byte {
			b.table(8)
			return cat(i32c(7), callInd(b.typ(nil, nil)))
		})),
		traps("table-index", "an entry of a table at 2^31", start(nil, func(b *builder) []byte {
			b.table(8)
			return dropped(i32c(-1<<31), 0x25, 0)
		})),
		// Instructions that work on much, cut up on the way (RUSTSEC-2026-0223).
		holds("bulk-overlap", "8 MiB copied over themselves one byte on, and back: as if byte by byte from the right end", l,
			func(b *builder, expect func(int32, ...any) []byte) []byte {
				const size = 8 << 20
				fill := loop(get(0), get(0), i32c(-1640531535), opI32Mul, i32store(16), get(0), i32c(4), opI32Add, 0x22, 0, i32c(size), opI32LtS, brIf(0))
				sum := cat(i32c(0), set(0), i32c(0), set(1),
					loop(get(1), i32c(31), opI32Mul, get(0), i32load(16), opI32Add, set(1), get(0), i32c(4), opI32Add, 0x22, 0, i32c(size), opI32LtS, brIf(0)))
				return cat(dropped(i32c(129), memGrow()), fill, sum, get(1), set(2),
					i32c(17), i32c(16), i32c(size), memCopy(), i32c(16), i32c(17), i32c(size), memCopy(),
					sum, expect(0, get(1), get(2), 0x47))
			}),
		traps("bulk-edge", "a fill of which the last byte is outside: nothing may be written", start(nil, func(b *builder) []byte {
			return cat(i32c(1), i32c(1), i32c(end), memFill())
		})),
	)
	// Hosts of WASI (CVE-2025-53901, RUSTSEC-2026-0182, CVE-2026-27204).
	ends := func(name, doc string, build func(b *builder) []byte) Case {
		return Case{Name: "known-" + name, Want: wray.CodeOK, Doc: doc, Wasm: start(l, build)}
	}
	return append(cases,
		ends("renumber", "each descriptor given the number of each other, open or not, and used again", func(b *builder) []byte {
			renumber, write, closes := b.wasi("fd_renumber", "ii"), b.wasi("fd_write", "iiii"), b.wasi("fd_close", "i")
			var body []byte
			for _, from := range []int32{3, 9, -1, 1 << 30, 2, 3, 0} {
				for _, to := range []int32{3, 4, 9, -1, 1 << 30, 1, 0} {
					body = append(body, cat(dropped(i32c(from), i32c(to), call(renumber)), dropped(i32c(to), i32c(64), i32c(1), i32c(96), call(write)),
						dropped(i32c(to), call(closes)), dropped(i32c(to), call(closes)))...)
				}
			}
			return body
		}),
		ends("count-wraps", "as many vectors and subscriptions as make their size wrap at 2^32: 48 bytes each, and 8", func(b *builder) []byte {
			poll, write, read := b.wasi("poll_oneoff", "iiii"), b.wasi("fd_write", "iiii"), b.wasi("fd_read", "iiii")
			return cat(dropped(i32c(64), i32c(4096), i32c(0x05555556), i32c(32), call(poll)),
				dropped(i32c(1), i32c(64), i32c(0x20000001), i32c(32), call(write)), dropped(i32c(0), i32c(64), i32c(0x20000001), i32c(32), call(read)))
		}),
		Case{Name: "known-handles", Want: wray.CodeOK, Doc: "1,000,000 handles that nobody gave, each asked about: none may be good", Wasm: forge},
	)
}

// forge asks about handles: small ones, ones near the ends, and random ones.
// What refuses one says neither whether it is another's nor whether it was.
func forge() []byte {
	return start(manyLocals(3), func(b *builder) []byte {
		stat, dup, exit := b.imp("wray_v1", "object_stat", rep(4, i32), []byte{i32}), b.imp("wray_v1", "handle_dup", rep(2, i32), []byte{i32}), b.wasi("proc_exit", "i")
		try := func(f uint32, args ...any) []byte {
			return cat(get(1), cat(args...), call(f), opI32Eqz, cond(i32c(Escaped), call(exit)))
		}
		return cat(i32c(-250_000), set(1), i32c(-250_000), set(0),
			loop(
				try(stat, i32c(1024), i32c(256), i32c(2048)), try(dup, i32c(4096)),
				// A quarter of them are a generator's of Numerical Recipes.
				get(0), set(1), get(0), i32c(125_000), opI32Sub, i32c(0), 0x4a, cond(get(2), i32c(1664525), opI32Mul, i32c(1013904223), opI32Add, 0x22, 2, set(1)),
				get(0), i32c(1), opI32Add, 0x22, 0, i32c(250_000), opI32LtS, brIf(0)))
	})()
}
