package wasi_test

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	preview1 "github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"

	"github.com/wray-project/wray/host/wasi"
)

// TestTable fails for a row that leaves a question open, and for a signature
// that is not the one that another host of WASI preview 1 exports.
func TestTable(t *testing.T) {
	ctx := context.Background()
	r := wazero.NewRuntime(ctx)
	defer r.Close(ctx)
	other, err := preview1.NewBuilder(r).Compile(ctx)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{}
	for name, def := range other.ExportedFunctions() {
		want[name] = signature(def.ParamTypes()) + "->" + signature(def.ResultTypes())
	}

	caps := []wasi.Capability{
		wasi.CapArgs, wasi.CapClock, wasi.CapRandom, wasi.CapFiles, wasi.CapDirs,
		wasi.CapPoll, wasi.CapExit, wasi.CapYield, wasi.CapNone,
	}
	rows := wasi.Functions()
	if len(rows) != 46 {
		t.Errorf("%d functions, want 46", len(rows))
	}
	names := make([]string, len(rows))
	for i, f := range rows {
		names[i] = f.Name
		result := ""
		if f.Result {
			result = "i"
		}
		if got := f.Params + "->" + result; got != want[f.Name] {
			t.Errorf("%s: %s, want %s", f.Name, got, want[f.Name])
		}
		switch {
		case f.Call == nil:
			t.Errorf("%s: no Call", f.Name)
		case !slices.Contains(caps, f.Capability):
			t.Errorf("%s: capability %q", f.Name, f.Capability)
		case f.MaxPayload == 0 || f.MaxPayload < wasi.NoPayload:
			t.Errorf("%s: no MaxPayload", f.Name)
		case f.Cost.Base == 0:
			t.Errorf("%s: no Cost", f.Name)
		case f.MaxPayload > 1024 && f.Cost.PerKiB == 0 && f.Capability != wasi.CapDirs:
			t.Errorf("%s: moves up to %d bytes at no cost", f.Name, f.MaxPayload)
		case f.Blocks < wasi.NeverBlocks || f.Blocks > wasi.BlocksInPoll:
			t.Errorf("%s: Blocks is not set", f.Name)
		}
	}
	if !slices.IsSorted(names) || len(slices.Compact(names)) != len(rows) {
		t.Errorf("the table is not in order: %v", names)
	}
	if missing := len(want) - len(rows); missing != 0 {
		t.Errorf("%d functions are missing", missing)
	}
}

func signature(types []api.ValueType) string {
	var b strings.Builder
	for _, v := range types {
		switch v {
		case api.ValueTypeI32:
			b.WriteByte('i')
		case api.ValueTypeI64:
			b.WriteByte('I')
		default:
			b.WriteByte('?')
		}
	}
	return b.String()
}
