//go:build unix

package e2e

import (
	"bufio"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestDurable kills nodes, without a word, while a durable actor counts. What it
// had answered is there in the next one; of what it had not, one call at most:
// the one whose answer the driver had not written down yet.
func TestDurable(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	dir, notes := t.TempDir(), t.TempDir()
	args := func(to int) []string {
		return []string{"run", "--state", dir, "--dir", notes + ":/notes", "./tests/e2e/testdata/durable", "--", strconv.Itoa(to), "/notes/log"}
	}
	last := 0
	for round := range 8 {
		cmd := exec.Command(wray, args(1_000_000)...)
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
		stop := 1 + rng.IntN(60)
		lines := bufio.NewScanner(out)
		for i := 0; lines.Scan(); i++ {
			if i == stop {
				_ = cmd.Process.Kill()
			}
		}
		_ = cmd.Wait()
		written, err := os.ReadFile(filepath.Join(notes, "log"))
		if err != nil {
			t.Fatalf("round %d: %v\n%s", round, err, errs.String())
		}
		numbers := strings.Fields(string(written))
		if err := os.Remove(filepath.Join(notes, "log")); err != nil {
			t.Fatal(err)
		}
		for i, text := range numbers {
			n, err := strconv.Atoi(text)
			if err != nil || n != last+1 && (i > 0 || round == 0 || n != last+2) {
				t.Errorf("round %d: after %d comes %q", round, last, text)
			}
			last = n
		}
	}
	if r := run(t, "", args(last+3)...); r.code != 0 || r.stdout == "" {
		t.Errorf("exit %d\n%s%s", r.code, r.stdout, r.stderr)
	}
	if r := run(t, "", "run", "./tests/e2e/testdata/durable", "--", "1"); r.code == 0 || !strings.Contains(r.stderr, "--state DIR") {
		t.Errorf("without a directory: exit %d\n%s", r.code, r.stderr)
	}
}
