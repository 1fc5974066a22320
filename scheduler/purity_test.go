package scheduler

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"strconv"
	"strings"
	"testing"
)

// TestPure holds what makes the scheduler a state machine: it starts no
// goroutine, uses no channel, reads no clock, draws no random number, does no
// I/O, and never lets the order of a map decide.
func TestPure(t *testing.T) {
	allowed := map[string]string{
		"cmp":             "orders",
		"container/heap":  "timers",
		"encoding/binary": "keys",
		"errors":          "sentinels",
		"fmt":             "messages",
		"math":            "bounds",
		"math/bits":       "128-bit products",
		"slices":          "lists",
		"strconv":         "keys",
		"strings":         "messages",

		"github.com/wray-project/wray": "the vocabulary",
	}
	files, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for _, f := range files {
		name := f.Name()
		if !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
			continue
		}
		seen++
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, word := range []string{"time.Now", "rand."} {
			if bytes.Contains(text, []byte(word)) {
				t.Errorf("%s says %q", name, word)
			}
		}
		fset := token.NewFileSet()
		file, err := parser.ParseFile(fset, name, text, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, i := range file.Imports {
			if path, _ := strconv.Unquote(i.Path.Value); allowed[path] == "" {
				t.Errorf("%s imports %s: not of the kind a state machine needs", name, path)
			}
		}
		ast.Inspect(file, func(n ast.Node) bool {
			at := func() token.Position { return fset.Position(n.Pos()) }
			switch n := n.(type) {
			case *ast.GoStmt:
				t.Errorf("%v: a goroutine", at())
			case *ast.ChanType, *ast.SelectStmt:
				t.Errorf("%v: a channel", at())
			case *ast.RangeStmt:
				// The maps of Scheduler. The checker may range over them, for
				// it decides nothing.
				if x, ok := n.X.(*ast.SelectorExpr); ok && name != "invariants.go" {
					switch x.Sel.Name {
					case "tasks", "objects", "jobs", "claims", "placements", "byID", "byName", "labeled", "holders":
						t.Errorf("%v: the order of map %s decides", at(), x.Sel.Name)
					}
				}
			}
			return true
		})
	}
	if seen < 5 {
		t.Errorf("only %d files were looked at", seen)
	}
}
