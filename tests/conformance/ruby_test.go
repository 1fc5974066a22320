package conformance

import (
	"archive/tar"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/wray-project/wray/host/node"
	"github.com/wray-project/wray/host/worker"
)

// Ruby, built for WASI by its maintainers, as a package of npm.
const (
	rubyPackage = "@ruby/3.4-wasm-wasi@2.10.1"
	rubySum     = "2e709bd9eddefe1c5d63e9fc0391a35cce4754e936d8a2f24b8582f6d5c2ea88"
	rubyFile    = "package/dist/ruby.wasm"
)

// TestRuby runs a script in Ruby's interpreter: a large program that nobody here
// has written or built.
func TestRuby(t *testing.T) {
	if !*full {
		t.Skip("SKIP: it fetches 30 MB and compiles for a minute; make conformance runs it")
	}
	wasm := fetchRuby(t)
	n := newNode(t)
	r := command(t, n, node.Job{
		Name: "ruby", Modules: []node.Module{{Name: "ruby", Wasm: wasm}},
		Args:   []string{"--disable-gems", "-e", `def fib(n) = n < 2 ? n : fib(n - 1) + fib(n - 2); h = Hash.new { |h, k| h[k] = k.to_s * 2 }; begin; raise "caught"; rescue => e; puts e.message; end; puts fib(20), h["ab"], "%.3f" % Math.sqrt(2), "wray".reverse =~ /y/; puts [3, 1, 2].sort.map { _1 * 2 }.inspect`},
		Limits: worker.Limits{Timeout: 5 * time.Minute},
	})
	want := "caught\n6765\nabab\n1.414\n0\n[2, 4, 6]\n"
	if r.err != nil || r.code != 0 || r.out != want {
		t.Fatalf("exit %d, %v: %q, want %q\n%s", r.code, r.err, r.out, want, tail(r.stderr))
	}
	t.Logf("%d MiB of Ruby, %v with its compilation", len(wasm)>>20, r.took.Round(time.Millisecond))
}

// fetchRuby fetches the package, once, and returns the interpreter.
func fetchRuby(t *testing.T) []byte {
	t.Helper()
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(cache, "wray-conformance")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, rubySum+".tgz")
	b, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		tmp := t.TempDir()
		out, perr := exec.CommandContext(t.Context(), "npm", "pack", "--silent", "--pack-destination", tmp, rubyPackage).Output()
		if perr != nil {
			t.Skipf("SKIP: npm does not fetch %s: %v", rubyPackage, perr)
		}
		if b, err = os.ReadFile(filepath.Join(tmp, strings.TrimSpace(string(out)))); err == nil {
			err = os.WriteFile(file, b, 0o644)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	if sum := sha256.Sum256(b); hex.EncodeToString(sum[:]) != rubySum {
		os.Remove(file)
		t.Fatalf("%s has sha256 %x, want %s", rubyPackage, sum, rubySum)
	}
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	for archive := tar.NewReader(z); ; {
		h, err := archive.Next()
		if err != nil {
			t.Fatalf("%s has no %s: %v", rubyPackage, rubyFile, err)
		}
		if h.Name == rubyFile {
			wasm, err := io.ReadAll(archive)
			if err != nil {
				t.Fatal(err)
			}
			return wasm
		}
	}
}
