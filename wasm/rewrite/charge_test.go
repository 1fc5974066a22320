package rewrite

import (
	"context"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
)

// looping returns a module whose export "run" runs code so many times. Local 0
// counts the rounds; functions before it are b's.
func looping(b *build, rounds int, code ...any) *build {
	all := append([]any{opLoop, empty}, code...)
	all = append(all, opLocalGet, 0, opI64Const, s(1), opI64Add, opLocalTee, 0, opI64Const, s(rounds), opI64LtU, opBrIf, 0, opEnd)
	b.fn("run", b.typ(nil), []valType{i64}, all...)
	return b
}

// divisions are n instructions that are charged as such and leave nothing.
func divisions(n int) (code []any) {
	for range n {
		code = append(code, opI64Const, s(7), opI64Const, s(3), opcode(0x80), opDrop) // i64.div_u
	}
	return code
}

// TestCharges counts what known work is charged: all that it costs, wherever it
// stands, and not many times as much.
func TestCharges(t *testing.T) {
	const rounds = 300
	for _, c := range []struct {
		name string
		cost int64 // of a round, less what the loop itself costs
		make func() *build
	}{
		{"the first branch of two", 100 * costDivide, func() *build {
			code := append([]any{opI32Const, s(1), opIf, empty}, divisions(100)...)
			return looping(newBuild(), rounds, append(code, opElse, opEnd)...)
		}},
		{"the second branch of two", 100 * costDivide, func() *build {
			code := append([]any{opI32Const, s(0), opIf, empty, opElse}, divisions(100)...)
			return looping(newBuild(), rounds, append(code, opEnd)...)
		}},
		{"a branch that is left early", 100 * costDivide, func() *build {
			code := append([]any{opBlock, empty}, divisions(100)...)
			return looping(newBuild(), rounds, append(code, opI32Const, s(1), opBrIf, 0, opEnd)...)
		}},
		{"a function that returns early", 100 * costDivide, func() *build {
			b := newBuild()
			code := append([]any{opLocalGet, 0, opIf, empty}, divisions(100)...)
			f := b.fn("", b.typ(typesOf(i32)), nil, append(code, opReturn, opEnd)...)
			return looping(b, rounds, opI32Const, s(1), opCall, f)
		}},
		{"a loop in a function behind a table", 1000 * costMinimum, func() *build {
			b := newBuild()
			nothing := b.typ(nil)
			f := b.fn("", nothing, []valType{i64}, opLoop, empty,
				opLocalGet, 0, opI64Const, s(1), opI64Add, opLocalTee, 0, opI64Const, s(1000), opI64LtU, opBrIf, 0, opEnd)
			b.tableOf(f)
			return looping(b, rounds, opI32Const, s(0), opCallIndirect, nothing, 0)
		}},
		{"memory.grow", costGrow, func() *build {
			b := newBuild()
			b.memory(1, 1)
			return looping(b, rounds, opI32Const, s(0), opMemoryGrow, 0, opDrop)
		}},
		{"memory.fill", 1 << 20 >> bulkShift, func() *build {
			b := newBuild()
			b.memory(16, 16)
			return looping(b, rounds, opI32Const, s(0), opI32Const, s(1), opI32Const, s(1<<20), opMemoryFill, 0)
		}},
		{"table.fill", 4000 >> tableShift, func() *build {
			b := newBuild()
			b.tables = append(b.tables, tableType{funcref, limits{min: 4000}})
			return looping(b, rounds, opI32Const, s(0), opRefNull, funcref, opI32Const, s(4000), opTableFill, 0)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			ctx := context.Background()
			original := c.make().encode()
			if err := validator(t)(original); err != nil {
				t.Fatal(err)
			}
			a, err := Rewrite(original, Options{Meter: true})
			if err != nil {
				t.Fatal(err)
			}
			rt := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfigCompiler().WithCoreFeatures(features))
			defer rt.Close(ctx)
			(&ticker{}).provide(t, rt)
			mod, err := rt.Instantiate(ctx, a.Wasm)
			if err != nil {
				t.Fatal(err)
			}
			const plenty = 1 << 40
			fuel := mod.ExportedGlobal(FuelExport).(api.MutableGlobal)
			fuel.Set(plenty)
			must(t, mod, "run")
			used := plenty - int64(fuel.Get())
			if used < rounds*c.cost || used > rounds*(2*c.cost+500) {
				t.Errorf("%d rounds were charged %d each, and cost %d", rounds, used/rounds, c.cost)
			}
		})
	}
}

// TestCarryBounded holds that what calls have outstanding of the stack is
// bounded in a long chain of calls, which nests no deeper than it is long, and
// in a circle of them, which nests for ever.
func TestCarryBounded(t *testing.T) {
	const n, frame, rounds = 10, 4 << 10, 100
	for _, circle := range []bool{false, true} {
		size, calls := n*rounds, n*rounds
		if circle {
			size = n
		}
		g := callGraph{first: make([]uint32, 1, size+1)}
		frames := make([]uint32, size)
		for f := range size {
			if f+1 < size || circle {
				g.callee = append(g.callee, uint32((f+1)%size))
			}
			g.first = append(g.first, uint32(len(g.callee)))
			frames[f] = frame
		}
		head, component := g.heads()
		plan := g.planStack(g.callersFirst(head, component), head, component, frames, make([]bool, size))
		outstanding := int64(0)
		for call := range calls {
			outstanding += frame - int64(plan.entry[call%size])
			if outstanding > carryAnywhere {
				t.Fatalf("circle %v: after %d calls %d bytes are outstanding, more than %d", circle, call+1, outstanding, carryAnywhere)
			}
		}
	}
}

// TestTableMaximum holds that every table has a maximum after the pass, as it
// came or as the option says, and never less than it begins with.
func TestTableMaximum(t *testing.T) {
	b := newBuild()
	in := []limits{{min: 3}, {min: 3, max: 5, hasMax: true}, {min: 3, max: 1 << 31, hasMax: true}, {min: 200}, {min: 200, max: 300, hasMax: true}}
	for _, l := range in {
		b.tables = append(b.tables, tableType{funcref, l})
	}
	a, err := Rewrite(b.encode(), Options{Meter: true, MaxTable: 100})
	if err != nil {
		t.Fatal(err)
	}
	m, err := parse(a.Wasm)
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []uint32{100, 5, 100, 200, 200} {
		if l := m.tables[i].limits; !l.hasMax || l.max != want || l.min != in[i].min {
			t.Errorf("a table of %+v became one of %+v, want a maximum of %d", in[i], l, want)
		}
	}
}

// TestSegmentAtEnd holds that a data segment may end where memory does.
func TestSegmentAtEnd(t *testing.T) {
	for _, c := range []struct {
		at   int
		fits bool
	}{{1<<16 - 4, true}, {1<<16 - 3, false}} {
		b := newBuild()
		b.memory(1, 1)
		b.data(c.at, "four")
		if _, err := Rewrite(b.encode(), Options{Snapshot: true}); (err == nil) != c.fits {
			t.Errorf("four bytes at %d of %d: %v", c.at, 1<<16, err)
		}
	}
}
