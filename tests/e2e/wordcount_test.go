package e2e

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// coreutils counts words as the shell would.
func coreutils(t testing.TB, files ...string) string {
	t.Helper()
	script := `set -eu; cat "$@" | tr -cs 'A-Za-z' '\n' | tr 'A-Z' 'a-z' | grep . | sort | uniq -c |
		sed 's/^ *//' | sort -k1,1nr -k2,2`
	cmd := exec.Command("sh", append([]string{"-c", script, "sh"}, files...)...)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("coreutils: %v\n%s", err, errs.String())
	}
	return string(out)
}

func TestWordcountOfABook(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(goroot(t), "src/testdata/*.txt"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no texts: %v", err)
	}
	r := run(t, "", "run", "./examples/wordcount")
	if r.code != 0 || r.stderr != "" {
		t.Fatalf("exit %d: %s", r.code, r.stderr)
	}
	if want := coreutils(t, files...); r.stdout != want {
		t.Errorf("%d bytes, coreutils give %d", len(r.stdout), len(want))
	}
}

func TestWordcountOfFiles(t *testing.T) {
	dir := t.TempDir()
	// Words at the ends, digits inside, a word as long as several chunks, bytes
	// that are no text.
	texts := map[string][]byte{
		"a.txt": []byte("The cat; the CAT's hat\nthe end"),
		"b.bin": append(bytes.Repeat([]byte("x"), 700<<10), "\x00\xff café x1y don't\r\nend"...),
		"empty": nil,
	}
	args := []string{"run", "./examples/wordcount", "--dir", dir + ":/in:ro", "--"}
	var files []string
	for name, text := range texts {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
		args = append(args, "/in/"+name)
	}
	for name := range texts {
		files = append(files, filepath.Join(dir, name))
	}
	r := run(t, "", args...)
	if r.code != 0 {
		t.Fatalf("exit %d: %s", r.code, r.stderr)
	}
	// The files are joined by newlines for the shell, as words end with files.
	joined := filepath.Join(t.TempDir(), "joined")
	var all []byte
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		all = append(append(all, b...), '\n')
	}
	if err := os.WriteFile(joined, all, 0o600); err != nil {
		t.Fatal(err)
	}
	if want := coreutils(t, joined); r.stdout != want {
		t.Errorf("got %.200q, coreutils give %.200q", r.stdout, want)
	}
}
