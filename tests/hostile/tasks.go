package hostile

// TaskFunctions are the functions that the module of Tasks declares, in the
// order of their indexes.
var TaskFunctions = []string{"garbage", "cut", "nothing", "twice", "no-result", "outside", "shape", "failure", "reference", "trap", "code"}

// Tasks is a module that speaks wray_v1 and declares functions whose tasks give
// back what no SDK does.
func Tasks() []byte {
	const (
		value, input, length, names = 1024, 2048, 2040, 8192
		raw, cbor, numeric, failure = 1, 2, 3, 5
	)
	b := &builder{}
	declare := b.imp("wray_v1", "declare", rep(4, i32), []byte{i32})
	taskInput := b.imp("wray_v1", "task_input", rep(3, i32), []byte{i32})
	taskReturn := b.imp("wray_v1", "task_return", rep(2, i32), []byte{i32})
	taskFail := b.imp("wray_v1", "task_fail", rep(1, i32), []byte{i32})
	b.mem(1)
	b.data(64, "\xff\xfe\xfd\xfc\xfb\xfa\xf9\xf8")
	b.data(80, "\x9b\x7f\xff\xff\xff\xff\xff\xff\xff") // CBOR: an array of 2^63-1 items, none there
	b.data(96, "\x18\x2a")                             // CBOR: 42

	// give writes a struct value of encoding and payload at value, with refs
	// handles that are none, and has f take it.
	give := func(encoding, ptr, n, refs int32, f []byte) []byte {
		return cat(i32c(value), i32c(encoding), i32store(0), i32c(value), i32c(ptr), i32store(8), i32c(value), i32c(n), i32store(12),
			i32c(value), i32c(64), i32store(16), i32c(value), i32c(refs), i32store(20), dropped(f))
	}
	result := func(i int32) []byte { return cat(i32c(i), i32c(value), call(taskReturn)) }
	bodies := [][]byte{
		give(cbor, 64, 8, 0, result(0)),
		give(cbor, 80, 9, 0, result(0)),
		nil,
		cat(give(cbor, 96, 2, 0, result(0)), give(cbor, 64, 8, 0, result(0))), // the first counts
		give(cbor, 96, 2, 0, result(7)),
		give(cbor, 65_530, 64, 0, result(0)),
		give(numeric, 64, 7, 0, result(0)),
		give(failure, 64, 8, 0, cat(i32c(value), call(taskFail))),
		give(raw, 64, 8, 2, result(0)),
		{opUnreachable},
		cat(i32c(77), opReturn), // a result of wray_call that means nothing
	}
	var init []byte
	for i, name := range TaskFunctions {
		at := int32(names + 64*i)
		b.data(at, name)
		init = append(init, dropped(i32c(at), i32c(int32(len(name))), i32c(int32(i)), i32c(0), call(declare))...)
	}
	run := dropped(i32c(input), i32c(4096), i32c(length), call(taskInput))
	for i, body := range bodies {
		run = append(run, cat(i32c(input), i32load(0), i32c(int32(i)), 0x46, cond(body))...) // 0x46: i32.eq
	}
	b.export("_initialize", b.proc(nil, init))
	b.export("wray_call", b.fn([]byte{i32, i32}, []byte{i32}, nil, get(0), i32c(4), 0x46, cond(run), i32c(0)))
	return b.bytes()
}

// Stays is a module with one function, "stays": it gives its result, asks for
// another task, and where there is none stays in the call.
func Stays() []byte {
	const value, input, length, names = 1024, 2048, 2040, 8192
	b := &builder{}
	declare := b.imp("wray_v1", "declare", rep(4, i32), []byte{i32})
	taskNext := b.imp("wray_v1", "task_next", rep(4, i32), []byte{i32})
	b.mem(1)
	b.data(names, "stays")
	b.data(value, "\x02\x00\x00\x00\x00\x00\x00\x00\x00\x05\x00\x00\x01\x00\x00\x00") // CBOR of one byte at 1280
	b.export("_initialize", b.proc(nil, dropped(i32c(names), i32c(5), i32c(0), i32c(0), call(declare))))
	run := cat(dropped(i32c(value), i32c(input), i32c(4096), i32c(length), call(taskNext)), forever())
	b.export("wray_call", b.fn([]byte{i32, i32}, []byte{i32}, nil, get(0), i32c(4), 0x46, cond(run), i32c(0)))
	return b.bytes()
}

// How a module made by Leaves ends the call in which it was given another task.
const (
	LeavesBefore = "traps before it begins the other"
	LeavesLoop   = "stays before it begins the other"
	LeavesAfter  = "traps when it has begun the other"
)

// Leaves is a module with one function, "leaves": it gives its result, asks for
// another task, and where it is given one ends badly.
func Leaves(how string) []byte {
	const value, input, length, names = 1024, 2048, 2040, 8192
	b := &builder{}
	declare := b.imp("wray_v1", "declare", rep(4, i32), []byte{i32})
	taskNext := b.imp("wray_v1", "task_next", rep(4, i32), []byte{i32})
	b.mem(1)
	b.data(names, "leaves")
	b.data(value, "\x02\x00\x00\x00\x00\x00\x00\x00\x00\x05\x00\x00\x01\x00\x00\x00") // CBOR of one byte at 1280
	b.export("_initialize", b.proc(nil, dropped(i32c(names), i32c(6), i32c(0), i32c(0), call(declare))))
	end := map[string][]byte{
		LeavesBefore: {opUnreachable},
		LeavesLoop:   forever(),
		LeavesAfter:  cat(i32c(length), i32c(0), i32store(0), opUnreachable),
	}[how]
	run := cat(i32c(value), i32c(input), i32c(4096), i32c(length), call(taskNext), opI32Eqz, cond(end))
	b.export("wray_call", b.fn([]byte{i32, i32}, []byte{i32}, nil, get(0), i32c(4), 0x46, cond(run), i32c(0)))
	return b.bytes()
}
