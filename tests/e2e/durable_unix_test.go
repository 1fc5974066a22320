//go:build unix

package e2e

import (
	"bufio"
	"math/rand/v2"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestDurable kills nodes, without a word, while a durable actor counts. What it
// had answered is there in the next one; of what it had not, one call at most.
func TestDurable(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	dir := t.TempDir()
	last := 0
	for round := range 8 {
		cmd := exec.Command(wray, "run", "--state", dir, "./tests/e2e/testdata/durable", "--", "1000000")
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
		lines := bufio.NewScanner(out)
		first, stop := 0, 1+rng.IntN(60)
		for i := 0; lines.Scan(); i++ {
			n, err := strconv.Atoi(lines.Text())
			if err != nil {
				t.Errorf("round %d: said %q", round, lines.Text())
			}
			if first == 0 {
				first = n
				// One call may have been put on record, and its answer not printed.
				if n != last+1 && (n != last+2 || round == 0) {
					t.Errorf("round %d: after %d comes %d", round, last, n)
				}
			} else if n != last+1 {
				t.Errorf("round %d: after %d comes %d", round, last, n)
			}
			last = n
			if i == stop {
				_ = cmd.Process.Kill()
			}
		}
		_ = cmd.Wait()
		if first == 0 {
			t.Fatalf("round %d: nothing was counted\n%s", round, errs.String())
		}
	}
	r := run(t, "", "run", "--state", dir, "./tests/e2e/testdata/durable", "--", strconv.Itoa(last+3))
	if r.code != 0 || r.stdout == "" {
		t.Errorf("exit %d\n%s%s", r.code, r.stdout, r.stderr)
	}
	// Another node may not have the directory, and one without says so.
	if r := run(t, "", "run", "./tests/e2e/testdata/durable", "--", "1"); r.code == 0 || !strings.Contains(r.stderr, "--state DIR") {
		t.Errorf("without a directory: exit %d\n%s", r.code, r.stderr)
	}
}
