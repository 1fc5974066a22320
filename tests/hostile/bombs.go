package hostile

// Compile bombs: small valid modules that cost an optimizing compiler time or
// memory out of all proportion. Each takes its size as parameters, so that a
// test can find where a compiler's cost leaves the straight line.

// manyLocals declares n locals of type i32.
func manyLocals(n int) []local { return []local{{uint32(n), i32}} }

// bombLoops is a nest of loops around code that changes every local: each
// loop's head joins two values of each local, so that the compiler makes
// locals x loops joins and then allocates registers for all of them.
func bombLoops(locals, loops int) []byte {
	body := []byte{}
	for i := range locals {
		body = append(body, cat(get(i), i32c(1), opI32Add, set(i))...)
	}
	for range loops {
		body = cat(opLoop, void, body, get(0), brIf(0), opEnd)
	}
	return command(manyLocals(locals), body)
}

// bombIfs is a row of ifs, each changing one of many locals: every one ends
// in a join, and every local is alive across all of them.
func bombIfs(locals, ifs int) []byte {
	var body []byte
	for i := range ifs {
		body = append(body, cat(get((i+1)%locals), cond(get(i%locals), i32c(1), opI32Add, set(i%locals)))...)
	}
	for i := range locals {
		body = append(body, cat(i32c(0), get(i), i32store(0))...)
	}
	return command(manyLocals(locals), body)
}

// bombTable is one br_table with many labels inside a nest of blocks.
func bombTable(labels, blocks int) []byte {
	l := make([]int, labels)
	for i := range l {
		l[i] = i % (blocks + 1)
	}
	body := cat(get(0), brTable(l...))
	for range blocks {
		body = block(body)
	}
	return command(manyLocals(1), body)
}

// bombTables is a row of br_tables, each of which jumps to every block around
// it and hands each a value.
func bombTables(labels, tables, locals int) []byte {
	var body []byte
	for i := range tables {
		l := make([]int, labels)
		for j := range l {
			l[j] = j % 2
		}
		body = append(body, block(block(get(i%locals), brTable(l...)), get(i%locals), i32c(1), opI32Add, set(i%locals))...)
	}
	return command(manyLocals(locals), body)
}

// bombStack keeps many values on the operand stack across a row of ifs: what
// bombIfs does with locals, without declaring any.
func bombStack(height, ifs int) []byte {
	var body []byte
	for range height {
		body = append(body, cat(get(0), i32load(0))...)
	}
	for range ifs {
		body = append(body, cat(get(0), cond(get(0), i32c(1), opI32Add, set(0)))...)
	}
	body = append(body, rep(height-1, opI32Add)...)
	return command(manyLocals(1), i32c(0), body, i32store(0))
}

// bombResults is a row of blocks that each take and give many values.
func bombResults(arity, blocks int) []byte {
	b := &builder{}
	b.mem(1)
	many := rep(arity, i32)
	t := b.typ(many, many)
	var body []byte
	for range arity {
		body = append(body, cat(i32c(0), i32load(0))...)
	}
	for range blocks {
		body = append(body, cat(get(0), opIf, sleb(int64(t)), opElse, opEnd)...)
	}
	body = append(body, rep(arity, opDrop)...)
	b.export("_start", b.proc(manyLocals(1), body))
	return b.bytes()
}

// bombCalls calls a function of many parameters and results over and over.
func bombCalls(arity, calls int) []byte {
	b := &builder{}
	b.mem(1)
	many := rep(arity, i32)
	var load []byte
	for range arity {
		load = append(load, cat(i32c(0), i32load(0))...)
	}
	f := b.fn(many, many, nil, load)
	b.export("_start", b.proc(nil, load, rep(calls, call(f)), rep(arity, opDrop)))
	return b.bytes()
}

// bombLocals is a function with many locals, of which one is used.
func bombLocals(n int) []byte {
	return command(manyLocals(n), get(n-1), opDrop)
}

// bombNest is a nest of empty blocks, with a branch out of all of them.
func bombNest(kind byte, n int) []byte {
	if kind == opIf {
		return command(manyLocals(1), rep(n, get(0), opIf, void), rep(n, opEnd))
	}
	return command(manyLocals(1), rep(n, kind, void), get(0), brIf(n-1), rep(n, opEnd))
}

// bombLoopRow is a row of loops, each changing one of many locals.
func bombLoopRow(locals, loops int) []byte {
	var body []byte
	for i := range loops {
		l := i % locals
		body = append(body, loop(get(l), i32c(1), opI32Add, set(l), get(l), brIf(0))...)
	}
	for i := range locals {
		body = append(body, cat(i32c(0), get(i), i32store(0))...)
	}
	return command(manyLocals(locals), body)
}

// bombBranches jumps out of a nest of blocks from everywhere, handing a value.
func bombBranches(blocks, branches int) []byte {
	var body []byte
	for i := range branches {
		body = append(body, cat(get(0), brIf(i%blocks))...)
	}
	for range blocks {
		body = block(body, get(0), i32c(1), opI32Add, set(0))
	}
	return command(manyLocals(1), body)
}
