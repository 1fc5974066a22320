package sandbox_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/host/sandbox"
	"github.com/wray-project/wray/host/wasi"
	"github.com/wray-project/wray/wasm/abi"
)

// dirtier is a guest that writes to as many pages as it is asked to, or does not
// end.
const dirtier = `package main

const pages = 1024

var arena = func() []byte {
	b := make([]byte, pages*4096)
	for i := range b {
		b[i] = byte(i)
	}
	return b
}()

//go:wasmexport wray_call
func call(op, arg uint32) uint32 {
	for op == 3 {
	}
	if op != 2 {
		return 0
	}
	for i := range arg {
		arena[i%pages*4096+i%4096]++
	}
	return uint32(arena[0])
}

func main() {}
`

func dirtySandbox(t testing.TB) (*sandbox.Module, *sandbox.Sandbox) {
	t.Helper()
	m := load(t, buildGo(t, dirtier, "-buildmode=c-shared"))
	sb, err := m.New(sandbox.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(sb.Close)
	return m, sb
}

// TestReset dirties pages by the guest and by the host, few and many, and
// compares all of memory with that of a sandbox that never ran.
func TestReset(t *testing.T) { testReset(t, 200) }

func testReset(t *testing.T, rounds int) {
	t.Helper()
	m, sb := dirtySandbox(t)
	clean, err := m.New(sandbox.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	defer clean.Close()
	want := bytes.Clone(clean.Memory())
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	for round := range rounds {
		n := uint32(rnd.IntN(8))
		if round%5 == 0 {
			n = uint32(rnd.IntN(1024))
		}
		if _, err := sb.Call(abi.Op(2), n); err != nil {
			t.Fatal(err)
		}
		mem := sb.Memory()
		for range rnd.IntN(600) {
			mem[rnd.IntN(len(mem))] ^= byte(1 + rnd.IntN(255))
		}
		sb.Notify(sandbox.Event{Kind: abi.EventReady, Handle: 1})
		if !sb.Reset() {
			t.Fatalf("round %d: no reset", round)
		}
		if n := sb.Unread(); n != 0 {
			t.Fatalf("round %d: %d events of before the reset are unread", round, n)
		}
		if err := sb.Configure(&wasi.Config{Args: []string{"guest"}}); err != nil {
			t.Fatal(err)
		}
		if got := sb.Memory(); !bytes.Equal(got, want) {
			for i := range got {
				if got[i] != want[i] {
					t.Fatalf("round %d: byte %d is %d, want %d", round, i, got[i], want[i])
				}
			}
			t.Fatalf("round %d: %d bytes, want %d", round, len(got), len(want))
		}
	}
}

// TestWindowBounds holds that nothing is laid over what is not the guest's memory.
func TestWindowBounds(t *testing.T) {
	_, sb := dirtySandbox(t)
	size := uint64(len(sb.Memory()))
	for _, r := range [][2]uint64{
		{size, 4096}, {size - abi.MapAlign, 2 * abi.MapAlign}, {0, size + 4096}, {4096, 4096}, {0, 100},
		{1<<64 - abi.MapAlign, abi.MapAlign}, {1<<64 - abi.MapAlign, 2 * abi.MapAlign}, {abi.MapAlign, 1<<64 - abi.MapAlign},
	} {
		at, n := r[0], r[1]
		if err := sb.Window(-1, 0, at, n); err == nil || !strings.Contains(err.Error(), "does not fit") {
			t.Errorf("a window of %d bytes at %d, of %d: %v", n, at, size, err)
		}
		if err := sb.Unwindow(at, n); err == nil || !strings.Contains(err.Error(), "does not fit") {
			t.Errorf("a window of %d bytes at %d, of %d, was taken away: %v", n, at, size, err)
		}
		if n <= 2*abi.MapAlign {
			if err := sb.Lend(make([]byte, n), at); err == nil || !strings.Contains(err.Error(), "do not fit") {
				t.Errorf("%d bytes were lent at %d, of %d: %v", n, at, size, err)
			}
		}
	}
	if err := sb.Lend(nil, 0); err == nil {
		t.Error("nothing was lent")
	}
}

// TestStopBeforeFirstCall stops calls before they begin, in sandboxes that are
// new and so are restored first.
func TestStopBeforeFirstCall(t *testing.T) {
	_, sb := dirtySandbox(t)
	for _, c := range []struct {
		code wray.Code
		stop func()
	}{
		{wray.CodeCanceled, func() { sb.Kill(wray.Errorf(wray.CodeCanceled, "canceled")) }},
		{wray.CodeTimeout, func() { sb.SetDeadline(time.Nanosecond) }},
	} {
		c.stop()
		late := time.AfterFunc(10*time.Second, func() { sb.Kill(wray.Errorf(wray.CodeInternal, "it went on")) })
		_, err := sb.Call(abi.OpMain, 0)
		late.Stop()
		var e *wray.Error
		if !errors.As(err, &e) || e.Code != c.code {
			t.Errorf("ended with %v, want %v", err, c.code)
		}
		if !sb.Reset() {
			t.Fatal("no reset")
		}
	}
}

// TestToldOnce has a call begin in a sandbox whose last call was told that it
// waits for nothing, and then ended because what it waited for came: the next one
// is told anew before it is ended.
func TestToldOnce(t *testing.T) {
	_, sb := dirtySandbox(t)
	*sb.Told() = true
	if _, err := sb.Call(abi.Op(2), 1); err != nil {
		t.Fatal(err)
	}
	if *sb.Told() {
		t.Error("the call would be ended without a word")
	}
}

// BenchmarkFresh compares calls of a fresh sandbox with those of a warm one.
func BenchmarkFresh(b *testing.B) {
	_, sb := dirtySandbox(b)
	for _, pages := range []uint32{0, 4, 16, 64, 256} {
		for _, fresh := range []bool{false, true} {
			name := "warm"
			if fresh {
				name = "fresh"
			}
			b.Run(fmt.Sprintf("pages=%d/%s", pages, name), func(b *testing.B) {
				for b.Loop() {
					if fresh && !sb.Reset() {
						b.Fatal("no reset")
					}
					if _, err := sb.Call(abi.Op(2), pages); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
