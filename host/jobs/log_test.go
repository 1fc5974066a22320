package jobs

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// all reads a log from an offset to its end.
func all(t *testing.T, l *log, off int64) (text string, dropped int64) {
	t.Helper()
	var b bytes.Buffer
	for {
		part, more, err := l.read(off)
		if err != nil {
			t.Fatal(err)
		}
		dropped += part.Dropped
		for _, p := range part.Parts {
			b.Write(p.Data)
		}
		off = part.Next
		if more != nil || part.End {
			return b.String(), dropped
		}
	}
}

// TestLogBound writes much more than a log keeps: it keeps the newest, no more
// than the limit and no less than half of it, also when it is opened again.
func TestLogBound(t *testing.T) {
	dir := t.TempDir()
	const limit = 300 << 10
	l, err := openLog(dir, limit)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { l.close() }()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	var whole strings.Builder
	for i := 0; whole.Len() < 2<<20; i++ {
		line := fmt.Sprintf("%d %s\n", i, strings.Repeat("x", rnd.IntN(1<<(4+rnd.IntN(14)))))
		whole.WriteString(line)
		if err := l.append(int64(i), "task", 1, []byte(line)); err != nil {
			t.Fatal(err)
		}
		if rnd.IntN(50) != 0 {
			continue
		}
		if rnd.IntN(2) == 0 {
			l.close()
			if l, err = openLog(dir, limit); err != nil {
				t.Fatal(err)
			}
		}
		got, dropped := all(t, l, 0)
		if !strings.HasSuffix(whole.String(), got) || len(got) == 0 {
			t.Fatalf("after %d lines it has %d bytes that are not the newest", i, len(got))
		}
		if dropped == 0 && len(got) != whole.Len() || dropped > 0 && len(got) < limit/2-maxRecord {
			t.Fatalf("after %d bytes it has %d, and says that %d are dropped", whole.Len(), len(got), dropped)
		}
		onDisk := int64(0)
		for _, name := range []string{newLog, oldLog} {
			if st, err := os.Stat(filepath.Join(dir, name)); err == nil {
				onDisk += st.Size()
			}
		}
		if onDisk > limit+2*logHeader {
			t.Fatalf("it takes %d bytes, of %d", onDisk, limit)
		}
	}
}

// TestLogTorn cuts a log's file at every byte: what is whole of it is there.
func TestLogTorn(t *testing.T) {
	dir := t.TempDir()
	l, err := openLog(dir, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	var ends []int64
	for i := range 5 {
		if err := l.append(1, "t", 1, fmt.Appendf(nil, "line %d\n", i)); err != nil {
			t.Fatal(err)
		}
		ends = append(ends, l.files[1].size)
	}
	l.close()
	whole, err := os.ReadFile(filepath.Join(dir, newLog))
	if err != nil {
		t.Fatal(err)
	}
	for n := range len(whole) + 1 {
		if err := os.WriteFile(filepath.Join(dir, newLog), whole[:n], 0o600); err != nil {
			t.Fatal(err)
		}
		l, err := openLog(dir, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		want := ""
		for i, end := range ends {
			if logHeader+end <= int64(n) {
				want += fmt.Sprintf("line %d\n", i)
			}
		}
		if got, _ := all(t, l, 0); got != want {
			t.Errorf("cut at %d: %q, want %q", n, got, want)
		}
		if err := l.append(2, "t", 1, []byte("more\n")); err != nil {
			t.Errorf("cut at %d: %v", n, err)
		}
		if got, _ := all(t, l, 0); got != want+"more\n" {
			t.Errorf("cut at %d, and written to: %q", n, got)
		}
		l.close()
	}
}

// TestLogOffsets asks for every offset: those where no part begins are refused.
func TestLogOffsets(t *testing.T) {
	l, err := openLog(t.TempDir(), 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	defer l.close()
	good := map[int64]bool{0: true}
	for range 20 {
		// What is printed looks like a record with a right checksum, of another place.
		fake := binary.LittleEndian.AppendUint32(nil, recordFixed)
		body := make([]byte, recordFixed)
		fake = binary.LittleEndian.AppendUint32(fake, checksum(0, body))
		if err := l.append(1, "", 1, append(fake, body...)); err != nil {
			t.Fatal(err)
		}
		good[l.files[1].size] = true
	}
	for off := int64(-3); off < l.files[1].size+3; off++ {
		_, _, err := l.read(off)
		if good[off] != (err == nil) || err != nil && !errors.Is(err, ErrOffset) {
			t.Errorf("offset %d: %v", off, err)
		}
	}
}

// FuzzLog opens files of any content, reads all of them, and writes on.
func FuzzLog(f *testing.F) {
	head := binary.LittleEndian.AppendUint64([]byte(logMagic), 0)
	f.Add([]byte{}, []byte{})
	f.Add(head, head)
	body := append(make([]byte, recordFixed), "hello"...)
	rec := binary.LittleEndian.AppendUint32(nil, uint32(len(body)))
	rec = binary.LittleEndian.AppendUint32(rec, checksum(0, body))
	f.Add([]byte{}, append(append(head[:len(head):len(head)], rec...), body...))
	f.Fuzz(func(t *testing.T, old, now []byte) {
		dir := t.TempDir()
		for name, b := range map[string][]byte{oldLog: old, newLog: now} {
			if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		l, err := openLog(dir, 0)
		if err != nil {
			return
		}
		defer l.close()
		before, _ := all(t, l, 0)
		if err := l.append(1, "t", 1, []byte("more")); err != nil {
			t.Fatal(err)
		}
		if after, _ := all(t, l, 0); after != before+"more" && !strings.HasSuffix(after, "more") {
			t.Errorf("%q became %q", before, after)
		}
	})
}
