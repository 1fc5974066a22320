//go:build unix

package e2e

import (
	"bufio"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// childrenOf returns the processes that the process pid has started.
func childrenOf(pid int) (children []int) {
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, path := range stats {
		b, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		_, rest, ok := strings.Cut(string(b), ") ")
		if f := strings.Fields(rest); ok && len(f) > 1 && f[1] == strconv.Itoa(pid) {
			child, _ := strconv.Atoi(filepath.Base(filepath.Dir(path)))
			children = append(children, child)
		}
	}
	return children
}

// TestLedger kills nodes, and workers, with transfers between durable actors in
// flight. In the end each transfer is in the books once, and no money is gone.
func TestLedger(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	dir := t.TempDir()
	args := []string{"run", "--state", dir, "./examples/ledger", "--", "5", "400", "7"}
	rounds, most := 10, 0
	if testing.Short() {
		rounds = 3
	}
	for round := range rounds {
		cmd := exec.Command(wray, args...)
		cmd.Dir = root
		var errs strings.Builder
		cmd.Stderr = &errs
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		stop, worker := most+1+rng.IntN(40), rng.IntN(2) == 0 && runtime.GOOS == "linux"
		lines := bufio.NewScanner(out)
		n := 0
		for ; lines.Scan(); n++ {
			if n != stop {
				continue
			}
			if children := childrenOf(cmd.Process.Pid); worker && len(children) > 0 {
				for _, child := range children {
					_ = syscall.Kill(child, syscall.SIGKILL)
				}
			} else {
				_ = cmd.Process.Kill()
			}
		}
		err = cmd.Wait()
		if err == nil && n > stop && round > 2 {
			t.Logf("round %d: it was done, with %d lines, when it was to be killed after %d", round, n, stop)
			break
		}
		if n <= stop || err == nil {
			t.Fatalf("round %d: it ended by itself after %d lines: %v\n%s", round, n, err, errs.String())
		}
		t.Logf("round %d: %d lines, then killed (worker: %t)", round, n, worker)
		most = min(most+20, 300)
	}
	r := run(t, "", args...)
	if r.code != 0 || !regexp.MustCompile(`(?m)^5 accounts have 5000; [1-9][0-9]+ transfers of [0-9]+ in the books, each once$`).MatchString(r.stdout) {
		t.Errorf("exit %d\n%s%s", r.code, r.stdout, r.stderr)
	}
}
