package conformance

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/wray-project/wray/host/node"
	"github.com/wray-project/wray/host/worker"
)

// suiteEnv names a checkout of the official suite of WASI with its programs
// built: the branch prod/testsuite-base of wasi-testsuite. No registry of packages
// carries it, so it is not fetched.
const suiteEnv = "WASI_TESTSUITE"

// wasiExceptions are programs of the suite that do not pass, and why.
var wasiExceptions = map[string]string{
	"nofollow_errors":               noSymlinks,
	"path_exists":                   noSymlinks,
	"path_symlink_trailing_slashes": noSymlinks,
	"readlink":                      noSymlinks,
	"symlink_create":                noSymlinks,
	"symlink_filestat":              noSymlinks,
	"fd_filestat_set": "times are set by path, which the node does; the call that sets them by descriptor " +
		"is refused to workers, as it needs none that may write",
}

const noSymlinks = "guests make no symbolic links: other programs would follow them out of the directory"

// spec is what the suite says of a program.
type spec struct {
	Args     []string          `json:"args"`
	Env      map[string]string `json:"env"`
	Root     string            `json:"root"` // a directory that it gets as /
	ExitCode int               `json:"exit_code"`
	Stdout   *string           `json:"stdout"`
}

// TestWASISuite runs the programs of the official suite of WASI preview 1. At
// least 64 of its 72 must pass, and no program fails that does not stand in
// wasiExceptions.
func TestWASISuite(t *testing.T) {
	root := os.Getenv(suiteEnv)
	if root == "" {
		t.Skipf("SKIP: %s names no checkout of wasi-testsuite, branch prod/testsuite-base", suiteEnv)
	}
	files, err := filepath.Glob(filepath.Join(root, "tests", "*", "testsuite", "wasm32-wasip1", "*.wasm"))
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(files)
	if len(files) == 0 {
		t.Fatalf("%s has no programs in tests/*/testsuite/wasm32-wasip1", root)
	}
	n := newNode(t)
	passed := 0
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".wasm")
		t.Run(name, func(t *testing.T) {
			err := runProgram(t, n, file)
			why, known := wasiExceptions[name]
			switch {
			case err == nil && known:
				t.Errorf("passes, and stands among the exceptions: %s", why)
				fallthrough
			case err == nil:
				passed++
			case known:
				t.Logf("%v: %s", err, why)
			default:
				t.Error(err)
			}
		})
	}
	fmt.Printf("WASI preview 1: %d of %d programs of the official suite pass\n", passed, len(files))
	if passed*72 < 64*len(files) {
		t.Errorf("%d of %d pass, want 64 of 72", passed, len(files))
	}
}

// runProgram runs one program as the suite wants it.
func runProgram(t *testing.T, n *node.Node, file string) error {
	t.Helper()
	wasm, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var s spec
	b, err := os.ReadFile(strings.TrimSuffix(file, ".wasm") + ".json")
	if err == nil {
		err = json.Unmarshal(b, &s)
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	j := node.Job{Name: filepath.Base(file), Modules: []node.Module{{Name: "test", Wasm: wasm}}, Args: s.Args, Limits: worker.Limits{Timeout: time.Minute}}
	for k, v := range s.Env {
		j.Env = append(j.Env, k+"="+v)
	}
	if s.Root != "" {
		dir := t.TempDir()
		if err := os.CopyFS(dir, os.DirFS(filepath.Join(filepath.Dir(file), s.Root))); err != nil {
			return err
		}
		j.Dirs = []node.Dir{{Host: dir, Guest: "/"}}
	}
	r := command(t, n, j)
	switch {
	case r.err != nil:
		return fmt.Errorf("%w\n%s", r.err, tail(r.stderr))
	case r.code != s.ExitCode:
		return fmt.Errorf("exit code %d, want %d\n%s", r.code, s.ExitCode, tail(r.stderr))
	case s.Stdout != nil && r.out != *s.Stdout:
		return fmt.Errorf("printed %q, want %q", r.out, *s.Stdout)
	}
	return nil
}
