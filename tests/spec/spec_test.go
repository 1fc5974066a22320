// Package spec runs the official WebAssembly test suite through the passes of
// wasm/rewrite, under both of the engine's ways to execute. The suite is the
// one inside the engine's own module, versions 1.0 and 2.0 and tail calls.
// That everything passes says that a module means the same after the passes.
package spec

import (
	"errors"
	"fmt"
	"sort"
	"strings"
	"sync"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/wasm/rewrite"
)

const v2Features = api.CoreFeaturesV2 | experimental.CoreFeaturesTailCall

// suites are those that run, and how many assertions each must have.
var suites = []struct {
	name       string
	assertions int
	tailCalls  bool
}{
	{"v1", 18_438, false},
	{"v2", 52_230, false},
	{"tail-call", 113, true},
}

var suiteDirOnce = func() func(t testing.TB) string {
	var once sync.Once
	var dir string
	return func(t testing.TB) string {
		once.Do(func() { dir = suiteDir(t) })
		return dir
	}
}()

// tally counts how assertions ended.
type tally struct {
	passed   int
	text     int            // modules in text form, which no part of a platform reads
	excepted map[string]int // by reason
	failed   []string
	others   int // of these two, commands that are no assertions
	ticks    int
}

func (y *tally) assertions() int {
	n := y.passed + y.text + len(y.failed) - y.others
	for _, e := range y.excepted {
		n += e
	}
	return n
}

// TestSuite is the whole suite in every mode under every engine; in short
// mode, both passes under the compiler alone.
func TestSuite(t *testing.T) {
	var table strings.Builder
	fmt.Fprintf(&table, "%-10s %-12s %-15s %8s %8s %8s %8s %10s\n", "suite", "engine", "mode", "passed", "failed", "excepted", "text", "ticks")
	reasons := map[string]int{}
	for _, s := range suites {
		scripts := loadScripts(t, s.name)
		for _, e := range engines {
			for _, m := range modes {
				if testing.Short() && (e.name != "compiler" || !m.options.Meter) {
					continue
				}
				t.Run(fmt.Sprintf("%s/%s/%s", s.name, e.name, m.name), func(t *testing.T) {
					o := m.options
					o.TailCalls = s.tailCalls
					y := &tally{excepted: map[string]int{}}
					for _, sc := range scripts {
						run(t, sc, e, o, s.name == "v1" && m.name == "plain", y)
					}
					for i, f := range y.failed {
						if i == 30 {
							t.Errorf("and %d more", len(y.failed)-i)
							break
						}
						t.Error(f)
					}
					excepted := 0
					for r, n := range y.excepted {
						excepted += n
						reasons[r] += n
					}
					fmt.Fprintf(&table, "%-10s %-12s %-15s %8d %8d %8d %8d %10d\n", s.name, e.name, m.name, y.passed, len(y.failed), excepted, y.text, y.ticks)
					if n := y.assertions(); n != s.assertions {
						t.Errorf("%d assertions, want %d", n, s.assertions)
					}
					if (y.ticks > 0) != m.options.Meter {
						t.Errorf("%d ticks", y.ticks)
					}
					if want := exceptions[s.name+"/"+m.name]; excepted != want {
						t.Errorf("%d exceptions, want %d: %v", excepted, want, y.excepted)
					}
				})
			}
		}
	}
	var rs []string
	for r := range reasons {
		rs = append(rs, r)
	}
	sort.Strings(rs)
	for _, r := range rs {
		fmt.Fprintf(&table, "excepted %d: %s\n", reasons[r], r)
	}
	t.Log("\n" + table.String())
}

// run executes one script. v1 says to hold the engine to the features of 1.0.
func run(t testing.TB, s *script, e engine, o rewrite.Options, v1 bool, y *tally) {
	features := v2Features
	if v1 {
		features = api.CoreFeaturesV1
	}
	m := newMachine(t, e, o, features, &y.ticks)
	defer m.close()
	for i := range s.Commands {
		c := &s.Commands[i]
		if c.ModuleType == "text" {
			y.text++
			continue
		}
		err := step(m, s, c)
		var ex exception
		assertion := strings.HasPrefix(c.Type, "assert_")
		switch {
		case errors.As(err, &ex):
			if y.excepted[string(ex)]++; !assertion {
				y.others++
			}
		case err != nil && listed[s.at(c)] != "" && (o.Meter || o.Snapshot):
			if y.excepted[string(listed[s.at(c)])]++; !assertion {
				y.others++
			}
		case err != nil:
			if y.failed = append(y.failed, fmt.Sprintf("%s %s: %v", s.at(c), c.Type, err)); !assertion {
				y.others++
			}
		case assertion:
			y.passed++
		}
	}
}

// exception is why an assertion that does not hold is right not to.
type exception string

func (e exception) Error() string { return string(e) }

const (
	sinceV2      exception = "invalid in 1.0 and valid in 2.0, which the passes need"
	lateElements exception = "the engine makes an instance although an element segment is out of bounds"
	placedByHost exception = "refused: a data segment whose place is an imported global; no host of a sandbox has globals"
	sharedVector exception = "refused: an exported mutable v128 global, of which the engine's interface reads half"
	afterRefusal exception = "imports from a module that was refused"
	keptWrites   exception = "in 1.0 a module that cannot be linked writes nothing; since 2.0 what is written first stays"
)

// listed are the commands whose exceptions do not show in their errors.
var listed = map[string]exception{
	"v1/linking.wast:236":    keptWrites,
	"v1/linking.wast:248":    keptWrites,
	"v1/linking.wast:342":    keptWrites,
	"v1/linking.wast:354":    keptWrites,
	"v2/simd_linking.wast:5": afterRefusal,
	"v2/simd_linking.wast:7": afterRefusal,
}

// exceptions is how many there must be for each suite and mode: 1.0 without
// passes runs under the engine's 1.0 features, everything else under 2.0.
var exceptions = map[string]int{
	"v1/meter": 25, "v1/snapshot": 31, "v1/meter+snapshot": 31,
	"v2/plain": 15, "v2/meter": 15, "v2/snapshot": 24, "v2/meter+snapshot": 24,
}

// step executes one command.
func step(m *machine, s *script, c *command) error {
	switch c.Type {
	case "module":
		m.last = nil
		wasm, err := s.module(c)
		if err != nil {
			return err
		}
		mod, err := m.instantiate(wasm)
		if err != nil {
			return refusal(err)
		}
		m.last = mod
		if c.Name != "" {
			m.named[c.Name] = mod
		}
		return nil

	case "register":
		mod, err := m.module(c.Name)
		if err == nil {
			m.registered[c.As] = mod
		}
		return err

	case "action":
		_, _, err := m.do(&c.Action)
		return err

	case "assert_return":
		out, types, err := m.do(&c.Action)
		if err != nil {
			return err
		}
		return match(out, types, c.Expected)

	case "assert_trap":
		_, _, err := m.do(&c.Action)
		return trapped(err, c.Text)

	case "assert_exhaustion":
		_, _, err := m.do(&c.Action)
		if err == nil {
			return errors.New("it returned")
		}
		// The interpreter has room for 2,000 frames, which is less than what
		// the meter allows; the compiler must never find its own bound.
		if errors.Is(err, errOverflow) || (!m.options.Meter || m.engine == "interpreter") && strings.Contains(err.Error(), "stack overflow") {
			return nil
		}
		return err

	case "assert_malformed", "assert_invalid":
		wasm, err := s.module(c)
		if err != nil {
			return err
		}
		compiled, _, err := m.compile(wasm)
		if err != nil {
			return nil
		}
		compiled.Close(m.ctx)
		if s.Suite == "v1" && m.features == v2Features && validSinceV2(m, wasm) {
			return sinceV2
		}
		return errors.New("it was accepted")

	case "assert_unlinkable", "assert_uninstantiable":
		wasm, err := s.module(c)
		if err != nil {
			return err
		}
		if _, err = m.instantiate(wasm); err != nil {
			return nil
		}
		if m.features == v2Features && (c.Text == "out of bounds table access" || c.Text == "elements segment does not fit") {
			return lateElements
		}
		return errors.New("it was instantiated")
	}
	return fmt.Errorf("a command that nobody knows")
}

// refusal returns the exception for an error that says that a pass refuses a
// module by design.
func refusal(err error) error {
	var e *wray.Error
	if !errors.As(err, &e) || e.Code != wray.CodeInvalidModule {
		return err
	}
	switch {
	case strings.Contains(e.Message, "whose place is an imported global"):
		return placedByHost
	case strings.Contains(e.Message, "an exported mutable v128 global"):
		return sharedVector
	}
	return err
}

// trapped says whether err is the trap that the suite's text describes. The
// engine has its own words for some.
func trapped(err error, text string) error {
	if err == nil {
		return errors.New("it returned")
	}
	want := text
	switch {
	case text == "indirect call":
		want = "indirect call type mismatch"
	case text == "undefined element", text == "undefined", text == "out of bounds table access", strings.HasPrefix(text, "uninitialized"):
		want = "invalid table access"
	}
	if !strings.Contains(err.Error(), want) {
		return fmt.Errorf("want a trap of %q: %w", want, err)
	}
	return nil
}

// validSinceV2 says whether the engine, held to 1.0, refuses wasm.
func validSinceV2(m *machine, wasm []byte) bool {
	rt := wazero.NewRuntimeWithConfig(m.ctx, wazero.NewRuntimeConfigInterpreter().WithCoreFeatures(api.CoreFeaturesV1))
	defer rt.Close(m.ctx)
	_, err := rt.CompileModule(m.ctx, wasm)
	return err != nil
}
