package isolation

import (
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
)

// goodModule is an ordinary Go command that prints "alive".
func goodModule(t testing.TB) []byte {
	t.Helper()
	goodOnce.Do(func() {
		good, goodErr = buildGo(`package main

import "fmt"

func main() { fmt.Println("alive") }
`)
	})
	if goodErr != nil {
		t.Fatal(goodErr)
	}
	return good
}

var (
	goodOnce sync.Once
	good     []byte
	goodErr  error
)

// buildGo builds a Go program of one file for wasip1.
func buildGo(src string) ([]byte, error) {
	dir, err := os.MkdirTemp("", "wray-guest")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	for name, text := range map[string]string{"main.go": src, "go.mod": "module guest\n\ngo 1.26\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			return nil, err
		}
	}
	cmd := exec.Command("go", "build", "-o", "out.wasm", ".")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm")
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, &buildError{string(out), err}
	}
	return os.ReadFile(filepath.Join(dir, "out.wasm"))
}

type buildError struct {
	out string
	err error
}

func (e *buildError) Error() string { return e.err.Error() + "\n" + e.out }
