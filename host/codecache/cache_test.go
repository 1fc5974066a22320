//go:build linux

package codecache

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/host/jail"
)

// TestMain makes the test binary the compiler of its own tests.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "_compile" {
		os.Exit(RunCompiler(os.Args[2:], fakeCompile))
	}
	os.Exit(m.Run())
}

// module returns a valid module whose custom section tells fakeCompile what to
// do, and which differs from others by its tag.
func module(do string, tag int) []byte {
	payload := fmt.Sprintf("\x04test%s %d", do, tag)
	return append([]byte{0, 'a', 's', 'm', 1, 0, 0, 0, 0, byte(len(payload))}, payload...)
}

// fakeCompile leaves what an engine would: code that depends on the module
// alone, and an artifact that tells one compilation from another.
func fakeCompile(_ context.Context, module []byte, dir string) error {
	do, _, _ := strings.Cut(string(module[15:]), " ")
	switch do {
	case "refuse":
		return &wray.Error{Code: wray.CodeInvalidModule, Message: "no \xff good", Hint: "mend it"}
	case "fail":
		return errors.New("the disk is full")
	case "panic":
		panic("in the handler")
	case "crash":
		done := make(chan bool)
		go func() { panic("boom") }()
		<-done
	case "exit":
		os.Exit(3)
	case "spin":
		for n := 1; n != 0; n += 2 { // odd for ever
		}
	case "memory":
		hold = make([]byte, 1<<36)
	case "shut":
		for fd := 3; fd < 64; fd++ {
			var st unix.Stat_t
			if err := unix.Fstat(fd, &st); err == nil && st.Mode&unix.S_IFMT == unix.S_IFSOCK {
				unix.Close(fd)
			}
		}
		time.Sleep(time.Hour)
	case "wait":
		// It opens once somebody opens the other end.
		f, err := os.Open(filepath.Join(dir, goFile))
		if err != nil {
			return err
		}
		f.Close()
	case "none":
		return nil
	case "subvert":
		return subvert(string(module), dir)
	}
	sum := sha(module)
	text := bytes.Repeat(sum, 100)
	if do == "lie" { // it says whose code this is to be
		name, err := hex.DecodeString(string(module[len(module)-2*sha256.Size:]))
		if err != nil {
			return err
		}
		sum, text = name, []byte("hostile")
	}
	code := filepath.Join(dir, nativeDir, "wazero-test")
	if err := os.MkdirAll(code, 0o700); err != nil {
		return err
	}
	if do == "two" {
		if err := os.WriteFile(filepath.Join(code, strings.Repeat("0", 64)), nil, 0o600); err != nil {
			return err
		}
	}
	unique := make([]byte, 16)
	rand.Read(unique)
	return errors.Join(
		os.WriteFile(filepath.Join(code, hex.EncodeToString(sum)), text, 0o600),
		os.WriteFile(filepath.Join(dir, artifactFile), unique, 0o600))
}

func sha(b []byte) []byte { sum := sha256.Sum256(b); return sum[:] }

var hold []byte

func testConfig(root string) Config {
	return Config{Root: root, Identity: "v1", Compiler: Compiler{Args: []string{"_compile"}}}
}

func openCache(t testing.TB, cfg Config) *Cache {
	t.Helper()
	c, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// noCompiler returns cfg with a compiler that cannot start: what works with it
// is not compiled.
func noCompiler(cfg Config) Config {
	cfg.Compiler.Path = "/missing"
	return cfg
}

// mark returns what tells one compilation from another.
func mark(t testing.TB, e Entry) string {
	t.Helper()
	b, err := os.ReadFile(e.ArtifactPath)
	if err != nil {
		t.Fatal(err)
	}
	return hex.EncodeToString(b)
}

func get(t testing.TB, c *Cache, tenant string, mod []byte) Entry {
	t.Helper()
	e, err := c.Get(t.Context(), tenant, mod)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func TestCompilesOnce(t *testing.T) {
	cfg := testConfig(filepath.Join(t.TempDir(), "new"))
	c := openCache(t, cfg)
	mod := module("ok", 1)
	e := get(t, c, "local", mod)
	dir, err := c.Dir("local")
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(mod)
	if e.CacheDir != dir || e.NativePath != filepath.Join(dir, "wazero-test", hex.EncodeToString(sum[:])) {
		t.Errorf("%+v", e)
	}
	if again := get(t, openCache(t, noCompiler(cfg)), "local", mod); mark(t, again) != mark(t, e) || again != e {
		t.Error("another cache over the directory has another entry")
	}
	if other := get(t, c, "other", mod); mark(t, other) == mark(t, e) || filepath.Dir(other.CacheDir) != filepath.Dir(dir) || other.CacheDir == dir {
		t.Error("two tenants share an entry")
	}
	cfg.Identity = "v2"
	if other := get(t, openCache(t, cfg), "local", mod); mark(t, other) == mark(t, e) {
		t.Error("another engine was given this one's code")
	}
	left, err := filepath.Glob(filepath.Join(dir, "*-*"))
	if err != nil || len(left) != 1 || filepath.Base(left[0]) != "wazero-test" {
		t.Errorf("left behind: %q, %v", left, err)
	}
	for _, path := range []string{cfg.Root, dir, filepath.Join(cfg.Root, "key")} {
		st, err := os.Stat(path)
		if err != nil || st.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %v; %v", path, st.Mode(), err)
		}
	}
}

// TestTampering holds that whatever is changed in the cache, by one bit or by
// exchange, is not used.
func TestTampering(t *testing.T) {
	cfg := testConfig(t.TempDir())
	c := openCache(t, cfg)
	mod := module("ok", 1)
	flip := func(path string, at int) {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if at < 0 {
			at += len(b)
		}
		b[at] ^= 1
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	copyFile := func(from, to string) {
		b, err := os.ReadFile(from)
		if err == nil {
			err = os.WriteFile(to, b, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	manifest := func(tenant string, m []byte) string {
		dir, err := c.Dir(tenant)
		if err != nil {
			t.Fatal(err)
		}
		return c.unit(tenant, dir, m).manifest()
	}
	other := get(t, c, "local", module("ok", 2))
	foreign := get(t, c, "other", mod)
	for name, tamper := range map[string]func(Entry){
		"first byte of code":   func(e Entry) { flip(e.NativePath, 0) },
		"last byte of code":    func(e Entry) { flip(e.NativePath, -1) },
		"byte of the artifact": func(e Entry) { flip(e.ArtifactPath, 3) },
		"byte of the MAC":      func(Entry) { flip(manifest("local", mod), 0) },
		"byte of the manifest": func(Entry) { flip(manifest("local", mod), -10) },
		"code cut":             func(e Entry) { os.Truncate(e.NativePath, 5) },
		"code gone":            func(e Entry) { os.Remove(e.NativePath) },
		"artifact gone":        func(e Entry) { os.Remove(e.ArtifactPath) },
		"manifest gone":        func(Entry) { os.Remove(manifest("local", mod)) },
		"manifest empty":       func(Entry) { os.WriteFile(manifest("local", mod), nil, 0o600) },
		"code of another":      func(e Entry) { copyFile(other.NativePath, e.NativePath) },
		"all of another": func(e Entry) {
			copyFile(other.ArtifactPath, e.ArtifactPath)
			copyFile(manifest("local", module("ok", 2)), manifest("local", mod))
		},
		"all of another tenant": func(e Entry) {
			copyFile(foreign.ArtifactPath, e.ArtifactPath)
			copyFile(manifest("other", mod), manifest("local", mod))
		},
	} {
		before := mark(t, get(t, c, "local", mod))
		tamper(get(t, c, "local", mod))
		e := get(t, c, "local", mod)
		if m := mark(t, e); m == before || m == mark(t, other) || m == mark(t, foreign) {
			t.Errorf("%s: used", name)
		}
		if again := get(t, openCache(t, noCompiler(cfg)), "local", mod); again != e {
			t.Errorf("%s: not mended", name)
		}
	}
	if err := os.Remove(filepath.Join(cfg.Root, "key")); err != nil {
		t.Fatal(err)
	}
	if _, err := openCache(t, noCompiler(cfg)).Get(t.Context(), "local", mod); err == nil {
		t.Error("an entry was accepted under another key")
	}
}

// TestVerdicts holds that each end of a compiler is one clear error, and is
// remembered if the module is at fault.
func TestVerdicts(t *testing.T) {
	for _, c := range []struct {
		do       string
		code     wray.Code
		limit    string
		says     string
		remember bool
	}{
		{"refuse", wray.CodeInvalidModule, "", "no ? good", true},
		{"crash", wray.CodeInvalidModule, "", "breaks the compiler: panic: boom (exit status 2", true},
		{"exit", wray.CodeInvalidModule, "", "exit status 3", true},
		{"spin", wray.CodeLimitExceeded, "compile time", "takes too long", true},
		{"memory", wray.CodeLimitExceeded, "compile memory", "too much memory", true},
		{"fail", wray.CodeInternal, "", "the disk is full", false},
		{"panic", wray.CodeInternal, "", "in the handler", false},
		{"shut", wray.CodeInternal, "", "was killed", false},
		{"two", 0, "", "left both", false},
		{"none", 0, "", "no such file", false},
	} {
		t.Run(c.do, func(t *testing.T) {
			t.Parallel()
			if c.do == "memory" && raceDetector {
				t.Skip("SKIP: address space is not limited under the race detector")
			}
			cfg := testConfig(t.TempDir())
			if c.do == "spin" { // under the race detector it would have ten times as much
				cfg.Compiler.budget = 2 * time.Second
			}
			mod := module(c.do, 1)
			_, err := openCache(t, cfg).Get(t.Context(), "local", mod)
			var e *wray.Error
			if c.code != 0 {
				if !errors.As(err, &e) {
					t.Fatalf("%v", err)
				}
				if e.Code != c.code || (e.Limit == nil) != (c.limit == "") || e.Limit != nil && e.Limit.Name != c.limit {
					t.Errorf("%+v", e)
				}
				if c.remember && e.Hint == "" && c.do != "refuse" {
					t.Error("no hint")
				}
			}
			if err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%v, want %q", err, c.says)
			}
			_, again := openCache(t, noCompiler(cfg)).Get(t.Context(), "local", mod)
			if remembered := again != nil && again.Error() == err.Error(); remembered != c.remember {
				t.Errorf("remembered %v: %v", remembered, again)
			}
			if !c.remember {
				return
			}
			// Another build may take what this one refused.
			other := openCache(t, noCompiler(cfg))
			other.program = "another build"
			if _, err := other.Get(t.Context(), "local", mod); err == nil || !strings.Contains(err.Error(), "start a compiler") {
				t.Errorf("another build: %v", err)
			}
		})
	}
}

func TestBudget(t *testing.T) {
	for size, want := range map[int][2]time.Duration{
		-1: {time.Second, 2 * time.Second}, 15: {time.Second, 2 * time.Second}, 500 << 10: {time.Second, 2 * time.Second},
		1 << 20:  {3 * time.Second, 4 * time.Second},
		64 << 20: {150 * time.Second, 200 * time.Second},
	} {
		if got := Budget(size); got < want[0] || got > want[1] {
			t.Errorf("%d bytes: %v", size, got)
		}
	}
}

func TestDied(t *testing.T) {
	v := died(jail.Exit{Code: exitJail}, "wray: entering the jail of a compiler: no landlock\n", time.Second)
	if v.refused != nil || v.err.Error() != "start a compiler: entering the jail of a compiler: no landlock" {
		t.Errorf("%+v", v)
	}
	if _, err := openCache(t, Config{Root: t.TempDir(), Compiler: Compiler{Path: "/missing"}}).Get(t.Context(), "local", module("ok", 1)); err == nil {
		t.Error("compiled without a compiler")
	}
}

// TestManyAtOnce holds that callers in two processes share one compilation.
func TestManyAtOnce(t *testing.T) {
	cfg := testConfig(t.TempDir())
	caches := []*Cache{openCache(t, cfg), openCache(t, cfg)} // as two processes: they share no memory but the directory
	marks := make([]string, 12)
	var wg sync.WaitGroup
	for i := range marks {
		wg.Go(func() {
			e, err := caches[i%2].Get(t.Context(), "local", module("ok", i%3))
			if err != nil {
				t.Error(err)
				return
			}
			marks[i] = mark(t, e)
		})
	}
	wg.Wait()
	for i := range marks {
		if marks[i] != marks[i%3] {
			t.Errorf("module %d was compiled twice", i%3)
		}
	}
}

// goFile is a FIFO in the private directory of a compiler told to wait.
const goFile = "go"

// TestCancel holds that who leaves early takes nothing from who stays, and that
// a compilation nobody waits for ends.
func TestCancel(t *testing.T) {
	c := openCache(t, testConfig(t.TempDir()))
	compiling, joined := make(chan string, 1), make(chan bool, 1)
	c.watch = watch{
		compiling: func(out string) {
			if err := unix.Mkfifo(filepath.Join(out, goFile), 0o600); err != nil {
				t.Error(err)
			}
			compiling <- out
		},
		joined: func() { joined <- true },
	}
	mod := module("wait", 1)
	type result struct {
		e   Entry
		err error
	}
	ask := func(ctx context.Context) chan result {
		out := make(chan result, 1)
		go func() {
			e, err := c.Get(ctx, "local", mod)
			out <- result{e, err}
		}()
		<-joined
		return out
	}
	first, cancel := context.WithCancel(t.Context())
	a := ask(first)
	private := <-compiling
	b := ask(t.Context())
	cancel()
	if r := <-a; !errors.Is(r.err, context.Canceled) {
		t.Error(r.err)
	}
	start, err := os.OpenFile(filepath.Join(private, goFile), os.O_WRONLY, 0) // returns once the compiler reads
	if err != nil {
		t.Fatal(err)
	}
	start.Close()
	if r := <-b; r.err != nil {
		t.Error(r.err)
	}

	mod = module("wait", 2)
	second, cancel := context.WithCancel(t.Context())
	a = ask(second)
	private = <-compiling
	cancel()
	if r := <-a; !errors.Is(r.err, context.Canceled) {
		t.Error(r.err)
	}
	c.running.Wait() // the compiler was stopped, for nobody let it go on
	if _, err := os.Stat(private); !errors.Is(err, os.ErrNotExist) {
		t.Error("its directory is left")
	}

	mod = module("wait", 3)
	a = ask(t.Context())
	<-compiling
	c.Close()
	if r := <-a; r.err == nil {
		t.Error("Close let a compilation end well")
	}
	if _, err := c.Get(t.Context(), "local", mod); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
}

// TestTrim holds that what was used longest ago goes first, and nothing that
// was used just now.
func TestTrim(t *testing.T) {
	cfg := testConfig(t.TempDir())
	c := openCache(t, cfg)
	var units []unit
	dir, err := c.Dir("local")
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	for i := range 4 {
		e := get(t, c, "local", module("ok", i))
		u := c.unit("local", dir, module("ok", i))
		units = append(units, u)
		// The first was used longest ago, but the third just now.
		used := now.Add(time.Duration(i-10) * time.Hour)
		if i == 2 {
			used = now
		}
		for _, path := range []string{u.manifest(), e.NativePath, e.ArtifactPath} {
			if err := os.Chtimes(path, used, used); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, age := range map[string]time.Duration{"compile-dead": 30 * time.Hour, "compile-busy": time.Hour, "manifest-x": time.Hour, "new.artifact": 0} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, now.Add(-age), now.Add(-age)); err != nil {
			t.Fatal(err)
		}
	}
	_, _, total := c.inventory(dir)
	c.cfg.MaxBytes = total / 2
	c.trim(dir)
	for i, want := range []bool{false, false, true, true} {
		_, err := c.lookup(units[i])
		if (err == nil) != want {
			t.Errorf("entry %d is there: %v, want %v", i, err == nil, want)
		}
	}
	if _, _, left := c.inventory(dir); left > c.cfg.MaxBytes {
		t.Errorf("%d bytes are left, at most %d", left, c.cfg.MaxBytes)
	}
	c.cfg.MaxBytes = 1
	c.trim(dir)
	if _, err := c.lookup(units[2]); err != nil {
		t.Error("an entry that was just used is gone")
	}
	if _, err := os.Stat(filepath.Join(dir, "compile-busy")); err != nil {
		t.Error("a compiler that may still run lost its directory")
	}
	left, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range left {
		switch base := filepath.Base(path); {
		case base == "compile-busy", base == "new.artifact", base == "wazero-test", strings.HasPrefix(base, units[2].id):
		default:
			// lookup of the fourth has touched it
			if !strings.HasPrefix(base, units[3].id) {
				t.Errorf("left: %s", base)
			}
		}
	}
}

func TestKey(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key")
	keys := make([][]byte, 8)
	var wg sync.WaitGroup
	for i := range keys {
		wg.Go(func() {
			var err error
			if keys[i], err = loadKey(path); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for _, k := range keys {
		if len(k) != 32 || !bytes.Equal(k, keys[0]) {
			t.Error("processes disagree about the key")
		}
	}
	if left, _ := filepath.Glob(path + "-*"); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := loadKey(path); err == nil || !strings.Contains(err.Error(), "others may know it") {
		t.Error(err)
	}
	if err := errors.Join(os.Chmod(path, 0o600), os.Truncate(path, 31)); err != nil {
		t.Fatal(err)
	}
	if _, err := loadKey(path); err == nil || !strings.Contains(err.Error(), "damaged") {
		t.Error(err)
	}
}

func TestTenantNames(t *testing.T) {
	c := openCache(t, testConfig(t.TempDir()))
	for _, name := range []string{"", ".", "..", "../x", "a/b", "A", "a b", strings.Repeat("x", 64), "-x", "x\x00"} {
		if _, err := c.Dir(name); err == nil {
			t.Errorf("%q is accepted", name)
		}
	}
}

func TestOneEntry(t *testing.T) {
	good := "wazero-v1/" + strings.Repeat("a", 64)
	for name, files := range map[string][]string{
		"":           {good},
		"no code":    {},
		"left both":  {good, "wazero-v1/" + strings.Repeat("b", 64)},
		"left \"x\"": {good, "x"},
		"/short\"":   {"wazero-v1/short"},
		"deep":       {"wazero-v1/deep/" + strings.Repeat("a", 64)},
		"-> passwd":  {"wazero-v1/" + strings.Repeat("a", 64) + " -> passwd"},
	} {
		dir := t.TempDir()
		for _, f := range files {
			f, target, link := strings.Cut(f, " -> ")
			path := filepath.Join(dir, f)
			err := os.MkdirAll(filepath.Dir(path), 0o700)
			if link {
				err = errors.Join(err, os.Symlink("/etc/"+target, path))
			} else {
				err = errors.Join(err, os.WriteFile(path, nil, 0o600))
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		got, err := oneEntry(dir)
		if (err == nil) != (name == "") || name == "" && got != good {
			t.Errorf("%q: %q, %v", name, got, err)
		}
		if err != nil && !strings.HasPrefix(name, "-> ") && !strings.Contains(err.Error(), name) {
			t.Errorf("%q: %v", name, err)
		}
	}
	if err := regular(os.DevNull, 1); err == nil {
		t.Error("a device was accepted")
	}
	big := filepath.Join(t.TempDir(), "big")
	if err := errors.Join(os.WriteFile(big, nil, 0o600), os.Truncate(big, maxArtifact+1)); err != nil {
		t.Fatal(err)
	}
	if err := regular(big, maxArtifact); err == nil {
		t.Error("a file that is too large was accepted")
	}
}

// FuzzManifest holds that nothing without the right MAC is read.
func FuzzManifest(f *testing.F) {
	c, err := Open(testConfig(f.TempDir()))
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte(nil))
	f.Add([]byte("00\n{}"))
	f.Add([]byte(c.mac([]byte("{}")) + "\n{}"))
	path := filepath.Join(f.TempDir(), "m.json")
	f.Fuzz(func(t *testing.T, b []byte) {
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := c.readManifest(path); err == nil {
			mac, text, _ := strings.Cut(string(b), "\n")
			if mac != c.mac([]byte(text)) {
				t.Fatalf("accepted %q", b)
			}
		}
	})
}

// BenchmarkWarm is a look-up of an entry as large as an ordinary Go program's:
// 20 MiB of code, 6 MiB of artifact, a module of 4 MiB.
func BenchmarkWarm(b *testing.B) {
	c := openCache(b, testConfig(b.TempDir()))
	dir, err := c.Dir("local")
	if err != nil {
		b.Fatal(err)
	}
	mod := make([]byte, 4<<20)
	u := c.unit("local", dir, mod)
	out := b.TempDir()
	native := filepath.Join(out, nativeDir, "wazero-test")
	err = errors.Join(os.MkdirAll(native, 0o700),
		os.WriteFile(filepath.Join(native, strings.Repeat("a", 64)), make([]byte, 20<<20), 0o600),
		os.WriteFile(filepath.Join(out, artifactFile), make([]byte, 6<<20), 0o600))
	if err != nil {
		b.Fatal(err)
	}
	if _, err := c.install(u, out); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := c.Get(context.Background(), "local", mod); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkCold is a compilation without the compiler's own work.
func BenchmarkCold(b *testing.B) {
	c := openCache(b, testConfig(b.TempDir()))
	n := 0
	for b.Loop() {
		n++
		if _, err := c.Get(context.Background(), "local", module("ok", n)); err != nil {
			b.Fatal(err)
		}
	}
}
