package sandbox_test

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/wray-project/wray/host/sandbox"
	"github.com/wray-project/wray/host/wasi"
)

// buildGo builds a Go program for wasip1 and returns the module.
func buildGo(t testing.TB, src string, flags ...string) []byte {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "main.go"), []byte(src), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "go.mod"), []byte("module guest\n\ngo 1.26\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("go", append(append([]string{"build", "-o", "out.wasm"}, flags...), ".")...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	b, err := os.ReadFile(filepath.Join(dir, "out.wasm"))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// load rewrites, loads and prepares a module in an engine of its own.
func load(t testing.TB, wasm []byte) *sandbox.Module {
	t.Helper()
	return loadInto(t, wasm, sandbox.Config{})
}

func loadInto(t testing.TB, wasm []byte, cfg sandbox.Config) *sandbox.Module {
	t.Helper()
	ctx := context.Background()
	a, err := sandbox.Rewrite(wasm, sandbox.CompileOptions{})
	if err != nil {
		t.Fatal(err)
	}
	e, err := sandbox.NewEngine(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	m, err := e.Load(ctx, a, sandbox.LoadOptions{Attach: func(sb *sandbox.Sandbox) {
		if err := sb.Configure(&wasi.Config{Args: []string{"guest"}}); err != nil {
			t.Error(err)
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Prepare(ctx, sandbox.Limits{}); err != nil {
		t.Fatal(err)
	}
	return m
}

func TestCommand(t *testing.T) {
	m := load(t, buildGo(t, `package main

import ("fmt"; "os"; "time")

func main() {
	fmt.Println("hello", os.Args[1:])
	time.Sleep(3 * time.Millisecond)
	os.Exit(7)
}`))
	sb, err := m.New(sandbox.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { sb.Close() }()
	for range 3 {
		var out bytes.Buffer
		if err := sb.Configure(&wasi.Config{Args: []string{"guest", "a", "b"}, Stdout: out.Write}); err != nil {
			t.Fatal(err)
		}
		code, err := sb.Start()
		if err != nil || code != 7 || out.String() != "hello [a b]\n" {
			t.Fatalf("got %d, %v, %q", code, err, out.String())
		}
		if _, err := sb.Start(); err != sandbox.ErrSpoilt {
			t.Fatalf("a sandbox that exited ran again: %v", err)
		}
		if !sb.Reset() {
			t.Log("grown: replaced")
			sb.Close()
			if sb, err = m.New(sandbox.Limits{}); err != nil {
				t.Fatal(err)
			}
		}
	}
}
