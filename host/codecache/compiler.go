package codecache

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/host/jail"
	"github.com/wray-project/wray/internal/link"
)

// Compiler says how compiler processes are started.
type Compiler struct {
	Path      string   // the program; "": this one
	Args      []string // the verb that makes it call RunCompiler; the output directory and limits follow
	AllowWeak bool     // run on a machine that cannot lock the process up

	budget time.Duration // of processor time; 0: Budget says. Tests shorten it
}

// The message between a node and a compiler: a module to compile, in a file.
const kindCompile link.Kind = 1

// compilerMemory bounds the address space of a compiler.
const compilerMemory = 8 << 30

// linkFD is the compiler's end of the link.
const linkFD = 3

// exitJail is the exit status of a compiler that did not come to compiling.
const exitJail = 70

// exitBudget is that of one that has used up its processor time.
const exitBudget = 71

// lastBreath is how long a process may take to end after its link has.
const lastBreath = time.Second

// Budget returns how much CPU time the process that compiles a module
// of size bytes may use before it ends. Real modules were seen to need
// 0.3 to 1.7 s a MiB, the small ones most, before metering adds its part; the
// bombs that admission cannot tell from real code are small, and end within two
// seconds.
func Budget(size int) time.Duration {
	const (
		start  = 1900 * time.Millisecond
		free   = 512 << 10 // bytes that start is for
		perKiB = 3 * time.Second / 1024
	)
	return start + perKiB*time.Duration(max(size-free, 0)/1024)
}

// verdict is how a compilation ended.
type verdict struct {
	err error // nil: the output is there
	// refused is set when compiling the module again would end the same: the
	// module is at fault, not the machine or the moment.
	refused *wray.Error
	// killed is set when somebody else ended the compiler: a kernel short of
	// memory, or a person.
	killed bool
}

func refuse(e *wray.Error) verdict { return verdict{err: e, refused: e} }

// spawned counts the compilers of this process, to name their control groups.
var spawned atomic.Uint64

// compilerWeight is a compiler's share of a busy processor; everyone's default
// is 100.
const compilerWeight = 50

// run compiles a module into out in a process of its own. That process has
// ended when run returns.
func (c Compiler) run(ctx context.Context, module []byte, out string) verdict {
	in, err := moduleFile(filepath.Dir(out), module)
	if err != nil {
		return verdict{err: fmt.Errorf("pass the module on: %w", err)}
	}
	defer in.Close()
	conn, child, err := link.Pair(link.Options{})
	if err != nil {
		return verdict{err: fmt.Errorf("start a compiler: %w", err)}
	}
	budget := slowness * Budget(len(module))
	if c.budget > 0 {
		budget = c.budget
	}
	args := append(append([]string{}, c.Args...), out, budget.String())
	if c.AllowWeak {
		args = append(args, weakArg)
	}
	// Its own limits hold it where there are no control groups; in one, the
	// user's other programs go before it, too.
	group, err := jail.NewCgroup(fmt.Sprintf("compiler-%d", spawned.Add(1)), jail.CgroupLimits{CPUWeight: compilerWeight})
	if err != nil {
		group = nil
	} else {
		defer group.Close() // after the process has ended
	}
	proc, err := jail.Spawn(jail.Config{Path: c.Path, Args: args, Files: []*os.File{child}, Cgroup: group})
	child.Close()
	if err != nil {
		conn.Close()
		return verdict{err: fmt.Errorf("start a compiler: %w", err)}
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = conn.Serve(context.Background(), func(_ context.Context, m link.Message) (link.Message, error) {
			m.CloseFiles()
			return link.Message{}, errors.New("a compiler asks for nothing")
		})
	}()
	// Processor time is bounded by the kernel; the wall clock is for a machine
	// that has none to give, or a compiler that waits.
	wall, cancel := context.WithTimeout(ctx, 10*budget+10*time.Second)
	m, err := conn.Call(wall, link.Message{Kind: kindCompile, Files: []*os.File{in}})
	late := wall.Err() != nil
	cancel()
	m.CloseFiles()
	lingers := false
	if errors.Is(err, link.ErrClosed) && !late {
		// It is dying, and how it dies is the verdict; one that only closed its
		// link is not waited for.
		select {
		case <-proc.Done():
		case <-time.After(lastBreath):
			lingers = true
		}
	}
	proc.Kill()
	exit := proc.Wait()
	conn.Close()
	<-served
	switch {
	case err == nil:
		return verdict{}
	case ctx.Err() != nil:
		return verdict{err: &wray.Error{Code: wray.CodeCanceled, Message: "compilation was canceled"}}
	case late:
		return verdict{err: overloaded(10*budget + 10*time.Second)}
	case lingers:
		return verdict{err: &wray.Error{Code: wray.CodeInternal, Message: "the compiler was killed, as it closed its link and did not end",
			Hint: "the module may have taken the compiler over: keep it, and do not run it again"}}
	case errors.Is(err, link.ErrClosed):
		return died(exit, proc.Stderr(), budget)
	}
	return verdictOf(err)
}

// verdictOf sorts an error that names its cause.
func verdictOf(err error) verdict {
	var e *wray.Error
	if errors.As(err, &e) {
		switch e.Code {
		case wray.CodeInvalidModule, wray.CodeUnknownImport, wray.CodeLimitExceeded, wray.CodeTrap:
			return refuse(e)
		}
	}
	return verdict{err: err}
}

func overloaded(d time.Duration) *wray.Error {
	return &wray.Error{
		Code:    wray.CodeLimitExceeded,
		Message: "compiling the module did not end in time, though it used little of it",
		Limit:   &wray.Limit{Name: "compile time", Value: d.Milliseconds(), Unit: "ms"},
		Hint:    "the machine may be overloaded: try again",
	}
}

// died explains the end of a compiler that gave no verdict.
func died(exit jail.Exit, stderr string, budget time.Duration) verdict {
	stderr = strings.TrimSpace(strings.ToValidUTF8(stderr, "?"))
	switch {
	case exit.Code == exitJail:
		return verdict{err: fmt.Errorf("start a compiler: %s", strings.TrimPrefix(stderr, "wray: "))}
	// Killed so late it did not end when it was told to.
	case exit.Code == exitBudget, exit.Killed() && exit.CPU >= budget:
		return refuse(&wray.Error{
			Code:    wray.CodeLimitExceeded,
			Message: fmt.Sprintf("compiling the module takes too long: the compiler was stopped after %v of processor time", exit.CPU.Round(10*time.Millisecond)),
			Limit:   &wray.Limit{Name: "compile time", Value: budget.Milliseconds(), Unit: "ms"},
			Hint:    "split the largest functions of the module",
		})
	case exit.Killed():
		return verdict{killed: true, err: &wray.Error{
			Code:    wray.CodeInternal,
			Message: fmt.Sprintf("the compiler was killed twice, the second time after %v of processor time", exit.CPU.Round(10*time.Millisecond)),
			Hint:    "the machine may be short of memory: free some and try again",
		}}
	// The Go runtime says so when a mapping fails, and there is no other sign.
	case strings.Contains(stderr, "out of memory") || strings.Contains(stderr, "cannot allocate memory"):
		return refuse(&wray.Error{
			Code:    wray.CodeLimitExceeded,
			Message: "compiling the module takes too much memory",
			Limit:   &wray.Limit{Name: "compile memory", Value: compilerMemory, Unit: "bytes"},
			Hint:    "split the largest functions of the module",
		})
	}
	first, _, _ := strings.Cut(stderr, "\n")
	return refuse(&wray.Error{
		Code:    wray.CodeInvalidModule,
		Message: fmt.Sprintf("the module breaks the compiler: %s (%s)", first, exit),
		Trace:   stderr,
		Hint:    "check the module with another tool, such as wasm-validate; if it is valid, this is a bug of the engine",
	})
}

// moduleFile returns a file without a name that holds the module.
func moduleFile(dir string, module []byte) (*os.File, error) {
	f, err := os.CreateTemp(dir, "module-")
	if err != nil {
		return nil, err
	}
	os.Remove(f.Name())
	if _, err := f.Write(module); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// weakArg tells a compiler that it may run on a machine without a jail.
const weakArg = "weak"

// RunCompiler is the program of a compiler process: it locks itself up, reads
// one module from the link and calls compile with the output directory, in
// which compile leaves the file "artifact" and the engine's cache directory
// "native". args follow the verb. It returns the exit status.
func RunCompiler(args []string, compile func(ctx context.Context, module []byte, dir string) error) int {
	if err := runCompiler(args, compile); err != nil {
		fmt.Fprintln(os.Stderr, "wray:", err)
		return exitJail
	}
	return 0
}

func runCompiler(args []string, compile func(ctx context.Context, module []byte, dir string) error) error {
	if len(args) < 2 {
		return errors.New("a compiler needs its output directory and its budget")
	}
	out := args[0]
	budget, err := time.ParseDuration(args[1])
	if err != nil {
		return err
	}
	endOverBudget(budget)
	p := jail.Compiler(out, budget, compilerMemory, linkFD)
	p.AllowWeak = len(args) > 2 && args[2] == weakArg
	if _, err := jail.Enter(p); err != nil {
		return err
	}
	conn, err := link.FromFile(os.NewFile(linkFD, "link"), link.Options{})
	if err != nil {
		return err
	}
	defer conn.Close()
	// It ends when the node has the reply and closes the link.
	return conn.Serve(context.Background(), func(ctx context.Context, m link.Message) (link.Message, error) {
		defer m.CloseFiles()
		if m.Kind != kindCompile || len(m.Files) != 1 {
			return link.Message{}, fmt.Errorf("unknown message %d", m.Kind)
		}
		module, err := readAll(m.Files[0])
		if err != nil {
			return link.Message{}, err
		}
		return link.Message{}, compile(ctx, module, out)
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
