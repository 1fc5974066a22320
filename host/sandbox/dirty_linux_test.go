package sandbox

import (
	"bytes"
	"os"
	"runtime"
	"testing"
)

// memoryOf returns a memory whose image is what is given, to the end of the test.
func memoryOf(t *testing.T, what []byte) *linearMemory {
	t.Helper()
	img, err := newImage(what)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { img.close() })
	m, err := newLinearMemory(uint64(len(what)), img)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.release() })
	m.Reallocate(uint64(len(what)))
	return m
}

// TestDirtyByFaults writes to pages of a memory in each way in which one becomes
// the guest's own, always to a page that nobody wrote to since all were given
// back, and resets it. Whatever counted the fault, the page must be found.
func TestDirtyByFaults(t *testing.T) {
	if pagemap() < 0 {
		t.Skip("the system does not tell which pages were written to")
	}
	if !faultsCounted() {
		t.Fatal("the system tells which pages were written to, and does not count page faults")
	}
	const pages = 256
	want := bytes.Repeat([]byte("image"), pages*pageSize)[:pages*pageSize]
	m := memoryOf(t, want)
	mem := m.bytes()
	file, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if _, err := file.Write([]byte("other")); err != nil {
		t.Fatal(err)
	}
	ways := []struct {
		name  string
		write func(p []byte)
	}{
		{"this thread", func(p []byte) { p[0]++ }},
		{"a thread that ends", func(p []byte) {
			done := make(chan struct{})
			go func() {
				defer close(done)
				runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
				p[0]++
			}()
			<-done
		}},
		{"a thread that stays", func(p []byte) {
			done := make(chan struct{})
			go func() {
				defer close(done)
				runtime.LockOSThread()
				defer runtime.UnlockOSThread()
				p[0]++
			}()
			<-done
		}},
		{"read(2)", func(p []byte) {
			if _, err := file.ReadAt(p[:5], 0); err != nil {
				t.Fatal(err)
			}
		}},
		{"read, and then written to", func(p []byte) { sink += p[1]; p[0]++ }},
	}
	for at := 0; at < pages; at++ {
		w := ways[at%len(ways)]
		page := mem[at*pageSize:][:pageSize]
		w.write(page)
		if bytes.Equal(page, want[at*pageSize:][:pageSize]) {
			t.Fatalf("page %d, by %s: nothing was written", at, w.name)
		}
		if err := m.reset(); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(mem, want) {
			t.Fatalf("page %d, by %s: it is not the image's after the reset", at, w.name)
		}
		switch at % 16 {
		case 7: // windows come and go
			if err := m.unwindow(uint64(at&^15)*pageSize, 16*pageSize); err != nil {
				t.Fatal(err)
			}
			mem[at*pageSize]++
		case 12: // all is given back
			m.resets = resetsKept - 1
			mem[at*pageSize]++
		}
	}
}

var sink byte

// CountNoFaults has the system count no page faults, for a test.
func CountNoFaults(t *testing.T) {
	was := faultsCounted
	faultsCounted = func() bool { return false }
	t.Cleanup(func() { faultsCounted = was })
}

// TestDirtyKept holds that a reset does not look for written pages where the
// process had no page fault since the last look, and does where it had one. Both
// it can see only between two looks, so it tries until no other fault came.
func TestDirtyKept(t *testing.T) {
	if pagemap() < 0 {
		t.Skip("the system does not tell which pages were written to")
	}
	const pages = 64
	m := memoryOf(t, bytes.Repeat([]byte{1}, pages*pageSize))
	mem := m.bytes()
	mem[0] = 2
	base := uint64(uintptr(m.base))
	kept := false
	for range 10_000 {
		if !m.findDirty() || len(m.dirty) != 1 || m.dirty[0].start != base {
			t.Fatalf("found %v, want the first page", m.dirty)
		}
		m.dirty[0].end = base // no look would say that
		if !m.findDirty() {
			t.Fatal("not found")
		}
		if kept = m.dirty[0].end == base; kept {
			break
		}
	}
	if !kept {
		t.Error("each time another look was taken")
	}
	mem[pageSize] = 2
	if !m.findDirty() || len(m.dirty) != 1 || m.dirty[0].end != base+2*pageSize {
		t.Errorf("found %v, want the first two pages", m.dirty)
	}
	// A count that stands still, of a system that counts nothing, is none.
	CountNoFaults(t)
	for range 2 {
		m.dirty[0].end = base
		if !m.findDirty() || m.dirty[0].end != base+2*pageSize {
			t.Errorf("found %v without a count, want the first two pages", m.dirty)
		}
	}
}
