// Package wasitest holds the tests that every [wasi.FS] must pass: what its
// operations do, and that no path leads out of its tree.
package wasitest

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/wray-project/wray/host/wasi"
)

// TestFS tests the FS that open returns for the directory dir of this machine.
// open is called several times; it releases what it opens by t.Cleanup. Rounds is
// how often each operation races against one who swaps directories.
func TestFS(t *testing.T, rounds int, open func(t *testing.T, dir string) wasi.FS) {
	t.Run("Open", func(t *testing.T) { testOpen(t, open) })
	t.Run("Entries", func(t *testing.T) { testEntries(t, open) })
	t.Run("Stat", func(t *testing.T) { testStat(t, open) })
	t.Run("Escape", func(t *testing.T) { testEscape(t, open) })
	t.Run("Race", func(t *testing.T) { testRace(t, rounds, open) })
}

func want(t *testing.T, what string, got, want wasi.Errno) {
	t.Helper()
	if got != want {
		t.Errorf("%s: %v, want %v", what, got, want)
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func content(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	must(t, err)
	return string(b)
}

func testOpen(t *testing.T, open func(*testing.T, string) wasi.FS) {
	dir := t.TempDir()
	fs := open(t, dir)
	must(t, os.MkdirAll(filepath.Join(dir, "d", "e"), 0o777))
	must(t, os.WriteFile(filepath.Join(dir, "d", "f"), []byte("hello"), 0o666))
	must(t, os.Symlink("d/f", filepath.Join(dir, "lf")))
	must(t, os.Symlink("d", filepath.Join(dir, "ld")))

	for _, tc := range []struct {
		path  string
		flags wasi.OpenFlags
		want  wasi.Errno
	}{
		{"d/f", wasi.OpenRead, 0},
		{"d/f", 0, 0},
		{"d/f", wasi.OpenRead | wasi.OpenWrite | wasi.OpenNoFollow, 0},
		{"d/e/../f", wasi.OpenRead, 0},
		{"ld/f", wasi.OpenRead | wasi.OpenNoFollow, 0},
		{"d", wasi.OpenRead | wasi.OpenDirectory, 0},
		{".", wasi.OpenRead | wasi.OpenDirectory | wasi.OpenNoFollow, 0},
		{"d/..", wasi.OpenRead | wasi.OpenDirectory | wasi.OpenNoFollow, 0},
		{"lf", wasi.OpenRead, 0},
		{"lf", wasi.OpenRead | wasi.OpenNoFollow, wasi.ELOOP},
		{"d", wasi.OpenRead | wasi.OpenWrite, wasi.EISDIR},
		{"d/f", wasi.OpenRead | wasi.OpenDirectory, wasi.ENOTDIR},
		{"no", wasi.OpenRead, wasi.ENOENT},
		{"no/f", wasi.OpenRead | wasi.OpenCreate, wasi.ENOENT},
		{"d/f/x", wasi.OpenRead, wasi.ENOTDIR},
		{"d/f", wasi.OpenWrite | wasi.OpenCreate | wasi.OpenExcl, wasi.EEXIST},
		{"lf", wasi.OpenWrite | wasi.OpenCreate | wasi.OpenExcl, wasi.EEXIST},
		{"new", wasi.OpenWrite | wasi.OpenCreate | wasi.OpenExcl, 0},
		{"new2", wasi.OpenRead | wasi.OpenCreate | wasi.OpenNoFollow, 0},
	} {
		f, e := fs.Open(tc.path, tc.flags)
		if e != tc.want {
			t.Errorf("Open(%q, %#x): %v, want %v", tc.path, tc.flags, e, tc.want)
		}
		if e == 0 {
			must(t, f.Close())
		}
	}

	f, e := fs.Open("d/f", wasi.OpenRead|wasi.OpenWrite|wasi.OpenAppend)
	want(t, "Open to append", e, 0)
	_, err := f.WriteString(" world")
	must(t, err)
	must(t, f.Close())
	if s := content(t, filepath.Join(dir, "d/f")); s != "hello world" {
		t.Errorf("after appending: %q", s)
	}
	f, e = fs.Open("d/f", wasi.OpenRead|wasi.OpenTrunc)
	want(t, "Open to cut", e, 0)
	must(t, f.Close())
	if s := content(t, filepath.Join(dir, "d/f")); s != "" {
		t.Errorf("after cutting: %q", s)
	}
}

func testEntries(t *testing.T, open func(*testing.T, string) wasi.FS) {
	dir := t.TempDir()
	fs := open(t, dir)
	must(t, os.WriteFile(filepath.Join(dir, "f"), []byte("f"), 0o666))

	want(t, "Mkdir", fs.Mkdir("d"), 0)
	want(t, "Mkdir again", fs.Mkdir("d"), wasi.EEXIST)
	want(t, "Mkdir below", fs.Mkdir("d/e"), 0)
	want(t, "Mkdir below nothing", fs.Mkdir("no/e"), wasi.ENOENT)
	want(t, "Mkdir below a file", fs.Mkdir("f/e"), wasi.ENOTDIR)
	want(t, "Rmdir of a full one", fs.Rmdir("d"), wasi.ENOTEMPTY)
	want(t, "Rmdir of a file", fs.Rmdir("f"), wasi.ENOTDIR)
	if e := fs.Unlink("d/e"); e != wasi.EISDIR && e != wasi.EPERM {
		t.Errorf("Unlink of a directory: %v", e)
	}
	want(t, "Rmdir", fs.Rmdir("d/e"), 0)
	want(t, "Rmdir again", fs.Rmdir("d/e"), wasi.ENOENT)

	want(t, "Link", fs.Link("f", "d/hard"), 0)
	want(t, "Link again", fs.Link("f", "d/hard"), wasi.EEXIST)
	want(t, "Link of nothing", fs.Link("no", "x"), wasi.ENOENT)
	want(t, "Symlink", fs.Symlink("f", "s"), 0)
	want(t, "Symlink again", fs.Symlink("f", "s"), wasi.EEXIST)
	for _, target := range []string{"/etc/passwd", "..", "../x", "d/../../x"} {
		want(t, "Symlink to "+target, fs.Symlink(target, "out"), wasi.EPERM)
	}
	target, e := fs.Readlink("s")
	if target != "f" || e != 0 {
		t.Errorf("Readlink: %q, %v", target, e)
	}
	_, e = fs.Readlink("f")
	want(t, "Readlink of a file", e, wasi.EINVAL)
	want(t, "Link of a symbolic link", fs.Link("s", "s2"), 0)
	if target, e := fs.Readlink("s2"); target != "f" || e != 0 {
		t.Errorf("the hard link of a symbolic link: %q, %v", target, e)
	}
	want(t, "Rename", fs.Rename("f", "d/g"), 0)
	want(t, "Rename over", fs.Rename("d/g", "d/hard"), 0) // the same file: both stay
	want(t, "Rename of nothing", fs.Rename("no", "x"), wasi.ENOENT)
	want(t, "Rename of a directory", fs.Rename("d", "d2"), 0)
	want(t, "Unlink", fs.Unlink("d2/hard"), 0)
	want(t, "Unlink again", fs.Unlink("d2/hard"), wasi.ENOENT)
	want(t, "Unlink of a link", fs.Unlink("s"), 0)
}

func testStat(t *testing.T, open func(*testing.T, string) wasi.FS) {
	dir := t.TempDir()
	fs := open(t, dir)
	must(t, os.WriteFile(filepath.Join(dir, "f"), []byte("hello"), 0o666))
	must(t, os.Symlink("f", filepath.Join(dir, "l")))

	for _, tc := range []struct {
		path   string
		follow bool
		typ    wasi.Filetype
		want   wasi.Errno
	}{
		{"f", true, wasi.FiletypeRegular, 0}, {"f", false, wasi.FiletypeRegular, 0},
		{"l", true, wasi.FiletypeRegular, 0}, {"l", false, wasi.FiletypeSymlink, 0},
		{".", false, wasi.FiletypeDirectory, 0}, {"no", true, 0, wasi.ENOENT}, {"no", false, 0, wasi.ENOENT},
		{"f/x", false, 0, wasi.ENOTDIR},
	} {
		st, e := fs.Stat(tc.path, tc.follow)
		if e != tc.want || e == 0 && st.Type != tc.typ {
			t.Errorf("Stat(%q, %v): type %d, %v", tc.path, tc.follow, st.Type, e)
		}
	}
	// ".." after a link is the parent of where the link leads.
	must(t, os.MkdirAll(filepath.Join(dir, "a", "b"), 0o777))
	must(t, os.Symlink("a/b", filepath.Join(dir, "ab")))
	want(t, "Mkdir by a link and ..", fs.Mkdir("ab/../made"), 0)
	for _, follow := range []bool{false, true} {
		for path, e := range map[string]wasi.Errno{"ab/../made": 0, "a/made": 0, "made": wasi.ENOENT, "ab/../f": wasi.ENOENT} {
			if _, got := fs.Stat(path, follow); got != e {
				t.Errorf("Stat(%q, %v): %v, want %v", path, follow, got, e)
			}
		}
	}

	when := time.Unix(1_000_000_000, 123456000)
	want(t, "SetTimes", fs.SetTimes("l", wasi.Times{Atim: wasi.OmitTime, Mtim: when.UnixNano()}, true), 0)
	st, e := fs.Stat("f", false)
	if e != 0 || st.Mtim != uint64(when.UnixNano()) || st.Size != 5 {
		t.Errorf("Stat: mtime %d, size %d, %v", st.Mtim, st.Size, e)
	}
	want(t, "SetTimes of nothing", fs.SetTimes("no", wasi.Times{}, true), wasi.ENOENT)
}

// Secret is what the files outside hold.
const Secret = "the secret outside"

// Outside makes a directory with a tree in it and a secret beside it, and
// returns the tree, full of ways out, and what must not change.
func Outside(t testing.TB) (tree, out string) {
	t.Helper()
	top := t.TempDir()
	tree, out = filepath.Join(top, "tree"), filepath.Join(top, "out")
	must(t, os.MkdirAll(filepath.Join(tree, "d"), 0o777))
	must(t, os.MkdirAll(filepath.Join(out, "sub"), 0o777))
	must(t, os.WriteFile(filepath.Join(out, "secret"), []byte(Secret), 0o666))
	must(t, os.WriteFile(filepath.Join(tree, "f"), []byte("inside"), 0o666))
	for name, target := range map[string]string{
		"abs":     filepath.Join(out, "secret"),
		"absdir":  out,
		"rel":     "../out/secret",
		"reldir":  "../out",
		"d/rel":   "../../out/secret",
		"slash":   "../out/",
		"up":      "..",
		"new":     "../out/new",
		"root":    "/",
		"proc":    "/proc/self/root",
		"chain":   "d/chain",
		"d/chain": "../reldir",
	} {
		must(t, os.Symlink(target, filepath.Join(tree, name)))
	}
	return tree, out
}

// Ways are paths that lead out of the tree of Outside.
func Ways(out string) []string {
	abs := strings.TrimPrefix(filepath.ToSlash(out), "/")
	return []string{
		"..", "../out/secret", "d/../../out/secret", "f/../../out/secret", "no/../../out/secret",
		"../tree/../out/secret", "d/../d/../../out/secret", "abs", "absdir/secret", "absdir/new", "absdir/sub",
		"rel", "reldir/secret", "reldir/new", "reldir/sub", "reldir", "d/rel", "slash/secret", "slash/new", "slash",
		"up/out/secret", "up/out/new", "up", "up/..", "new", "root/" + abs + "/secret", "proc/" + abs + "/secret",
		"chain/secret", "chain/new", "chain", "d/chain/../out/secret", "reldir/../out/secret", "up/tree/f",
	}
}

// testEscape tries every operation on every way out. Whatever it answers,
// nothing outside may be read or changed.
func testEscape(t *testing.T, open func(*testing.T, string) wasi.FS) {
	tree, out := Outside(t)
	fs := open(t, tree)
	before := Describe(t, out)
	tried := 0
	for _, way := range Ways(out) {
		for _, flags := range []wasi.OpenFlags{
			wasi.OpenRead, wasi.OpenRead | wasi.OpenNoFollow, wasi.OpenRead | wasi.OpenDirectory,
			wasi.OpenRead | wasi.OpenDirectory | wasi.OpenNoFollow,
			wasi.OpenWrite, wasi.OpenWrite | wasi.OpenTrunc, wasi.OpenTrunc | wasi.OpenNoFollow,
			wasi.OpenWrite | wasi.OpenCreate, wasi.OpenWrite | wasi.OpenCreate | wasi.OpenNoFollow,
			wasi.OpenWrite | wasi.OpenCreate | wasi.OpenExcl,
		} {
			tried++
			f, e := fs.Open(way, flags)
			if e == 0 {
				t.Errorf("Open(%q, %#x) succeeded", way, flags)
				f.Close()
			}
		}
		last := filepath.Base(way)
		tried += 2
		if st, e := fs.Stat(way, true); e == 0 {
			t.Errorf("Stat(%q) found type %d", way, st.Type)
		}
		fs.SetTimes(way, wasi.Times{Atim: 1, Mtim: 1}, true)
		if last == ".." {
			continue // only Open and Stat are given these
		}
		// These act on the last element itself. Where it is a link of the tree
		// they may succeed; they are tried on a copy, so that the ways stay.
		if strings.Contains(way, "/") {
			tried += 9
			fs.SetTimes(way, wasi.Times{Atim: 1, Mtim: 1}, false)
			if target, e := fs.Readlink(way); e == 0 && way != "d/rel" && way != "d/chain" {
				t.Errorf("Readlink(%q) read %q", way, target)
			}
			for what, e := range map[string]wasi.Errno{
				"Mkdir":       fs.Mkdir(way),
				"Rmdir":       fs.Rmdir(way),
				"Link from":   fs.Link(way, "got"),
				"Link to":     fs.Link("f", way),
				"Rename to":   fs.Rename("nothing", way),
				"Rename from": renameBack(fs, way),
				"Symlink":     fs.Symlink("f", way),
			} {
				if e == 0 && way != "d/rel" && way != "d/chain" {
					t.Errorf("%s %q succeeded", what, way)
				}
			}
			if _, err := os.Lstat(filepath.Join(tree, "got")); err == nil {
				fs.Unlink("got")
			}
		}
	}
	if after := Describe(t, out); after != before {
		t.Errorf("outside changed:\n%s\nto:\n%s", before, after)
	}
	t.Logf("%d attempts over %d ways", tried, len(Ways(out)))
}

func renameBack(fs wasi.FS, way string) wasi.Errno {
	e := fs.Rename(way, "moved")
	if e == 0 {
		fs.Rename("moved", way)
	}
	return e
}

// Describe returns a description of all below dir: names, modes, times of
// change, contents. Two differ if anything was changed.
func Describe(t testing.TB, dir string) string {
	t.Helper()
	var b strings.Builder
	must(t, filepath.Walk(dir, func(p string, fi os.FileInfo, err error) error {
		if err != nil {
			return err
		}
		b.WriteString(p + " " + fi.Mode().String() + " " + fi.ModTime().String())
		if fi.Mode().IsRegular() {
			c, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			b.WriteString(" " + string(c))
		}
		b.WriteString("\n")
		return nil
	}))
	return b.String()
}

// testRace swaps a directory on the way with a link that leads out, over and
// over, while every operation goes through it.
func testRace(t *testing.T, n int, open func(*testing.T, string) wasi.FS) {
	tree, out := Outside(t)
	fs := open(t, tree)
	inner := filepath.Join(tree, "swap")
	must(t, os.Mkdir(inner, 0o777))
	must(t, os.WriteFile(filepath.Join(inner, "secret"), []byte("inside"), 0o666))
	must(t, os.Symlink("../out", filepath.Join(tree, "link")))

	var stop atomic.Bool
	var swaps int
	var failed error
	done := make(chan struct{})
	defer func() {
		stop.Store(true)
		<-done
	}()
	go func() {
		defer close(done)
		a, b, spare := inner, filepath.Join(tree, "link"), filepath.Join(tree, "spare")
		for !stop.Load() {
			for _, step := range [][2]string{{a, spare}, {b, a}, {spare, b}} {
				if failed = os.Rename(step[0], step[1]); failed != nil {
					return
				}
			}
			swaps++
		}
	}()

	before := Describe(t, out)
	if testing.Short() {
		n /= 20
	}
	reached, refused := 0, 0
	for range n {
		for _, flags := range []wasi.OpenFlags{wasi.OpenRead, wasi.OpenRead | wasi.OpenNoFollow} {
			f, e := fs.Open("swap/secret", flags)
			if e != 0 {
				refused++
				continue
			}
			b, err := io.ReadAll(f)
			f.Close()
			if err != nil && !errors.Is(err, os.ErrClosed) {
				t.Fatal(err)
			}
			if string(b) != "inside" {
				t.Fatalf("read %q", b)
			}
			reached++
		}
		if f, e := fs.Open("swap/made", wasi.OpenWrite|wasi.OpenCreate|wasi.OpenTrunc); e == 0 {
			f.Close()
		}
		if st, e := fs.Stat("swap/secret", true); e == 0 && st.Size != uint64(len("inside")) {
			t.Fatalf("stat outside: %+v", st)
		}
		fs.Mkdir("swap/dir")
		fs.Symlink("x", "swap/sym")
		fs.Link("f", "swap/hard")
		fs.SetTimes("swap/secret", wasi.Times{Atim: 1, Mtim: 1}, false)
		fs.SetTimes("swap/secret", wasi.Times{Atim: 1, Mtim: 1}, true)
		fs.Rename("swap/made", "swap/made2")
		for _, name := range []string{"swap/made", "swap/made2", "swap/sym", "swap/hard", "swap/sub"} {
			fs.Unlink(name)
		}
		fs.Rmdir("swap/dir")
		fs.Rmdir("swap/sub")
	}
	stop.Store(true)
	<-done
	must(t, failed)
	if after := Describe(t, out); after != before {
		t.Errorf("outside changed:\n%s\nto:\n%s", before, after)
	}
	t.Logf("%d rounds of 16 operations, %d swaps, %d opens reached the file inside, %d refused",
		n, swaps, reached, refused)
}
