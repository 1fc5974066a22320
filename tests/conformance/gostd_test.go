package conformance

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/wray-project/wray/host/node"
	"github.com/wray-project/wray/host/worker"
)

// goStd are packages of Go's standard library whose own tests run in sandboxes,
// the first few always.
var goStd = []string{
	"unicode/utf8", "container/ring",

	"archive/tar", "archive/zip", "bufio", "bytes", "cmp", "compress/bzip2", "compress/flate", "compress/gzip", "compress/lzw", "compress/zlib",
	"container/heap", "container/list", "context", "crypto/aes", "crypto/ecdsa", "crypto/ed25519", "crypto/hmac", "crypto/md5", "crypto/sha1",
	"crypto/sha256", "crypto/sha512", "encoding/ascii85", "encoding/base32", "encoding/base64", "encoding/binary", "encoding/csv",
	"encoding/gob", "encoding/hex", "encoding/json", "encoding/pem", "encoding/xml", "errors", "expvar", "flag", "fmt", "go/ast", "go/format",
	"go/parser", "go/printer", "go/scanner", "go/token", "hash/adler32", "hash/crc32", "hash/crc64", "hash/fnv", "hash/maphash", "html", "html/template",
	"image", "image/color", "image/draw", "image/gif", "image/jpeg", "image/png", "index/suffixarray", "io", "io/fs", "iter", "log", "log/slog",
	"maps", "math", "math/big", "math/bits", "math/cmplx", "math/rand", "math/rand/v2", "mime", "mime/multipart", "mime/quotedprintable",
	"net/mail", "net/netip", "net/textproto", "net/url", "os", "path", "path/filepath", "reflect", "regexp", "regexp/syntax", "slices", "sort", "strconv",
	"strings", "sync", "sync/atomic", "text/scanner", "text/tabwriter", "text/template", "text/template/parse", "time", "unicode", "unicode/utf16", "unique",
}

// few is how many of goStd run where not all do.
const few = 1

// goExceptions are packages that do not pass, and why.
var goExceptions = map[string]string{}

// TestGoStandardLibrary builds the tests of packages of Go's standard library for
// WASI, and runs them in sandboxes, in the package's directory, which they may
// read.
func TestGoStandardLibrary(t *testing.T) {
	goroot, err := goCommand(t, "", "env", "GOROOT")
	if err != nil {
		t.Fatal(err)
	}
	n := newNode(t)
	packages := goStd[:few]
	if *full {
		packages = goStd
	}
	dir := t.TempDir()
	passed := 0
	for _, pkg := range packages {
		ok := t.Run(pkg, func(t *testing.T) {
			if why, known := goExceptions[pkg]; known {
				t.Skipf("SKIP: %s", why)
			}
			src := filepath.Join(goroot, "src", filepath.FromSlash(pkg))
			file := filepath.Join(dir, strings.ReplaceAll(pkg, "/", "_")+".wasm")
			if out, err := goCommand(t, src, "test", "-c", "-o", file, "."); err != nil {
				t.Fatalf("go test -c: %v\n%s", err, out)
			}
			wasm, err := os.ReadFile(file)
			os.Remove(file)
			if err != nil {
				t.Fatal(err)
			}
			tmp := t.TempDir()
			r := command(t, n, node.Job{
				Name: pkg, Modules: []node.Module{{Name: "test", Wasm: wasm}},
				Args: []string{"-test.short", "-test.timeout=10m"}, Env: []string{"PWD=" + src, "TMPDIR=/tmp", "HOME=/tmp", "GOROOT=" + goroot, "PATH=/bin"},
				Dirs:   []node.Dir{{Host: goroot, Guest: goroot, ReadOnly: true}, {Host: tmp, Guest: "/tmp"}},
				Limits: worker.Limits{Timeout: 12 * time.Minute, Files: 256},
			})
			if r.err != nil || r.code != 0 || !strings.Contains(r.out, "PASS") {
				t.Fatalf("exit %d, %v after %v\n%s\n%s", r.code, r.err, r.took, tail(r.out), tail(r.stderr))
			}
			t.Logf("%d KiB, %v", len(wasm)>>10, r.took.Round(time.Millisecond))
		})
		if ok && goExceptions[pkg] == "" {
			passed++
		}
	}
	fmt.Printf("Go's standard library: %d of %d packages pass their tests in sandboxes\n", passed, len(packages))
	if *full && passed < 40 {
		t.Errorf("%d packages pass, want 40", passed)
	}
}
