package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestSigned signs modules and runs them where only some signers are trusted.
func TestSigned(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	write := func(name string, b []byte) string {
		t.Helper()
		if err := os.WriteFile(at(name), b, 0o600); err != nil {
			t.Fatal(err)
		}
		return at(name)
	}
	good := func(want string, args ...string) string {
		t.Helper()
		r := run(t, "", args...)
		if r.code != 0 || !strings.Contains(r.stdout, want) {
			t.Fatalf("wray %s: exit %d, said %q, want %q\n%s", strings.Join(args, " "), r.code, r.stdout, want, r.stderr)
		}
		return r.stdout
	}
	bad := func(want string, args ...string) {
		t.Helper()
		if r := run(t, "", args...); r.code == 0 || !strings.Contains(r.stderr, want) {
			t.Errorf("wray %s: exit %d, said %q%s, want %q", strings.Join(args, " "), r.code, r.stdout, r.stderr, want)
		}
	}
	wasm, err := os.ReadFile(program(t, "package main\n\nimport (\n\t\"os\"\n\t\"strings\"\n)\n\nfunc main() { os.Stdout.WriteString(strings.Join(os.Args[1:], \" \")) }\n"))
	if err != nil {
		t.Fatal(err)
	}
	plain := write("plain.wasm", wasm)

	ours := write("ours", []byte("# we\n"+good("ours ", "module", "keygen", "ours", "-o", at("ours.key"))))
	theirs := write("theirs", []byte(good("theirs ", "module", "keygen", "theirs", "-o", at("theirs.key"))))
	bad("ours.key is there", "module", "keygen", "ours", "-o", at("ours.key"))
	if st, err := os.Stat(at("ours.key")); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("the key's file: %v, %v", st, err)
	}

	signed := at("signed.wasm")
	good("", "module", "sign", plain, "--key", at("ours.key"), "--name", "us\x1b[31m", "-o", signed)
	good("ours\n", "module", "verify", signed, "--trust", ours)
	bad("not signed, as it is, by anybody", "module", "verify", signed, "--trust", theirs)
	bad("is not signed", "module", "verify", plain, "--trust", ours)
	if out := good("signed ", "module", "inspect", signed); strings.Contains(out, "\x1b") {
		t.Errorf("the name of a key drives the terminal: %q", out)
	}
	good("by nobody", "module", "inspect", plain)

	const said = "one two"
	words := []string{"--", "one", "two"}
	runs := func(flags ...string) []string { return append(append([]string{"run"}, flags...), words...) }
	good(said, runs(signed, "--trust", ours)...)
	good(said, runs(signed, "--trust", theirs, "--trust", "local="+ours)...)
	bad("Denied", runs(signed, "--trust", theirs)...)
	bad("Denied", runs(signed, "--trust", ours, "--trust", "local="+theirs)...)
	bad("wray module sign", runs(plain, "--trust", ours)...)
	bad("Denied", runs(signed, "--with", "other="+plain, "--trust", ours)...)
	good(said, runs(plain, "--sign", at("ours.key"), "--trust", ours)...)
	good(said, runs(plain, "--with", "other="+plain, "--sign", at("ours.key"), "--trust", ours)...)

	good("", "module", "sign", plain, "--key", at("ours.key"), "--detached")
	good("ours\n", "module", "verify", plain, "--trust", ours)
	good(said, runs(plain, "--trust", ours)...)

	b, err := os.ReadFile(signed)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)-1] ^= 1
	bad("Denied", runs(write("changed.wasm", b), "--trust", ours)...)
	bad("names nobody", runs(plain, "--trust", write("empty", nil))...)
	bad("no such file", runs(plain, "--trust", at("none"))...)
	bad("no name for a tenant", runs(plain, "--trust", "No one="+ours)...)
	bad("no key to sign with", runs(plain, "--sign", ours)...)
}
