package abi

import (
	"bytes"
	"flag"
	"fmt"
	"go/ast"
	"go/constant"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"os"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite testdata/abi.txt")

// TestGolden pins every exported constant of the package, so that no number a
// guest was built with changes its meaning unseen. The constants are read from
// the source: one that is added is pinned without anyone naming it here.
//
// When it fails, run `go test ./wasm/abi -update` and read the difference. A
// line that is added extends the interface. A line that changes or goes breaks
// every guest there is: that needs a new Version.
func TestGolden(t *testing.T) {
	var b bytes.Buffer
	for _, c := range constants(t) {
		fmt.Fprintf(&b, "%s = %s\n", c.name, c.value)
	}
	// What is computed and not a constant.
	for e := range Elem(12) {
		fmt.Fprintf(&b, "Elem(%d).Size() = %d\n", e, e.Size())
	}
	const golden = "testdata/abi.txt"
	if *update {
		if err := os.WriteFile(golden, b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Equal(b.Bytes(), want) {
		return
	}
	is, was := lines(b.String()), lines(string(want))
	for l := range was {
		if !is[l] {
			t.Errorf("gone or changed: %s", l)
		}
	}
	for l := range is {
		if !was[l] {
			t.Errorf("new:             %s", l)
		}
	}
	t.Errorf("the package differs from %s; see the comment of this test", golden)
}

// TestLayout holds what no single number shows: the fields of each structure
// stand inside it, apart from each other, and aligned to their width.
func TestLayout(t *testing.T) {
	type field struct{ off, size int }
	for _, s := range []struct {
		name   string
		size   int
		fields []field
	}{
		{"value", ValueSize, []field{{ValueEncoding, 4}, {ValueMeta, 4}, {ValuePtr, 4}, {ValueLen, 4}, {ValueRefsPtr, 4}, {ValueRefsLen, 4}}},
		{"task_spec", SpecSize, []field{{SpecFn, 4}, {SpecFlags, 4}, {SpecArgsPtr, 4}, {SpecNargs, 4}, {SpecResultsPtr, 4},
			{SpecNresults, 4}, {SpecNamePtr, 4}, {SpecNameLen, 4}, {SpecCPU, 4}, {SpecRetries, 4}, {SpecMemory, 8}, {SpecTimeout, 8},
			{SpecRetryOnPtr, 4}, {SpecRetryOnLen, 4}, {SpecWindow, 4}, {SpecActorRef, 4}, {SpecCallTries, 4}, {SpecMaxPending, 4}, {SpecIdle, 8},
			{SpecConcurrency, 4}, {SpecCheckpointCalls, 4}, {SpecCheckpointEvery, 8}, {SpecCustomPtr, 4}, {SpecCustomLen, 4}, {SpecKeyPtr, 4}, {SpecKeyLen, 4}, {SpecPlacePtr, 4}, {SpecPlaceLen, 4}}},
		{"arg", ArgSize, []field{{ArgKind, 4}, {ArgHandle, 4}, {ArgValue, ValueSize}}},
		{"call", CallSize, []field{{CallIndex, 4}, {CallNargs, 4}, {CallNresults, 4}, {CallFlags, 4}, {CallAttempt, 4}, {CallNameLen, 4},
			{CallTimeout, 8}, {CallTaskOwner, 8}, {CallTaskSeq, 8}, {CallItemsDone, 8}}},
		{"call_arg", CallArgSize, []field{{CallArgEncoding, 4}, {CallArgMeta, 4}, {CallArgLen, 8}, {CallArgHandle, 4}, {CallArgOffset, 4}, {CallArgNrefs, 4}}},
		{"info", InfoSize, []field{{InfoEncoding, 4}, {InfoMeta, 4}, {InfoLen, 8}, {InfoNrefs, 4}, {InfoFlags, 4}}},
		{"stat", StatSize, []field{{StatState, 4}, {StatEncoding, 4}, {StatMeta, 4}, {StatNrefs, 4}, {StatLen, 8}, {StatReferences, 8}, {StatFlags, 4}, {StatNameLen, 4}}},
		{"event", EventSize, []field{{EventKind, 4}, {EventHandle, 4}, {EventArg, 8}}},
	} {
		if s.size%8 != 0 {
			t.Errorf("%s: size %d is not a multiple of 8", s.name, s.size)
		}
		end := 0
		for i, f := range s.fields {
			if f.off < end {
				t.Errorf("%s: field %d at %d overlaps the one that ends at %d", s.name, i, f.off, end)
			}
			if align := min(f.size, 8); align == 4 || align == 8 {
				if f.size <= 8 && f.off%align != 0 {
					t.Errorf("%s: field %d at %d is not aligned to %d", s.name, i, f.off, align)
				}
			}
			end = f.off + f.size
		}
		if end > s.size {
			t.Errorf("%s: fields end at %d, the size is %d", s.name, end, s.size)
		}
	}
}

type namedConstant struct{ name, value string }

// constants returns the package's exported constants in the order of the
// source.
func constants(t *testing.T) []namedConstant {
	t.Helper()
	fset := token.NewFileSet()
	entries, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	var files []*ast.File
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".go") || strings.HasSuffix(e.Name(), "_test.go") {
			continue
		}
		f, err := parser.ParseFile(fset, e.Name(), nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, f)
	}
	conf := types.Config{Importer: importer.Default()}
	pkg, err := conf.Check("abi", fset, files, nil)
	if err != nil {
		t.Fatal(err)
	}
	var out []namedConstant
	for _, f := range files {
		for _, d := range f.Decls {
			g, ok := d.(*ast.GenDecl)
			if !ok || g.Tok != token.CONST {
				continue
			}
			for _, spec := range g.Specs {
				for _, n := range spec.(*ast.ValueSpec).Names {
					if !n.IsExported() {
						continue
					}
					c := pkg.Scope().Lookup(n.Name).(*types.Const)
					v := c.Val().ExactString()
					if c.Val().Kind() == constant.Int {
						if x, ok := constant.Uint64Val(c.Val()); ok && x >= 1<<16 {
							v = fmt.Sprintf("%#x", x)
						}
					}
					if b, ok := c.Type().(*types.Named); ok {
						v = b.Obj().Name() + "(" + v + ")"
					}
					out = append(out, namedConstant{n.Name, v})
				}
			}
		}
	}
	if len(out) < 100 {
		t.Fatalf("found %d constants, expected more than a hundred", len(out))
	}
	return out
}

func lines(s string) map[string]bool {
	m := map[string]bool{}
	for l := range strings.Lines(s) {
		m[strings.TrimSpace(l)] = true
	}
	return m
}
