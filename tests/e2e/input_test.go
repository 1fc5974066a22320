package e2e

import (
	"bufio"
	"bytes"
	"context"
	"os/exec"
	"strings"
	"testing"
)

// TestInput holds that a goroutine of the driver that waits for input does not
// stop the others: the driver runs tasks before anything is written, and
// between two lines.
func TestInput(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, wray, "run", "./tests/e2e/testdata/input")
	cmd.Dir = root
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var errs bytes.Buffer
	cmd.Stderr = &errs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	expect := func(want ...string) {
		t.Helper()
		for _, w := range want {
			if !lines.Scan() || lines.Text() != w {
				t.Fatalf("said %q (%v), want %q\n%s", lines.Text(), lines.Err(), w, errs.String())
			}
		}
	}
	write := func(s string) {
		t.Helper()
		if _, err := in.Write([]byte(s)); err != nil {
			t.Fatal(err)
		}
	}
	expect("task 0", "task 2", "task 4")
	write("one\n")
	expect("line one 6")
	write("three\nfour")
	expect("line three 10")
	long := strings.Repeat("x", 20_000)
	write(long + "\n")
	expect("line four" + long + " 40008")
	in.Close()
	expect("3 lines")
	if err := cmd.Wait(); err != nil {
		t.Errorf("%v\n%s", err, errs.String())
	}
	// Input from a file, and none.
	if r := run(t, "a\nbc\n", "run", "./tests/e2e/testdata/input"); r.code != 0 || !strings.HasSuffix(r.stdout, "line a 2\nline bc 4\n2 lines\n") {
		t.Errorf("a file: %+v", r)
	}
}
