package isolation

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/host/node"
	"github.com/wray-project/wray/host/worker"
	"github.com/wray-project/wray/tests/hostile"
)

// TestBadTasks has one driver call tasks that end in every bad way, one after
// the other, and holds that each ends in one error of its class at the caller,
// and costs nothing else: a good task runs after each, in the same job.
func TestBadTasks(t *testing.T) {
	file := filepath.Join(t.TempDir(), "caller.wasm")
	build := exec.Command("go", "build", "-buildmode=c-shared", "-o", file, "./testdata/caller")
	build.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	wasm, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	modules := []node.Module{{Name: "caller", Wasm: wasm}, {Name: "tasks", Wasm: hostile.Tasks()}}
	want := map[string][]wray.Code{
		"function:nonsense":        {wray.CodeUnknownFunction},
		"module:nonsense":          {wray.CodeUnknownFunction},
		"argument:":                {wray.CodeBadArgument},
		"arguments:":               {wray.CodeBadArgument},
		"result:":                  {wray.CodeBadArgument},
		"task:garbage":             {wray.CodeBadArgument},
		"task:cut":                 {wray.CodeBadArgument},
		"task:nothing":             {wray.CodeBadArgument},
		"task:twice":               {wray.CodeOK},
		"task:no-result":           {wray.CodeBadArgument},
		"task:outside":             {wray.CodeBadArgument},
		"task:shape":               {wray.CodeBadArgument},
		"task:failure":             {wray.CodeUserError},
		"task:reference":           {wray.CodeBadArgument},
		"task:trap":                {wray.CodeTrap},
		"task:code":                {wray.CodeBadArgument},
		"command:exit-0":           nil,
		"command:exit-7":           nil,
		"command:loop-tight":       nil,
		"command:trap-unreachable": nil,
		"command:recursion-self":   nil,
		"command:memory-grow":      nil, "command:memory-grow-on": nil,
		"command:table-grow": nil, "command:table-grow-on": nil,
		"command:host-stdout": nil, "command:host-stdout-line": nil, "command:host-sleep": nil,
	}
	for _, c := range hostile.Cases() {
		if codes, ok := want["command:"+c.Name]; ok && codes == nil {
			modules = append(modules, node.Module{Name: c.Name, Wasm: c.Wasm()})
			want["command:"+c.Name] = append([]wray.Code{c.Want}, c.Or...)
		}
	}
	for _, name := range hostile.TaskFunctions {
		if want["task:"+name] == nil {
			t.Errorf("nobody calls %s", name)
		}
	}
	var calls []string
	for call, codes := range want {
		if codes == nil {
			t.Errorf("there is no case for %s", call)
		}
		calls = append(calls, call)
	}
	slices.Sort(calls)
	n := newNode(t)
	var out, errs bytes.Buffer
	code, err := n.Run(t.Context(), node.Job{Name: "caller", Modules: modules, Args: calls,
		Output: func(task string, s worker.Stream, p []byte) {
			switch {
			case task != "":
			case s == worker.Stdout:
				out.Write(p)
			default:
				errs.Write(p)
			}
		}})
	if err != nil || code != 0 {
		t.Errorf("the driver ended with %d, %v\n%s", code, err, errs.String())
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != len(calls) {
		t.Errorf("%d calls gave %d lines", len(calls), len(lines))
	}
	for i, l := range lines {
		call, code, _ := strings.Cut(l, " ")
		if i < len(calls) && call != calls[i] || !slices.ContainsFunc(want[call], func(c wray.Code) bool { return c.String() == code }) {
			t.Errorf("%s: want %v", l, want[call])
		}
	}
	requireAlive(t, n)
}
