package sandbox_test

import (
	"bytes"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/wray-project/wray/host/sandbox"
	"github.com/wray-project/wray/host/wasi"
	"github.com/wray-project/wray/wasm/abi"
)

// same fails the test where two memories differ.
func same(t *testing.T, what string, got, want []byte) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%s: %d bytes, want %d", what, len(got), len(want))
	}
	for i := range got {
		if got[i] != want[i] {
			t.Fatalf("%s: byte %d is %d, want %d", what, i, got[i], want[i])
		}
	}
}

// growing is a module whose wray_call(op, arg) makes memory arg pages larger.
func growing() []byte {
	section := func(id byte, body string) string { return string([]byte{id, byte(len(body))}) + body }
	return []byte("\x00asm\x01\x00\x00\x00" +
		section(1, "\x01\x60\x02\x7f\x7f\x01\x7f") +
		section(3, "\x01\x00") +
		section(5, "\x01\x00\x40") + // 64 pages
		section(7, "\x02\x06memory\x02\x00\x09wray_call\x00\x00") +
		section(10, "\x01\x06\x00\x20\x01\x40\x00\x0b"))
}

// TestCheckpoint writes to a sandbox that grows, lays windows over it and takes
// them away, takes checkpoints meanwhile, and goes back to the last one now and
// then: byte by byte it is what was saved.
func TestCheckpoint(t *testing.T) {
	m := load(t, growing())
	rnd := seeded(t)
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
	fd, err := unix.MemfdCreate("object", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	object := os.NewFile(uintptr(fd), "object")
	defer object.Close()
	payload := make([]byte, 4*abi.MapAlign)
	for i := range payload {
		payload[i] = byte(rnd.IntN(256))
	}
	if _, err := object.Write(payload); err != nil {
		t.Fatal(err)
	}
	sb := newSandbox()
	defer func() { sb.Close() }()
	var last *sandbox.State
	var want []byte
	var windows, saved []sandbox.Base
	lay := func(sb *sandbox.Sandbox, w sandbox.Base) {
		if err := sb.Window(fd, 0, w.At, w.Len); err != nil {
			t.Fatal(err)
		}
	}
	kept := 0
	for at := 0; at < len(sb.Memory()); at += 4096 {
		sb.Memory()[at] = 1 // that windows take away
	}
	for round := range 120 {
		switch n := rnd.IntN(8); {
		case n == 0 && len(sb.Memory()) < 40<<20:
			if _, err := sb.Call(abi.OpTask, uint32(rnd.IntN(32))); err != nil {
				t.Fatal(err)
			}
		case n < 3:
			at := uint64(rnd.IntN(len(sb.Memory())/abi.MapAlign-4)) * abi.MapAlign
			free := true
			for _, w := range windows {
				free = free && (at >= w.At+w.Len || at+4*abi.MapAlign <= w.At)
			}
			if free && round > 20 {
				w := sandbox.Base{At: at, Len: uint64(1+rnd.IntN(4)) * abi.MapAlign}
				w.Bytes = payload[:w.Len]
				lay(sb, w)
				windows = append(windows, w)
			}
		case n == 3 && len(windows) > 0:
			i := rnd.IntN(len(windows))
			if err := sb.Unwindow(windows[i].At, windows[i].Len); err != nil {
				t.Fatal(err)
			}
			windows = append(windows[:i:i], windows[i+1:]...)
		}
		mem := sb.Memory()
		for range rnd.IntN(300) {
			mem[rnd.IntN(len(mem))] ^= byte(1 + rnd.IntN(255))
		}
		if rnd.IntN(4) == 0 {
			at := rnd.IntN(len(mem) - 1<<20)
			clear(mem[at : at+rnd.IntN(1<<20)])
		}
		switch {
		case rnd.IntN(3) > 0:
			now := bytes.Clone(mem)
			s, err := sb.Checkpoint(windows)
			if err != nil {
				t.Fatal(err)
			}
			last, want, saved = s, now, append([]sandbox.Base(nil), windows...)
			if s.Kept() > 0 {
				kept++
			}
			same(t, "after the checkpoint the sandbox itself", sb.Memory(), want)
		case last != nil && len(mem) >= len(want):
			sb.Close()
			sb = newSandbox()
			if err := sb.Dig(last); err != nil {
				t.Fatal(err)
			}
			windows = append([]sandbox.Base(nil), saved...)
			for _, w := range windows {
				lay(sb, w)
			}
			if err := sb.Load(last); err != nil {
				t.Fatal(err)
			}
			same(t, "back from the checkpoint", sb.Memory(), want)
		}
	}
	// A range that nobody has read since its window went.
	for _, w := range windows {
		if err := sb.Unwindow(w.At, w.Len); err != nil {
			t.Fatal(err)
		}
	}
	const at = 8 * abi.MapAlign
	sb.Memory()[at] = 1
	for range 2 {
		if _, err := sb.Checkpoint(nil); err != nil {
			t.Fatal(err)
		}
		lay(sb, sandbox.Base{At: at, Len: abi.MapAlign})
		if err := sb.Unwindow(at, abi.MapAlign); err != nil {
			t.Fatal(err)
		}
	}
	if last, err = sb.Checkpoint(nil); err != nil {
		t.Fatal(err)
	}
	if b := sb.Memory()[at]; b != 0 {
		t.Errorf("where a window was there is %d, want zero", b)
	}
	if kept < 10 {
		t.Errorf("%d checkpoints had a file, want most", kept)
	}
	if last != nil {
		last.Free()
	}
}

// BenchmarkCheckpoint takes a checkpoint of a sandbox of 64 MiB each time 5% of
// its pages, all over the place, were written to.
func BenchmarkCheckpoint(b *testing.B) {
	m := load(b, buildGo(b, grower, "-buildmode=c-shared"))
	sb, err := m.New(sandbox.Limits{})
	if err != nil {
		b.Fatal(err)
	}
	defer sb.Close()
	if err := sb.Configure(&wasi.Config{Args: []string{"guest"}}); err != nil {
		b.Fatal(err)
	}
	if _, err := sb.Call(abi.OpTask, 64<<20); err != nil {
		b.Fatal(err)
	}
	s, err := sb.Checkpoint(nil)
	if err != nil {
		b.Fatal(err)
	}
	mem := sb.Memory()
	for b.Loop() {
		b.StopTimer()
		for at := 0; at < len(mem); at += 20 * 4096 {
			mem[at]++
		}
		b.StartTimer()
		if s, err = sb.Checkpoint(nil); err != nil {
			b.Fatal(err)
		}
	}
	s.Free()
}
