package wasi_test

import (
	"testing"

	"github.com/wray-project/wray/host/wasi"
	"github.com/wray-project/wray/host/wasi/wasitest"
)

func TestRootFS(t *testing.T) {
	wasitest.TestFS(t, 10_000, func(t *testing.T, dir string) wasi.FS { return grant(t, "/", dir).FS })
}

// TestRootFSUncleaned asks for paths that no System passes on, as a process
// would that has been taken over.
func TestRootFSUncleaned(t *testing.T) {
	dir, out := wasitest.Outside(t)
	fs := grant(t, "/", dir).FS
	before := wasitest.Describe(t, out)
	for _, way := range wasitest.Ways(out) {
		for _, p := range []string{
			way + "/", way + "//", way + "/.", way + "/..", "/" + way, "//" + way, "./" + way, way + "\x00", "\x00" + way,
			"d/../" + way, out, out + "/secret", out + "/new", "", "/", "//", ".", "..", "../", "/..", "./..",
		} {
			for _, flags := range []wasi.OpenFlags{
				0, wasi.OpenNoFollow, wasi.OpenDirectory, wasi.OpenTrunc, wasi.OpenWrite | wasi.OpenCreate,
				wasi.OpenWrite | wasi.OpenCreate | wasi.OpenNoFollow, 1 << 31,
			} {
				f, e := fs.Open(p, flags)
				if e != 0 {
					continue
				}
				names, _ := f.Readdirnames(-1)
				for _, name := range names {
					if name == "secret" || name == "out" {
						t.Errorf("Open(%q, %#x) opened a directory outside", p, flags)
					}
				}
				b := make([]byte, 64)
				if n, _ := f.Read(b); string(b[:n]) == wasitest.Secret {
					t.Errorf("Open(%q, %#x) opened the secret", p, flags)
				}
				f.Close()
			}
			if st, e := fs.Stat(p, true); e == 0 && st.Size == uint64(len(wasitest.Secret)) {
				t.Errorf("Stat(%q) saw the secret", p)
			}
			fs.SetTimes(p, wasi.Times{Atim: 1, Mtim: 1}, true)
			fs.Mkdir(p)
			fs.Symlink("f", p)
			fs.Link("f", p)
			fs.Rename("nothing", p)
			fs.Readlink(p)
		}
	}
	if after := wasitest.Describe(t, out); after != before {
		t.Errorf("outside changed:\n%s\nto:\n%s", before, after)
	}
}

func TestDecorators(t *testing.T) {
	dir := t.TempDir()
	tree(t, dir, "f")
	inner := refusing{t, grant(t, "/", dir).FS}
	ro := wasi.ReadOnly(inner)
	for what, e := range map[string]wasi.Errno{
		"SetTimes": ro.SetTimes("f", wasi.Times{}, true), "Mkdir": ro.Mkdir("d"), "Unlink": ro.Unlink("f"),
		"Rmdir": ro.Rmdir("d"), "Rename": ro.Rename("f", "g"), "Link": ro.Link("f", "g"), "Symlink": ro.Symlink("f", "g"),
	} {
		if e != wasi.EROFS {
			t.Errorf("%s: %v", what, e)
		}
	}
	for _, flags := range []wasi.OpenFlags{wasi.OpenWrite, wasi.OpenTrunc, wasi.OpenCreate, wasi.OpenAppend} {
		if _, e := ro.Open("f", flags); e != wasi.EROFS {
			t.Errorf("Open with %#x: %v", flags, e)
		}
	}
	f, e := ro.Open("f", wasi.OpenRead)
	if e != 0 {
		t.Fatal(e)
	}
	f.Close()
	if st, e := ro.Stat("f", true); e != 0 || st.Size != 1 {
		t.Error(st, e)
	}
	if e := wasi.NoSymlinks(inner).Symlink("f", "g"); e != wasi.EPERM {
		t.Error(e)
	}
}
