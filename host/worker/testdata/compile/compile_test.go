// Package compile compiles a guest for tests that run under the race detector,
// where the compiler takes many times as long as without. It is a test, since
// the engine takes code only of a program that tells the same versions.
package compile

import (
	"context"
	"flag"
	"os"
	"testing"

	"github.com/wray-project/wray/host/sandbox"
	"github.com/wray-project/wray/host/worker"
)

var (
	module = flag.String("module", "", "the module to compile")
	into   = flag.String("into", "", "an empty directory for what the compiler makes of it")
)

func TestCompile(t *testing.T) {
	wasm, err := os.ReadFile(*module)
	if err != nil {
		t.Fatal(err)
	}
	if err := sandbox.Compile(context.Background(), wasm, *into, sandbox.CompileOptions{Modules: []sandbox.HostModule{worker.HostModule()}}); err != nil {
		t.Fatal(err)
	}
}
