package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"
)

// spread is a command with something for each pass to do: a loop, recursion,
// data and a mutable global.
const spread = `package main

import "os"

var total int

func fib(n int) int {
	if n < 2 {
		return n
	}
	return fib(n-1) + fib(n-2)
}

func main() {
	for i := range 20 {
		total += fib(i)
	}
	os.Stdout.WriteString("fibonacci ")
	for digits := 10000; digits > 0; digits /= 10 {
		os.Stdout.Write([]byte{byte('0' + total/digits%10)})
	}
	os.Stdout.WriteString("\n")
}
`

const spreadSays = "fibonacci 10945\n"

// TestRewrite holds that what wray module rewrite writes runs in an engine that
// knows nothing of wray, given the two imports of the meter, and does what the
// module did; and that the meter stops it there, too.
func TestRewrite(t *testing.T) {
	in := program(t, spread)
	out := in + ".metered"
	if r := run(t, "", "module", "rewrite", in, "-o", out, "--meter"); r.code != 0 || r.stdout+r.stderr != "" {
		t.Fatalf("%+v", r)
	}
	wasm, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	type outcome struct {
		said  string
		ticks int
		err   error
	}
	execute := func(wasm []byte, fuel func(tick int) uint64) (o outcome) {
		ctx := t.Context()
		r := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfigInterpreter())
		defer r.Close(ctx)
		wasi_snapshot_preview1.MustInstantiate(ctx, r)
		i64 := []api.ValueType{api.ValueTypeI64}
		_, err := r.NewHostModuleBuilder("wray_meter").
			NewFunctionBuilder().WithGoFunction(api.GoFunc(func(_ context.Context, s []uint64) {
			o.ticks++
			s[0] = fuel(o.ticks)
		}), i64, i64).Export("tick").
			NewFunctionBuilder().WithGoFunction(api.GoFunc(func(context.Context, []uint64) { panic("overflow") }), nil, nil).Export("overflow").
			Instantiate(ctx)
		if err != nil {
			t.Fatal(err)
		}
		var stdout bytes.Buffer
		m, err := r.InstantiateWithConfig(ctx, wasm, wazero.NewModuleConfig().WithStartFunctions().WithStdout(&stdout))
		if err != nil {
			t.Fatal(err)
		}
		if depth, ok := m.ExportedGlobal("wray:depth").(api.MutableGlobal); ok {
			depth.Set(32 << 20)
		}
		_, o.err = m.ExportedFunction("_start").Call(ctx)
		o.said = stdout.String()
		return o
	}
	plenty := func(int) uint64 { return 100_000 }
	if o := execute(wasm, plenty); o.said != spreadSays || o.ticks == 0 {
		t.Errorf("metered: %+v", o)
	}
	type enough struct{}
	if o := execute(wasm, func(tick int) uint64 {
		if tick == 3 {
			panic(enough{})
		}
		return 1000
	}); o.ticks != 3 || o.said != "" || o.err == nil {
		t.Errorf("stopped at the third tick: %+v", o)
	}
	plain, err := os.ReadFile(in)
	if err != nil {
		t.Fatal(err)
	}
	if o := execute(plain, plenty); o.said != spreadSays || o.ticks != 0 {
		t.Errorf("as it was: %+v", o)
	}
}

// TestRewriteInNode does so with the engine of Node.js.
func TestRewriteInNode(t *testing.T) {
	node, err := exec.LookPath("node")
	if err != nil {
		t.Skip("SKIP: it needs Node.js: apt-get install -y --no-install-recommends nodejs")
	}
	in := program(t, spread)
	out := in + ".metered"
	if r := run(t, "", "module", "rewrite", in, "-o", out, "--meter"); r.code != 0 {
		t.Fatalf("%+v", r)
	}
	script := filepath.Join(t.TempDir(), "run.mjs")
	if err := os.WriteFile(script, []byte(`import { readFileSync } from "node:fs";
import { WASI } from "node:wasi";
const wasi = new WASI({ version: "preview1", args: ["spread"] });
let ticks = 0;
const meter = { tick: () => { ticks++; return 100000n; }, overflow: () => { throw new Error("overflow"); } };
const module = new WebAssembly.Module(readFileSync(process.argv[2]));
const instance = new WebAssembly.Instance(module, { wasi_snapshot_preview1: wasi.wasiImport, wray_meter: meter });
instance.exports["wray:depth"].value = 32n << 20n;
process.on("exit", () => process.stdout.write("ticks " + (ticks > 0) + "\n"));
wasi.start(instance);
`), 0o600); err != nil {
		t.Fatal(err)
	}
	said, err := exec.CommandContext(t.Context(), node, "--no-warnings", script, out).CombinedOutput()
	if err != nil || string(said) != spreadSays+"ticks true\n" {
		t.Errorf("%v\n%s", err, said)
	}
}

// TestRewriteSnapshot holds what a module is without its segments: nothing is
// left of them, and its globals are exported.
func TestRewriteSnapshot(t *testing.T) {
	in := program(t, spread)
	out := in + ".apart"
	if r := run(t, "", "module", "rewrite", in, "--output", out, "--meter", "--snapshot"); r.code != 0 {
		t.Fatalf("%+v", r)
	}
	before, err := os.ReadFile(in)
	if err != nil {
		t.Fatal(err)
	}
	after, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	if text := []byte("fibonacci "); !bytes.Contains(before, text) || bytes.Contains(after, text) {
		t.Error("its data is still in it")
	}
	ctx := t.Context()
	r := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfigInterpreter())
	defer r.Close(ctx)
	wasi_snapshot_preview1.MustInstantiate(ctx, r)
	i64 := []api.ValueType{api.ValueTypeI64}
	if _, err := r.NewHostModuleBuilder("wray_meter").
		NewFunctionBuilder().WithGoFunction(api.GoFunc(func(context.Context, []uint64) {}), i64, i64).Export("tick").
		NewFunctionBuilder().WithGoFunction(api.GoFunc(func(context.Context, []uint64) {}), nil, nil).Export("overflow").
		Instantiate(ctx); err != nil {
		t.Fatal(err)
	}
	m, err := r.InstantiateWithConfig(ctx, after, wazero.NewModuleConfig().WithStartFunctions())
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"wray:fuel", "wray:depth", "wray:g0"} {
		if _, ok := m.ExportedGlobal(name).(api.MutableGlobal); !ok {
			t.Errorf("no global %s", name)
		}
	}
}

// TestInspect holds what wray module inspect says of a command of Go, of a
// program of tasks, and of a module that asks for what there is not.
func TestInspect(t *testing.T) {
	type inspection struct {
		Kind      string
		Size      int
		Functions int
		Min       int `json:"memory_min_pages"`
		Max       int `json:"memory_max_pages"`
		Imports   []struct{ Module, Name, Type, Grant string }
		Exports   []struct{ Name, Kind, Type string }
	}
	stranger := filepath.Join(t.TempDir(), "stranger.wasm")
	// (module (import "env" "emscripten_run_script" (func)) (memory (export "memory") 1 2))
	if err := os.WriteFile(stranger, []byte("\x00asm\x01\x00\x00\x00\x01\x04\x01\x60\x00\x00\x02\x1d\x01\x03env\x15emscripten_run_script\x00\x00"+
		"\x05\x04\x01\x01\x01\x02\x07\x0a\x01\x06memory\x02\x00"), 0o600); err != nil {
		t.Fatal(err)
	}
	command := program(t, spread)
	for _, c := range []struct {
		of, kind string
		grants   map[string]string // of some imports
		exports  map[string]string
	}{
		{command, "command", map[string]string{"wasi_snapshot_preview1.fd_write": "", "wasi_snapshot_preview1.proc_exit": ""}, map[string]string{"_start": "func", "memory": "memory"}},
		{"./examples/pi", "tasks", map[string]string{"wray_v1.submit": "tasks", "wray_v1.object_get": "objects", "wray_v1.version": "always"}, map[string]string{"wray_call": "func"}},
		{stranger, "library", map[string]string{"env.emscripten_run_script": "refused"}, map[string]string{"memory": "memory"}},
	} {
		name := filepath.Base(c.of)
		r := run(t, "", "module", "inspect", "--json", c.of)
		if key := regexp.MustCompile(`"[A-Z]\w*":`).FindString(r.stdout); key != "" {
			t.Errorf("%s: the key %s is not as those of the rest", name, key)
		}
		var i inspection
		if err := json.Unmarshal([]byte(r.stdout), &i); r.code != 0 || err != nil {
			t.Errorf("%s: %v, exit %d\n%s", name, err, r.code, r.stderr)
			continue
		}
		if i.Kind != c.kind || i.Min < 1 || i.Max < i.Min || i.Size == 0 || c.kind != "library" && i.Functions < 100 {
			t.Errorf("%s: %+v", name, i)
		}
		if c.of == stranger && (i.Min != 1 || i.Max != 2 || i.Functions != 0 || i.Size != 63) {
			t.Errorf("%s: %+v", name, i)
		}
		got := map[string]string{}
		for _, im := range i.Imports {
			if im.Type == "" || im.Grant == "" {
				t.Errorf("%s: %+v", name, im)
			}
			got[im.Module+"."+im.Name] = im.Grant
		}
		for im, grant := range c.grants {
			if g := got[im]; g == "" || grant != "" && g != grant || grant == "" && g == "refused" {
				t.Errorf("%s: %s gets %q", name, im, g)
			}
		}
		kinds := map[string]string{}
		for _, ex := range i.Exports {
			kinds[ex.Name] = ex.Kind
		}
		for ex, kind := range c.exports {
			if kinds[ex] != kind {
				t.Errorf("%s: export %s is %q", name, ex, kinds[ex])
			}
		}
		text := run(t, "", "module", "inspect", c.of)
		lines := []string{`kind +` + c.kind, `size +\d+ bytes, \d+ functions`, `memory +\d+ to \d+ pages of 64 KiB`, `reset +\S+`, `imports +\d+`, `exports +\d+`}
		for im, grant := range got {
			lines = append(lines, ` +`+regexp.QuoteMeta(im)+` .* `+regexp.QuoteMeta(grant))
		}
		for _, l := range lines {
			if !regexp.MustCompile(`(?m)^`+l+` *$`).MatchString(text.stdout) && !strings.HasPrefix(l, "reset") || text.code != 0 {
				t.Errorf("%s: no line %s in\n%s%s", name, l, text.stdout, text.stderr)
			}
		}
	}
	r := run(t, "", "run", stranger)
	if r.code != 1 || !strings.Contains(r.stderr, "UnknownImport") || !strings.Contains(r.stderr, "emscripten_run_script") {
		t.Errorf("run: %+v", r)
	}
}
