package rewrite

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"

	"github.com/wray-project/wray"
)

// FuzzParse feeds bytes to the reader and all passes. Nothing panics, every
// failure is typed, memory stays in proportion, and what the engine takes it
// takes in every form.
func FuzzParse(f *testing.F) {
	f.Add(snapshotModule().encode())
	for i := range 8 {
		data := make([]byte, 100*(i+1))
		for k := range data {
			data[k] = byte(k * (2*i + 1))
		}
		f.Add(generate(data).encode())
	}
	for _, shape := range shapes {
		if b := shape.make().encode(); len(b) < 4096 {
			f.Add(b)
		}
	}
	if dir := engineDir(); dir != "" {
		names, _ := filepath.Glob(filepath.Join(dir, "internal/integration_test/spectest/v2/testdata/*.[05].wasm"))
		for _, name := range names {
			if b, err := os.ReadFile(name); err == nil && len(b) < 2048 {
				f.Add(b)
			}
		}
	}
	valid := validator(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		var out [][]byte
		for _, o := range differOptions {
			a, err := Rewrite(b, o)
			if err != nil {
				var e *wray.Error
				if !errors.As(err, &e) {
					t.Fatalf("untyped error %v", err)
				}
				continue
			}
			if slices.Contains(a.Dropped, "name") {
				return // the engine takes names at their word and runs out of memory
			}
			out = append(out, a.Wasm)
		}
		runtime.ReadMemStats(&after)
		if used := after.TotalAlloc - before.TotalAlloc; used > 64<<20+1000*uint64(len(b)) {
			t.Errorf("%d bytes of input took %d bytes of memory", len(b), used)
		}
		if len(out) == 0 || hugeMemory(b) {
			return
		}
		engine := valid(b)
		for _, w := range out {
			if got := valid(w); (got == nil) != (engine == nil) {
				t.Fatalf("the engine says of the original: %v; rewritten: %v", engine, got)
			}
		}
	})
}

// hugeMemory reports whether b would make the engine allocate a lot.
func hugeMemory(b []byte) bool {
	m, err := parse(b)
	if err != nil {
		return true
	}
	locals := 0
	for i := range m.bodies {
		locals += int(m.bodies[i].nlocals)
	}
	return locals > 100_000
}

// FuzzRewrite makes modules out of bytes and runs them in all forms under both
// engines.
func FuzzRewrite(f *testing.F) {
	for i := range 20 {
		data := make([]byte, 60*(i+1))
		for k := range data {
			data[k] = byte((k*k + 7*k) * (2*i + 1) >> 3)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 3000 {
			return
		}
		for _, config := range engines {
			differ(t, data, config)
		}
	})
}
