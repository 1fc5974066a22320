package sandbox

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sort"
	"strings"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/experimental"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/wasm/abi"
	"github.com/wray-project/wray/wasm/rewrite"
)

// Names of what Compile leaves in its directory.
const (
	ArtifactFile = "artifact" // an encoded Artifact
	NativeDir    = "native"   // a cache directory of wazero with one entry
)

// Identity says what, beside the module, compiled code depends on.
func Identity() string {
	return fmt.Sprintf("rewrite%d wazero1.12.0 %s features%x", rewrite.Version, runtime.GOARCH, uint64(coreFeatures))
}

// InitCache makes what an engine expects in its cache directory, so that one
// that may only read it opens it.
func InitCache(ctx context.Context, dir string) error {
	cache, err := wazero.NewCompilationCacheWithDir(dir)
	if err != nil {
		return fmt.Errorf("make the code cache: %w", err)
	}
	return cache.Close(ctx)
}

// CompileOptions says what a module may import.
type CompileOptions struct {
	Modules []HostModule // offered beside WASI
}

// Compile validates, rewrites and compiles a module and leaves the result in
// dir, which is empty. It runs in a process of its own, since a module can
// make a compiler take seconds and gigabytes.
func Compile(ctx context.Context, wasm []byte, dir string, o CompileOptions) error {
	a, err := Rewrite(wasm, o)
	if err != nil {
		return err
	}
	cache, err := wazero.NewCompilationCacheWithDir(filepath.Join(dir, NativeDir))
	if err != nil {
		return fmt.Errorf("make the code cache: %w", err)
	}
	defer cache.Close(ctx)
	rt := wazero.NewRuntimeWithConfig(ctx, runtimeConfig(cache))
	defer rt.Close(ctx)
	if _, err := rt.CompileModule(experimental.WithCompilationWorkers(ctx, runtime.NumCPU()), a.Wasm); err != nil {
		return invalid(err)
	}
	b, err := a.Encode()
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, ArtifactFile), b, 0o600); err != nil {
		return fmt.Errorf("write the artifact: %w", err)
	}
	return nil
}

func invalid(err error) error {
	return &wray.Error{
		Code: wray.CodeInvalidModule, Message: err.Error(),
		Hint: "check the module with another tool, such as wasm-validate",
	}
}

// Rewrite admits a module and runs the passes over it, without compiling.
func Rewrite(wasm []byte, o CompileOptions) (*Artifact, error) {
	if err := rewrite.Admit(wasm, rewrite.DefaultAdmitLimits()); err != nil {
		return nil, err
	}
	r, err := rewrite.Rewrite(wasm, rewrite.Options{Meter: true, Snapshot: true, TailCalls: true})
	if err != nil {
		return nil, err
	}
	if err := checkImports(r, o); err != nil {
		return nil, err
	}
	if err := checkEntries(r); err != nil {
		return nil, err
	}
	a := &Artifact{Wasm: r.Wasm, Meta: Meta{
		StartExport: r.StartExport, Resettable: r.Resettable, NotResettable: r.NotResettable,
		HasMemory: r.HasMemory, MemoryMin: r.MemoryMin, MemoryMax: r.MemoryMax, Metered: true,
	}}
	for _, g := range r.Globals {
		a.Meta.Globals = append(a.Meta.Globals, g.Name)
	}
	for _, x := range r.Exports {
		if x.Kind == "func" {
			a.Meta.Exports = append(a.Meta.Exports, x.Name)
		}
	}
	a.Data = mergeSegments(r.Segments)
	return a, nil
}

// entries are the functions that a host calls, with their types. The engine does
// not look at those when it calls: a number that a guest takes for a reference
// is an address to it.
var entries = map[string]string{
	abi.ExportCall:       "(i32, i32) -> i32",
	abi.ExportStart:      "()",
	abi.ExportInitialize: "()",
}

// checkEntries refuses a module that has another idea of what a host calls.
func checkEntries(r *rewrite.Artifact) error {
	for _, x := range r.Exports {
		want, ok := entries[x.Name]
		if !ok || x.Kind == "func" && x.Type == want && !x.Imported {
			continue
		}
		is := x.Kind + " " + x.Type
		if x.Imported {
			is = "an import, of type " + x.Type
		}
		return &wray.Error{Code: wray.CodeInvalidModule, Message: fmt.Sprintf("the export %s is %s, and should be a func %s of the module's own", x.Name, is, want),
			Hint: "export it as docs/ABI.md says, or under another name"}
	}
	return nil
}

// checkImports refuses what no host module offers, before anything is spent on
// the module.
func checkImports(r *rewrite.Artifact, o CompileOptions) error {
	offered := map[string]*HostFunc{}
	for _, m := range append([]HostModule{wasiModule()}, o.Modules...) {
		for i := range m.Funcs {
			offered[m.Name+"."+m.Funcs[i].Name] = &m.Funcs[i]
		}
	}
	var missing []string
	for _, im := range r.Imports {
		name := im.Module + "." + im.Name
		f := offered[name]
		switch {
		case f == nil || im.Kind != "func":
			missing = append(missing, name)
		case f.signature() != im.Type:
			missing = append(missing, fmt.Sprintf("%s%s (it is %s)", name, im.Type, f.signature()))
		}
	}
	if len(missing) == 0 {
		return nil
	}
	if len(missing) > 5 {
		missing = append(missing[:5], "…")
	}
	hint := "guests may import " + abi.WASI + " and " + abi.Module + " (docs/ABI.md)"
	if strings.HasPrefix(missing[0], "gojs.") {
		hint = "build with GOOS=wasip1, not GOOS=js"
	}
	return &wray.Error{
		Code: wray.CodeUnknownImport, Message: "nothing offers " + strings.Join(missing, ", "), Hint: hint,
	}
}

// mergeSegments lays segments over each other in order and returns the result
// as runs of 64 KiB pages without their zeros at both ends.
func mergeSegments(segments []rewrite.Segment) []rewrite.Segment {
	pages := map[uint32][]byte{}
	for _, s := range segments {
		off, data := uint64(s.Offset), s.Data
		for len(data) > 0 {
			p := uint32(off / wasmPage)
			page := pages[p]
			if page == nil {
				page = make([]byte, wasmPage)
				pages[p] = page
			}
			n := copy(page[off%wasmPage:], data)
			data, off = data[n:], off+uint64(n)
		}
	}
	var runs []rewrite.Segment
	for p, page := range pages {
		lo, hi := 0, len(page)
		for lo < hi && page[lo] == 0 {
			lo++
		}
		for hi > lo && page[hi-1] == 0 {
			hi--
		}
		if lo < hi {
			runs = append(runs, rewrite.Segment{Offset: p*wasmPage + uint32(lo), Data: page[lo:hi]})
		}
	}
	sort.Slice(runs, func(i, j int) bool { return runs[i].Offset < runs[j].Offset })
	return runs
}
