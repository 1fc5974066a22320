// Package child is what the processes do that a node starts: its workers, and
// compilers. They are the same program under verbs that are not for users, and
// begin before anything else of it: what only a node needs costs them nothing.
package child

import (
	"context"
	"fmt"
	"os"

	"github.com/wray-project/wray/host/codecache"
	"github.com/wray-project/wray/host/jail"
	"github.com/wray-project/wray/host/sandbox"
	"github.com/wray-project/wray/host/worker"
	"github.com/wray-project/wray/internal/link"
)

// The verbs.
const (
	WorkerVerb   = "worker-process"
	CompilerVerb = "compiler-process"
)

// LinkFD is the descriptor of a worker's end of its link.
const LinkFD = 3

// Run runs the program as one of these processes, where its arguments, with its
// name, say so. It returns the exit code when that ends; false where the program
// is to be something else.
func Run(args []string) (code int, ok bool) {
	if len(args) < 2 {
		return 0, false
	}
	switch args[1] {
	case WorkerVerb:
		return RunWorker(args[2:]), true
	case CompilerVerb:
		return RunCompiler(args[2:]), true
	}
	return 0, false
}

// RunWorker is the program of a worker process.
func RunWorker(args []string) int {
	if len(args) < 1 {
		return failed(fmt.Errorf("a worker needs its cache directory"))
	}
	worker.Mappings() // asks the kernel while that can be asked
	p := jail.Worker(args[0], append(sandbox.Prepare(), LinkFD)...)
	p.AllowWeak = len(args) > 1 && args[1] == "weak"
	applied, err := jail.Enter(p)
	if err != nil {
		return failed(err)
	}
	conn, err := link.FromFile(os.NewFile(LinkFD, "link"), worker.LinkOptions())
	if err != nil {
		return failed(err)
	}
	defer conn.Close()
	if err := worker.Serve(context.Background(), conn, applied.String()); err != nil {
		return failed(err)
	}
	return 0
}

// RunCompiler is the program of a compiler process.
func RunCompiler(args []string) int {
	return codecache.RunCompiler(args, func(ctx context.Context, wasm []byte, dir string) error {
		return sandbox.Compile(ctx, wasm, dir, sandbox.CompileOptions{Modules: []sandbox.HostModule{worker.HostModule()}})
	})
}

func failed(err error) int {
	fmt.Fprintln(os.Stderr, "wray:", err)
	return 1
}
