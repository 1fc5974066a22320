package hostile

// canary is a word that is nowhere by chance.
const canary = -889275714 // 0xcafebabe

// canaryPages are 256 MiB.
const canaryPages = 4096

// canaryGuest is a guest with a memory of 256 MiB, a table, and an object of the
// store, that runs what is asked for with them.
func canaryGuest(write, find bool) []byte {
	const table, object, at = 500_000, 64 << 20, 64 << 20
	return start(manyLocals(3), func(b *builder) []byte {
		funcs := map[string]uint32{}
		funcs["buffer_open"] = b.imp("wray_v1", "buffer_open", []byte{i64, i32}, []byte{i32})
		funcs["object_map"] = b.imp("wray_v1", "object_map", []byte{i32, i32, i32, i64}, []byte{i32})
		funcs["object_unmap"] = b.imp("wray_v1", "object_unmap", []byte{i32, i32}, []byte{i32})
		exit := b.wasi("proc_exit", "i")
		f := b.proc(nil)
		b.table(table)
		b.elems = append(b.elems, cat(3, 0, 1, uleb(uint64(f)))) // so that there may be references to f
		must := func(code ...any) []byte { return cat(cat(code...), cond(opUnreachable)) }
		// words runs body for the address of each word of a range, in local 0.
		words := func(from, to int32, body []byte) []byte {
			return cat(i32c(from), set(0), loop(body, get(0), i32c(4), opI32Add, 0x22, 0, i32c(to), 0x49, brIf(0)))
		}
		paint := cat(get(0), i32c(canary), i32store(0))
		look := cat(get(0), i32load(0), i32c(canary), 0x46, cond(i32c(Escaped), call(exit)))
		// A buffer of the store, mapped over memory that is unused.
		open := cat(must(i64c(object), i32c(16), call(funcs["buffer_open"])), must(i32c(16), i32load(0), i32c(at), i32c(object), i64c(0), call(funcs["object_map"])))
		unmap := must(i32c(at), i32c(object), call(funcs["object_unmap"]))
		const low = 1024 // what is below is the guest's own
		body := cat(i32c(canaryPages-1), memGrow(), i32c(-1), 0x46, cond(opUnreachable))
		if find && !write {
			body = cat(body, words(low, canaryPages<<16-4, look),
				i32c(0), set(1), loop(get(1), 0x25, 0, 0xd1, opI32Eqz, cond(i32c(Escaped), call(exit)),
					get(1), i32c(1), opI32Add, 0x22, 1, i32c(table), opI32LtS, brIf(0)))
		}
		if write {
			body = cat(body, words(low, canaryPages<<16-4, paint), i32c(0), 0xd2, uleb(uint64(f)), i32c(table), tableFill())
		}
		body = cat(body, open)
		if write {
			body = cat(body, words(at, at+object, paint))
		}
		if find {
			body = cat(body, words(at, at+object, look))
		}
		return cat(body, unmap)
	})()
}

// Canary fills memory, a table and an object with a pattern, and ends.
func Canary() []byte { return canaryGuest(true, false) }

// Finder looks for what Canary has left in memory, tables and objects that are
// new, and exits with Escaped where it finds some.
func Finder() []byte { return canaryGuest(false, true) }

// CanaryFinder is both: it finds its own, and exits with Escaped.
func CanaryFinder() []byte { return canaryGuest(true, true) }
