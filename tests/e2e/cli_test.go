package e2e

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestUsage holds that a mistake on the command line ends with 2 and says
// where help is.
func TestUsage(t *testing.T) {
	for _, args := range []string{
		"nonsense", "run", "run --nonsense x", "module inspect", "module inspect a b", "module rewrite", "module rewrite x.wasm",
		"version x", "doctor x", "bench core a b", "run --memory lots ./examples/pi", "run --dir nowhere ./examples/pi",
	} {
		r := run(t, "", strings.Fields(args)...)
		if r.code != 2 || r.stdout != "" || !strings.HasPrefix(r.stderr, "wray: error: ") || !strings.Contains(r.stderr, "wray: hint: ") {
			t.Errorf("wray %s: exit %d\n%s%s", args, r.code, r.stdout, r.stderr)
		}
	}
}

// TestBadModules holds that what is no module is refused in words.
func TestBadModules(t *testing.T) {
	dir := t.TempDir()
	for name, b := range map[string][]byte{
		"empty.wasm":   nil,
		"text.wasm":    []byte("hello"),
		"section.wasm": []byte("\x00asm\x01\x00\x00\x00\x01\x05\xff\xff\xff\xff\x0f"),
	} {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, b, 0o600); err != nil {
			t.Fatal(err)
		}
		for _, args := range [][]string{{"run", file}, {"module", "inspect", file}, {"module", "rewrite", "--meter", file, "-o", file + ".out"}} {
			if r := run(t, "", args...); r.code != 1 || !strings.HasPrefix(r.stderr, "wray: error: ") || strings.Contains(r.stderr, "goroutine ") {
				t.Errorf("%s %s: exit %d\n%s", args[0], name, r.code, r.stderr)
			}
		}
	}
	if r := run(t, "", "run", filepath.Join(dir, "none.wasm")); r.code == 0 || !strings.Contains(r.stderr, "none.wasm") {
		t.Errorf("no file: exit %d\n%s", r.code, r.stderr)
	}
}

// TestJSON holds that what programs read is JSON.
func TestJSON(t *testing.T) {
	for _, args := range [][]string{{"version", "--json"}, {"doctor", "--json"}, {"module", "inspect", "--json", "./examples/pi"}} {
		r := run(t, "", args...)
		if r.code != 0 || r.stdout == "" {
			t.Errorf("%v: exit %d\n%s", args, r.code, r.stderr)
		}
		for line := range strings.Lines(r.stdout) {
			var v map[string]any
			if err := json.Unmarshal([]byte(line), &v); err != nil {
				t.Errorf("%v: %v: %s", args, err, line)
			}
		}
	}
}

// program writes a Go program that needs nothing but the standard library and
// returns its module.
func program(t *testing.T, source string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{"main.go": source, "go.mod": "module guest\n\ngo 1.26\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("go", "build", "-o", "guest.wasm", ".")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return filepath.Join(dir, "guest.wasm")
}

const shell = `package main

import ("fmt"; "io"; "os")

func main() {
	switch os.Args[1] {
	case "exit":
		fmt.Fprintln(os.Stderr, "to stderr")
		os.Exit(7)
	case "cat":
		io.Copy(os.Stdout, os.Stdin)
	case "env":
		fmt.Println(os.Environ())
	case "open":
		_, err := os.Open("/etc/passwd")
		fmt.Println(err)
	case "read":
		if _, err := os.ReadFile(os.Args[2]); err != nil {
			fmt.Fprintln(os.Stderr, "read:", err)
			if len(os.Args) < 4 {
				os.Exit(3)
			}
		}
	case "panic":
		panic("oh no")
	case "spin":
		fmt.Println("spinning")
		for {}
	}
}
`

// TestCommand runs a command that has never heard of wray.
func TestCommand(t *testing.T) {
	module := program(t, shell)
	if r := run(t, "", "run", module, "--", "exit"); r.code != 7 || !strings.Contains(r.stderr, "to stderr") {
		t.Errorf("exit: %+v", r)
	}
	if r := run(t, "to and fro", "run", module, "--", "cat"); r.code != 0 || r.stdout != "to and fro" {
		t.Errorf("cat: %+v", r)
	}
	t.Setenv("SECRET", "x")
	if r := run(t, "", "run", "--env", "A=b", module, "--", "env"); r.stdout != "[A=b]\n" {
		t.Errorf("env: %+v", r)
	}
	if r := run(t, "", "run", module, "--", "open"); strings.Contains(r.stdout, "<nil>") || r.stdout == "" {
		t.Errorf("open: %+v", r)
	}
	// Who asks for what was not granted, and fails, is told which flag grants it.
	grant := t.TempDir()
	hint := "wray: hint: no directory that the program was granted holds /etc/passwd: if it should have it, grant one with --dir HOST:GUEST\n"
	for _, c := range []struct {
		code int
		args []string
		hint bool
	}{
		{3, []string{module, "--", "read", "/etc/passwd"}, true},
		{3, []string{"--dir", grant + ":/in:ro", module, "--", "read", "/etc/passwd"}, true},
		{3, []string{"--dir", grant + ":/in:ro", module, "--", "read", "/in/none"}, false},
		{0, []string{module, "--", "read", "/etc/passwd", "and go on"}, false},
	} {
		r := run(t, "", append([]string{"run"}, c.args...)...)
		if said, ok := strings.CutSuffix(r.stderr, hint); r.code != c.code || ok != c.hint || !strings.HasPrefix(said, "read: open /") || strings.Contains(said, "wray:") {
			t.Errorf("%v: %+v", c.args, r)
		}
	}
	if r := run(t, "", "run", module, "--", "panic"); r.code == 0 || !strings.Contains(r.stderr, "oh no") || !strings.Contains(r.stderr, "main.main") {
		t.Errorf("panic: %+v", r)
	}
	if r := run(t, "", "run", "--timeout", "300ms", module, "--", "spin"); r.code != 1 || !strings.Contains(r.stderr, "Timeout") {
		t.Errorf("spin: %+v", r)
	}
}
