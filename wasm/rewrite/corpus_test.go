package rewrite

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental"

	"github.com/wray-project/wray"
)

// engineDir returns the engine's module directory, whose test data is the
// corpus: real modules and the official test suite in binary form.
var engineDir = sync.OnceValue(func() string {
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/tetratelabs/wazero").Output()
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(out))
})

// corpus calls f for every .wasm below the engine's directory.
func corpus(t testing.TB, f func(name string, wasm []byte)) {
	t.Helper()
	root := engineDir()
	if root == "" {
		t.Skip("SKIP: the engine's source is not in the module cache")
	}
	n := 0
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".wasm") {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		n++
		f(strings.TrimPrefix(path, root+"/"), b)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if n < 1000 {
		t.Fatalf("the corpus has %d modules only", n)
	}
}

// features are what a sandbox enables.
const features = api.CoreFeaturesV2 | experimental.CoreFeaturesTailCall

// validator checks modules as the engine does, without compiling much.
func validator(t testing.TB) func([]byte) error {
	ctx := context.Background()
	rt := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfigInterpreter().WithCoreFeatures(features).WithDebugInfoEnabled(false))
	t.Cleanup(func() { rt.Close(ctx) })
	return func(b []byte) error {
		c, err := rt.CompileModule(ctx, b)
		if err == nil {
			c.Close(ctx)
		}
		return err
	}
}

// laxEngine names modules that the official suite calls invalid and the engine
// takes: constant expressions that read a mutable global.
func laxEngine(err error) bool { return strings.Contains(err.Error(), "reads a mutable global") }

// proposals are folders of the corpus whose modules use features that are
// refused.
var proposals = []string{"/threads/", "/exception-handling/", "/typed-function-references/", "/extended-const/", "examples/"}

func ofProposal(name string) bool {
	return slices.ContainsFunc(proposals, func(p string) bool { return strings.Contains(name, p) })
}

// TestCorpusRoundTrip reads and writes every module: what the engine takes is
// taken and means the same, and nothing becomes valid on the way.
func TestCorpusRoundTrip(t *testing.T) {
	valid := validator(t)
	accepted, equal, lax := 0, 0, 0
	corpus(t, func(name string, b []byte) {
		engine := valid(b)
		a, err := Rewrite(b, Options{TailCalls: true})
		if err != nil {
			if !errors.Is(err, wray.ErrInvalidModule) {
				t.Errorf("%s: untyped error %v", name, err)
			}
			if engine == nil && !laxEngine(err) && !ofProposal(name) {
				t.Errorf("%s: the engine takes it: %v", name, err)
			}
			return
		}
		if engine != nil {
			lax++ // types, which are the engine's to check
			if valid(a.Wasm) == nil {
				t.Errorf("%s: valid once rewritten, but the engine says of the original: %v", name, engine)
			}
			return
		}
		accepted++
		if err := valid(a.Wasm); err != nil {
			t.Errorf("%s: rewritten: %v", name, err)
			return
		}
		if bytes.Equal(a.Wasm, b) {
			equal++
			return
		}
		m1, _ := parse(b)
		m2, err := parse(a.Wasm)
		if err != nil {
			t.Errorf("%s: read back: %v", name, err)
			return
		}
		// The writer is a fixed point, and drops nothing that has a meaning.
		if again := m2.encode(); !bytes.Equal(again, a.Wasm) {
			t.Errorf("%s: written twice is different", name)
		}
		if len(m1.bodies) != len(m2.bodies) || len(m1.customs) != len(m2.customs) || !slices.Equal(m1.exports, m2.exports) {
			t.Errorf("%s: reads back different", name)
		}
		for i := range m1.bodies {
			if !bytes.Equal(m1.bodies[i].code, m2.bodies[i].code) {
				t.Errorf("%s: body %d reads back different", name, i)
			}
		}
	})
	t.Logf("%d accepted, %d of them byte for byte; %d left to the engine's type check", accepted, equal, lax)
}

// TestCorpusSnapshot takes snapshots of every module.
func TestCorpusSnapshot(t *testing.T) {
	valid := validator(t)
	accepted := 0
	corpus(t, func(name string, b []byte) {
		a, err := Rewrite(b, Options{TailCalls: true, Snapshot: true})
		if err != nil {
			return
		}
		engine, got := valid(b), valid(a.Wasm)
		if (engine == nil) != (got == nil) {
			t.Errorf("%s: the engine says of the original: %v; of the snapshot variant: %v", name, engine, got)
		}
		m, err := parse(a.Wasm)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		for i := range m.datas {
			if !m.datas[i].passive {
				t.Errorf("%s: active data left", name)
			}
		}
		if m.start >= 0 {
			t.Errorf("%s: start function left", name)
		}
		accepted++
	})
	t.Logf("%d taken", accepted)
	if accepted < 2500 {
		t.Errorf("only %d taken", accepted)
	}
}
