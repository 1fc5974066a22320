package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/wray-project/wray/host/node"
)

// cacheDir returns the cache directory, made where it is missing.
func cacheDir() (string, error) {
	const hint = cacheHint
	dir, err := node.CacheDir()
	if err != nil {
		return "", withHint(err, "%s", hint)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", withHint(fmt.Errorf("the cache directory %s: %w", dir, err), "%s", hint)
	}
	return dir, nil
}

const cacheHint = "set WRAY_CACHE to a directory of your own that you can write; wray doctor checks it"

// hintCache adds to an error of the file system below the cache directory what
// moves that. The error may have come from a worker or the Go tool, as text.
func hintCache(err error, cache string) error {
	if err == nil || !strings.Contains(err.Error(), cache+string(filepath.Separator)) {
		return err
	}
	if h := (*hinted)(nil); errors.As(err, &h) {
		return err
	}
	for _, e := range []syscall.Errno{syscall.ENOSPC, syscall.EROFS, syscall.EACCES} {
		if strings.Contains(err.Error(), e.Error()) {
			if e == syscall.ENOSPC {
				return withHint(err, "the disk of the cache directory %s is full: make room there, or set WRAY_CACHE to a directory on another", cache)
			}
			return withHint(err, "%s", cacheHint)
		}
	}
	return err
}

// program is what a user names on the command line, made ready to run.
type program struct {
	name string
	wasm []byte
	dirs []string // --dir values the program asks for itself
}

// programThere returns an error where a program is not there at all.
func programThere(arg string) error {
	_, err := os.Stat(arg)
	switch {
	case err == nil:
		return nil
	case !errors.Is(err, fs.ErrNotExist):
		return &usageError{withHint(err, "name a package's directory, or a .wasm file")}
	case !strings.Contains(arg, "/"):
		return &usageError{withHint(fmt.Errorf("there is no file or package %s", arg), "name a package by its directory, such as ./%s", arg)}
	}
	return &usageError{withHint(fmt.Errorf("there is no file or package %s", arg), "name a package's directory, or a .wasm file")}
}

// loadProgram reads a .wasm file, or builds a Go package for wasip1.
func loadProgram(ctx context.Context, arg, cacheDir string) (*program, error) {
	if err := programThere(arg); err != nil {
		return nil, err
	}
	if st, err := os.Stat(arg); err != nil || !st.IsDir() {
		b, err := os.ReadFile(arg)
		if err != nil {
			return nil, err
		}
		if !bytes.HasPrefix(b, []byte("\x00asm")) {
			return nil, withHint(fmt.Errorf("%s is not a WebAssembly module", arg),
				"give a Go package directory, or a .wasm file built for WASI preview 1")
		}
		if b, err = withDetached(arg, b); err != nil {
			return nil, err
		}
		return &program{name: strings.TrimSuffix(filepath.Base(arg), ".wasm"), wasm: b}, nil
	}
	return buildPackage(ctx, arg, cacheDir)
}

// buildPackage builds the Go package in dir as a reactor. The output stays in
// the cache, so that the Go tool links only when something changed.
func buildPackage(ctx context.Context, dir, cacheDir string) (*program, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256([]byte(abs))
	outDir := filepath.Join(cacheDir, "build")
	if err := os.MkdirAll(outDir, 0o700); err != nil {
		return nil, err
	}
	out := filepath.Join(outDir, hex.EncodeToString(sum[:12])+".wasm")
	goTool, err := exec.LookPath("go")
	if err != nil {
		return nil, withHint(fmt.Errorf("building %s needs the Go toolchain: %w", dir, err),
			"install Go 1.26, or give a .wasm file")
	}
	// checklinkname=0: the guest binding reaches main.main and the runtime's
	// random state by name.
	cmd := exec.CommandContext(ctx, goTool, "build", "-trimpath", "-buildmode=c-shared",
		"-ldflags=-checklinkname=0", "-o", out, ".")
	cmd.Dir = abs
	cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "CGO_ENABLED=0")
	apart(cmd)
	cmd.WaitDelay = 2 * time.Second
	if msg, err := cmd.CombinedOutput(); err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		err := fmt.Errorf("go build of %s failed:\n%s", dir, indent(string(msg)))
		if hint := buildHint(string(msg)); hint != "" {
			return nil, withHint(err, "%s", hint)
		}
		return nil, err
	}
	wasm, err := os.ReadFile(out)
	if err != nil {
		return nil, err
	}
	dirs, err := directives(abs)
	if err != nil {
		return nil, err
	}
	return &program{name: filepath.Base(abs), wasm: wasm, dirs: dirs}, nil
}

// buildHint is what to do next about what the Go tool says, where that is not
// plain.
func buildHint(msg string) string {
	switch {
	case strings.Contains(msg, "go.mod file not found"), strings.Contains(msg, "cannot find main module"):
		return "a program is in a module, which these make there: go mod init NAME && go mod tidy"
	case strings.Contains(msg, "no required module provides package "+modulePath):
		return "say where the module is, as in: go mod edit -replace " + modulePath + "=/PATH/TO/ITS/CHECKOUT && go mod tidy"
	}
	return ""
}

// modulePath is the module that programs import.
const modulePath = "github.com/wray-project/wray"

// directives reads the //wray:dir lines of a package's main.go: directories
// the program wants when it is run from its source, which the user has before
// their eyes. $GOROOT stands for the Go installation. They are granted
// read-only, whatever they say.
func directives(dir string) ([]string, error) {
	f, err := os.Open(filepath.Join(dir, "main.go"))
	if err != nil {
		return nil, nil // the package's files have other names
	}
	defer f.Close()
	var dirs []string
	sc := bufio.NewScanner(f)
	for sc.Scan() {
		line := sc.Text()
		if strings.HasPrefix(line, "import") || strings.HasPrefix(line, "func") {
			break
		}
		d, ok := strings.CutPrefix(line, "//wray:dir ")
		if !ok {
			continue
		}
		d = strings.TrimSpace(d)
		if strings.Contains(d, "$GOROOT") {
			root, err := exec.Command("go", "env", "GOROOT").Output()
			if err != nil {
				return nil, fmt.Errorf("go env GOROOT: %w", err)
			}
			d = strings.ReplaceAll(d, "$GOROOT", strings.TrimSpace(string(root)))
		}
		if !strings.HasSuffix(d, ":ro") {
			d += ":ro"
		}
		dirs = append(dirs, d)
	}
	return dirs, sc.Err()
}
