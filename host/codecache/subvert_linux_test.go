package codecache

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/internal/testenv"
)

// subvertModule is a module that takes the compiler over, with what that is to
// try its hands on.
func subvertModule(targets ...string) []byte {
	list := "\x01t\n" + strings.Join(targets, "\n") + "\n"
	m := append(module("subvert", 1), 0)
	return append(binary.AppendUvarint(m, uint64(len(list))), list...)
}

// subvert is a compiler that was taken over: it reads, changes and replaces what
// it is told of, and everything around its directory. It fails with a list of
// what it could do.
func subvert(module, dir string) error {
	var could []string
	tried := 0
	try := func(what string, err error) {
		tried++
		if err == nil {
			could = append(could, what)
		}
	}
	mine := filepath.Join(dir, "mine")
	if err := os.WriteFile(mine, []byte("hostile"), 0o600); err != nil {
		return err
	}
	open := func(path string, flags int) error {
		fd, err := unix.Open(path, flags|unix.O_CLOEXEC, 0o600)
		if err == nil {
			unix.Close(fd)
		}
		return err
	}
	for target := range strings.Lines(module[strings.Index(module, "\n"):]) {
		target = strings.TrimSpace(target)
		if target == "" {
			continue
		}
		beside := filepath.Join(filepath.Dir(target), "beside")
		up := filepath.Join(dir, "..", "..", "..", "..", "..", "..", "..", "..", "..", "..", "..", "..", target)
		try("read "+target, open(target, unix.O_RDONLY))
		try("read by .. "+target, open(up, unix.O_RDONLY))
		try("write "+target, open(target, unix.O_WRONLY))
		try("truncate "+target, open(target, unix.O_WRONLY|unix.O_TRUNC))
		try("append to "+target, open(target, unix.O_WRONLY|unix.O_APPEND))
		try("truncate by name "+target, unix.Truncate(target, 0))
		try("chmod "+target, unix.Chmod(target, 0o666))
		try("remove "+target, unix.Unlink(target))
		try("remove by .. "+target, unix.Unlinkat(unix.AT_FDCWD, up, 0))
		try("move away "+target, unix.Renameat(unix.AT_FDCWD, target, unix.AT_FDCWD, filepath.Join(dir, "taken")))
		try("replace "+target, unix.Renameat(unix.AT_FDCWD, mine, unix.AT_FDCWD, target))
		try("exchange "+target, unix.Renameat2(unix.AT_FDCWD, mine, unix.AT_FDCWD, target, unix.RENAME_EXCHANGE))
		try("give a second name to "+target, unix.Linkat(unix.AT_FDCWD, target, unix.AT_FDCWD, filepath.Join(dir, "second"), 0))
		try("point to "+target, unix.Symlinkat(target, unix.AT_FDCWD, filepath.Join(dir, "pointer")))
		try("make beside "+target, open(beside, unix.O_WRONLY|unix.O_CREAT))
		try("make a directory beside "+target, unix.Mkdirat(unix.AT_FDCWD, beside, 0o700))
		try("list around "+target, open(filepath.Dir(target), unix.O_RDONLY|unix.O_DIRECTORY))
	}
	return &wray.Error{Code: wray.CodeInvalidModule, Message: fmt.Sprintf("%d tried; %s", tried, strings.Join(could, ", "))}
}

// TestSubvertedCompiler holds that a compiler that was taken over touches nothing
// of another module's or tenant's, nor what the cache lives by.
func TestSubvertedCompiler(t *testing.T) {
	cfg := testConfig(t.TempDir())
	c := openCache(t, cfg)
	var targets []string
	for _, tenant := range []string{"local", "other"} {
		e := get(t, c, tenant, module("ok", 7))
		dir, err := c.Dir(tenant)
		if err != nil {
			t.Fatal(err)
		}
		targets = append(targets, e.NativePath, e.ArtifactPath, c.unit(tenant, dir, module("ok", 7)).manifest())
	}
	targets = append(targets, filepath.Join(cfg.Root, "key"), filepath.Join(cfg.Root, "locks", "0"))
	for _, path := range targets { // what is refused must be there
		if _, err := os.Stat(path); err != nil && !strings.Contains(path, "locks") {
			t.Fatal(err)
		}
	}
	before := contents(t, cfg.Root)
	_, err := c.Get(t.Context(), "local", subvertModule(targets...))
	var e *wray.Error
	if !errors.As(err, &e) || !strings.Contains(e.Message, "tried; ") {
		t.Fatalf("the compiler ended with %v", err)
	}
	count, could, _ := strings.Cut(e.Message, " tried; ")
	testenv.Bar(t, 14, len(strings.Fields(could)), "of "+count+" ways of a subverted compiler to another's entry succeed: "+could, could == "" && count == fmt.Sprint(17*len(targets)))
	after := contents(t, cfg.Root)
	for path, was := range before {
		if after[path] != was {
			t.Errorf("%s has changed", path)
		}
	}
	for path := range after {
		if _, was := before[path]; !was && !strings.HasSuffix(path, ".json") && !strings.Contains(path, "locks") {
			t.Errorf("%s is new", path) // but for the verdict
		}
	}
}

// TestLyingCompiler holds that code under the name of another module's is not
// used for that, whichever was compiled first.
func TestLyingCompiler(t *testing.T) {
	victim := module("ok", 8)
	for _, first := range []bool{true, false} {
		t.Run(fmt.Sprint("victim first ", first), func(t *testing.T) {
			c := openCache(t, testConfig(t.TempDir()))
			var want string
			if first {
				want = text(t, get(t, c, "local", victim))
			}
			liar := get(t, c, "local", append(module("lie", 1), append([]byte{0, 65}, append([]byte("\x00"), fmt.Sprintf("%x", sha(victim))...)...)...))
			got := text(t, get(t, c, "local", victim))
			if got == "hostile" || first && got != want {
				t.Errorf("the victim's code is %q", got)
			}
			if filepath.Base(liar.NativePath) != hex.EncodeToString(sha(victim)) {
				t.Errorf("the liar told the truth: %s", liar.NativePath)
			}
		})
	}
}

func text(t *testing.T, e Entry) string {
	t.Helper()
	b, err := os.ReadFile(e.NativePath)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// contents are the files below a directory.
func contents(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		st, serr := d.Info()
		if serr == nil {
			files[path] = fmt.Sprint(st.Mode(), string(b))
		}
		return errors.Join(err, serr)
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}
