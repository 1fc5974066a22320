package rewrite

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental"

	"github.com/wray-project/wray"
)

// admitAny lets every import pass.
var admitAny = AdmitLimits{Modules: []string{"*"}}

// admitModule writes a module from whole sections, each an id and its content.
func admitModule(sections ...[]byte) []byte {
	m := bytes.Clone(admitPreamble)
	for _, s := range sections {
		m = append(m, s[0])
		m = append(m, admitLEB(len(s)-1)...)
		m = append(m, s[1:]...)
	}
	return m
}

func admitLEB(n int) []byte {
	var b []byte
	for ; n >= 0x80; n >>= 7 {
		b = append(b, byte(n)|0x80)
	}
	return append(b, byte(n))
}

// admitFunc is a module with one function type (i32, i32) -> i32 and one
// function of it, whose body, locals first, is given.
func admitFunc(body ...byte) []byte {
	return admitModule([]byte{1, 1, 0x60, 2, 0x7f, 0x7f, 1, 0x7f}, []byte{3, 1, 0},
		append(append([]byte{10, 1}, admitLEB(len(body))...), body...))
}

func TestAdmitErrors(t *testing.T) {
	for _, c := range []struct {
		name string
		wasm []byte
		l    AdmitLimits
		want string
	}{
		{"section count", append(bytes.Clone(admitPreamble), 1, 5, 0xff, 0xff, 0xff, 0xff, 0x0f), AdmitLimits{},
			"InvalidModule: type section, byte 0xa: 4294967295 types cannot follow in 0 bytes"},
		{"size", make([]byte, 1001), AdmitLimits{Size: 1000},
			"LimitExceeded: byte 0x0: module size: 1001 (limit module size = 1000 bytes)"},
		{"opcode", admitFunc(0, 0x27, 0x0b), AdmitLimits{},
			"InvalidModule: code section, function 0, byte 0x1a: no instruction of WebAssembly 2.0 or of tail calls has the opcode 0x27"},
		{"threads", admitFunc(0, 0x41, 0, 0xfe, 0x10, 2, 0, 0x0b), AdmitLimits{},
			"InvalidModule: code section, function 0, byte 0x1c: the module uses threads (shared memory or atomics), which is refused: sandboxes share no memory, and shared memory is a precise clock"},
		{"locals", admitFunc(1, 100, 0x7f, 0x0b), AdmitLimits{Locals: 101},
			"LimitExceeded: code section, function 0, byte 0x1a: locals of a function: 102 (limit locals of a function = 101)"},
		{"import", admitModule([]byte{1, 1, 0x60, 0, 0}, []byte{2, 1, 3, 'e', 'n', 'v', 1, 'f', 0, 0}), AdmitLimits{},
			`UnknownImport: import section, byte 0x11: the module needs "env"."f", and no host has a module of that name`},
		{"memory import", admitModule([]byte{2, 1, 7, 'w', 'r', 'a', 'y', '_', 'v', '1', 1, 'm', 2, 0, 1}), AdmitLimits{},
			`UnknownImport: import section, byte 0xb: the module imports a memory, "wray_v1"."m"; hosts have functions only`},
		{"text", []byte("\n(module)"), AdmitLimits{}, "InvalidModule: the file is WebAssembly text"},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := Admit(c.wasm, c.l)
			if err == nil || err.Error() != c.want {
				t.Fatalf("got  %v\nwant %s", err, c.want)
			}
			if err.(*wray.Error).Hint == "" {
				t.Error("no hint")
			}
		})
	}
}

// TestAdmitLimits lowers each limit in turn below what a module has.
func TestAdmitLimits(t *testing.T) {
	if got := (AdmitLimits{}).orDefaults(); !reflect.DeepEqual(got, DefaultAdmitLimits()) {
		t.Errorf("orDefaults forgets a field: %+v", got)
	}
	name := func(s string) []byte { return append([]byte{byte(len(s))}, s...) }
	wasm := admitModule(
		[]byte{0, 1, 'x'}, []byte{0, 1, 'x'},
		append(append([]byte{0}, name("name")...), 1, 7, 2, 0, 1, 'f', 1, 1, 'g'),
		[]byte{1, 2, 0x60, 2, 0x7f, 0x7f, 2, 0x7f, 0x7f, 0x60, 0, 0},
		[]byte{2, 2, 1, 'm', 1, 'f', 0, 1, 1, 'm', 1, 'g', 0, 1},
		[]byte{3, 2, 1, 1},
		[]byte{4, 2, 0x70, 0, 2, 0x70, 0, 2},
		[]byte{5, 1, 0, 2},
		[]byte{6, 2, 0x7f, 0, 0x41, 0, 0x0b, 0x7f, 0, 0x41, 0, 0x0b},
		append([]byte{7, 2, 3, 'a', 'b', 'c', 0, 0}, 1, 'b', 0, 0),
		[]byte{9, 2, 1, 0, 1, 0, 1, 0, 1, 0},
		[]byte{12, 2},
		[]byte{10, 2,
			25, 1, 3, 0x7f, 3, 0x40, 3, 0x40, 2, 0x40, 0x41, 0, 0x0e, 2, 0, 0, 0, 0x0b, 0x0b, 0x0b, 0x0c, 0, 0x01, 0x01, 0x01, 0x0b,
			2, 0, 0x0b},
		[]byte{11, 2, 1, 0, 1, 0},
	)
	if err := Admit(wasm, admitAny); err != nil {
		t.Fatal(err)
	}
	for field, n := range map[string]int{
		"Size": len(wasm), "Types": 2, "Imports": 2, "Functions": 4, "Globals": 2, "Exports": 2, "Tables": 2, "TableEntries": 6,
		"ElementSegments": 2, "DataSegments": 2, "MemoryPages": 2, "CustomSections": 3, "NameLength": 4, "NameEntries": 2,
		"AllLocals": 3, "Params": 2, "Results": 2, "Body": 25, "Locals": 3, "Blocks": 7, "Joins": 9, "Nesting": 3, "LoopNesting": 2, "BrTable": 2,
	} {
		l := admitAny
		v := reflect.ValueOf(&l).Elem().FieldByName(field)
		v.SetInt(int64(n))
		if err := Admit(wasm, l); err != nil {
			t.Errorf("%s at %d: %v", field, n, err)
		}
		v.SetInt(int64(n - 1))
		err := Admit(wasm, l)
		var e *wray.Error
		if !errors.As(err, &e) || e.Code != wray.CodeLimitExceeded || e.Limit == nil || e.Limit.Value != int64(n-1) {
			t.Errorf("%s at %d: got %v", field, n-1, err)
		}
	}
	if n := reflect.TypeFor[AdmitLimits]().NumField(); n != 24+2 { // and Modules, JoinsPerByte
		t.Errorf("%d fields, not all are tested here", n)
	}
}

// TestAdmitJoins holds that the bound on joins grows with the body.
func TestAdmitJoins(t *testing.T) {
	const locals, blocks = 500, 1000
	body := []byte{1, 0xf4, 3, 0x7f}
	for range blocks {
		body = append(body, 2, 0x40, 0x0b)
	}
	l := admitAny
	l.JoinsPerByte = 1
	// 502 locals at 1,000 blocks, in 3,005 bytes.
	if err := Admit(admitFunc(append(body, 0x0b)...), l); !errors.Is(err, &wray.Error{Code: wray.CodeLimitExceeded}) {
		t.Errorf("at 1 a byte: %v", err)
	}
	l.JoinsPerByte = (locals+2)*blocks/len(body) + 1
	if err := Admit(admitFunc(append(body, 0x0b)...), l); err != nil {
		t.Errorf("at %d a byte: %v", l.JoinsPerByte, err)
	}
}

// TestAdmitCost pins what is counted.
func TestAdmitCost(t *testing.T) {
	wasm := admitFunc(1, 3, 0x7e, // 3 locals, 2 parameters
		0x03, 0x40, // loop
		0x02, 0x7f, // block (result i32)
		0x20, 0, 0x04, 0x40, 0x0c, 1, 0x05, 0x0c, 2, 0x0b, // if br else br end
		0x20, 0, 0x20, 1, 0x02, 0, 0x1a, 0x0b, // block of type 0
		0x0b, 0x0d, 0, // br_if
		0x20, 0, 0x0e, 3, 0, 0, 0, 0, // br_table of 3 and a default
		0x0b,
		0x20, 0, 0x20, 1, 0x10, 0, 0x0b) // call of type 0
	want := admitCost{size: 44, locals: 5, blocks: 5, jumps: 7, carried: 1 + 3 + 3, nesting: 3, loops: 1, table: 3}
	a := admitter{b: wasm, end: len(wasm), l: admitAny.orDefaults(), fn: -1}
	var got admitCost
	a.onBody = func(_ int, c *admitCost) { got = *c }
	if a.module(); a.err != nil {
		t.Fatal(a.err)
	}
	if got != want {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

// TestAdmitAllocates holds that memory follows what is there, not what is
// claimed.
func TestAdmitAllocates(t *testing.T) {
	for _, count := range []byte{0x0f, 0x00} {
		wasm := append(bytes.Clone(admitPreamble), 3, 5, 0xff, 0xff, 0xff, 0xff, count)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		for range 100 {
			if Admit(wasm, AdmitLimits{}) == nil {
				t.Fatal("admitted")
			}
		}
		runtime.ReadMemStats(&after)
		if n := (after.TotalAlloc - before.TotalAlloc) / 100; n > 16<<10 {
			t.Errorf("%d bytes for a refusal", n)
		}
	}
}

// admitEngineDir returns where the engine's source is; its test data are
// thousands of modules.
func admitEngineDir(t testing.TB) string {
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/tetratelabs/wazero").Output()
	if err != nil {
		t.Skip("SKIP: the engine's source is not in the module cache")
	}
	return strings.TrimSpace(string(out))
}

// TestAdmitEngineCorpus holds that no module that the engine takes is refused,
// but those with typed function references: the engine's decoder takes them
// although the proposal is not enabled.
func TestAdmitEngineCorpus(t *testing.T) {
	ctx := context.Background()
	rt := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfigInterpreter().
		WithCoreFeatures(api.CoreFeaturesV2|experimental.CoreFeaturesTailCall))
	defer rt.Close(ctx)
	admitted, refused := 0, 0
	err := filepath.WalkDir(admitEngineDir(t), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || filepath.Ext(path) != ".wasm" {
			return err
		}
		wasm, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		refusal := Admit(wasm, admitAny)
		if refusal == nil {
			admitted++
			return nil
		}
		refused++
		if strings.Contains(refusal.Error(), noTypedRefs.name) {
			return nil
		}
		if _, err := rt.CompileModule(ctx, wasm); err == nil {
			t.Errorf("%s: the engine takes it: %v", path, refusal)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d admitted, %d refused", admitted, refused)
	if admitted < 3000 {
		t.Errorf("the corpus has only %d modules", admitted)
	}
}

// TestAdmitGo holds that what Go builds is admitted: a small program always,
// the toolchain's largest programs unless in short mode.
func TestAdmitGo(t *testing.T) {
	programs := []string{"cmd/nm"}
	if !testing.Short() {
		programs = append(programs, "cmd/compile", "cmd/go")
	}
	dir := t.TempDir()
	for _, p := range programs {
		t.Run(p, func(t *testing.T) {
			file := filepath.Join(dir, filepath.Base(p)+".wasm")
			cmd := exec.Command("go", "build", "-o", file, p)
			cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm")
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			wasm, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			start := time.Now()
			if err := Admit(wasm, AdmitLimits{}); err != nil {
				t.Fatal(err)
			}
			took := time.Since(start)
			t.Logf("%d bytes in %v, %.0f MB/s", len(wasm), took, float64(len(wasm))/1e6/took.Seconds())
		})
	}
}

func BenchmarkAdmit(b *testing.B) {
	wasm, err := os.ReadFile(filepath.Join(admitEngineDir(b), "imports/wasi_snapshot_preview1/testdata/zig-cc/wasi.wasm"))
	if err != nil {
		b.Skipf("SKIP: %v", err)
	}
	b.SetBytes(int64(len(wasm)))
	b.ReportAllocs()
	for b.Loop() {
		if err := Admit(wasm, AdmitLimits{}); err != nil {
			b.Fatal(err)
		}
	}
}
