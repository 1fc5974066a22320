package rewrite

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
)

// recursions are modules whose export "run" recurses without end, each with a
// frame of another kind. Each counts its levels in the exported i64 global
// "levels".
var recursions = []struct {
	name string
	make func() *build
}{
	{"small frame", func() *build {
		return recursion(nil, nil, nil, nil)
	}},
	{"two hundred locals", func() *build {
		var set, use []any
		for i := range 200 {
			set = append(set, opGlobalGet, 0, opI64Const, s(i*7), opcode(0x7e), opLocalSet, i)
			use = append(use, opGlobalGet, 0, opLocalGet, i, opI64Add, opGlobalSet, 0)
		}
		return recursion(nil, repeat(200, i64), set, use)
	}},
	{"one local set two hundred times", func() *build {
		b := newBuild()
		b.newGlobal(i64, true, opI64Const, s(0))
		b.export("levels", kindGlobal, 0)
		code := []any{opGlobalGet, 0, opI64Const, s(1), opI64Add, opGlobalSet, 0, opCall, 0}
		for i := range 200 {
			code = append(code, opGlobalGet, 0, opI64Const, s(i), opI64Add, opLocalSet, 0, opCall, 0,
				opLocalGet, 0, opGlobalSet, 0)
		}
		b.fn("run", b.typ(nil), []valType{i64}, code...)
		return b
	}},
	{"three hundred operands", func() *build {
		var before, after []any
		for i := range 300 {
			before = append(before, opGlobalGet, 0, opI64Const, s(i*3), opcode(0x7e))
			after = append(after, opGlobalSet, 0)
		}
		return recursion(nil, nil, before, after)
	}},
	{"forty parameters", func() *build {
		var args, use []any
		for i := range 40 {
			args = append(args, opLocalGet, i, opI64Const, s(i), opI64Add)
			use = append(use, opLocalGet, i, opGlobalSet, 0)
		}
		return recursion(repeat(40, i64), nil, args, use)
	}},
	{"thirty vectors", func() *build {
		var set, use []any
		for i := range 30 {
			set = append(set, opGlobalGet, 0, opFD+18, opLocalSet, i)
			use = append(use, opLocalGet, i, opI64x2Extract, raw{1}, opGlobalSet, 0)
		}
		return recursion(nil, repeat(30, v128), set, use)
	}},
	{"thirty floats", func() *build {
		var set, use []any
		for i := range 30 {
			set = append(set, opGlobalGet, 0, opcode(0xb9), opLocalSet, i)
			use = append(use, opLocalGet, i, opcode(0xb0), opGlobalSet, 0)
		}
		return recursion(nil, repeat(30, f64), set, use)
	}},
	{"branches that merge", func() *build {
		var set, use []any
		for i := range 20 {
			set = append(set, opGlobalGet, 0, opI64Const, s(i), opcode(0x7e), opLocalSet, i)
			for j := range 5 {
				set = append(set, opGlobalGet, 0, opI32WrapI64, opI32Const, s(1<<j), opcode(0x71), opIf, empty,
					opLocalGet, i, opI64Const, s(j), opI64Add, opLocalSet, i, opEnd)
			}
			use = append(use, opLocalGet, i, opGlobalSet, 0)
		}
		return recursion(nil, repeat(20, i64), set, use)
	}},
	{"a loop with a call", func() *build {
		b := newBuild()
		b.newGlobal(i64, true, opI64Const, s(0))
		b.export("levels", kindGlobal, 0)
		var set []any
		for i := range 30 {
			set = append(set, opLocalGet, i, opI64Const, s(i+1), opI64Add, opLocalSet, i)
		}
		code := append([]any{opGlobalGet, 0, opI64Const, s(1), opI64Add, opGlobalSet, 0, opLoop, empty}, set...)
		code = append(code, opCall, 0)
		code = append(code, set...)
		code = append(code, opBr, 0, opEnd)
		b.fn("run", b.typ(nil), repeat(30, i64), code...)
		return b
	}},
	{"a small head and a large tail", func() *build {
		b := newBuild()
		b.newGlobal(i64, true, opI64Const, s(0))
		b.export("levels", kindGlobal, 0)
		t := b.typ(nil)
		b.fn("run", t, nil, opGlobalGet, 0, opI64Const, s(1), opI64Add, opGlobalSet, 0, opCall, 1, opCall, 0)
		for i := range 5 {
			var set, use []any
			for j := range 60 {
				set = append(set, opGlobalGet, 0, opI64Const, s(j), opcode(0x7e), opLocalSet, j)
				use = append(use, opLocalGet, j, opGlobalSet, 0)
			}
			b.fn("", t, repeat(60, i64), append(append(set, opCall, (i+2)%6), use...)...)
		}
		return b
	}},
	{"through a table", func() *build {
		b := newBuild()
		b.newGlobal(i64, true, opI64Const, s(0))
		b.export("levels", kindGlobal, 0)
		t := b.typ(nil)
		b.tableOf(0)
		b.fn("run", t, nil, opGlobalGet, 0, opI64Const, s(1), opI64Add, opGlobalSet, 0, opI32Const, s(0), opCallIndirect, t, 0)
		return b
	}},
	{"through a chain and a table", func() *build {
		b := newBuild()
		b.newGlobal(i64, true, opI64Const, s(0))
		b.export("levels", kindGlobal, 0)
		t := b.typ(nil)
		b.tableOf(0)
		var set, use []any
		for j := range 20 {
			set = append(set, opGlobalGet, 0, opI64Const, s(j), opcode(0x7e), opLocalSet, j)
			use = append(use, opLocalGet, j, opGlobalSet, 0)
		}
		b.fn("run", t, nil, opGlobalGet, 0, opI64Const, s(1), opI64Add, opGlobalSet, 0, opCall, 1)
		for i := range 200 {
			b.fn("", t, repeat(20, i64), append(append(append([]any{}, set...), opCall, i+2), use...)...)
		}
		b.fn("", t, nil, opI32Const, s(0), opCallIndirect, t, 0)
		return b
	}},
	{"tail calls on the stack", func() *build {
		// Twelve arguments do not fit into registers.
		b := newBuild()
		b.newGlobal(i64, true, opI64Const, s(0))
		b.export("levels", kindGlobal, 0)
		t := b.typ(typesOf(repeat(12, i64)...), i64)
		var args []any
		for i := range 12 {
			args = append(args, opLocalGet, (i+1)%12)
		}
		b.fn("", t, nil, append(append([]any{opGlobalGet, 0, opI64Const, s(1), opI64Add, opGlobalSet, 0}, args...), opReturnCall, 0)...)
		var zeros []any
		for range 12 {
			zeros = append(zeros, opI64Const, s(0))
		}
		b.fn("run", b.typ(nil), nil, append(zeros, opCall, 0, opDrop)...)
		return b
	}},
	{"many calls kept", func() *build {
		b := newBuild()
		b.newGlobal(i64, true, opI64Const, s(0))
		b.export("levels", kindGlobal, 0)
		t := b.typ(nil, i64)
		code := []any{opGlobalGet, 0, opI64Const, s(1), opI64Add, opGlobalSet, 0}
		for range 150 {
			code = append(code, opCall, 0)
		}
		for range 149 {
			code = append(code, opI64Add)
		}
		b.fn("", t, nil, code...)
		b.fn("run", b.typ(nil), nil, opCall, 0, opDrop)
		return b
	}},
}

func repeat(n int, t valType) []valType {
	ts := make([]valType, n)
	for i := range ts {
		ts[i] = t
	}
	return ts
}

// recursion returns a module with one function that counts its level, does
// before, calls itself and does after.
func recursion(params, locals []valType, before, after []any) *build {
	b := newBuild()
	b.newGlobal(i64, true, opI64Const, s(0))
	b.export("levels", kindGlobal, 0)
	t := b.typ(typesOf(params...))
	code := []any{opGlobalGet, 0, opI64Const, s(1), opI64Add, opGlobalSet, 0}
	code = append(code, before...)
	code = append(code, opCall, 0)
	code = append(code, after...)
	f := b.fn("", t, locals, code...)
	var zeros []any
	for range params {
		zeros = append(zeros, opI64Const, s(0))
	}
	b.fn("run", b.typ(nil), nil, append(zeros, opCall, f)...)
	return b
}

// engineStack is the size at which the engine's stack overflows: it doubles from
// 10,240 bytes until it has passed 50,000,000.
const engineStack = 10_240 << 13

// TestDepthShapes recurses to the limit in many ways. It must be the pass's
// limit that ends the recursion, with the engine's own out of reach.
func TestDepthShapes(t *testing.T) {
	ctx := context.Background()
	table := "\nrecursion                         levels  estimate      real, in bytes a level\n"
	for _, shape := range recursions {
		original := shape.make().encode()
		if err := validator(t)(original); err != nil {
			t.Errorf("%s: %v", shape.name, err)
			continue
		}
		a, err := Rewrite(original, Options{Meter: true, TailCalls: true})
		if err != nil {
			t.Fatal(err)
		}
		levels := func(wasm []byte) (uint64, error) {
			rt := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfigCompiler().WithCoreFeatures(features))
			defer rt.Close(ctx)
			(&ticker{}).provide(t, rt)
			mod, err := rt.Instantiate(ctx, wasm)
			if err != nil {
				t.Fatal(err)
			}
			// A shape may write to the global below its levels: what counts is
			// its largest value, which it has when it overflows.
			_, err = mod.ExportedFunction("run").Call(ctx)
			if d, ok := mod.ExportedGlobal(DepthExport).(api.MutableGlobal); ok && int64(d.Get()) >= 0 {
				t.Errorf("%s: stopped with %d bytes left", shape.name, d.Get())
			}
			return mod.ExportedGlobal("levels").Get(), err
		}
		ours, err := levels(a.Wasm)
		var st stopped
		if !errors.As(err, &st) || st.why != "stack overflow" {
			t.Errorf("%s: ended with %v", shape.name, err)
			continue
		}
		engines, err := levels(original)
		if err == nil || !strings.Contains(err.Error(), "stack overflow") {
			t.Errorf("%s: unmetered, it ended with %v", shape.name, err)
		}
		real, estimate := engineStack/float64(engines), DefaultDepth/float64(ours)
		table += fmt.Sprintf("%-32s %7d  %8.0f  %8.0f\n", shape.name, ours, estimate, real)
		if ratio := real / estimate; ratio > 1.5 {
			t.Errorf("%s: the estimate is %.0f bytes, the engine takes %.0f", shape.name, estimate, real)
		}
	}
	t.Log(table)
}
