package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/wray-project/wray/objectstore"
	"github.com/wray-project/wray/scheduler"
)

// Errors and hints name flags: each must be one of some command.
func TestHintsNameFlags(t *testing.T) {
	root := newRoot(strings.NewReader(""), io.Discard, io.Discard)
	known := map[string]bool{"--help": true}
	for _, other := range []string{"--verbose", "--user", "--scope", "--import-memory", "--import-table", "--target", "--now", "--property", "--value"} {
		known[other] = true // of other programs, in examples and remedies
	}
	var walk func(*cobra.Command)
	walk = func(c *cobra.Command) {
		c.Flags().VisitAll(func(f *pflag.Flag) { known["--"+f.Name] = true })
		for _, sub := range c.Commands() {
			walk(sub)
		}
	}
	walk(root)
	files := map[string]bool{}
	literal := regexp.MustCompile(`(?:^|[\s"'(=` + "`" + `])(--[a-z][a-z-]+)`)
	err := filepath.WalkDir(filepath.Join("..", ".."), func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir():
			if n := d.Name(); n == "testdata" || n == "tests" || n == "tools" || strings.HasPrefix(n, ".") && n != ".." {
				return filepath.SkipDir
			}
			return nil
		case !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go"):
			return nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			return err
		}
		for _, s := range stringLiterals(f) {
			for _, m := range literal.FindAllStringSubmatch(s, -1) {
				files[name] = true
				if !known[m[1]] {
					t.Errorf("%s names %s, which no command has: %s", name, m[1], s)
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(files) < 8 {
		t.Errorf("flags are named in %d files only", len(files))
	}
}

// Errors about limits name the flag that raises them: it must be one.
func TestLimitsNameFlags(t *testing.T) {
	flags := newRun().Flags()
	seen := map[string]string{ // from constants, which the sources' literals do not show in place
		objectstore.HandlesFlag: "objectstore", objectstore.CapacityFlag: "objectstore",
		scheduler.FlagCPU: "scheduler", scheduler.FlagMemory: "scheduler",
	}
	literal := regexp.MustCompile(`--[a-z][a-z-]+`)
	for _, dir := range []string{"host/sandbox", "host/worker", "host/wasi", "objectstore", "scheduler"} {
		files, err := filepath.Glob(filepath.Join("..", "..", filepath.FromSlash(dir), "*.go"))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range files {
			if strings.HasSuffix(name, "_test.go") {
				continue
			}
			f, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
			if err != nil {
				t.Fatal(err)
			}
			for _, s := range stringLiterals(f) {
				for _, flag := range literal.FindAllString(s, -1) {
					seen[flag] = name
				}
			}
		}
	}
	for flag, where := range seen {
		if flags.Lookup(strings.TrimPrefix(flag, "--")) == nil {
			t.Errorf("%s names %s, which is no flag of wray run", where, flag)
		}
	}
	if len(seen) < 6 {
		t.Errorf("only %d flags found in errors: %v", len(seen), seen)
	}
}

func stringLiterals(f *ast.File) (lits []string) {
	ast.Inspect(f, func(n ast.Node) bool {
		if l, ok := n.(*ast.BasicLit); ok && l.Kind == token.STRING {
			lits = append(lits, l.Value)
		}
		return true
	})
	return lits
}
