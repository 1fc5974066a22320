package sandbox

import (
	"slices"
	"strconv"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/wasm/abi"
	"github.com/wray-project/wray/wasm/rewrite"
	signed "github.com/wray-project/wray/wasm/signature"
)

// Inspection is what there is to know of a module before it runs.
type Inspection struct {
	Kind          string            `json:"kind"` // tasks, command or library
	Size          int               `json:"size"` // bytes
	Functions     int               `json:"functions"`
	Signed        []string          `json:"signed,omitempty"` // what its signers call their keys; nothing was checked
	MemoryMin     uint32            `json:"memory_min_pages"`
	MemoryMax     uint32            `json:"memory_max_pages"`
	Resettable    bool              `json:"resettable"`
	NotResettable string            `json:"not_resettable,omitempty"`
	Imports       []InspectedImport `json:"imports"`
	Exports       []rewrite.Export  `json:"exports"`
	Tables        []rewrite.Table   `json:"tables"`
}

// InspectedImport is an import with what a sandbox gives for it.
type InspectedImport struct {
	Module string `json:"module"`
	Name   string `json:"name"`
	Type   string `json:"type"`
	Grant  string `json:"grant"` // the capability it needs, or "refused"
}

// Inspect reads a module and says what it wants and what it would be granted.
// Nothing of it runs. Imports that no host has are no error here: they are
// listed as refused, all of them.
func Inspect(wasm []byte, o CompileOptions) (*Inspection, error) {
	limits := rewrite.DefaultAdmitLimits()
	limits.Modules = []string{"*"}
	if err := rewrite.Admit(wasm, limits); err != nil {
		return nil, err
	}
	r, err := rewrite.Rewrite(wasm, rewrite.Options{Meter: true, Snapshot: true, TailCalls: true})
	if err != nil {
		return nil, err
	}
	if err := checkEntries(r); err != nil {
		return nil, err
	}
	i := &Inspection{
		Kind: "library", Size: len(wasm), Functions: r.Functions, MemoryMin: r.MemoryMin, MemoryMax: r.MemoryMax,
		Resettable: r.Resettable, NotResettable: r.NotResettable, Exports: r.Exports, Tables: r.Tables,
	}
	_, d, err := signed.Split(wasm)
	if err != nil {
		return nil, wray.Errorf(wray.CodeInvalidModule, "%v", err)
	}
	for _, s := range d {
		for _, g := range s.Signatures {
			i.Signed = append(i.Signed, strconv.Quote(g.KeyID))
		}
	}
	exports := func(name string) bool {
		return slices.ContainsFunc(r.Exports, func(x rewrite.Export) bool { return x.Name == name && x.Kind == "func" })
	}
	switch {
	case exports(abi.ExportCall):
		i.Kind = "tasks"
	case exports(abi.ExportStart):
		i.Kind = "command"
	}
	grants := map[string]string{}
	for _, m := range append([]HostModule{wasiModule()}, o.Modules...) {
		for _, f := range m.Funcs {
			grants[m.Name+"."+f.Name] = f.Capability
		}
	}
	for _, im := range r.Imports {
		grant := grants[im.Module+"."+im.Name]
		if grant == "" || im.Kind != "func" {
			grant = "refused"
		}
		i.Imports = append(i.Imports, InspectedImport{Module: im.Module, Name: im.Name, Type: im.Type, Grant: grant})
	}
	return i, nil
}
