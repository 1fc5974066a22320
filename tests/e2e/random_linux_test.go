package e2e

import (
	"bufio"
	"encoding/json"
	"flag"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	model "github.com/wray-project/wray/tests/random/program"
)

var (
	programSeed = flag.Uint64("programs.seed", 0, "seed of the random programs; 0: another each time")
	programs    = flag.Int("programs", 10, "how many random programs")
)

// TestRandomPrograms has random programs run from outside of the sandboxes: in a
// session with a node, which is left with nothing, and natively without a node.
// Both do what the model says, as the driver in a sandbox does.
func TestRandomPrograms(t *testing.T) {
	seed := *programSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("seed %d; again with: go test ./tests/e2e -run %s -programs.seed %d", seed, t.Name(), seed)
	client, module := buildBoth(t, "./tests/random/guest")
	dir, err := os.MkdirTemp("", "wray") // a path of t.TempDir may be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	socket := filepath.Join(dir, "node.sock")
	address := "unix://" + socket
	begin(t, address, wray, "start", "--socket", socket)
	t.Run("session", func(t *testing.T) {
		outside(t, seed, func() bool { return memoryAt(t, address).Count <= 1 }, client, address, module)
		awaitEmpty(t, address)
	})
	t.Run("native", func(t *testing.T) { outside(t, seed, func() bool { return true }, client) })
}

// outside runs the programs of a seed by a process. empty reports whether
// nothing but the last result is left of one.
func outside(t *testing.T, seed uint64, empty func() bool, name string, args ...string) {
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	r, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	late := time.AfterFunc(patience, func() { _ = cmd.Process.Kill() })
	defer late.Stop()
	out := bufio.NewReader(r)
	line := func() string {
		s, err := out.ReadString('\n')
		if err != nil {
			t.Fatalf("it said %q, %v", s, err)
		}
		return s
	}
	rng := rand.New(rand.NewPCG(seed, 1))
	for i := range *programs {
		ops := model.Generate(rng, 20+rng.IntN(100), false)
		ops = slices.DeleteFunc(ops, func(o model.Op) bool { return o.Kind == model.Free }) // not to be had in a session
		plan, want := model.Model(ops)
		b, err := json.Marshal(plan)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := in.Write(append(b, '\n')); err != nil {
			t.Fatal(err)
		}
		var got []model.Outcome
		if err := json.Unmarshal([]byte(line()), &got); err != nil {
			t.Fatal(err)
		}
		if err := model.Check(want, got); err != nil {
			t.Fatalf("program %d: %v\n%s", i, err, b)
		}
		next := "again\n"
		for deadline := time.Now().Add(patience / 2); next == "again\n"; {
			if s := line(); s != "dropped\n" {
				t.Fatalf("it said %q", s)
			}
			if empty() {
				next = "next\n"
			} else if time.Now().After(deadline) {
				t.Fatalf("program %d leaves something behind:\n%s", i, b)
			}
			if _, err := io.WriteString(in, next); err != nil {
				t.Fatal(err)
			}
		}
	}
	in.Close()
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}
