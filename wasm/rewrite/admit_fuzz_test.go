package rewrite

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental"

	"github.com/wray-project/wray"
)

// FuzzAdmit holds that Admit never panics and refuses with what a user can
// read, and that what it lets through the engine's decoder and validator
// survive: they return, and what they allocate is bounded by the limits.
func FuzzAdmit(f *testing.F) {
	n := 0
	err := filepath.WalkDir(admitEngineDir(f), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || filepath.Ext(path) != ".wasm" {
			return err
		}
		if n++; n%16 != 0 { // as many as a fuzzer can mutate
			return nil
		}
		wasm, err := os.ReadFile(path)
		if err == nil && len(wasm) < 4096 {
			f.Add(wasm)
		}
		return err
	})
	if err != nil {
		f.Fatal(err)
	}
	limits := AdmitLimits{Modules: []string{"*"}, Functions: 10_000, AllLocals: 100_000, TableEntries: 100_000, MemoryPages: 16}
	ctx := context.Background()
	config := wazero.NewRuntimeConfigInterpreter().WithCoreFeatures(api.CoreFeaturesV2 | experimental.CoreFeaturesTailCall)
	f.Fuzz(func(t *testing.T, wasm []byte) {
		if err := Admit(wasm, limits); err != nil {
			var e *wray.Error
			if !errors.As(err, &e) || e.Message == "" || e.Hint == "" {
				t.Fatalf("%#v", err)
			}
			switch e.Code {
			case wray.CodeInvalidModule, wray.CodeLimitExceeded:
			default:
				t.Fatalf("%v", e)
			}
			return
		}
		rt := wazero.NewRuntimeWithConfig(ctx, config)
		defer rt.Close(ctx)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, _ = rt.CompileModule(ctx, wasm)
		runtime.ReadMemStats(&after)
		if n := after.TotalAlloc - before.TotalAlloc; n > 64<<20+4096*uint64(len(wasm)) {
			t.Fatalf("%d bytes allocated for a module of %d", n, len(wasm))
		}
	})
}
