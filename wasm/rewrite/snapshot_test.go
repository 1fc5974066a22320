package rewrite

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/wray-project/wray"
)

// engines are the engine's two ways to run a module.
var engines = map[string]func() wazero.RuntimeConfig{
	"interpreter": wazero.NewRuntimeConfigInterpreter,
	"compiler":    wazero.NewRuntimeConfigCompiler,
}

// eachEngine runs f once per engine with a new runtime.
func eachEngine(t *testing.T, f func(t *testing.T, rt wazero.Runtime)) {
	for name, config := range engines {
		t.Run(name, func(t *testing.T) {
			ctx := context.Background()
			rt := wazero.NewRuntimeWithConfig(ctx, config().WithCoreFeatures(features))
			defer rt.Close(ctx)
			f(t, rt)
		})
	}
}

// must calls an export and fails the test when it traps.
func must(t *testing.T, mod api.Module, name string, args ...uint64) []uint64 {
	t.Helper()
	res, err := mod.ExportedFunction(name).Call(context.Background(), args...)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return res
}

// snapshotModule has what the snapshot pass takes apart: a start function that
// writes to the last data segment's place, globals of all number types, a
// passive segment between active ones, and functions that name segments.
func snapshotModule() *build {
	b := newBuild()
	nothing := b.typ(nil)
	get := b.typ(nil, i64)
	init := b.typ(typesOf(i32, i32))
	b.memory(1, 2)
	b.newGlobal(i32, true, opI32Const, s(7))                                                                  // 0
	b.newGlobal(i64, false, opI64Const, s(8))                                                                 // 1
	b.newGlobal(v128, true, opFD+12, raw("\x01\x00\x00\x00\x00\x00\x00\x00\xff\x00\x00\x00\x00\x00\x00\x80")) // 2
	b.newGlobal(f64, true, opcode(0x44), raw("\x00\x00\x00\x00\x00\x00\xf8\x3f"))                             // 3
	b.data(8, "active")
	b.passive("passive")
	b.data(100, "later")
	b.fn("low", get, nil, opGlobalGet, 2, opI64x2Extract, raw{0})
	b.fn("high", get, nil, opGlobalGet, 2, opI64x2Extract, raw{1})
	b.fn("swap", nothing, nil,
		opGlobalGet, 2, opI64x2Extract, raw{1}, opI64x2Splat,
		opGlobalGet, 2, opI64x2Extract, raw{0}, opI64x2Replace, raw{1}, opGlobalSet, 2)
	// init(dst, n) copies the first n bytes of the passive segment; stale(dst,
	// n) of an active one, which is empty by then.
	b.fn("init", init, nil, opLocalGet, 0, opI32Const, s(0), opLocalGet, 1, opMemoryInit, 1, 0)
	b.fn("stale", init, nil, opLocalGet, 0, opI32Const, s(0), opLocalGet, 1, opMemoryInit, 2, 0)
	start := b.fn("", nothing, nil, opI32Const, s(100), opI32Const, s('L'), opcode(0x3a), 0, 0)
	b.start = int64(start)
	return b
}

func TestSnapshot(t *testing.T) {
	original := snapshotModule().encode()
	a, err := Rewrite(original, Options{Snapshot: true})
	if err != nil {
		t.Fatal(err)
	}
	if len(a.Segments) != 2 || a.Segments[0].Offset != 8 || string(a.Segments[1].Data) != "later" {
		t.Errorf("segments %v", a.Segments)
	}
	var names []string
	for _, g := range a.Globals {
		names = append(names, g.Name+valType(g.Type).String())
	}
	if got := strings.Join(names, " "); got != "wray:g0i32 wray:g2i64 wray:g4i64 wray:g3f64" {
		t.Errorf("globals %s", got)
	}
	if a.StartExport != StartExport || !a.Resettable || a.MemoryMin != 1 || a.MemoryMax != 2 {
		t.Errorf("artifact %+v", a)
	}

	eachEngine(t, func(t *testing.T, rt wazero.Runtime) {
		ctx := context.Background()
		one, err := rt.InstantiateWithConfig(ctx, original, wazero.NewModuleConfig().WithName(""))
		if err != nil {
			t.Fatal(err)
		}
		two, err := rt.InstantiateWithConfig(ctx, a.Wasm, wazero.NewModuleConfig().WithName(""))
		if err != nil {
			t.Fatal(err)
		}
		if b, _ := two.Memory().Read(0, 200); strings.Trim(string(b), "\x00") != "" {
			t.Errorf("memory begins as %q", b)
		}
		for _, seg := range a.Segments {
			two.Memory().Write(seg.Offset, seg.Data)
		}
		must(t, two, a.StartExport)

		for _, mod := range []api.Module{one, two} {
			must(t, mod, "swap")
			must(t, mod, "init", 50, 4)
			must(t, mod, "stale", 60, 0)
			// The engine forgets to drop active segments after instantiation;
			// the pass does as the specification says.
			if _, err := mod.ExportedFunction("stale").Call(ctx, 60, 1); err == nil && mod == two {
				t.Error("an active segment is not empty after instantiation")
			}
			mod.Memory().Write(60, make([]byte, 1))
			if lo, hi := must(t, mod, "low")[0], must(t, mod, "high")[0]; lo != 0x80000000000000ff || hi != 1 {
				t.Errorf("v128 is %x %x", lo, hi)
			}
			b, _ := mod.Memory().Read(0, 200)
			if got := strings.Join(strings.FieldsFunc(string(b), func(r rune) bool { return r == 0 }), " "); got != "active pass Later" {
				t.Errorf("memory is %q", got)
			}
		}
		// All four globals can be read and written from outside.
		for i, g := range a.Globals {
			two.ExportedGlobal(g.Name).(api.MutableGlobal).Set(uint64(i))
		}
		if lo, hi := must(t, two, "low")[0], must(t, two, "high")[0]; lo != 1 || hi != 2 {
			t.Errorf("v128 after a restore is %x %x", lo, hi)
		}
	})
}

func TestSnapshotRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		change func(b *build)
		want   *wray.Error
	}{
		"reserved export": {func(b *build) { b.export("wray:g0", kindGlobal, 0) }, wray.ErrInvalidModule},
		"reserved import": {func(b *build) {
			b.imports = append(b.imports, importEntry{module: MeterModule, name: "x", kind: kindGlobal, global: globalType{i32, false}})
			b.importedGlobals = append(b.importedGlobals, globalType{i32, false})
		}, wray.ErrInvalidModule},
		"exported v128":            {func(b *build) { b.export("v", kindGlobal, 2) }, wray.ErrInvalidModule},
		"data out of bounds":       {func(b *build) { b.data(65536, "x") }, wray.ErrTrap},
		"empty data out of bounds": {func(b *build) { b.data(65537, "") }, wray.ErrTrap},
		"data at -1":               {func(b *build) { b.data(-1, "x") }, wray.ErrTrap},
		"imported place": {func(b *build) {
			b.imports = append(b.imports, importEntry{module: "m", name: "x", kind: kindGlobal, global: globalType{i32, false}})
			b.importedGlobals = append(b.importedGlobals, globalType{i32, false})
			b.datas[0].offset = asm(opGlobalGet, 0, opEnd)
			for i := range b.exports {
				if b.exports[i].kind == kindGlobal {
					b.exports[i].index++
				}
			}
		}, wray.ErrInvalidModule},
	} {
		b := snapshotModule()
		c.change(b)
		if _, err := Rewrite(b.encode(), Options{Snapshot: true}); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestResettable(t *testing.T) {
	table := func(code ...any) func(b *build) {
		return func(b *build) { b.tableOf(); b.fn("", b.typ(nil), nil, code...) }
	}
	null := asm(opRefNull, funcref)
	for name, c := range map[string]struct {
		change func(b *build)
		why    string
	}{
		"plain":      {func(*build) {}, ""},
		"table.set":  {table(opI32Const, s(0), null, opTableSet, 0), "table.set"},
		"table.grow": {table(null, opI32Const, s(0), opTableGrow, 0, opDrop), "table.grow"},
		"table.fill": {table(opI32Const, s(0), null, opI32Const, s(0), opTableFill, 0), "table.fill"},
		"table.copy": {table(opI32Const, s(0), opI32Const, s(0), opI32Const, s(0), opTableCopy, 0, 0), "table.copy"},
		"table.init": {table(opI32Const, s(0), opI32Const, s(0), opI32Const, s(0), opTableInit, 0, 0), "table.init"},
		"elem.drop":  {table(opElemDrop, 0), "elem.drop"},
		"data.drop":  {func(b *build) { b.fn("", b.typ(nil), nil, opDataDrop, 1) }, "data.drop"},
		"ref global": {func(b *build) { b.newGlobal(externref, true, opRefNull, externref) }, "externref"},
		"table read": {table(opI32Const, s(0), opTableGet, 0, opDrop), ""},
		"const ref":  {func(b *build) { b.newGlobal(externref, false, opRefNull, externref) }, ""},
	} {
		b := snapshotModule()
		c.change(b)
		a, err := Rewrite(b.encode(), Options{Snapshot: true})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if err := validator(t)(a.Wasm); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if a.Resettable != (c.why == "") || !strings.Contains(a.NotResettable, c.why) {
			t.Errorf("%s: resettable %v: %q", name, a.Resettable, a.NotResettable)
		}
	}
}
