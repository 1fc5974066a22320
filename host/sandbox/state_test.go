package sandbox_test

import (
	"bytes"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/wray-project/wray/host/sandbox"
	"github.com/wray-project/wray/host/wasi"
	"github.com/wray-project/wray/wasm/abi"
)

func seeded(t *testing.T) *rand.Rand {
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("WRAY_SEED"); s != "" {
		seed, _ = strconv.ParseUint(s, 10, 64)
	}
	t.Logf("again: WRAY_SEED=%d go test ./host/sandbox -run %s", seed, t.Name())
	return rand.New(rand.NewPCG(seed, 0))
}

// TestState saves sandboxes whose guest and host wrote here and there, and
// compares what is loaded, into new sandboxes and into used ones that were
// reset, byte by byte. A state that was saved is not changed by what the
// sandbox does after.
func TestState(t *testing.T) {
	m, sb := dirtySandbox(t)
	rnd := seeded(t)
	other, err := m.New(sandbox.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	for round := range 60 {
		if _, err := sb.Call(abi.Op(2), uint32(rnd.IntN(600))); err != nil {
			t.Fatal(err)
		}
		mem := sb.Memory()
		for range rnd.IntN(2000) {
			mem[rnd.IntN(len(mem))] ^= byte(1 + rnd.IntN(255))
		}
		for range rnd.IntN(4) {
			at := rnd.IntN(len(mem) - 9000)
			clear(mem[at : at+rnd.IntN(9000)])
		}
		s, err := sb.Save(nil)
		if err != nil {
			t.Fatal(err)
		}
		want := bytes.Clone(mem)
		for range 1000 {
			mem[rnd.IntN(len(mem))] ^= 1
		}
		into := other
		if round%8 == 0 {
			if into, err = m.New(sandbox.Limits{}); err != nil {
				t.Fatal(err)
			}
			defer into.Close()
		} else if !into.Reset() {
			t.Fatal("no reset")
		}
		if err := into.Load(s); err != nil {
			t.Fatal(err)
		}
		if got := into.Memory(); !bytes.Equal(got, want) {
			for i := range got {
				if got[i] != want[i] {
					t.Fatalf("round %d: byte %d is %d, want %d", round, i, got[i], want[i])
				}
			}
		}
		again, err := into.Save(nil)
		if err != nil {
			t.Fatal(err)
		}
		if again.Changed() != s.Changed() {
			t.Errorf("round %d: saved again it has %d bytes, not %d", round, again.Changed(), s.Changed())
		}
		// The guest may have lost what it cannot do without: it is not called so.
		if !sb.Reset() {
			t.Fatal("no reset")
		}
		if err := sb.Configure(&wasi.Config{Args: []string{"guest"}}); err != nil {
			t.Fatal(err)
		}
	}
}

// grower is a guest that counts in a global, what restores it too, and asks for
// memory.
const grower = `package main

import "os"

var held [][]byte
var total uint32

//go:wasmexport wray_call
func call(op, arg uint32) uint32 {
	if op == 2 {
		total += 1 << 30
	}
	if op != 4 {
		return 0
	}
	b := make([]byte, arg)
	for i := range b {
		b[i] = byte(i)
	}
	held = append(held, b)
	total += uint32(len(os.Args))
	for _, b := range held {
		total += uint32(len(b))
	}
	return total
}

func main() {}
`

// TestStateGlobals changes one global of the guest at a time, the first among them,
// which in Go's guests is the stack pointer.
func TestStateGlobals(t *testing.T) {
	m, sb := dirtySandbox(t)
	other, err := m.New(sandbox.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	first := sandbox.Globals(sb)
	if len(first) < 3 {
		t.Fatalf("the guest has %d globals", len(first))
	}
	for i := range first {
		want := slices.Clone(first)
		want[i] ^= 1
		sandbox.SetGlobal(sb, i, want[i])
		s, err := sb.Save(nil)
		if err != nil {
			t.Fatal(err)
		}
		if !other.Reset() {
			t.Fatal("no reset")
		}
		if err := other.Load(s); err != nil {
			t.Fatal(err)
		}
		if got := sandbox.Globals(other); !slices.Equal(got, want) {
			t.Errorf("global %d changed: %v was loaded, want %v", i, got, want)
		}
		sandbox.SetGlobal(sb, i, first[i])
	}
}

// TestStateGrown moves a Go guest that grows from sandbox to sandbox, and
// compares it with one that stays.
func TestStateGrown(t *testing.T) {
	m := load(t, buildGo(t, grower, "-buildmode=c-shared"))
	newSandbox := func() *sandbox.Sandbox {
		sb, err := m.New(sandbox.Limits{})
		if err != nil {
			t.Fatal(err)
		}
		if err := sb.Configure(&wasi.Config{Args: []string{"guest"}}); err != nil {
			t.Fatal(err)
		}
		return sb
	}
	stays, moves := newSandbox(), newSandbox()
	defer func() {
		if !stays.Grown() || stays.Reset() {
			t.Error("a sandbox that has grown was reset, and would have more memory than its snapshot says")
		}
		stays.Close()
	}()
	for i := range 8 {
		want, err := stays.Call(abi.OpTask, 1<<20*uint32(i))
		if err != nil {
			t.Fatal(err)
		}
		got, err := moves.Call(abi.OpTask, 1<<20*uint32(i))
		if err != nil {
			t.Fatal(err)
		}
		if got != want {
			t.Fatalf("call %d: %d, want %d", i, got, want)
		}
		s, err := moves.Save(nil)
		if err != nil {
			t.Fatal(err)
		}
		moves.Close()
		moves = newSandbox()
		if err := moves.Load(s); err != nil {
			t.Fatal(err)
		}
		t.Logf("call %d: %d bytes changed, %d held", i, s.Changed(), s.Held())
	}
	moves.Close()
}
