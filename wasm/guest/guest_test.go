package guest_test

import (
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/wray-project/wray/wasm/abi"
)

// TestDriver runs the cases of testdata/prog that check themselves.
func TestDriver(t *testing.T) {
	for _, name := range []string{"values", "gets", "errors", "streams", "windows", "waits", "stash", "lookalikes"} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t, "prog")
			// What never comes must not come as a Deadlock, on a slow machine
			// either; and a stash is of one sandbox.
			h.patient = true
			if name == "stash" {
				h.limit = 1
			}
			out, errs, code, err := h.drive(name)
			if code != 0 || err != nil {
				t.Errorf("exit code %d, %v\n%s%s", code, err, out, errs)
			}
		})
	}
}

// TestStoreFull puts more than the store holds: the guest collects garbage.
func TestStoreFull(t *testing.T) {
	h := newHost(t, "prog")
	h.capacity = 1 << 20
	out, errs, code, err := h.drive("puts")
	if code != 0 || err != nil {
		t.Errorf("exit code %d, %v\n%s%s", code, err, out, errs)
	}
}

// TestSlabs gets long lists of references, of which it keeps some: what is not
// kept makes room, what is kept is there.
func TestSlabs(t *testing.T) {
	h := newHost(t, "prog")
	h.capacity = 20 << 20
	out, errs, code, err := h.drive("slabs")
	if code != 0 || err != nil {
		t.Errorf("exit code %d, %v\n%s%s", code, err, out, errs)
	}
	h.tasks.Wait()
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.handles != 0 {
		t.Errorf("%d handles are still held", h.handles)
	}
}

// TestHandlesGivenBack checks that a driver and tasks that ended hold nothing.
// A task's result is there before the task has given back what it held.
func TestHandlesGivenBack(t *testing.T) {
	h := newHost(t, "prog")
	if out, errs, code, err := h.drive("values"); code != 0 || err != nil {
		t.Fatalf("exit code %d, %v\n%s%s", code, err, out, errs)
	}
	h.tasks.Wait()
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.handles != 0 {
		t.Errorf("%d handles are still held", h.handles)
	}
}

func TestDeadlock(t *testing.T) {
	_, errs, _, err := drive(t, "prog", "deadlock")
	if err == nil || !strings.Contains(errs, "deadlock") || !strings.Contains(errs, "main.deadlock") {
		t.Errorf("%v\n%s", err, errs)
	}
	// A task that waits to be canceled is told, too, and waits on.
	for _, which := range []string{"task", "canceled"} {
		if out, errs, code, err := drive(t, "prog", "deadlock", which); code != 0 || err != nil {
			t.Errorf("%s: exit code %d, %v\n%s%s", which, code, err, out, errs)
		}
	}
}

// TestRestore makes three sandboxes of one snapshot. Two that are restored
// differ in everything random; two that are not are the same, which shows
// that the test would notice.
func TestRestore(t *testing.T) {
	h := newHost(t, "prog")
	var out strings.Builder
	sb := h.sandbox(&out, os.Stderr, "random")
	image := append([]byte(nil), sb.bytes(0, sb.mem.Size())...)
	run := func(restore bool) []string {
		sb.mem.Write(0, image)
		out.Reset()
		if restore {
			if _, err := sb.run(abi.OpRestore, 0); err != nil {
				t.Fatal(err)
			}
		}
		if code, err := sb.run(abi.OpMain, 0); code != 0 || err != nil {
			t.Fatal(code, err)
		}
		return strings.Split(strings.TrimSpace(out.String()), "\n")
	}
	a, b := run(false), run(false)
	for i := range a {
		if a[i] != b[i] {
			t.Errorf("the same snapshot gave %q and %q", a[i], b[i])
		}
	}
	a, b = run(true), run(true)
	if len(a) != 4 {
		t.Fatalf("the program printed %q", a)
	}
	for i := range a {
		if a[i] == b[i] {
			t.Errorf("two restored sandboxes both gave %q", a[i])
		}
	}
}

// BenchmarkGuest reports what the binding costs a guest, in processor time
// (the machine may be busy), with a host that does nothing. "task" is the other
// side: to run a task that takes and returns an int.
func BenchmarkGuest(b *testing.B) {
	const n = 200_000
	for _, name := range []string{"put", "get", "submit", "get of a result"} {
		b.Run(name, func(b *testing.B) {
			h := newHost(b, "prog")
			var out strings.Builder
			sb := h.sandbox(&out, &out, "bench", name, strconv.Itoa(n))
			h.null = true
			for b.Loop() {
				t := cpuTime()
				if code, err := sb.run(abi.OpMain, 0); code != 0 || err != nil {
					b.Fatalf("exit code %d, %v\n%s", code, err, out.String())
				}
				b.ReportMetric(float64(cpuTime()-t)/n, "cpu-ns/each")
			}
			b.Logf("%d handles dropped", sb.dropped)
		})
	}
	b.Run("task", func(b *testing.B) {
		h := newHost(b, "prog")
		sb := h.sandbox(os.Stdout, os.Stderr)
		h.null = true
		sb.task = &task{fn: h.declared["double"], results: make([]*object, 1),
			args: []*object{{ready: true, encoding: uint32(abi.EncodingCBOR), data: []byte{5}}}}
		for b.Loop() {
			t := cpuTime()
			for range n {
				if _, err := sb.run(abi.OpTask, 0); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(cpuTime()-t)/n, "cpu-ns/each")
		}
	})
	b.Run("all", func(b *testing.B) {
		out, errs, code, err := drive(b, "prog", "bench", "all")
		if code != 0 || err != nil {
			b.Fatalf("exit code %d, %v\n%s", code, err, errs)
		}
		b.Logf("\n%s", out)
	})
}
