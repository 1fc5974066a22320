//go:build unix

package hostile

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/tetratelabs/wazero"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/host/codecache"
)

// bombEnv names the case that a child of the test compiles.
const bombEnv = "HOSTILE_BOMB"

// TestBombs compiles each bomb in a process that may use the CPU time that
// codecache.Budget gives it, and holds that the limit, which the system
// enforces, is what ends it.
func TestBombs(t *testing.T) {
	if name := os.Getenv(bombEnv); name != "" {
		compileBomb(name)
		return
	}
	if testing.Short() {
		t.Skip("SKIP: -short: each bomb takes seconds of CPU time")
	}
	for _, c := range Cases() {
		if c.Stage != Compile || c.Want != wray.CodeLimitExceeded {
			continue
		}
		t.Run(c.Name, func(t *testing.T) {
			budget := codecache.Budget(len(c.Wasm()))
			cmd := exec.Command(os.Args[0], "-test.run=^TestBombs$")
			cmd.Env = append(os.Environ(), bombEnv+"="+c.Name)
			out, err := cmd.CombinedOutput()
			used := cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
			if err == nil {
				t.Fatalf("compiled in %v, within the budget of %v: it is no bomb\n%s", used, budget, out)
			}
			s, ok := cmd.ProcessState.Sys().(syscall.WaitStatus)
			if !ok || !s.Signaled() || s.Signal() != syscall.SIGKILL && s.Signal() != syscall.SIGXCPU {
				t.Fatalf("%v\n%s", err, out)
			}
			// Limits are whole seconds.
			if used > budget+2*time.Second {
				t.Errorf("used %v of %v", used, budget)
			}
			t.Logf("%d bytes, killed after %v", len(c.Wasm()), used)
		})
	}
}

func compileBomb(name string) {
	for _, c := range Cases() {
		if c.Name != name {
			continue
		}
		wasm := c.Wasm()
		s := uint64((codecache.Budget(len(wasm)) + time.Second - 1) / time.Second)
		if err := syscall.Setrlimit(syscall.RLIMIT_CPU, &syscall.Rlimit{Cur: s, Max: s}); err != nil {
			fmt.Println(err)
			os.Exit(3)
		}
		ctx := context.Background()
		r := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfigCompiler())
		_, err := r.CompileModule(ctx, wasm)
		fmt.Println("compiled:", err)
	}
}
