package rewrite

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
)

// Every shape is a module whose export "run" takes for ever, or so long that
// nobody waits for it, in a way of its own.
var shapes = []struct {
	name string
	make func() *build
}{
	{"loop", func() *build {
		return running(nil, opLoop, empty, opBr, 0, opEnd)
	}},
	{"counting loop", func() *build {
		return running([]valType{i64}, opLoop, empty,
			opLocalGet, 0, opI64Const, s(1), opI64Add, opLocalTee, 0, opI64Const, s(-1), opI64LtU, opBrIf, 0, opEnd)
	}},
	{"nested loops", func() *build {
		return running([]valType{i32}, opLoop, empty, opLoop, empty, opLoop, empty,
			opLocalGet, 0, opI32Const, s(1), opI32Add, opLocalTee, 0, opI32Const, s(7), opcode(0x71), opBrIf, 0,
			opLocalGet, 0, opI32Const, s(31), opcode(0x71), opBrIf, 1, opEnd, opBr, 1, opEnd, opEnd)
	}},
	{"loop with parameters", func() *build {
		b := newBuild()
		pair := b.typ(typesOf(i32, i64), i32, i64)
		b.fn("run", b.typ(nil), []valType{i64}, opI32Const, s(1), opI64Const, s(2), opLoop, int(pair),
			opLocalSet, 0, opI32Const, s(1), opI32Add, opLocalGet, 0, opI64Const, s(3), opI64Add, opI32Const, s(1), opBrIf, 0,
			opEnd, opDrop, opDrop)
		return b
	}},
	{"br_table loop", func() *build {
		return running([]valType{i32}, opLoop, empty, opBlock, empty, opBlock, empty,
			opLocalGet, 0, opI32Const, s(1), opI32Add, opLocalTee, 0, opI32Const, s(3), opcode(0x71),
			opBrTable, 3, 0, 1, 2, 2, opEnd, opEnd, opBr, 0, opEnd)
	}},
	{"dispatch loop", func() *build {
		// As Go compiles "for {}" with a jump ahead and one back.
		return running([]valType{i32}, opLoop, empty, opBlock, empty, opBlock, empty, opBlock, empty,
			opLocalGet, 0, opBrTable, 2, 0, 1, 2, opEnd,
			opI32Const, s(2), opLocalSet, 0, opBr, 2, opEnd,
			opI32Const, s(0), opLocalSet, 0, opBr, 1, opEnd,
			opI32Const, s(1), opLocalSet, 0, opBr, 0, opEnd)
	}},
	{"dispatch that looks twice", func() *build {
		// The second loop stands where the first did; its jumps are its own.
		return running([]valType{i32}, opLoop, empty, opBlock, empty, opBlock, empty,
			opLocalGet, 0, opBrTable, 1, 0, 1, opEnd, opEnd, opEnd,
			opI32Const, s(1), opLocalSet, 0,
			opLoop, empty, opBlock, empty, opBlock, empty,
			opI32Const, s(1), opLocalSet, 0, opBr, 2, opEnd, opEnd, opEnd)
	}},
	{"divisions", func() *build {
		return running([]valType{i64}, opLoop, empty, opLocalGet, 0, opI64Const, s(7), opcode(0x7f),
			opLocalGet, 0, opI64Const, s(-9), opI64Or, opcode(0x7f), opLocalSet, 0, opBr, 0, opEnd)
	}},
	{"square roots", func() *build {
		return running([]valType{f64}, opLoop, empty, opLocalGet, 0, opcode(0x9f), opcode(0x9f), opcode(0x9f), opLocalSet, 0, opBr, 0, opEnd)
	}},
	{"cache misses", func() *build {
		// x = x*a+c over 1 GiB: one miss of cache and of page table a round.
		b := running([]valType{i32}, opLoop, empty,
			opLocalGet, 0, opI32Const, s(1103515245), opcode(0x6c), opI32Const, s(12345), opI32Add,
			opLocalGet, 0, opI32Const, s(0x3fffffc0), opcode(0x71), opcode(0x28), 2, 0, opI32Add, opLocalSet, 0, opBr, 0, opEnd)
		b.memory(16384, 0)
		return b
	}},
	{"page faults", func() *build {
		// A store to each page of 1 GiB, for ever: the first round faults.
		b := running([]valType{i32}, opLoop, empty,
			opLocalGet, 0, opI32Const, s(4096), opI32Add, opI32Const, s(0x3fffffff), opcode(0x71), opLocalTee, 0,
			opI32Const, s(1), opcode(0x36), 2, 0, opBr, 0, opEnd)
		b.memory(16384, 0)
		return b
	}},
	{"long straight body", func() *build {
		return running([]valType{i64}, opLoop, empty, raw(strings.Repeat(
			string(asm(opLocalGet, 0, opI64Const, s(3), opcode(0x7e), opLocalGet, 0, opcode(0x7a), opI64Add, opLocalSet, 0)), 5000)),
			opBr, 0, opEnd)
	}},
	{"branches in a loop", func() *build {
		one := string(asm(opLocalGet, 0, opIf, empty, opLocalGet, 0, opI64ExtendI32U, opcode(0x7a), opI32WrapI64, opLocalSet, 0, opElse, opI32Const, s(77), opLocalSet, 0, opEnd))
		return running([]valType{i32}, opLoop, empty, raw(strings.Repeat(one, 3000)), opBr, 0, opEnd)
	}},
	{"loop of an expensive leaf", func() *build {
		b := newBuild()
		leaf := b.fn("", b.typ(typesOf(i64), i64), nil, raw(strings.Repeat(
			string(asm(opLocalGet, 0, opI64Const, s(3), opcode(0x7e), opLocalSet, 0)), 3000)), opLocalGet, 0)
		b.fn("run", b.typ(nil), []valType{i64}, opLoop, empty, opLocalGet, 0, opCall, leaf, opLocalSet, 0, opBr, 0, opEnd)
		return b
	}},
	{"direct recursion", func() *build {
		b := newBuild()
		b.fn("run", b.typ(nil), nil, opCall, 0, opCall, 0)
		return b
	}},
	{"fib", func() *build {
		b := newBuild()
		b.fn("fib", b.typ(typesOf(i32), i32), nil, opLocalGet, 0, opI32Const, s(2), opI32LtU, opIf, i32, opI32Const, s(1), opElse,
			opLocalGet, 0, opI32Const, s(1), opI32Sub, opCall, 0, opLocalGet, 0, opI32Const, s(2), opI32Sub, opCall, 0, opI32Add, opEnd)
		b.fn("run", b.typ(nil), nil, opI32Const, s(80), opCall, 0, opDrop)
		return b
	}},
	{"mutual recursion", func() *build {
		b := newBuild()
		t := b.typ(typesOf(i32))
		less := asm(opLocalGet, 0, opI32Const, s(1), opI32Sub)
		for i := range 3 {
			b.fn("", t, nil, opLocalGet, 0, opIf, empty, less, opCall, (i+1)%3, less, opCall, (i+2)%3, opEnd)
		}
		b.fn("run", b.typ(nil), nil, opI32Const, s(90), opCall, 0)
		return b
	}},
	{"recursion through a table", func() *build {
		b := newBuild()
		t := b.typ(typesOf(i32))
		less := asm(opLocalGet, 0, opI32Const, s(1), opI32Sub, opI32Const, s(0), opCallIndirect, int(t), 0)
		f := b.fn("", t, nil, opLocalGet, 0, opIf, empty, less, less, opEnd)
		b.tableOf(f)
		b.fn("run", b.typ(nil), nil, opI32Const, s(90), opCall, f)
		return b
	}},
	{"tail recursion", func() *build {
		b := newBuild()
		b.fn("run", b.typ(nil), nil, opReturnCall, 0)
		return b
	}},
	{"mutual tail recursion", func() *build {
		b := newBuild()
		t := b.typ(typesOf(i64), i64)
		b.fn("", t, nil, opLocalGet, 0, opI64Const, s(1), opI64Add, opReturnCall, 1)
		b.fn("", t, nil, opLocalGet, 0, opI64Const, s(2), opI64Add, opReturnCall, 0)
		b.fn("run", b.typ(nil), nil, opI64Const, s(1), opCall, 0, opDrop)
		return b
	}},
	{"tail recursion through a table", func() *build {
		b := newBuild()
		t := b.typ(nil)
		f := b.fn("run", t, nil, opI32Const, s(0), opReturnCallInd, int(t), 0)
		b.tableOf(f)
		return b
	}},
	{"calls doubling at each level", func() *build {
		b := newBuild()
		t := b.typ(nil)
		for i := range 60 {
			b.fn("", t, nil, opCall, i+1, opCall, i+1)
		}
		b.fn("", t, nil)
		b.export("run", kindFunc, 0)
		return b
	}},
	{"tables doubling at each level", func() *build {
		b := newBuild()
		t := b.typ(nil)
		var fs []uint32
		for i := range 60 {
			once := asm(opI32Const, s(int64(i+1)), opCallIndirect, int(t), 0)
			fs = append(fs, b.fn("", t, nil, once, once))
		}
		fs = append(fs, b.fn("", t, nil))
		b.tableOf(fs...)
		b.export("run", kindFunc, 0)
		return b
	}},
	{"ten calls at each level", func() *build {
		b := newBuild()
		t := b.typ(typesOf(i64), i64)
		for i := range 30 {
			b.fn("", t, nil, opLocalGet, 0, raw(strings.Repeat(string(asm(opCall, i+1, opI64Const, s(3), opcode(0x7e))), 10)))
		}
		b.fn("", t, nil, opLocalGet, 0)
		b.fn("run", b.typ(nil), nil, opI64Const, s(1), opCall, 0, opDrop)
		return b
	}},
	{"work on the way down", func() *build {
		// Every level works before it calls, through functions that are in
		// the cycle but not its head.
		b := newBuild()
		t := b.typ(typesOf(i64), i64)
		work := raw(strings.Repeat(string(asm(opLocalGet, 0, opI64Const, s(3), opcode(0x7e), opLocalSet, 0)), 400))
		for i := range 8 {
			b.fn("", t, nil, work, opLocalGet, 0, opCall, (i+1)%8, work)
		}
		b.fn("run", b.typ(nil), nil, opLoop, empty, opI64Const, s(1), opCall, 0, opDrop, opBr, 0, opEnd)
		return b
	}},
	{"host calls", func() *build {
		b := newBuild()
		h := b.importFunc("env", "nop", b.typ(nil))
		b.fn("run", b.typ(nil), nil, opLoop, empty, opCall, h, opBr, 0, opEnd)
		return b
	}},
	{"memory.grow", func() *build {
		b := running(nil, opLoop, empty, opI32Const, s(0), opMemoryGrow, 0, opDrop, opI32Const, s(1), opMemoryGrow, 0, opDrop, opBr, 0, opEnd)
		b.memory(1, 64)
		return b
	}},
	{"memory.fill", func() *build {
		b := running(nil, opLoop, empty, opI32Const, s(0), opI32Const, s(7), opI32Const, s(1<<30), opMemoryFill, 0, opBr, 0, opEnd)
		b.memory(16384, 0)
		return b
	}},
	{"short memory.fill", func() *build {
		b := running(nil, opLoop, empty, opI32Const, s(0), opI32Const, s(7), opI32Const, s(bulkInline), opMemoryFill, 0, opBr, 0, opEnd)
		b.memory(1, 0)
		return b
	}},
	{"memory.copy", func() *build {
		b := running(nil, opLoop, empty, opI32Const, s(0), opI32Const, s(100), opI32Const, s(1<<29), opMemoryCopy, 0, 0,
			opI32Const, s(100), opI32Const, s(0), opI32Const, s(1<<29), opMemoryCopy, 0, 0, opBr, 0, opEnd)
		b.memory(16384, 0)
		return b
	}},
	{"memory.init", func() *build {
		b := running(nil, opLoop, empty, opI32Const, s(0), opI32Const, s(0), opI32Const, s(8<<20), opMemoryInit, 0, 0, opBr, 0, opEnd)
		b.memory(256, 0)
		b.passive(strings.Repeat("x", 8<<20))
		return b
	}},
	{"table.fill", func() *build {
		b := running(nil, opLoop, empty, opI32Const, s(0), opRefNull, externref, opI32Const, s(1<<20), opTableFill, 0, opBr, 0, opEnd)
		b.tables = append(b.tables, tableType{externref, limits{min: 1 << 20}})
		return b
	}},
	{"table.copy", func() *build {
		b := running(nil, opLoop, empty, opI32Const, s(3), opI32Const, s(0), opI32Const, s(1<<20-5), opTableCopy, 0, 0, opBr, 0, opEnd)
		b.tables = append(b.tables, tableType{externref, limits{min: 1 << 20}})
		return b
	}},
	{"table.init", func() *build {
		b := newBuild()
		f := b.fn("run", b.typ(nil), nil, opLoop, empty, opI32Const, s(3), opI32Const, s(0), opI32Const, s(200000), opTableInit, 1, 0, opBr, 0, opEnd)
		b.tableOf(f)
		b.tables[0].min = 300000
		b.elems = append(b.elems, elemSegment{flags: 1, elem: funcref, n: 200000, vec: make([]byte, 200000)})
		return b
	}},
	{"table.grow", func() *build {
		b := running(nil, opLoop, empty, opRefNull, funcref, opI32Const, s(1000), opTableGrow, 0, opDrop, opBr, 0, opEnd)
		b.tableOf()
		return b
	}},
	{"vectors", func() *build {
		b := running([]valType{v128}, opLoop, empty, opLocalGet, 0, opLocalGet, 0, opFD+239, opLocalGet, 0, opFD+243, opFD+0xd5,
			opLocalSet, 0, opBr, 0, opEnd)
		return b
	}},
}

// running returns a module whose one function is run.
func running(locals []valType, code ...any) *build {
	b := newBuild()
	b.fn("run", b.typ(nil), locals, code...)
	return b
}

// hostNop provides env.nop.
func hostNop(t testing.TB, rt wazero.Runtime) {
	_, err := rt.NewHostModuleBuilder("env").NewFunctionBuilder().
		WithGoFunction(api.GoFunc(func(context.Context, []uint64) {}), nil, nil).Export("nop").Instantiate(context.Background())
	if err != nil {
		t.Fatal(err)
	}
}

// TestShapes runs each shape and stops it at a tick. The test is that it ends at
// all; the longest processor time between two ticks is printed and bounded.
func TestShapes(t *testing.T) {
	const ticks = 300
	ctx := context.Background()
	table := "\nshape                               longest   mean between ticks\n"
	for _, shape := range shapes {
		original := shape.make().encode()
		if err := validator(t)(original); err != nil {
			t.Errorf("%s: %v", shape.name, err)
			continue
		}
		a, err := Rewrite(original, Options{Meter: true, TailCalls: true})
		if err != nil {
			t.Errorf("%s: %v", shape.name, err)
			continue
		}
		// The longest gap of the best of three runs: what the machine adds
		// is not the guest's.
		best, mean := time.Hour, time.Duration(0)
		for range 3 {
			func() {
				rt := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfigCompiler().WithCoreFeatures(features))
				defer rt.Close(ctx)
				tk := &ticker{stop: ticks, timed: true}
				tk.provide(t, rt)
				hostNop(t, rt)
				mod, err := rt.Instantiate(ctx, a.Wasm)
				if err != nil {
					t.Errorf("%s: %v", shape.name, err)
					return
				}
				runtime.LockOSThread()
				defer runtime.UnlockOSThread()
				tk.last = cpuTime()
				start := tk.last
				_, err = mod.ExportedFunction("run").Call(ctx)
				var st stopped
				if !errors.As(err, &st) {
					t.Errorf("%s: ended with %v after %d ticks", shape.name, err, tk.ticks)
					return
				}
				if tk.longest < best {
					best, mean = tk.longest, (cpuTime()-start)/time.Duration(tk.ticks+tk.overflow)
				}
			}()
		}
		table += fmt.Sprintf("%-34s %9v %9v\n", shape.name, best.Round(time.Microsecond), mean.Round(100*time.Nanosecond))
		if best > 50*time.Millisecond && !testing.Short() { // the race detector makes host calls slow
			t.Errorf("%s: %v between two ticks", shape.name, best)
		}
	}
	t.Log(table)
}
