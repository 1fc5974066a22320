package worker

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/wray-project/wray/wasm/abi"
)

// TestImportsAreThoseOfTheABI holds HostModule to docs/ABI.md, both ways: every
// import that the page describes is there with its signature, and no other.
func TestImportsAreThoseOfTheABI(t *testing.T) {
	page, err := os.ReadFile("../../docs/ABI.md")
	if err != nil {
		t.Fatal(err)
	}
	_, text, ok := strings.Cut(string(page), "## Imports")
	if !ok {
		t.Fatal("docs/ABI.md has no section Imports")
	}
	want := map[string]string{}
	for _, m := range regexp.MustCompile("`([a-z_]+)\\(([^)]*)\\)\\s*->\\s*(?:errno|i32)`").FindAllStringSubmatch(text, -1) {
		params := ""
		for p := range strings.SplitSeq(m[2], ",") {
			name, typ, typed := strings.Cut(strings.TrimSpace(p), ":")
			switch {
			case name == "":
			case !typed:
				params += "i"
			case strings.TrimSpace(typ) == "i64":
				params += "I"
			default:
				t.Errorf("%s: unknown type in %q", m[1], p)
			}
		}
		if have, ok := want[m[1]]; ok && have != params {
			t.Errorf("docs/ABI.md gives %s two signatures", m[1])
		}
		want[m[1]] = params
	}
	if len(want) < 20 {
		t.Fatalf("read only %d imports of docs/ABI.md: has its form changed?", len(want))
	}
	m := HostModule()
	if m.Name != abi.Module {
		t.Errorf("the module is called %s, want %s", m.Name, abi.Module)
	}
	for _, f := range m.Funcs {
		params, ok := want[f.Name]
		switch {
		case !ok:
			t.Errorf("%s is not in docs/ABI.md, or twice in the table", f.Name)
		case f.Params != params || f.Results != "i":
			t.Errorf("%s has the signature (%s) -> %s, want (%s) -> i", f.Name, f.Params, f.Results, params)
		}
		delete(want, f.Name)
		if f.Call == nil || f.Capability == "" || f.MaxPayload == 0 || f.Cost.Base <= 0 {
			t.Errorf("%s does not say what it needs and costs: %+v", f.Name, f)
		}
	}
	for name := range want {
		t.Errorf("%s of docs/ABI.md is missing", name)
	}
}
