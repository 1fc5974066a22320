package e2e

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/wray-project/wray/internal/testenv"
)

// memoryOf is what the test reads of wray memory --json.
type memoryOf struct {
	Count  int64 `json:"count"`
	Leaked int64 `json:"leaked"`
	Used   int64 `json:"used"`
	Jobs   []struct {
		Name string `json:"name"`
	} `json:"jobs"`
	Objects []struct {
		Bytes   int64 `json:"bytes"`
		Holders []struct {
			Kind string `json:"kind"`
			Name string `json:"name"`
		} `json:"holders"`
	} `json:"objects"`
}

func memoryAt(t *testing.T, address string) (m memoryOf) {
	t.Helper()
	r := run(t, "", "memory", "--json", "--address", address)
	if r.code != 0 {
		t.Fatalf("wray memory: %s", r.stderr)
	}
	if err := json.Unmarshal([]byte(r.stdout), &m); err != nil {
		t.Fatalf("%v in %q", err, r.stdout)
	}
	return m
}

// awaitEmpty waits until a node holds nothing: it lets go of what a client had as
// soon as it sees that the client is gone.
func awaitEmpty(t *testing.T, address string) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; {
		m := memoryAt(t, address)
		if m.Count == 0 && m.Used == 0 && len(m.Jobs) == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("a client that has gone left behind: %+v", m)
		}
	}
}

// process is a program that a test runs beside others.
type process struct {
	cmd   *exec.Cmd
	lines *bufio.Scanner
	errs  bytes.Buffer // the process's own until it was waited for
	end   func()       // kills it, if it runs, and waits for it
}

// begin starts a program and waits for its first line.
func begin(t *testing.T, line string, name string, args ...string) *process {
	t.Helper()
	return beginWith(t, nil, line, name, args...)
}

// beginWith is begin with a standard input.
func beginWith(t *testing.T, in *os.File, line string, name string, args ...string) *process {
	t.Helper()
	inputs.Do(func() { testenv.Inputs(t) })
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	p := &process{cmd: exec.CommandContext(ctx, name, args...)}
	p.cmd.Stderr = &p.errs
	if in != nil {
		p.cmd.Stdin = in
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p.end = func() {
		cancel()
		_ = p.cmd.Wait()
	}
	t.Cleanup(p.end)
	p.lines = bufio.NewScanner(out)
	if !p.lines.Scan() || !strings.Contains(p.lines.Text(), line) {
		t.Fatalf("%s printed %q, not %q\n%s", filepath.Base(name), p.lines.Text(), line, p.errs.String())
	}
	return p
}

// buildClient builds both sides of testdata/client.
func buildClient(t *testing.T) (client, module string) {
	return buildBoth(t, "./tests/e2e/testdata/client")
}

// buildBoth builds a program natively and for sandboxes.
func buildBoth(t *testing.T, program string) (client, module string) {
	t.Helper()
	dir := t.TempDir()
	client, module = filepath.Join(dir, "client"), filepath.Join(dir, "client.wasm")
	for _, b := range []struct {
		env  []string
		args []string
	}{
		{nil, []string{"-o", client}},
		{[]string{"GOOS=wasip1", "GOARCH=wasm"}, []string{"-buildmode=c-shared", "-ldflags=-checklinkname=0", "-o", module}},
	} {
		cmd := exec.Command("go", append(append([]string{"build"}, b.args...), program)...)
		cmd.Dir, cmd.Env = root, append(os.Environ(), b.env...)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	return client, module
}

// TestNode starts a node, gives it jobs and native clients, one of which is
// killed, looks at what it holds, and stops it.
func TestNode(t *testing.T) {
	client, module := buildClient(t)
	// A path of t.TempDir may be too long for a socket.
	dir, err := os.MkdirTemp("", "wray")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	socket := filepath.Join(dir, "node.sock")
	address := "unix://" + socket
	// The socket of a node that has died is in the way of nobody.
	if err := os.WriteFile(socket, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	node := begin(t, address, wray, "start", "--socket", socket, "--resource", "licence=1")
	if st, err := os.Stat(socket); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("the socket: %v, %v", st.Mode(), err)
	}
	if r := run(t, "", "start", "--socket", socket); r.code == 0 || !strings.Contains(r.stderr, "another node") {
		t.Errorf("a second node: %d, %s", r.code, r.stderr)
	}

	for range 2 {
		r := run(t, "", "run", "--address", address, "./examples/wordcount", "--dir", ".:/here:ro", "--", "/here/README.md")
		if r.code != 0 || !strings.Contains(r.stdout, "wray") {
			t.Fatalf("wray run --address: %d\n%s%s", r.code, r.stdout, r.stderr)
		}
	}
	if r := run(t, "", "run", "--address", address, "--cpus", "1", "./examples/wordcount"); r.code != 2 {
		t.Errorf("a flag of nodes beside --address: %d, %s", r.code, r.stderr)
	}
	if r := run(t, "over\n", "run", "--address", address, "./tests/e2e/testdata/echo"); r.code != 7 || r.stdout != "over\n" {
		t.Errorf("input and exit code: %d, %q, %s", r.code, r.stdout, r.stderr)
	}

	all := begin(t, "(speak) hello", client, address, module, "all")
	if !all.lines.Scan() || all.lines.Text() != "fine" {
		t.Errorf("the client printed %q\n%s", all.lines.Text(), all.errs.String())
	}
	if err := all.cmd.Wait(); err != nil {
		t.Errorf("the client: %v", err)
	}
	awaitEmpty(t, address) // it may have had values mapped until it ended

	held := begin(t, "holding", client, address, module, "hold")
	m := memoryAt(t, address)
	if m.Count != 4 || m.Leaked != 0 || len(m.Jobs) != 1 || m.Jobs[0].Name != "client" || m.Objects[0].Bytes != 3<<20 {
		t.Errorf("while a client holds: %+v", m)
	}
	kinds := map[string]bool{}
	for _, o := range m.Objects {
		for _, h := range o.Holders {
			kinds[h.Kind] = true
		}
	}
	for _, k := range []string{"client", "window", "result"} {
		if !kinds[k] {
			t.Errorf("nobody holds as %s: %+v", k, m)
		}
	}
	if err := held.cmd.Process.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	_ = held.cmd.Wait()
	awaitEmpty(t, address)

	if err := node.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := node.cmd.Wait(); err != nil {
		t.Errorf("the node: %v\n%s", err, node.errs.String())
	}
	if _, err := os.Stat(socket); !os.IsNotExist(err) {
		t.Errorf("the socket is left: %v", err)
	}
	if r := run(t, "", "run", "--address", address, "./examples/wordcount"); r.code == 0 || !strings.Contains(r.stderr, "wray start") {
		t.Errorf("without a node: %d, %s", r.code, r.stderr)
	}
}
