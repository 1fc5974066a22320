package wasi_test

import (
	"encoding/binary"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/wray-project/wray/host/wasi"
)

// tree makes files (and directories, where the name ends in a slash) below dir.
func tree(t testing.TB, dir string, names ...string) {
	t.Helper()
	for _, name := range names {
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o777); err != nil {
			t.Fatal(err)
		}
		var err error
		if strings.HasSuffix(name, "/") {
			err = os.MkdirAll(p, 0o777)
		} else {
			err = os.WriteFile(p, []byte(name), 0o666)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func TestPathOpen(t *testing.T) {
	m, dir := onDir(t)
	tree(t, dir, "f", "d/g", "empty/")
	for link, target := range map[string]string{"lf": "f", "ld": "d", "loop": "loop", "dangling": "nothing"} {
		if err := os.Symlink(target, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	long := strings.Repeat("x/", 2048)
	for _, tc := range []struct {
		path                   string
		lookup, oflags, rights uint64
		want                   wasi.Errno
	}{
		{"f", 0, 0, rw, 0},
		{"./f", 0, 0, rw, 0},
		{"d/../f", 0, 0, rw, 0},
		{"d//.///g", 0, 0, rw, 0},
		{"d", 0, 0, 0, 0},
		{"d/", 0, 0, 0, 0},
		{"d/.", 0, 0, 0, 0},
		{".", 0, directory, 0, 0},
		{"./", 0, directory, readRight, 0},
		{"d/..", 0, directory, 0, 0},
		{"d", 0, 0, rw, wasi.EISDIR},
		{"d", 0, directory, rw, wasi.EISDIR},
		{"f", 0, directory, 0, wasi.ENOTDIR},
		{"f/", 0, 0, readRight, wasi.ENOTDIR},
		{"f/.", 0, 0, readRight, wasi.ENOTDIR},
		{"f/x", 0, 0, readRight, wasi.ENOTDIR},
		{"no", 0, 0, readRight, wasi.ENOENT},
		{"no/x", 0, creat, rw, wasi.ENOENT},
		{"", 0, 0, readRight, wasi.ENOENT},
		{"/f", 0, 0, readRight, wasi.EPERM},
		{"/", 0, 0, 0, wasi.EPERM},
		{"..", 0, 0, 0, wasi.EPERM},
		{"../x", 0, creat, rw, wasi.EPERM},
		{"d/../../x", 0, creat, rw, wasi.EPERM},
		{"f\x00", 0, 0, readRight, wasi.EINVAL},
		{long + "x", 0, 0, readRight, wasi.ENAMETOOLONG},
		{strings.Repeat("x", 256), 0, 0, readRight, wasi.ENAMETOOLONG},
		{"f", 0, creat | excl, rw, wasi.EEXIST},
		{"lf", 0, creat | excl, rw, wasi.EEXIST},
		{"lf", follow, creat | excl, rw, wasi.EEXIST},
		{"dangling", follow, creat | excl, rw, wasi.EEXIST},
		{"new/", 0, creat, rw, wasi.EISDIR},
		{"new", 0, creat | directory, rw, wasi.EINVAL},
		{"new", 0, 16, rw, wasi.EINVAL},
		{"f", 2, 0, rw, wasi.EINVAL},
		{"lf", follow, 0, rw, 0},
		{"lf", 0, 0, rw, wasi.ELOOP},
		{"ld", follow, directory, 0, 0},
		{"ld", 0, directory, 0, wasi.ENOTDIR},
		{"ld/", 0, 0, 0, 0}, // the slash asks to follow
		{"ld/g", 0, 0, rw, 0},
		{"lf/", 0, 0, rw, wasi.ENOTDIR},
		{"loop", follow, 0, rw, wasi.ELOOP},
		{"dangling", follow, 0, rw, wasi.ENOENT},
	} {
		fd, e := m.open(3, tc.path, tc.lookup, tc.oflags, tc.rights, 0)
		if e != tc.want {
			t.Errorf("open %.40q, lookup %d, oflags %d, rights %d: %v, want %v", tc.path, tc.lookup, tc.oflags, tc.rights, e, tc.want)
		}
		if e == 0 {
			m.ok("fd_close", fd)
		}
	}
	if _, err := os.Lstat(filepath.Join(dir, "new")); err == nil {
		t.Error("a refused open made a file")
	}
	// A bad pointer for the descriptor leaves nothing done.
	p, n := m.str("made")
	m.want(wasi.EFAULT, "path_open", 3, 0, p, n, creat, rw, 0, 0, uint64(len(m.mem)-3))
	m.want(wasi.EFAULT, "path_open", 3, 0, math.MaxUint32, 2, creat, rw, 0, 0, 0)
	m.want(wasi.EINVAL, "path_open", 3, 0, p, n, creat, rw, 0, 1<<5, 0)
	if _, err := os.Lstat(filepath.Join(dir, "made")); err == nil {
		t.Error("an open with a bad pointer made a file")
	}
	// Files cut and kept.
	fd := m.mustOpen(3, "f", trunc, 0)
	if _, size, _ := m.stat(3, "f", 0); size != 0 {
		t.Errorf("size %d after O_TRUNC", size)
	}
	if _, e := m.read(fd, 1); e != wasi.EBADF {
		t.Errorf("read without the right to: %v", e)
	}
}

func TestDescriptorOfDirectory(t *testing.T) {
	m, dir := onDir(t)
	tree(t, dir, "d/e/f", "x")
	if err := os.Symlink("..", filepath.Join(dir, "d", "up")); err != nil {
		t.Fatal(err)
	}
	d := m.mustOpen(3, "d", directory, 0)
	for path, want := range map[string]wasi.Errno{
		"e/f": 0, "e/../e/f": 0, "../x": wasi.EPERM, "e/../../x": wasi.EPERM, "..": wasi.EPERM,
		// Out of the descriptor's directory by a link, but not out of the grant.
		"up/x": 0, "up/../x": wasi.EPERM,
	} {
		if _, e := m.open(d, path, follow, 0, readRight, 0); e != want {
			t.Errorf("open %s: %v, want %v", path, e, want)
		}
	}
	// It follows when the guest renames it, or a directory above.
	e := m.mustOpen(d, "e", directory, 0)
	if err := m.rename(3, "d", 3, "moved"); err != 0 {
		t.Fatal(err)
	}
	if err := m.rename(d, "e", 3, "moved/e2"); err != 0 {
		t.Fatal(err)
	}
	if _, err := m.open(e, "f", 0, 0, readRight, 0); err != 0 {
		t.Errorf("open in a directory that was moved: %v", err)
	}
	if _, _, err := m.stat(d, "e2/f", 0); err != 0 {
		t.Errorf("stat in a directory that was moved: %v", err)
	}
	for _, name := range []string{"fd_read", "fd_write"} {
		p, n := m.iov(4)
		want := wasi.EISDIR
		if name == "fd_write" {
			want = wasi.EBADF
		}
		m.want(want, name, d, p, n, m.alloc(4))
	}
	m.want(wasi.EISDIR, "fd_seek", d, 0, 0, m.alloc(8))
	m.want(wasi.EISDIR, "fd_tell", d, m.alloc(8))
	m.want(wasi.EBADF, "fd_filestat_set_size", d, 0)
	m.ok("fd_sync", d)
}

func TestMutations(t *testing.T) {
	m, dir := onDir(t)
	tree(t, dir, "f", "d/g", "empty/")
	if err := os.Symlink("d", filepath.Join(dir, "ld")); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name, path string
		want       wasi.Errno
	}{
		{"path_create_directory", "n", 0}, {"path_create_directory", "n", wasi.EEXIST},
		{"path_create_directory", "n/", wasi.EEXIST}, {"path_create_directory", "m/", 0},
		{"path_create_directory", "f", wasi.EEXIST}, {"path_create_directory", ".", wasi.EEXIST},
		{"path_create_directory", "no/x", wasi.ENOENT}, {"path_create_directory", "f/x", wasi.ENOTDIR},
		{"path_create_directory", "../x", wasi.EPERM}, {"path_create_directory", "/x", wasi.EPERM},
		{"path_create_directory", "ld", wasi.EEXIST}, {"path_create_directory", "ld/", wasi.EEXIST},
		{"path_remove_directory", "n", 0}, {"path_remove_directory", "n", wasi.ENOENT},
		{"path_remove_directory", "m/", 0}, {"path_remove_directory", "d", wasi.ENOTEMPTY},
		{"path_remove_directory", "f", wasi.ENOTDIR}, {"path_remove_directory", ".", wasi.EINVAL},
		{"path_remove_directory", "d/..", wasi.EINVAL}, {"path_remove_directory", "ld", wasi.ENOTDIR},
		{"path_remove_directory", "ld/", wasi.ENOTDIR}, {"path_remove_directory", "..", wasi.EINVAL},
		{"path_unlink_file", "d", wasi.EISDIR}, {"path_unlink_file", "d/", wasi.EISDIR},
		{"path_unlink_file", "f/", wasi.ENOTDIR}, {"path_unlink_file", "ld/", wasi.ENOTDIR},
		{"path_unlink_file", ".", wasi.EISDIR}, {"path_unlink_file", "no", wasi.ENOENT},
		{"path_unlink_file", "f", 0}, {"path_unlink_file", "ld", 0}, {"path_unlink_file", "d/g", 0},
		{"path_remove_directory", "d", 0},
	} {
		if e := m.path(tc.name, 3, tc.path); e != tc.want {
			t.Errorf("%s %s: %v, want %v", tc.name, tc.path, e, tc.want)
		}
	}
	tree(t, dir, "a", "b", "p/x", "q/", "r/")
	for _, tc := range []struct {
		from, to string
		want     wasi.Errno
	}{
		{"a", "c", 0}, {"c", "b", 0}, {"b", "a", 0}, {"a", "p", wasi.EISDIR}, {"q", "a", wasi.ENOTDIR},
		{"q", "p", wasi.ENOTEMPTY}, {"q", "r", 0}, {"r/", "q/", 0}, {"a/", "z", wasi.ENOTDIR},
		{"a", "z/", wasi.ENOTDIR}, {"no", "z", wasi.ENOENT}, {".", "z", wasi.EBUSY}, {"q", "..", wasi.EBUSY},
		{"q", "p/..", wasi.EBUSY}, {"../a", "a", wasi.EPERM}, {"a", "../a", wasi.EPERM}, {"p", "p/sub", wasi.EINVAL},
		{"a", "/a", wasi.EPERM},
	} {
		if e := m.rename(3, tc.from, 3, tc.to); e != tc.want {
			t.Errorf("rename %s %s: %v, want %v", tc.from, tc.to, e, tc.want)
		}
	}
	for _, tc := range []struct {
		from, to string
		want     wasi.Errno
	}{
		{"a", "hard", 0}, {"a", "hard", wasi.EEXIST}, {"a", "a", wasi.EEXIST}, {"p", "hd", wasi.EPERM},
		{"p/", "hd", wasi.EPERM}, {"a/", "hd", wasi.ENOTDIR}, {"a", "hd/", wasi.ENOENT}, {"a", "p/", wasi.EEXIST},
		{"a", "hard/", wasi.ENOTDIR}, {"../a", "x", wasi.EPERM}, {"a", "../x", wasi.EPERM}, {"no", "x", wasi.ENOENT},
	} {
		if e := m.link(3, tc.from, 3, tc.to); e != tc.want {
			t.Errorf("link %s %s: %v, want %v", tc.from, tc.to, e, tc.want)
		}
	}
	p, n := m.str("a")
	q, k := m.str("hl")
	m.want(wasi.EINVAL, "path_link", 3, follow, p, n, 3, q, k)
	for _, tc := range []struct {
		target, path string
		want         wasi.Errno
	}{
		{"a", "s1", 0}, {"a", "s1", wasi.EEXIST}, {"nothing", "s2", 0}, {"../a", "p/s3", 0}, {"x/../y", "s4", 0},
		{"", "s5", wasi.ENOENT}, {"/etc/passwd", "s5", wasi.EPERM}, {"../x", "s5", wasi.EPERM},
		{"../../x", "p/s5", wasi.EPERM}, {"x/../../y", "s5", wasi.EPERM}, {"a\x00", "s5", wasi.EINVAL},
		{"a", "s5/", wasi.ENOENT}, {"a", "p/", wasi.EEXIST}, {"a", "a/", wasi.ENOTDIR}, {"a", "../s5", wasi.EPERM},
		{strings.Repeat("t", 4097), "s5", wasi.ENAMETOOLONG}, {`..\x`, "s5", wasi.EPERM},
	} {
		if e := m.symlink(tc.target, 3, tc.path); e != tc.want {
			t.Errorf("symlink %.20q %s: %v, want %v", tc.target, tc.path, e, tc.want)
		}
	}
	out, buf := m.alloc(4), m.alloc(16)
	readlink := func(path string, size uint64) (string, wasi.Errno) {
		p, n := m.str(path)
		e := m.call("path_readlink", 3, p, n, buf, size, out)
		return string(m.mem[buf:][:m.u32(out)]), e
	}
	if s, e := readlink("s2", 16); s != "nothing" || e != 0 {
		t.Errorf("readlink: %q, %v", s, e)
	}
	if s, e := readlink("s2", 3); s != "not" || e != 0 {
		t.Errorf("readlink: %q, %v", s, e)
	}
	for path, want := range map[string]wasi.Errno{
		"a": wasi.EINVAL, "no": wasi.ENOENT, ".": wasi.EINVAL, "../x": wasi.EPERM, "s2/": wasi.ENOENT, "p/": wasi.EINVAL,
	} {
		if _, e := readlink(path, 16); e != want {
			t.Errorf("readlink %s: %v, want %v", path, e, want)
		}
	}
}

func TestSymlinksAreOffByDefault(t *testing.T) {
	dir := t.TempDir()
	m := newMachine(t, func(c *wasi.Config) {
		d := grant(t, "/", dir)
		d.Symlinks = false
		c.Dirs = []wasi.Dir{d}
	})
	if e := m.symlink("a", 3, "s"); e != wasi.EPERM {
		t.Errorf("symlink: %v", e)
	}
}

// TestReadOnly holds that a read-only grant refuses every change, before its
// FS is asked.
func TestReadOnly(t *testing.T) {
	dir := t.TempDir()
	tree(t, dir, "f", "d/", "e/")
	other := t.TempDir()
	m := newMachine(t, func(c *wasi.Config) {
		d := grant(t, "/ro", dir)
		d.ReadOnly = true
		d.FS = refusing{t, d.FS}
		c.Dirs = []wasi.Dir{d, grant(t, "/rw", other)}
	})
	before := snapshot(t, dir)
	for _, tc := range []struct {
		oflags, rights, fdflags uint64
	}{{0, writeRight, 0}, {0, rw, 0}, {creat, readRight, 0}, {creat, rw, 0}, {trunc, readRight, 0}, {creat | excl, 0, 0}} {
		for _, path := range []string{"f", "new"} {
			if _, e := m.open(3, path, follow, tc.oflags, tc.rights, tc.fdflags); e != wasi.EROFS {
				t.Errorf("open %s %v: %v", path, tc, e)
			}
		}
	}
	fd := m.mustOpen(3, "f", 0, readRight)
	if s, e := m.read(fd, 9); s != "f" || e != 0 {
		t.Errorf("read %q, %v", s, e)
	}
	if fd, e := m.open(3, "f", 0, 0, readRight, uint64(wasi.FdAppend)); e != 0 {
		t.Error(e)
	} else if _, e := m.write(fd, "x"); e != wasi.EBADF {
		t.Errorf("write: %v", e)
	}
	if _, e := m.write(fd, "x"); e != wasi.EBADF {
		t.Errorf("write: %v", e)
	}
	p, n := m.iovStr("x")
	m.want(wasi.EBADF, "fd_pwrite", fd, p, n, 0, m.alloc(4))
	m.want(wasi.EROFS, "fd_allocate", fd, 0, 1)
	m.want(wasi.EROFS, "fd_filestat_set_size", fd, 0)
	m.want(wasi.EROFS, "fd_filestat_set_times", fd, 1, 1, 5)
	m.want(wasi.EROFS, "fd_filestat_set_times", 3, 1, 1, 5)
	d := m.mustOpen(3, "d", directory, 0)
	m.want(wasi.EROFS, "fd_filestat_set_times", d, 1, 1, 5)
	for _, name := range []string{"path_create_directory", "path_remove_directory", "path_unlink_file"} {
		for _, path := range []string{"f", "d", "new"} {
			if e := m.path(name, 3, path); e != wasi.EROFS {
				t.Errorf("%s %s: %v", name, path, e)
			}
		}
	}
	if e := m.path("path_create_directory", d, "x"); e != wasi.EROFS {
		t.Errorf("mkdir below: %v", e)
	}
	fp, fn := m.str("f")
	m.want(wasi.EROFS, "path_filestat_set_times", 3, 0, fp, fn, 1, 1, 5)
	tree(t, other, "g")
	for _, tc := range []struct {
		from, to uint64
		a, b     string
	}{{3, 3, "f", "x"}, {3, 4, "f", "x"}, {4, 3, "g", "x"}} {
		if e := m.rename(tc.from, tc.a, tc.to, tc.b); e != wasi.EROFS {
			t.Errorf("rename %v: %v", tc, e)
		}
		if e := m.link(tc.from, tc.a, tc.to, tc.b); e != wasi.EROFS {
			t.Errorf("link %v: %v", tc, e)
		}
	}
	if e := m.symlink("f", 3, "s"); e != wasi.EROFS {
		t.Errorf("symlink: %v", e)
	}
	if after := snapshot(t, dir); after != before {
		t.Errorf("the directory changed:\n%s\n%s", before, after)
	}
	// Between grants nothing moves.
	m2 := newMachine(t, func(c *wasi.Config) { c.Dirs = []wasi.Dir{grant(t, "/a", dir), grant(t, "/b", other)} })
	if e := m2.rename(3, "f", 4, "x"); e != wasi.EXDEV {
		t.Errorf("rename to another grant: %v", e)
	}
	if e := m2.link(3, "f", 4, "x"); e != wasi.EXDEV {
		t.Errorf("link to another grant: %v", e)
	}
}

// refusing fails the test when it is asked to change something.
type refusing struct {
	t testing.TB
	wasi.FS
}

func (r refusing) Open(path string, flags wasi.OpenFlags) (*os.File, wasi.Errno) {
	if flags&(wasi.OpenWrite|wasi.OpenCreate|wasi.OpenTrunc) != 0 {
		r.t.Errorf("FS was asked to open %s with %#x", path, flags)
	}
	return r.FS.Open(path, flags)
}
func (r refusing) asked(op, path string) wasi.Errno {
	r.t.Errorf("FS was asked for %s %s", op, path)
	return wasi.EIO
}
func (r refusing) SetTimes(p string, _ wasi.Times, _ bool) wasi.Errno { return r.asked("SetTimes", p) }
func (r refusing) Mkdir(p string) wasi.Errno                          { return r.asked("Mkdir", p) }
func (r refusing) Unlink(p string) wasi.Errno                         { return r.asked("Unlink", p) }
func (r refusing) Rmdir(p string) wasi.Errno                          { return r.asked("Rmdir", p) }
func (r refusing) Rename(p, _ string) wasi.Errno                      { return r.asked("Rename", p) }
func (r refusing) Link(p, _ string) wasi.Errno                        { return r.asked("Link", p) }
func (r refusing) Symlink(_, p string) wasi.Errno                     { return r.asked("Symlink", p) }

// snapshot describes all files below dir: names, types, contents, times.
func snapshot(t testing.TB, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.Walk(dir, func(p string, fi os.FileInfo, err error) error {
		if err != nil {
			return err
		}
		content := ""
		switch {
		case fi.Mode().IsRegular():
			c, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			content = string(c)
		case fi.Mode()&os.ModeSymlink != 0:
			content, _ = os.Readlink(p)
		}
		fmt.Fprintf(&b, "%s %v %v %q\n", p[len(dir):], fi.Mode(), fi.ModTime().UnixNano(), content)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestTimes(t *testing.T) {
	m, dir := onDir(t)
	tree(t, dir, "f", "d/")
	if err := os.Symlink("f", filepath.Join(dir, "l")); err != nil {
		t.Fatal(err)
	}
	mtime := func(path string) int64 {
		fi, err := os.Lstat(filepath.Join(dir, path))
		if err != nil {
			t.Fatal(err)
		}
		return fi.ModTime().UnixNano()
	}
	set := func(path string, lookup, atim, mtim, flags uint64) wasi.Errno {
		p, n := m.str(path)
		return m.call("path_filestat_set_times", 3, lookup, p, n, atim, mtim, flags)
	}
	link := mtime("l")
	if e := set("l", follow, 0, 123456789, 4); e != 0 || mtime("f") != 123456789 || mtime("l") != link {
		t.Errorf("following: %v, file %d", e, mtime("f"))
	}
	if e := set("l", 0, 0, 5000, 4); e != 0 || mtime("l") != 5000 || mtime("f") != 123456789 {
		t.Errorf("not following: %v, link %d", e, mtime("l"))
	}
	if e := set("f", 0, 7, 7, 1); e != 0 || mtime("f") != 123456789 {
		t.Errorf("atime alone: %v, %d", e, mtime("f"))
	}
	if e := set("d/", 0, 0, 42, 4); e != 0 || mtime("d") != 42 {
		t.Errorf("directory: %v, %d", e, mtime("d"))
	}
	if e := set("f/", 0, 0, 42, 4); e != wasi.ENOTDIR {
		t.Errorf("slash: %v", e)
	}
	for _, flags := range []uint64{1 | 2, 4 | 8, 16} {
		if e := set("f", 0, 1, 1, flags); e != wasi.EINVAL {
			t.Errorf("flags %d: %v", flags, e)
		}
	}
	if e := set("f", 0, 0, 1<<63, 4); e != wasi.EINVAL {
		t.Errorf("a time past the end: %v", e)
	}
	start := time.Now().Add(-time.Second).UnixNano()
	if e := set("f", 0, 0, 0, 8); e != 0 || mtime("f") < start {
		t.Errorf("now: %v, %d", e, mtime("f"))
	}
	fd := m.mustOpen(3, "f", 0, readRight)
	m.ok("fd_filestat_set_times", fd, 1, 99, 5)
	if mtime("f") != 99 {
		t.Errorf("by descriptor: %d", mtime("f"))
	}
	st := m.alloc(64)
	m.ok("fd_filestat_get", fd, st)
	if m.u64(st+40) != 1 || m.u64(st+48) != 99 || m.u64(st+32) != 1 || m.u64(st+24) != 1 {
		t.Errorf("stat: atim %d, mtim %d, size %d, nlink %d", m.u64(st+40), m.u64(st+48), m.u64(st+32), m.u64(st+24))
	}
	m.want(wasi.EFAULT, "fd_filestat_get", fd, uint64(len(m.mem)-63))
	m.ok("fd_filestat_set_times", 3, 0, 77, 4) // the preopened directory itself
	if mtime(".") != 77 {
		t.Errorf("preopened: %d", mtime("."))
	}
}

func TestRights(t *testing.T) {
	m, dir := onDir(t)
	tree(t, dir, "f", "d/g")
	st := m.alloc(24)
	rights := func(fd uint64) (base, inherit wasi.Rights) {
		m.ok("fd_fdstat_get", fd, st)
		return wasi.Rights(m.u64(st + 8)), wasi.Rights(m.u64(st + 16))
	}
	fd := m.mustOpen(3, "f", 0, rw)
	base, inherit := rights(fd)
	m.ok("fd_fdstat_set_rights", fd, uint64(base&^wasi.RightFdWrite), uint64(inherit))
	if _, e := m.write(fd, "x"); e != wasi.EBADF {
		t.Errorf("write: %v", e)
	}
	m.want(wasi.ENOTCAPABLE, "fd_fdstat_set_rights", fd, uint64(base), uint64(inherit))
	m.ok("fd_fdstat_set_rights", fd, 0, 0)
	m.want(wasi.EBADF, "fd_read", fd, 0, 0, 0)
	m.want(wasi.ENOTCAPABLE, "fd_seek", fd, 1, 0, m.alloc(8))
	m.want(wasi.ENOTCAPABLE, "fd_tell", fd, m.alloc(8))
	m.want(wasi.ENOTCAPABLE, "fd_sync", fd)
	m.want(wasi.ENOTCAPABLE, "fd_advise", fd, 0, 0, 0)
	m.want(wasi.ENOTCAPABLE, "fd_filestat_get", fd, m.alloc(64))

	// What a directory does not pass on, nothing opened in it has.
	d := m.mustOpen(3, "d", directory, 0)
	base, inherit = rights(d)
	m.ok("fd_fdstat_set_rights", d, uint64(base), uint64(inherit&^(wasi.RightFdWrite|wasi.RightPathUnlinkFile)))
	if _, e := m.open(d, "g", 0, 0, rw, 0); e != wasi.ENOTCAPABLE {
		t.Errorf("open for writing: %v", e)
	}
	if e := m.path("path_unlink_file", d, "g"); e != 0 {
		t.Errorf("unlink: %v", e)
	}
	d2 := m.mustOpen(d, ".", directory, 0)
	if e := m.path("path_unlink_file", d2, "g"); e != wasi.ENOTCAPABLE {
		t.Errorf("unlink: %v", e)
	}
	for name, right := range map[string]wasi.Rights{
		"path_create_directory": wasi.RightPathCreateDirectory, "path_remove_directory": wasi.RightPathRemoveDirectory,
		"path_unlink_file": wasi.RightPathUnlinkFile,
	} {
		x := m.mustOpen(3, ".", directory, 0)
		base, inherit := rights(x)
		m.ok("fd_fdstat_set_rights", x, uint64(base&^right), uint64(inherit))
		if e := m.path(name, x, "f"); e != wasi.ENOTCAPABLE {
			t.Errorf("%s: %v", name, e)
		}
	}
}

func TestPreopens(t *testing.T) {
	a, b := t.TempDir(), t.TempDir()
	m := newMachine(t, func(c *wasi.Config) { c.Dirs = []wasi.Dir{grant(t, "/", a), grant(t, "/data", b)} })
	if fd, e := m.sys.Install(wasi.Stream{}, wasi.FdNonblock); fd != 5 || e != 0 {
		t.Fatalf("install: %d, %v", fd, e)
	}
	st := m.alloc(8)
	for fd, name := range map[uint64]string{3: "/", 4: "/data"} {
		m.ok("fd_prestat_get", fd, st)
		if m.u32(st) != 0 || m.u32(st+4) != uint32(len(name)) {
			t.Errorf("%d: tag %d, length %d", fd, m.u32(st), m.u32(st+4))
		}
		p := m.alloc(16)
		m.ok("fd_prestat_dir_name", fd, p, uint64(len(name))+1)
		if got := string(m.mem[p:][:len(name)+1]); got != name+"\x00" {
			t.Errorf("%d: %q", fd, got)
		}
		m.want(wasi.ENAMETOOLONG, "fd_prestat_dir_name", fd, p, uint64(len(name))-1)
		m.want(wasi.EFAULT, "fd_prestat_dir_name", fd, uint64(len(m.mem)), 99)
		m.want(wasi.EFAULT, "fd_prestat_get", fd, uint64(len(m.mem)-7))
	}
	// Guests stop searching at the first EBADF, so nothing else may be said of
	// what is not preopened.
	for _, fd := range []uint64{0, 5, 6, math.MaxUint32} {
		m.want(wasi.EBADF, "fd_prestat_get", fd, st)
		m.want(wasi.EBADF, "fd_prestat_dir_name", fd, st, 8)
	}
	m.ok("fd_filestat_get", 4, m.alloc(64))
	m.ok("fd_close", 4)
	m.want(wasi.EBADF, "fd_prestat_get", 4, st)
}

// list reads a directory with a buffer of the given size, as guests do: on
// with the cookie of the last whole entry.
func (m *machine) list(fd uint64, size int) (names []string, cookies []uint64) {
	m.t.Helper()
	start := m.free
	defer func() { m.free = start }()
	buf, out := m.alloc(size), m.alloc(4)
	cookie := uint64(0)
	for {
		m.ok("fd_readdir", fd, buf, uint64(size), cookie, out)
		n := uint64(m.u32(out))
		b := m.mem[buf:][:n]
		whole := 0
		for len(b) >= 24 {
			next := binary.LittleEndian.Uint64(b)
			nl := binary.LittleEndian.Uint32(b[16:])
			if uint64(len(b)) < 24+uint64(nl) {
				break
			}
			names = append(names, string(b[24:24+nl]))
			cookies = append(cookies, next)
			cookie = next
			b = b[24+nl:]
			whole++
		}
		if n < uint64(size) {
			return names, cookies
		}
		if whole == 0 {
			m.t.Fatalf("an entry does not fit into %d bytes", size)
		}
	}
}

func TestReaddir(t *testing.T) {
	m, dir := onDir(t)
	want := []string{".", ".."}
	for i := range 1000 {
		name := fmt.Sprintf("%s-%d", strings.Repeat("n", i%200), i)
		tree(t, dir, name)
		want = append(want, name)
	}
	slices.Sort(want)
	for _, size := range []int{24 + 204, 512, 4096, 8192, 1 << 16, 1 << 18} {
		names, cookies := m.list(3, size)
		first := slices.Clone(names)
		slices.Sort(names)
		if !slices.Equal(names, want) {
			t.Fatalf("buffer of %d: %d entries, want %d", size, len(names), len(want))
		}
		// Any cookie, in any order, leads to the entry after it.
		if size == 512 {
			buf, out := m.alloc(512), m.alloc(4)
			for _, i := range []int{len(first) - 2, 0, 500, 499, 501, 3} {
				m.ok("fd_readdir", 3, buf, 512, cookies[i], out)
				nl := m.u32(buf + 16)
				if got := string(m.mem[buf+24:][:nl]); got != first[i+1] {
					t.Errorf("after cookie %d: %q, want %q", i, got, first[i+1])
				}
			}
			m.ok("fd_readdir", 3, buf, 512, cookies[len(cookies)-1], out)
			if m.u32(out) != 0 {
				t.Errorf("after the last: %d bytes", m.u32(out))
			}
		}
	}
	// Removing while reading loses nothing.
	buf, out := m.alloc(1024), m.alloc(4)
	removed := 0
	for cookie := uint64(0); ; {
		m.ok("fd_readdir", 3, buf, 1024, cookie, out)
		n := uint64(m.u32(out))
		for b := m.mem[buf:][:n]; len(b) >= 24; {
			nl := binary.LittleEndian.Uint32(b[16:])
			if uint64(len(b)) < 24+uint64(nl) {
				break
			}
			name := string(b[24 : 24+nl])
			cookie = binary.LittleEndian.Uint64(b)
			b = b[24+nl:]
			if name != "." && name != ".." {
				start := m.free
				if e := m.path("path_unlink_file", 3, name); e != 0 {
					t.Fatalf("unlink %s: %v", name, e)
				}
				m.free = start
				removed++
			}
		}
		if n < 1024 {
			break
		}
	}
	if removed != 1000 {
		t.Errorf("removed %d of 1000", removed)
	}
	m.want(wasi.EFAULT, "fd_readdir", 3, uint64(len(m.mem)), 1, 0, out)
	m.want(wasi.EFAULT, "fd_readdir", 3, buf, 64, 0, uint64(len(m.mem)-3))
	m.want(wasi.EINVAL, "fd_readdir", 3, buf, 64, 1<<63, out)
	m.ok("fd_readdir", 3, buf, 0, 0, out)
	tree(t, dir, "f")
	m.want(wasi.EBADF, "fd_readdir", m.mustOpen(3, "f", 0, readRight), buf, 64, 0, out)
}
