package wasi_test

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/wray-project/wray/host/wasi"
	"github.com/wray-project/wray/host/wasi/wasitest"
)

// TestEscape tries every function that takes a path, as a guest would, on
// every way out of a grant there is: by "..", by links that lead out, with
// slashes at the end, from descriptors below, on grants that may be written
// and that may not.
func TestEscape(t *testing.T) {
	for _, readOnly := range []bool{false, true} {
		dir, out := wasitest.Outside(t)
		m := newMachine(t, func(c *wasi.Config) {
			d := grant(t, "/", dir)
			d.ReadOnly = readOnly
			c.Dirs = []wasi.Dir{d}
		})
		m.mem = make([]byte, 16<<20)
		below := m.mustOpen(3, "d", directory, 0)
		before := wasitest.Describe(t, out)
		tried, fake := 0, m.alloc(8)
		p, n := m.str("f")
		bp, bn := m.alloc(256), uint64(256)

		for _, way := range wasitest.Ways(out) {
			for _, name := range []string{way, way + "/", way + "//", way + "/.", "./" + way, "/" + way, way + "/../secret"} {
				for _, from := range []struct {
					dirfd  uint64
					prefix string
				}{{3, ""}, {below, "../"}, {below, ""}} {
					dirfd, name := from.dirfd, from.prefix+name
					for _, lookup := range []uint64{0, follow} {
						for _, oflags := range []uint64{0, creat, directory, trunc, creat | excl, creat | trunc} {
							for _, rights := range []uint64{0, readRight, writeRight, rw} {
								tried++
								start := m.free
								if fd, e := m.open(dirfd, name, lookup, oflags, rights, 0); e == 0 {
									if rights&readRight != 0 {
										if s, _ := m.read(fd, 64); strings.Contains(s, wasitest.Secret) {
											t.Fatalf("open %q from %d read the secret", name, dirfd)
										}
									}
									names, _ := m.list2(fd)
									for _, entry := range names {
										if entry == "secret" {
											t.Fatalf("open %q from %d listed the directory outside", name, dirfd)
										}
									}
									m.ok("fd_close", fd)
								}
								m.free = start
							}
						}
						start := m.free
						q, k := m.str(name)
						tried += 9
						if m.call("path_filestat_get", dirfd, lookup, q, k, bp) == 0 && lookup == follow &&
							m.u64(bp+32) == uint64(len(wasitest.Secret)) {
							t.Errorf("stat of %q saw the secret", name)
						}
						m.call("path_filestat_set_times", dirfd, follow, q, k, 1, 1, 5)
						m.call("path_create_directory", dirfd, q, k)
						m.call("path_symlink", p, n, dirfd, q, k)
						m.call("path_link", 3, 0, p, n, dirfd, q, k)
						m.call("path_readlink", dirfd, q, k, bp, bn, fake)
						// Where the last element is one of the tree's own links
						// these would take the way itself away.
						if strings.Contains(way, "/") && !strings.HasPrefix(way, "d/") {
							m.call("path_unlink_file", dirfd, q, k)
							m.call("path_remove_directory", dirfd, q, k)
							m.call("path_rename", dirfd, q, k, 3, p, n)
						}
						m.free = start
					}
				}
			}
		}
		if after := wasitest.Describe(t, out); after != before {
			t.Errorf("outside changed:\n%s\nto:\n%s", before, after)
		}
		if b, err := filepath.Glob(filepath.Join(dir, "..", "*")); err != nil || len(b) != 2 {
			t.Errorf("beside the tree: %v, %v", b, err)
		}
		t.Logf("read-only %v: %d attempts", readOnly, tried)
	}
}

// list2 lists what may be no directory.
func (m *machine) list2(fd uint64) ([]string, wasi.Errno) {
	if e := m.call("fd_readdir", fd, 0, 0, 0, 0); e != 0 {
		return nil, e
	}
	names, _ := m.list(fd, 4096)
	return names, 0
}
