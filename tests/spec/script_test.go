package spec

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// script is one file of the test suite, as wast2json writes it.
type script struct {
	Suite    string    `json:"-"`
	Name     string    `json:"-"`
	Commands []command `json:"commands"`

	dir string // where the modules are
}

// command is one line of a script. Which fields are set follows from Type.
type command struct {
	Type       string  `json:"type"`
	Line       int     `json:"line"`
	Name       string  `json:"name"`        // module, register: the script's name for a module
	Filename   string  `json:"filename"`    // the module's file
	As         string  `json:"as"`          // register: the name to import from
	Action     action  `json:"action"`      // action, assert_return, assert_trap, assert_exhaustion
	Expected   []value `json:"expected"`    // assert_return
	Text       string  `json:"text"`        // the message of the reference interpreter
	ModuleType string  `json:"module_type"` // assert_malformed, assert_invalid: binary or text
}

// action calls a function or reads a global.
type action struct {
	Type   string  `json:"type"` // invoke or get
	Module string  `json:"module"`
	Field  string  `json:"field"`
	Args   []value `json:"args"`
}

// suiteDir returns where the engine's module keeps the official test suite.
func suiteDir(t testing.TB) string {
	t.Helper()
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/tetratelabs/wazero").Output()
	if err != nil {
		t.Fatalf("the engine's source, which holds the test suite: %v", err)
	}
	return filepath.Join(strings.TrimSpace(string(out)), "internal/integration_test/spectest")
}

// loadScripts reads all scripts of a suite.
func loadScripts(t testing.TB, suite string) []*script {
	t.Helper()
	dir := filepath.Join(suiteDir(t), suite, "testdata")
	files, err := filepath.Glob(filepath.Join(dir, "*.json"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts in %s: %v", dir, err)
	}
	var scripts []*script
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		s := &script{Suite: suite, Name: strings.TrimSuffix(filepath.Base(f), ".json"), dir: dir}
		if err := json.Unmarshal(b, s); err != nil {
			t.Fatalf("%s: %v", f, err)
		}
		scripts = append(scripts, s)
	}
	return scripts
}

// module reads the module of a command.
func (s *script) module(c *command) ([]byte, error) {
	return os.ReadFile(filepath.Join(s.dir, c.Filename))
}

// at names a command in messages and in the list of exceptions.
func (s *script) at(c *command) string {
	return fmt.Sprintf("%s/%s.wast:%d", s.Suite, s.Name, c.Line)
}
