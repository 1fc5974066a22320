package codecache

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/host/jail"
	"github.com/wray-project/wray/host/link"
	"github.com/wray-project/wray/wasm/rewrite"
)

// Compiler says how compiler processes are started.
type Compiler struct {
	Path      string   // the program; "": this one
	Args      []string // the verb that makes it call RunCompiler, followed by the output directory and limits
	AllowWeak bool     // run on a machine that cannot lock the process up
}

// The message between a node and a compiler: a module to compile, in a file.
const kindCompile link.Kind = 1

// compilerMemory bounds the address space of a compiler.
const compilerMemory = 8 << 30

// linkFD is the compiler's end of the link.
const linkFD = 3

var nativeName = regexp.MustCompile(`^wazero-[A-Za-z0-9._-]+/[0-9a-f]{64}$`)

// compile compiles a module in a process of its own and keeps the result, or
// that it was refused.
func (c *Cache) compile(ctx context.Context, dir, name, sum string, module []byte) (Entry, error) {
	out, err := os.MkdirTemp(dir, "compile-")
	if err != nil {
		return Entry{}, fmt.Errorf("compile: %w", err)
	}
	defer os.RemoveAll(out)
	if err := c.spawn(ctx, out, module); err != nil {
		var e *wray.Error
		if errors.As(err, &e) && (e.Code == wray.CodeInvalidModule || e.Code == wray.CodeUnknownImport || e.Code == wray.CodeLimitExceeded || e.Code == wray.CodeTrap) {
			if werr := c.writeManifest(dir, name, manifest{Module: sum, Identity: c.cfg.Identity, Refused: e}); werr != nil {
				return Entry{}, werr
			}
		}
		return Entry{}, err
	}
	native, err := oneEntry(filepath.Join(out, "native"))
	if err != nil {
		return Entry{}, err
	}
	m := manifest{Module: sum, Identity: c.cfg.Identity, Native: native}
	from := filepath.Join(out, "native", native)
	artifact := filepath.Join(out, "artifact")
	for path, to := range map[string]*string{from: &m.NativeHash, artifact: &m.ArtifactHash} {
		if st, err := os.Lstat(path); err != nil || !st.Mode().IsRegular() {
			return Entry{}, fmt.Errorf("the compiler left no file %s", filepath.Base(path))
		}
		if *to, err = hashFile(path); err != nil {
			return Entry{}, err
		}
	}
	e := Entry{CacheDir: dir, NativePath: filepath.Join(dir, native), ArtifactPath: filepath.Join(dir, name+".artifact")}
	if err := os.MkdirAll(filepath.Dir(e.NativePath), 0o700); err != nil {
		return Entry{}, err
	}
	if err := errors.Join(os.Rename(from, e.NativePath), os.Rename(artifact, e.ArtifactPath)); err != nil {
		return Entry{}, fmt.Errorf("keep compiled code: %w", err)
	}
	if err := c.writeManifest(dir, name, m); err != nil {
		return Entry{}, err
	}
	c.trim(dir, name)
	return e, nil
}

// oneEntry returns the one file below the engine's cache directory that a
// compiler has filled, as a path below it. Anything else there is refused: the
// process that wrote it has read a stranger's bytes.
func oneEntry(dir string) (string, error) {
	var found []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			return nil
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		if !d.Type().IsRegular() || !nativeName.MatchString(filepath.ToSlash(rel)) {
			return fmt.Errorf("the compiler left %q", rel)
		}
		found = append(found, rel)
		return nil
	})
	if err != nil {
		return "", fmt.Errorf("look at compiled code: %w", err)
	}
	if len(found) != 1 {
		return "", fmt.Errorf("the compiler left %d files of compiled code, not one", len(found))
	}
	return found[0], nil
}

// spawn runs the compiler process over a module and returns its verdict.
func (c *Cache) spawn(ctx context.Context, out string, module []byte) error {
	// What admission alone refuses needs no process.
	if err := rewrite.Admit(module, rewrite.DefaultAdmitLimits()); err != nil {
		return err
	}
	in, err := os.CreateTemp(filepath.Dir(out), "module-")
	if err != nil {
		return err
	}
	defer in.Close()
	os.Remove(in.Name())
	if _, err := in.Write(module); err != nil {
		return fmt.Errorf("pass the module on: %w", err)
	}
	conn, child, err := link.Pair(link.Options{})
	if err != nil {
		return fmt.Errorf("start a compiler: %w", err)
	}
	budget := rewrite.CompileBudget(len(module))
	args := append(append([]string{}, c.cfg.Compiler.Args...), out, budget.String())
	if c.cfg.Compiler.AllowWeak {
		args = append(args, "weak")
	}
	proc, err := jail.Spawn(jail.Config{Path: c.cfg.Compiler.Path, Args: args, Files: []*os.File{child}})
	child.Close()
	if err != nil {
		conn.Close()
		return fmt.Errorf("start a compiler: %w", err)
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = conn.Serve(context.Background(), func(_ context.Context, m link.Message) (link.Message, error) {
			m.CloseFiles()
			return link.Message{}, errors.New("a compiler asks for nothing")
		})
	}()
	defer func() {
		conn.Close()
		<-served
		proc.Kill()
		proc.Wait()
	}()
	// Processor time is bounded by the kernel; the wall clock is for a machine
	// that has none to give.
	wall, cancel := context.WithTimeout(ctx, 10*budget+10*time.Second)
	defer cancel()
	m, err := conn.Call(wall, link.Message{Kind: kindCompile, Files: []*os.File{in}})
	m.CloseFiles()
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return &wray.Error{Code: wray.CodeCanceled, Message: "compilation was canceled"}
	case errors.Is(err, link.ErrClosed) || wall.Err() != nil:
		proc.Kill()
		exit := proc.Wait()
		e := &wray.Error{Code: wray.CodeLimitExceeded,
			Message: fmt.Sprintf("compiling the module took more than it may: the compiler %s", exit),
			Limit:   &wray.Limit{Name: "compile time", Value: budget.Milliseconds(), Unit: "ms"},
			Hint:    "split the largest functions of the module"}
		if msg := proc.Stderr(); strings.Contains(msg, "out of memory") || strings.Contains(msg, "cannot allocate") {
			e.Limit = &wray.Limit{Name: "compile memory", Value: compilerMemory, Unit: "bytes"}
		} else if !exit.Killed() && exit.Signal == "" {
			e.Trace = strings.TrimSpace(msg)
		}
		return e
	}
	return err
}

// RunCompiler is the program of a compiler process: it locks itself up, reads
// one module from the link and calls compile with the output directory. args
// follow the verb.
func RunCompiler(args []string, compile func(ctx context.Context, module []byte, dir string) error) int {
	if err := runCompiler(args, compile); err != nil {
		fmt.Fprintln(os.Stderr, "wray:", err)
		return 1
	}
	return 0
}

func runCompiler(args []string, compile func(ctx context.Context, module []byte, dir string) error) error {
	if len(args) < 2 {
		return errors.New("a compiler needs its output directory and its budget")
	}
	budget, err := time.ParseDuration(args[1])
	if err != nil {
		return err
	}
	p := jail.Compiler(args[0], budget, compilerMemory, linkFD)
	p.AllowWeak = len(args) > 2 && args[2] == "weak"
	if _, err := jail.Enter(p); err != nil {
		return err
	}
	conn, err := link.FromFile(os.NewFile(linkFD, "link"), link.Options{})
	if err != nil {
		return err
	}
	defer conn.Close()
	return conn.Serve(context.Background(), func(ctx context.Context, m link.Message) (link.Message, error) {
		defer m.CloseFiles()
		if m.Kind != kindCompile || len(m.Files) != 1 {
			return link.Message{}, fmt.Errorf("unknown message %d", m.Kind)
		}
		module, err := readAll(m.Files[0])
		if err != nil {
			return link.Message{}, err
		}
		return link.Message{}, compile(ctx, module, args[0])
	})
}

// readAll reads a file from its beginning, wherever its offset is.
func readAll(f *os.File) ([]byte, error) {
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	b := make([]byte, st.Size())
	if _, err := f.ReadAt(b, 0); err != nil && len(b) > 0 {
		return nil, fmt.Errorf("read the module: %w", err)
	}
	return b, nil
}
