package sandbox

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// oneFunction is a module with an exported _start that does nothing.
var oneFunction = []byte("\x00asm\x01\x00\x00\x00\x01\x04\x01\x60\x00\x00\x03\x02\x01\x00\x07\x0a\x01\x06_start\x00\x00\x0a\x04\x01\x02\x00\x0b")

// TestEntryName holds that wazero names compiled code as entryName does.
func TestEntryName(t *testing.T) {
	dir := t.TempDir()
	if err := Compile(context.Background(), oneFunction, dir, CompileOptions{}); err != nil {
		t.Fatal(err)
	}
	a, err := Rewrite(oneFunction, CompileOptions{})
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(dir, NativeDir, "*", "*"))
	if err != nil || len(files) != 1 || filepath.Base(files[0]) != entryName(a.Wasm) {
		t.Errorf("wazero wrote %v (%v), want one file %s", files, err, entryName(a.Wasm))
	}
}

// TestLoadOnly holds that an engine with a cache directory does not compile
// even where an entry goes, or turns out to be no code, after it was looked at.
func TestLoadOnly(t *testing.T) {
	ctx, dir := context.Background(), t.TempDir()
	a, err := Rewrite(oneFunction, CompileOptions{})
	if err != nil {
		t.Fatal(err)
	}
	e, err := NewEngine(ctx, Config{CacheDir: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close(ctx)
	m, err := e.loadOnly(ctx, a.Wasm)
	if !errors.Is(err, errNotCompiled) {
		t.Errorf("without an entry: %v, %v", m, err)
	}
	dirs, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil || len(dirs) != 1 {
		t.Fatal(dirs, err)
	}
	entry := filepath.Join(dirs[0], entryName(a.Wasm))
	for _, text := range []string{"", "WAZEVO", "WAZEVO\x011", string(make([]byte, 4096))} {
		if err := os.WriteFile(entry, []byte(text), 0o400); err != nil {
			t.Fatal(err)
		}
		if m, err := e.Load(ctx, a, LoadOptions{Native: entry}); err == nil {
			t.Errorf("with %q as its code the module %v was loaded", text, m)
		}
		_ = os.Remove(entry) // wazero may have done so
	}
	if left, _ := filepath.Glob(filepath.Join(dirs[0], "*")); len(left) != 0 {
		t.Errorf("the engine wrote %v", left)
	}
}
