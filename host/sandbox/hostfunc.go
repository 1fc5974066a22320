package sandbox

import (
	"context"
	"fmt"
	"strings"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/wray-project/wray/host/wasi"
)

// HostFunc is one import that the host offers to guests. Every one stands in a
// table with what it costs and needs; a test refuses a row that says too
// little.
type HostFunc struct {
	Name    string
	Params  string // 'i' for an i32, 'I' for an i64, in order
	Results string // the same, at most one
	// Call runs on the sandbox's goroutine. mem is the guest's memory, valid
	// for the call; stack holds the parameters and receives the result.
	Call func(sb *Sandbox, mem []byte, stack []uint64)

	Capability string    // what a job must be granted to use it; "always" where nothing
	MaxPayload int64     // most bytes it moves in one call, wasi.NoPayload for none
	Cost       wasi.Cost // what it costs the host
	Blocks     bool      // whether the sandbox may be parked in it
}

// HostModule is a named set of imports.
type HostModule struct {
	Name  string
	Funcs []HostFunc
}

// wasiModule puts the WASI table into the form of the engine.
func wasiModule() HostModule {
	m := HostModule{Name: wasi.ModuleName}
	for _, f := range wasi.Functions() {
		results := ""
		if f.Result {
			results = "i"
		}
		call, perKiB := f.Call, f.Cost.PerKiB
		m.Funcs = append(m.Funcs, HostFunc{
			Name: f.Name, Params: f.Params, Results: results,
			Call: func(sb *Sandbox, mem []byte, stack []uint64) {
				call(&sb.wasi, mem, stack)
				if moved := sb.wasi.TakeMoved(); moved > 0 {
					sb.charge(int64(moved>>10) * int64(perKiB))
				}
			},
			Capability: string(f.Capability), MaxPayload: f.MaxPayload,
			Cost:   f.Cost,
			Blocks: f.Blocks == wasi.BlocksInPoll,
		})
	}
	return m
}

// instantiate offers the module's functions to guests of rt. The functions are
// not reflective: a call costs about 40 ns.
func (m HostModule) instantiate(ctx context.Context, rt wazero.Runtime) error {
	b := rt.NewHostModuleBuilder(m.Name)
	for _, f := range m.Funcs {
		params, err := valueTypes(f.Params)
		if err != nil {
			return fmt.Errorf("host function %s.%s: %w", m.Name, f.Name, err)
		}
		results, err := valueTypes(f.Results)
		if err != nil {
			return fmt.Errorf("host function %s.%s: %w", m.Name, f.Name, err)
		}
		call, cost := f.Call, int64(f.Cost.Base)
		b.NewFunctionBuilder().WithGoFunction(api.GoFunc(func(ctx context.Context, stack []uint64) {
			sb := ctx.(*Sandbox)
			call(sb, sb.mem.bytes(), stack)
			sb.charge(cost)
		}), params, results).Export(f.Name)
	}
	if _, err := b.Instantiate(ctx); err != nil {
		return fmt.Errorf("host module %s: %w", m.Name, err)
	}
	return nil
}

func valueTypes(s string) ([]api.ValueType, error) {
	types := make([]api.ValueType, len(s))
	for i, c := range s {
		switch c {
		case 'i':
			types[i] = api.ValueTypeI32
		case 'I':
			types[i] = api.ValueTypeI64
		default:
			return nil, fmt.Errorf("unknown type %q in %q", c, s)
		}
	}
	return types, nil
}

// signature writes the function's type as rewrite.Import does.
func (f *HostFunc) signature() string {
	list := func(s string) string {
		names := make([]string, len(s))
		for i, c := range s {
			if names[i] = "i32"; c == 'I' {
				names[i] = "i64"
			}
		}
		return strings.Join(names, ", ")
	}
	if f.Results == "" {
		return "(" + list(f.Params) + ")"
	}
	return "(" + list(f.Params) + ") -> " + list(f.Results)
}
